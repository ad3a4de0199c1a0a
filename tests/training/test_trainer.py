"""Whole runs: what they leave, resuming, stopping."""

import csv
import dataclasses
import math
import os
import shutil
import signal
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from glic_pyg import checkpoint
from glic_pyg.checkpoint import CheckpointError
from glic_pyg.codec import GLIC
from glic_pyg.config import ConfigError, Part
from glic_pyg.errors import FileError
from glic_pyg.training import callbacks
from glic_pyg.training.config import Milestone
from glic_pyg.training.module import CodecModule
from glic_pyg.training.run_folder import RunFolder
from glic_pyg.training.trainer import train

TIMES = ("seconds", "wait_seconds")


def read(path, *, without=()):
    with path.open() as file:
        return [{k: float(v) for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


def enlarged(photos):
    """Make pictures large enough for crops of 128."""
    for path in photos.rglob("*.*"):
        with Image.open(path) as image:
            image.resize((2 * image.width, 2 * image.height)).save(path)
    return photos


@pytest.fixture
def several(config):
    """The configuration of a model of three qualities."""
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, qualities=3), lmbda=(0.002, 0.01, 0.05)
    )


def test_run_folder_holds_what_a_run_needs(several, photos, tmp_path):
    assert train(several, dataset=photos, output=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert [row["step"] for row in read(run.log)] == [1, 2, 3, 4, 5, 6]
    evaluations = read(run.eval)
    assert [(row["step"], row["quality"]) for row in evaluations] == [
        (step, quality) for step in (3, 6) for quality in (1, 2, 3)
    ]
    model = GLIC.from_pretrained(run.latest.with_suffix(".safetensors"))
    assert model.compress(torch.rand(1, 3, 64, 64), 1.5)["strings"]
    info = checkpoint.load(run.latest.with_suffix(".safetensors")).info
    assert info == {"lambda": [0.002, 0.01, 0.05], "distortion": "mse", "steps": 6}
    losses = {step: sum(row["loss"] for row in evaluations if row["step"] == step) for step in (3, 6)}
    best = checkpoint.load(run.best.with_suffix(".safetensors")).info["steps"]
    assert losses[best] == min(losses.values())
    assert sorted(path.name for path in run.samples.iterdir()) == ["00000003.png", "00000006.png"]
    with Image.open(run.samples / "00000006.png") as image:
        assert image.size == (4 * 64, 64)
    assert len(run.manifest.read_text().splitlines()) == 1 + 6
    assert any("tfevents" in path.name for path in (run.path / "tensorboard").iterdir())


def test_what_is_evaluated_and_exported_is_the_averaged_model_and_8_bits(config, photos, tmp_path):
    train(config, dataset=photos, output=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    content = torch.load(run.latest, weights_only=True)
    steps = content["current_model_state"]["model.g_a.down.0.weight"]
    average = content["state_dict"]["model.g_a.down.0.weight"]
    assert not torch.equal(steps, average)
    model = GLIC.from_pretrained(run.latest.with_suffix(".safetensors"))
    torch.testing.assert_close(model.g_a.down[0].weight, average, atol=1e-3, rtol=1e-3)

    with Image.open(run.samples / "00000006.png") as image:
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(64, 128, 3).double()
    mse = (pixels[:, :64] - pixels[:, 64:]).square().mean()
    assert read(run.eval)[-1]["psnr"] == pytest.approx((10 * (255**2 / mse).log10()).item(), rel=1e-4)


def test_average_follows_the_weights(config, photos, tmp_path, monkeypatch):
    steps = []
    step = CodecModule.training_step

    def watched(self, batch, batch_idx):
        step(self, batch, batch_idx)
        steps.append(self.model.g_a.down[0].weight.detach().clone())

    monkeypatch.setattr(CodecModule, "training_step", watched)
    train(dataclasses.replace(config, steps=3), dataset=photos, output=tmp_path / "run")
    state = torch.load(tmp_path / "run" / "latest.ckpt", weights_only=True)["state_dict"]
    expected = (steps[0] * 2 / 11 + steps[1] * 9 / 11) * 3 / 12 + steps[2] * 9 / 12
    torch.testing.assert_close(state["model.g_a.down.0.weight"], expected)


def test_the_encoder_stays_once_latents_are_rounded(several, photos, tmp_path):
    """The last of a run's steps: the decoder alone is trained, from the averages on."""
    before, after = RunFolder(tmp_path / "before"), RunFolder(tmp_path / "after")
    train(dataclasses.replace(several, steps=3), dataset=photos, output=before.path)
    milestones = (Milestone(at=3, rounded=True),)
    longer = dataclasses.replace(several, steps=5, milestones=milestones)
    shutil.copytree(before.path, after.path)
    train(longer, dataset=photos, output=after.path, resume=True)
    average = torch.load(before.latest, weights_only=True)["state_dict"]
    current = torch.load(after.latest, weights_only=True)["current_model_state"]
    encoder = [
        name
        for name in average
        if name.startswith("model.g_a.") or ".h_a." in name or name in ("model.gain.y", "model.gain.z")
    ]
    assert len(encoder) > 20
    assert all(torch.equal(current[name], average[name]) for name in encoder)
    for name in ("g_s.up.0.0.weight", "gain.y_inverse", "latent_codec.hyper.h_s.0.0.weight"):
        assert not torch.equal(current[f"model.{name}"], average[f"model.{name}"])

    whole = RunFolder(tmp_path / "whole")
    train(longer, dataset=photos, output=whole.path)
    assert read(whole.log, without=TIMES) == read(after.log, without=TIMES)


@pytest.mark.parametrize(("stop_at", "optimizer"), [(2, "adam"), (3, "adam"), (4, "adam"), (4, "muon")])
def test_stopped_run_continues_identically(several, photos, tmp_path, monkeypatch, stop_at, optimizer):
    several = dataclasses.replace(several, optimizer=optimizer)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    assert train(several, dataset=photos, output=whole.path)

    step = CodecModule.training_step

    def terminated(self, batch, batch_idx):
        step(self, batch, batch_idx)
        if self.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(CodecModule, "training_step", terminated)
        assert not train(several, dataset=photos, output=parts.path, resume=True)
    assert len(read(parts.log)) == stop_at
    torch.rand(7)  # the random state is the run's, not the process's
    assert train(several, dataset=photos, output=parts.path, resume=True)

    assert read(parts.log, without=TIMES) == read(whole.log, without=TIMES)
    times = [(row["seconds"], row["wait_seconds"]) for row in read(parts.log)]
    assert all(wait < end - start for (start, _), (end, wait) in pairwise(times))
    assert read(parts.eval) == read(whole.eval)
    for name in ("latest", "best"):
        first, second = (checkpoint.load(run.path / f"{name}.safetensors") for run in (whole, parts))
        assert first.info == second.info
        assert all(torch.equal(tensor, second.state[name]) for name, tensor in first.state.items())
    assert train(several, dataset=photos, output=parts.path, resume=True)  # nothing is left to do


def test_a_run_by_time_ends_in_time_and_goes_on_with_the_time_left(config, photos, tmp_path, monkeypatch):
    seconds = iter(range(10**6))  # every look at the clock takes one
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    by_time = dataclasses.replace(
        config, steps=None, max_time=40.0, eval_every=100, final_learning_rate=1e-5,
        milestones=(Milestone(at=20, batch_size=1, patch_size=(64, 128)),),
    )  # fmt: skip
    photos = enlarged(photos)
    step = CodecModule.training_step

    def terminated(self, batch, batch_idx):
        step(self, batch, batch_idx)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(CodecModule, "training_step", terminated)
        assert not train(by_time, dataset=photos, output=run.path, resume=True)
    stopped = torch.load(run.latest, weights_only=True)["glic_pyg"]
    next(seconds), next(seconds)  # time that is not the run's
    assert train(by_time, dataset=photos, output=run.path, resume=True)
    rows = read(run.log)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[2]["seconds"] == stopped["seconds"]
    taken = [b["seconds"] - a["seconds"] for a, b in pairwise(rows)]
    assert max(taken) <= 4  # looks at the clock: before the step, after it, by the bar (at a start two)
    assert rows[-2]["seconds"] < 40 <= rows[-1]["seconds"]
    begins = [0.0, *(row["seconds"] for row in rows)]
    for begin, row in zip(begins, rows, strict=False):
        rate = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * begin / 40)) / 2
        assert row["learning_rate"] == pytest.approx(rate, rel=1e-6)
    assert {row["step"] for row in read(run.eval)} == {len(rows)}
    state = torch.load(run.latest, weights_only=True)["glic_pyg"]
    early = sum(begin < 20 for begin in begins[:-1])
    assert state["sample"] - len(rows) in (early, early + 1)  # a batch is drawn one ahead
    assert train(by_time, dataset=photos, output=run.path, resume=True)  # nothing is left to do
    assert read(run.log) == rows


