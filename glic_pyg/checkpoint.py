"""Models on disk: a safetensors file of weights and probability tables, with its configuration."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glic_pyg.build import NAMES
from glic_pyg.checkpoint_header import METADATA, SUFFIX, WEIGHTS
from glic_pyg.config import ConfigError, ModelConfig, Part, named, shown
from glic_pyg.entropy import TABLES, TableError, check_tables
from glic_pyg.errors import UserError
from glic_pyg.files import write_file
from glic_pyg.identity import current_names, digest, identity_of

Model = TypeVar("Model", bound=nn.Module)

FORMAT_VERSION = 2
LAYERS = "torch_geometric.nn."
IDENTITY_BYTES = 8
DTYPES = (torch.float32, torch.float16)
LARGEST = torch.finfo(torch.float16).max
"""Of a weight: any model may be stored in float16."""


class CheckpointError(UserError, ValueError):
    """A model that cannot be loaded or saved; the message is one line for the user."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Args:
        config: The model's numbers.
        state: Tensors by name, as `GLIC.load_state_dict` takes them.
        identity: The model's, see `identity_of`; None in a file of format 1, which does not say it.
        info: Whatever was noted about the model, its training for instance.
    """

    config: ModelConfig
    state: dict[str, Tensor]
    identity: bytes | None
    info: dict[str, Any]


def save(
    model: nn.Module,
    config: ModelConfig,
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a model with its probability tables and its identity.

    Args:
        model: The model; its tables must be up to date (see `GLIC.update`).
        config: Its numbers.
        path: The file, made or replaced.
        dtype: float32, or float16 for half the size. What the tables are made of stays float32.
        info: Notes to keep with the model, JSON values.

    Raises:
        CheckpointError: the model has no tables, or what `load` would refuse.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"Expected weights to be stored as float32 or float16 (got {dtype})")
    stored, loaded, same_as = {}, {}, {}
    first_of: dict[Any, str] = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if name.endswith("_quantized_cdf") and tensor.numel() == 0:
            raise CheckpointError(
                "Expected a model with probability tables (got one without); call update() first"
            )
        if tensor.is_floating_point():
            if "entropy_bottleneck" not in name and "gaussian_conditional" not in name:
                tensor = tensor.to(dtype)
            check_weight(name, tensor)
        loaded[name] = tensor.float() if tensor.is_floating_point() else tensor
        # All groups' Gaussians have the same tables, most of a small model's file.
        key = (tensor.dtype, tensor.shape, digest(tensor))
        if key in first_of:
            same_as[name] = first_of[key]
        else:
            first_of[key] = name
            stored[name] = tensor
    try:
        check_tables(model)
    except TableError as error:
        raise CheckpointError(str(error)) from error
    about = {
        "format_version": FORMAT_VERSION,
        "config": config.to_dict(),
        "identity": identity_of(config, loaded).hex(),
        "info": dict(info or {}),
        "same_as": same_as,
    }
    # One entry: safetensors would write several in random order.
    write_file(path, serialize(stored, metadata={METADATA: json.dumps(about)}))


def load(path: str | Path, *, allow_code: bool = False) -> Checkpoint:
    """Read a checkpoint; no code in it is run.

    Args:
        path: The file.
        allow_code: Whether its configuration may name classes beyond this package and
            `torch_geometric.nn`, whose modules are imported when the model is made.

    Raises:
        CheckpointError: no such file, or not one this version reads.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except Exception as error:  # of a file that may be anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CheckpointError(f"Expected a {SUFFIX} checkpoint (got {path}: {reason})") from error
    try:
        about = json.loads(metadata[METADATA])
        about = _migrated(about, path)
        config = ModelConfig.from_dict(about["config"])
        info, identity = dict(about["info"]), about["identity"]
        state |= {name: state[first] for name, first in about["same_as"].items()}
        if identity is not None:
            identity = bytes.fromhex(identity)
            if len(identity) != IDENTITY_BYTES:
                raise ValueError(f"identity of {len(identity)} bytes")
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = str(error) if isinstance(error, ConfigError) else repr(error)
        raise CheckpointError(f"Expected a checkpoint of glic_pyg (got {path}: {reason})") from error
    try:
        check_names(config, allow_code=allow_code)
    except CheckpointError as error:
        raise CheckpointError(f"Expected a checkpoint of glic_pyg (got {path}: {error})") from error
    return Checkpoint(config, current_names(state), identity, info)


def _migrated(about: Mapping[str, Any], path: str | Path) -> Mapping[str, Any]:
    """Return what a file says of itself as one of this format would say it.

    Raises:
        CheckpointError: it is of a later format.
    """
    version = about["format_version"]
    if version == 1:
        return {**about, "format_version": FORMAT_VERSION, "identity": None}
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"Expected checkpoint format 1..{FORMAT_VERSION} (got {path} of format {shown(version)})"
        )
    return about


