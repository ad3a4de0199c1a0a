import errno
import signal
import subprocess
import sys

import pytest

from glic_pyg.files import files_below, naming, replacing


def test_file_appears_when_complete(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with replacing(path) as aside:
        aside.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_is_refused(tmp_path):
    message = r"Expected a file name for the output \(got the folder"
    with pytest.raises(IsADirectoryError, match=message), replacing(tmp_path):
        pass


def test_files_below_are_those_with_a_suffix_in_order(tmp_path):
    for name in ("b.PNG", "a/c.jpg", "a/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert files_below(tmp_path, {".png", ".jpg"}) == [tmp_path / "a/c.jpg", tmp_path / "b.PNG"]


def test_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import os, signal, sys; from glic_pyg.files import replacing\n"
        "with replacing(sys.argv[1]) as aside:\n"
        "    aside.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, path])
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_errors_name_the_file_that_was_to_be_written(tmp_path):
    full, refused = OSError(errno.ENOSPC, "full"), PermissionError(errno.EACCES, "refused", "/tmp/elsewhere")
    for error in (full, refused):
        with pytest.raises(type(error)) as caught, naming(tmp_path / "a.txt"):
            raise error
        assert caught.value.filename == str(tmp_path / "a.txt")
    with pytest.raises(OSError, match="of no number"), naming(tmp_path / "a.txt"):
        raise OSError("of no number")
