"""glic train from the command line."""

import csv
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from glic_pyg.training.config import Milestone, TrainConfig

COMMAND = [sys.executable, "-m", "glic_pyg"]
SETTINGS = {
    "model": "tiny_model.yaml",
    "steps": 4,
    "batch_size": 2,
    "patch_size": 64,
    "eval_size": 64,
    "eval_every": 2,
    "save_every": 2,
}


@pytest.fixture
def setting(four_photos, tiny_config):
    """The current folder, with four pictures and a broken one, a training configuration and its model's."""
    (four_photos / "photos" / "broken.jpg").write_bytes(b"no picture")
    (four_photos / "tiny_model.yaml").write_text(tiny_config.to_yaml())
    (four_photos / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    return four_photos


# What Python 3.12 and later say about starting a worker.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_trains_and_goes_on(setting, glic, caplog):
    arguments = ["--config", "tiny.yaml", "-d", "photos", "--lambda", "0.02"]
    status, printed, err = glic("train", *arguments, "--steps", "3")
    assert (status, printed.splitlines()[-1]) == (0, "runs/tiny")
    assert "\r" not in err  # without a terminal, the bar is lines
    assert "3/3" in err.splitlines()[-1]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("Skipped photos/broken.jpg: ")
    output = setting / "runs" / "tiny"
    written = {path.name for path in output.iterdir()}
    assert written == {
        ".glic_pyg.jsonl",
        "config.yaml",
        "sessions.json",
        "log.csv",
        "eval.csv",
        "manifest.csv",
        "samples",
        "tensorboard",
        "latest.ckpt",
        "latest.safetensors",
        "best.ckpt",
        "best.safetensors",
    }
    settings = yaml.safe_load((output / "config.yaml").read_text())
    assert (settings["lmbda"], settings["steps"], settings["model"]["name"]) == ([0.02], 3, "tiny")

    assert glic("train", *arguments, "--steps", "5", "--resume")[0] == 0
    with (output / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == list("12345")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_its_processes_saves_and_ends(setting, number):
    arguments = ["--config", "tiny.yaml", "-d", "photos", "--steps", "100000", "-o", "run"]
    process = subprocess.Popen(
        [*COMMAND, "train", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while process.poll() is None and not (setting / "run" / "latest.ckpt").exists():
            time.sleep(0.1)
        os.killpg(process.pid, number)
        _, messages = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, messages
    assert "Traceback" not in messages
    assert "Stopped; the same command with --resume goes on from run" in messages
    steps = len((setting / "run" / "log.csv").read_text().splitlines()) - 1
    latest = torch.load(setting / "run" / "latest.ckpt", weights_only=True)
    assert latest["glic_pyg"]["step"] == steps


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_killed_run_continues_as_if_never_stopped(setting, optimizer):
    """Killed with SIGKILL in the middle of a step, at a moment that nobody chose."""
    command = [*COMMAND, "train", "--config", "tiny.yaml", "-d", "photos", "--steps", "12"]
    command += ["--optimizer", optimizer]
    subprocess.run([*command, "-o", "whole"], check=True, capture_output=True)
    process = subprocess.Popen([*command, "-o", "parts"], stderr=subprocess.DEVNULL)
    log = setting / "parts" / "log.csv"
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 5):
        time.sleep(0.01)
    process.kill()
    process.wait()
    killed_at = len(log.read_text().splitlines()) - 1
    assert 5 <= killed_at < 12
    subprocess.run([*command, "-o", "parts", "--resume"], check=True, capture_output=True)

    def curve(run):
        with (setting / run / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]

    assert len(curve("whole")) == 12
    assert curve("parts") == curve("whole")
    assert (setting / "parts" / "eval.csv").read_bytes() == (setting / "whole" / "eval.csv").read_bytes()
    for name in ("latest.safetensors", "best.safetensors"):
        # As numbers: SOAP's products may leave another sign on a zero.
        parts, whole = (load_file(setting / run / name) for run in ("parts", "whole"))
        assert parts.keys() == whole.keys()
        assert all(torch.equal(parts[key], whole[key]) for key in whole)


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"batch": 3}, [], "error: Unknown key 'batch'; did you mean 'batch_size'?"),
        ({"model": "tiny.yml"}, [], "error: Expected a YAML file (got tiny.yml: "),
        ({"batch_size": "x"}, [], "error: Expected batch_size to be a whole number (got 'x')"),
        (
            {},
            ["--batchsize", "3"],
            "error: unrecognized arguments: --batchsize 3; did you mean --batch-size?",
        ),
        ({}, ["--batch-size", "many"], "error: Expected batch_size to be a whole number (got 'many')"),
        ({}, ["--transpose", "perhaps"], "error: Expected transpose to be true or false (got 'perhaps')"),
        ({}, ["--optimizer", "sgd"], "error: Expected optimizer to be one of adam, soap, muon (got 'sgd')"),
        ({}, ["--steps", "0"], "error: Expected steps to be at least 1 (got 0)"),
        ({}, ["-d", "elsewhere"], "error: Expected a folder of pictures (got elsewhere)"),
        ({"eval_size": 128}, [], "error: Expected at least 2 usable pictures in photos (got 0)"),
    ],
)
def test_bad_input_gives_one_line(setting, glic, settings, arguments, message):
    (setting / "bad.yaml").write_text(yaml.safe_dump(SETTINGS | settings))
    status, _, errors = glic("train", "--config", "bad.yaml", "-d", "photos", *arguments)
    (line,) = errors.splitlines()
    assert status == 2
    assert line.startswith(message)
    assert not (setting / "runs").exists()


def test_flags_are_written_as_in_the_file(setting, glic):
    """And of the ways to say how long, the one on the command line holds."""
    (setting / "model.yaml").write_text((setting / "tiny_model.yaml").read_text().replace("tiny", "other"))
    status, out, err = glic(
        "train", "--config", "tiny.yaml", "--print-config", "--epochs", "3", "--learning-rate", "1e-3",
        "--patch-size", "64", "128", "--lambda", "0.02", "--max-time", "1:30:00", "--transpose", "true",
        "--milestones", "[{at: 2, learning_rate: 1e-4}]", "--model-config", "model.yaml",
    )  # fmt: skip
    assert (status, err) == (0, "")
    (setting / "run.yaml").write_text(out)
    config = TrainConfig.from_yaml(setting / "run.yaml")
    assert (config.epochs, config.steps, config.max_time) == (3, None, 5400)
    assert (config.learning_rate, config.patch_size, config.lmbda) == (1e-3, (64, 128), (0.02,))
    assert (config.transpose, config.milestones) == (True, (Milestone(at=2, learning_rate=1e-4),))
    assert (config.model.name, config.batch_size) == ("other", SETTINGS["batch_size"])


def test_every_setting_has_a_flag_that_is_explained(glic):
    _, out, _ = glic("train", "--help")
    for field in dataclasses.fields(TrainConfig):
        name = {"lmbda": "lambda", "model": "model-config"}.get(field.name, field.name.replace("_", "-"))
        assert re.search(rf"^  --{name} \S.*(\n {{20,}}|  )\S", out, re.MULTILINE), name
