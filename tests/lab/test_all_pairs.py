import json

import portability
import pytest

from glic_pyg.image import write_png

TWO = ("2 threads", "1 thread")


@pytest.fixture
def in_this_process(monkeypatch):
    """Two settings, whose steps need no process of their own."""
    monkeypatch.setattr(portability, "SETTINGS", {name: portability.SETTINGS[name] for name in TWO})

    def start(step, folder, name):
        portability.work(step, json.loads((folder / "job.json").read_text()), name, folder)

    monkeypatch.setattr(portability, "start", start)
    threads = portability.torch.get_num_threads()
    yield
    portability.torch.set_num_threads(threads)


def test_pairs_and_bytes(rig, in_this_process, model_file, photo, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        write_png(photo(64, 96), tmp_path / "photos" / name)
    work = ["--work", tmp_path / "work"]
    arguments = ["-d", tmp_path / "photos", "--model", model_file, *work, "--save-json", tmp_path / "t.json"]
    status, out, err = rig("all_pairs", *arguments)
    assert status == 0, err
    table = json.loads((tmp_path / "t.json").read_text())
    assert table["decoded"]["exact"] == {name: dict.fromkeys(TWO, 2) for name in TWO}
    assert out.splitlines()[0] == "exact: of 2 pictures, those with the encoder's latents; a row per encoder"
    assert [line.split()[-2:] for line in out.splitlines()[1:3]] == [["2", "2"]] * 2
    assert f"bytes: {table['bytes']['exact']} exact, " in out

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*.pt")}
    assert rig("all_pairs", *arguments)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    status, _, err = rig("all_pairs", "-d", tmp_path / "photos", *work)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: Expected a --work folder of the same job (got ")
