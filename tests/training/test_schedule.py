"""What every step of a run takes."""

import dataclasses
import math

import pytest

from glic_pyg.config import ConfigError
from glic_pyg.training.config import Milestone
from glic_pyg.training.schedule import Schedule, StepSampler


def rates(schedule, steps):
    return [schedule.learning_rate(step) for step in range(steps)]


def test_learning_rate_rises_then_follows_half_a_cosine_to_the_floor(config):
    config = dataclasses.replace(
        config, steps=30, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-4
    )
    seen = rates(Schedule(config, num_pictures=5), 31)
    assert seen[:10] == pytest.approx([1e-3 * (i + 1) / 11 for i in range(10)])
    assert seen[10:] == pytest.approx([1e-4 + 9e-4 * (1 + math.cos(math.pi * i / 20)) / 2 for i in range(21)])


def test_milestones_change_rate_batch_and_crops(config):
    milestones = (Milestone(at=4, learning_rate=1e-5), Milestone(at=6, patch_size=128, batch_size=1))
    config = dataclasses.replace(config, steps=9, warmup_steps=1, milestones=milestones)
    schedule = Schedule(config, num_pictures=5)
    assert schedule.steps == 9
    assert rates(schedule, 9) == pytest.approx([5e-4, *[1e-3] * 3, *[1e-5] * 5])
    assert [schedule.phase(step).patch_size for step in range(9)] == [*[64] * 6, *[128] * 3]
    samples = [list(schedule.samples(step)) for step in range(9)]
    assert samples == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12], [13], [14]]


def test_epochs_are_passes_over_the_pictures(config):
    config = dataclasses.replace(
        config, steps=None, epochs=10, batch_size=4, milestones=(Milestone(at=7, batch_size=2),)
    )
    schedule = Schedule(config, num_pictures=100)
    assert [phase.steps for phase in schedule.phases] == [7 * 25, 3 * 50]
    assert schedule.steps == 325
    assert schedule.samples(324) == range(998, 1000)
    with pytest.raises(ConfigError, match=r"Expected at least 4 pictures to train on \(got 0\)"):
        Schedule(config, num_pictures=0)


def test_warmup_is_shorter_than_the_run(config):
    config = dataclasses.replace(config, steps=None, epochs=1, warmup_steps=3)
    with pytest.raises(ConfigError, match=r"Expected warmup_steps to be less than the run's 3 \(got 3\)"):
        Schedule(config, num_pictures=6)


def test_shares_make_up_the_batches_from_any_step_on(config):
    milestones = (Milestone(at=3, patch_size=128, batch_size=4),)
    schedule = Schedule(dataclasses.replace(config, milestones=milestones), num_pictures=5)
    whole = list(StepSampler(schedule, first_step=0, rank=0, num_shares=1))
    assert [len(batch) for batch in whole] == [2, 2, 2, 4, 4, 4]
    assert whole[3] == [(6, 128), (7, 128), (8, 128), (9, 128)]
    assert list(StepSampler(schedule, first_step=4, rank=0, num_shares=1)) == whole[4:]
    halves = [list(StepSampler(schedule, first_step=2, rank=rank, num_shares=2)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == whole[2:]
    with pytest.raises(ConfigError, match=r"Expected a batch size divisible by 4 devices \(got 2\)"):
        StepSampler(schedule, first_step=0, rank=0, num_shares=4)
