"""How far from float64 are restored pictures, and from one another? In Python and by onnxruntime, on a CPU.

    python lab/rounding.py -d KODAK

Every picture is coded, the first at quality 1, the next at 2 and so on. Its latents become a picture in
float64, where no similarity is rounded across its threshold, and in float32 by each of Python's kernels and
by onnxruntime, which browsers use too. Compared are values of 8 bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pictures import pictures_below
from torch import Tensor

from glic_pyg import GLIC
from glic_pyg.cli import flags
from glic_pyg.cli.main import run
from glic_pyg.cli.printing import aligned, say
from glic_pyg.errors import require
from glic_pyg.export import onnx_models
from glic_pyg.graph import Graph, GraphBuilder, to_nodes
from glic_pyg.graph.complexity import damp
from glic_pyg.image import read_image, to_8bit
from glic_pyg.kernels import ON_CPU, Kernels, use_kernels

RUNTIME = "onnxruntime"
PYTHON = "cpu"


def main() -> int:
    """Parse the command line, restore, print a line per picture and a table of all."""
    parser = flags.Parser(__doc__)
    flags.add_dataset(parser)
    flags.add_model(parser)
    args = parser.parse_args()
    pictures = [path for folder in args.dataset for path in pictures_below(folder)]
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)
    several = model.config.qualities > 1
    runtime = _runtime(model)
    differences: dict[str, dict[str, list[Tensor]]] = {}
    for i, path in enumerate(pictures):
        y = model.analyse(read_image(path))
        _, y_hat = model.code(y, 1 + i % model.config.qualities if several else None)
        exact = _8bit(in_double(model, y_hat))
        found = {name: _8bit(_in_float(model, y_hat, name)) for name in ON_CPU} | {RUNTIME: runtime(y_hat)}
        for name, x in found.items():
            of_name = differences.setdefault(name, {"float64": [], PYTHON: []})
            of_name["float64"].append((x - exact).abs())
            of_name[PYTHON].append((x - found[PYTHON]).abs())
        largest = (f"{name} {int(d['float64'][-1].max())}" for name, d in differences.items())
        say(f"{path.name}  largest from float64: {', '.join(largest)} of 255")
    rows = [
        [name, *(text for other in d.values() for text in _figures(other))] for name, d in differences.items()
    ]
    head = ["computed by", "from float64", "above 2", f"from {PYTHON}", "above 2"]
    print(aligned([head, *rows]))
    return 0


@torch.no_grad()
def in_double(model: GLIC, y_hat: Tensor) -> Tensor:
    """Return the picture of latents, graphs and all in float64."""
    g_s = copy.deepcopy(model.g_s).double()
    for module in g_s.modules():
        if isinstance(module, GraphBuilder):
            module.__class__ = _InDouble
    with _default_dtype(torch.float64):  # of distances, whose biases no tensor's type decides
        return use_kernels(g_s, "reference")(y_hat.double())


class _InDouble(GraphBuilder):
    def forward(self, feature_map: Tensor, *, edges: bool = True) -> tuple[Graph, ...]:
        score = damp(self.score(feature_map))
        return tuple(self._build(to_nodes(feature_map), score.flatten(), edges=edges))


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


@torch.no_grad()
def _in_float(model: GLIC, y_hat: Tensor, kernels: Kernels) -> Tensor:
    return use_kernels(model.g_s, kernels)(y_hat)


def _runtime(model: GLIC) -> Callable[[Tensor], Tensor]:
    """Return what makes a picture of latents as the page of `glic viewer` does."""
    with require("onnxruntime", extra="onnx", purpose="another runtime"):
        import onnxruntime
    network = onnx_models(model)["g_s"].SerializeToString()
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    return lambda y_hat: _8bit(torch.from_numpy(session.run(None, {"x": y_hat.contiguous().numpy()})[0]))


def _8bit(x: Tensor) -> Tensor:
    return to_8bit(x).int()


def _figures(differences: list[Any]) -> list[str]:
    total = sum(d.numel() for d in differences)
    above = sum(int((d > 2).sum()) for d in differences)
    return [f"{max(int(d.max()) for d in differences)} of 255", f"{above} of {total}"]


if __name__ == "__main__":
    run(main)
