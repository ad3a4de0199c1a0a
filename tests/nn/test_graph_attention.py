"""Edge-conditioned attention against a dense matrix of all nodes, with all kernels."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.graph import Graph, GraphBuilder
from glic_pyg.graph.selection import Threshold, TopD
from glic_pyg.kernels import ON_CPU, use_kernels
from glic_pyg.nn import graph_attention
from glic_pyg.nn.graph_attention import GraphAttention

CHANNELS, HEADS = 8, 2


def make(kernels=None, *, seed=0):
    torch.manual_seed(seed)
    attention = GraphAttention(channels=CHANNELS, heads=HEADS, position_hidden=16)
    with torch.no_grad():
        attention.logit_scale.copy_(torch.tensor([1.0, 5.0]))  # one below its limit of ln 100, one beyond
        attention.position_bias[2].weight.mul_(3)  # so that positions differ
    return use_kernels(attention, kernels)


def nodes(num_nodes):
    """Features of nodes, without those of the zero node."""
    return torch.randn(num_nodes, CHANNELS, generator=torch.Generator().manual_seed(0))


@functools.cache
def built(kind, selection=Threshold):
    """Two pictures of odd size: windows at borders, zero nodes, uneven degrees; one node is all zero."""
    x = torch.randn(2, CHANNELS, 9, 14, generator=torch.Generator().manual_seed(1))
    x[..., 7:] *= 10
    x[0, :, 0, 0] = 0
    graph = GraphBuilder(degree=12, selection=selection())(x)[kind]
    return nodes(252), graph


def graph_of(num_nodes, edge_index, offset):
    return Graph(edge_index=edge_index, offset=offset, num_nodes=num_nodes + 1)


def random_edges():
    """Targets without edges, edges that occur repeatedly, sorted by target."""
    generator = torch.Generator().manual_seed(2)
    target = torch.tensor([1] * 60 + [2] + [5] * 300 + [17] * 20)
    source = torch.randint(0, 20, target.shape, generator=generator)
    source[target == 2] = 19  # the zero node alone
    offset = torch.randint(-7, 16, (len(target), 2), generator=generator).to(torch.int8)
    return nodes(19), graph_of(19, torch.stack([source, target]), offset)


GRAPHS = {
    "local": lambda: built(0),
    "global": lambda: built(1),
    "top_d": lambda: built(0, TopD),
    "random": random_edges,
}


def dense(attention, x, graph):
    """The layer's definition, with N x (N + 1) matrices per head."""
    (source, target), offset = graph.edge_index, graph.offset
    num_nodes = len(x)
    row = ((offset[:, 0].long() - 7) * 23 + (offset[:, 1].long() - 7)) % 529
    bias = attention.position_bias()[row]
    scale = attention.logit_scale.clamp(max=4.6052).exp()
    query = attention.query(x)
    key_value = torch.cat([attention.key_value(x), x.new_zeros(1, 2 * CHANNELS)])
    key, value = key_value[:, :CHANNELS], key_value[:, CHANNELS:]
    results = []
    for head, channels in enumerate(torch.arange(CHANNELS).chunk(HEADS)):
        cosine = F.normalize(query[:, channels]) @ F.normalize(key[:, channels]).T
        # Several edges may join the same two nodes, the zero node above all: sum their exponentials.
        weight = x.new_zeros(num_nodes, num_nodes + 1)
        weight = weight.index_put((target, source), bias[:, head].exp(), accumulate=True)
        weight = weight * (scale[head] * cosine).exp()
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-300)
        results.append(weight @ value[:, channels])
    return attention.output(torch.cat(results, dim=1))


def gradients(module, x, out):
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out)
    inputs = {"x": x, **dict(module.named_parameters())}
    return dict(zip(inputs, torch.autograd.grad(out, inputs.values(), direction), strict=True))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("kernels", [*ON_CPU, None])
def test_values_and_gradients_are_those_of_the_dense_definition(graph, kernels, device):
    if (kernels, device) == ("cpu", "cuda"):
        pytest.skip("for the CPU")
    x, graph = (part.clone().to(device) for part in GRAPHS[graph]())
    x = x.requires_grad_()
    attention, definition = make(kernels).to(device), make().double().to(device)
    exact_x = x.detach().double().requires_grad_()
    out = attention(x, graph)
    expected = dense(definition, exact_x, graph)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    found = gradients(attention, x, out)
    for name, gradient in gradients(definition, exact_x, expected).items():
        tolerance = 1e-4 * gradient.abs().max().item()
        torch.testing.assert_close(found[name].double(), gradient, rtol=1e-4, atol=tolerance, msg=name)
    assert found["logit_scale"][0] != 0
    assert found["logit_scale"][1] == 0  # beyond the limit


