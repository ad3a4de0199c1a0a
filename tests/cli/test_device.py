"""Commands on a GPU."""

import numpy as np
import pytest
import torch
from PIL import Image

from glic_pyg import GLIC
from glic_pyg.evaluation.demo import node_graph
from glic_pyg.image import read_image

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def small_photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_files_are_coded_and_decoded_on_cuda_and_the_cpu(glic, small_photo, tmp_path):
    for source in ("cpu", "cuda"):
        restored = {there: tmp_path / f"{source}_{there}.png" for there in ("cpu", "cuda")}
        coded = tmp_path / f"{source}.glic"
        assert glic("compress", small_photo, "-o", coded, "--device", source)[0] == 0
        for there, path in restored.items():
            assert glic("decompress", coded, "-o", path, "--device", there)[0] == 0
        here, there = map(pixels, restored.values())
        assert np.abs(here - there).max() <= 5
        assert np.abs(here - pixels(small_photo)).mean() < 12


def test_a_dataset_is_evaluated_on_cuda(glic, small_photo, tmp_path):
    pytest.importorskip("bjontegaard")
    results = tmp_path / "results"
    status, _, err = glic("evaluate", "-d", tmp_path, "-o", results, "--quality", "4", "--device", "cuda")
    assert status == 0, err


def test_graphs_are_shown_on_cuda(glic, small_photo, tmp_path):
    pytest.importorskip("matplotlib")
    files = [tmp_path / name for name in ("graph.png", "graph.html", "erf.png")]
    flags = ["-o", files[0], "--html", files[1], "--erf", files[2], "--by", "attention"]
    status, out, err = glic("graph", small_photo, "--summary", *flags, "--device", "cuda")
    assert status == 0, err
    assert "g_s.2" in out
    assert all(file.stat().st_size for file in files)


def test_a_node_is_chosen_for_the_demonstration_on_cuda(small_photo):
    model = GLIC.from_pretrained("glic_nano").to("cuda")
    assert node_graph(model, read_image(small_photo))["places"]["local"]
