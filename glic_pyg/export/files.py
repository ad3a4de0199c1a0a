"""What is exported of a model: a graph per network, and `model.json` with tables, gains and numbers."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import onnx
import torch
from compressai.entropy_models import EntropyModel
from torch import nn

import glic_pyg.export.stage  # noqa: F401 - tells `emit` of graph stages
from glic_pyg.codec import GLIC, ModelError
from glic_pyg.config import HYPER_STRIDE, LATENT_STRIDE
from glic_pyg.container import QUALITY_STEPS
from glic_pyg.entropy.tables import PRECISION, TABLES
from glic_pyg.export.modules import emit
from glic_pyg.export.writer import Writer
from glic_pyg.progress import tell
from glic_pyg.tiles import Tiling

TILING = Tiling(1024)
"""How pictures are cut for g_a and g_s where memory is what a browser has."""


def onnx_files(model: GLIC) -> dict[str, bytes]:
    """Return what another program needs to code with a model: names of files, and their bytes.

    `model.json` is what `tables` returns; all others are what `onnx_models` does.

    Raises:
        ConfigError: graphs have parts that nobody has written in ONNX's operators.
        ModelError, TableError: the model cannot code.
    """
    networks = {f"{name}.onnx": net.SerializeToString() for name, net in onnx_models(model).items()}
    return {"model.json": json.dumps(tables(model)).encode(), **networks}


@torch.no_grad()
def onnx_models(model: GLIC) -> dict[str, onnx.ModelProto]:
    """Return the networks, each from `x`, `1 x C x height x width`, to `y`, by their names.

    `g_a`, `g_s` and `h_a` compute in floating point. `h_s`, and per group of channels `channel_context_1` and
    following, `context_0` and `parameters_0` and following have the same bits everywhere, if each of their
    operators is computed by itself.
    """
    config, codec, nets = model.config, model.latent_codec, model.probability_nets()
    before = list(accumulate(config.groups, initial=0))
    latents, hyper = config.latent_channels, config.hyper_channels
    networks: dict[str, tuple[nn.Module, int, int]] = {
        "g_a": (model.g_a, 3, latents),
        "g_s": (model.g_s, latents, 3),
        "h_a": (codec.hyper.h_a, latents, hyper),
        "h_s": (nets.h_s, hyper, 2 * hyper),
    }
    for k, channels in enumerate(config.groups):
        side = 2 * hyper + 2 * channels * (k > 0)
        if k > 0:
            networks[f"channel_context_{k}"] = nets.channel_contexts[k - 1], before[k], 2 * channels
        networks[f"context_{k}"] = nets.predictions[k], channels, 2 * channels
        networks[f"parameters_{k}"] = nets.parameter_nets[k], 2 * channels + side, 2 * channels
    return {name: _network(name, *network) for name, network in networks.items()}


def _network(name: str, module: nn.Module, channels: int, out_channels: int) -> onnx.ModelProto:
    tell(f"network {name}")
    writer = Writer(name)
    y = emit(module, writer, writer.input("x", (1, channels, "height", "width")))
    return writer.model(y=(y, (1, out_channels, "out_height", "out_width")))


def tables(model: GLIC) -> dict[str, Any]:
    """Return all that a decoder needs beside the networks, as plain values.

    Rows of probability tables are without the zeros behind their ends; gains are logarithms, one list per
    quality, None of a model of one. See docs/format.md for what is made of them.

    Raises:
        ModelError: groups of channels with tables of their own, which no model that was made here has.
    """
    config, codec = model.config, model.latent_codec
    gaussian, *others = (group.y.gaussian_conditional for group in codec.y.latent_codec.values())
    for other in others:
        if any(not torch.equal(getattr(gaussian, name), getattr(other, name)) for name in TABLES):
            raise ModelError("Expected one table of probabilities for all groups (got several)")
    bottleneck = codec.hyper.entropy_bottleneck
    gains = None if model.gain is None else {k: v.tolist() for k, v in model.gain.named_parameters()}
    return {
        "name": config.name,
        "identity": model.identity.hex(),
        "qualities": config.qualities,
        "default_quality": config.default_quality,
        "quality_steps": QUALITY_STEPS,
        "latent_channels": config.latent_channels,
        "hyper_channels": config.hyper_channels,
        "groups": list(config.groups),
        "latent_stride": LATENT_STRIDE,
        "hyper_stride": HYPER_STRIDE,
        "precision": PRECISION,
        "tiling": TILING._asdict(),
        "gains": gains,
        "y": {
            **_rows(gaussian),
            "scales": gaussian.scale_table.tolist(),
            "least_scale": gaussian.lower_bound_scale.bound.item(),
        },
        "z": {**_rows(bottleneck), "medians": bottleneck.quantiles[:, 0, 1].tolist()},
    }


def _rows(entropy_model: EntropyModel) -> dict[str, Any]:
    rows, lengths = entropy_model.quantized_cdf.tolist(), entropy_model.cdf_length.tolist()
    return {
        "rows": [row[:length] for row, length in zip(rows, lengths, strict=True)],
        "offsets": entropy_model.offset.tolist(),
    }
