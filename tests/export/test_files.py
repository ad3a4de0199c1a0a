"""What lies beside the networks."""

import json

import pytest
import torch

pytest.importorskip("onnx")

from glic_pyg.export import onnx_files, tables


def test_the_tables_are_the_models(variable_model):
    told = json.loads(json.dumps(tables(variable_model)))
    gaussian = next(iter(variable_model.latent_codec.y.latent_codec.values())).y.gaussian_conditional
    bottleneck = variable_model.latent_codec.hyper.entropy_bottleneck
    for name, entropy_model in (("y", gaussian), ("z", bottleneck)):
        cdf = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in told[name]["rows"]], True)
        assert torch.equal(cdf, entropy_model.quantized_cdf.long())
        assert torch.equal(torch.tensor(told[name]["offsets"]), entropy_model.offset.long())
    assert torch.equal(torch.tensor(told["y"]["scales"]), gaussian.scale_table)
    assert torch.equal(torch.tensor(told["z"]["medians"]), bottleneck.quantiles[:, 0, 1])
    for name, logarithms in told["gains"].items():
        assert torch.equal(torch.tensor(logarithms), getattr(variable_model.gain, name))
    assert told["identity"] == variable_model.identity.hex()
    assert (told["qualities"], told["default_quality"]) == (4, 2)


def test_a_model_of_one_quality_has_no_gains(tiny_model):
    assert tables(tiny_model)["gains"] is None


def test_names_of_files(tiny_model):
    files = onnx_files(tiny_model)
    assert len(files) == 10
    assert json.loads(files["model.json"]) == tables(tiny_model)