def test_other_settings_hold_after_a_resume(config, photos, tmp_path):
    train(config, dataset=photos, output=tmp_path / "run")
    longer = dataclasses.replace(config, steps=8, learning_rate=5e-4)
    assert train(longer, dataset=photos, output=tmp_path / "run", resume=True)
    rows = read(RunFolder(tmp_path / "run").log)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["learning_rate"] for row in rows[6:]] == pytest.approx([5e-4, 5e-4])


def test_run_folders_are_not_overwritten(config, photos, tmp_path):
    output = tmp_path / "run"
    train(dataclasses.replace(config, steps=1), dataset=photos, output=output)
    with pytest.raises(ConfigError, match=r"Expected a new run folder \(got .*run, which has a checkpoint\)"):
        train(config, dataset=photos, output=output)
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, hyper_depth=2))
    with pytest.raises(ConfigError, match=r"Expected the model that .*run was started with"):
        train(other, dataset=photos, output=output, resume=True)


def test_starts_from_given_weights(config, several, photos, tmp_path):
    first, second = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    train(config, dataset=photos, output=first.path)
    weights = first.latest.with_suffix(".safetensors")
    still = dataclasses.replace(several, steps=1, learning_rate=1e-12)
    train(still, dataset=photos, output=second.path, weights=weights)
    trained = torch.load(second.latest, weights_only=True)["current_model_state"]
    for name, tensor in checkpoint.load(weights).state.items():
        if tensor.dtype == torch.float16:
            torch.testing.assert_close(trained["model." + name], tensor.float(), atol=1e-6, rtol=0)

    other = dataclasses.replace(config, model=dataclasses.replace(config.model, hyper_depth=2))
    with pytest.raises(ConfigError, match=r"Expected weights of the model to train \(got .*latest"):
        train(other, dataset=photos, output=tmp_path / "third", weights=weights)
    of_several = second.latest.with_suffix(".safetensors")
    with pytest.raises(ConfigError, match=r"Expected weights of the model to train \(got .*latest"):
        train(config, dataset=photos, output=tmp_path / "third", weights=of_several)


