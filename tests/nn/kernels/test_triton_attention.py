"""Triton's attention, both directions, against its definition in torch, in double precision."""

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.graph.candidates import Candidates, anchor_mesh, global_mesh, local_windows, slot_offsets
from glic_pyg.graph.selection import kept_bits
from glic_pyg.nn import distance_bias, position_bias

SIZE = 1, 5, 9
SETS = {"local": local_windows, "global": global_mesh, "anchor": anchor_mesh}


def biased(bias, candidates, distance):
    """Bias of each node and candidate, `N x 256 x heads`, by the functions that lists of edges use."""
    offset = slot_offsets(bias.device)[candidates.slot]
    if distance:
        return bias[distance_bias.distance_row(offset - candidates.shift[:, None]).long()]
    return bias[position_bias.table_row(offset).long()]


def defined(query, key_value, scale, bias, keep, candidates, distance):
    """Return what each node gathers, `N x heads x D`."""
    near = F.pad(key_value, (0, 0, 0, 0, 0, 0, 0, 1))[candidates.candidate[candidates.group]]
    key, value = F.normalize(near[:, :, 0], dim=-1), near[:, :, 1]
    unit = F.normalize(query, dim=-1) * scale[:, None]
    logit = torch.einsum("nhd,nkhd->nkh", unit, key) + biased(bias, candidates, distance)
    weight = logit.masked_fill(~keep[..., None], -torch.inf).softmax(dim=1)
    weight = weight.masked_fill(~keep.any(dim=1)[:, None, None], 0)
    return torch.einsum("nkh,nkhd->nhd", weight, value)


def made(candidates, distance, channels, heads, device, dtype):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(device, dtype).requires_grad_()

    num_nodes = candidates.num_nodes
    rows = distance_bias.SIDE**2 if distance else position_bias.SIDE**2
    scale = torch.linspace(2, 9, heads).to(device).requires_grad_()
    leaves = random(num_nodes, heads, channels), random(num_nodes, 2, heads, channels), scale
    leaves += ((3 * random(rows, heads).float()).detach().requires_grad_(),)
    keep = (torch.rand(num_nodes, 256, generator=generator) < 0.1).to(device)
    keep[:, 0] = True
    keep[3] = False  # a node without edges
    return leaves, keep


CASES = [("local", False, 20, 32), ("anchor", True, 6, 32), ("global", False, 6, 16)]


@pytest.mark.parametrize(("name", "distance", "channels", "bits"), CASES)
def test_values_and_gradients(name, distance, channels, bits, triton_device):
    half = (
        torch.bfloat16 if triton_device == "cuda" else torch.float16
    )  # the interpreter multiplies no others
    dtype = torch.float32 if bits == 32 else half
    from glic_pyg.nn.kernels.triton_attention import groups_of, triton_attention

    candidates = SETS[name](SIZE, torch.device(triton_device))
    leaves, keep = made(candidates, distance, channels, 2, triton_device, dtype)
    groups = groups_of(candidates, heads=2, distance=distance)
    kept = F.pad(kept_bits(keep), (0, 0, 0, 1))
    out = triton_attention(*leaves, kept, groups)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    expected = defined(*exact, keep, candidates, distance)
    assert out.dtype == dtype
    assert not out[3].any()
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(expected)
    found = torch.autograd.grad(out, leaves, direction.to(dtype))
    wanted = torch.autograd.grad(expected, exact, direction.to(dtype).double())
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for a, b in zip((out, *found), (expected, *wanted), strict=True):
        assert ((a.double() - b).norm() / b.norm()).item() < tolerance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the interpreter has one thread")
def test_gradients_are_the_same_in_every_run(triton_device):
    from glic_pyg.nn.kernels.triton_attention import groups_of, triton_attention

    candidates = local_windows((2, 40, 57), torch.device(triton_device))
    leaves, keep = made(candidates, False, 4, 1, triton_device, torch.float32)
    groups, kept = groups_of(candidates, heads=1, distance=False), F.pad(kept_bits(keep), (0, 0, 0, 1))
    runs = []
    for _ in range(2):
        out = triton_attention(*leaves, kept, groups)
        runs.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_operators_are_what_torch_expects_of_them(triton_device):
    from glic_pyg.nn.kernels import triton_attention as kernels

    candidates = local_windows((1, 3, 5), torch.device(triton_device))
    (query, key_value, _, bias), keep = made(candidates, False, 4, 1, triton_device, torch.float32)
    groups = kernels.groups_of(candidates, heads=1, distance=False)
    indices = [*groups[:4], groups.order, groups.run, *groups.candidates, *groups.rows]
    key, value = (x.detach().contiguous().requires_grad_() for x in key_value.unbind(1))
    kept = F.pad(kept_bits(keep[:15]), (0, 0, 0, 1))
    arguments = query, key, value, bias, kept, indices, groups.runs, groups.side
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(kernels._attention, arguments, test_utils=tests)


def test_groups_lay_out_every_edge(triton_device):
    """Runs hold every group once, none of two kinds, and every node and row is found where it stands."""
    from glic_pyg.nn.kernels.triton_attention import groups_of

    candidates = global_mesh((2, 20, 37), torch.device(triton_device))
    groups = groups_of(candidates, heads=8, distance=True)
    assert sorted(groups.order.tolist()) == list(range(len(candidates.candidate)))
    first, kinds = 0, []
    for kind, runs in enumerate(groups.runs):
        bounds = groups.run[first : first + runs + 1]
        members = groups.order[bounds[0] : bounds[-1]].long()
        assert (bounds.diff() > 0).all()
        assert (groups.kind[members] == kind).all()
        kinds.append(len(members))
        first += runs
    assert sum(kinds) == len(groups.order)
    place, begins = groups.candidates
    count = begins.diff()
    node = torch.arange(candidates.num_nodes, device=count.device).repeat_interleave(count)
    assert torch.equal(candidates.candidate.flatten()[place[: begins[-1]].long()], node)
    assert begins[-1] == (candidates.candidate < candidates.num_nodes).sum()


def test_candidates_that_tell_no_distance_are_refused(triton_device):
    from glic_pyg.nn.kernels.triton_attention import groups_of

    known = local_windows((1, 3, 5), torch.device(triton_device))
    candidates = Candidates(known.candidate, known.group, known.slot)
    with pytest.raises(ValueError, match=r"^Expected candidates that tell their distance.* \(got none\)$"):
        groups_of(candidates, heads=1, distance=True)
