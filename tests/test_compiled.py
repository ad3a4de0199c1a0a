"""Compiled code where its machine code can be kept, where it cannot, and where what is kept is spoilt."""

from pathlib import Path

import numba
import pytest
from numba.core import caching

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


def test_all_machine_code_is_kept_so():
    for path in (Path(__file__).parents[1] / "glic_pyg").rglob("*.py"):
        assert "cache=True)" not in path.read_text(), path


def test_machine_code_is_kept_and_made_anew_where_it_is_spoilt(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert (hits(), hits()) == (0, 1)
    for path in tmp_path.rglob("*.nb*"):
        path.write_bytes(b"spoilt")
    assert (hits(), hits()) == (0, 1)


def test_a_disk_without_room_ends_no_call(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    assert hits() == 0
