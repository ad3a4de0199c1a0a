"""Folders by paths and URLs."""

import os

import pytest

from glic_pyg.places import Place


@pytest.mark.parametrize("url", ["/", "file:///"])
def test_the_root_of_a_machine_is_a_folder(url):
    place = Place(url)
    assert (place.path(), place.url, place.path("a.tar")) == ("/", "/", "/a.tar")
    assert Place(place.url).path("a.tar") == "/a.tar"


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
