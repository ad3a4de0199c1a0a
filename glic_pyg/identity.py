"""What tells models apart in files, whatever their modules are called today."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from glic_pyg.config import ModelConfig

T = TypeVar("T")

RENAMED: tuple[tuple[str, str], ...] = (
    ("stages.*.score", "stages.*.graph_builder.score"),
    ("layers.*.attention", "layers.*.aggregate"),
    ("layers.*.aggregation.layer", "layers.*.aggregate.layer"),
    ("layers.*.aggregation.output", "layers.*.aggregate.linear"),
)
"""Modules' earlier names and their names today, in the order in which they were renamed.

Each is a part of a tensor's name, whole between dots; `*` stands for one name between dots. By it weights and
unfinished runs of earlier versions load, and a model's identity stays what it was.
"""


def current_names(state: Mapping[str, T]) -> dict[str, T]:
    """Return a state dict of this or an earlier version by the names of today."""
    return {_renamed(name, RENAMED): value for name, value in state.items()}


def first_names(state: Mapping[str, T]) -> dict[str, T]:
    """Return a state dict of today by the names that its tensors had at first."""
    back = [(new, old) for old, new in reversed(RENAMED)]
    return {_renamed(name, back): value for name, value in state.items()}


def _renamed(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    for before, after in pairs:
        pattern = re.escape(before).replace(r"\*", "([^.]+)")
        parts = iter(range(1, before.count("*") + 1))
        replacement = re.sub(r"\*", lambda _: rf"\g<{next(parts)}>", after)  # noqa: B023 - used at once
        name = re.sub(rf"(?<![^.]){pattern}(?![^.])", replacement, name)
    return name


def identity_of(config: ModelConfig, state: Mapping[str, Tensor]) -> bytes:
    """Return 8 bytes that tell models apart: a hash of configuration, weights and tables.

    Settings at their defaults are left out, so that a later version with more of them agrees; tensors go by
    their first names.

    Args:
        config: The model's numbers.
        state: Its state dict; weights in float32.
    """
    settings = _changes(config.to_dict(), ModelConfig().to_dict())
    sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(first_names(state).items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(digest(tensor))
    return sha.digest()[:8]


def digest(tensor: Tensor) -> bytes:
    """Return the hash of a tensor's values."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().data).digest()


def _changes(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _changes(value, defaults[key]) if isinstance(defaults[key], dict) else value
        for key, value in values.items()
        if value != defaults[key]
    }