@pytest.mark.parametrize("graph", GRAPHS)
def test_reference_in_double_precision_is_exact(graph):
    x, graph = GRAPHS[graph]()
    attention = make("reference").double()
    x = x.double().requires_grad_()
    out, expected = attention(x, graph), dense(attention, x, graph)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients(attention, x, out), gradients(attention, x, expected))


@pytest.mark.parametrize("kernels", ["reference", None])
def test_edge_order_does_not_matter(kernels):
    x, graph = GRAPHS["local"]()
    attention = make(kernels)
    expected = attention(x, graph)
    order = torch.randperm(graph.num_edges)
    mixed = graph.clone()
    mixed.edge_index, mixed.offset = graph.edge_index[:, order], graph.offset[order]
    found = attention(x, mixed)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", ON_CPU)
def test_zero_nodes_add_to_the_denominator_only(kernels):
    """One neighbour and a zero node with equal logits: half the neighbour's value."""
    attention = make(kernels)
    torch.nn.init.zeros_(attention.position_bias[2].weight)
    torch.nn.init.constant_(attention.logit_scale, -100)  # a scale of 0
    x = nodes(3)
    edge_index = torch.tensor([[1, 1, 3], [0, 2, 2]])
    out = attention(x, graph_of(3, edge_index, torch.zeros(3, 2, dtype=torch.int8)))
    value = attention.key_value(x)[1, CHANNELS:]
    torch.testing.assert_close(out[0], attention.output(value))
    torch.testing.assert_close(out[1], attention.output.bias)  # no edges
    torch.testing.assert_close(out[2], attention.output(value / 2))


@pytest.fixture
def called(monkeypatch):
    """Record whether the kernel is called."""
    calls, original = [], graph_attention.csr_attention
    monkeypatch.setattr(
        graph_attention, "csr_attention", lambda *args: calls.append("csr_attention") or original(*args)
    )
    return calls


@pytest.mark.parametrize(
    ("kernels", "expected"),
    [
        ("reference", []),
        ("cpu", ["csr_attention"]),
        (None, ["csr_attention"]),
    ],
)
def test_the_kernels_asked_for_are_those_that_run(kernels, expected, called):
    make(kernels)(*GRAPHS["local"]())
    assert called == expected


@pytest.mark.parametrize("autocast", [True, False])
def test_16_bits_take_the_kernel_and_stay_near_float64(autocast, called):
    x, graph = GRAPHS["local"]()
    attention = make()
    torch.nn.init.ones_(attention.logit_scale)  # a scale of 100 makes roundings of cosines large
    exact, exact_x, x = copy.deepcopy(attention).double(), x.double(), x.clone()
    if not autocast:
        attention, x = attention.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = attention(x.requires_grad_(), graph)
    assert called == ["csr_attention"]
    assert out.dtype == torch.bfloat16
    expected = dense(exact, exact_x.requires_grad_(), graph)
    assert (out - expected).norm() < 0.02 * expected.norm()
    found = gradients(attention, x, out)
    for name, gradient in gradients(exact, exact_x, expected).items():
        assert (found[name] - gradient).norm() <= 0.05 * gradient.norm(), name


@pytest.mark.parametrize("kernels", ON_CPU)
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_default_device_does_not_matter(kernels, graph):
    attention, (x, graph) = make(kernels), GRAPHS[graph]()
    expected = attention(x, graph)
    with torch.device("meta"):
        torch.testing.assert_close(attention(x, graph), expected)


def test_zeros_have_no_direction_in_float16_either():
    x, graph = GRAPHS["local"]()
    attention = make("reference")
    for layer in (attention.query, attention.key_value):
        torch.nn.init.zeros_(layer.bias)
    half = copy.deepcopy(attention).half()
    out = half(x.half(), graph)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(out.sum(), half.parameters()))
    x = x.clone()
    x[3] = 0
    torch.testing.assert_close(half(x.half(), graph).float(), attention(x, graph), rtol=0.02, atol=0.02)


