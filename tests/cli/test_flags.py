from pathlib import Path

import pytest

from glic_pyg.cli import flags


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (flags.positive, {"0.25": 0.25, "1e-3": 0.001}, ["0", "-1", "nan", "inf", "x", ""]),
        (flags.nonnegative, {"0": 0, "0.9": 0.9}, ["-0.1", "nan", "inf", "x", ""]),
        (flags.count, {"1": 1, "12": 12}, ["0", "-1", "1.5", "x", "", "9" * 5000, "\u0663"]),
        (flags.threads, {"1": 1, "1024": 1024}, ["0", "-1", "1025", "x", "", "9" * 9, "\u0663"]),
        (flags.whole, {"0": 0, "12": 12}, ["-1", "1.5", "x", "", "9" * 5000]),
        (flags.file_name, {"a.png": Path("a.png"), "d/a": Path("d/a")}, ["", "new/", "/"]),
    ],
)
def test_values_of_flags(kind, good, bad, capsys):
    parser = flags.Parser("about")
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
        flags.Parser("about").parse_args(["\x1b[31mred"])
    assert capsys.readouterr().err == "error: unrecognized arguments: \\x1b[31mred\n"
