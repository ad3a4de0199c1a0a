"""Configurations: frozen dataclasses, checked where they are made, YAML in and YAML out."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml

from glic_pyg.errors import UserError
from glic_pyg.yaml_text import parse_yaml

LATENT_STRIDE = 16
"""Pixels along a side of the picture for a position of y."""
HYPER_STRIDE = 64
"""The same for a position of z. Pictures are padded to multiples of it."""
GRAPH_STRIDES = (4, 8)
"""The same for the nodes of the two kinds of graph stages."""

MAX_GROUPS = 64
"""Groups of channels that a model codes one after the other."""
WIDTH, DEPTH, RATIO = range(1, 8193), range(1, 65), range(1, 65)
BOUNDS = {
    "channels": WIDTH,
    "latent_channels": WIDTH,
    "hyper_channels": range(4, 8193),  # of fewer symbols CompressAI's coder writes beyond its memory
    "depths": DEPTH,
    "heads": range(1, 257),
    "ffn_ratios": RATIO,
    "position_hidden": WIDTH,
    "groups": WIDTH,
    "hyper_depth": DEPTH,
    "hyper_ffn_ratio": RATIO,
    "context_ffn_ratio": RATIO,
    "context_min_channels": WIDTH,
    "parameters_min_channels": WIDTH,
    "qualities": range(1, 257),
}
"""Numbers of a model: a configuration of some bytes must not ask for years or terabytes."""
MAX_PARTS = 8
"""Candidate sets of a model."""
MAX_SETTINGS, MAX_SETTING = 32, 1024
"""Number of a part's settings, and the largest of their numbers."""
MAX_NAME = 200
"""Letters of a name."""

KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 100


def shown(value: object) -> str:
    """Return a value as an error's line shows it: of a long or deep one the beginning."""
    try:
        return _short.repr(value)
    except ValueError:  # Python writes no numbers of more than 4300 digits
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__


def named(key: object) -> str:
    """Return a name out of a file as an error's line shows it."""
    if not isinstance(key, str):
        return shown(key)
    return key if len(key) <= MAX_NAME and key.isprintable() else shown(key)[1:-1]


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used; the message is one line for the user."""


class Config:
    """Base of all configurations: conversion from and to plain mappings and YAML files."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "") -> Self:
        """Build from a plain mapping; missing keys take their defaults, unknown keys are refused.

        Raises:
            ConfigError: unknown key (the nearest name is suggested), missing key, or wrong type.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"Expected a mapping for {where or cls.__name__} (got {shown(values)})")
        hints = typing.get_type_hints(cls)
        arguments = {}
        for key, value in values.items():
            name = named(key)
            path = f"{where}.{name}" if where else name
            if key not in hints:
                near = difflib.get_close_matches(name, hints, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(hints)}"
                raise ConfigError(f"Unknown key '{path}'{hint}")
            arguments[key] = _convert(value, hints[key], path)
        missing = [
            f.name
            for f in dataclasses.fields(cls)  # type: ignore[arg-type]  # its heirs are dataclasses
            if f.name not in arguments
            and f.default is dataclasses.MISSING
            and f.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise ConfigError(f"Expected key '{missing[0]}' in {where or cls.__name__}")
        return cls(**arguments)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file; a nested configuration may be the path of its own file, relative to this one.

        Raises:
            ConfigError: the file is no YAML mapping, or `from_dict` refuses it.
        """
        values = cls.read_yaml(path)
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def read_yaml(cls, path: str | Path) -> Any:
        """Return what a YAML file says, before it is checked; files that it names are read too.

        Raises:
            ConfigError: a file is not YAML.
        """
        try:
            values = parse_yaml(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"Expected a YAML file (got {path}: {error})") from error
        for key, hint in typing.get_type_hints(cls).items():
            nested = isinstance(hint, type) and issubclass(hint, Config) and not issubclass(hint, Part)
            if nested and isinstance(values, dict) and isinstance(values.get(key), str):
                values[key] = hint.from_yaml(Path(path).parent / values[key]).to_dict()
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and strings, as `from_dict` takes them."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def to_yaml(self) -> str:
        """Return the YAML text that `from_yaml` reads back to an equal configuration."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None)


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def _convert(value: Any, hint: Any, path: str) -> Any:
    """Check one YAML value against its annotation; lists become tuples, integers floats."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        some = [arg for arg in args if arg is not type(None)]
        is_list = isinstance(value, list | tuple)
        fitting = [arg for arg in some if (typing.get_origin(arg) is tuple) == is_list]
        return _convert(value, [*fitting, *some][0], path)
    if origin is Literal:
        if value not in args:
            raise ConfigError(
                f"Expected {path} to be one of {', '.join(map(str, args))} (got {shown(value)})"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple) or (args[-1] is not ... and len(value) != len(args)):
            count = "" if args[-1] is ... else f"{len(args)} "
            raise ConfigError(f"Expected {path} to be a list of {count}values (got {shown(value)})")
        return tuple(_convert(v, args[0], f"{path}[{i}]") for i, v in enumerate(value))
    if isinstance(hint, type) and issubclass(hint, Config):
        return hint.from_dict(value, where=path)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) < 1e300:  # nor no number
            raise ConfigError(f"Expected {path} to be a finite number (got {shown(value)})")
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"Expected {path} to be {KINDS.get(hint, hint.__name__)} (got {shown(value)})")
    return value


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_within(name: str, value: int | tuple[int, ...], bounds: range) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    _require(
        all(type(number) is int and number in bounds for number in numbers),
        f"Expected {name} in {bounds[0]}..{bounds[-1]} (got {shown(value)})",
    )


