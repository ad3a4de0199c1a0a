"""Shapes in annotations are checked in all tests, see conftest.py."""

import importlib
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from glic_pyg.graph.complexity import ChannelScore, damp

PACKAGE = Path(__file__).parents[1] / "glic_pyg"
FILES = [path for room in ("graph", "nn") for path in sorted((PACKAGE / room).glob("[!_]*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_every_file_of_the_two_rooms_is_watched(path):
    if path.stem == "torch_cluster":
        pytest.importorskip("torch_cluster")
    module = importlib.import_module(f"glic_pyg.{path.parent.name}.{path.stem}")
    assert type(module.__loader__).__module__ == "jaxtyping._import_hook"


def test_wrong_arguments_are_seen():
    with pytest.raises(TypeCheckError, match=r"Actual value: f32\[3,4\]"):
        damp(torch.ones(3, 4))
    with pytest.raises(TypeCheckError, match=r"Actual value: i64\[1,3,4\]"):
        damp(torch.ones(1, 3, 4, dtype=torch.long))


def test_a_wrong_result_is_seen():
    class Column(ChannelScore):
        def of_channels(self, feature_map):
            return feature_map[..., 0]

    with pytest.raises(TypeCheckError, match=r"Actual value: f32\[2,5\]"):
        Column()(torch.ones(2, 3, 5, 7))


@pytest.mark.usefixtures("shapes_unchecked")
def test_a_test_can_do_without():
    assert damp(torch.ones(3, 4)).shape == (3, 4)
