"""The coder's probability tables, which belong to a checkpoint like weights but change their size."""

from __future__ import annotations

from typing import Any

import torch
from compressai.entropy_models import EntropyBottleneck, EntropyModel, GaussianConditional
from compressai.models.base import get_scale_table
from torch import Tensor, nn

TABLES = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table")
"""Buffers of CompressAI's entropy models whose size is known only after `update_tables`."""


def update_tables(codec: nn.Module, *, force: bool) -> bool:
    """Compute the tables from the weights.

    Args:
        codec: Holds CompressAI entropy models.
        force: Also replace tables that are there.

    Returns:
        Whether any table was computed.
    """
    scale_table = get_scale_table()
    updated = False
    for module in codec.modules():
        if isinstance(module, EntropyBottleneck):
            updated |= module.update(force=force)
        elif isinstance(module, GaussianConditional):
            updated |= module.update_scale_table(scale_table, force=force)
    return updated


def accept_tables_of_any_size(codec: nn.Module) -> None:
    """Let `load_state_dict` on `codec`, or on what holds it, replace tables by others of another size."""
    for module in codec.modules():
        if isinstance(module, EntropyModel):
            module.register_load_state_dict_pre_hook(_resize_tables)


def _resize_tables(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in TABLES:
        if prefix + name in state and hasattr(module, name):
            setattr(module, name, torch.empty_like(getattr(module, name)).resize_(state[prefix + name].shape))
