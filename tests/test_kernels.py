"""One choice of kernels for a whole model."""

import pytest
import torch
from torch import nn

from glic_pyg import GLIC
from glic_pyg.entropy.context import PointwiseNet
from glic_pyg.graph import GraphBuilder, build
from glic_pyg.kernels import KERNELS, HasKernels, use_kernels
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


@pytest.mark.parametrize("kernels", ["reference", "gpu"])
def test_without_those_of_the_cpu_nothing_compiled_runs(tiny_config, photo, monkeypatch, kernels):
    model = GLIC(tiny_config, kernels=kernels).eval()

    def never(*arguments, **settings):
        raise AssertionError("a kernel of the CPU")

    monkeypatch.setattr(build.threshold, "kept_edges", never)
    monkeypatch.setattr(graph_attention, "csr_attention", never)
    monkeypatch.setattr(pointwise, "linear", never)
    monkeypatch.setattr("glic_pyg.nn.conv.normed_feed_forward", never)
    monkeypatch.setattr("glic_pyg.nn.conv.bands", never)
    monkeypatch.setattr("glic_pyg.entropy.context.map_in_threads", never)
    with torch.no_grad():
        assert model(photo(64, 64))["x_hat"].isfinite().all()
    with pytest.raises(AssertionError, match="a kernel of the CPU"):
        use_kernels(model, None)(photo(64, 64))


def test_all_kernels_give_the_same_model(tiny_config, photo):
    torch.manual_seed(0)
    model = GLIC(tiny_config).eval()
    with torch.no_grad():
        expected = model.g_a(photo(64, 96))
        for kernels in KERNELS:
            found = use_kernels(model, kernels).g_a(photo(64, 96))
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_unknown_kernels_are_refused():
    message = r"^Expected kernels to be one of reference, cpu, gpu \(got triton\)$"
    with pytest.raises(ValueError, match=message):
        use_kernels(nn.Identity(), "triton")


def test_those_of_the_cpu_refuse_tensors_elsewhere():
    layer = use_kernels(pointwise.Linear(2, 2).to("meta"), "cpu")
    with pytest.raises(
        ValueError, match=r"^Expected tensors on the CPU for kernels cpu \(got one on meta\)$"
    ):
        layer(torch.empty(3, 2, device="meta"))
