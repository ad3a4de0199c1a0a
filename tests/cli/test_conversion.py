import errno
import os
import shutil
import sys
import time
import warnings
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from glic_pyg.cli import conversion
from glic_pyg.cli.conversion import Conversion, Converter
from glic_pyg.container import BitstreamError
from glic_pyg.errors import FileError
from glic_pyg.ledger import NAME

BAD_NAME = os.fsdecode(b"\xff\x1b[31m\n.txt")


def upper(source):
    text = source.read()
    if b"bad" in text:
        raise BitstreamError("this is bad")
    return text.upper(), {"bytes": len(text)}, f"{len(text)} bytes"


def begin():
    return Converter(upper, {}, 100)


def converted(source, target, *, force=False, work=upper, most=100, **settings) -> int:
    converter = Converter(work, settings, most)
    convert = Conversion(lambda: converter, suffixes={".txt"}, new_suffix=".up", force=force)
    return convert(str(source), str(target))


def written(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    for name in ("a", "b", "sub/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text(name)
    return folder


def test_one_file(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("text")
    for _ in range(2):  # what an earlier call wrote is written again
        assert converted(tmp_path / "a.txt", tmp_path / "b") == 0
        assert (tmp_path / "b").read_text() == "TEXT"
        assert capsys.readouterr() == (f"{tmp_path / 'b'}: 4 bytes\n", "")


def test_folder(source, tmp_path, capsys):
    (source / "b.TXT").write_text("bad")
    (source / "note.md").write_text("left alone")
    assert converted(source, tmp_path / "out") == 1
    assert written(tmp_path / "out") == {"a.up": "A", "b.txt.up": "B", "sub/c.up": "SUB/C"}
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{tmp_path / 'out' / name}: {n} bytes" for name, n in
                                [("a.up", 1), ("b.txt.up", 1), ("sub/c.up", 5)]]  # fmt: skip
    assert err.splitlines() == [
        f"error: {source / 'b.TXT'}: this is bad",
        "error: 1 of 4 files could not be converted",
    ]


def test_content_and_settings_decide_what_is_done(source, tmp_path, capsys):
    target = tmp_path / "out"

    def second_start(**settings):
        assert converted(source, target, **settings) == 0
        return [line.removeprefix(f"{target}/") for line in capsys.readouterr().out.splitlines()]

    assert len(second_start(quality=1)) == 3
    assert second_start(quality=1) == ["3 of 3 files were done already"]
    a = source / "a.txt"
    a.write_text("z")  # as many bytes
    os.utime(a, (0, 0))  # and an older date
    assert second_start(quality=1) == ["a.up: 1 bytes", "2 of 3 files were done already"]
    assert (target / "a.up").read_text() == "Z"
    a.touch()
    assert second_start(quality=1) == ["3 of 3 files were done already"]
    a.write_text("a")
    assert second_start(quality=1)[0] == "a.up: 1 bytes"
    assert len(second_start(quality=2)) == 3
    (target / "b.up").unlink()
    assert second_start(quality=2) == ["b.up: 1 bytes", "2 of 3 files were done already"]
    shutil.move(target, tmp_path / "moved")
    shutil.move(source, tmp_path / "moved source")
    assert converted(tmp_path / "moved source", tmp_path / "moved", quality=2) == 0
    assert capsys.readouterr().out == "3 of 3 files were done already\n"


def test_what_no_call_wrote_or_somebody_changed_stays(source, tmp_path, capsys):
    target = tmp_path / "out"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "c.up").write_text("precious")
    assert converted(source, target) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"error: {source / 'sub/c.txt'}: Expected an output that is new or that an earlier call wrote "
        f"(got {target / 'sub/c.up'}); --force overwrites it",
        "error: 1 of 3 files could not be converted",
    ]
    (target / "a.up").write_text("retouched")
    assert converted(source, target) == 1
    assert written(target) == {"a.up": "retouched", "b.up": "B", "sub/c.up": "precious"}
    with pytest.raises(FileError, match="--force overwrites it"):
        converted(source / "a.txt", target / "a.up")
    assert converted(source, target, force=True) == 0
    assert written(target) == {"a.up": "A", "b.up": "B", "sub/c.up": "SUB/C"}
    capsys.readouterr()
    assert converted(source, target) == 0
    assert capsys.readouterr().out == "3 of 3 files were done already\n"


@pytest.mark.parametrize("content", [b"", b"\x00", b"{}", b"[" * 10**5])
def test_without_a_true_ledger_nothing_is_done_and_nothing_is_lost(source, tmp_path, content):
    target = tmp_path / "out"
    converted(source, target)
    (target / NAME).write_bytes(content)
    (source / "a.txt").write_text("new")
    assert converted(source, target) == 1
    assert written(target) == {"a.up": "A", "b.up": "B", "sub/c.up": "SUB/C"}
    assert converted(source, target, force=True) == 0
    assert written(target) == {"a.up": "NEW", "b.up": "B", "sub/c.up": "SUB/C"}


