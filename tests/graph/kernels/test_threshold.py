"""The compiled selection keeps the same edges as the plain one."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from glic_pyg.graph import GraphBuilder, Threshold
from glic_pyg.graph.candidates import global_mesh, local_windows
from glic_pyg.graph.kernels import threshold
from glic_pyg.graph.selection import kept_edges

CASES = [(local_windows, (2, 16, 32)), (global_mesh, (2, 16, 32)), (local_windows, (2, 9, 21))]


def exact_similarities(candidates):
    """Multiples of 1/64, many of them equal, whose mean is exact however they are added up."""
    generator = torch.Generator().manual_seed(0)
    size = (candidates.candidate.size(0), 64, 256)
    return torch.randint(-64, 65, size, generator=generator) / 64


def assert_same_edges(similarity, quota, candidates, *, bisections=5):
    found = threshold.kept_edges(similarity, quota, candidates, bisections=bisections)
    expected = kept_edges(similarity, quota, candidates, Threshold(bisections=bisections))
    for tensor, other in zip(found, expected, strict=True):
        assert tensor.dtype == other.dtype
        torch.testing.assert_close(tensor, other, rtol=0, atol=0, equal_nan=True)
    return found


@pytest.mark.parametrize("bisections", [5, 10])
@pytest.mark.parametrize(("find", "map_size"), CASES)
def test_same_edges(find, map_size, bisections):
    candidates = find(map_size)
    quota = torch.linspace(1, 256, candidates.num_nodes)
    kept = assert_same_edges(exact_similarities(candidates), quota, candidates, bisections=bisections)
    degree = kept.index[1].bincount(minlength=candidates.num_nodes)
    assert degree.min() < 10
    assert degree.max() > 200


@pytest.mark.parametrize("value", [0.0, 0.25, float("nan")])
def test_a_node_that_keeps_nothing_keeps_all(value):
    candidates = local_windows((1, 9, 21))
    similarity = exact_similarities(candidates)
    similarity[1, 3] = value
    similarity[0, 0, 5:] = value
    similarity[0, 0, :5] = 1
    kept = assert_same_edges(similarity, torch.full((189,), 20.0), candidates)
    node = ((candidates.group == 1) & (candidates.slot == 3)).nonzero().item()
    assert (kept.index[1] == node).sum() == 256


@pytest.mark.parametrize("size", [(2, 8, 16, 32), (1, 8, 9, 21)], ids=str)
def test_graphs_are_the_same(size, monkeypatch):
    """Ties of chosen random features are improbable, so that the order of sums does not matter."""
    calls = []
    original = threshold.kept_edges
    monkeypatch.setattr(threshold, "kept_edges", lambda *a, **k: calls.append(1) or original(*a, **k))
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    fast = GraphBuilder(degree=12)(x)
    assert len(calls) == 2
    monkeypatch.setattr(
        threshold, "kept_edges", lambda *a, bisections: kept_edges(*a, Threshold(bisections=bisections))
    )
    plain = GraphBuilder(degree=12)(x)
    for graph, other in zip(fast, plain, strict=True):
        assert torch.equal(graph.edge_index, other.edge_index)
        assert torch.equal(graph.offset, other.offset)
        assert torch.equal(graph.similarity, other.similarity)


THRESHOLDS = """
import hashlib
import numpy as np
from glic_pyg.graph.kernels.threshold import _bisect

similarity = np.random.default_rng(0).random((64, 64, 256), dtype=np.float32)
node = np.arange(64 * 64)
threshold, degree = np.empty(len(node), np.float32), np.empty(len(node), np.int64)
quota = np.full(len(node), 16.0, np.float32)
_bisect(similarity, node // 64, node % 64, quota, 5, threshold, degree, 0, len(node))
print(hashlib.sha256(threshold).hexdigest())
"""


def test_thresholds_are_the_same_whether_just_compiled_or_from_the_cache(tmp_path):
    """The compiler does not always add in the same order."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    run = partial(subprocess.check_output, [sys.executable, "-c", THRESHOLDS], env=environment)
    compiled = run()
    assert list(tmp_path.rglob("*.nbi"))
    assert run() == compiled
