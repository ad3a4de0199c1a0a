"""Print what lets a shell complete the words of glic.

glic completion bash > ~/.local/share/bash-completion/completions/glic
glic completion zsh > ~/.zfunc/_glic
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from pathlib import Path

from glic_pyg.cli.flags import file_name


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="whose words to complete")


def run(args: Namespace) -> int:
    """Print the script."""
    import shtab

    from glic_pyg.cli.main import make_parser

    parser = make_parser()
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, args.shell))
    return 0


def _complete_files(parser: ArgumentParser, how: object) -> None:
    """Let every word that may be a file's name be completed as one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, how)
        elif action.nargs != 0 and action.choices is None and action.type in (None, Path, file_name):
            vars(action).update(complete=how)  # where shtab looks
