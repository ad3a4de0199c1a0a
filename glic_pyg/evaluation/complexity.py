"""What a codec costs: parameters, floating point operations, time per stage, memory."""

from __future__ import annotations

import glic_pyg.upstream  # noqa: F401 - before compressai

# isort: split
import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from compressai.entropy_models import EntropyModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from glic_pyg.entropy import rans
from glic_pyg.kernels import HasKernels
from glic_pyg.nn.gfa import FeedForwardStage, GFALayer, GFAStage
from glic_pyg.nn.graph_attention import GraphAttention

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

STAGES: Mapping[type[nn.Module], str] = {
    GFAStage: "graph",
    GFALayer: "feed-forward",
    FeedForwardStage: "feed-forward",
    GraphAttention: "attention",
}
"""What a module's own time, without that of listed modules inside, is spent on."""

TRANSFORM = "convolutions"
CODER = "entropy coder"
ELSEWHERE = "entropy model"

PROCESS = Path("/proc/self")


class StageClock:
    """Split the time of a codec's calls into stages.

    These are the `stages` given, the rest of both transforms, the entropy model and the entropy coder.

        with StageClock(model) as clock:
            model.compress(x)
        print(clock.seconds)

    Args:
        model: A GLIC model, or one of CompressAI's.
        stages: Stage of modules within the transforms by their type.
    """

    def __init__(self, model: nn.Module, stages: Mapping[type[nn.Module], str] = STAGES) -> None:
        self.seconds: dict[str, float] = {}
        self._model = model
        self._stages = stages
        self._open = [ELSEWHERE]
        self._since = 0.0
        self._hooks: list[Any] = []

    def __enter__(self) -> StageClock:
        for module in self._model.modules():
            if module in (self._model.g_a, self._model.g_s):
                self._hook(module, TRANSFORM)
            elif type(module) in self._stages:
                self._hook(module, self._stages[type(module)])
            elif isinstance(module, EntropyModel):  # CompressAI's own coder
                module.compress = self._timed(module.compress)
                module.decompress = self._timed(module.decompress)
        self._coder = rans.encode, rans.decode
        rans.encode, rans.decode = (self._timed(call) for call in self._coder)
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._charge()
        rans.encode, rans.decode = self._coder
        for hook in self._hooks:
            hook.remove()
        for module in self._model.modules():
            if isinstance(module, EntropyModel):
                del module.compress, module.decompress

    def _hook(self, module: nn.Module, stage: str) -> None:
        self._hooks.append(module.register_forward_pre_hook(lambda *_: self._begin(stage)))
        self._hooks.append(module.register_forward_hook(lambda *_: self._end()))

    def _charge(self) -> None:
        now = time.perf_counter()
        stage = self._open[-1]
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now

    def _begin(self, stage: str) -> None:
        self._charge()
        self._open.append(stage)

    def _end(self) -> None:
        self._charge()
        self._open.pop()

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._begin(CODER)
            try:
                return call(*args, **kwargs)
            finally:
                self._end()

        return timed


def parameters(model: nn.Module) -> int:
    """Return the number of learned values."""
    return sum(p.numel() for p in model.parameters())


def flops(model: nn.Module, x: Tensor) -> int:
    """Return the floating point operations of coding and restoring `x`, two per multiplication and addition.

    Counted are matrix products, convolutions, and the products of attention along the edges there are. The
    counter sees operators, so what is compiled, attention along the edges apart, is computed by torch's.
    """
    threads = torch.get_num_threads()
    compiled = [
        part
        for part in model.modules()
        if isinstance(part, HasKernels) and not isinstance(part, GraphAttention)
    ]
    before = [part.kernels for part in compiled]
    torch.set_num_threads(1)  # the counter sees its own thread only
    try:
        for part in compiled:
            part.kernels = "reference"
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
    finally:
        torch.set_num_threads(threads)
        for part, kernels in zip(compiled, before, strict=True):
            part.kernels = kernels
    return counter.get_total_flops()


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Measure by how many bytes the process grew at most, on Linux since the start of the block.

    Elsewhere the peak is that of the whole process. The result is set at the end, as `bytes`; it is NaN where
    the system does not tell, as on Windows and in hardened containers.
    """
    result = {"bytes": math.nan}
    before = _restart_peak() if sys.platform == "linux" else 0.0
    yield result
    if sys.platform == "linux":
        result["bytes"] = _status("VmHWM") - before
    elif resource is not None:
        result["bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _restart_peak() -> float:
    """Let the highest mark of the process's memory start anew; return its bytes now, or NaN."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # else memory that was freed before would be used again, uncounted
        libc.malloc_trim(0)
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:  # not permitted
        return math.nan
    return _status("VmRSS")


def _status(name: str) -> float:
    lines = (PROCESS / "status").read_text().splitlines()
    sizes = [1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")]
    return sizes[0] if sizes else math.nan


@register_flop_formula(torch.ops.glic_pyg.csr_attention)
def _(query: Any, key_value: Any, scale: Any, bias: Any, row: Any, *_: Any, **__: Any) -> int:
    edges, (_, dims, heads) = row[0], query
    return 4 * edges * heads * dims
