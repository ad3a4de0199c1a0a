import dataclasses

import pytest

from glic_pyg.config import ConfigError
from glic_pyg.training.curves import draw_runs, next_evaluation


@pytest.fixture
def runs(tmp_path):
    """Two runs of two qualities, the second after the first."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "eval.csv").write_text(
        "step,quality,loss,bpp,psnr\n"
        "50,1,0.9,0.2,26\n50,2,1.1,0.4,28\n"
        "80,1,0.8,0.21,26.5\n80,2,1.0,0.41,28.5\n"
    )  # fmt: skip
    (folders[1] / "eval.csv").write_text("step,quality,loss,bpp,psnr\n50,1,0.7,0.22,27\n50,2,0.9,0.42,29\n")
    return folders


def write_steps(run, config, count):
    """A run of so many steps of two seconds, not evaluated yet."""
    lines = [f"{step},{100 / step},0.5,{20 + step},{2 * step}\n" for step in range(1, count + 1)]
    (run / "log.csv").write_text("".join(["step,loss,bpp,psnr,seconds\n", *lines]))
    (run / "config.yaml").write_text(config.to_yaml())


def test_runs_follow_one_another(runs):
    panels = draw_runs(runs).axes
    assert [axes.get_ylabel() for axes in panels] == ["held-out loss", "bits per pixel", "PSNR in dB"]
    *_, psnr = panels
    one, two, border, *later = (line.get_xydata().tolist() for line in psnr.lines)
    assert one == [[50, 26], [80, 26.5]]
    assert two == [[50, 28], [80, 28.5]]
    assert {x for x, _ in border} == {80}
    assert later == [[[130, 27]], [[130, 29]]]


def test_a_quality_keeps_its_colour(runs):
    one, two, _, one_later, two_later = draw_runs(runs).axes[0].lines
    assert one.get_color() == one_later.get_color() != two.get_color() == two_later.get_color()


def test_before_the_first_evaluation_the_training_crops_are_drawn(tmp_path, config):
    write_steps(tmp_path, config, 130)
    figure = draw_runs([tmp_path])
    loss, _, psnr = figure.axes
    assert loss.get_ylabel() == "loss"
    (line,) = psnr.lines
    assert line.get_xydata().tolist()[:2] == [[1.5, 21.5], [3.5, 23.5]]  # means of two steps
    (line,) = loss.lines
    assert line.get_xydata().tolist()[0] == [1.5, 75]
    assert [text.get_text() for text in figure.legends[0].texts] == ["training crops,\nmeans of 2 steps"]


def test_a_run_that_goes_on_from_another_is_drawn_after_it(runs, config):
    (runs[1] / "eval.csv").unlink()
    write_steps(runs[1], config, 10)
    *_, psnr = draw_runs(runs).axes
    assert psnr.lines[-1].get_xydata().tolist()[0] == [81, 21]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"eval_every": 40, "steps": 100}, "at step 40, in about 60 s"),
        ({"eval_every": 4000, "steps": 1000}, "at step 1000, in about 33 min"),
        ({"eval_every": 40, "steps": None, "max_time": 50.0}, "at the end, after 50 s, in about 30 s"),
        ({"eval_every": 40, "steps": None, "max_time": 90.0}, "at step 40, in about 60 s"),
        ({"eval_every": 5, "steps": 100}, "at step 5, in about 0 s"),
    ],
)
def test_when_the_first_evaluation_comes(tmp_path, config, changes, told):
    write_steps(tmp_path, dataclasses.replace(config, **changes), 10)
    expected = f"{tmp_path}: not evaluated up to step 10; the first evaluation comes {told}"
    assert next_evaluation(tmp_path) == expected


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", "step,quality,loss\n1,1,x\n", "step,quality,loss,bpp,psnr\n1,1,x,1,1\n"]
)
def test_other_tables_are_refused(text, tmp_path):
    (tmp_path / "eval.csv").write_text(text)
    with pytest.raises(ConfigError, match=r"Expected a table of glic train in .*eval\.csv"):
        draw_runs([tmp_path])


def test_a_run_without_a_step_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss,bpp,psnr,seconds\n")
    with pytest.raises(ConfigError, match=r"^Expected steps of glic train in .*log\.csv \(got none\)$"):
        draw_runs([tmp_path])
