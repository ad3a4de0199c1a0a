"""Running the developers' rigs, and importing what they share."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LAB = Path(__file__).parents[2] / "lab"
sys.path.append(str(LAB))  # as where Python finds a script's neighbours


@pytest.fixture
def rig(ending) -> Callable[..., tuple[int, str, str]]:
    """Run a rig in this process: name, arguments -> exit status, stdout, stderr."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        return ending(lambda: runpy.run_path(str(LAB / f"{name}.py"), run_name="__main__"), name, *arguments)

    return run
