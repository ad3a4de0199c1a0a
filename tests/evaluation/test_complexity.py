import math
import time

import pytest
import torch
from torch import nn

from glic_pyg.evaluation import complexity
from glic_pyg.evaluation.complexity import StageClock, flops, parameters, peak_memory
from glic_pyg.nn.conv import GatedFeedForward
from glic_pyg.nn.graph_attention import GraphAttention


def test_stages_sum_to_the_whole_call(tiny_model, photo):
    x = photo(64, 128)
    tiny_model.compress(x)
    with StageClock(tiny_model) as clock:
        start = time.perf_counter()
        coded = tiny_model.compress(x)
        whole = time.perf_counter() - start
    stages = {"convolutions", "graph", "feed-forward", "attention", "entropy model", "entropy coder"}
    assert set(clock.seconds) == stages
    assert all(seconds > 0 for seconds in clock.seconds.values())
    assert sum(clock.seconds.values()) == pytest.approx(whole, rel=0.1)
    with StageClock(tiny_model) as clock:
        tiny_model.decompress(coded["strings"], coded["shape"])
    assert set(clock.seconds) == stages


def test_a_stage_has_its_own_time_only(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0])
    monkeypatch.setattr(complexity.time, "perf_counter", lambda: next(now))

    class Inner(nn.Module):
        def forward(self, x):
            return x

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.g_a = nn.Sequential(Inner())
            self.g_s = nn.Identity()

        def forward(self, x):
            return self.g_a(x)

    model = Outer()
    with StageClock(model, {Inner: "inner"}) as clock:
        model(1)
    assert clock.seconds == {"entropy model": 1 + 16, "convolutions": 2 + 8, "inner": 4}


def test_the_clock_leaves_no_trace(tiny_model):
    with StageClock(tiny_model):
        pass
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny_model.modules())
    assert "compress" not in vars(tiny_model.latent_codec.hyper.entropy_bottleneck)


def test_parameters():
    assert parameters(nn.Linear(3, 5)) == 20


@pytest.mark.parametrize("depthwise", [False, True])
def test_flops_of_the_feed_forward_part(depthwise):
    part = GatedFeedForward(4, ratio=3, depthwise=depthwise)
    macs = 4 * 24 + 12 * 4 + (9 * 24 if depthwise else 0)
    assert flops(part, torch.randn(2, 4, 5, 6)) == 2 * macs * 2 * 5 * 6


def test_flops_of_attention_follow_the_edges():
    from glic_pyg.graph import GraphBuilder

    graph = GraphBuilder(degree=8)(torch.randn(1, 8, 16, 16))[0]

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = GraphAttention(channels=8, heads=2, position_hidden=4)

        def forward(self, x):
            return self.attention(x, graph)

    projections = 4 * 8 * 8 * 256
    position = 529 * (2 * 4 + 4 * 2)
    edges = graph.edge_index.size(1) * 2 * 8
    assert flops(Layer(), graph.x[:-1]) == 2 * (projections + position + edges)


def test_flops_do_not_depend_on_threads(tiny_model, photo):
    counts = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        counts.append(flops(tiny_model, photo(64, 64)))
    torch.set_num_threads(1)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("pieces", [1, 200], ids=["one piece", "pieces the allocator keeps"])
def test_peak_memory_sees_what_was_freed_again(pieces):
    for _ in range(2):
        with peak_memory() as memory:
            [torch.ones(50_000_000 // pieces) for _ in range(pieces)]
        assert 190e6 < memory["bytes"] < 260e6


@pytest.mark.parametrize("lacks", ["permission", "mark"])
def test_peak_memory_is_nan_where_the_system_does_not_tell(tmp_path, monkeypatch, lacks):
    """A container may deny writing to /proc, or its /proc may lack the highest mark."""
    (tmp_path / "status").write_text(
        "VmRSS:\t  100 kB\n" + ("VmHWM:\t 300 kB\n" if lacks == "permission" else "")
    )
    if lacks == "permission":
        (tmp_path / "clear_refs").mkdir()  # cannot be written, not even by root
    monkeypatch.setattr(complexity, "PROCESS", tmp_path)
    monkeypatch.setattr(complexity.sys, "platform", "linux")
    with peak_memory() as memory:
        pass
    assert math.isnan(memory["bytes"])


def test_peak_memory_is_nan_on_windows(monkeypatch):
    monkeypatch.setattr(complexity, "resource", None)
    monkeypatch.setattr(complexity.sys, "platform", "win32")
    with peak_memory() as memory:
        pass
    assert math.isnan(memory["bytes"])
