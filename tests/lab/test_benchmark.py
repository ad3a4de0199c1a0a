import json
import math
from pathlib import Path
from types import SimpleNamespace

import pace
import pytest
import torch


@pytest.fixture
def config(tiny_config, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_config.to_yaml())
    return path


def run(rig, *arguments):
    return rig("benchmark", "--repeats", 1, "--threads", 1, *arguments)


def test_table_and_json(rig, config, tmp_path):
    written = tmp_path / "costs.json"
    status, out, err = run(
        rig, "--config", config, "--sizes", "64x128", "--kernels", "cpu", "dense",
        "--save-json", written,
    )  # fmt: skip
    assert status == 0, err
    csr, dense = json.loads(written.read_text())
    assert (csr["kernels"], dense["kernels"]) == ("cpu", "dense")
    assert csr["size"] == [64, 128]
    assert csr["parameters"] == dense["parameters"]
    assert 0 < csr["flops"] < dense["flops"]
    for side in ("encoding_seconds", "decoding_seconds"):
        assert {"attention", "graph", "entropy coder"} <= set(csr[side]) == set(dense[side])
    assert "(1.00)" in out


def test_training(rig, config, tmp_path):
    written = tmp_path / "costs.json"
    status, _, err = run(
        rig, "--config", config, "--sizes", "64x64", "--kernels", "cpu",
        "--training", "--batch-size", "2", "--save-json", written,
    )  # fmt: skip
    assert status == 0, err
    (row,) = json.loads(written.read_text())
    assert row["batch_size"] == 2
    assert row["step_seconds"] > 0


def test_a_model_of_compressai(rig):
    status, out, err = run(rig, "--model", "bmshj2018-factorized", "--sizes", "64x64")
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
def test_bad_input_gives_one_line(arguments, message, rig):
    status, _, err = run(rig, *arguments)
    assert status == 2
    assert message in err


def test_a_users_file_is_not_overwritten(rig, tmp_path):
    target = tmp_path / "mine.json"
    target.write_bytes(b"precious")
    status, out, err = run(rig, "--config=x.yaml", "--save-json", target)
    assert (status, out) == (2, "")
    assert err.startswith("error: Expected an output that is new or that an earlier call wrote ")
    assert target.read_bytes() == b"precious"
    status, _, err = run(rig, "--config=x.yaml", "--save-json", f"{tmp_path}/new/")
    assert (status, err.count("\n")) == (2, 1)
    assert "Expected a file name for the output" in err


def test_what_cannot_be_beside_others(rig, config):
    for arguments in (
        ["--config", config],
        ["--model", "elic2022-official"],
        ["--model", "glic_nano", "--training"],
    ):
        status, out, err = run(rig, "--beside", *arguments)
        assert (status, out) == (2, "")
        assert "Expected --beside with GLIC models by --model" in err


def test_files_of_about_the_same_size(monkeypatch):
    for rival in ("AVIF, speed 4", "AVIF, speed 0", "JPEG XL"):
        monkeypatch.delitem(pace.BESIDE, rival)
    found = pace.measure(["glic_nano"], (64, 96), 1, False)
    assert list(found) == ["glic_nano", "AVIF, speed 8", "WebP"]
    ours = found["glic_nano"]
    for rival in found.values():
        assert rival.bpp == pytest.approx(ours.bpp, rel=0.25)
        assert all(0 < seconds < math.inf for seconds in rival.seconds)
        assert 15 < rival.psnr < 40


@pytest.mark.parametrize(("target", "expected"), [(0, 1), (6, 2), (7, 3), (49, 7), (50, 7), (1000, 9)])
def test_the_quality_of_a_size(target, expected):
    squares = SimpleNamespace(fine=range(1, 10), encode=lambda x, quality: bytes(quality**2))
    assert pace.quality_for(squares, torch.zeros(1, 3, 8, 8), target) == expected


def test_here_and_in_another_checkout(rig):
    here = Path(__file__).parents[2]
    words = ["--model", "glic_nano", "--sizes", "64x64"]
    status, out, err = run(rig, *words, "--versus", here)
    assert (status, err) == (0, "")
    assert out.startswith("glic_nano, 64 x 64, 1 threads\n")
    ratios = [float(word) for word in out.split("ratio")[1].split()]
    assert all(0.1 < ratio < 10 for ratio in ratios)
    status, _, err = run(rig, *words, "--versus", here / "tests")
    assert (status, err) == (2, f"error: Expected a checkout of this repository (got {here / 'tests'})\n")
    status, _, err = run(rig, *words, "--versus", here, "--save-json", "x.json")
    assert (status, err.count("\n")) == (2, 1)


def test_training_here_and_in_another_checkout(rig):
    words = [
        "--model",
        "glic_nano",
        "--sizes",
        "128x128",
        "--training",
        "--batch-size",
        "1",
        "--repeats",
        "1",
    ]
    status, out, err = run(rig, *words, "--versus", Path(__file__).parents[2])
    assert (status, err) == (0, "")
    assert out.splitlines()[1].split() == ["step", "s", "step", "CPU", "s"]
    ratios = [float(ratio) for ratio in out.split("ratio")[1].split()]
    assert len(ratios) == 2
    assert all(0.1 < ratio < 10 for ratio in ratios)


def test_a_step_of_effort_beside_a_pass(rig, config):
    status, out, err = run(rig, "--effort", "--model", "glic_nano", "--sizes", "64x64")
    assert (status, err) == (0, "")
    assert out.startswith("glic_nano, 64 x 64, 1 threads\n")
    assert 1 < float(out.split("ratio")[1]) < 10
    status, _, err = run(rig, "--effort", "--config", config)
    assert (status, err.count("\n")) == (2, 1)
    assert "Expected --effort with GLIC models by --model" in err
