"""Running the developers' rigs, and importing what they share."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LAB = Path(__file__).parents[2] / "lab"
sys.path.append(str(LAB))  # as where Python finds a script's neighbours


@pytest.fixture
def rig(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a rig in this process: name, arguments -> exit status, stdout, stderr."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(LAB / f"{name}.py"), run_name="__main__")
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


@pytest.fixture
def model_file(tiny_model, tmp_path) -> Path:
    path = tmp_path / "tiny.safetensors"
    tiny_model.save(path)
    return path
