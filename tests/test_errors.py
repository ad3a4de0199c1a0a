"""One base for whatever a user can mend."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

from glic_pyg.cli.main import run
from glic_pyg.errors import FileError, PackageError, UsageError, UserError, require

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "glic_pyg").rglob("*.py"))
COMMANDS = sorted((ROOT / "glic_pyg" / "cli").glob("*.py"))


def is_error(name: str) -> bool:
    return name.endswith(("Error", "Exception"))


def test_every_error_class_is_one_of_the_users():
    """Else the command line answers a user's mistake with a traceback."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and is_error(node.name):
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found.append(getattr(importlib.import_module(module), node.name))
    assert len(found) >= 12
    assert [error for error in found if not issubclass(error, UserError)] == []


def test_commands_raise_what_they_mean():
    """Neither a system's error for a user's mistake, nor a line of their own."""
    for path in COMMANDS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                assert ast.unparse(node.exc.func) not in {"OSError", "ValueError", "RuntimeError"}, path
        assert 'print(f"error' not in path.read_text(), path


@pytest.mark.parametrize("error", [FileError, PackageError, UsageError])
def test_the_command_line_knows_the_base_alone(error, capsys):
    def main() -> int:
        raise error("Expected one\n (got two)")

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: Expected one (got two)\n"


def test_a_missing_package_is_told_with_its_extra():
    with require("torch", "numpy", extra="train", purpose="training"):
        pass
    line = r"Expected package no_such, for training: pip install 'glic_pyg\[train\]'"
    with pytest.raises(PackageError, match=rf"^{line}$"):
        require("torch", "no_such", extra="train", purpose="training")


@pytest.mark.parametrize("blocked", [None, "finder"])
def test_a_package_that_cannot_be_looked_for_is_missing(blocked, monkeypatch):
    class Finder:
        @staticmethod
        def find_spec(name, *_):
            if name == "no_such":
                raise ModuleNotFoundError(name)

    if blocked is None:
        monkeypatch.setitem(sys.modules, "no_such", None)
    else:
        monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(PackageError, match="Expected package no_such, for x"):
        require("no_such", extra="all", purpose="x")
