from pathlib import Path

from glic_pyg.names import output_names


def names(*texts, owners=None):
    return [str(p) for p in output_names([Path(text) for text in texts], ".glic", (owners or {}).get)]


def test_output_names_never_clash():
    assert names("a.png", "d/a.jpg", "b.tar.png") == ["a.glic", "d/a.glic", "b.tar.glic"]
    assert names("a.png", "a.jpg", "b.png") == ["a.png.glic", "a.jpg.glic", "b.glic"]
    assert names("a.png", "a.jpg", "a.png.bmp") == ["a.png.glic", "a.jpg.glic", "a.png.bmp.glic"]


def test_a_name_stays_its_own():
    owners = {Path("d/a.glic"): "a.png"}
    assert names("d/a.png", "d/a.jpg", owners=owners) == ["d/a.glic", "d/a.jpg.glic"]
    assert names("d/a.jpg", owners=owners) == ["d/a.jpg.glic"]
    owners = {Path("a.png.glic"): "a.png", Path("a.jpg.glic"): "a.jpg"}
    assert names("a.png", owners=owners) == ["a.png.glic"]  # also when the other is gone


def test_two_never_get_one_name_that_has_an_owner():
    owners = {Path("a.png.glic"): "a.png.bmp"}
    assert names("a.png.bmp", owners=owners) == ["a.png.glic"]
    found = names("a.png", "a.jpg", "a.png.bmp", owners=owners)
    assert found == ["a.png.glic", "a.jpg.glic", "a.png.bmp.glic"]
