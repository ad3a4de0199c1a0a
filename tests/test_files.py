import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from glic_pyg import files
from glic_pyg.errors import FileError
from glic_pyg.files import (
    FileBytes,
    files_below,
    follow_links,
    is_stream,
    naming,
    printable,
    read_file,
    remove_leftovers,
    write_file,
)

FULL = Path("/dev/full")
LEFTOVER = ".glic_pyg-0123456789abcdef.partial"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_whole_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    write_file(path, "whole\u20ac\n")
    assert path.read_bytes() == "whole\u20ac\n".encode()
    assert names(path.parent) == ["a.txt"]


def test_nothing_is_seen_before_it_is_complete(tmp_path):
    path = tmp_path / "a.txt"

    def write(file):
        file.write(b"whole")
        file.flush()
        assert not path.exists()
        (aside,) = names(tmp_path)
        assert files.LEFTOVER.fullmatch(aside)

    write_file(path, write)
    assert path.read_bytes() == b"whole"


def test_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(file):
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_file(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_while_writing_leaves_the_old_file(tmp_path, number):
    """SIGTERM also removes what was begun; a later start does so after SIGKILL."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import os, sys; from glic_pyg.cli.main import run; from glic_pyg.files import write_file\n"
        "def write(file):\n"
        "    file.write(b'half')\n"
        "    file.flush()\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    import time; time.sleep(60)\n"
        "run(lambda: write_file(sys.argv[1], write))"
    )
    done = subprocess.run([sys.executable, "-c", code, path])
    assert path.read_text() == "old"
    if number == signal.SIGTERM:
        assert done.returncode == 143
        assert names(tmp_path) == ["a.txt"]
        return
    assert done.returncode == -number
    (leftover,) = set(names(tmp_path)) - {"a.txt"}
    remove_leftovers.cache_clear()
    write_file(path, "new")
    assert names(tmp_path) == [leftover, "a.txt"]  # may be another process's, which has not locked it yet
    os.utime(tmp_path / leftover, (time.time() - 3600,) * 2)
    remove_leftovers.cache_clear()
    write_file(path, "new")
    assert names(tmp_path) == ["a.txt"]


def test_only_what_is_surely_left_over_is_removed(tmp_path):
    old = (time.time() - 3600,) * 2
    kept = [
        ".a.txt.123.partial",
        ".glic_pyg-0123.partial",
        "glic_pyg-0123456789abcdef.partial",
        ".glic_pyg-0123456789abcdef.partial.png",
    ]
    for name in [*kept, LEFTOVER]:
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, old)
    os.mkfifo(tmp_path / LEFTOVER.replace("0", "1"))
    (tmp_path / LEFTOVER.replace("0", "2")).symlink_to(tmp_path / kept[0])
    (tmp_path / LEFTOVER.replace("0", "3")).mkdir()
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'wb'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print(flush=True); sys.stdin.read()"
    )
    locked = tmp_path / LEFTOVER.replace("0", "4")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, locked], stdin=pipe, stdout=pipe) as process:
        process.stdout.readline()
        os.utime(locked, old)
        remove_leftovers.cache_clear()
        remove_leftovers(tmp_path)
        process.communicate()
    assert set(names(tmp_path)) == {*kept, *(LEFTOVER.replace("0", digit) for digit in "1234")}


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"Expected a file name for the output \(got the folder"):
        write_file(tmp_path, "x")


def test_a_file_in_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a", tmp_path / "file" / "b" / "a"):
        with pytest.raises(NotADirectoryError, match=rf"Not a directory: '{path}'"):
            write_file(path, b"data")


@pytest.mark.parametrize("length", [237, 250, 255])
def test_every_legal_name(tmp_path, length):
    path = tmp_path / ("n" * (length - 4) + ".txt")
    write_file(path, "x")
    assert path.read_text() == "x"


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    """Whoever guessed the temporary name cannot have another file overwritten."""
    folder, victim = tmp_path / "out", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0" * (2 * count))
    (folder / f".glic_pyg-{'0' * 16}.partial").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_file(folder / "a.txt", "x")
    assert victim.read_text() == "precious"
    assert not (folder / "a.txt").exists()


def test_temporary_names_are_random(tmp_path):
    seen = set()

    def write(file):
        seen.add(Path(file.name).name)

    for _ in range(100):
        write_file(tmp_path / "a", write)
    assert len(seen) == 100
    assert max(map(len, seen)) < 40


def test_threads_with_one_output_never_mix(tmp_path):
    path, errors = tmp_path / "a", []
    contents = [bytes([letter]) * 300_000 for letter in b"abcdefgh"]

    def write(data):
        try:
            for _ in range(20):
                write_file(path, data)
                seen = Counter(path.read_bytes())
                assert len(seen) == 1
                assert seen.total() == 300_000
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert names(tmp_path) == ["a"]


def test_file_and_folder_are_synced_around_the_renaming(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace

    def fsync(number):
        calls.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
        sync(number)

    def rename(*arguments):
        calls.append("rename")
        replace(*arguments)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    write_file(tmp_path / "a", "x")
    assert calls == ["file", "rename", "folder"]


def test_permissions(tmp_path):
    path, before = tmp_path / "a", os.umask(0o027)
    try:
        write_file(path, "x")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        write_file(path, "y")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
        write_file(path, "z")
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda target, mode: False)  # as root, it may
    with pytest.raises(PermissionError) as caught:
        write_file(path, "x")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"


def test_links_stay_and_their_target_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "target"
    target.write_text("old")
    (tmp_path / "near").symlink_to("far/target")
    (tmp_path / "link").symlink_to("near")
    write_file(tmp_path / "link", "new")
    assert target.read_text() == "new"
    assert os.readlink(tmp_path / "link") == "near"
    assert names(tmp_path / "far") == ["target"]
    (tmp_path / "dangling").symlink_to("far/made")
    write_file(tmp_path / "dangling", "new")
    assert (tmp_path / "far" / "made").read_text() == "new"
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links") as caught:
        write_file(tmp_path / "round", "x")
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, str(tmp_path / "round"))


def test_devices_are_written_into(tmp_path):
    write_file("/dev/null", "x")
    assert Path("/dev/null").is_char_device()
    if FULL.exists():
        with pytest.raises(OSError, match="No space left") as caught:
            write_file(FULL, "x")
        assert caught.value.filename == str(FULL)
        assert FULL.is_char_device()
        (tmp_path / "link").symlink_to(FULL)
        with pytest.raises(OSError, match="No space left"):
            write_file(tmp_path / "link", "x")


def test_a_device_made_here_is_written_into(tmp_path):
    path = tmp_path / "null"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path.write_text("x")
    except PermissionError:
        pytest.skip("needs the right to make and use devices")
    write_file(path, "x")
    assert path.is_char_device()
    assert names(tmp_path) == ["null"]


def test_pipes_are_written_into(tmp_path):
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    write_file(path, lambda file: file.write(b"x" * 200_000))
    reader.join(10)
    assert got == [b"x" * 200_000]
    assert path.is_fifo()


def test_sockets_are_written_into(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    got = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        server.listen()

        def serve():
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as file:
                got.append(file.read())

        reader = threading.Thread(target=serve)
        reader.start()
        write_file("s", "text")
        reader.join(10)
    assert got == [b"text"]
    assert Path("s").is_socket()


@pytest.mark.parametrize("to_file", [False, True])
def test_open_files_are_written_into_where_they_are(tmp_path, to_file):
    (tmp_path / "link").symlink_to("/dev/stdout")
    names = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"]
    code = (
        "import sys; from glic_pyg.files import write_file\n"
        "for name in sys.argv[1:]:\n"
        "    print('before', end=' '); write_file(name, name); print(' after')"
    )
    expected = "".join(f"before {name} after\n" for name in names)
    with open(tmp_path / "out", "wb") as file:
        file.write(b"first\n")
        file.flush()
        target = file if to_file else subprocess.PIPE
        done = subprocess.run([sys.executable, "-c", code, *names], stdout=target, check=True, cwd=tmp_path)
    if to_file:
        assert (tmp_path / "out").read_text() == "first\n" + expected
    else:
        assert done.stdout.decode() == expected


def test_what_a_stream_is(tmp_path):
    (tmp_path / "a").touch()
    assert not any(map(is_stream, (tmp_path, tmp_path / "a", tmp_path / "none")))
    assert all(map(is_stream, (Path("/dev/null"), Path("/dev/fd/1"))))
    assert is_stream(follow_links(Path("/dev/stdout")))


def test_files_below_are_those_with_a_suffix_in_order(tmp_path):
    for name in ("b.PNG", "a/c.jpg", "a/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("b.PNG")
    (tmp_path / "dangling.png").symlink_to("none")
    os.mkfifo(tmp_path / "pipe.png")
    found = files_below(tmp_path, {".png", ".jpg"})
    assert found == [tmp_path / "a/c.jpg", tmp_path / "b.PNG", tmp_path / "link.png"]


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(UserWarning, match="Permission denied: .*closed: left out"):
        assert files_below(tmp_path, {".png"}) == [tmp_path / "a.png"]


def test_errors_name_the_file_that_was_to_be_written(tmp_path):
    full, refused = OSError(errno.ENOSPC, "full"), PermissionError(errno.EACCES, "refused", "/tmp/elsewhere")
    for error in (full, refused):
        with pytest.raises(type(error)) as caught, naming(tmp_path / "a.txt"):
            raise error
        assert caught.value.filename == str(tmp_path / "a.txt")
    with pytest.raises(OSError, match="of no number"), naming(tmp_path / "a.txt"):
        raise OSError("of no number")


def test_reading_is_bounded(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    data = read_file(path, 5)
    assert (data.read(), str(data)) == (b"12345", str(path))
    with pytest.raises(FileError, match=r"Expected a file of at most 4 bytes \(got .*a with more\)"):
        read_file(path, 4)
    with open(path, "wb") as file:
        file.truncate(20 << 30)  # takes no room on the disk
    for source in (path, "/dev/zero"):
        with pytest.raises(FileError, match=r"at most 1000000 bytes"):
            read_file(source, 1_000_000)
    assert read_file("/dev/null", 0).getvalue() == b""
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none", 5)
    assert read_file(FileBytes(b"123", "-"), 3).getvalue() == b"123"


def test_the_bound_may_follow_from_the_first_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\x05" + bytes(4))
    assert read_file(path, lambda head: head[0]).getvalue() == b"\x05" + bytes(4)
    path.write_bytes(b"\x04" + bytes(4))
    with pytest.raises(FileError):
        read_file(path, lambda head: head[0])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name \u00e9\u6f22.png", "plain name \u00e9\u6f22.png"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\tand\r", "two\\nlines\\tand\\r"),
        (os.fsdecode(b"\xff\xfe.png"), "\\xff\\xfe.png"),
        ("\u202egnp.exe\u2028", "\\u202egnp.exe\\u2028"),  # turns what follows; ends a line
        ("\x9b2J", "\\x9b2J"),
    ],
)
def test_texts_cannot_steer_a_terminal(text, shown):
    assert printable(text) == shown
