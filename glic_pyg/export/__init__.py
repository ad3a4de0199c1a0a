"""A model for other programs: its networks as ONNX graphs, all else as JSON."""

from glic_pyg.errors import require

with require("onnx", extra="onnx", purpose="ONNX graphs"):
    from glic_pyg.export.files import TILING, onnx_files, onnx_models, tables

__all__ = ["TILING", "onnx_files", "onnx_models", "tables"]
