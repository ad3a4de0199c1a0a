import dataclasses
from functools import partial

import pytest
import torch

from glic_pyg import GLIC
from glic_pyg.config import GraphConfig, Part
from glic_pyg.inspection import STAGES, limit_size, run_model, run_stages, stage_graphs, stages
from glic_pyg.inspection.stages import node_size
from glic_pyg.nn.gfa import GFAStage


def test_graphs_are_those_that_the_model_builds(tiny_model, photo, monkeypatch):
    built = []

    def record(forward, feature_map):
        built.append(forward(feature_map))
        return built[-1]

    x = photo(70, 130)
    for module in tiny_model.modules():
        if isinstance(module, GFAStage):
            builder = module.graph_builder
            monkeypatch.setattr(builder, "forward", partial(record, builder.forward))
    with torch.no_grad():
        tiny_model(x)
    monkeypatch.undo()
    assert len(built) == len(STAGES)
    for stage, expected in zip(STAGES, built, strict=True):
        for graph, other in zip(stage_graphs(tiny_model, x, stage), expected, strict=True):
            assert torch.equal(graph.x, other.x)
            assert torch.equal(graph.edge_index, other.edge_index)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in tiny_model.modules())


def test_a_whole_run_keeps_the_restored_picture_and_its_bits(variable_model, photo):
    x = photo(70, 130)
    with torch.no_grad():
        expected = variable_model(x, 2)
    run = run_model(variable_model, x)
    assert (list(run.stages), run.quality) == ([*STAGES], 2)
    assert torch.equal(run.x_hat, expected["x_hat"].clamp(0, 1))
    y, z = (-expected["likelihoods"][name].log2()[0].sum(dim=0) for name in "yz")
    assert run.bits.shape == (8, 12)
    block = run.bits[4:8, 8:12].sum()
    torch.testing.assert_close(block, y[4:8, 8:12].sum() + z[1, 2])


@pytest.mark.parametrize(
    ("stage", "side"), [("g_a.1", 4), ("g_a.2", 8), ("g_s.1", 8), ("g_s.2", 4)], ids=STAGES
)
def test_map_sizes(tiny_model, photo, stage, side):
    x = photo(1, 65)
    map_size = stage_graphs(tiny_model, x, stage).local.map_size
    assert map_size == (1, 64 // side, 128 // side)
    assert node_size(x, map_size) == side


def test_unknown_stage(tiny_model, photo):
    with pytest.raises(ValueError, match=r"Expected one of the stages g_a.1, .*, g_s.2 \(got g_a.3\)"):
        stage_graphs(tiny_model, photo(64, 64), "g_a.3")


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (GraphConfig(candidates=()), []),
        (GraphConfig(degree=4, strides=(4,)), ["g_a.1", "g_s.2"]),
        (GraphConfig(degree=4, strides=(8,)), ["g_a.2", "g_s.1"]),
    ],
    ids=["none", "H/4", "H/8"],
)
def test_stages_without_graphs(tiny_config, photo, graph, expected):
    model = GLIC(dataclasses.replace(tiny_config, graph=graph)).eval()
    for runs in (run_stages(model, photo(64, 64)), run_model(model, photo(64, 64)).stages):
        assert list(runs) == expected
        assert all(run.pair.local.num_edges for run in runs.values())
    for stage in {*STAGES} - {*expected}:
        with pytest.raises(
            ValueError, match=rf"^Expected a stage with graphs \(got {stage}, which has none\)$"
        ):
            stage_graphs(model, photo(64, 64), stage)


def test_a_model_of_one_graph_has_no_pair(tiny_config, photo):
    config = dataclasses.replace(tiny_config, graph=GraphConfig(degree=4, candidates=(Part("local"),)))
    run = run_stages(GLIC(config), photo(64, 64), ["g_a.1"])["g_a.1"]
    (graph,) = run.graphs
    assert graph.map_size == (1, 16, 16)
    with pytest.raises(ValueError, match=r"^Expected a local and a global graph \(got 1 graphs\)$"):
        _ = run.pair


def test_large_pictures_are_scaled_down(photo, monkeypatch):
    monkeypatch.setattr(stages, "MAX_PIXELS", 1000)
    x = photo(20, 50)
    assert limit_size(x) is x
    with pytest.warns(UserWarning, match="picture scaled down from 100 x 40 to 50 x 20"):
        assert limit_size(photo(40, 100)).shape == (1, 3, 20, 50)
    with pytest.warns(UserWarning, match="scaled down"):
        assert limit_size(photo(1, 4000)).shape == (1, 3, 1, 2000)
