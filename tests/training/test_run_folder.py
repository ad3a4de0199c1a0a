"""The files of a run."""

import csv
import json

import pytest
import torch

import glic_pyg.training.run_folder as run_folder
from glic_pyg.errors import FileError
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.run_folder import RunFolder


def test_a_start_is_recorded(tmp_path, config):
    run = RunFolder(tmp_path / "a" / "run")
    run.start(config, step=0)
    assert TrainConfig.from_yaml(run.config) == config
    (session,) = json.loads(run.sessions.read_text())
    assert session["step"] == 0
    assert session["versions"]["torch"] == torch.__version__
    assert set(session["git"]) == {"commit", "changed"}
    assert TrainConfig.from_dict(session["config"]) == config


def test_git_state_is_unknown_without_git(tmp_path, config, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_folder.describe_session()["git"] == {"commit": None, "changed": None}


def test_a_later_start_drops_lines_after_its_step(tmp_path, config):
    run = RunFolder(tmp_path)
    run.start(config, step=0)
    for step in range(1, 6):
        run.append(run.log, {"step": step, "loss": step / 3})
    with run.log.open("a") as file:
        file.write("6,0.")  # killed while writing
    run.start(config, step=3)
    run.append(run.log, {"step": 4, "loss": 0.5})
    with run.log.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["loss"]) for row in rows] == pytest.approx([1 / 3, 2 / 3, 1, 0.5])
    assert len(json.loads(run.sessions.read_text())) == 2


def test_files_of_somebody_else_are_not_overwritten(tmp_path, config):
    for name in ("config.yaml", "log.csv", "eval.csv", "manifest.csv", "best.ckpt"):
        run = RunFolder(tmp_path / name)
        run.check()
        run.path.mkdir()
        (run.path / name).write_text("precious")
        with pytest.raises(FileError, match=rf"Expected a run's folder, or one without {name} \(got "):
            run.check()
    run = RunFolder(tmp_path / "own")
    run.start(config, step=0)
    run.append(run.log, {"step": 1})
    run.check()


def test_what_is_no_runs_is_refused_in_a_line(tmp_path, config):
    for name, content in [
        ("sessions.json", "{}"),
        ("sessions.json", "[" * 100_000),
        ("log.csv", "a,b\nx,1\n"),
        ("eval.csv", ""),
    ]:
        run = RunFolder(tmp_path / "run")
        run.start(config, step=0)
        (run.path / name).write_text(content)
        with pytest.raises(FileError, match=rf"\(got .*{name}"):
            run.start(config, step=1)
        (run.path / name).unlink()
