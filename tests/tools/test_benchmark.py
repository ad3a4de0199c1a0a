import json

import pytest


@pytest.fixture
def config(tiny_config, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_config.to_yaml())
    return path


def run(tool, monkeypatch, *arguments):
    monkeypatch.syspath_prepend("tools")  # as if started from its folder
    return tool("benchmark", "--repeats", 1, "--threads", 1, *arguments)


def test_table_and_json(tool, config, tmp_path, monkeypatch):
    written = tmp_path / "costs.json"
    status, out, err = run(
        tool, monkeypatch, "--config", config, "--sizes", "64x128", "--backends", "csr", "dense",
        "--save-json", written,
    )  # fmt: skip
    assert status == 0, err
    csr, dense = json.loads(written.read_text())
    assert (csr["backend"], dense["backend"]) == ("csr", "dense")
    assert csr["size"] == [64, 128]
    assert csr["parameters"] == dense["parameters"]
    assert 0 < csr["flops"] < dense["flops"]
    for side in ("encoding_seconds", "decoding_seconds"):
        assert {"attention", "graph", "entropy coder"} <= set(csr[side]) == set(dense[side])
    assert "(1.00)" in out


def test_training(tool, config, tmp_path, monkeypatch):
    written = tmp_path / "costs.json"
    status, _, err = run(
        tool, monkeypatch, "--config", config, "--sizes", "64x64", "--backends", "csr",
        "--training", "--batch-size", "2", "--save-json", written,
    )  # fmt: skip
    assert status == 0, err
    (row,) = json.loads(written.read_text())
    assert row["batch_size"] == 2
    assert row["step_seconds"] > 0


def test_a_model_of_compressai(tool, monkeypatch):
    status, out, err = run(tool, monkeypatch, "--model", "bmshj2018-factorized", "--sizes", "64x64")
    assert status == 0, err
    assert "bmshj2018-factorized, 64 x 64" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: Expected --config or --model (got neither)"),
        (["--model", "mbt2018", "--training"], "error: Expected GLIC models for --training (got mbt2018)"),
        (["--sizes", "64"], "error: argument --sizes: expected HEIGHTxWIDTH (got 64)"),
    ],
)
def test_bad_input_gives_one_line(arguments, message, tool, monkeypatch):
    status, _, err = run(tool, monkeypatch, *arguments)
    assert status == 2
    assert message in err
