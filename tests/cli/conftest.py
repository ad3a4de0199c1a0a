"""Running the commands as their users do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glic_pyg.cli import waiting
from glic_pyg.cli.main import main


@pytest.fixture
def glic(ending, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: name, arguments -> exit status, stdout, stderr.

    However busy the machine is, nothing is said of waiting.
    """
    monkeypatch.setattr(waiting, "LOG_SECONDS", 1e6)
    return lambda *arguments: ending(main, "glic", *arguments)


@pytest.fixture
def four_photos(tmp_path, monkeypatch) -> Path:
    """The current folder, with four pictures in its folder `photos`."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 72)).save(tmp_path / "photos" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path
