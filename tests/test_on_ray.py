"""Work on Ray, where it is installed."""

import os
import sys
import time
from types import SimpleNamespace

import pytest

from glic_pyg.errors import PackageError
from glic_pyg.on_ray import ClusterError, _reason, _room, connected, in_actors, in_tasks


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


def test_no_cluster():
    pytest.importorskip("ray")
    with pytest.raises(ClusterError, match=r"Expected a Ray cluster at 127.0.0.1:9 \(got .*refused"):
        connected("127.0.0.1:9").__enter__()
