"""Selection against a loop over nodes."""

import pytest
import torch

from glic_pyg.graph.candidates import local_windows
from glic_pyg.graph.selection import KNN, Threshold, TopD, kept_edges


def threshold_by_definition(similarity: list[float], quota: float, bisections: int = 5) -> list[bool]:
    t, low, high = sum(similarity) / len(similarity), min(similarity), 1.0
    for _ in range(bisections):
        if sum(s > t for s in similarity) > quota:
            low, t = t, (t + high) / 2
        else:
            high, t = t, (t + low) / 2
    return [s > t for s in similarity]


@pytest.fixture
def similarity():
    """Rows that differ in spread, with ties; values and the mean are exact, however they are added up."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-64, 65, (200, 256), generator=generator) / 64
    return rows.double() * torch.tensor([1.0, 0.5, 0.125, 0.0625]).repeat(50)[:, None]


@pytest.mark.parametrize("bisections", [5, 10])
@pytest.mark.parametrize("quota", [1.0, 10.3, 64.0, 128.5, 256.0])
def test_threshold_is_its_definition(similarity, quota, bisections):
    keep = Threshold(bisections=bisections)(similarity, torch.full((200,), quota, dtype=torch.double))
    for row, kept in zip(similarity, keep, strict=True):
        assert kept.tolist() == threshold_by_definition(row.tolist(), quota, bisections)


def test_more_bisections_meet_the_quota_where_candidates_are_alike():
    generator = torch.Generator().manual_seed(0)
    similarity = 1 - torch.rand(50, 256, generator=generator, dtype=torch.double) ** 5 / 20  # most near 1
    quota = torch.full((50,), 16.0)
    few, many = (Threshold(bisections=n)(similarity, quota).sum(dim=1) for n in (5, 22))
    assert few.min() > 60
    assert (many - 16).abs().max() <= 2


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("bisections", [0, 25, 5.0, "5", None])
def test_a_number_of_bisections_that_makes_no_sense_is_refused(bisections):
    with pytest.raises(ValueError, match=rf"Expected bisections in 1..24 \(got {bisections}\)"):
        Threshold(bisections=bisections)


def test_thresholds_are_found_per_row(similarity):
    quota = torch.linspace(1, 256, 200, dtype=torch.double)
    keep = Threshold()(similarity, quota)
    for i, kept in enumerate(keep):
        assert kept.tolist() == threshold_by_definition(similarity[i].tolist(), quota[i].item())
        alone = Threshold()(similarity[i : i + 1], quota[i : i + 1])
        assert torch.equal(alone[0], kept)


def test_threshold_meets_the_quota_roughly():
    similarity = torch.rand(500, 256) * 2 - 1
    quota = torch.linspace(10, 250, 500)
    degree = Threshold()(similarity, quota).sum(dim=1)
    assert (degree - quota).abs().max() < 16


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_a_node_that_keeps_nothing_keeps_all(value):
    candidates = local_windows((1, 1, 3))
    similarity = torch.full((1, 64, 256), value)
    similarity[0, 1, 7] = 1
    kept = kept_edges(similarity, torch.full((3,), 5.0), candidates, Threshold())
    assert kept.index[1].bincount().tolist() == [256, 1, 256]
    assert kept.index[0, kept.index[1] == 1] == candidates.candidate[0, 7]


def test_top_d_keeps_exactly_the_rounded_quota_of_the_most_similar():
    similarity = torch.rand(300, 256).argsort(dim=1) / 256  # no ties
    quota = torch.linspace(1, 256, 300)
    keep = TopD()(similarity, quota)
    assert torch.equal(keep.sum(dim=1), quota.round().long())
    for row, kept in zip(similarity, keep, strict=True):
        if not kept.all():
            assert row[kept].min() > row[~kept].max()


def test_top_d_takes_the_first_of_equals():
    similarity = torch.zeros(1, 256)
    similarity[0, 100] = 1
    keep = TopD()(similarity, torch.tensor([4.0]))
    assert keep[0].nonzero().squeeze(1).tolist() == [0, 1, 2, 100]


def test_knn_keeps_the_k_most_similar_whatever_the_quota():
    similarity = torch.rand(300, 256).argsort(dim=1) / 256
    keep = KNN(k=7)(similarity, torch.linspace(1, 256, 300))
    expected = torch.zeros_like(keep).scatter_(1, similarity.topk(7, dim=1).indices, True)
    assert torch.equal(keep, expected)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("k", [0, 257, 2.5, "7"])
def test_knn_has_candidates_for_its_k(k):
    with pytest.raises(ValueError, match=rf"^Expected k in 1\.\.256 \(got {k}\)$"):
        KNN(k=k)


def test_what_is_beyond_reach_changes_nothing():
    """What a selection says it can do without: torch-cluster leaves it out."""
    similarity = torch.rand(50, 256).argsort(dim=1) / 256
    quota = torch.linspace(1, 60, 50)
    for selection, reach in [(Threshold(), 256), (TopD(), 60), (KNN(k=5), 5)]:
        assert selection.reach(quota, 256) == reach
        rank = similarity.argsort(dim=1, descending=True).argsort(dim=1)
        known = similarity.masked_fill(rank >= reach, -torch.inf)
        assert torch.equal(selection(known, quota), selection(similarity, quota))


@pytest.mark.parametrize("selection", [Threshold(), TopD(), KNN(k=5)])
def test_input_is_not_modified(selection):
    similarity, quota = torch.rand(4, 256), torch.full((4,), 9.0)
    before = similarity.clone(), quota.clone()
    selection(similarity, quota)
    assert torch.equal(similarity, before[0])
    assert torch.equal(quota, before[1])


@pytest.mark.parametrize("selection", [Threshold(), TopD(), KNN(k=9)])
def test_edges_are_the_same_on_every_device(selection, device):
    """Of similarities whose sums are exact, many of them equal."""
    candidates, there = local_windows((2, 9, 21)), local_windows((2, 9, 21), torch.device(device))
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randint(-64, 65, (len(candidates.candidate), 64, 256), generator=generator) / 64
    quota = torch.linspace(1, 256, candidates.num_nodes)
    found = kept_edges(similarity.to(device), quota.to(device), there, selection)
    expected = kept_edges(similarity, quota, candidates, selection)
    for tensor, other in zip(found, expected, strict=True):
        assert torch.equal(tensor.cpu(), other)
