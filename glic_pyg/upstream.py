"""torch_geometric and compressai, imported without what coding a picture does not need.

Both import all that they have: data sets, language models, torchvision, scipy.stats, torch's compiler. That
takes far longer than coding a small picture. So the modules below wait: they are there, for whoever imports
them later, and run when something in them is first asked for. What was imported before is left alone.

Import this module before the two.
"""

from __future__ import annotations

import gc
import importlib
import sys
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

WAITING = {
    "compressai.datasets",
    "compressai.losses",
    "compressai.models",
    "compressai.optimizers",
    "compressai.registry",
    "compressai.transforms",
    "compressai.zoo",
    "scipy.linalg",
    "scipy.stats",
    "torch._dynamo",
    "torch_geometric.datasets",
    "torch_geometric.profile",
    "torch_geometric.transforms",
}
EARLY = {
    "compressai.models.base",
    "compressai.models.utils",
    "compressai.registry.torch",
    "scipy.linalg.cython_blas",
    "scipy.linalg.cython_lapack",
}
"""Submodules that are imported while the package around them waits."""
SOURCES = {("compressai.registry", "register_module"): "compressai.registry.torch"}
"""Where a name is found for which a package need not run."""


class _WaitingModule(ModuleType):
    """A module that runs when it is first asked for something."""

    __spec__: ModuleSpec

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # whoever looks through all modules asks for such
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if f"{self.__name__}.{name}" in WAITING | EARLY:  # the import system asks whether it is there
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        source = SOURCES.get((self.__name__, name))
        if source is not None:
            return getattr(importlib.import_module(source), name)
        with _locks[self.__name__]:
            if self.__name__ in _running:  # and has not come to it yet
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
            _run(self)
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        _run(self)
        return sorted(vars(self))


class _WaitingPath(list[str]):
    """Where the submodules of a waiting package are: who looks for one lets the package run first."""

    def __init__(self, module: _WaitingModule) -> None:
        super().__init__(module.__spec__.submodule_search_locations or [])
        self.module = module

    def __iter__(self) -> Iterator[str]:
        _run(self.module)
        return super().__iter__()


_locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
_running: set[str] = set()


def _run(module: _WaitingModule) -> None:
    name, loader = module.__name__, module.__spec__.loader
    with _locks[name]:
        if type(module) is not _WaitingModule or name in _running:
            return
        if "__path__" in vars(module):
            module.__path__ = list(module.__spec__.submodule_search_locations or [])
        _running.add(name)
        try:
            if name.startswith("compressai."):  # which import torchvision
                importlib.import_module("glic_pyg.torchvision_shim")
            assert loader is not None  # else `_Finder` has not let it wait
            loader.exec_module(module)
            module.__class__ = ModuleType  # type: ignore[assignment]
        finally:
            _running.remove(name)


class _WaitingLoader(Loader):
    """Make a module, and leave it waiting for its own loader to run it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _WaitingModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        assert isinstance(module, _WaitingModule)
        module.__spec__.loader = module.__loader__ = self.loader
        if module.__spec__.submodule_search_locations is not None:
            module.__path__ = _WaitingPath(module)


class _Finder(MetaPathFinder):
    """Find what is to wait, and what is imported although the package around it waits."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in WAITING | EARLY:
            return None
        if isinstance(path, _WaitingPath):
            path = path.module.__spec__.submodule_search_locations
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None and name in WAITING:
            spec.loader = _WaitingLoader(spec.loader)
        return spec


@contextmanager
def _letting_wait() -> Iterator[None]:
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def _keeping_garbage() -> Iterator[None]:
    """Look for no garbage: among what is imported there is none, and each look takes longer."""
    if gc.isenabled() and not gc.get_freeze_count():
        gc.disable()
        try:
            yield
        finally:
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
            gc.enable()
    else:
        yield


with _letting_wait(), _keeping_garbage(), warnings.catch_warnings():
    warnings.filterwarnings("ignore", ".*torch.jit.script. is deprecated")  # torch_geometric calls it
    import compressai.latent_codecs.gain
    import compressai.models.base  # noqa: F401
    import numba.np.arraymath  # noqa: F401 - before Numba does, with scipy.linalg
    import torch_geometric.nn  # noqa: F401
