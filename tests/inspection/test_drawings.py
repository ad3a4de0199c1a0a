import numpy as np
import pytest
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from glic_pyg.graph import GraphBuilder
from glic_pyg.image import pad
from glic_pyg.inspection import (
    LayerError,
    NodeError,
    convolutions_only,
    degrees,
    energy_area,
    neighborhood,
    receptive_fields,
    run_stages,
    stage_attention,
    stage_graphs,
)
from glic_pyg.inspection.drawings import (
    WINDOW_MARGIN,
    draw_graphs,
    erf_picture,
    graph_picture,
)
from glic_pyg.inspection.stages import Graphs


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def drawn(axes):
    """The points of each scatter, as (row, column)."""
    return [{(y, x) for x, y in points.get_offsets().tolist()} for points in axes.collections]


def test_chosen_nodes_and_maps(tiny_model, photo):
    figure = graph_picture(tiny_model, photo(100, 150), stage="g_s.2")
    assert figure.get_suptitle() == "tiny, stage g_s.2: 32 x 48 nodes of 4 x 4 pixels"
    told = titles(figure)
    assert [text.split(" at ")[0] for text in told if "global\n" in text] == [
        "A (flat)",
        "B (edge)",
        "C (texture)",
    ]
    maps = [text.split(",")[0] for text in told if "mean" in text]
    assert maps == ["score", "local quota", "global quota", "local degree", "global degree"]


def test_given_nodes_neighbors(tiny_model, photo):
    x = photo(100, 150)
    graphs = stage_graphs(tiny_model, x, "g_a.1")
    figure = graph_picture(tiny_model, x, nodes=[(0, 47), (20, 3)])
    panels = [axes for axes in figure.axes if "kept" in axes.get_title(loc="left")]
    for node, (wide, window) in zip((47, 20 * 48 + 3), (panels[:2], panels[2:]), strict=True):
        for axes, graph in ((wide, graphs.global_), (window, graphs.local)):
            neighbors = neighborhood(graph, node)
            real = neighbors.source[~neighbors.is_zero]
            assert drawn(axes)[0] == {tuple(place) for place in graph.pos[real].tolist()}
            assert f"{int(degrees(graph)[node])} kept, self edge" in axes.get_title(loc="left")


def test_zero_nodes_are_drawn_outside_the_picture():
    feature_map = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    feature_map[..., 0, 0] = 0
    graphs = Graphs(*GraphBuilder()(feature_map))
    figure = draw_graphs(torch.rand(1, 3, 64, 64), graphs, {"A": 0}, title="zero")
    real, zero = drawn(figure.axes[1])
    window = {(row, column) for row in range(-4, 12) for column in range(-4, 12)}
    assert real == {(row, column) for row, column in window if min(row, column) >= 0}
    assert zero == window - real
    assert titles(figure)[1].endswith("256 kept, self edge, 112 zero nodes")


def test_offsets_in_the_local_graph_are_places(tiny_model, photo):
    graph = stage_graphs(tiny_model, photo(64, 64), "g_a.1").local
    source, target = graph.edge_index
    real = source < graph.zero_node
    moved = graph.pos[source[real]] - graph.pos[target[real]]
    assert torch.equal(moved, graph.offset[real] - WINDOW_MARGIN)


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (8, 3000)], ids=str)
def test_any_size(tiny_model, photo, tmp_path, size):
    graph_picture(tiny_model, photo(*size), stage="g_a.2").savefig(tmp_path / "a.png", dpi=20)
    assert (tmp_path / "a.png").stat().st_size > 0


def test_one_colour(tiny_model):
    figure = graph_picture(tiny_model, torch.full((1, 3, 64, 64), 0.5), nodes=[(8, 8)])
    figure.draw_without_rendering()
    assert len(titles(figure)) == 7


@pytest.mark.parametrize("scope", ["local", "global"])
def test_one_graph(tiny_model, photo, scope):
    figure = graph_picture(tiny_model, photo(100, 150), nodes=[(3, 4), (20, 3)], scope=scope)
    told = titles(figure)
    assert [text.split("\n")[0] for text in told[:2]] == [
        f"A at row 3, column 4: {scope}",
        f"B at row 20, column 3: {scope}",
    ]
    assert [text.split(",")[0] for text in told[2:]] == ["score", f"{scope} quota", f"{scope} degree"]


@pytest.mark.parametrize("head", [None, 1])
def test_colours_by_attention(tiny_model, photo, head):
    x = photo(100, 150)
    run = run_stages(tiny_model, x, ["g_a.1"])["g_a.1"]
    graphs = run.pair
    node = int(degrees(graphs.local).argmax())
    place = divmod(node, 48)
    figure = graph_picture(tiny_model, x, nodes=[place], scope="local", by="attention", head=head)
    found = neighborhood(graphs.local, node)
    weight = stage_attention(run, head=head)[0][found.edge]
    others = weight[(found.source != node) & ~found.is_zero]
    colors = ScalarMappable(LogNorm(float(others.max()) / 100, float(others.max())), "viridis")
    expected = colors.to_rgba(weight[~found.is_zero].numpy())
    np.testing.assert_allclose(figure.axes[0].collections[0].get_facecolor(), expected)
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert ("attention, mean of all heads" if head is None else "attention, head 1") in labels


def test_head_without_attention(tiny_model, photo):
    with pytest.raises(
        LayerError, match=r"Expected a head with attention only \(got head 0 with similarity\)"
    ):
        graph_picture(tiny_model, photo(64, 64), head=0)


def test_receptive_fields(tiny_model, photo):
    x = photo(100, 150)
    figure = erf_picture(tiny_model, x, stage="g_a.2", nodes=[(5, 7)])
    told = titles(figure)
    assert len(told) == 8
    field = receptive_fields(tiny_model.g_a, pad(x, 64), [(2, 3)])[0]  # pixel (44, 60)
    assert told[0] == f"g_a, whole: A\n90 % in {energy_area(field)} of {128 * 192} pixels"
    with convolutions_only(tiny_model.g_a):
        field = receptive_fields(tiny_model.g_a, pad(x, 64), [(2, 3)])[0]
    assert told[2] == f"g_a, no attention: A\n90 % in {energy_area(field)} of {128 * 192} pixels"
    assert told[5].startswith("g_s, whole: mean of 9 places")
    marks = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    assert marks == [[[55.5, 39.5]]]
    under, over = (image.get_array() for image in figure.axes[0].images)
    assert np.allclose(under, 0.4 * pad(x, 64)[0].mean(dim=0) + 0.6)  # the photo, grey and pale
    assert over.shape == (128, 192)
    assert len(figure.axes[1].images) == 1  # a mean of several places has no photo
    figure.draw_without_rendering()


def test_errors(tiny_model, photo):
    with pytest.raises(NodeError, match=r"Expected a node of a 16 x 16 map \(got row 16, column 0\)"):
        graph_picture(tiny_model, photo(64, 64), nodes=[(0, 0), (16, 0)])
    with pytest.raises(NodeError, match=r"Expected a node of a 16 x 16 map \(got row 0, column -1\)"):
        graph_picture(tiny_model, photo(64, 64), nodes=[(0, -1)])
    with pytest.raises(NodeError, match=r"Expected 1 to 26 nodes \(got 27\)"):
        graph_picture(tiny_model, photo(64, 64), nodes=[(0, 0)] * 27)
