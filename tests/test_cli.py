import os
import warnings
from pathlib import Path

import pytest

from glic_pyg import cli
from glic_pyg.bitstream import BitstreamError
from glic_pyg.cli import aligned, convert_files, output_names
from glic_pyg.errors import FileError


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


def test_output_names_never_clash():
    def names(*paths):
        return [str(path) for path in output_names(map(Path, paths), ".glic")]

    assert names("a.png", "d/a.jpg", "b.tar.png") == ["a.glic", "d/a.glic", "b.tar.glic"]
    assert names("a.png", "a.jpg", "b.png") == ["a.png.glic", "a.jpg.glic", "b.glic"]
    assert names("a.png", "a.jpg", "a.png.bmp") == ["a.png.glic", "a.jpg.glic", "a.png.bmp.glic"]


def test_aligned_tables():
    lines = [["codec", "bpp"], ["a", "0.25"], ["longer", "-"]]
    assert aligned(lines) == "codec    bpp\na       0.25\nlonger     -"
    assert aligned(lines, labels=0).splitlines()[1] == "     a  0.25"


def upper(source: Path, target: Path) -> str:
    text = source.read_text()
    if "bad" in text:
        raise BitstreamError(f"{source.name} is bad")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text.upper())
    return f"{target.name} done"


def never(source: Path, target: Path) -> bool:
    return False


def test_one_file(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("text")
    settings = {"suffixes": (), "new_suffix": "", "is_done": never}
    assert convert_files(tmp_path / "a.txt", tmp_path / "b", upper, **settings) == 0
    assert (tmp_path / "b").read_text() == "TEXT"
    assert capsys.readouterr().out == "b done\n"


def test_folder(tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "sub").mkdir(parents=True)
    for name, text in {"a.txt": "one", "sub/b.TXT": "two", "c.txt": "bad", "note.md": "left alone"}.items():
        (source / name).write_text(text)
    assert convert_files(source, target, upper, suffixes={".txt"}, new_suffix=".up", is_done=never) == 1
    written = {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}
    assert written == {"a.up": "ONE", "sub/b.up": "TWO"}
    captured = capsys.readouterr()
    assert captured.out == "a.up done\nb.up done\n"
    assert captured.err == (
        f"error: {source / 'c.txt'}: c.txt is bad\nerror: 1 of 3 files could not be converted\n"
    )


def test_what_is_done_is_left_alone(tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / f"{name}.txt").write_text(name)
    settings = {"suffixes": {".txt"}, "new_suffix": ".up"}
    convert_files(source, target, upper, **settings, is_done=lambda a, b: True)
    assert len(capsys.readouterr().out.splitlines()) == 3
    (source / "b.txt").write_text("new")
    os.utime(target / "b.up", (0, 0))  # older than what it was made of
    convert_files(source, target, upper, **settings, is_done=lambda a, b: b.name != "c.up")
    assert capsys.readouterr().out == "b.up done\nc.up done\n1 of 3 files were done already\n"
    assert (target / "b.up").read_text() == "NEW"


def test_folders_that_cannot_be_converted(tmp_path):
    with pytest.raises(FileError, match="Expected another folder for the output than"):
        convert_files(tmp_path, tmp_path, upper, suffixes={".txt"}, new_suffix=".up", is_done=never)
    with pytest.raises(FileError, match=r"Expected files to convert in .* \(got none\)"):
        convert_files(tmp_path, tmp_path / "out", upper, suffixes={".txt"}, new_suffix=".up", is_done=never)
