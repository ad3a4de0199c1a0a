"""Running the commands as their users do."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from glic_pyg.cli.main import main


@pytest.fixture
def glic(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: name, arguments -> exit status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glic", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


@pytest.fixture
def model_file(tiny_model, tmp_path) -> Path:
    path = tmp_path / "tiny.safetensors"
    tiny_model.save(path)
    return path
