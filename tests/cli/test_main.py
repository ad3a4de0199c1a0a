import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from glic_pyg import __version__
from glic_pyg.cli import flags
from glic_pyg.cli.main import COMMANDS, command_module, make_parser, run
from glic_pyg.container import BitstreamError
from glic_pyg.evaluation.bd import METHODS
from glic_pyg.evaluation.codecs import RIVALS
from glic_pyg.evaluation.compare import METRICS
from glic_pyg.evaluation.datasets import DATASETS
from glic_pyg.inspection import STAGES

LIGHT = """
import sys
from glic_pyg.cli.main import main
sys.argv[1:] = {arguments}
try:
    main()
finally:
    heavy = {{"torch", "numpy", "numba", "compressai", "PIL", "matplotlib", "scipy", "lightning", "tqdm"}}
    print(sorted(heavy & sys.modules.keys()), len(sys.modules) < 350, file=sys.stderr)
"""


def fail(error):
    raise error


def fail_cleaning_up(reason):
    """As what releases a lock that Ctrl-C or SIGTERM kept it from taking."""
    try:
        fail(reason)
    finally:
        fail(RuntimeError("cannot release un-acquired lock"))


@pytest.mark.parametrize(
    ("main", "status", "stderr"),
    [
        (lambda: 0, 0, ""),
        (lambda: 1, 1, ""),
        (lambda: fail(BitstreamError("two\n  lines")), 2, "error: two lines\n"),
        (lambda: Path("/missing").read_bytes() and 0, 2, "error: No such file or directory: /missing\n"),
        (lambda: fail(KeyboardInterrupt()), 130, "error: interrupted\n"),
        (lambda: fail_cleaning_up(KeyboardInterrupt()), 130, "error: interrupted\n"),
        (lambda: fail_cleaning_up(SystemExit(143)), 143, ""),
        (lambda: warnings.warn("careful", stacklevel=1) or 0, 0, "warning: careful\n"),
    ],
)
@pytest.mark.filterwarnings("always")
def test_run(main, status, stderr, capsys):
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == stderr


@pytest.mark.filterwarnings("always")
def test_a_warning_is_told_once(capsys):
    def main():
        for message in ("a", "b", "a"):
            warnings.warn(message, stacklevel=1)
        return 0

    with pytest.raises(SystemExit):
        run(main)
    assert capsys.readouterr().err == "warning: a\nwarning: b\n"


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_what_reads_the_output_may_end_early():
    """As `head` does: no traceback, and nothing at the interpreter's end."""
    code = (
        "import sys; from glic_pyg.cli.main import run\n"
        "run(lambda: [print('x' * 100) for _ in range(100_000)] and 0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as tool:
        tool.stdout.read(10)
        tool.stdout.close()
        assert tool.stderr.read() == b""
    assert tool.returncode == 2


def test_sigterm_unwinds_the_stack(capsys):
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def main():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:  # what a tool may catch
            return 0
        finally:
            cleaned.append(True)
        return 0

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert (caught.value.code, cleaned) == (143, [True])
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == ""


def test_memory_that_does_not_suffice_gives_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        run(lambda: fail(MemoryError()))
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: Expected enough memory (got no more)\n"


@pytest.mark.parametrize(
    ("arguments", "status", "out"),
    [
        (["--version"], 0, f"glic_pyg {__version__}"),
        (["--help"], 0, "usage: glic "),
        (["compress", "--help"], 0, "usage: glic compress "),
        (["bd-rate", "--list"], 0, "clic/"),
        (["info", "glic_nano"], 0, "glic_nano: checkpoint of glic_nano"),
        (["train", "--print-config", "--steps", "3"], 0, "model:"),
        (["compress", "a.png", "--outptu=b"], 2, ""),
        (["cmopress"], 2, ""),
        ([], 2, ""),
    ],
)
def test_what_needs_no_model_imports_nothing_large(arguments, status, out):
    """Neither for help nor for a typo does anybody wait for torch."""
    code = LIGHT.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *errors, modules = done.stderr.splitlines()
    assert (done.returncode, modules) == (status, "[] True")
    assert done.stdout.startswith(out)
    assert len(errors) == (status == 2)


def test_no_commands_arguments_need_anything_large():
    code = LIGHT.replace("sys.argv[1:] = {arguments}", "from glic_pyg.cli.main import make_parser")
    code = code.replace("    main()\n", "    make_parser()\n").replace("{{", "{").replace("}}", "}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "[] True\n"


def test_the_package_itself_is_light():
    code = "import sys, glic_pyg; print(len([m for m in sys.modules if m.startswith(('torch', 'numpy'))]))"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"0\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, glic):
    status, out, err = glic(name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: glic {name} ")
    assert f"glic {name} " in command_module(name).__doc__


def test_one_name_has_one_meaning():
    """What commands share has one help; but what trains, and on what, is chosen otherwise than what codes."""
    helps = {}
    for action in make_parser()._subparsers._group_actions[0].choices.values():
        for flag in action._actions:
            for name in flag.option_strings:
                helps.setdefault(name, set()).add(flag.help)
    shared = ("--model", "--allow-code", "--threads", "--force", "--json", "--max-pixels", "--ray")
    assert len(helps["--device"]) == len(helps["--dataset"]) == 2
    assert {name: len(helps[name]) for name in shared} == dict.fromkeys(shared, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cmopress"], "error: argument COMMAND: Expected one of compress, "),
        (
            ["compress", "a", "-o", "b", "--qualty", "3"],
            "error: unrecognized arguments: --qualty 3; did you mean",
        ),
        ([], "error: the following arguments are required: COMMAND"),
    ],
)
def test_a_typo_is_one_line(glic, arguments, message):
    status, out, err = glic(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(message)


@pytest.mark.parametrize("device", ["cuda:99", "meta", "gpu"])
def test_a_device_that_is_not_there(glic, device, tmp_path):
    status, _, err = glic("compress", tmp_path / "a.png", "-o", tmp_path / "b.glic", "--device", device)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: Expected a device of this machine (got {device}: ")


def test_choices_are_those_of_the_package():
    """Which is not imported to read arguments."""
    assert flags.METHODS == METHODS
    assert tuple(RIVALS) == command_module("evaluate").RIVALS
    assert tuple(METRICS) == command_module("bd-rate").METRICS
    assert command_module("graph").STAGES == STAGES
    assert command_module("datasets").DATASETS == DATASETS


def test_threads_are_those_asked_for(glic, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    glic("compress", tmp_path / "a.png", "-o", tmp_path / "b.glic", "--threads", "3", "--device", "no")
    assert asked == [3]


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_briefly_unless_the_user_says_how(given, spins):
    """Said before torch is imported, which reads it."""
    program = (
        "import atexit, os, sys; from glic_pyg.cli.main import main; "
        "names = 'GOMP_SPINCOUNT', 'THP_MEM_ALLOC_ENABLE'; "
        "atexit.register(lambda: print(*map(os.environ.get, names), 'torch' in sys.modules)); main()"
    )
    said = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE")
    rest = {name: value for name, value in os.environ.items() if name not in said}
    result = subprocess.run(
        [sys.executable, "-c", program, "--version"],
        env=rest | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == f"{spins} 1 False"
