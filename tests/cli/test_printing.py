import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glic_pyg.cli.printing import aligned, print_json


def test_aligned_tables():
    lines = [["codec", "bpp"], ["a", "0.25"], ["longer", "-"]]
    assert aligned(lines) == "codec    bpp\na       0.25\nlonger     -"
    assert aligned(lines, labels=0).splitlines()[1] == "     a  0.25"


def test_names_that_are_no_text_can_be_printed(tmp_path):
    """On a terminal that knows ASCII alone, and with bytes that are no UTF-8."""
    code = (
        "import os; from glic_pyg.cli.main import run; from glic_pyg.cli.printing import say\n"
        "run(lambda: [say('\\u00e9' + os.fsdecode(b'\\xff\\x1b[2J')), print('\\u00e9')] and 0)"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"\\xe9\\xff\\x1b[2J\n\\xe9\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_errors_that_cannot_be_printed_keep_their_status():
    code = """
from glic_pyg.cli.main import run
from glic_pyg.errors import UserError
def work():
    raise UserError("Expected this (got that)")
run(work)
"""
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", code], stderr=full).returncode == 2


def test_json_is_a_line_that_every_reader_takes(capsys):
    print_json({"a": [1, math.nan, (math.inf, "\u00e9\n")]})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"a": [1, None, [None, "\u00e9\n"]]}
