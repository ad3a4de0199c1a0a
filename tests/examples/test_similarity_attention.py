"""The example's layer against its formula, node by node, and its two configurations."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.experiments.ablation import load_variant
from glic_pyg.graph import GraphBuilder
from glic_pyg.nn import GFAStage

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def layer_class(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from similarity_attention import SimilarityAttention

    yield SimilarityAttention
    del sys.modules["similarity_attention"]


def test_attends_as_its_formula_says(layer_class):
    torch.manual_seed(0)
    layer = layer_class(8, 8, heads=2, hidden=4).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 8).double()
    x[-1] = 0  # what is outside
    edges = [(0, 0), (4, 0), (2, 0), (1, 1), (3, 1), (3, 2)]
    attributes = torch.randn(len(edges), 3).double()
    found = layer(x, torch.tensor(edges).T, attributes)

    def part(vector, head):
        return vector[4 * head : 4 * head + 4]

    for target in range(3):
        heads = []
        for head in range(2):
            logits, values = [], []
            for number, (source, to) in enumerate(edges):
                if to != target:
                    continue
                q, k = part(layer.query(x[target]), head), part(layer.key.weight @ x[source], head)
                logit = layer.scale[head].exp() * F.cosine_similarity(q, k, dim=0, eps=1e-12)
                logit = logit + layer.bias(attributes[number, :2])[head]
                similarity = x[source] @ x[target] / (x[source].norm() * x[target].norm()).clamp(min=1e-12)
                logits.append(logit + layer.similar[head] * similarity)
                values.append(part(layer.value.weight @ x[source], head))
            weights = torch.stack(logits).softmax(dim=0)
            heads.append((weights[:, None] * torch.stack(values)).sum(dim=0))
        torch.testing.assert_close(found[target], layer.output(torch.cat(heads)))


def test_begins_as_the_stage_without_attention_and_without_the_term(layer_class):
    torch.manual_seed(0)
    x = torch.randn(1, 8, 16, 24)
    outputs = []
    for settings in ({"heads": 2}, {"heads": 2, "similar": False}):
        with torch.random.fork_rng():
            layer = layer_class(8, 8, **settings)
            torch.nn.init.normal_(layer.output.weight, generator=torch.Generator().manual_seed(0))
        outputs.append(layer(x[0, :, 0, :8], torch.tensor([[0, 1], [1, 1]]), torch.ones(2, 3)))
    assert torch.equal(*outputs)
    stage = GFAStage(
        channels=8, depth=2, ffn_ratio=1, graph_builder=GraphBuilder(degree=8), layer=layer_class
    )
    expected = x
    for part in stage.layers:
        expected = part.ffn(expected)
    torch.testing.assert_close(stage(x), expected)


def test_a_gradient_reaches_the_similarity(layer_class):
    """Queries, keys and biases are zero: without the term all neighbours would weigh the same."""
    torch.manual_seed(0)
    layer = layer_class(8, 8, heads=2)
    for parameter in (*layer.query.parameters(), layer.key.weight, *layer.bias.parameters()):
        torch.nn.init.zeros_(parameter)
    torch.nn.init.normal_(layer.output.weight)
    x, edge_index = torch.randn(4, 8), torch.tensor([[0, 1, 2], [0, 0, 0]])
    layer(x, edge_index, torch.zeros(3, 3))[0].square().sum().backward()
    assert layer.similar.grad.abs().min() > 0


def test_its_two_configurations_differ_by_the_term(layer_class):
    with_it, without = (
        load_variant(EXAMPLES / f"similarity_attention{name}.yaml").config for name in ("", "_without")
    )
    changes = {key: value for key, value in with_it.to_dict().items() if value != without.to_dict()[key]}
    assert changes.keys() == {"model"}
    assert with_it.model.aggregation.settings == {}
    assert without.model.aggregation.settings == {"similar": False}
