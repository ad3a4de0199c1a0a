import pytest

pytest.importorskip("onnx")


def test_the_files_are_written_and_named(glic, model_file, tmp_path):
    folder = tmp_path / "networks"
    status, out, err = glic("export", "--onnx", folder, "--model", model_file)
    assert (status, err) == (0, "")
    assert sorted(out.splitlines()) == sorted(map(str, folder.glob("[!.]*")))
    assert {"g_s.onnx", "h_s.onnx", "model.json"} <= {path.name for path in folder.iterdir()}
    assert glic("export", "--onnx", folder, "--model", model_file)[0] == 0  # they are ours


def test_nothing_is_written_where_one_file_is_somebody_elses(glic, model_file, tmp_path):
    (tmp_path / "model.json").write_text("precious")
    status, out, err = glic("export", "--onnx", tmp_path, "--model", model_file)
    assert (status, out) == (2, "")
    assert err.startswith("error: Expected an output that is new") and err.count("\n") == 1
    assert (tmp_path / "model.json").read_text() == "precious"
    assert not list(tmp_path.glob("*.onnx"))
