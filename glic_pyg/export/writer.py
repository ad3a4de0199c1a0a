"""An ONNX graph, written operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

OPSET = 20
IR_VERSION = 9
"""Of that opset; newer ones say nothing more here, and fewer runtimes read them."""


class Writer:
    """A graph that grows by `op`; values go by names.

    Args:
        name: Of the graph.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._inputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    def input(self, name: str, shape: Sequence[int | str]) -> str:
        """Declare an input, float32; sides that differ from call to call are words."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Return the name of a constant: a tensor's values, or numbers, of a type."""
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        array = np.array(value, dtype, order="C")
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return self._constants[key].name

    def integers(self, *values: int) -> str:
        """Return the name of a constant list of whole numbers, as shapes and axes are."""
        return self.constant(values, np.int64)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append an operator and return the name of its output."""
        return self.split(kind, *inputs, parts=1, **attributes)[0]

    def split(self, kind: str, *inputs: str, parts: int, **attributes: Any) -> list[str]:
        """Append an operator of several outputs and return their names."""
        names = [f"{kind.lower()}_{len(self._nodes)}_{i}" for i in range(parts)]
        self._nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def model(self, **outputs: tuple[str, Sequence[int | str]]) -> onnx.ModelProto:
        """Return the whole model, checked.

        Args:
            outputs: By their names in the model, values and their shapes, float32.
        """
        for name, (value, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name]))
        infos = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, (_, shape) in outputs.items()
        ]
        graph = helper.make_graph(self._nodes, self.name, self._inputs, infos, list(self._constants.values()))
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="glic_pyg",
        )
        onnx.checker.check_model(model)
        return model
