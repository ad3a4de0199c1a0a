import pytest

from glic_pyg.files import replacing


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
