"""The authors' published checkpoints: their layout to ours."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glic_pyg.checkpoint import CheckpointError, check_state, load_failure
from glic_pyg.codec import GLIC
from glic_pyg.config import ModelConfig, named, shown
from glic_pyg.entropy import TABLES, TableError

# Our names to theirs, applied in this order.
RENAMINGS = (
    (r"^g_a\.down\.", "g_a.down"),
    (r"^g_s\.up\.", "g_s.up"),
    (r"^g_a\.shortcuts\.", "g_a.AuxT_enc."),
    (r"^g_s\.shortcuts\.", "g_s.AuxT_dec."),
    (r"\.log_scale$", ".scaling_factors"),
    (r"\.linear\.", ".OLP.linear."),
    (r"\.stages\.(\d)\.", lambda match: f".g{int(match[1]) + 1}."),
    (r"\.layers\.", ".residual_group.blocks."),
    (r"\.aggregate\.query\.", ".grapher.proj_group."),
    (r"\.aggregate\.key_value\.", ".grapher.proj_sample."),
    (r"\.aggregate\.output\.", ".grapher.proj."),
    (r"\.aggregate\.position_bias\.", ".grapher.cpb_mlp."),
    (r"\.aggregate\.", ".grapher."),
    (r"\.conv\.", ".mixer."),
    (r"\.ffn\.norm\.", ".norm2."),
    (r"\.ffn\.depthwise\.", ".mlp.conv."),
    (r"\.ffn\.", ".mlp."),
    (r"\.norm\.", ".norm1."),
    (r"\.conv1\.", ".mixer.conv1.0."),
    (r"\.depthwise\.", ".mixer.depth_conv."),
    (r"\.conv2\.", ".mixer.conv2."),
    (r"\.adaptor\.", ".mixer.adaptor."),
)


def load_published(path: str | Path, config: ModelConfig | None = None) -> GLIC:
    """Load a published checkpoint as a model ready to compress.

    Args:
        path: A `.pth.tar` file: a state dict, or a dict with one as `state_dict` or `model_state_dict`;
            its names may start with `module.`. No code in it is run.
        config: The model's numbers, where they are not the published ones.

    Raises:
        CheckpointError: it cannot be read, or is not of the published model.
    """
    try:
        _refuse_compressed(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no common error for a broken file
        raise CheckpointError(
            f"Expected a checkpoint of tensors (got {path}: {load_failure(error)})"
        ) from error
    model = GLIC(config or ModelConfig())
    ours = model.state_dict()
    try:
        state = convert(unwrap(content), ours)
        # Their tables are made anew of their weights.
        state |= {name: tensor for name, tensor in ours.items() if name.endswith(TABLES)}
        check_state(ours, state, where="it")
        model.load_state_dict(state)
        model.update(force=True)
    except (CheckpointError, TableError) as error:
        raise CheckpointError(f"Expected a published checkpoint (got {path}: {error})") from error
    return model.eval()


def _refuse_compressed(path: str | Path) -> None:
    """Refuse an archive that could grow to any size; torch stores tensors as they are."""
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            with zipfile.ZipFile(file) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise ValueError("compressed, which torch never does")


def unwrap(content: Any) -> dict[str, Tensor]:
    """Return the state dict in a checkpoint's content, without the prefix that data parallel training leaves.

    Raises:
        CheckpointError: there is none.
    """
    for key in ("state_dict", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"Expected a state dict (got {type(content).__name__})")
    for name, value in content.items():
        if not isinstance(name, str):
            raise CheckpointError(f"Expected tensors by name (got {shown(name)})")
        if type(value) not in (Tensor, nn.Parameter):
            raise CheckpointError(f"Expected a tensor for {named(name)} (got {type(value).__name__})")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise CheckpointError(
                f"Expected a dense tensor for {named(name)} (got {value.layout} on {value.device})"
            )
    prefixed = all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if prefixed else name: value for name, value in content.items()}


def convert(state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reshape a state dict in the authors' layout to ours.

    Wavelet filters and coordinate tables, which follow from the architecture, may be absent and are dropped.

    Args:
        state: In the authors' layout.
        ours: The state dict of our model, for names and shapes.

    Raises:
        CheckpointError: names the first difference: a tensor that is missing, unexpected, or of
            another shape. Probability tables may have any length.
    """
    names = {published_name(name): name for name in ours}
    shapes = {name: published_shape(name, tuple(ours[our_name].shape)) for name, our_name in names.items()}
    shapes |= _rebuilt_buffers(names)
    for name in names:
        if name not in state:
            raise CheckpointError(f"Expected {name} (got a state dict without)")
    for name, tensor in state.items():
        if name not in shapes:
            raise CheckpointError(f"Expected no {named(name)} (got a state dict with it)")
        if tuple(tensor.shape) != shapes[name] and not name.endswith(TABLES):
            raise CheckpointError(f"Expected shape {shapes[name]} for {name} (got {tuple(tensor.shape)})")
    return {
        our_name: state[name] if name.endswith(TABLES) else state[name].reshape(ours[our_name].shape)
        for name, our_name in names.items()
    }


def published_name(name: str) -> str:
    """Return the authors' name for a tensor of ours."""
    for pattern, replacement in RENAMINGS:
        name = re.sub(pattern, replacement, name)
    return name


def published_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that the authors give a tensor of ours of another."""
    if name.endswith(".scaling_factors"):
        return (1, 1, *shape)
    if name.endswith(".logit_scale"):
        return (*shape, 1, 1)
    return shape


def _rebuilt_buffers(names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the buffers that the authors store and our modules build."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        owner, _, leaf = name.rpartition(".")
        if leaf == "scaling_factors" and name.startswith("g_a."):
            shapes |= {f"{owner}.dwt.w_{band}": (1, 1, 2, 2) for band in ("ll", "lh", "hl", "hh")}
        elif leaf == "scaling_factors":
            shapes[f"{owner}.idwt.filters"] = (4, 1, 2, 2)
        elif leaf == "logit_scale":
            shapes[f"{owner}.relative_coords_table"] = (1, 23, 23, 2)
            shapes[f"{owner}.relative_position_index"] = (64, 256)
    return shapes
