import pytest
import torch

from glic_pyg.graph.candidates import global_mesh, local_windows
from glic_pyg.graph.quota import GroupQuota, MapQuota


def batch_of(candidates):
    """All nodes in one picture: a group's quota does not depend on it."""
    return torch.zeros_like(candidates.group)


SIZES = [(1, 16, 16), (2, 32, 48), (2, 5, 7), (1, 17, 30)]


@pytest.mark.parametrize("find", [local_windows, global_mesh])
@pytest.mark.parametrize("map_size", SIZES, ids=str)
def test_quota_is_its_definition(find, map_size):
    candidates = find(map_size)
    score = torch.rand(candidates.num_nodes, dtype=torch.double) ** 6 + 1e-6
    quota = GroupQuota()(score, candidates, batch_of(candidates), degree=64)
    for group in candidates.group.unique():
        members = (candidates.group == group).nonzero().squeeze(1).tolist()
        total = sum(score[i].item() for i in members)
        for i in members:
            expected = min(max(64 * len(members) * score[i].item() / total, 1), 256)
            assert quota[i].item() == pytest.approx(expected, rel=1e-12)
    assert quota.min() == 1 or map_size[1] < 16  # the lower clamp was met,
    assert quota.max() == 256 or map_size[1] < 16  # and the upper


@pytest.mark.parametrize("find", [local_windows, global_mesh])
@pytest.mark.parametrize("map_size", SIZES, ids=str)
@pytest.mark.parametrize("degree", [1.5, 16, 64])
def test_a_group_spends_its_budget_where_nothing_is_clamped(find, map_size, degree):
    candidates = find(map_size)
    score = 1 + torch.rand(candidates.num_nodes, dtype=torch.double) / 2
    quota = GroupQuota()(score, candidates, batch_of(candidates), degree=degree)
    for group in candidates.group.unique():
        inside = candidates.group == group
        torch.testing.assert_close(quota[inside].sum(), degree * inside.sum().double())


def test_equal_scores_share_equally():
    candidates = local_windows((1, 13, 21))
    quota = GroupQuota()(
        torch.full((273,), 0.3, dtype=torch.double), candidates, batch_of(candidates), degree=20
    )
    torch.testing.assert_close(quota, torch.full_like(quota, 20))


def test_quota_depends_on_the_own_group_only():
    candidates = local_windows((1, 16, 16))
    score = torch.rand(256) + 0.1
    before = GroupQuota()(score, candidates, batch_of(candidates), degree=64)
    first = candidates.group == 0
    after = GroupQuota()(torch.where(first, score * 5, score), candidates, batch_of(candidates), degree=64)
    torch.testing.assert_close(after, before)  # scaling a whole group changes nothing either
    changed = score.clone()
    changed[0] *= 2  # node 0 is in group 0
    after = GroupQuota()(changed, candidates, batch_of(candidates), degree=64)
    assert torch.equal(after[~first], before[~first])
    assert after[0] > before[0]
    assert (after[first][1:] < before[first][1:]).all()


@pytest.mark.parametrize("find", [local_windows, global_mesh])
def test_quota_of_the_map_is_its_definition(find):
    candidates = find((2, 9, 20))
    score = torch.rand(360, dtype=torch.double) ** 8 + 1e-6
    quota = MapQuota()(score, candidates, torch.arange(2).repeat_interleave(180), degree=64)
    for first in (0, 180):
        total = score[first : first + 180].sum()
        expected = (64 * 180 * score[first : first + 180] / total).clamp(1, 256)
        torch.testing.assert_close(quota[first : first + 180], expected)
    assert quota.min() == 1
    assert quota.max() == 256


def test_a_map_moves_its_budget_between_groups():
    candidates = local_windows((1, 16, 16))
    score = torch.ones(256)
    score[candidates.group == 3] = 4
    degree = [
        quota(score, candidates, batch_of(candidates), degree=10)[candidates.group == 3].mean().item()
        for quota in (GroupQuota(), MapQuota())
    ]
    assert degree == pytest.approx([10, 10 * 4 / 1.75])


@pytest.mark.parametrize("quota", [GroupQuota(), MapQuota()])
def test_quotas_are_the_same_on_every_device(quota, device):
    score = torch.rand(2 * 9 * 20, generator=torch.Generator().manual_seed(0)) + 0.1
    batch = torch.arange(2).repeat_interleave(180)
    expected = quota(score, local_windows((2, 9, 20)), batch, degree=20)
    there = local_windows((2, 9, 20), torch.device(device))
    found = quota(score.to(device), there, batch.to(device), degree=20)
    torch.testing.assert_close(found.cpu(), expected)
