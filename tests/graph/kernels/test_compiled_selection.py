"""The compiled selection keeps the same edges as the plain one."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from glic_pyg.graph import KNN, Centered, Cosine, GraphBuilder, Threshold, TopD
from glic_pyg.graph.candidates import global_mesh, local_windows
from glic_pyg.graph.kernels import selection as compiled
from glic_pyg.graph.selection import kept_edges
from glic_pyg.kernels import use_kernels

CASES = [(local_windows, (2, 16, 32)), (global_mesh, (2, 16, 32)), (local_windows, (2, 9, 21))]


def exact_features(candidates):
    """Multiples of 1/8: their products are exact however they are added up, and many of them equal."""
    size = (candidates.num_nodes + 1, 10)
    features = torch.randint(-3, 4, size, generator=torch.Generator().manual_seed(0)) / 8
    features[-1] = 0
    return features


def assert_same_edges(features, quota, candidates, selection):
    found = compiled.kept_edges(features, quota, candidates, selection)
    similarity = Cosine()(features, candidates, k=256)
    expected = kept_edges(similarity, quota, candidates, selection)
    for tensor, other in zip(found, expected, strict=True):
        assert tensor.dtype == other.dtype
        torch.testing.assert_close(tensor, other, rtol=0, atol=0)
    return found


@pytest.mark.parametrize("bisections", [5, 10])
@pytest.mark.parametrize(("find", "map_size"), CASES)
def test_same_edges(find, map_size, bisections):
    candidates = find(map_size)
    quota = torch.linspace(1, 256, candidates.num_nodes)
    kept = assert_same_edges(exact_features(candidates), quota, candidates, Threshold(bisections=bisections))
    degree = kept.index[1].bincount(minlength=candidates.num_nodes)
    assert degree.min() < 10
    assert degree.max() > 200


@pytest.mark.parametrize("selection", [TopD(), KNN(k=1), KNN(k=9), KNN(k=256)])
@pytest.mark.parametrize(("find", "map_size"), CASES)
def test_as_many_as_wanted_and_of_equals_the_first(find, map_size, selection):
    candidates = find(map_size)
    quota = torch.linspace(0, 300, candidates.num_nodes)  # from all, by none, to more than there are
    kept = assert_same_edges(exact_features(candidates), quota, candidates, selection)
    degree = kept.index[1].bincount(minlength=candidates.num_nodes)
    wanted = torch.tensor(selection.k) if isinstance(selection, KNN) else quota.round().long()
    assert torch.equal(degree, torch.where(wanted == 0, 256, wanted.clamp(max=256)).expand_as(degree))


def test_candidates_that_hardly_differ_are_told_apart():
    """Closer than bisections can part them; their sums are exact."""
    candidates = local_windows((1, 16, 16))
    features = torch.zeros(257, 2)
    features[:-1, 0] = 1
    features[:-1, 1] = torch.randperm(256, generator=torch.Generator().manual_seed(0)) * 2.0**-22
    for node in (0, 100, 255):
        unit = features.clone()
        unit[node] = 0.5
        assert_same_edges(unit, torch.full((256,), 12.0), candidates, TopD())


@pytest.mark.parametrize("threads", [1, 3, 50])
@pytest.mark.parametrize("selection", [Threshold(), TopD()])
def test_threads_change_nothing(threads, selection, monkeypatch):
    candidates = global_mesh((1, 20, 40))
    features, quota = exact_features(candidates), torch.full((800,), 9.0)
    expected = compiled.kept_edges(features, quota, candidates, selection)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = compiled.kept_edges(features, quota, candidates, selection)
    for tensor, other in zip(found, expected, strict=True):
        assert torch.equal(tensor, other)


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_a_node_that_keeps_nothing_keeps_all(value):
    """Its similarities are all the same: none is above their mean."""
    candidates = local_windows((1, 9, 21))
    features = exact_features(candidates)
    node = ((candidates.group == 1) & (candidates.slot == 3)).nonzero().item()
    features[:, 0], features[node] = 1, 0
    features[node, 0] = value
    kept = assert_same_edges(features, torch.full((189,), 20.0), candidates, Threshold())
    assert (kept.index[1] == node).sum() == 256


@pytest.mark.parametrize("size", [(2, 8, 16, 32), (1, 8, 9, 21)], ids=str)
@pytest.mark.parametrize("similarity", [Cosine, Centered])
@pytest.mark.parametrize("selection", [Threshold(), TopD(), KNN(k=16)])
def test_graphs_are_the_same(size, similarity, selection):
    """Ties of chosen random features are improbable, so that the order of sums does not matter."""
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    fast, plain = (
        use_kernels(GraphBuilder(degree=12, similarity=similarity(), selection=selection), kernels)(x)
        for kernels in ("cpu", "reference")
    )
    for graph, other in zip(fast, plain, strict=True):
        assert torch.equal(graph.edge_index, other.edge_index)
        assert torch.equal(graph.offset, other.offset)
        torch.testing.assert_close(graph.similarity, other.similarity)


class Backwards(Cosine):
    def __call__(self, unit, candidates, *, k):
        return -super().__call__(unit, candidates, k=k)


class Fewer(KNN):
    def __call__(self, similarity, quota):
        return super().__call__(similarity, quota) & (similarity > 0.9)


def test_compiled_code_takes_cosines_and_selections_of_this_package_alone(monkeypatch):
    calls = []
    original = compiled.kept_edges
    monkeypatch.setattr(compiled, "kept_edges", lambda *a, **k: calls.append(1) or original(*a, **k))
    x = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    GraphBuilder(selection=Fewer(k=3))(x)
    backwards, _ = GraphBuilder(similarity=Backwards())(x)
    assert backwards.similarity.min() < 0
    assert not calls
    for selection in (Threshold(), TopD(), KNN(k=3)):
        GraphBuilder(selection=selection)(x)
    assert len(calls) == 6


CHOICE = """
import hashlib
import torch
from glic_pyg.graph.candidates import local_windows
from glic_pyg.graph.kernels.selection import kept_edges
from glic_pyg.graph.selection import Threshold

unit = torch.nn.functional.normalize(torch.randn(1025, 24, generator=torch.Generator().manual_seed(0)))
kept = kept_edges(unit, torch.full((1024,), 16.0), local_windows((1, 32, 32)), Threshold())
print([hashlib.sha256(x.numpy()).hexdigest() for x in kept])
"""


def test_edges_are_the_same_whether_just_compiled_or_from_the_cache(tmp_path):
    """A compiler may not always add in the same order."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    run = partial(subprocess.check_output, [sys.executable, "-c", CHOICE], env=environment)
    compiled = run()
    assert list(tmp_path.rglob("*.nbi"))
    assert run() == compiled
