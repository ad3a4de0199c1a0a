"""One choice of kernels for a whole model."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from glic_pyg import GLIC
from glic_pyg.entropy.context import PointwiseNet
from glic_pyg.graph import GraphBuilder, build
from glic_pyg.kernels import KERNELS, ON_CPU, HasKernels, _suits, runs_triton, use_kernels
from glic_pyg.nn import ConvBlock, GatedFeedForward, GraphAttention, graph_attention, pointwise


def having_kernels(model):
    return [module for module in model.modules() if isinstance(module, HasKernels)]


@pytest.mark.parametrize("kernels", [*KERNELS, None])
def test_a_models_choice_reaches_all_of_its_modules(tiny_config, tiny_model, tmp_path, kernels):
    tiny_model.save(tmp_path / "tiny.safetensors")
    loaded = GLIC.from_pretrained(tmp_path / "tiny.safetensors", kernels=kernels)
    for model in (GLIC(tiny_config, kernels=kernels), loaded):
        parts = having_kernels(model)
        assert {module.kernels for module in parts} == {kernels}
        kinds = (GraphBuilder, GraphAttention, GatedFeedForward, ConvBlock, PointwiseNet)
        for kind in (*kinds, pointwise.Linear, pointwise.PointwiseConv2d):
            assert any(isinstance(module, kind) for module in parts), kind


def test_without_those_of_the_cpu_nothing_compiled_runs(tiny_config, photo, monkeypatch):
    model = GLIC(tiny_config, kernels="reference").eval()

    def never(*arguments, **settings):
        raise AssertionError("a kernel of the CPU")

    monkeypatch.setattr(build.compiled, "kept_edges", never)
    monkeypatch.setattr(graph_attention, "csr_attention", never)
    monkeypatch.setattr(pointwise, "linear", never)
    for name in ("normed_feed_forward", "conv_block", "feed_forward_with_gradients", "mixing_with_gradients"):
        monkeypatch.setattr(f"glic_pyg.nn.conv.{name}", never)
    monkeypatch.setattr("glic_pyg.nn.upsampling.upsample", never)
    monkeypatch.setattr("glic_pyg.nn.wavelet.upsample", never)
    monkeypatch.setattr("glic_pyg.entropy.context.map_in_threads", never)
    assert model(photo(64, 64))["x_hat"].isfinite().all()
    with torch.no_grad():
        assert model(photo(64, 64))["x_hat"].isfinite().all()
    with pytest.raises(AssertionError, match="a kernel of the CPU"):
        use_kernels(model, None)(photo(64, 64))


def test_all_kernels_give_the_same_model(tiny_config, photo):
    torch.manual_seed(0)
    model = GLIC(tiny_config).eval()
    with torch.no_grad():
        expected = model.g_a(photo(64, 96))
        for kernels in ON_CPU:
            found = use_kernels(model, kernels).g_a(photo(64, 96))
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_unknown_kernels_are_refused():
    message = r"^Expected kernels to be one of reference, cpu, triton \(got cuda\)$"
    with pytest.raises(ValueError, match=message):
        use_kernels(nn.Identity(), "cuda")


def test_those_of_the_cpu_refuse_tensors_elsewhere():
    layer = use_kernels(pointwise.Linear(2, 2).to("meta"), "cpu")
    with pytest.raises(
        ValueError, match=r"^Expected tensors on the CPU for kernels cpu \(got one on meta\)$"
    ):
        layer(torch.empty(3, 2, device="meta"))


def test_those_of_triton_refuse_tensors_elsewhere():
    layer = use_kernels(pointwise.Linear(2, 2), "triton")
    message = r"^Expected Triton and tensors on a GPU for kernels triton \(got one on cpu\)$"
    with pytest.raises(ValueError, match=message):
        layer(torch.empty(3, 2))


@pytest.fixture
def gpu(monkeypatch):
    """Return a function that makes a GPU of a compute capability, with Triton or without."""
    _suits.cache_clear()

    def make(capability, *, triton=True, hip=None):
        monkeypatch.setattr("glic_pyg.kernels.find_spec", lambda name: name if triton else None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.version, "hip", hip)
        return torch.device("cuda", 0)

    yield make
    _suits.cache_clear()


def test_without_triton_nothing_of_it_runs(monkeypatch, gpu):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert not runs_triton(gpu((9, 0), triton=False))
    assert not runs_triton(torch.device("cpu"))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({"capability": (9, 0)}, "triton"),
        ({"capability": (8, 0)}, "triton"),
        ({"capability": (7, 5)}, "reference"),
        ({"capability": (9, 0), "triton": False}, "reference"),
        ({"capability": (9, 4), "hip": "6.4"}, "reference"),
    ],
)
def test_a_gpu_has_those_of_triton_where_it_runs(gpu, place, expected):
    assert HasKernels().kernels_for(SimpleNamespace(device=gpu(**place))) == expected


def test_other_devices_have_the_reference():
    assert HasKernels().kernels_for(torch.empty(3, 2)) == "cpu"
    assert HasKernels().kernels_for(torch.empty(3, 2, device="meta")) == "reference"


def test_those_of_triton_in_its_interpreter():
    pytest.importorskip("triton")
    tests = Path(__file__).parent
    files = [
        tests / "graph/kernels/test_triton_threshold.py",
        tests / "nn/kernels/test_triton_attention.py",
        tests / "nn/test_gfa_by_triton.py",
    ]
    # Whether kernels are interpreted is settled when Triton is imported.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore::DeprecationWarning", *map(str, files)],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "16 passed, 1 skipped" in done.stdout, done.stdout
