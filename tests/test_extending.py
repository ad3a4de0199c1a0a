"""docs/extending.md, word by word: its files written, its code run, its command with fewer steps."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
FENCE = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<file>\S+)")?\n(?P<text>.*?)^```$', re.DOTALL | re.MULTILINE
)
BLOCKS = [match.groupdict() for match in FENCE.finditer((ROOT / "docs" / "extending.md").read_text())]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the document's files, and on Python's path until the test is over."""
    for block in BLOCKS:
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["text"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("my_"):
            del sys.modules[name]


def test_the_document_has_three_extensions():
    files = {block["file"] for block in BLOCKS if block["file"]}
    assert files == {
        f"my_{part}.{kind}" for part in ("layer", "score", "candidates") for kind in ("py", "yaml")
    }
    assert [block["language"] for block in BLOCKS if not block["file"]] == ["python"] * 3 + ["sh"]


def test_its_code_runs(folder):
    namespace = {}
    for block in BLOCKS:
        if block["language"] == "python" and not block["file"]:
            exec(block["text"], namespace)


def test_its_command_trains_all_three(folder):
    shutil.copytree(ROOT / "configs", folder / "configs")
    base = folder / "configs" / "ablation" / "full.yaml"
    text = base.read_text()
    for setting in (
        "steps: 10000",
        "warmup_steps: 200",
        "patch_size: 128",
        "eval_size: 256",
        "num_workers: 1",
    ):
        assert f"\n{setting}\n" in text
        small = {"steps": 2, "warmup_steps": 1, "num_workers": 0}.get(setting.split(":")[0], 64)
        text = text.replace(f"\n{setting}\n", f"\n{setting.split(':')[0]}: {small}\n")
    base.write_text(text)
    (folder / "PHOTOS").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 70)).save(folder / "PHOTOS" / f"{i}.png")

    (command,) = (block["text"] for block in BLOCKS if block["language"] == "sh")
    variable, glic, *arguments = shlex.split(command)
    assert (variable, glic) == ("PYTHONPATH=.", "glic")
    environment = os.environ | {"PYTHONPATH": f".{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "glic_pyg", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    lines = [line.split()[:2] for line in result.stdout.splitlines()[1:]]
    assert lines == [["full", "1"], ["my_candidates", "1"], ["my_layer", "1"], ["my_score", "1"]]


def test_every_name_of_the_package_is_in_its_table():
    from glic_pyg.build import NAMES

    table = (ROOT / "docs" / "extending.md").read_text()
    for kind, names in NAMES.items():
        (line,) = (line for line in table.splitlines() if re.match(rf"\| `(graph\.)?{kind}`", line))
        assert re.findall(r"`(\w+)`", line.split("|")[2]) == list(names)