def test_a_killed_call_goes_on(source, tmp_path, monkeypatch, capsys):
    """Between the ledger's line and the file, and before and after both."""
    target = tmp_path / "out"
    converted(source, target, quality=1)
    write = conversion.write_file

    def die(path, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "write_file", die)
    with pytest.raises(KeyboardInterrupt):
        converted(source, target, quality=2)
    monkeypatch.setattr(conversion, "write_file", write)
    capsys.readouterr()
    assert converted(source, target, quality=2) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert converted(source, target, quality=2) == 0


def test_input_and_output_are_not_the_same(source, tmp_path, monkeypatch):
    a = source / "a.txt"
    monkeypatch.chdir(source)
    (tmp_path / "link").symlink_to(a)
    os.link(a, tmp_path / "hard")
    (tmp_path / "folder").symlink_to(source)
    for name in (a, "./a.txt", tmp_path / "link", tmp_path / "hard", tmp_path / "folder" / "a.txt"):
        for pair in ((a, name), (name, a)):
            with pytest.raises(FileError, match=r"Expected another file for the output than .* the same"):
                converted(*pair, force=True)
    for folder in (source, ".", tmp_path / "folder"):
        with pytest.raises(FileError, match="Expected another folder for the output than"):
            converted(source, folder, force=True)
    assert a.read_text() == "a"


def test_in_a_folder_an_output_may_be_no_input_either(source, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.up").symlink_to(source / "a.txt")
    os.link(source / "b.txt", tmp_path / "out" / "b.up")
    assert converted(source, tmp_path / "out", force=True) == 1
    assert written(source) == {"a.txt": "a", "b.txt": "b", "sub/c.txt": "sub/c"}
    assert capsys.readouterr().err.count("Expected another file for the output than") == 2


def test_a_folder_in_place_of_an_output_file(source, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    for name in ("new/", "there", "there/"):
        assert converted(source / "a.txt", f"{tmp_path}/{name}") == 0
    assert (tmp_path / "new" / "a.up").read_text() == (tmp_path / "there" / "a.up").read_text() == "A"
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"Expected a folder for the output \(got .*file\)"):
        converted(source, tmp_path / "file")
    with pytest.raises(FileError, match=r"Expected a folder for the output \(got -\)"):
        converted(source, "-")


def test_folders_that_cannot_be_converted(tmp_path):
    with pytest.raises(FileError, match=r"Expected files to convert in .* \(got none\)"):
        converted(tmp_path, tmp_path / "out")


def test_links_stay(source, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.up").symlink_to(tmp_path / "far" / "real")
    for text in ("a", "x"):
        (source / "a.txt").write_text(text)
        assert converted(source, tmp_path / "out") == 0
        assert (tmp_path / "far" / "real").read_text() == text.upper()
        assert (tmp_path / "out" / "a.up").is_symlink()


def test_streams(monkeypatch, tmp_path, capfdbinary):
    """Bytes on standard output, and all else on standard error."""
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"piped")))
    assert converted("-", "-") == 0
    assert capfdbinary.readouterr() == (b"PIPED", b"-: 5 bytes\n")
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"piped")))
    assert converted("-", tmp_path / "b") == 0
    assert (tmp_path / "b").read_text() == "PIPED"
    capfdbinary.readouterr()
    for target in ("-", "/dev/stdout"):
        assert converted(tmp_path / "a.txt", target) == 0
        assert capfdbinary.readouterr() == (b"TEXT", f"{target}: 4 bytes\n".encode())
    with pytest.raises(FileError, match="Expected a file name for the output"):
        converted("-", f"{tmp_path}/new/")


def test_what_is_endless_is_refused(tmp_path, monkeypatch):
    for source in ("/dev/zero", "-"):
        with open("/dev/zero") as endless:
            monkeypatch.setattr(sys, "stdin", endless)
            with pytest.raises(FileError, match="Expected a file of at most 1000 bytes"):
                converted(source, tmp_path / "b", most=1000)
    assert not (tmp_path / "b").exists()


def test_names_that_cannot_be_are_told_and_the_others_go_on(source, tmp_path, capsys):
    (source / BAD_NAME).write_text("bad")
    (source / ("n" * 251 + ".txt")).write_text("long")

    convert = Conversion(begin, suffixes={".txt"}, new_suffix=".longer", force=False)
    assert convert(str(source), str(tmp_path / "out")) == 1
    assert set(written(tmp_path / "out")) == {"a.longer", "b.longer", "sub/c.longer"}
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    lines = err.splitlines()
    assert len(lines) == 3
    assert sum(line.startswith("error: File name too long: ") for line in lines) == 1
    assert f"error: {source}/\\xff\\x1b[31m .txt: this is bad" in lines
    assert lines[-1] == "error: 2 of 5 files could not be converted"
    # A second start knows the long name from the ledger.
    assert convert(str(source), str(tmp_path / "out")) == 1
    assert capsys.readouterr().out == "3 of 5 files were done already\n"


