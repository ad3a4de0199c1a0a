"""Selection against a loop over nodes."""

import pytest
import torch

from glic_pyg.graph.selection import select


def threshold_by_definition(similarity: list[float], quota: float) -> list[bool]:
    t, low, high = sum(similarity) / len(similarity), min(similarity), 1.0
    for _ in range(5):
        if sum(s > t for s in similarity) > quota:
            low, t = t, (t + high) / 2
        else:
            high, t = t, (t + low) / 2
    keep = [s > t for s in similarity]
    return keep if any(keep) else [True] * len(similarity)


@pytest.fixture
def similarity():
    """Rows that differ in spread, with ties; values and the mean are exact, however they are added up."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-64, 65, (200, 256), generator=generator) / 64
    return rows.double() * torch.tensor([1.0, 0.5, 0.125, 0.0625]).repeat(50)[:, None]


@pytest.mark.parametrize("quota", [1.0, 10.3, 64.0, 128.5, 256.0])
def test_threshold_is_its_definition(similarity, quota):
    keep = select(similarity, torch.full((200,), quota, dtype=torch.double), method="threshold")
    for row, kept in zip(similarity, keep, strict=True):
        assert kept.tolist() == threshold_by_definition(row.tolist(), quota)


def test_thresholds_are_found_per_row(similarity):
    quota = torch.linspace(1, 256, 200, dtype=torch.double)
    keep = select(similarity, quota, method="threshold")
    for i, kept in enumerate(keep):
        assert kept.tolist() == threshold_by_definition(similarity[i].tolist(), quota[i].item())
        alone = select(similarity[i : i + 1], quota[i : i + 1], method="threshold")
        assert torch.equal(alone[0], kept)


def test_threshold_meets_the_quota_roughly():
    similarity = torch.rand(500, 256) * 2 - 1
    quota = torch.linspace(10, 250, 500)
    degree = select(similarity, quota, method="threshold").sum(dim=1)
    assert (degree - quota).abs().max() < 16


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_a_row_that_keeps_nothing_keeps_all(value):
    similarity = torch.full((3, 256), value)
    similarity[1, 7] = 1
    keep = select(similarity, torch.full((3,), 5.0), method="threshold")
    assert keep.sum(dim=1).tolist() == [256, 1, 256]
    assert keep[1, 7]


def test_top_d_keeps_exactly_the_rounded_quota_of_the_most_similar():
    similarity = torch.rand(300, 256).argsort(dim=1) / 256  # no ties
    quota = torch.linspace(1, 256, 300)
    keep = select(similarity, quota, method="top_d")
    assert torch.equal(keep.sum(dim=1), quota.round().long())
    for row, kept in zip(similarity, keep, strict=True):
        if not kept.all():
            assert row[kept].min() > row[~kept].max()


def test_top_d_takes_the_first_of_equals():
    similarity = torch.zeros(1, 256)
    similarity[0, 100] = 1
    keep = select(similarity, torch.tensor([4.0]), method="top_d")
    assert keep[0].nonzero().squeeze(1).tolist() == [0, 1, 2, 100]


@pytest.mark.parametrize("method", ["threshold", "top_d"])
def test_input_is_not_modified(method):
    similarity, quota = torch.rand(4, 256), torch.full((4,), 9.0)
    before = similarity.clone(), quota.clone()
    select(similarity, quota, method=method)
    assert torch.equal(similarity, before[0])
    assert torch.equal(quota, before[1])