@dataclass(frozen=True)
class Part(Config):
    """A part of a model by name; in YAML the name, or a mapping of `name` and the settings.

    Args:
        name: One that comes with the package (see `glic_pyg.build`), or the import path of a class.
        settings: Keyword arguments of its class, plain values.
    """

    KEY: ClassVar[str] = "name"

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(
            0 < len(self.name) <= MAX_NAME and self.name.isprintable(),
            f"Expected a name of 1 to {MAX_NAME} letters (got {shown(self.name)})",
        )
        _require(
            len(self.settings) <= MAX_SETTINGS,
            f"Expected at most {MAX_SETTINGS} settings of {self.name} (got {len(self.settings)})",
        )
        for key, value in self.settings.items():
            _require(
                isinstance(key, str) and key.isidentifier() and len(key) <= MAX_NAME,
                f"Expected settings of {self.name} to have names (got {shown(key)})",
            )
            values = value if isinstance(value, list | tuple) else [value]
            _require(
                len(values) <= MAX_SETTINGS and all(map(_is_setting, values)),
                f"Expected {key} of {self.name} to be a word, numbers within {-MAX_SETTING}..{MAX_SETTING}, "
                f"or true or false (got {shown(value)})",
            )

    @classmethod
    def from_dict(cls, values: str | Mapping[str, Any], *, where: str = "") -> Self:
        """Build from a name or a mapping.

        Raises:
            ConfigError: neither.
        """
        settings = {cls.KEY: values} if isinstance(values, str) else values
        if not isinstance(settings, Mapping) or not isinstance(settings.get(cls.KEY), str):
            raise ConfigError(
                f"Expected {where} to be a name or a mapping with a {cls.KEY} (got {shown(values)})"
            )
        return cls(settings[cls.KEY], {key: value for key, value in settings.items() if key != cls.KEY})

    def to_dict(self) -> str | dict[str, Any]:  # type: ignore[override]
        """Return the name, or a mapping where there are settings."""
        return {self.KEY: self.name, **self.settings} if self.settings else self.name


