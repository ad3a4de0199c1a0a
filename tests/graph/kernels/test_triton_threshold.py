"""Triton's choice of neighbours against the definition in torch, in double precision."""

import pytest
import torch

from glic_pyg.graph import Centered, Cosine, GraphBuilder, Threshold
from glic_pyg.graph.candidates import anchor_mesh, global_mesh, local_windows
from glic_pyg.graph.selection import kept_mask

SETS = {"local": local_windows, "global": global_mesh, "anchor": anchor_mesh}


def unpacked(bits):
    """`... x 8` -> `... x 256`."""
    return (bits[..., None] >> torch.arange(32, device=bits.device) & 1).flatten(-2) != 0


# Fewer and more channels than are multiplied at a time.
@pytest.mark.parametrize(("name", "channels"), [("local", 40), ("global", 5), ("anchor", 5)])
def test_kept_are_those_above_the_bisected_threshold(name, channels, triton_device):
    from glic_pyg.graph.kernels.triton_threshold import kept_bits

    torch.manual_seed(0)
    size = (2, 5, 9)
    candidates = SETS[name](size, torch.device(triton_device))
    num_nodes = candidates.num_nodes
    unit = torch.nn.functional.normalize(torch.randn(num_nodes + 1, channels) + 0.3, dim=1)
    unit[num_nodes] = 0
    unit, quota = unit.to(triton_device), (torch.rand(num_nodes) * 40 + 1).to(triton_device)
    bits = kept_bits(unit, quota, candidates.node, candidates.candidate, bisections=7)
    similarity = Cosine()(unit.double(), candidates, k=256)
    expected = kept_mask(similarity, quota.double(), candidates, Threshold(bisections=7))
    found = unpacked(bits)
    assert bits.dtype == torch.int32
    assert not found[num_nodes].any()
    assert found[:-1].any(dim=1).all()
    # What lies within rounding of its node's threshold may fall on either side.
    assert (found[:-1] != expected).float().mean() < 1e-3
    assert expected.float().mean() > 0.01


def test_a_graph_as_bits_has_the_edges_of_its_list(triton_device):
    torch.manual_seed(0)
    x = torch.randn(1, 6, 9, 10).to(triton_device)
    x[:, :, 4, 4] = 0  # alike to none: it keeps all
    build = GraphBuilder(degree=12, similarity=Centered())
    build.kernels = "triton"
    for listed, packed in zip(build(x), build(x, edges=False), strict=True):
        groups, (source, target) = packed.groups, listed.edge_index
        node, place = unpacked(packed.kept).nonzero(as_tuple=True)
        keys = node * 256 + place
        at = (groups.candidate[groups.group[target]] == source[:, None]).int()
        offset = listed.offset.long() + torch.stack([groups.slot[target] // 8, groups.slot[target] % 8], 1)
        wanted = target * 256 + offset[:, 0] * 16 + offset[:, 1]
        assert at.any(dim=1).all()
        different = set(keys.tolist()) ^ set(wanted.tolist())
        assert len(different) < 1e-3 * len(wanted)
        assert packed.zero_node == listed.zero_node
        assert packed.map_size == listed.map_size
        assert packed.stride == listed.stride
