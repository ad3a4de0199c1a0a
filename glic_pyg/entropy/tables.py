"""The coder's probability tables, which belong to a checkpoint like weights but change their size."""

from __future__ import annotations

from typing import Any

import torch
from compressai.entropy_models import EntropyBottleneck, EntropyModel, GaussianConditional
from compressai.models.base import get_scale_table
from torch import Tensor, nn

from glic_pyg.errors import UserError

PRECISION = 16
"""Bits of a probability: a row of a table ends with 2 to that power."""
LONGEST = 4096
"""Values of z that a table may tell apart; CompressAI's time to make it grows with the square."""

TABLES = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table")
"""Buffers of CompressAI's entropy models whose size is known only after `update_tables`."""


class TableError(UserError, ValueError):
    """Probability tables that the coder cannot take; the message is one line for the user."""


def update_tables(codec: nn.Module, *, force: bool) -> bool:
    """Compute the tables from the weights.

    Args:
        codec: Holds CompressAI entropy models.
        force: Also replace tables that are there.

    Returns:
        Whether any table was computed.

    Raises:
        TableError: the weights give none.
    """
    scale_table = get_scale_table()
    updated = False
    for module in codec.modules():
        if isinstance(module, EntropyBottleneck):
            if force or module.offset.numel() == 0:
                _check_quantiles(module)
            try:
                updated |= module.update(force=force)
            except ValueError as error:  # of probabilities that are none
                raise TableError(
                    f"Expected weights of z's probabilities that give some (got: {error})"
                ) from error
        elif isinstance(module, GaussianConditional):
            updated |= module.update_scale_table(scale_table, force=force)
    return updated


def _check_quantiles(bottleneck: EntropyBottleneck) -> None:
    """Refuse weights of which CompressAI would make tables for hours, or of no number at all."""
    for name, weights in bottleneck.named_parameters():
        if not weights.isfinite().all():
            raise TableError(f"Expected finite weights of z's probabilities (got others in {name})")
    low, median, high = bottleneck.quantiles.detach()[:, 0].unbind(1)
    span = ((median - low).ceil().clamp(min=0) + (high - median).ceil().clamp(min=0)).max().item() + 1
    if span > LONGEST:
        raise TableError(f"Expected quantiles of z that span at most {LONGEST} values (got {span:g})")


def check_tables(codec: nn.Module) -> None:
    """Refuse tables with which the coder, which checks none, would read elsewhere, divide by 0 or never end.

    A row of a table is 0 = c_0 < c_1 < ... < c_n = 65536 and zeros after that, n at least 2; its length is
    n + 1, its offset minus the place of the value 0, which is one of the first n - 1. Rows are of z's
    channels, or of positive and growing scales.

    Args:
        codec: Holds CompressAI entropy models, with their tables.

    Raises:
        TableError: names the table and what is wrong with it.
    """
    for name, module in codec.named_modules():
        if isinstance(module, EntropyModel):
            problem = _problem(module)
            if problem:
                raise TableError(f"Expected {problem[0]} in {name} (got {problem[1]})")


def _problem(model: EntropyModel) -> tuple[str, object] | None:
    """Return what was expected and what came, of the first thing that is wrong with a model's tables."""
    cdf, length, offset = (x.detach().cpu() for x in (model.quantized_cdf, model.cdf_length, model.offset))
    if isinstance(model, GaussianConditional):
        scales = model.scale_table.detach().cpu()
        growing = scales.diff(prepend=scales.new_zeros(1)) if scales.dim() == 1 else scales
        if scales.dtype != torch.float32 or scales.dim() != 1 or scales.numel() == 0:
            return "a list of float32 as scale_table", f"{scales.dtype} of shape {tuple(scales.shape)}"
        if not (scales.isfinite().all() and (growing > 0).all()):
            return "positive, finite, growing scales in scale_table", "others"
        rows = len(scales)
    else:
        rows = model.channels
    for table, kind, shape in (
        (cdf, "_quantized_cdf", (rows, cdf.shape[-1] if cdf.dim() else 0)),
        (length, "_cdf_length", (rows,)),
        (offset, "_offset", (rows,)),
    ):
        if table.dtype != torch.int32 or table.shape != shape:
            expected = f"int32 of shape {' x '.join(map(str, shape))} as {kind}"
            return expected, f"{table.dtype} of shape {tuple(table.shape)}"
    if cdf.shape[1] < 3:
        return "at least 3 columns of _quantized_cdf", cdf.shape[1]
    low, high = length.min().item(), length.max().item()
    if not 3 <= low <= high <= cdf.shape[1]:
        return f"_cdf_length within 3..{cdf.shape[1]}", f"{low}..{high}"
    if not ((offset <= 0) & (offset >= 3 - length)).all():
        return "_offset within its row, from 3 - _cdf_length to 0", "another"
    after = torch.arange(cdf.shape[1], device=cdf.device) >= length[:, None]
    last = cdf.gather(1, length[:, None].long() - 1)
    step = cdf.long().diff(dim=1)
    if not (
        (cdf[:, 0] == 0).all()
        and (last == 1 << PRECISION).all()
        and (step.gt(0) | after[:, 1:]).all()
        and not cdf[after].any()
    ):
        return f"rows of _quantized_cdf that grow from 0 to {1 << PRECISION}", "others"
    return None


def accept_tables_of_any_size(codec: nn.Module) -> None:
    """Let `load_state_dict` on `codec`, or on what holds it, replace tables by others of another size."""
    for module in codec.modules():
        if isinstance(module, EntropyModel):
            module.register_load_state_dict_pre_hook(_resize_tables)


def _resize_tables(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in TABLES:
        if prefix + name in state and hasattr(module, name):
            setattr(module, name, torch.empty_like(getattr(module, name)).resize_(state[prefix + name].shape))
