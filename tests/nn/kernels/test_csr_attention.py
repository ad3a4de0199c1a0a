"""The fused kernel against the formula, written densely."""

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.nn.kernels.csr_attention import csr_attention

ROWS = 23  # of the bias table; any number does


def random_graph(degrees, num_sources, generator):
    """Edges sorted by target; source `num_sources`, the zero node, may occur more than once per target.

    Targets are to be worked on in a random order.
    """
    indptr = torch.tensor([0, *degrees]).cumsum(0)
    num_edges = int(indptr[-1])
    source = torch.randint(0, num_sources + 1, (num_edges,), generator=generator)
    row = torch.randint(0, ROWS, (num_edges,), generator=generator).short()
    return row, indptr, source, torch.randperm(len(degrees), generator=generator)


def random_features(num_nodes, num_sources, heads, head_dim, generator):
    query = torch.randn(num_nodes, head_dim, heads, generator=generator)
    key_value = torch.randn(num_sources + 1, 2, head_dim, heads, generator=generator)
    key_value[-1] = 0  # the zero node
    scale = torch.rand(heads, generator=generator) * 20
    bias = torch.rand(ROWS, heads, generator=generator) * 16
    return query, key_value, scale, bias


def dense(query, key_value, scale, bias, row, indptr, source, _):
    """Softmax attention with a matrix of all targets and sources."""
    num_nodes, num_sources = len(query), len(key_value)
    key, value = key_value.unbind(dim=1)
    cosine = torch.einsum("ich,jch->ijh", F.normalize(query, dim=1), F.normalize(key, dim=1))
    target = torch.arange(num_nodes).repeat_interleave(indptr.diff())
    # Edges between the same two nodes differ in their bias: sum their exponentials.
    weight = torch.zeros(num_nodes, num_sources, len(scale), dtype=query.dtype)
    weight = weight.index_put((target, source), bias[row.long()].exp(), accumulate=True)
    weight = weight * (scale * cosine).exp()
    total = weight.sum(dim=1, keepdim=True)
    return torch.einsum("ijh,jch->ich", weight / torch.where(total > 0, total, 1), value)


def compare(features, graph):
    """Check values, and gradients of a random projection."""
    fused = [x.clone().requires_grad_() for x in features]
    plain = [x.double().requires_grad_() for x in features]
    out, expected = csr_attention(*fused, *graph), dense(*plain, *graph)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(direction)
    expected.backward(direction.double())
    for x, y in zip(fused, plain, strict=True):
        tolerance = 1e-5 * max(1.0, y.grad.abs().max().item())
        torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-4, atol=tolerance)
    return out


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "degrees",
    [
        [5, 1, 30, 200, 2, 7, 64, 3],
        [0, 4, 0, 0, 9, 0],  # targets without edges, the first and the last among them
        [0, 0, 0],
        [1],
        [1] * 40,
        [300] + [1] * 20,
    ],
    ids=["uneven", "some_without_edges", "no_edges", "one", "ones", "one_large"],
)
def test_values_and_gradients(degrees, generator):
    graph = random_graph(degrees, 11, generator)
    features = random_features(len(degrees), 11, 2, 4, generator)
    out = compare(features, graph)
    assert (out[torch.tensor(degrees) == 0] == 0).all()


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 5), (3, 7), (4, 6), (4, 8), (8, 24), (20, 3)])
def test_any_number_of_heads_and_channels(heads, head_dim, generator):
    compare(random_features(30, 20, heads, head_dim, generator), random_graph([17] * 30, 20, generator))


def test_only_zero_nodes(generator):
    row, indptr, _, order = random_graph([3, 2], 4, generator)
    out = compare(random_features(2, 4, 2, 4, generator), (row, indptr, torch.full((5,), 4), order))
    assert (out == 0).all()


def test_zero_queries_and_keys(generator):
    features = random_features(12, 9, 2, 4, generator)
    features[0][3] = 0
    features[1][5, 0] = 0
    graph = random_graph([8] * 12, 9, generator)
    fused = [x.clone().requires_grad_() for x in features]
    out = csr_attention(*fused, *graph)
    expected = dense(*(x.double() for x in features), *graph)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in fused)


def test_large_logits_do_not_overflow(generator):
    query, key_value, _, bias = random_features(10, 8, 2, 4, generator)
    compare((query, key_value, torch.full((2,), 100.0), bias), random_graph([9] * 10, 8, generator))


def test_memory_layout_does_not_matter(generator):
    graph = random_graph([6] * 12, 9, generator)
    features = random_features(12, 9, 2, 4, generator)
    strided = [x.repeat_interleave(2, dim=-1)[..., ::2] for x in features]
    assert not strided[0].is_contiguous()
    assert torch.equal(csr_attention(*strided, *graph), csr_attention(*features, *graph))


def test_number_of_threads_does_not_matter(generator):
    graph = random_graph([0, 50, 3, 1, 1, 90, 7], 9, generator)
    features = random_features(7, 9, 2, 4, generator)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            inputs = [x.clone().requires_grad_() for x in features]
            out = csr_attention(*inputs, *graph)
            out.square().sum().backward()
            results.append([out, *(x.grad for x in inputs)])
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-5)


def test_order_of_targets_does_not_matter(generator):
    *graph, order = random_graph([0, 50, 3, 1, 1, 90, 7], 9, generator)
    features = random_features(7, 9, 2, 4, generator)
    assert not torch.equal(order, torch.arange(7))
    assert torch.equal(
        csr_attention(*features, *graph, order), csr_attention(*features, *graph, torch.arange(7))
    )


def test_inputs_are_not_modified(generator):
    graph = random_graph([6] * 12, 9, generator)
    features = [x.requires_grad_() for x in random_features(12, 9, 2, 4, generator)]
    before = [x.detach().clone() for x in (*features, *graph)]
    csr_attention(*features, *graph).sum().backward()
    for x, y in zip((*features, *graph), before, strict=True):
        assert torch.equal(x, y)


def test_registration_as_an_operator(generator):
    features = [x.requires_grad_() for x in random_features(4, 5, 2, 4, generator)]
    arguments = (*features, *random_graph([3, 0, 1, 9], 5, generator))
    torch.library.opcheck(torch.ops.glic_pyg.csr_attention.default, arguments)
