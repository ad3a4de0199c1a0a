"""Running the tools as their users do."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a tool in this process: name, arguments -> exit status, stdout, stderr."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


@pytest.fixture
def model_file(tiny_model, tmp_path) -> Path:
    path = tmp_path / "tiny.safetensors"
    tiny_model.save(path)
    return path
