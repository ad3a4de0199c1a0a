"""Compiled code where its machine code can be kept, where it cannot, and where what is kept is spoilt."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core import caching

from glic_pyg import compiled as compiled_module
from glic_pyg.compiled import compiled


def double(x):
    return 2 * x


def hits():
    """Compile anew, and count how often that was taken from the disk."""
    function = compiled()(double)
    assert function(21) == 42
    return sum(function.stats.cache_hits.values())


def test_without_a_place_for_machine_code(monkeypatch):
    """As in a container for reading only, without a home folder."""
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(double)
    assert hits() == 0


OBEY = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # without CAP_DAC_OVERRIDE permissions count for root, too
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
PROGRAM = """
import glic_pyg.codec, user
assert "read-only" in glic_pyg.codec.__file__
assert user.double(21) == 42
try:
    open(user.__file__, "a")
except PermissionError:
    print("nothing could be written")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_a_package_that_is_only_read(tmp_path):
    """As an administrator has installed it, or a container has it, for somebody without a home folder."""
    place = tmp_path / "read-only"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(__file__).parents[1] / "glic_pyg", place / "glic_pyg", ignore=ignored)
    (place / "user.py").write_text(
        "from glic_pyg.compiled import compiled\n\n\n@compiled()\ndef double(x):\n    return 2 * x\n"
    )
    for path in [place, *place.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place / "none"),
        "PYTHONPATH": str(place),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", OBEY, PROGRAM]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    for path in [place, *place.rglob("*")]:
        path.chmod(0o755)  # so that it can be removed
    assert (done.stderr, done.stdout) == ("", "nothing could be written\n")


def test_all_machine_code_is_kept_so():
    for path in (Path(__file__).parents[1] / "glic_pyg").rglob("*.py"):
        assert "cache=True)" not in path.read_text(), path


def test_machine_code_is_kept_and_made_anew_where_it_is_spoilt(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert (hits(), hits()) == (0, 1)
    for path in tmp_path.rglob("*.nb*"):
        path.write_bytes(b"spoilt")
    assert (hits(), hits()) == (0, 1)


@pytest.mark.parametrize("place", [True, False])
def test_the_log_tells_once_that_something_is_compiled(place, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    if not place:
        monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    compiled_module._tell.cache_clear()
    caplog.set_level("INFO", "glic_pyg.compiled")
    first = (hits(), caplog.messages)
    again = "once" if place else "each time unless NUMBA_CACHE_DIR is a writable folder"
    assert first[0] == 0
    assert len(first[1]) == 1 and again in first[1][0]
    caplog.clear()
    assert hits() == place
    assert caplog.messages == []


def test_a_disk_without_room_ends_no_call(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    assert hits() == 0


def test_machine_code_is_made_anew_where_shared_code_has_changed(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert (hits(), hits()) == (0, 1)
    monkeypatch.setattr(compiled_module, "_shared_code", lambda: "another")
    assert (hits(), hits()) == (0, 1)


def test_files_with_shared_code_are_known():
    """Files that make compiled code of what another file defines for that."""
    package = Path(__file__).parents[1] / "glic_pyg"
    texts = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    parts = {name for name, text in texts.items() if "@numba.njit" in text or "@intrinsic" in text}
    whole = {name for name, text in texts.items() if "@compiled(" in text}
    shared = {
        name
        for name in parts
        for other in (parts | whole) - {name}
        if f"from glic_pyg.{name.removesuffix('.py').replace('/', '.')} import" in texts[other]
    }
    assert shared == set(compiled_module.SHARED)
