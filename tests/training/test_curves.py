import pytest

from glic_pyg.config import ConfigError
from glic_pyg.training.curves import draw_runs


@pytest.fixture
def evaluations(tmp_path):
    """Two runs of two qualities, the second after the first."""
    paths = [tmp_path / "first.csv", tmp_path / "second.csv"]
    paths[0].write_text(
        "step,quality,loss,bpp,psnr\n"
        "50,1,0.9,0.2,26\n50,2,1.1,0.4,28\n"
        "80,1,0.8,0.21,26.5\n80,2,1.0,0.41,28.5\n"
    )  # fmt: skip
    paths[1].write_text("step,quality,loss,bpp,psnr\n50,1,0.7,0.22,27\n50,2,0.9,0.42,29\n")
    return paths


def test_runs_follow_one_another(evaluations):
    panels = draw_runs(evaluations).axes
    assert [axes.get_ylabel() for axes in panels] == ["held-out loss", "bits per pixel", "PSNR in dB"]
    *_, psnr = panels
    one, two, border, *later = (line.get_xydata().tolist() for line in psnr.lines)
    assert one == [[50, 26], [80, 26.5]]
    assert two == [[50, 28], [80, 28.5]]
    assert {x for x, _ in border} == {80}
    assert later == [[[130, 27]], [[130, 29]]]


def test_a_quality_keeps_its_colour(evaluations):
    one, two, _, one_later, two_later = draw_runs(evaluations).axes[0].lines
    assert one.get_color() == one_later.get_color() != two.get_color() == two_later.get_color()


@pytest.mark.parametrize(
    "text", ["", "step,quality,loss,bpp,psnr\n", "a,b\n1,2\n", "step,quality,loss\n1,1,x\n"]
)
def test_other_tables_are_refused(text, tmp_path):
    (tmp_path / "eval.csv").write_text(text)
    with pytest.raises(ConfigError, match=r"Expected evaluations of tools/train\.py in .*eval\.csv"):
        draw_runs([tmp_path / "eval.csv"])
