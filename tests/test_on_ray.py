"""Work on Ray, where it is installed."""

import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from glic_pyg.errors import PackageError
from glic_pyg.on_ray import ClusterError, _reason, _room, alone, connected, in_actors, in_tasks


class Doubling:
    def __init__(self, start):
        self.value = start

    def __call__(self, item):
        return {"doubled": 2 * item["number"] + self.value}


class Refusing:
    def __call__(self, item):
        raise OSError("no such device")


def slow_first(number):
    time.sleep(0.5 if number == 0 else 0)
    return number, os.getcwd()


def long(path):
    path.write_text(str(os.getpid()))
    time.sleep(60)


def failing(number):
    raise ValueError("no such\nnumber")


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setattr("glic_pyg.errors.find_spec", lambda name: None)
    with pytest.raises(PackageError, match=r"package ray, for work on Ray: pip install 'glic_pyg\[ray\]'"):
        connected("local").__enter__()


def test_the_reason_is_that_of_the_first_traceback():
    text = "ray::task()\n  File\nValueError: no\n\nThe above\nray.exceptions.UserCodeException: this failed"
    assert _reason(RuntimeError(text)) == "ValueError: no"
    assert _reason(RuntimeError("it died\nsince")) == "it died"
    assert _reason(ValueError()) == "ValueError"


def test_room_is_that_of_each_node(monkeypatch):
    def node(cpus, gpus=0.0, *, alive=True):
        return {"Alive": alive, "Resources": {"CPU": cpus, **({"GPU": gpus} if gpus else {})}}

    nodes = [node(4.0), node(3.0, 2.0), node(4.0), node(64.0, 8.0, alive=False)]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: nodes))
    assert [_room(1, 0), _room(2, 0), _room(4, 0), _room(1, 1), _room(1, 0.5)] == [11, 5, 2, 2, 3]
    message = r"^Expected a node with 5 cores and 0 GPUs \(got 4 and 0, 3 and 2\)$"
    with pytest.raises(ClusterError, match=message):
        _room(5, 0)


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_tasks_and_actors(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    with connected("local"):
        assert list(in_tasks(slow_first, range(9))) == [(number, str(tmp_path)) for number in range(9)]
        items = [{"number": number} for number in range(5)]
        results = [row["doubled"] for row in in_actors(Doubling, {"start": 7}, items, actors=1)]
        assert sorted(results) == [7, 9, 11, 13, 15]
        with pytest.raises(ClusterError, match="Expected a node with 1 cores and 9 GPUs"):
            list(in_tasks(slow_first, [1], gpus=9))
        with pytest.raises(ClusterError, match="Expected a node with 1 cores and 9 GPUs"):
            list(in_actors(Doubling, {"start": 7}, items, actors=1, gpus=9))
    with pytest.raises(ClusterError, match="no such"), connected("local"):
        list(in_actors(Refusing, {}, [{"number": 1}], actors=1))
    told = pytest.raises(
        ClusterError, match=r"Expected work that ends well on local \(got ValueError: no such"
    )
    with told, connected("local"):
        list(in_tasks(failing, [1]))


@pytest.mark.filterwarnings("ignore")
def test_interrupted_and_alone(tmp_path):
    """Ctrl-C ends the work wherever it is, and signals stay the caller's."""
    pytest.importorskip("ray")
    handler = signal.getsignal(signal.SIGTERM)
    path = tmp_path / "process"

    def interrupt():
        while not path.exists() or not path.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), connected("local"):
        assert signal.getsignal(signal.SIGTERM) is handler
        with (
            alone("x"),
            pytest.raises(ClusterError, match=r"^Expected no other start at work on x \(got one"),
        ):
            alone("x").__enter__()
        with alone("x"):  # it is free again
            threading.Thread(target=interrupt).start()
            list(in_tasks(long, [path]))
    process = int(path.read_text())
    for _ in range(100):
        if not os.path.exists(f"/proc/{process}"):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("a task is left")


def test_no_cluster():
    pytest.importorskip("ray")
    with pytest.raises(ClusterError, match=r"Expected a Ray cluster at 127.0.0.1:9 \(got .*refused"):
        connected("127.0.0.1:9").__enter__()
