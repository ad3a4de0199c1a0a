"""What works without the extras, and what is said of one that is missing."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).parents[1]
BROUGHT_ANYWAY = {"jinja2"}  # torch_geometric imports it

WITHOUT_EXTRAS = """
import importlib, sys

for name in sys.argv[2].split(","):
    sys.modules[name] = None  # as if it was not installed
from glic_pyg.cli.main import run_command
from glic_pyg.errors import PackageError

def told(action):
    try:
        action()
    except PackageError as error:
        print("told:", error)

folder = sys.argv[1]
assert run_command(["compress", folder + "/a.png", "-o", folder + "/a.glic"]) == 0
assert run_command(["decompress", folder + "/a.glic", "-o", folder + "/b.png"]) == 0
assert run_command(["info", folder + "/a.glic"]) == 0
assert run_command(["bd-rate", "--list"]) == 0
assert run_command(["train", "--print-config", "--steps", "1"]) == 0
assert run_command(["completion", "bash"]) == 0
assert run_command(["datasets", "verify", "kodak", folder]) == 1
for room in ["training.trainer", "evaluation.bd", "inspection.drawings", "graph.torch_cluster", "export"]:
    told(lambda: importlib.import_module("glic_pyg." + room))
import torch
from glic_pyg import metrics
from glic_pyg.build import find_class
from glic_pyg.graph import CandidateSet
told(lambda: metrics.ms_ssim(torch.zeros(1, 3, 192, 192), torch.zeros(1, 3, 192, 192)))
told(lambda: find_class("candidates", "torch_cluster", CandidateSet))
"""


@pytest.fixture
def optional() -> str:
    """The modules that extras bring, with commas between them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [line for name in extras for line in extras[name] if not line.startswith("glic_pyg")]
    wanted = {canonicalize_name(Requirement(line).name) for line in lines}
    owners = {
        module: {canonicalize_name(owner) for owner in found}
        for module, found in packages_distributions().items()
    }
    return ",".join(module for module, found in owners.items() if found & wanted - BROUGHT_ANYWAY)


def test_coding_needs_no_extra_and_a_missing_one_is_told_in_a_line(tmp_path, optional):
    assert {"lightning", "matplotlib", "torch_cluster", "torch_scatter"} <= set(optional.split(","))
    Image.linear_gradient("L").resize((64, 64)).save(tmp_path / "a.png")
    command = [sys.executable, "-c", WITHOUT_EXTRAS, tmp_path, optional]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "b.png") as restored:
        assert restored.size == (64, 64)
    assert [line for line in result.stdout.splitlines() if line.startswith("told: ")] == [
        "told: Expected package lightning, for training: pip install 'glic_pyg[train]'",
        "told: Expected package pytorch_msssim, for evaluation: pip install 'glic_pyg[evaluate]'",
        "told: Expected package matplotlib, for drawings: pip install 'glic_pyg[graphs]'",
        "told: Expected package torch_cluster, for graphs by torch-cluster: pip install 'glic_pyg[cluster]'",
        "told: Expected package onnx, for ONNX graphs: pip install 'glic_pyg[onnx]'",
        "told: Expected package pytorch_msssim, for MS-SSIM: pip install 'glic_pyg[evaluate]'",
        "told: Expected package torch_cluster, for graphs by torch-cluster: pip install 'glic_pyg[cluster]'",
    ]
