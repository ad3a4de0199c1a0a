"""Wrong inputs: that they are many, that what takes them is watched, and that what takes them holds."""

import csv
import io
import json
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import wrong_inputs
from wrong_inputs import (
    TARGETS,
    TRUE_FILES,
    Findings,
    Target,
    attempt,
    try_target,
    wrong_file,
    wrong_input,
)

from glic_pyg import bitstream, container
from glic_pyg.errors import FileError
from glic_pyg.evaluation.bd import Curve
from glic_pyg.evaluation.results import read_results
from glic_pyg.training import manifest

BOUNDS = {"seed": 0, "seconds": 10, "memory": 1 << 30}


def test_wrong_files_are_of_many_kinds():
    files = [(TRUE_FILES / f"version_{version}.glic").read_bytes() for version in (1, 2, 3)]
    rng = np.random.default_rng(0)
    made = [wrong_file(files, rng) for _ in range(200)]
    assert len(set(made)) > 190
    well_formed = 0
    for data in made:
        try:
            container.unpack(data)
        except bitstream.BitstreamError:
            continue
        well_formed += 1
    assert 80 < well_formed < 160


@pytest.mark.parametrize("name", ["results", "manifest", "table"])
def test_wrong_inputs_are_of_many_kinds_and_mostly_well_formed(name):
    target = TARGETS[name]()
    made = [wrong_input(target, 0, number) for number in range(300)]
    assert made == [wrong_input(target, 0, number) for number in range(300)]
    assert len(set(made)) > 200
    well_formed = 0
    for data in made:
        try:
            text = data.decode("utf-8")
            if name == "results":
                json.loads(text)
            else:
                list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except (ValueError, RecursionError, csv.Error):
            continue
        well_formed += 1
    assert 120 < well_formed < 290
    findings = Findings()
    for data in made:
        attempt(target, data, findings, seconds=10)
    assert findings.problems == []
    assert findings.taken > 10
    assert len(findings.refused) > (0 if name == "table" else 3)


@pytest.mark.parametrize("name", ["picture", "checkpoint", "published"])
def test_encoder_and_models_hold(name):
    """All that is wrong is refused in a line, and what is not refused works."""
    target = TARGETS[name]()
    made = [wrong_input(target, 0, number) for number in range(40)]
    assert made[:5] == [wrong_input(target, 0, number) for number in range(5)]
    assert len(set(made)) > 35
    findings = Findings()
    for data in made:
        attempt(target, data, findings, seconds=60)
    assert findings.problems == []
    assert findings.taken > 1
    assert sum(findings.refused.values()) > 3


def test_a_target_takes_its_true_inputs():
    for name in ("results", "manifest", "table", "picture", "checkpoint", "published"):
        target = TARGETS[name]()
        for data in target.true:
            target.take(data)


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        (None, None),
        (FileError("Expected 3 of 4 (got 5)"), None),
        (FileError("Traceback\nwhatever"), "no line for a user"),
        (FileError("What is this?"), "no line for a user"),
        (IndexError("out of range"), "IndexError"),
        (MemoryError(), "MemoryError"),
        (RecursionError("deep"), "RecursionError"),
    ],
)
def test_problems_are_noticed(outcome, problem):
    def take(data):
        if outcome is not None:
            raise outcome

    target, findings = Target([], wrong_file, take, (FileError,), ".x"), Findings()
    attempt(target, b"data", findings, seconds=100)
    assert [(data, what[: len(problem)]) for data, what in findings.problems] == (
        [(b"data", problem)] if problem else []
    )
    attempt(target, b"data", findings, seconds=0)
    assert findings.problems[-1] == (b"data", "0.0 s")


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("results", (Curve, "of", lambda *arguments, **settings: 1 / 0)),
        ("results", (read_results.__globals__, "_number", lambda value, *_: value)),
        ("manifest", (manifest, "Path", lambda name: SimpleNamespace(anchor="", parts=()))),
    ],
)
def test_targets_find_what_is_broken(name, broken, monkeypatch):
    """A reader without one of its checks."""
    owner, attribute, value = broken
    (monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr)(owner, attribute, value)
    target, findings = TARGETS[name](), Findings()
    for number in range(400):
        attempt(target, wrong_input(target, 0, number), findings, seconds=10)
    assert findings.problems


def deadly_target() -> Target:
    """One that kills its process, or takes its time or memory, by the first byte of its input."""

    def take(data: bytes) -> None:
        match data[:1]:
            case b"k":
                os.kill(os.getpid(), signal.SIGSEGV)
            case b"s":
                time.sleep(60)
            case b"m":
                torch.zeros(1 << 30, dtype=torch.uint8)

    def wrong(true, rng):
        return (b"ok", b"kill", b"sleep", b"memory")[rng.integers(4)]

    return Target([b"ok"], wrong, take, (FileError,), ".x")


def test_what_kills_or_stops_a_process_is_found_and_the_others_go_on(monkeypatch):
    """Each input is a problem, or not, by itself."""
    monkeypatch.setattr(
        wrong_inputs.multiprocessing,
        "get_context",
        lambda _: wrong_inputs.multiprocessing.context.ForkContext(),
    )
    monkeypatch.setitem(TARGETS, "deadly", deadly_target)
    done = []
    findings = try_target("deadly", 16, seed=0, seconds=0.05, memory=100 << 20, progress=done.append)
    assert done == list(range(1, 17))
    expected = [wrong_input(deadly_target(), 0, number) for number in range(16)]
    assert findings.taken == expected.count(b"ok") > 0
    kinds = {data: what for data, what in findings.problems}
    assert kinds[b"kill"] == "the process ended with -11"
    assert kinds[b"sleep"] == "more than 0.5 s"
    assert kinds[b"memory"].startswith("RuntimeError") and "allocate memory" in kinds[b"memory"]
    assert len(findings.problems) == 16 - findings.taken