def with_graph(config, **settings):
    """The configuration with other settings of the graphs."""
    graph = dataclasses.replace(config.model.graph, **settings)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, graph=graph))


def test_starts_from_weights_that_other_graphs_were_trained_with(config, photos, tmp_path):
    first, second = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    train(config, dataset=photos, output=first.path)
    weights = first.latest.with_suffix(".safetensors")
    alone = with_graph(config, candidates=(Part("local"),), selection=Part("knn", {"k": 1}))
    still = dataclasses.replace(alone, steps=1, learning_rate=1e-12)
    train(still, dataset=photos, output=second.path, weights=weights)
    trained = checkpoint.load(second.latest.with_suffix(".safetensors"))
    assert trained.config == alone.model
    for name, tensor in checkpoint.load(weights).state.items():
        if tensor.dtype == torch.float16:
            torch.testing.assert_close(trained.state[name], tensor, atol=1e-3, rtol=1e-3)

    fewer = with_graph(config, strides=(8,))  # whose other layers have no attention
    with pytest.raises(ConfigError, match=r"Expected weights of the model to train \(got .*latest"):
        train(fewer, dataset=photos, output=tmp_path / "third", weights=weights)


def test_code_that_only_the_weights_name_does_not_run(config, photos, tmp_path, monkeypatch):
    (tmp_path / "own_selection.py").write_text(
        "from glic_pyg.graph.selection import TopD\n\n\nclass Mine(TopD):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    first = RunFolder(tmp_path / "first")
    own = dataclasses.replace(with_graph(config, selection=Part("own_selection.Mine")), steps=1)
    train(own, dataset=photos, output=first.path)
    weights = first.latest.with_suffix(".safetensors")
    train(own, dataset=photos, output=tmp_path / "second", weights=weights)  # runs it anyway
    del sys.modules["own_selection"]
    with pytest.raises(CheckpointError, match=r"own_selection\.Mine"):
        train(config, dataset=photos, output=tmp_path / "third", weights=weights)
    assert "own_selection" not in sys.modules


def test_a_manifest_chooses_the_pictures(config, photos, tmp_path):
    first, second = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    train(config, dataset=photos, output=first.path)
    (photos / "new.png").write_bytes((photos / "p0.png").read_bytes())
    train(config, dataset=photos, output=second.path, manifest=first.manifest)
    assert first.manifest.read_bytes() == second.manifest.read_bytes()
    assert read(first.log, without=TIMES) == read(second.log, without=TIMES)
    (photos / "p1.png").unlink()
    with pytest.raises(FileError, match=r"1 missing or changed"):
        train(config, dataset=photos, output=first.path, resume=True)


def test_too_few_pictures_are_refused(config, photos, tmp_path):
    larger = dataclasses.replace(config, eval_size=128)
    with pytest.raises(ConfigError, match=r"Expected at least 2 usable pictures in .*photos \(got 0\)"):
        train(larger, dataset=photos, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_damaged_checkpoint_is_refused(config, photos, tmp_path):
    run = RunFolder(tmp_path)
    torch.save({"glic_pyg": {"step": 1}}, run.latest)
    run.latest.write_bytes(run.latest.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"Expected a training checkpoint \(got .*latest\.ckpt: "):
        train(config, dataset=photos, output=run.path, resume=True)


class Exploit:
    def __reduce__(self):
        return print, ("ran",)


def test_checkpoint_with_code_is_refused(config, photos, tmp_path, capsys):
    torch.save({"glic_pyg": Exploit()}, tmp_path / "latest.ckpt")
    with pytest.raises(ConfigError, match="Expected a training checkpoint"):
        train(config, dataset=photos, output=tmp_path, resume=True)
    assert "ran" not in capsys.readouterr().out


# What Python 3.12 and later say about starting a worker.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_and_pictures_in_memory_give_the_same_run(several, photos, tmp_path):
    logs = []
    for pictures, workers in (("files", 0), ("files", 1), ("memory", 0), ("memory", 1)):
        config = dataclasses.replace(
            several, steps=2, eval_every=2, num_workers=workers, pictures=pictures, transpose=True
        )
        run = RunFolder(tmp_path / f"{pictures}{workers}")
        train(config, dataset=photos, output=run.path)
        logs.append((read(run.log, without=TIMES), read(run.eval)))
    assert logs[0] == logs[1] == logs[2] == logs[3]


def test_pictures_of_several_folders(config, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "other")
    folders = [photos, tmp_path / "other"]
    run = RunFolder(tmp_path / "run")
    train(dataclasses.replace(config, steps=1), dataset=folders, output=run.path)
    names = [line.split(",")[0] for line in run.manifest.read_text().splitlines()[1:]]
    assert names[5:7] == ["other/p4.png", "photos/more/p.jpg"]
    assert len(names) == 12
    assert train(dataclasses.replace(config, steps=2), dataset=folders, output=run.path, resume=True)
    with pytest.raises(FileError, match=r"12 missing or changed"):
        train(dataclasses.replace(config, steps=3), dataset=photos, output=run.path, resume=True)
