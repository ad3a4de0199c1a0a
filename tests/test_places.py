"""Folders by paths and URLs."""

import os
import sys
from types import SimpleNamespace

import fsspec
import pytest

from glic_pyg.errors import FileError, PackageError
from glic_pyg.places import Place


@pytest.mark.parametrize("url", ["/", "file:///"])
def test_the_root_of_a_machine_is_a_folder(url):
    place = Place(url)
    assert (place.path(), place.url, place.path("a.tar")) == ("/", "/", "/a.tar")
    assert Place(place.url).path("a.tar") == "/a.tar"


@pytest.mark.parametrize("name", ["a::b", "zip::x", "[1]*?#%20 \n~", "ä"])
def test_names_of_folders_are_taken_as_they_are(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in (name, f"./{name}/", f"{tmp_path}/{name}"):
        place = Place(url)
        place.write("sub/a.tar", b"7")
        assert (tmp_path / name / "sub" / "a.tar").read_bytes() == b"7"
        assert place.files({".tar"}) == {"sub/a.tar": 1}
        assert place.read("sub/a.tar", 10).getvalue() == b"7"
        assert place.exists("sub/a.tar")
        place.remove("sub/a.tar")
        place.remove("sub/a.tar")  # it is gone
        assert place.hash("sub/a.tar") is None


def test_one_folder_has_many_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("here", "link")
    (tmp_path / "here" / "inside").mkdir(parents=True)
    here = Place("here")
    for name in ("./here/", "link", f"{tmp_path}/here", f"file://{tmp_path}/here/"):
        assert Place(name).is_same(here), name
        assert Place(name).overlaps(Place("here/inside")), name
    assert Place("memory://here").is_same(Place("memory://here/"))
    for name in ("here2", "here/inside", "memory://here"):
        assert not Place(name).is_same(here), name
    assert not Place("here2").overlaps(here)
    assert here.overlaps(Place("/"))


@pytest.mark.parametrize(
    ("of_arrow", "error", "message"),
    [
        (None, PackageError, r"^Expected a package that reads s3://b/x \(got none: Install s3fs\)$"),
        (ValueError("no scheme"), PackageError, r"^Expected a package that reads s3://b/x \(got none: "),
        (OSError("no host"), FileError, r"^Expected a URL that answers \(got s3://b/x: no host\)$"),
    ],
)
def test_a_store_that_nothing_reads_is_told_in_a_line(monkeypatch, of_arrow, error, message):
    """Whether Arrow is not installed, knows no such store, or gets no answer."""

    def refuse(reason):
        raise reason

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: refuse(ImportError("Install s3fs")))
    system = SimpleNamespace(FileSystem=SimpleNamespace(from_uri=lambda url: refuse(of_arrow)))
    monkeypatch.setitem(sys.modules, "pyarrow.fs", system if of_arrow else None)
    monkeypatch.setitem(sys.modules, "fsspec.implementations.arrow", SimpleNamespace(ArrowFSWrapper=None))
    with pytest.raises(error, match=message):
        Place("s3://b/x")
