"""Networks as ONNX graphs, computed by onnxruntime, against torch."""

import dataclasses

import numpy as np
import pytest
import torch

from glic_pyg import GLIC
from glic_pyg.config import Aggregation, ConfigError, GraphConfig, Part
from glic_pyg.entropy.exact import exact_arithmetic

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from glic_pyg.export import onnx_models  # noqa: E402 - needs onnx

EXACT = ["h_s", "context_0", "parameters_0", "channel_context_1", "context_1", "parameters_1"]


def session(model, *, exact):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if exact else levels.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def result(session, x):
    return torch.from_numpy(session.run(None, {"x": x.contiguous().numpy()})[0])


@pytest.fixture(scope="module")
def models(tiny_model):
    return onnx_models(tiny_model)


@pytest.mark.parametrize("name", EXACT)
def test_exact_networks_have_the_same_bits(tiny_model, models, name):
    nets = tiny_model.probability_nets()
    kind, _, k = name.rpartition("_")
    network = {
        "h": nets.h_s,
        "context": nets.predictions[int(k)] if k.isdigit() else None,
        "parameters": nets.parameter_nets[int(k)] if k.isdigit() else None,
        "channel_context": nets.channel_contexts[0],
    }[kind]
    computed = session(models[name], exact=True)
    channels = computed.get_inputs()[0].shape[1]
    generator = torch.Generator().manual_seed(0)
    for height, width, scale in ((4, 6, 1), (33, 20, 1), (4, 4, 1e4), (4, 4, 1e-6), (4, 4, 0)):
        x = scale * torch.randn(1, channels, height, width, generator=generator)
        with torch.no_grad(), exact_arithmetic(torch.device("cpu")):
            expected = network(x)
        assert expected.isfinite().all()
        assert np.array_equal(result(computed, x).numpy(), expected.numpy()), (height, width, scale)


def test_all_networks_are_there(tiny_model, models):
    assert set(models) == {"g_a", "g_s", "h_a", *EXACT}


GRAPHS = {
    "as published": {"graph": GraphConfig(degree=4)},
    "distances, centred": {
        "position": "distance",
        "graph": GraphConfig(
            degree=16, similarity=Part("centered"), selection=Part("threshold", {"bisections": 10})
        ),
    },
    "one graph, mean score": {
        "graph": GraphConfig(
            degree=4, candidates=(Part("global"),), score=Part("sobel", {"pooling": "mean"})
        ),
        "position": "distance",
    },
    "no score": {"graph": GraphConfig(degree=4, candidates=(Part("local"),), score=Part("none"))},
    "no graph": {"graph": GraphConfig(candidates=())},
    "graphs at H/8": {"graph": GraphConfig(degree=4, strides=(8,))},
}


@pytest.mark.parametrize("changes", GRAPHS.values(), ids=GRAPHS)
def test_transforms_compute_what_torch_does(tiny_config, changes):
    """On maps that are no multiples of 16 too, where the global graph reaches beyond them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GLIC(dataclasses.replace(tiny_config, **changes)).eval()
        model.update()
        latents, picture = torch.randn(1, 16, 8, 12), torch.rand(1, 3, 64, 192)
    nets = onnx_models(model)
    for name, network, x in (("g_s", model.g_s, latents), ("g_a", model.g_a, picture)):
        with torch.no_grad():
            expected = network(x)
        difference = (result(session(nets[name], exact=False), x) - expected).abs()
        # An edge more or less where a similarity meets its threshold may spread.
        assert (difference > 1e-4 * expected.std()).float().mean() < 0.01
        assert difference.max() < 0.1 * expected.std()


def test_a_mask_that_is_ignored_would_be_seen(tiny_config):
    """What the test above tells apart: with another degree, values differ everywhere."""
    outs = []
    for degree in (4, 8):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = GLIC(dataclasses.replace(tiny_config, graph=GraphConfig(degree=degree))).eval()
            model.update()
            x = torch.randn(1, 16, 8, 12)
        with torch.no_grad():
            outs.append(model.g_s(x))
    assert ((outs[0] - outs[1]).abs() > 1e-4 * outs[0].std()).float().mean() > 0.5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"graph": GraphConfig(degree=4, selection=Part("knn", {"k": 4}))}, "Threshold as selection"),
        ({"graph": GraphConfig(degree=4, quota=Part("map"))}, "GroupQuota as quota"),
        ({"graph": GraphConfig(degree=4, score=Part("learned"))}, "Sobel or Uniform as score"),
        ({"aggregation": Aggregation("torch_geometric.nn.SAGEConv")}, "GraphAttention as aggregation"),
    ],
)
def test_other_parts_are_refused(tiny_config, changes, told):
    model = GLIC(dataclasses.replace(tiny_config, **changes))
    model.update()
    with pytest.raises(ConfigError, match=f"Expected {told} for ONNX"):
        onnx_models(model)
