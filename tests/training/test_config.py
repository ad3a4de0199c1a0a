"""Training configurations: checks, files, references to model files."""

import dataclasses
from pathlib import Path

import pytest

from glic_pyg.config import ConfigError, ModelConfig
from glic_pyg.training.config import Milestone, TrainConfig

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted((CONFIGS / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_training_file_is_read(path):
    config = TrainConfig.from_yaml(path)
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_model_may_be_a_file_beside():
    config = TrainConfig.from_yaml(CONFIGS / "train" / "nano.yaml")
    assert config.model == ModelConfig.from_yaml(CONFIGS / "model" / "glic_nano.yaml")


def test_missing_model_file_is_named(tmp_path):
    (tmp_path / "run.yaml").write_text("model: nowhere.yaml\n")
    with pytest.raises(ConfigError, match=r"Expected a YAML file \(got .*nowhere\.yaml"):
        TrainConfig.from_yaml(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("key", "near"), [("lambda", "lmbda"), ("batchsize", "batch_size"), ("model.head", "heads")]
)
def test_unknown_key_names_the_nearest(key, near):
    section, _, name = key.rpartition(".")
    values = {section: {name: 1}} if section else {name: 1}
    with pytest.raises(ConfigError, match=f"Unknown key '{key}'; did you mean '{near}'"):
        TrainConfig.from_dict(values)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, r"Expected steps to be at least 1 \(got 0\)"),
        ("warmup_steps", -1, r"Expected warmup_steps to be at least 0 \(got -1\)"),
        ("lmbda", (0.0,), r"Expected lmbda to be 1 positive values, .* \(got \(0\.0,\)\)"),
        ("lmbda", (0.1, 0.2), r"Expected lmbda to be 1 positive values, one per quality of the model"),
        ("epochs", 3, r"Expected epochs or steps \(got epochs 3 and steps 9\)"),
        ("steps", None, r"Expected epochs, steps or max_time \(got none\)"),
        ("max_time", 0.0, r"Expected max_time to be positive \(got 0\.0\)"),
        ("distortion", "ms-ssim", r"Expected eval_size to be at least 192 for ms-ssim \(got 128\)"),
        ("milestones", (Milestone(at=9),), r"Expected milestones in order within 9 steps \(got \[9\]\)"),
        ("milestones", (Milestone(at=2, patch_size=100),), r"Expected patch_size .* \(got 100\)"),
        ("patch_size", 100, r"Expected patch_size to be a positive multiple of 64 \(got 100\)"),
        ("patch_size", (64, 100), r"Expected patch_size to be a positive multiple of 64 \(got 100\)"),
        ("patch_size", (), r"Expected patch_size to be one side or several \(got none\)"),
        ("ema_decay", 1.0, r"Expected ema_decay to be in \[0, 1\) \(got 1\.0\)"),
        ("least_scale", 0.0, r"Expected least_scale to be in \(0, 1\] \(got 0\.0\)"),
        ("eval_share", 0.0, r"Expected eval_share to be in \(0, 1\) \(got 0\.0\)"),
    ],
)
def test_impossible_values_are_refused(name, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TrainConfig(steps=9, eval_size=128), **{name: value})


def test_rates_are_given_by_a_cosine_or_by_milestones():
    with pytest.raises(ConfigError, match=r"final_learning_rate or rates at milestones \(got both\)"):
        TrainConfig(steps=9, final_learning_rate=1e-5, milestones=(Milestone(at=2, learning_rate=1e-5),))


def test_time_is_read_as_people_write_it(tmp_path):
    for text, seconds in (("600", 600), ("9:00", 540), ("1:30:00", 5400)):
        (tmp_path / "run.yaml").write_text(f"max_time: {text}\n")
        assert TrainConfig.from_yaml(tmp_path / "run.yaml").max_time == seconds


def test_milestones_are_in_the_unit_of_the_length():
    late = (Milestone(at=20),)
    assert TrainConfig(max_time=30.0, milestones=late).unit == "seconds"
    with pytest.raises(ConfigError, match=r"Expected milestones in order within 9 steps \(got \[20\]\)"):
        TrainConfig(max_time=30.0, steps=9, milestones=late)


def test_patch_sizes_are_one_or_several(tmp_path):
    text = (
        "steps: 9\npatch_size: [64, 128]\nmilestones: [{at: 3, patch_size: 256}, {at: 4, patch_size: [64]}]\n"
    )
    (tmp_path / "run.yaml").write_text(text)
    config = TrainConfig.from_yaml(tmp_path / "run.yaml")
    assert config.patch_sizes == [64, 128, 256, 64]
    assert TrainConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"Expected patch_size to be a whole number \(got 'x'\)"):
        TrainConfig.from_dict({"steps": 9, "patch_size": "x"})
