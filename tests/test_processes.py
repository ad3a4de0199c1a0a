import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from glic_pyg.processes import ProcessError, in_processes


def returning(function):
    """Make, in a process, what is done with items there."""
    return function


def work(function, items, jobs=2):
    return in_processes(partial(returning, function), items, jobs=jobs)


def test_results_come_in_the_order_of_the_items():
    assert list(work(abs, [-3, 1, -2] * 20)) == [3, 1, 2] * 20


def test_items_are_taken_as_they_are_needed():
    taken = []
    results = work(abs, (taken.append(i) or i for i in range(1000)), jobs=1)
    assert next(results) == 0
    assert len(taken) < 50
    results.close()


def test_who_ends_early_waits_for_no_others():
    """As Ctrl-C does while a row is written: hours of work may be left."""
    before, mask = multiprocessing.active_children(), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    start = time.monotonic()
    results = work(time.sleep, [0, *[600] * 20])
    assert next(results) is None
    results.close()
    assert time.monotonic() - start < 60
    assert multiprocessing.active_children() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask


def test_ctrl_c_is_left_to_the_caller():
    assert list(work(signal.getsignal, [signal.SIGINT], jobs=1)) == [signal.SIG_IGN]


def no_begin():
    raise ValueError("nothing to begin with")


def test_an_error_ends_all():
    with pytest.raises(TypeError):
        list(work(abs, ["text", 1]))
    with pytest.raises(ValueError, match="nothing to begin with"):
        list(in_processes(no_begin, [1], jobs=1))
    assert not [process for process in multiprocessing.active_children() if process.is_alive()]


def test_a_process_that_dies_is_told():
    with pytest.raises(ProcessError, match="Expected 1 processes that work to the end"):
        list(work(os._exit, [9], jobs=1))


class Finalised:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def lose_sigterm(seconds):
    Finalised()  # Python ignores what a finaliser raises
    time.sleep(seconds)


def test_sigterm_in_a_finaliser_ends_a_process_all_the_same():
    with pytest.raises(ProcessError):
        list(work(lose_sigterm, [600], jobs=1))


SLOW = """
import sys, time
from functools import partial
from glic_pyg.processes import in_processes

def begin(path):
    def work(seconds):
        open(path, "w").close()
        try:
            time.sleep(seconds)
        finally:
            import os
            os.unlink(path)
    return work

if __name__ == "__main__":
    list(in_processes(partial(begin, sys.argv[1]), [600], jobs=1))
"""


def test_processes_end_with_who_was_killed_and_clean_up(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, tmp_path / "slow.py", tmp_path / "made"]
    process = subprocess.Popen(command, start_new_session=True)
    while not (tmp_path / "made").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    for _ in range(1000):
        if not (tmp_path / "made").exists() and not alive(process.pid):
            return
        time.sleep(0.01)
    raise AssertionError("something goes on")


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
