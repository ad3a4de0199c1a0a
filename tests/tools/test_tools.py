"""The tools are the commands, by the names that they have always had."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

from glic_pyg.cli.main import COMMANDS

TOOLS = sorted((Path(__file__).parents[2] / "tools").glob("*.py"))


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_a_tool_is_its_command(path, monkeypatch, capsys):
    docstring, _, guard = ast.parse(path.read_text()).body
    (name,) = ast.literal_eval(guard.body[0].value.args[0]).split()
    assert name in COMMANDS
    assert docstring.value.value == f"`glic {name}`."
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(path), run_name="__main__")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: glic {name} ")


def test_every_command_but_the_newer_ones_has_a_tool():
    called = {ast.parse(path.read_text()).body[-1].body[0].value.args[0].value for path in TOOLS}
    assert called == COMMANDS.keys() - {"bulk", "completion", "export", "info", "viewer"}
