import pytest
from matplotlib.figure import Figure

from glic_pyg.errors import FileError
from glic_pyg.figures import figure_svg, save_figure


@pytest.mark.parametrize("name", ["a.png", "b.SVG"])
def test_save(tmp_path, name):
    save_figure(Figure(figsize=(1, 1)), tmp_path / name)
    start = (tmp_path / name).read_bytes()[:5]
    assert start == (b"\x89PNG\r" if name == "a.png" else b"<?xml")


def test_save_by_another_name(tmp_path):
    with pytest.raises(FileError, match=r"Expected a name that ends in .png or .svg .*\(got .*a.jpg\)"):
        save_figure(Figure(figsize=(1, 1)), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_a_figure_is_the_same_whenever_it_is_made():
    text = figure_svg(Figure(figsize=(1, 1)))
    assert "<svg" in text
    assert "<dc:date>" not in text
