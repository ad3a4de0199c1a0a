import json
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch_geometric.data import Data

from glic_pyg import GLIC
from glic_pyg.cli import graph as graph_command
from glic_pyg.config import Part
from glic_pyg.image import read_image, write_png
from glic_pyg.inspection import STAGES, drawings, neighborhood, stage_graphs, stages
from glic_pyg.inspection import page as page_module

PNG = b"\x89PNG"


@pytest.fixture
def source(photo, tmp_path):
    write_png(photo(70, 90), tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_figure_beside_the_photo(glic, model_file, source):
    expected = source.with_name("photo_graph.png")
    assert glic("graph", source, "--model", model_file) == (0, f"{expected}\n", "")
    assert expected.read_bytes().startswith(PNG)


def test_options(glic, model_file, source, tmp_path):
    output = tmp_path / "figures" / "a.png"
    options = ("-o", output, "--stage", "g_s.1", "--node", 3, 4, "--node", 15, 0)
    assert glic("graph", source, "--model", model_file, *options) == (0, f"{output}\n", "")
    assert output.read_bytes().startswith(PNG)


def test_svg_by_attention(glic, model_file, source, tmp_path):
    output = tmp_path / "a.svg"
    options = ("-o", output, "--scope", "global", "--by", "attention", "--head", 1)
    assert glic("graph", source, "--model", model_file, *options) == (0, f"{output}\n", "")
    assert "<svg" in output.read_text()[:1000]


def test_all_the_rest_at_once_and_no_figure_unasked(glic, model_file, source, tmp_path, monkeypatch):
    """The stages run once for all of it."""
    monkeypatch.setattr(drawings, "run_stages", None)
    monkeypatch.setattr(page_module, "run_model", None)
    page, data, erf = (tmp_path / name for name in ("a.html", "a.pt", "erf.png"))
    options = ("--html", page, "--export", data, "--erf", erf, "--summary", "--stage", "g_a.2")
    status, out, err = glic("graph", source, "--model", model_file, *options)
    lines = out.splitlines()
    assert (status, err, lines[:3]) == (0, "", [str(erf), str(page), str(data)])
    assert len(lines) == 3 + 1 + 8
    assert lines[3].split()[:2] == ["stage", "graph"]
    assert "photo.png" in page.read_text()
    assert Data.from_dict(torch.load(data, weights_only=True)["global"]).num_nodes == 256
    assert erf.read_bytes().startswith(PNG)
    assert not source.with_name("photo_graph.png").exists()


def test_a_part_of_the_graphs(glic, tiny_model, model_file, source, tmp_path):
    hops, region = tmp_path / "hops.pt", tmp_path / "region.graphml"
    chosen = ("--stage", "g_a.2", "--node", 3, 4, "--model", model_file)
    assert glic("graph", source, *chosen, "--export", hops, "--hops", 1)[0] == 0
    graphs = stage_graphs(tiny_model, read_image(source), "g_a.2")
    near = {3 * 16 + 4}
    for graph in graphs:
        near |= set(neighborhood(graph, 3 * 16 + 4).source.tolist()) - {256}
    part = torch.load(hops, weights_only=True)
    for scope in ("local", "global"):
        assert {16 * row + column for row, column in part[scope]["pos"].tolist()} == near
    assert glic("graph", source, *chosen, "--export", region, "--region", 0, 2, 3, 4)[0] == 0
    assert region.read_text().count("<node ") == 12


@pytest.mark.filterwarnings("always")
def test_a_large_text_is_told_how_to_be_smaller(glic, model_file, source, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_command, "MANY_BYTES", 1000)
    for name, told in (("a.graphml", "--hops and --region export a part\n"), ("a.pt", "")):
        _, _, err = glic("graph", source, "--model", model_file, "--export", tmp_path / name)
        assert err.endswith(told)
        assert err.count("\n") == bool(told)


def test_results_for_programs(glic, tiny_model, model_file, source):
    status, out, err = glic("graph", source, "--model", model_file, "--summary", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["written"] == []
    assert [(row["stage"], row["graph"]) for row in told["summary"]] == list(
        product(STAGES, ("local", "global"))
    )
    graph = stage_graphs(tiny_model, read_image(source), "g_a.2").global_
    assert told["summary"][3]["nodes"] == graph.zero_node
    assert told["summary"][3]["edges"] == graph.num_edges


@pytest.mark.filterwarnings("default")
def test_large_photo(glic, model_file, source, monkeypatch):
    monkeypatch.setattr(stages, "MAX_PIXELS", 35 * 45)
    status, _, err = glic("graph", source, "--model", model_file)
    assert (status, err) == (0, "warning: picture scaled down from 90 x 70 to 45 x 35\n")


def test_receptive_fields_of_a_large_photo_are_refused(glic, model_file, source, tmp_path, monkeypatch):
    monkeypatch.setattr(drawings, "MAX_FIELD_PIXELS", 70 * 90 - 1)
    figure, erf = tmp_path / "a.png", tmp_path / "erf.png"
    status, out, err = glic("graph", source, "--model", model_file, "-o", figure, "--erf", erf)
    assert (status, out) == (2, "")
    assert err == "error: Expected at most 6299 pixels for effective receptive fields (got 90 x 70)\n"
    assert not figure.exists()


def test_errors_are_one_line_and_status_2(glic, model_file, source, tmp_path):
    for arguments, message in [
        ((source, "--node", 32, 0), "Expected a node of a 32 x 32 map (got row 32, column 0)"),
        ((tmp_path / "none.png",), "Expected a picture (got"),
        ((source, "-o", tmp_path), "Expected a file name for the output"),
        ((source, "-o", tmp_path / "a.gif"), "Expected a name that ends in .png or .svg"),
        ((source, "--export", tmp_path / "a.csv"), "Expected a name that ends in .pt, .json, .graphml"),
        ((source, "--html", tmp_path), "Expected a file name for the output"),
        ((source, "--erf", tmp_path / "a.png", "--node", 32, 0), "Expected a node of a 32 x 32 map"),
        ((source, "--by", "attention", "--head", 2), "Expected a head in 0..1 (got 2)"),
        ((source, "--head", 1), "Expected a head with attention only"),
        ((source, "--hops", 1), "Expected --export with --hops or --region (got none)"),
        ((source, "--hops", 1, "--export", tmp_path / "a.pt"), "Expected --node with --hops (got none)"),
        (
            (source, "--export", tmp_path / "a.pt", "--region", 0, 30, 4, 4),
            "Expected a region of a 32 x 32 map (got 4 x 4 from row 0, column 30)",
        ),
    ]:
        status, out, err = glic("graph", *arguments, "--model", model_file)
        assert (status, out) == (2, "")
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1
    assert not source.with_name("photo_graph.png").exists()


def test_models_with_other_graphs_are_refused(glic, tiny_config, source, tmp_path):
    config = replace(tiny_config, graph=replace(tiny_config.graph, candidates=(Part("local"),)))
    model = GLIC(config)
    model.update()
    model.save(tmp_path / "local.safetensors")
    assert glic("graph", source, "--model", tmp_path / "local.safetensors") == (
        2,
        "",
        "error: Expected a model with attention on a local and a global graph (got attention on local)\n",
    )


def test_a_model_with_graphs_at_one_stride(glic, tiny_config, source, tmp_path):
    model = GLIC(replace(tiny_config, graph=replace(tiny_config.graph, strides=(8,))))
    model.update()
    model.save(path := tmp_path / "eighth.safetensors")
    assert glic("graph", source, "--model", path) == (
        2,
        "",
        "error: Expected --stage to be one of g_a.2, g_s.1 (got g_a.1, which has no graphs)\n",
    )
    status, out, _ = glic("graph", source, "--model", path, "--stage", "g_a.2", "--summary")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["g_a.2"] * 2 + ["g_s.1"] * 2
