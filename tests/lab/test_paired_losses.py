"""Losses of two runs in pairs, against ratios that are known."""

import csv

import pytest


@pytest.fixture
def runs(tmp_path):
    """Losses of crops that differ a lot; the first run's are 2 % larger, at last 1 % smaller."""
    folders = tmp_path / "a-0", tmp_path / "b-0"
    for folder in folders:
        folder.mkdir()
        with (folder / "log.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["step", "learning_rate", "loss"])
            for step in range(1, 101):
                ratio = 1.02 if step <= 50 else 0.99
                crop = 1 + step % 7
                rows.writerow(
                    [step, 0.1, crop * ratio * 1.001 ** (-1) ** step if folder is folders[0] else crop]
                )
    return folders


def test_ratios_by_parts(rig, runs, tmp_path):
    status, out, _ = rig("paired_losses", *runs, "--parts", 2, "-o", tmp_path / "pairs.csv")
    assert status == 0
    # 1.001 up and down in turns: a deviation of 0.1 %, 50 of them.
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["50", "+2.00", "0.01"],
        ["100", "-1.00", "0.01"],
    ]
    assert (tmp_path / "pairs.csv").read_text() == "last,change,error\n50,+2.00,0.01\n100,-1.00,0.01\n"
