import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_kernels_match_their_definitions_in_tritons_interpreter():
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).with_name("triton_cases.py"))]
    # Whether kernels are interpreted is settled when Triton is imported.
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