def test_by_default_the_reference_takes_what_the_kernel_cannot(called):
    x, graph = GRAPHS["local"]()
    out = make().double()(x.double(), graph)
    torch.testing.assert_close(out, make("reference").double()(x.double(), graph))
    make()(x, graph_of(len(x), graph.edge_index.flip(1), graph.offset.flip(0)))
    assert not called


@pytest.mark.parametrize("kernels", [*ON_CPU, None])
def test_attention_weights_add_up_the_values(kernels):
    x, graph = GRAPHS["local"]()
    attention = make(kernels)
    out, (edge_index, weights) = attention(x, graph, return_attention_weights=True)
    assert edge_index is graph.edge_index
    torch.testing.assert_close(out, attention(x, graph))
    source, target = edge_index
    value = torch.cat([attention.key_value(x)[:, CHANNELS:], x.new_zeros(1, CHANNELS)])
    messages = weights.repeat_interleave(CHANNELS // HEADS, dim=1) * value[source]
    expected = attention.output(torch.zeros_like(x).index_add(0, target, messages))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    total = torch.zeros(len(x), HEADS).index_add(0, target, weights)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("kernels", [*ON_CPU, None])
def test_what_was_prepared_serves_other_features(kernels):
    x, graph = GRAPHS["local"]()
    attention = make(kernels)
    edges = attention.prepare(graph)
    for features in (x, x.flip(0)):
        assert torch.equal(attention(features, graph, edges), attention(features, graph))


@pytest.mark.parametrize(
    ("dtype", "edges", "got"),
    [
        (torch.double, [[0, 1], [0, 1]], r"torch\.float64"),
        (torch.float32, [[0, 1], [1, 0]], r"torch\.float32, not sorted"),
        (torch.float32, [[0, 1], [0, 4]], r"torch\.float32, not sorted"),
        (torch.float32, [[0, 5], [0, 1]], r"torch\.float32, not sorted"),
        (torch.float32, [[-1, 0], [0, 1]], r"torch\.float32, not sorted"),
        (torch.float32, [[0, 1], [-1, 1]], r"torch\.float32, not sorted"),
    ],
)
def test_the_kernel_of_the_cpu_refuses_what_it_cannot_take(dtype, edges, got):
    x, offset = nodes(4).to(dtype), torch.zeros(2, 2, dtype=torch.int8)
    message = rf"^Expected nodes of 32 or 16 bits and edges between them sorted.* \(got {got}\)$"
    with pytest.raises(ValueError, match=message):
        make("cpu").to(dtype)(x, graph_of(4, torch.tensor(edges), offset))


@pytest.mark.parametrize("kernels", [*ON_CPU, None])
def test_edges_without_offsets_are_refused(kernels):
    x, graph = GRAPHS["local"]()
    graph = graph.clone()
    graph.offset = graph.offset[1:]
    count = graph.num_edges
    message = rf"^Expected an offset for each of {count} edges \(got \({count - 1}, 2\)\)$"
    with pytest.raises(ValueError, match=message):
        make(kernels)(x, graph)


@pytest.mark.parametrize("kernels", [*ON_CPU, None])
def test_features_of_other_nodes_are_refused(kernels):
    x, graph = GRAPHS["local"]()
    with pytest.raises(ValueError, match=r"^Expected features of 252 nodes \(got 251\)$"):
        make(kernels)(x[1:], graph)


def test_the_kernel_of_the_cpu_refuses_queries_of_other_nodes():
    x, graph = GRAPHS["local"]()
    graph = graph.clone()
    graph.queries = graph.queries[1:]
    with pytest.raises(ValueError, match=r"^Expected each of 252 nodes among the queries \(got 188\)$"):
        make("cpu")(x, graph)


def test_channels_must_divide_among_the_heads():
    with pytest.raises(ValueError, match=r"Expected channels divisible by 3 heads \(got 8\)"):
        GraphAttention(channels=8, heads=3, position_hidden=4)


def test_initial_scale_and_names_of_the_parameters():
    attention = GraphAttention(channels=8, heads=2, position_hidden=4)
    torch.testing.assert_close(attention.logit_scale.exp(), torch.full((2,), 10.0))
    linear = {f"{name}.{part}" for name in ("query", "key_value", "output") for part in ("weight", "bias")}
    position = {f"position_bias.{name}" for name in ("0.weight", "0.bias", "2.weight")}
    assert set(attention.state_dict()) == {"logit_scale"} | linear | position