def test_a_strange_name_is_kept(source, tmp_path, capsys):
    (source / BAD_NAME).write_text("good")
    assert converted(source, tmp_path / "out") == 0
    assert (tmp_path / "out" / BAD_NAME).with_suffix(".up").read_text() == "GOOD"
    assert f"{tmp_path}/out/\\xff\\x1b[31m\\n.up: 4 bytes\n" in capsys.readouterr().out
    assert converted(source, tmp_path / "out") == 0
    assert capsys.readouterr().out == "4 of 4 files were done already\n"


def test_a_file_that_vanishes_or_may_not_be_read(source, tmp_path, monkeypatch, capsys):
    read = conversion.read_file

    def refuse(path, most):
        if Path(path).name == "a.txt":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        if Path(path).name == "b.txt":
            Path(path).unlink()
        return read(path, most)

    monkeypatch.setattr(conversion, "read_file", refuse)
    assert converted(source, tmp_path / "out") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"error: Permission denied: {source / 'a.txt'}",
        f"error: No such file or directory: {source / 'b.txt'}",
        "error: 2 of 3 files could not be converted",
    ]
    assert written(tmp_path / "out") == {"sub/c.up": "SUB/C"}


def test_names_of_an_earlier_start_stay(tmp_path, capsys):
    """A file that comes later, and would have taken a name, takes another; so does one in place of a file."""
    source, target = tmp_path / "in", tmp_path / "out"
    convert = Conversion(begin, suffixes={".txt", ".text"}, new_suffix=".up", force=False)
    source.mkdir()
    (source / "a.txt").write_text("first")
    assert convert(str(source), str(target)) == 0
    (source / "a.text").write_text("second")
    for _ in range(2):
        assert convert(str(source), str(target)) == 0
        assert written(target) == {"a.up": "FIRST", "a.text.up": "SECOND"}
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 files were done already"
    (source / "a.txt").unlink()
    (source / "a.text").write_text("third")
    assert convert(str(source), str(target)) == 0
    assert written(target) == {"a.up": "FIRST", "a.text.up": "THIRD"}
    (target / "a.up").unlink()
    (target / "a.text.up").unlink()
    assert convert(str(source), str(target)) == 0
    assert written(target) == {"a.up": "THIRD"}


def test_what_was_made_of_another_file_is_not_overwritten(tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    convert = Conversion(begin, suffixes={".txt", ".png", ".bmp"}, new_suffix=".up", force=False)
    source.mkdir()
    (source / "a.png.bmp").write_text("only")
    assert convert(str(source), str(target)) == 0
    (source / "a.png.bmp").unlink()
    for name in ("a.png", "a.txt"):
        (source / name).write_text(name)
    assert convert(str(source), str(target)) == 1
    assert written(target) == {"a.png.up": "ONLY", "a.txt.up": "A.TXT"}
    assert f"got {target / 'a.png.up'}, of another file)" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["symlink_to", "hardlink_to"])
def test_no_output_overwrites_an_input_of_the_same_call(source, tmp_path, capsys, how):
    """Not its own source alone: a link in the folder of outputs may lead to any."""
    target = tmp_path / "out"
    target.mkdir()
    getattr(target / "a.up", how)(source / "b.txt")
    assert converted(source, target, force=True) == 1
    assert written(source) == {"a.txt": "a", "b.txt": "b", "sub/c.txt": "sub/c"}
    assert (target / "b.up").read_text() == "B"
    _, err = capsys.readouterr()
    assert err.splitlines()[0] == (
        f"error: {source / 'a.txt'}: Expected another file for the output than {source / 'b.txt'} "
        "(got the same)"
    )


def warn_and_upper(source):
    warnings.warn(f"{source}: loud", stacklevel=1)
    time.sleep(0.2 * (source.name[-5] == "a"))  # the first is not the first that is done
    return upper(source)


def begin_loud():
    return Converter(warn_and_upper, {}, 100)


def begin_nothing():
    raise FileError("Expected a model")


@pytest.mark.filterwarnings("default")
def test_several_processes_tell_and_write_what_one_does(source, tmp_path, capsys):
    (source / "b.TXT").write_text("bad")
    told = []
    for jobs in (1, 2):
        target = tmp_path / str(jobs)
        convert = Conversion(begin_loud, suffixes={".txt"}, new_suffix=".up", force=False, jobs=jobs)
        with pytest.warns(UserWarning) as loud:
            assert convert(str(source), str(target)) == 1
        told.append([*capsys.readouterr(), [str(warning.message) for warning in loud]])
        told[-1][0] = told[-1][0].replace(str(target), "")
        assert written(target) == {"a.up": "A", "b.txt.up": "B", "sub/c.up": "SUB/C"}
        assert convert(str(source), str(target)) == 1
        assert capsys.readouterr().out == "3 of 4 files were done already\n"
    assert told[0] == told[1]
    assert len(told[1][2]) == 4


def test_what_cannot_begin_is_told_as_by_one_process(source, tmp_path):
    for jobs in (1, 2):
        convert = Conversion(begin_nothing, suffixes={".txt"}, new_suffix=".up", force=False, jobs=jobs)
        with pytest.raises(FileError, match=r"^Expected a model$"):
            convert(str(source), str(tmp_path / "out"))
