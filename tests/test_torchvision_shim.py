"""Each case runs in a fresh process, because imports and declared operators cannot be taken back."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glic_pyg import torchvision_shim

# Stands in for torchvision on every machine, and meets the same error from the same call as the real one.
ASKS_FOR_OPERATORS = """
import torchvision.part
import torch
for name in ("nms", "qnms"):
    torch._C._dispatch_has_kernel_for_dispatch_key(f"torchvision::{name}", "Meta")
complete = True
"""
LOADS_OPERATORS = """
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def run_python(code: str, *, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shim alone, beside a torchvision whose `__init__.py` is still to be written."""
    shutil.copy(torchvision_shim.__file__, tmp_path)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/part.py").touch()
    return tmp_path


def test_compressai_can_be_imported():
    result = run_python("import glic_pyg.torchvision_shim; import compressai.zoo")
    assert result.returncode == 0, result.stderr


def test_missing_operators_are_declared_and_stay(folder: Path):
    (folder / "torchvision/__init__.py").write_text(ASKS_FOR_OPERATORS)
    plain = run_python("import torchvision", path=folder)
    assert "operator torchvision::nms does not exist" in plain.stderr

    code = (
        "import gc, torchvision_shim, torchvision, torch; gc.collect();"
        "assert torchvision.complete;"
        "print(torch.ops.torchvision.nms.default, torch.ops.torchvision.qnms.default)"
    )
    shimmed = run_python(code, path=folder)
    assert shimmed.stdout.split() == ["torchvision.nms.default", "torchvision.qnms.default"], shimmed.stderr


def test_loaded_operators_are_left_alone(folder: Path):
    (folder / "torchvision/__init__.py").write_text(LOADS_OPERATORS + ASKS_FOR_OPERATORS)
    code = "import torchvision_shim; assert not hasattr(torchvision_shim, '_library')"
    result = run_python(code, path=folder)
    assert result.returncode == 0, result.stderr


def test_other_errors_pass(folder: Path):
    (folder / "torchvision/__init__.py").write_text("raise RuntimeError('something else')")
    result = run_python("import torchvision_shim", path=folder)
    assert "RuntimeError: something else" in result.stderr