def restore(
    name: str | Path, make: Callable[[ModelConfig], Model], *, allow_code: bool = False
) -> tuple[Model, Checkpoint]:
    """Make a model of a checkpoint, in float32, and return both.

    Nothing that a checkpoint says runs code, asks for memory beyond its own size, or reaches the coder
    unchecked.

    Args:
        name: A model that comes with the package, or the path of a checkpoint.
        make: Makes a model without weights.
        allow_code: See `load`.

    Raises:
        CheckpointError: no such model, or not a sound checkpoint.
    """
    path = resolve(name)
    stored = load(path, allow_code=allow_code)
    try:
        with _holding_data():
            with WeightsOf(stored.state):
                model = make(stored.config).float()
            check_state(model.state_dict(), stored.state, where=path)
            model.load_state_dict(stored.state)
            check_tables(model)
    except (ConfigError, TableError) as error:
        raise CheckpointError(f"Expected a checkpoint of glic_pyg (got {path}: {error})") from error
    return model, stored


def _holding_data() -> torch.device:
    """Return the default device, as a context; the CPU in place of `meta`, whose tensors hold nothing."""
    default = torch.get_default_device()
    return torch.device("cpu") if default.type == "meta" else default


def check_names(config: ModelConfig, *, allow_code: bool) -> None:
    """Refuse a configuration that names code which is not of this package or `torch_geometric.nn`.

    Raises:
        CheckpointError: says which.
    """
    parts: list[tuple[str, Part]] = [("aggregation", config.aggregation)]
    parts += [(kind, getattr(config.graph, kind)) for kind in ("score", "quota", "selection", "similarity")]
    parts += [("candidates", part) for part in config.graph.candidates]
    for kind, part in parts:
        own = part.name in NAMES[kind] or part.name in NAMES[kind].values()
        # What torch_geometric.nn itself has imported: nothing new is.
        layer = part.name.startswith(LAYERS) and part.name.rpartition(".")[0] in sys.modules
        if not (own or (kind == "aggregation" and layer) or allow_code):
            raise CheckpointError(
                f"Expected {kind} to be of glic_pyg or {LAYERS[:-1]} (got {part.name}, whose code would run; "
                "allow it, if you trust the file, by allow_code=True or --allow-code)"
            )


class WeightsOf(TorchFunctionMode):
    """Let no more memory be asked for weights than a checkpoint has of them, whatever it says in words.

    Args:
        state: The checkpoint's tensors by name.

    Raises:
        ConfigError: more are asked for.
    """

    MAKERS = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.left = 2 * sum(tensor.numel() for tensor in state.values()) + 1024 * len(state) + 2**16

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.MAKERS:
            size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            self.left -= max(256, math.prod(size))  # the least for a module's own memory
            if self.left < 0:
                raise ConfigError("Expected a configuration of the file's weights (got a larger one)")
        return func(*args, **kwargs)


def shipped() -> dict[str, Path]:
    """Return the files of the models that come with the package, by name."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*" + SUFFIX))}


def resolve(name: str | Path) -> Path:
    """Return the file of a model: one that comes with the package, by its name, or else a path.

    Raises:
        CheckpointError: neither.
    """
    files = shipped()
    if str(name) in files:
        return files[str(name)]
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(files) or "none in this installation"
    raise CheckpointError(f"Expected the path of a {SUFFIX} file or a model's name ({known}) (got {name})")


def check_state(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], *, where: str | Path) -> None:
    """Check names, types, shapes and values; probability tables may have any length.

    Raises:
        CheckpointError: names the first difference.
    """
    for name, tensor in expected.items():
        if name not in state:
            raise CheckpointError(f"Expected {name} in {where} (got none)")
        got, is_table = state[name], name.endswith(TABLES)
        if tensor.shape != got.shape and not is_table:
            raise CheckpointError(
                f"Expected shape {tuple(tensor.shape)} for {name} in {where} (got {tuple(got.shape)})"
            )
        types = DTYPES if tensor.is_floating_point() else (tensor.dtype,)
        if got.dtype not in types:
            expectation = " or ".join(map(str, types))
            raise CheckpointError(f"Expected {expectation} for {name} in {where} (got {got.dtype})")
        if tensor.is_floating_point():
            check_weight(f"{name} in {where}", got)
    for name in state:
        if name not in expected:
            raise CheckpointError(f"Expected no {named(name)} in {where} (got one)")


def check_weight(name: str, tensor: Tensor) -> None:
    """Refuse what is no number, or beyond float16.

    Raises:
        CheckpointError: names the tensor.
    """
    if tensor.numel() == 0:
        return
    low, high = (value.item() for value in tensor.aminmax())
    if not -LARGEST <= low <= high <= LARGEST:
        raise CheckpointError(
            f"Expected weights within {-LARGEST:.0f}..{LARGEST:.0f} for {name} (got {low}..{high})"
        )


def load_failure(error: Exception) -> str:
    """Return in a line why `torch.load` refused a file; torch itself advises to load it with all its code."""
    text = " ".join(str(error).split())
    if asked := re.search(r"GLOBAL (\S+)", text):
        return f"it asks for {asked[1]}, but only tensors are loaded"
    if "weights_only" in text or isinstance(error, EOFError | LookupError):
        return "it is damaged, or holds no tensors"
    return getattr(error, "strerror", None) or text or type(error).__name__
