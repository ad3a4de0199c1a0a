"""Candidates against loops over the definition: windows and meshes, group by group."""

from collections.abc import Iterator

import pytest
import torch

from glic_pyg.graph.candidates import (
    Candidates,
    anchor_mesh,
    global_mesh,
    local_windows,
    places,
    slot_offsets,
)
from glic_pyg.graph.grid import MapSize

SIZES = [
    (1, 16, 16),
    (2, 32, 48),
    (1, 64, 16),
    (3, 16, 32),
    (1, 1, 1),
    (2, 5, 7),
    (1, 8, 24),
    (2, 17, 30),
    (1, 40, 33),
]

# Of one group: its queries as (row, column) by slot, and its candidates, in order.
Group = tuple[list[tuple[int, int]], list[tuple[int, int]]]


def windows_by_definition(height: int, width: int) -> Iterator[Group]:
    for i in range(-(-height // 8)):
        for j in range(-(-width // 8)):
            queries = [(8 * i + qi, 8 * j + qj) for qi in range(8) for qj in range(8)]
            candidates = [(8 * i - 4 + ci, 8 * j - 4 + cj) for ci in range(16) for cj in range(16)]
            yield queries, candidates


def meshes_by_definition(height: int, width: int) -> Iterator[Group]:
    height, width = -(-height // 16) * 16, -(-width // 16) * 16
    nh, nw, sh, sw = height // 8, width // 8, height // 16, width // 16
    for i in range(nh):
        for j in range(nw):
            queries = [(qi * nh + i, qj * nw + j) for qi in range(8) for qj in range(8)]
            candidates = [(ci * sh + i % sh, cj * sw + j % sw) for ci in range(16) for cj in range(16)]
            yield queries, candidates


def anchors_by_definition(height: int, width: int) -> Iterator[Group]:
    sh, sw = -(-height // 16), -(-width // 16)
    anchors = [(ci * sh + sh // 2, cj * sw + sw // 2) for ci in range(16) for cj in range(16)]
    for queries, _ in meshes_by_definition(height, width):
        yield queries, anchors


def assert_as_defined(found: Candidates, map_size: MapSize, groups: list[Group]) -> None:
    batch_size, height, width = map_size
    num_nodes = batch_size * height * width
    assert found.num_nodes == found.group.numel() == found.slot.numel() == num_nodes
    seen = torch.zeros(num_nodes, dtype=torch.int64)
    for b in range(batch_size):

        def node_id(position: tuple[int, int], b: int = b) -> int:
            row, column = position
            inside = 0 <= row < height and 0 <= column < width
            return (b * height + row) * width + column if inside else num_nodes

        for queries, candidates in groups:
            expected = torch.tensor([node_id(position) for position in candidates])
            for slot, query in enumerate(node_id(position) for position in queries):
                if query == num_nodes:
                    continue
                seen[query] += 1
                assert found.slot[query] == slot
                assert torch.equal(found.candidate[found.group[query]], expected)
    assert (seen == 1).all()


@pytest.mark.parametrize("map_size", SIZES, ids=str)
def test_local_windows(map_size):
    assert_as_defined(local_windows(map_size), map_size, list(windows_by_definition(*map_size[1:])))


@pytest.mark.parametrize("map_size", SIZES, ids=str)
def test_global_mesh(map_size):
    assert_as_defined(global_mesh(map_size), map_size, list(meshes_by_definition(*map_size[1:])))


@pytest.mark.parametrize("map_size", SIZES, ids=str)
def test_anchor_mesh(map_size):
    assert_as_defined(anchor_mesh(map_size), map_size, list(anchors_by_definition(*map_size[1:])))


@pytest.mark.usefixtures("shapes_unchecked")
def test_groups_have_256_candidates():
    node = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"^Expected 256 candidates per group, .* \(got \(1, 9\)\)$"):
        Candidates(candidate=torch.zeros(1, 9, dtype=torch.long), group=node, slot=node)


@pytest.mark.parametrize("find", [local_windows, global_mesh])
@pytest.mark.parametrize("map_size", SIZES, ids=str)
def test_every_node_is_its_own_candidate_once(find, map_size):
    found = find(map_size)
    node = torch.arange(found.num_nodes)
    assert ((found.candidate[found.group] == node[:, None]).sum(dim=1) == 1).all()


@pytest.mark.parametrize("find", [local_windows, global_mesh])
def test_groups_do_not_mix_pictures(find):
    found = find((3, 10, 21))
    picture = torch.cat([torch.arange(3).repeat_interleave(210), torch.tensor([-1])])  # the zero node: none
    other = picture[found.candidate[found.group]]
    assert ((other == picture[:-1, None]) | (other == -1)).all()


@pytest.mark.parametrize("find", [local_windows, global_mesh])
def test_no_two_nodes_share_a_place(find):
    found = find((2, 17, 30))
    assert (found.group * 64 + found.slot).unique().numel() == found.num_nodes
    assert found.slot.min() >= 0
    assert found.slot.max() < 64


def test_a_full_mesh_has_no_zero_node():
    assert global_mesh((2, 32, 48)).candidate.max() == 2 * 32 * 48 - 1


def test_slot_offsets():
    offsets = slot_offsets()
    assert offsets.shape == (64, 256, 2)
    assert offsets.dtype == torch.int8
    for query in range(64):
        for candidate in range(0, 256, 5):
            expected = [candidate // 16 - query // 8, candidate % 16 - query % 8]
            assert offsets[query, candidate].tolist() == expected
    assert (offsets.min().item(), offsets.max().item()) == (-7, 15)


@pytest.mark.parametrize("find", [local_windows, global_mesh, anchor_mesh])
def test_groups_are_the_same_on_every_device(find, device):
    found, expected = find((2, 17, 30), torch.device(device)), find((2, 17, 30))
    for name in ("candidate", "group", "slot", "node"):
        assert getattr(found, name).device.type == device
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name
    assert torch.equal(slot_offsets(torch.device(device)).cpu(), slot_offsets())


def test_nodes_that_share_a_slot_are_refused():
    node = torch.zeros(4, dtype=torch.long)
    candidates = Candidates(
        candidate=torch.zeros(1, 256, dtype=torch.long), group=node, slot=torch.tensor([0, 1, 1, 3])
    )
    with pytest.raises(ValueError, match=r"^Expected a slot for each of 4 nodes \(got 3 slots\)$"):
        _ = candidates.node


@pytest.mark.parametrize("find", [local_windows, global_mesh])
def test_places_are_group_and_slot(find):
    found = find((2, 17, 30))
    assert torch.equal(places(found.node, found.num_nodes), 64 * found.group + found.slot)
