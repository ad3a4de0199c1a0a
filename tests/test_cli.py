import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from glic_pyg import cli
from glic_pyg.bitstream import BitstreamError
from glic_pyg.cli import aligned
from glic_pyg.errors import FileError
from glic_pyg.files import write_file


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("main", "status", "stderr"),
    [
        (lambda: 0, 0, ""),
        (lambda: 1, 1, ""),
        (lambda: fail(BitstreamError("two\n  lines")), 2, "error: two lines\n"),
        (lambda: Path("/missing").read_bytes() and 0, 2, "error: No such file or directory: /missing\n"),
        (lambda: fail(KeyboardInterrupt()), 130, ""),
        (lambda: warnings.warn("careful", stacklevel=1) or 0, 0, "warning: careful\n"),
    ],
)
@pytest.mark.filterwarnings("always")
def test_run(main, status, stderr, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == stderr


@pytest.mark.filterwarnings("always")
def test_a_warning_is_told_once(capsys):
    def main():
        for message in ("a", "b", "a"):
            warnings.warn(message, stacklevel=1)
        return 0

    with pytest.raises(SystemExit):
        cli.run(main)
    assert capsys.readouterr().err == "warning: a\nwarning: b\n"


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 // 0)


def test_aligned_tables():
    lines = [["codec", "bpp"], ["a", "0.25"], ["longer", "-"]]
    assert aligned(lines) == "codec    bpp\na       0.25\nlonger     -"
    assert aligned(lines, labels=0).splitlines()[1] == "     a  0.25"


def test_what_reads_the_output_may_end_early():
    """As `head` does: no traceback, and nothing at the interpreter's end."""
    code = (
        "import sys; from glic_pyg import cli\n"
        "cli.run(lambda: [print('x' * 100) for _ in range(100_000)] and 0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as tool:
        tool.stdout.read(10)
        tool.stdout.close()
        assert tool.stderr.read() == b""
    assert tool.returncode == 2


def test_names_that_are_no_text_can_be_printed(tmp_path):
    """On a terminal that knows ASCII alone, and with bytes that are no UTF-8."""
    code = (
        "import os; from glic_pyg import cli\n"
        "cli.run(lambda: [cli.say('\\u00e9' + os.fsdecode(b'\\xff\\x1b[2J')), print('\\u00e9')] and 0)"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"\\xe9\\xff\\x1b[2J\n\\xe9\n"


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
        cli.run(main)
    assert (caught.value.code, cleaned) == (143, [True])
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == ""


def test_memory_that_does_not_suffice_gives_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: fail(MemoryError()))
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: Expected enough memory (got no more)\n"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (cli.positive, {"0.25": 0.25, "1e-3": 0.001}, ["0", "-1", "nan", "inf", "x", ""]),
        (cli.nonnegative, {"0": 0, "0.9": 0.9}, ["-0.1", "nan", "inf", "x", ""]),
        (cli.count, {"1": 1, "12": 12}, ["0", "-1", "1.5", "x", "", "9" * 5000, "\u0663"]),
        (cli.whole, {"0": 0, "12": 12}, ["-1", "1.5", "x", "", "9" * 5000]),
        (cli.file_name, {"a.png": Path("a.png"), "d/a": Path("d/a")}, ["", "new/", "/"]),
    ],
)
def test_values_of_flags(kind, good, bad, capsys):
    parser = cli.Parser("about")
    parser.add_argument("--flag", type=kind)
    for text, value in good.items():
        assert parser.parse_args(["--flag", text]).flag == value
    for text in bad:
        with pytest.raises(SystemExit) as caught:
            parser.parse_args([f"--flag={text}"])
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: argument --flag: Expected a ")


def test_a_wrong_command_line_is_one_line_without_escapes(capsys):
    with pytest.raises(SystemExit):
        cli.Parser("about").parse_args(["\x1b[31mred"])
    assert capsys.readouterr().err == "error: unrecognized arguments: \\x1b[31mred\n"


def write(*paths: Path) -> None:
    for path in paths:
        write_file(path, path.name)


def test_outputs_that_are_new_or_ours(tmp_path):
    a, b, users = tmp_path / "a", tmp_path / "sub" / "b", tmp_path / "users"
    for _ in range(2):
        with cli.writing(a, None, b, inputs=[users], force=False):
            write(a, b)
    users.write_text("precious")
    message = r"Expected an output that is new .*users\); --force"
    with pytest.raises(FileError, match=message), cli.writing(a, users, force=False):
        raise AssertionError("work has begun")
    a.write_text("changed by hand")
    message = r"or that an earlier call wrote \(got .*a\)"
    with pytest.raises(FileError, match=message), cli.writing(a, force=False):
        raise AssertionError("work has begun")
    with cli.writing(a, users, force=True):
        write(a, users)
    with cli.writing(a, users, force=False):
        pass


def test_what_was_written_before_an_error_is_ours(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    with pytest.raises(FileError, match="too bad"), cli.writing(a, b, force=False):
        write(a)
        raise FileError("too bad")
    with cli.writing(a, b, force=False):
        write(a, b)


def test_an_output_is_no_input(tmp_path, monkeypatch):
    """By none of its names, and not even if it is ours."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "s.png"
    with cli.writing(source, force=False):
        write(source)
    (tmp_path / "link").symlink_to("s.png")
    os.link(source, tmp_path / "hard")
    (tmp_path / "here").symlink_to(tmp_path)
    for name in ("s.png", "./s.png", "link", "hard", "here/s.png"):
        for first, second in ((Path("s.png"), Path(name)), (Path(name), source)):
            message = r"Expected another file for the output than .* the same"
            with pytest.raises(FileError, match=message), cli.writing(second, inputs=[first], force=True):
                raise AssertionError("work has begun")


def test_two_outputs_are_two_files(tmp_path):
    (tmp_path / "link").symlink_to("a")
    outputs = cli.writing(tmp_path / "a", tmp_path / "link", force=True)
    with pytest.raises(FileError, match="Expected outputs of different names"), outputs:
        raise AssertionError("work has begun")


def test_devices_are_nobodys(tmp_path):
    for _ in range(2):
        with cli.writing(Path("/dev/null"), force=False):
            write(Path("/dev/null"))
    assert not Path("/dev/.glic_pyg.jsonl").exists()