def _is_setting(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_NAME
    return value is None or (isinstance(value, int | float) and abs(value) <= MAX_SETTING)


@dataclass(frozen=True)
class Aggregation(Part):
    """How a graph layer aggregates neighbours; in YAML a name, or a mapping of `layer` and the settings."""

    KEY: ClassVar[str] = "layer"


@dataclass(frozen=True)
class GraphConfig(Config):
    """How a feature map becomes graphs. Parts are described where their classes are.

    Args:
        degree: Average number of neighbours per node, the quota's budget.
        selection: `threshold` keeps what lies above a bisected similarity (as published),
            `top_d` exactly the quota's number of most similar candidates, `knn` the `k` most similar.
        candidates: A graph for each: `local`, `global`, `anchors`, or `torch_cluster`, which is `local` found
            by torch-cluster's `grid_cluster`; layers take turns. None at all leaves layers their feed-forward
            parts.
        score: `sobel`, `local_entropy`, `rescaling_residual`, each with `pooling` `rms` or `mean`;
            `none`; `learned`.
        quota: Scores share out the budget of a `group`, as published, or of the `map`, as in the paper.
        similarity: What candidates are ranked by: the `cosine` of the features, as published, or the same
            `centered` by their mean over the map; `torch_cluster` and `torch_cluster_centered` find the
            nearest by torch-cluster's `knn`.
        strides: Where there are graphs: on maps at H/4, `[4]`, at H/8, `[8]`, or, as published, both. Layers
            elsewhere are left their feed-forward parts.
    """

    degree: int = 64
    selection: Part = Part("threshold")
    candidates: tuple[Part, ...] = (Part("local"), Part("global"))
    score: Part = Part("sobel")
    quota: Part = Part("group")
    similarity: Part = Part("cosine")
    strides: tuple[int, ...] = GRAPH_STRIDES

    def __post_init__(self) -> None:
        _require_within("degree", self.degree, range(1, 257))
        _require(
            len(self.candidates) <= MAX_PARTS,
            f"Expected at most {MAX_PARTS} candidates (got {len(self.candidates)})",
        )
        _require(
            self.strides in ((4,), (8,), GRAPH_STRIDES),
            f"Expected strides to be [4], [8] or [4, 8] (got {shown(list(self.strides))})",
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "") -> Self:
        """Build from a mapping; one with `neighbors`, as 0.1 wrote it, is read as what it means now."""
        return super().from_dict(_without_neighbors(values), where=where)


def _without_neighbors(graph: Any) -> Any:
    """Say by its parts what a graph's `neighbors`, `arithmetic` or `torch_cluster`, said of two of them."""
    if not isinstance(graph, Mapping) or graph.get("neighbors") not in ("arithmetic", "torch_cluster"):
        return graph
    values = {key: value for key, value in graph.items() if key != "neighbors"}
    if graph["neighbors"] == "torch_cluster":
        similarity, candidates = (
            values.get("similarity", "cosine"),
            values.get("candidates", ["local", "global"]),
        )
        names = {"cosine": "torch_cluster", "centered": "torch_cluster_centered"}
        values["similarity"] = names.get(str(similarity), similarity)
        if isinstance(candidates, list | tuple):
            values["candidates"] = ["torch_cluster" if part == "local" else part for part in candidates]
    return values


@dataclass(frozen=True)
class ModelConfig(Config):
    """The numbers of one GLIC model; the defaults are the published ones.

    Args:
        name: What the model is called in files and messages.
        channels: Widths at H/2, H/4 and H/8.
        latent_channels: Channels of y, at H/16.
        hyper_channels: Channels of z, at H/64, and width of the hyper transforms.
        depths: Conv blocks at H/2, graph layers at H/4 and at H/8.
        heads: Attention heads of a graph layer.
        ffn_ratios: Expansion of the feed-forward parts at H/2, H/4 and H/8.
        position_hidden: Hidden width of the position MLP.
        groups: Channels of y coded together, in coding order.
        hyper_depth: Conv blocks per resolution in h_a and h_s.
        hyper_ffn_ratio: Expansion in h_a and h_s.
        context_ffn_ratio: Expansion in channel context and parameter aggregation.
        context_min_channels: Least inner width of the channel context.
        parameters_min_channels: Least inner width of the parameter aggregation.
        qualities: Number of qualities with gain units of their own; 1 is a model of one quality, without.
        graph: How feature maps become graphs.
        aggregation: How graph layers aggregate: `attention` of the heads above, or a PyG layer.
        position: What the attention's bias knows of an edge: its offset in the group's grids, as published
            (`grid`), or its `distance` in the map.
    """

    name: str = "glic"
    channels: tuple[int, int, int] = (128, 192, 192)
    latent_channels: int = 320
    hyper_channels: int = 192
    depths: tuple[int, int, int] = (3, 5, 5)
    heads: int = 8
    ffn_ratios: tuple[int, int, int] = (4, 4, 2)
    position_hidden: int = 512
    groups: tuple[int, ...] = (16, 16, 32, 64, 192)
    hyper_depth: int = 2
    hyper_ffn_ratio: int = 2
    context_ffn_ratio: int = 4
    context_min_channels: int = 192
    parameters_min_channels: int = 384
    qualities: int = 1
    graph: GraphConfig = field(default_factory=GraphConfig)
    aggregation: Aggregation = Aggregation("attention")
    position: Literal["grid", "distance"] = "grid"

    def __post_init__(self) -> None:
        unused = self.aggregation.name == "attention" and self.aggregation.settings
        _require(not unused, f"Expected attention without settings; its heads are the model's (got {unused})")
        _require(
            0 < len(self.name) <= MAX_NAME and self.name.isprintable() and not set(self.name) & set("/\\"),
            f"Expected a name of 1 to {MAX_NAME} letters, which files may have (got {shown(self.name)})",
        )
        for name, bounds in BOUNDS.items():
            _require_within(name, getattr(self, name), bounds)
        _require(
            len(self.groups) <= MAX_GROUPS, f"Expected at most {MAX_GROUPS} groups (got {len(self.groups)})"
        )
        _require(
            sum(self.groups) == self.latent_channels,
            f"Expected groups to sum to latent_channels {self.latent_channels} (got {sum(self.groups)})",
        )
        for width in self.channels[1:]:
            whole = width % self.heads == 0
            _require(whole, f"Expected channels divisible by {self.heads} heads (got {width})")

    @property
    def default_quality(self) -> int | None:
        """The middle quality; None for a model of one."""
        return None if self.qualities == 1 else (self.qualities + 1) // 2
