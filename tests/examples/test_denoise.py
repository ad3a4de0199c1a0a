import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "denoise.py"


@pytest.mark.parametrize("arguments", [[], ["--layer", "SAGEConv"]], ids=str)
def test_learns_to_remove_noise(arguments, monkeypatch, capsys):
    quick = ["--epochs", "2", "--steps", "40", "--batch-size", "4", "--channels", "16"]
    monkeypatch.setattr(sys, "argv", ["denoise.py", *quick, *arguments])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = capsys.readouterr().out
    (before,) = re.findall(r"Noisy: ([\d.]+) dB", out)
    after = re.findall(r"Test: ([\d.]+) dB", out)
    assert len(after) == 2
    assert float(after[-1]) > float(before)
