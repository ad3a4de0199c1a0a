import json
import os
import threading
from pathlib import Path

import pytest

from glic_pyg.errors import FileError
from glic_pyg.files import write_file
from glic_pyg.ledger import NAME, Ledger, check_output, hash_bytes, hash_file, note_output, writing


def test_what_is_noted_is_known_to_others(tmp_path):
    """By its name, content, source and settings."""
    path = tmp_path / "new" / "a.glic"
    mine, other = Ledger(path.parent), Ledger(path.parent)
    mine.note(path.name, hash_bytes(b"content"), source="a.png", made="settings")
    path.write_bytes(b"content")
    other.read()
    for ledger in (mine, other, Ledger(path.parent)):
        assert ledger.has(path)
        assert ledger.made(path) == "settings"
        assert ledger.source(path) == "a.png"
    (path.parent / "b.glic").write_bytes(b"content")
    path.write_bytes(b"changed")
    for name in ("a.glic", "b.glic"):
        assert not mine.has(path.with_name(name))
        assert mine.made(path.with_name(name)) is None
    path.unlink()
    assert mine.source(path) is mine.made(path) is None


def test_files_keep_being_ours_when_they_were_written_several_times(tmp_path):
    """A killed call has noted what it did not write."""
    path, ledger = tmp_path / "a", Ledger(tmp_path)
    path.write_bytes(b"first")
    for data in (b"first", b"second"):
        ledger.note("a", hash_bytes(data), source="s", made=data.decode())
    assert ledger.made(path) == "first"


def test_a_line_is_written_once(tmp_path):
    for _ in range(3):
        Ledger(tmp_path).note("a", hash_bytes(b"x"), source="s", made="m")
    assert (tmp_path / NAME).read_bytes().count(b"\n") == 1


TRUE = json.dumps({"name": "a", "sha256": hash_bytes(b"x"), "source": "s", "made": "m"}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff" * 1000,
        b"[]\n1\nnull\n{}",
        TRUE[:-5],
        TRUE.replace(b"sha256", b"sha"),
        b"[" * 100_000,
        b'{"name": ' + b"9" * 5000 + b"}",
        TRUE.replace(hash_bytes(b"x").encode(), b"0" * 64),
    ],
)
def test_a_broken_or_foreign_ledger_tells_nothing(tmp_path, content):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / NAME).write_bytes(content)
    ledger = Ledger(tmp_path)
    assert not ledger.has(tmp_path / "a")
    assert ledger.made(tmp_path / "a") is None
    ledger.note("a", hash_bytes(b"x"), source="s", made="m")
    assert Ledger(tmp_path).made(tmp_path / "a") == "m"  # and a true line behind it counts


def test_a_ledger_that_is_no_file_tells_nothing(tmp_path):
    other = tmp_path / "elsewhere"
    other.write_bytes(TRUE)
    makers = (os.mkfifo, os.mkdir, lambda path: os.symlink(other, path))
    for i, make in enumerate(makers):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "a").write_bytes(b"x")
        make(folder / NAME)
        ledger = Ledger(folder)
        assert not ledger.has(folder / "a")
        with pytest.raises(OSError):
            ledger.note("a", hash_bytes(b"x"))
    assert other.read_bytes() == TRUE


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"\xff\n.png")
    (tmp_path / name).write_bytes(b"x")
    Ledger(tmp_path).note(name, hash_bytes(b"x"), made="m")
    assert Ledger(tmp_path).made(tmp_path / name) == "m"


def test_several_write_at_once(tmp_path):
    def write(part):
        ledger = Ledger(tmp_path)
        for i in range(20):
            ledger.note(f"{part}-{i}", hash_bytes(b"x"), made="m" * 300)

    threads = [threading.Thread(target=write, args=(part,)) for part in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = Ledger(tmp_path)
    for part in range(5):
        for i in range(20):
            (tmp_path / f"{part}-{i}").write_bytes(b"x")
            assert ledger.has(tmp_path / f"{part}-{i}")


def test_outputs_through_links_are_known_where_they_lie(tmp_path):
    far = tmp_path / "far"
    far.mkdir()
    (tmp_path / "link").symlink_to("far/a")
    (far / "a").write_bytes(b"x")
    with pytest.raises(FileError, match=r"\(got .*link\); --force overwrites it"):
        check_output(tmp_path / "link")
    check_output(tmp_path / "link", force=True)
    note_output(tmp_path / "link")
    check_output(tmp_path / "link")
    assert not (tmp_path / NAME).exists()
    assert Ledger(far).has(far / "a")
    with pytest.raises(FileError, match="got the folder"):
        check_output(far, force=True)


def test_hashes_are_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert hash_file(tmp_path / "a") == hash_bytes(b"abc") == expected


def write_all(*paths: Path) -> None:
    for path in paths:
        write_file(path, path.name)


def test_outputs_that_are_new_or_ours(tmp_path):
    a, b, users = tmp_path / "a", tmp_path / "sub" / "b", tmp_path / "users"
    for _ in range(2):
        with writing(a, None, b, inputs=[users], force=False):
            write_all(a, b)
    users.write_text("precious")
    message = r"Expected an output that is new .*users\); --force"
    with pytest.raises(FileError, match=message), writing(a, users, force=False):
        raise AssertionError("work has begun")
    a.write_text("changed by hand")
    message = r"or that an earlier call wrote \(got .*a\)"
    with pytest.raises(FileError, match=message), writing(a, force=False):
        raise AssertionError("work has begun")
    with writing(a, users, force=True):
        write_all(a, users)
    with writing(a, users, force=False):
        pass


def test_what_was_written_before_an_error_is_ours(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    with pytest.raises(FileError, match="too bad"), writing(a, b, force=False):
        write_all(a)
        raise FileError("too bad")
    with writing(a, b, force=False):
        write_all(a, b)


def test_an_output_is_no_input(tmp_path, monkeypatch):
    """By none of its names, and not even if it is ours."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "s.png"
    with writing(source, force=False):
        write_all(source)
    (tmp_path / "link").symlink_to("s.png")
    os.link(source, tmp_path / "hard")
    (tmp_path / "here").symlink_to(tmp_path)
    for name in ("s.png", "./s.png", "link", "hard", "here/s.png"):
        for first, second in ((Path("s.png"), Path(name)), (Path(name), source)):
            message = r"Expected another file for the output than .* the same"
            with pytest.raises(FileError, match=message), writing(second, inputs=[first], force=True):
                raise AssertionError("work has begun")


def test_two_outputs_are_two_files(tmp_path):
    (tmp_path / "link").symlink_to("a")
    outputs = writing(tmp_path / "a", tmp_path / "link", force=True)
    with pytest.raises(FileError, match="Expected outputs of different names"), outputs:
        raise AssertionError("work has begun")


def test_devices_are_nobodys(tmp_path):
    for _ in range(2):
        with writing(Path("/dev/null"), force=False):
            write_all(Path("/dev/null"))
    assert not Path("/dev/.glic_pyg.jsonl").exists()
