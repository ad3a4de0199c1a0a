"""Steps and evaluations, as Lightning runs them."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from glic_pyg import identity
from glic_pyg.codec import GLIC
from glic_pyg.training import module as module_module
from glic_pyg.training.lightning import Callback
from glic_pyg.training.module import CodecModule, TrainingError
from glic_pyg.training.quiet import bare_trainer, quiet_lightning
from glic_pyg.training.schedule import Schedule

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
ONES = torch.ones(2, dtype=torch.long)


def make_module(config):
    torch.manual_seed(0)
    return CodecModule(GLIC(config.model), config, Schedule(config, num_pictures=5))


def fit(module, batches):
    """Take a step per batch; return the lines for the log, and the weights before each step."""
    rows, before = [], []

    class Spy(Callback):
        def on_train_batch_start(self, *_):
            before.append(weights(module))

        def on_train_batch_end(self, *_):
            rows.append(module.row)

    with quiet_lightning():
        trainer = bare_trainer([Spy()])
        trainer.fit(module, DataLoader(batches, batch_size=None))
    return rows, before


def weights(module):
    return {name: p.detach().clone() for name, p in module.model.named_parameters()}


def test_one_step_is_two_adams_by_hand(config):
    module = make_module(config)
    (row,), _ = fit(module, [(X, ONES)])

    model = make_module(config).model
    torch.manual_seed(hash((config.seed, 0, 0)))
    output = model(X)
    mse = (output["x_hat"] - X).square().mean()
    bpp = -sum(likelihood.log2().sum() for likelihood in output["likelihoods"].values()) / (2 * 64 * 64)
    (config.lmbda[0] * 255**2 * mse + bpp + 0.1 * model.orthogonality_loss()).backward()
    network = {name: p for name, p in model.named_parameters() if not name.endswith(".quantiles")}
    norm = torch.stack([p.grad.norm() for p in network.values()]).norm()
    assert row["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert row["bpp"] == pytest.approx(bpp.item(), rel=1e-5)
    # Adam's first step is the learning rate times g / (|g| + eps), with g the clipped gradient.
    # (The second model's weights are those before the step, but for what masked convolutions set to zero.)
    for name, p in network.items():
        g = p.grad * min(1, config.clip_max_norm / norm.item())
        expected = p.detach() - config.learning_rate * g / (g.abs() + 1e-8)
        torch.testing.assert_close(module.model.get_parameter(name).detach(), expected, atol=2e-5, rtol=0)

    (name,) = {name for name, _ in model.named_parameters()} - set(network)
    quantiles = model.get_parameter(name)
    quantiles.grad = None
    model.aux_loss().backward()
    expected = quantiles.detach() - config.aux_learning_rate * quantiles.grad.sign()
    torch.testing.assert_close(module.model.get_parameter(name).detach(), expected)


def test_qualities_have_gains_of_their_own(config):
    several = dataclasses.replace(
        config, model=dataclasses.replace(config.model, qualities=3), lmbda=(0.001, 0.01, 0.1)
    )
    module = make_module(several)
    before = weights(module)["gain.y"]
    fit(module, [(X, torch.tensor([1, 3]))])
    changed = (weights(module)["gain.y"] != before).any(1)
    assert changed.tolist() == [True, False, True]


def test_loss_falls_on_one_batch(config):
    module = make_module(dataclasses.replace(config, steps=25, learning_rate=5e-3))
    x = torch.rand(2, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    losses = [row["loss"] for row in fit(module, [(x, ONES)] * 25)[0]]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_learning_rate_is_the_schedules(config):
    module = make_module(dataclasses.replace(config, final_learning_rate=1e-4, warmup_steps=2))
    rows, _ = fit(module, [(X, ONES)] * 4)
    assert [row["learning_rate"] for row in rows] == [module.schedule.learning_rate(i, 0.0) for i in range(4)]


def test_activations_computed_twice_give_the_same_step(config):
    plain = make_module(config)
    frugal = make_module(dataclasses.replace(config, activation_checkpointing=True))
    rows = [fit(module, [(X, ONES)])[0][0] for module in (plain, frugal)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)
    first, second = (module.model.state_dict() for module in (plain, frugal))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name])


def test_bfloat16_is_near_float32(config):
    module = make_module(config)
    with torch.no_grad():
        expected = module.losses(X, ONES)[0]
        with torch.autocast("cpu", torch.bfloat16):
            result = module.losses(X, ONES)[0]
    assert result.loss.dtype == torch.float32
    torch.testing.assert_close(result.loss, expected.loss, rtol=0.03, atol=0)
    assert result.mse != expected.mse


def test_step_that_is_not_finite_leaves_everything_alone(config):
    module = make_module(config)
    rows, seen = fit(module, [(X, ONES), (torch.full_like(X, torch.nan), ONES), (X, ONES)])
    assert [row["skipped"] for row in rows] == [0, 1, 1]
    assert all(torch.equal(p, seen[1][name]) for name, p in seen[2].items())
    assert any(not torch.equal(p, seen[2][name]) for name, p in weights(module).items())


def test_unfinished_runs_of_earlier_names_go_on(config, monkeypatch):
    """`g_a.down` was once `g_a.convs`, in the weights as in their averages."""
    monkeypatch.setattr(identity, "RENAMED", (("g_a.convs", "g_a.down"),))
    module = make_module(config)
    state = module.state_dict()
    earlier = {name.replace("model.g_a.down.", "model.g_a.convs."): x for name, x in state.items()}
    assert earlier.keys() != state.keys()
    content = {"state_dict": earlier, "current_model_state": dict(earlier)}
    module.on_save_checkpoint(content)
    module.on_load_checkpoint(content)
    assert content["state_dict"].keys() == content["current_model_state"].keys() == state.keys()
    module.load_state_dict(content["state_dict"])


def test_too_many_skipped_steps_end_the_training(config, monkeypatch):
    monkeypatch.setattr(module_module, "MOST_SKIPPED_STEPS", 2)
    nan = torch.full_like(X, torch.nan)
    with pytest.raises(
        TrainingError, match=r"Expected finite .* \(got 2 steps in a row .* step 3\); try a lower"
    ):
        fit(make_module(config), [(X, ONES), (nan, ONES), (nan, ONES)])


PARALLEL = """
import sys, warnings
import torch
from glic_pyg import GLIC
from compressai.entropy_models import EntropyModel
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.module import CodecModule
from glic_pyg.training.schedule import Schedule
from glic_pyg.training.lightning import Trainer

