"""What every step of a run takes."""

import dataclasses
import math
from itertools import islice

import pytest

from glic_pyg.config import ConfigError
from glic_pyg.training.config import Milestone
from glic_pyg.training.schedule import Schedule, StepSampler


def rates(schedule, steps):
    return [schedule.learning_rate(step, 0.0) for step in range(steps)]


def sampler(schedule, *, first_step=0, first_sample=0, seconds=lambda: 0.0, rank=0, num_shares=1):
    return StepSampler(
        schedule,
        first_step=first_step,
        first_sample=first_sample,
        seconds=seconds,
        rank=rank,
        num_shares=num_shares,
    )


def test_learning_rate_rises_then_follows_half_a_cosine_to_the_floor(config):
    config = dataclasses.replace(
        config, steps=30, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-4
    )
    seen = rates(Schedule(config, num_pictures=5), 31)
    assert seen[:10] == pytest.approx([1e-3 * (i + 1) / 11 for i in range(10)])
    assert seen[10:] == pytest.approx([1e-4 + 9e-4 * (1 + math.cos(math.pi * i / 20)) / 2 for i in range(21)])


def test_learning_rate_follows_the_time_whatever_the_steps(config):
    config = dataclasses.replace(
        config, steps=None, max_time=60.0, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-4
    )
    schedule = Schedule(config, num_pictures=5)
    for step in (10, 1000):
        for second in (0, 15, 30, 60, 90):
            cosine = math.cos(math.pi * min(second, 60) / 60)
            assert schedule.learning_rate(step, second) == pytest.approx(1e-4 + 9e-4 * (1 + cosine) / 2)
    # A machine too slow for the warm-up does not end at a high rate.
    assert schedule.learning_rate(4, 60.0) == pytest.approx(1e-4 * 5 / 11)
    assert [schedule.share(1000, second) for second in (0, 15, 60, 61)] == [0, 0.25, 1, 1]


def test_a_run_by_both_ends_with_what_is_over_first(config):
    schedule = Schedule(dataclasses.replace(config, steps=100, max_time=60.0), num_pictures=5)
    assert schedule.share(10, 30.0) == 0.5
    assert schedule.share(80, 30.0) == 0.8
    assert schedule.share(100, 0.0) == schedule.share(0, 60.0) == 1


def test_milestones_change_rate_batch_and_crops(config):
    milestones = (Milestone(at=4, learning_rate=1e-5), Milestone(at=6, patch_size=128, batch_size=1))
    config = dataclasses.replace(config, steps=9, warmup_steps=1, milestones=milestones)
    schedule = Schedule(config, num_pictures=5)
    assert schedule.steps == 9
    assert rates(schedule, 9) == pytest.approx([5e-4, *[1e-3] * 3, *[1e-5] * 5])
    batches = [[*map(list, zip(*batch, strict=True))] for batch in sampler(schedule)]
    assert [sizes for _, sizes in batches] == [*[[64, 64]] * 6, *[[128]] * 3]
    samples = [samples for samples, _ in batches]
    assert samples == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12], [13], [14]]


def test_milestones_come_in_time_where_only_the_time_is_given(config):
    milestones = (Milestone(at=20, patch_size=128, batch_size=1),)
    config = dataclasses.replace(config, steps=None, max_time=60.0, milestones=milestones)
    clock = iter([0.0, 10.0, 19.9, 20.0, 50.0, 70.0])
    batches = list(islice(sampler(Schedule(config, num_pictures=5), seconds=lambda: next(clock)), 6))
    assert batches == [
        [(0, 64), (1, 64)], [(2, 64), (3, 64)], [(4, 64), (5, 64)], [(6, 128)], [(7, 128)], [(8, 128)],
    ]  # fmt: skip


def test_epochs_are_passes_over_the_pictures(config):
    config = dataclasses.replace(
        config, steps=None, epochs=10, batch_size=4, milestones=(Milestone(at=7, batch_size=2),)
    )
    schedule = Schedule(config, num_pictures=100)
    assert [phase.begin for phase in schedule.phases] == [0, 7 * 25]
    assert schedule.steps == 325
    *_, last = sampler(schedule)
    assert [sample for sample, _ in last] == [998, 999]
    with pytest.raises(ConfigError, match=r"Expected at least 4 pictures to train on \(got 0\)"):
        Schedule(config, num_pictures=0)


def test_warmup_is_shorter_than_the_run(config):
    config = dataclasses.replace(config, steps=None, epochs=1, warmup_steps=3)
    with pytest.raises(ConfigError, match=r"Expected warmup_steps to be less than the run's 3 \(got 3\)"):
        Schedule(config, num_pictures=6)


def test_shares_make_up_the_batches_from_any_step_on(config):
    milestones = (Milestone(at=3, patch_size=(64, 128), batch_size=4),)
    schedule = Schedule(dataclasses.replace(config, milestones=milestones, steps=40), num_pictures=5)
    whole = list(sampler(schedule))
    assert [len(batch) for batch in whole] == [2, 2, 2, *[4] * 37]
    assert [[sample for sample, _ in batch] for batch in whole[2:4]] == [[4, 5], [6, 7, 8, 9]]
    sizes = [{size for _, size in batch} for batch in whole]
    assert all(len(size) == 1 for size in sizes)
    assert 10 < sizes.count({128}) < 27
    assert list(sampler(schedule, first_step=4, first_sample=10)) == whole[4:]
    halves = [
        list(sampler(schedule, first_step=2, first_sample=4, rank=rank, num_shares=2)) for rank in (0, 1)
    ]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == whole[2:]
    with pytest.raises(ConfigError, match=r"Expected a batch size divisible by 4 devices \(got 2\)"):
        sampler(schedule, num_shares=4)
