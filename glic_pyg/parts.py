"""Parts of a model by name -> objects: those of the package, and the user's own by import path."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, TypeVar

from glic_pyg.config import NAMES, ConfigError, Part

T = TypeVar("T")


def find_class(kind: str, name: str, base: type[T]) -> type[T]:
    """Return the class of a part.

    Args:
        kind: A key of `NAMES`.
        name: One of its names, or the import path of a class in a module that Python finds
            (`package.module.Class`).
        base: What the class must be derived from: nothing else that a file names is ever called.

    Raises:
        ConfigError: no such class, or not derived from `base`.
    """
    module, _, attribute = NAMES[kind].get(name, name).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"Expected {kind} to be a class that Python finds (got {name}: {error}); "
            "its folder must be in PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"Expected {kind} to be derived from {base.__name__} (got {name})")
    return found


def make_part(kind: str, part: Part, base: type[T], **known: Any) -> T:
    """Make a part.

    Args:
        kind: A key of `NAMES`.
        part: Its name and settings.
        base: See `find_class`.
        known: Further settings, for a class that takes them.

    Raises:
        ConfigError: no such class, or it does not take the settings.
    """
    cls = find_class(kind, part.name, base)
    taken = inspect.signature(cls).parameters
    settings = {key: value for key, value in known.items() if key in taken} | dict(part.settings)
    try:
        return cls(**settings)
    except Exception as error:  # whatever a part says about settings it cannot take
        raise ConfigError(
            f"Expected settings that {kind} {part.name} takes (got {settings}: {error})"
        ) from error
