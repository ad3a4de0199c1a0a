import json

import pytest

pytest.importorskip("onnx")

from glic_pyg.viewer import RUNTIME_FILES


@pytest.fixture
def runtime(tmp_path):
    """What stands for the package of npm, which the command only copies."""
    folder = tmp_path / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "license": "MIT"}))
    for name in RUNTIME_FILES:
        (folder / "dist" / name).write_text(name)
    return folder


def test_a_page_with_all_that_it_needs(glic, model_file, runtime, tmp_path):
    page = tmp_path / "page"
    status, out, err = glic("viewer", page, "--runtime", runtime, "--model", model_file)
    assert (status, out, err) == (0, f"{page / 'index.html'}\n", "")
    for name in RUNTIME_FILES:
        assert (page / "runtime" / name).read_text() == name
    assert (page / "runtime" / "package.json").exists()
    assert (page / "model" / "g_s.onnx").exists()
    for script in page.glob("*.js"):
        for line in script.read_text().splitlines():
            if line.startswith("import "):
                assert (page / line.split('"')[1]).exists(), line


@pytest.mark.parametrize("missing", ["all", "package.json", RUNTIME_FILES[0], "another"])
def test_a_missing_runtime_is_told_in_a_line(glic, runtime, tmp_path, missing):
    if missing == "another":
        (runtime / "package.json").write_text('{"name": "left-pad"}')
    elif missing != "all":
        (runtime / ("" if missing == "package.json" else "dist") / missing).unlink()
    folder = tmp_path / "nowhere" if missing == "all" else runtime
    status, out, err = glic("viewer", tmp_path / "page", "--runtime", folder)
    assert (status, out) == (2, "")
    assert err.startswith("error: Expected the folder of onnxruntime-web") and err.count("\n") == 1
    assert not (tmp_path / "page").exists()
