"""`glic bulk`: its arguments, and a start on Ray where that is installed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from glic_pyg import errors


@pytest.fixture
def photos(tmp_path):
    for i in range(3):
        Image.effect_noise((40, 48), 30 + i).convert("RGB").save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    return tmp_path


def test_what_is_missing_is_told_in_a_line(glic, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    status, out, err = glic("bulk", "compress", photos, "-o", tmp_path / "out")
    assert (status, out) == (2, "")
    assert err == "error: Expected package ray, for glic bulk: pip install 'glic_pyg[ray]'\n"


def test_arguments_are_read_first(glic):
    for words in (["pack"], ["compress", "a"], ["compress", "a", "-o", "b", "--actors", "0"]):
        status, _, err = glic("bulk", *words)
        assert (status, err.count("\n")) == (2, 1)
    status, _, err = glic("bulk", "compress", "a", "-o", "b", "--gpus", "1.5")
    assert (status, err) == (2, "error: Expected --gpus of at most 1, or a whole number (got 1.5)\n")


def test_there_and_back_on_ray(model_file, photos, tmp_path):
    pytest.importorskip("ray")

    def glic(*words):
        command = [sys.executable, "-m", "glic_pyg", "bulk", *map(str, words), "--model", str(model_file)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
        return result.returncode, result.stdout, result.stderr

    coded = f"{tmp_path}-coded"
    status, out, err = glic("compress", photos, "-o", coded, "--actors", 1, "--batch", 2, "--json")
    assert status == 1, err
    assert json.loads(out).items() >= {"pictures": 4, "new": 4, "failed": 1}.items()
    assert "error: 1 of 4 pictures could not be coded" in err
    status, out, err = glic("decompress", coded, "-o", f"{tmp_path}-restored", "--actors", 1)
    assert status == 0, err
    assert out.startswith(f"{tmp_path}-restored: 3 pictures, 3 of them now, in ")


def test_what_cannot_be_is_refused_before_ray_begins(glic, photos, tmp_path, monkeypatch):
    """With the lines of `glic compress`."""
    monkeypatch.setattr(errors, "find_spec", lambda name: True)  # whether Ray is there or not
    for flags in (("--model", "nothing.safetensors"), ("--quality", 99)):
        expected = glic("compress", photos, "-o", tmp_path / "out", *flags)
        assert expected[0] == 2
        assert glic("bulk", "compress", photos, "-o", tmp_path / "out", *flags) == expected
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_it(model_file, photos, tmp_path):
    pytest.importorskip("ray")
    for i in range(4, 200):
        (photos / f"{i}.png").write_bytes((photos / "0.png").read_bytes())
    coded = Path(f"{tmp_path}-coded")
    words = ("compress", str(photos), "-o", str(coded), "--actors", "1", "--batch", "1")
    command = [sys.executable, "-m", "glic_pyg", "bulk", *words, "--model", str(model_file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while process.poll() is None and not list(coded.glob(".glic_parts/*.parquet")):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.stderr.read().splitlines()[-1] == "error: interrupted"
    assert process.returncode == 130
    assert list(coded.glob(".glic_parts/*.parquet"))  # for the next start


def test_no_cluster_is_told_in_a_line(glic, photos, tmp_path):
    pytest.importorskip("ray")
    status, _, err = glic("bulk", "compress", photos, "-o", f"{tmp_path}-out", "--ray", "127.0.0.1:9")
    assert status == 2
    assert err == "error: Expected a Ray cluster at 127.0.0.1:9 (got [Errno 111] Connection refused)\n"
