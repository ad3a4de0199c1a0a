"""Several processes do what one does: the same files, lines in the same order, the same end."""

import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace

import pytest

from glic_pyg.cli.sharing import STARTER, share, telling_of_jobs
from glic_pyg.image import write_png
from glic_pyg.ledger import NAME
from glic_pyg.tiles import MemoryBoundError

COMMAND = [sys.executable, "-m", "glic_pyg"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != NAME}


def lines(text, folder):
    """What is said, without seconds and without where it is."""
    return re.sub(r"[0-9.]+ s\b", "s", text).replace(str(folder), "FOLDER").splitlines()


def test_two_processes_are_as_one(glic, photo, model_file, tmp_path):
    photos, said = tmp_path / "photos", {}
    photos.mkdir()
    for name, width in (("a.png", 320), ("b.png", 64), ("c.jpg", 64)):
        write_png(photo(64, width), photos / name)
    (photos / "c.jpg").write_bytes(b"no picture")
    for jobs in ("1", "2"):
        coded = tmp_path / jobs
        status, *texts = glic("compress", photos, "-o", coded, "--model", model_file, "--jobs", jobs)
        said[jobs] = [status, *(lines(text, coded) for text in texts)]
    assert said["1"] == said["2"]
    assert said["2"][0] == 1
    assert [line.split(":")[0] for line in said["2"][1]] == ["FOLDER/a.glic", "FOLDER/b.glic"]
    assert contents(tmp_path / "1") == contents(tmp_path / "2")

    (tmp_path / "2" / "a.glic").unlink()
    arguments = ["decompress", tmp_path / "2", "--model", model_file]
    assert glic(*arguments, "-o", tmp_path / "alone")[0] == 0
    assert glic(*arguments, "-o", tmp_path / "beside", "--jobs", "2")[0] == 0
    assert contents(tmp_path / "beside") == contents(tmp_path / "alone")


def test_cores_and_memory_are_shared(tmp_path):
    asked = {"input": str(tmp_path), "threads": 5, "max_memory": (4 << 30) + STARTER}
    assert share(Namespace(**asked, jobs=1)) == Namespace(**asked, jobs=1)
    one = share(Namespace(**asked, jobs=4))
    assert (one.threads, one.max_memory) == (1, 1 << 30)
    asked["input"] = "a file"
    assert share(Namespace(**asked, jobs=4)) == Namespace(**asked, jobs=1)
    assert share(Namespace(input=".", threads=None, max_memory=None, jobs=256)).threads == 1


def test_a_share_that_is_too_small_is_called_one():
    for jobs, text in ((1, "Expected 2G"), (3, "Expected 2G in each of 3 processes")):
        with pytest.raises(MemoryBoundError, match=f"^{text}$"), telling_of_jobs(jobs):
            raise MemoryBoundError("Expected 2G")


@pytest.mark.parametrize("jobs", ["0", "-1", "many", "1000"])
def test_jobs_are_a_number(glic, jobs):
    status, _, err = glic("compress", "a", "-o", "b", f"--jobs={jobs}")
    assert status == 2
    assert err == f"error: argument --jobs: Expected auto or a number of processes in 1..256 (got {jobs})\n"


def test_ctrl_c_of_a_terminal(photo, model_file, tmp_path):
    """It comes to every process: one line, nothing left running, and no half file."""
    photos, coded = tmp_path / "photos", tmp_path / "coded"
    photos.mkdir()
    many = 300  # a busy machine looks seldom: not all may be done by then
    for i in range(many):
        write_png(photo(64, 64), photos / f"{i:03}.png")
    command = [*COMMAND, "compress", photos, "-o", coded, "--model", model_file, "--jobs", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, text=True
    )
    while process.poll() is None and len(list(coded.glob("*.glic"))) < 2:
        time.sleep(0.001)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    said = [line for line in err.splitlines() if not line.startswith("files, ")]
    assert (process.returncode, said) == (130, ["error: interrupted"])
    with pytest.raises(ProcessLookupError):
        for _ in range(3000):  # the last to go is multiprocessing's own, which sees the end of a pipe
            os.killpg(process.pid, 0)
            time.sleep(0.01)
    names = {path.name for path in coded.iterdir()} - {NAME}
    assert 2 <= len(names) < many
    assert {name.rpartition(".")[2] for name in names} == {"glic"}
