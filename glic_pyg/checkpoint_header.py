"""What a checkpoint says of itself, without its weights: the first bytes of a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from glic_pyg.config import ConfigError, ModelConfig
from glic_pyg.errors import FileError

METADATA = "glic_pyg"
SUFFIX = ".safetensors"
WEIGHTS = Path(__file__).parent / "weights"
MOST_BYTES = 100_000_000
"""Of a header, as safetensors has it."""
SHIPPED = {"6161029c62a6fd36": "glic_nano"}
"""The models that come with the package, by their identities."""
BUFFERS = (
    "_quantized_cdf",
    "_cdf_length",
    "_offset",
    ".target",
    ".scale_table",
    ".scale_bound",
    ".bound",
    ".mask",
)
"""Ends of names of tensors that are no weights."""


@dataclass(frozen=True)
class CheckpointHeader:
    """What is known of a model before it is loaded.

    Args:
        config: Its numbers.
        info: Whatever was noted about it, its training for instance.
        identity: Its identity, hexadecimal; None where the file does not say it.
        parameters: Number of its weights.
        dtypes: Of them, as safetensors names them.
    """

    config: ModelConfig
    info: Mapping[str, Any]
    identity: str | None
    parameters: int
    dtypes: tuple[str, ...]


def read_header(file: BinaryIO, name: str) -> CheckpointHeader:
    """Return the header of a checkpoint.

    Args:
        file: Open at its beginning.
        name: What it is called in errors.

    Raises:
        FileError: not a checkpoint of glic_pyg.
    """
    try:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= MOST_BYTES:
            raise ValueError("no header")
        head = json.loads(file.read(size).decode())
        about = json.loads(head.pop("__metadata__")[METADATA])
        config = ModelConfig.from_dict(about["config"])
        shapes = {tensor: prod(facts["shape"]) for tensor, facts in head.items()}
        shapes |= {tensor: shapes[first] for tensor, first in about["same_as"].items()}
        weights = {tensor for tensor in shapes if not tensor.endswith(BUFFERS)}
        dtypes = sorted({head[tensor]["dtype"] for tensor in weights & head.keys()})
        info, identity = dict(about["info"]), about.get("identity")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f": {error}" if isinstance(error, ConfigError) else ""
        raise FileError(f"Expected a .glic file or a checkpoint of glic_pyg (got {name}{reason})") from error
    return CheckpointHeader(config, info, identity, sum(shapes[name] for name in weights), tuple(dtypes))
