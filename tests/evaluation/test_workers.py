import multiprocessing
import signal
import time

import pytest

from glic_pyg.evaluation.workers import in_processes


def test_results_come_as_they_are_ready():
    assert sorted(in_processes(abs, [-3, 1, -2], workers=2, begin=abs)) == [1, 2, 3]


def test_who_ends_early_waits_for_no_others():
    """As Ctrl-C does while a row is written: hours of work may be left."""
    before, handler = multiprocessing.active_children(), signal.getsignal(signal.SIGINT)
    start = time.monotonic()
    results = in_processes(time.sleep, [0, *[600] * 20], workers=2, begin=abs)
    assert next(results) is None
    results.close()
    assert time.monotonic() - start < 60
    assert multiprocessing.active_children() == before
    assert signal.getsignal(signal.SIGINT) == handler


def test_ctrl_c_is_left_to_the_caller():
    results = in_processes(signal.getsignal, [signal.SIGINT], workers=1, begin=abs)
    assert list(results) == [signal.SIG_IGN]


def test_an_error_ends_all():
    with pytest.raises(TypeError):
        list(in_processes(abs, ["text", 1], workers=2, begin=abs))
    assert not [process for process in multiprocessing.active_children() if process.is_alive()]
