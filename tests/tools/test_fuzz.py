from pathlib import Path

import numpy as np
import pytest
import torch

from glic_pyg import bitstream
from glic_pyg.evaluation import fuzz
from glic_pyg.evaluation.fuzz import Findings, try_file, wrong_file

TRUE_FILES = Path(__file__).parents[1] / "golden" / "files"


def test_wrong_files_give_pictures_or_lines(tool, tmp_path):
    status, out, err = tool("fuzz", "-n", 300, "-o", tmp_path / "inputs", "--seed", 7)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1].startswith("300 inputs in ")
    assert lines[-1].endswith("; 0 did what they should not")
    counts = {line[10:]: int(line[:8]) for line in lines[1:-1]}
    assert sum(counts.values()) == 300
    for kind in ("Expected checksum N", "Expected latents with checksum N", "Expected a quality in N"):
        assert counts[kind] > 0
    assert [path.name for path in (tmp_path / "inputs").iterdir()] == ["current.glic"]


def test_wrong_files_are_of_many_kinds():
    files = [(TRUE_FILES / f"version_{version}.glic").read_bytes() for version in (1, 2, 3)]
    rng = np.random.default_rng(0)
    made = [wrong_file(files, rng) for _ in range(200)]
    assert len(set(made)) > 190
    well_formed = 0
    for data in made:
        try:
            bitstream.unpack(data)
        except bitstream.BitstreamError:
            continue
        well_formed += 1
    assert 80 < well_formed < 160


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        (torch.zeros(1), None),
        (bitstream.BitstreamError("Expected 3 of 4 (got 5)"), None),
        (bitstream.BitstreamError("Traceback\nwhatever"), "no line for a user"),
        (IndexError("out of range"), "IndexError"),
    ],
)
def test_problems_are_noticed(monkeypatch, outcome, problem):
    def decode(*_, **__):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(fuzz.bitstream, "decode", decode)
    findings = Findings()
    try_file(None, b"data", findings, seconds_bound=100)
    assert [(data, what[: len(problem)]) for data, what in findings.problems] == (
        [(b"data", problem)] if problem else []
    )
    try_file(None, b"data", findings, seconds_bound=0)
    assert findings.problems[-1] == (b"data", "0.0 s")


def test_guided_needs_its_package(tool, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "atheris", None)
    status, _, err = tool("fuzz", "-n", 3, "-o", tmp_path, "--guided")
    assert (status, err) == (2, "error: Expected package atheris for --guided (got none)\n")
