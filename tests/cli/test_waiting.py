import io
import json
import logging
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from glic_pyg.cli import waiting as module
from glic_pyg.cli.waiting import LOG, Stopwatch, waiting
from glic_pyg.progress import each, logger, tell


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def open_terminal(monkeypatch):
    """Make standard error a terminal whose line comes after so many seconds."""

    def make(seconds):
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setattr(module, "TERMINAL_SECONDS", seconds)
        return sys.stderr

    return make


def wait_for(text, stream):
    end = time.monotonic() + 20
    while text not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(0.01)


def test_the_log_is_that_of_progress():
    assert logger.name == LOG


def test_a_log_gets_a_line_every_so_often(capsys, monkeypatch):
    monkeypatch.setattr(module, "LOG_SECONDS", 0.05)
    with waiting():
        tell("thinking hard")
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 11
    assert set(lines) <= {"thinking hard, 0 s", "thinking hard, 1 s"}


def test_afterwards_the_log_is_as_quiet_as_before(caplog):
    with waiting():
        tell("seen")
    tell("unseen")
    assert not caplog.messages


def test_a_log_that_cannot_be_written_ends_no_work(monkeypatch):
    def fail(text):
        raise OSError("disk full")

    monkeypatch.setattr(module, "LOG_SECONDS", 0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    sys.stderr.write = fail
    with waiting(ticking=False):
        assert list(each("ab", "letters")) == ["a", "b"]


def test_short_work_says_nothing(capsys):
    with waiting():
        assert list(each("ab", "letters")) == ["a", "b"]
    assert capsys.readouterr().err == ""


def test_work_that_forks_has_no_thread_beside_it(capsys, monkeypatch):
    monkeypatch.setattr(module, "LOG_SECONDS", 0)
    before = threading.active_count()
    with waiting(ticking=False):
        assert threading.active_count() == before
        list(each("ab", "letters"))
    assert capsys.readouterr().err == "letters, 1 of 2, 0 s\nletters, 2 of 2, 0 s\n"


def test_a_terminal_has_a_line_that_goes_again(open_terminal):
    terminal = open_terminal(0)
    with waiting():
        tell("thinking")
        wait_for("thinking, 0 s", terminal)
    assert terminal.getvalue().rsplit("\r", 2)[1].strip() == ""  # wiped out
    assert not tqdm._instances


def test_a_terminal_stays_empty_at_first(open_terminal):
    terminal = open_terminal(60)
    with waiting():
        tell("thinking")
    assert terminal.getvalue() == ""


def test_a_bar_needs_no_line_beside_it(open_terminal):
    terminal = open_terminal(0)
    with waiting():
        for _ in each("ab", "letters"):
            tell("looking at one")
    assert "letters:" in terminal.getvalue()
    assert "looking" not in terminal.getvalue()


def test_nothing_stays_behind_an_error():
    handlers, level = list(logger.handlers), logger.level
    with pytest.raises(ZeroDivisionError), waiting():
        raise ZeroDivisionError
    assert (logger.handlers, logger.level, logger.propagate) == (handlers, level, True)


def test_whoever_uses_the_library_can_listen(caplog):
    caplog.set_level(logging.INFO, LOG)
    list(each(iter("ab"), "letters", total=2))
    assert caplog.messages == ["letters", "letters, 1 of 2", "letters, 2 of 2"]


def test_laps_of_a_stopwatch_sum_to_the_time_that_passed():
    begun = time.perf_counter() - 3
    stopwatch = Stopwatch(begun)
    first = stopwatch.lap(coding=0.5)
    assert str(first) == f"{first.seconds:.2f} s (coding 0.50 s)"
    total = first.seconds + stopwatch.lap(coding=0.1).seconds
    assert total == pytest.approx(time.perf_counter() - begun, abs=0.1)
    assert first.seconds >= 3


def test_the_seconds_of_files_are_those_that_the_command_took(glic, model_file, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    start = time.perf_counter()
    _, out, _ = glic("compress", tmp_path / "photos", "-o", tmp_path / "c", "--model", model_file, "--json")
    whole = time.perf_counter() - start
    told = [json.loads(line) for line in out.splitlines()]
    coding = sum(line["coding_seconds"] for line in told)
    assert coding < sum(line["seconds"] for line in told) <= whole
