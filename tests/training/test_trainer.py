"""The training loop: steps, resuming, skipping, stopping."""

import csv
import dataclasses
import os
import signal

import pytest
import torch

from glic_pyg import checkpoint
from glic_pyg.codec import GLIC
from glic_pyg.config import ConfigError
from glic_pyg.training import trainer as trainer_module
from glic_pyg.training.run_folder import RunFolder
from glic_pyg.training.trainer import Trainer, TrainingError, train

CPU = torch.device("cpu")


@pytest.fixture
def trainer(config) -> Trainer:
    torch.manual_seed(0)
    return Trainer(GLIC(config.model), config, device=CPU)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def read(path, *, without=()):
    with path.open() as file:
        return [{k: float(v) for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


def test_one_step_is_two_adams_by_hand(trainer, config):
    x = torch.rand(2, 3, 64, 64)
    random_state = torch.get_rng_state()
    row = trainer.training_step(x)

    torch.manual_seed(0)
    model = GLIC(config.model)
    torch.set_rng_state(random_state)
    output = model(x)
    mse = (output["x_hat"] - x).square().mean()
    bpp = -sum(likelihood.log2().sum() for likelihood in output["likelihoods"].values()) / (2 * 64 * 64)
    (config.lmbda * 255**2 * mse + bpp + 0.1 * model.orthogonality_loss()).backward()
    network = {name: p for name, p in model.named_parameters() if not name.endswith(".quantiles")}
    norm = torch.stack([p.grad.norm() for p in network.values()]).norm()
    assert row["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert row["bpp"] == pytest.approx(bpp.item(), rel=1e-5)
    # Adam's first step is the learning rate times g / (|g| + eps), with g the clipped gradient.
    # (The second model's weights are those before the step, but for what masked convolutions set to zero.)
    for name, p in network.items():
        g = p.grad * min(1, config.clip_max_norm / norm.item())
        expected = p.detach() - config.learning_rate * g / (g.abs() + 1e-8)
        torch.testing.assert_close(trainer.model.get_parameter(name).detach(), expected, atol=2e-5, rtol=0)

    (name,) = {name for name, _ in model.named_parameters()} - set(network)
    quantiles = model.get_parameter(name)
    quantiles.grad = None
    model.aux_loss().backward()
    expected = quantiles.detach() - config.aux_learning_rate * quantiles.grad.sign()
    torch.testing.assert_close(trainer.model.get_parameter(name).detach(), expected)


def test_average_follows_the_weights(trainer, config):
    steps = []
    for _ in range(3):
        trainer.training_step(torch.rand(2, 3, 64, 64))
        steps.append(weights(trainer))
    for name, p in trainer.average.module.named_parameters():
        expected = steps[0][name] * 2 / 11 + steps[1][name] * 9 / 11
        torch.testing.assert_close(p.detach(), expected * 3 / 12 + steps[2][name] * 9 / 12)
    trainer.average.n_averaged.fill_(1000)
    before = trainer.average.module.g_a.down[0].weight.detach().clone()
    trainer.training_step(torch.rand(2, 3, 64, 64))
    expected = config.ema_decay * before + (1 - config.ema_decay) * trainer.model.g_a.down[0].weight
    torch.testing.assert_close(trainer.average.module.g_a.down[0].weight, expected)


def test_loss_falls_on_one_batch(config):
    torch.manual_seed(0)
    trainer = Trainer(
        GLIC(config.model), dataclasses.replace(config, steps=25, learning_rate=5e-3), device=CPU
    )
    x = torch.rand(2, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    losses = [trainer.training_step(x)["loss"] for _ in range(25)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_evaluation_is_of_the_averaged_model_and_8_bits(trainer):
    x = torch.rand(2, 3, 64, 64)
    trainer.training_step(x)
    scores = trainer.evaluate(x)
    psnrs = []
    for picture in x.split(1):
        with torch.no_grad():
            x_hat = trainer.average.module(picture)["x_hat"].mul(255).clamp(0, 255).round().div(255)
        psnrs.append(-10 * (x_hat - picture).square().mean().log10())
    assert scores["psnr"] == pytest.approx(torch.stack(psnrs).mean().item())
    assert scores == trainer.evaluate(x)
    assert trainer.model.training


def test_step_that_is_not_finite_leaves_everything_alone(trainer):
    trainer.training_step(torch.rand(2, 3, 64, 64))
    before = weights(trainer)
    trainer.training_step(torch.full((2, 3, 64, 64), torch.nan))
    assert trainer.step == 2
    assert trainer.skipped == 1
    for name, p in weights(trainer).items():
        assert torch.equal(p, before[name])
    trainer.training_step(torch.rand(2, 3, 64, 64))
    assert any(not torch.equal(p, before[name]) for name, p in weights(trainer).items())


def test_too_many_skipped_steps_end_the_training(trainer, monkeypatch):
    monkeypatch.setattr(trainer_module, "MOST_SKIPPED_STEPS", 2)
    nan = torch.full((2, 3, 64, 64), torch.nan)
    trainer.training_step(torch.rand(2, 3, 64, 64))
    trainer.training_step(nan)
    with pytest.raises(
        TrainingError, match=r"Expected finite .* \(got 2 steps in a row .* step 3\); try a lower"
    ):
        trainer.training_step(nan)


def test_run_folder_holds_what_a_run_needs(config, photos, tmp_path):
    assert train(config, dataset=photos, output=tmp_path / "run", resume=False)
    run = RunFolder(tmp_path / "run")
    assert [row["step"] for row in read(run.log)] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in read(run.eval)] == [3, 6]
    assert checkpoint.load(run.model).info == {"lambda": config.lmbda, "steps": 6}
    assert GLIC.from_pretrained(run.model).compress(torch.rand(1, 3, 64, 64))["strings"]


def test_resumed_run_continues_identically(config, photos, tmp_path, monkeypatch):
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    assert train(config, dataset=photos, output=whole.path, resume=False)

    # Terminate the run during its third step.
    step = Trainer.training_step

    def terminated(self, x):
        row = step(self, x)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return row

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", terminated)
        assert not train(config, dataset=photos, output=parts.path, resume=True)
    assert parts.load_checkpoint()["step"] == 3
    torch.rand(7)  # the random state is the run's, not the process's
    assert train(config, dataset=photos, output=parts.path, resume=True)

    assert read(parts.log, without=["seconds"]) == read(whole.log, without=["seconds"])
    assert read(parts.eval) == read(whole.eval)
    first, second = whole.load_checkpoint(), parts.load_checkpoint()
    for part in ("model", "average"):
        for name, tensor in first[part].items():
            assert torch.equal(tensor, second[part][name]), name
    first, second = checkpoint.load(whole.model), checkpoint.load(parts.model)
    assert all(torch.equal(tensor, second.state[name]) for name, tensor in first.state.items())


def test_other_settings_hold_after_a_resume(config, photos, tmp_path):
    train(config, dataset=photos, output=tmp_path / "run", resume=False)
    longer = dataclasses.replace(config, steps=8, learning_rate=5e-4, final_learning_rate=5e-4)
    assert train(longer, dataset=photos, output=tmp_path / "run", resume=True)
    rows = read(RunFolder(tmp_path / "run").log)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["learning_rate"] for row in rows[6:]] == pytest.approx([5e-4, 5e-4])


def test_run_folders_are_not_overwritten(config, photos, tmp_path):
    output = tmp_path / "run"
    train(dataclasses.replace(config, steps=1), dataset=photos, output=output, resume=False)
    with pytest.raises(ConfigError, match=r"Expected a new run folder \(got .*run, which has a checkpoint\)"):
        train(config, dataset=photos, output=output, resume=False)
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, hyper_depth=2))
    with pytest.raises(ConfigError, match=r"Expected the model that .*run was started with"):
        train(other, dataset=photos, output=output, resume=True)


def test_starts_from_given_weights(config, photos, tmp_path):
    first, second = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    train(config, dataset=photos, output=first.path, resume=False)
    still = dataclasses.replace(config, steps=1, learning_rate=1e-12, final_learning_rate=1e-12)
    train(still, dataset=photos, output=second.path, resume=False, weights=first.model)
    given = checkpoint.load(first.model).state
    trained = second.load_checkpoint()["model"]
    for name, tensor in given.items():
        if tensor.dtype == torch.float16:
            torch.testing.assert_close(trained[name], tensor.float(), atol=1e-6, rtol=0)

    other = dataclasses.replace(config, model=dataclasses.replace(config.model, hyper_depth=2))
    with pytest.raises(ConfigError, match=r"Expected weights of the model to train \(got .*model"):
        train(other, dataset=photos, output=tmp_path / "third", resume=False, weights=first.model)


def test_too_few_pictures_are_refused(config, photos, tmp_path):
    for path in list(photos.iterdir())[1:]:
        path.unlink() if path.is_file() else None
    larger = dataclasses.replace(config, eval_size=128)
    with pytest.raises(ConfigError, match=r"Expected at least 2 usable pictures in .*photos \(got 0\)"):
        train(larger, dataset=photos, output=tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


# What Python 3.12 and later say about starting a worker.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_decoding_in_a_worker_gives_the_same_run(config, photos, tmp_path):
    logs = []
    for workers in (0, 1):
        config = dataclasses.replace(config, steps=2, num_workers=workers)
        train(config, dataset=photos, output=tmp_path / str(workers), resume=False)
        logs.append(read(RunFolder(tmp_path / str(workers)).log, without=["seconds"]))
    assert logs[0] == logs[1]
