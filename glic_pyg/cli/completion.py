"""Print what lets a shell complete the words of glic.

glic completion bash > ~/.local/share/bash-completion/completions/glic
glic completion zsh > ~/.zfunc/_glic
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="whose words to complete")


def run(args: Namespace) -> int:
    """Print the script."""
    import shtab

    from glic_pyg.cli.main import make_parser

    print(shtab.complete(make_parser(), args.shell))
    return 0