warnings.simplefilter("ignore")
devices, folder = int(sys.argv[1]), sys.argv[2]

def quantize(self, inputs, mode, means=None):
    # In place of random noise, which another split of the batch would draw otherwise: known noise.
    return inputs + 0.4 * torch.sin(100 * inputs.detach())

EntropyModel.quantize = quantize
torch.set_num_threads(1)
config = TrainConfig.from_yaml(folder + "/train.yaml")
torch.manual_seed(0)
module = CodecModule(GLIC(config.model), config, Schedule(config, num_pictures=4))
x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
quality = torch.tensor([1, 2, 1, 2])
trainer = Trainer(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_epochs=1,
    logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    use_distributed_sampler=False, default_root_dir=folder)
gradients = {}
zero_grad = torch.optim.Adam.zero_grad

def keep(self, *args, **kwargs):
    for name, p in module.model.named_parameters():
        if p.grad is not None:
            gradients[name] = p.grad.clone()
    zero_grad(self, *args, **kwargs)

torch.optim.Adam.zero_grad = keep
rank = trainer.global_rank
batches = [(x[rank::devices], quality[rank::devices])]
trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
if rank == 0:
    torch.save({"gradients": gradients, "row": module.row}, f"{folder}/{devices}.pt")
"""


def test_two_processes_have_the_gradients_of_one(config, tmp_path):
    several = dataclasses.replace(
        config, model=dataclasses.replace(config.model, qualities=2), lmbda=(0.01, 0.02), batch_size=4,
        clip_max_norm=1e9,
    )  # fmt: skip
    (tmp_path / "train.yaml").write_text(several.to_yaml())
    (tmp_path / "parallel.py").write_text(PARALLEL)
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, tmp_path / "parallel.py", devices, tmp_path], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / f"{devices}.pt", weights_only=True) for devices in (1, 2))
    assert one["row"] == pytest.approx(two["row"], rel=1e-4)
    (quantiles,) = (name for name in one["gradients"] if name.endswith(".quantiles"))
    assert one["gradients"][quantiles].abs().sum() > 0
    for name, gradient in one["gradients"].items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(two["gradients"][name], gradient, rtol=0, atol=1e-4 * scale + 1e-9)
