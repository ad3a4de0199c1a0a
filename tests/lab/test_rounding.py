import re

import pytest
import torch

from glic_pyg.graph import GraphBuilder
from glic_pyg.image import write_png

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

import rounding


def test_float64_is_float64_throughout(variable_model, photo):
    """Graphs too; the model itself stays as it was."""
    _, y_hat = variable_model.code(variable_model.analyse(photo(64, 192)), 2)
    before = variable_model.g_s(y_hat).detach()
    graphs = []
    hooks = [
        module.register_forward_hook(lambda _, __, found: graphs.extend(found))
        for module in variable_model.g_s.modules()
        if isinstance(module, GraphBuilder)
    ]
    exact = rounding.in_double(variable_model, y_hat)
    for hook in hooks:
        hook.remove()
    kinds = {values.dtype for graph in graphs for values in (graph.x, graph.quota, graph.similarity)}
    assert kinds == {exact.dtype} == {torch.float64}
    assert 1e-9 < (exact - before).abs().mean() < 1e-5
    assert torch.equal(variable_model.g_s(y_hat), before)
    assert torch.get_default_dtype() == torch.float32


def test_a_line_per_picture_and_a_table(rig, model_file, photo, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        write_png(photo(64, 128), tmp_path / "photos" / f"{name}.png")
    status, out, err = rig("rounding", "-d", tmp_path / "photos", "--model", model_file)
    assert (status, err) == (0, "")
    first, second, _, *rows = out.splitlines()
    assert first.startswith("a.png  largest from float64: reference ")
    assert second.startswith("b.png  ")
    names = ["reference", "cpu", "onnxruntime"]
    assert [row.split()[0] for row in rows] == names
    of_itself = re.findall(r"(\d+) of (\d+)", rows[names.index("cpu")])[2:]
    assert of_itself == [("0", "255"), ("0", str(2 * 64 * 128 * 3))]
