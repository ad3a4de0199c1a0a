"""Shared by all tests: golden data, seeded weights, a tiny model."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Threads that wait for each other on busy cores must not spin: that takes four times as long as the tests
# themselves. Read when torch is imported, here and in all processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
import torch
from jaxtyping import config as shapes
from jaxtyping import install_import_hook
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).parents[1]

# A shell lets what it runs in the background ignore Ctrl-C, and so would all processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# In all tests, what graph/ and nn/ take and return has the shapes that their annotations say. Numba compiles
# the functions in kernels/, which cannot be watched. An int will do for a float.
install_import_hook(
    [
        f"glic_pyg.{room}.{path.stem}"
        for room in ("graph", "nn")
        for path in (ROOT / "glic_pyg" / room).glob("*.py")
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

from glic_pyg import GLIC, ModelConfig  # noqa: E402 - after the hook
from glic_pyg.config import GraphConfig  # noqa: E402
from glic_pyg.training.config import TrainConfig  # noqa: E402

# On busy cores, threads that wait for each other cost far more than they bring for tensors this small.
torch.set_num_threads(1)

GOLDEN = ROOT / "tests" / "golden"

# Left at the module's own initial values in the golden data.
NOT_SEEDED = (
    ".dwt.",
    ".idwt.",
    "relative_coords_table",
    "relative_position_index",
    "gaussian_conditional",
    "entropy_bottleneck",
    "context_prediction.mask",
)


def draw(name: str, shape: list[int], seed: int) -> np.ndarray:
    """Draw one tensor of the golden data's weights from a generator that depends on its name only."""
    noise = np.random.default_rng([zlib.crc32(name.encode()), seed]).standard_normal(shape)
    if name.endswith("logit_scale"):
        value = np.log(10) + 0.1 * noise
    elif name.endswith("scaling_factors"):
        value = 0.25 + 0.1 * noise
    elif noise.ndim >= 2:
        value = noise / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        value = 1 + 0.1 * noise
    else:
        value = 0.02 * noise
    return value.astype(np.float32)


@pytest.fixture
def set_num_threads() -> Iterator[Callable[[int], None]]:
    """Set torch's number of threads until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def shapes_unchecked(monkeypatch) -> None:
    """For tests of what refuses other shapes itself, and of what compiles or exports the code as it is."""
    monkeypatch.setattr(shapes, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def seeded_state() -> Callable[..., dict[str, Tensor]]:
    """The golden data's weights, in the authors' layout: shapes by name, seed -> learned tensors by name."""

    def state(shapes: Mapping[str, tuple[str, list[int]]], seed: int) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(draw(name, shape, seed))
            for name, (dtype, shape) in shapes.items()
            if "float" in dtype and not any(part in name for part in NOT_SEEDED)
        }

    return state


@pytest.fixture(scope="session")
def published_shapes() -> dict[str, tuple[str, list[int]]]:
    """The published state dict: name -> dtype, shape."""
    return json.loads((GOLDEN / "published_state_dict.json").read_text())


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Golden tensors by file name."""

    def load(name: str) -> dict[str, Tensor]:
        with np.load(GOLDEN / name) as file:
            return {key: torch.from_numpy(np.asarray(file[key])) for key in file}

    return load


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return ModelConfig(
        name="tiny",
        channels=(4, 8, 8),
        latent_channels=16,
        hyper_channels=8,
        depths=(1, 2, 2),
        heads=2,
        ffn_ratios=(1, 1, 1),
        position_hidden=4,
        groups=(4, 12),
        hyper_depth=1,
        hyper_ffn_ratio=1,
        context_ffn_ratio=1,
        context_min_channels=8,
        parameters_min_channels=8,
        graph=GraphConfig(degree=4),
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_config: ModelConfig) -> GLIC:
    """A tiny model with tables, ready to compress; not to be changed."""
    return make_model(tiny_config, seed=0)


@pytest.fixture(scope="session")
def other_tiny_model(tiny_config: ModelConfig) -> GLIC:
    """The same with other weights."""
    return make_model(tiny_config, seed=1)


@pytest.fixture(scope="session")
def variable_model(tiny_config: ModelConfig) -> GLIC:
    """A tiny model of four qualities."""
    return make_model(dataclasses.replace(tiny_config, qualities=4), seed=0)


def make_model(config: ModelConfig, *, seed: int) -> GLIC:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GLIC(config)
    with torch.no_grad():
        model.g_a.down[-1].weight.mul_(20)  # else y rounds to almost nothing but zeros
    model.update(force=True)
    return model.eval()


@pytest.fixture
def photo() -> Callable[[int, int], Tensor]:
    """Smooth made pictures: height, width -> 1 x 3 x height x width in [0, 1]."""

    def make(height: int, width: int) -> Tensor:
        noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)

    return make


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
    ]
)
def device(request: pytest.FixtureRequest) -> str:
    """Every device there is."""
    return request.param


@pytest.fixture(scope="session")
def triton_device() -> str:
    """Where Triton's kernels run: on a GPU, or in its interpreter where that was asked for."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1")


@pytest.fixture
def child() -> Callable[..., list[str]]:
    """Run Python in a process of its own: text and arguments -> the lines that it prints.

    For what would kill this one, or never end, if it were not refused.
    """

    def run(text: str, *arguments: object, **variables: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", text, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout.splitlines()

    return run


def swapped(table: Tensor) -> Tensor:
    table = table.clone()
    table[0, [1, 2]] = table[0, [2, 1]]
    return table


def with_value(index: int | tuple[int, int], value: float) -> Callable[[Tensor], Tensor]:
    def change(table: Tensor) -> Tensor:
        table = table.clone()
        table[index] = value
        return table

    return change


def longer(table: Tensor) -> Tensor:
    """Rows without an end, as far as they go."""
    return table.clone().index_fill_(1, torch.tensor(table.shape[1] - 1), 65535)


HOSTILE: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
    ("_quantized_cdf", "none", lambda x: x[:0, :0]),
    ("_quantized_cdf", "one row", lambda x: x[:1]),
    ("_quantized_cdf", "a row too few", lambda x: x[:-1]),
    ("_quantized_cdf", "a row too many", lambda x: torch.cat([x, x[:1]])),
    ("_quantized_cdf", "cut columns", lambda x: x[:, :4]),
    ("_quantized_cdf", "two columns", lambda x: x[:, :2]),
    ("_quantized_cdf", "one column", lambda x: x[:, :1]),
    ("_quantized_cdf", "no column", lambda x: x[:, :0]),
    ("_quantized_cdf", "one dimension", lambda x: x.flatten()),
    ("_quantized_cdf", "three dimensions", lambda x: x[None]),
    ("_quantized_cdf", "no dimension", lambda x: x[0, 0]),
    ("_quantized_cdf", "zeros", torch.zeros_like),
    ("_quantized_cdf", "ones", torch.ones_like),
    ("_quantized_cdf", "all 65536", lambda x: torch.full_like(x, 65536)),
    ("_quantized_cdf", "all largest", lambda x: torch.full_like(x, 2**31 - 1)),
    ("_quantized_cdf", "all least", lambda x: torch.full_like(x, -(2**31))),
    ("_quantized_cdf", "negative", lambda x: -x),
    ("_quantized_cdf", "backwards", lambda x: x.flip(1)),
    ("_quantized_cdf", "out of order", swapped),
    ("_quantized_cdf", "a step of none", with_value((0, 2), 1)),
    ("_quantized_cdf", "not from 0", with_value((0, 0), 1)),
    ("_quantized_cdf", "beyond 65536", lambda x: 2 * x),
    ("_quantized_cdf", "not up to 65536", lambda x: x // 2),
    ("_quantized_cdf", "no end", longer),
    ("_quantized_cdf", "a second hill", lambda x: torch.cat([x, x], dim=1)),
    ("_quantized_cdf", "int64", lambda x: x.long() + 2**40),
    ("_quantized_cdf", "float32", lambda x: x.float()),
    ("_quantized_cdf", "no numbers", lambda x: torch.full_like(x, torch.nan, dtype=torch.float32)),
    ("_cdf_length", "none", lambda x: x[:0]),
    ("_cdf_length", "a length too few", lambda x: x[:-1]),
    ("_cdf_length", "two dimensions", lambda x: x[None]),
    ("_cdf_length", "zeros", torch.zeros_like),
    ("_cdf_length", "a zero", with_value(0, 0)),
    ("_cdf_length", "ones", torch.ones_like),
    ("_cdf_length", "twos", lambda x: torch.full_like(x, 2)),
    ("_cdf_length", "negative", lambda x: -x),
    ("_cdf_length", "one too few", lambda x: x - 1),
    ("_cdf_length", "one too many", lambda x: x + 1),
    ("_cdf_length", "largest", lambda x: torch.full_like(x, 2**31 - 1)),
    ("_cdf_length", "least", lambda x: torch.full_like(x, -(2**31))),
    ("_cdf_length", "float32", lambda x: x.float()),
    ("_offset", "none", lambda x: x[:0]),
    ("_offset", "an offset too many", lambda x: torch.cat([x, x[:1]])),
    ("_offset", "largest", lambda x: torch.full_like(x, 2**31 - 1)),
    ("_offset", "least", lambda x: torch.full_like(x, -(2**31))),
    ("_offset", "positive", with_value(0, 1)),
    ("_offset", "beyond its row", with_value(0, -3000)),
    ("_offset", "float32", lambda x: x.float()),
    ("scale_table", "none", lambda x: x[:0]),
    ("scale_table", "one scale", lambda x: x[:1]),
    ("scale_table", "no dimension", lambda x: x[0]),
    ("scale_table", "two dimensions", lambda x: x[None]),
    ("scale_table", "a scale too many", lambda x: torch.cat([x, 2 * x[-1:]])),
    ("scale_table", "backwards", lambda x: x.flip(0)),
    ("scale_table", "negative", lambda x: -x),
    ("scale_table", "zeros", torch.zeros_like),
    ("scale_table", "all the same", torch.ones_like),
    ("scale_table", "no number", with_value(3, torch.nan)),
    ("scale_table", "without end", with_value(-1, torch.inf)),
    ("scale_table", "int32", lambda x: x.int()),
]
"""A table's name, what becomes of it, and how."""

OWNERS = {"z": "hyper.entropy_bottleneck", "y": "y.latent_codec.y1.y.gaussian_conditional"}
HOSTILE_TABLES = [
    pytest.param((OWNERS[owner], table, change), id=f"{table} of {owner}, {what}")
    for table, what, change in HOSTILE
    for owner in OWNERS
    if owner == "y" or table != "scale_table"
]


@pytest.fixture(params=HOSTILE_TABLES)
def hostile_table(request) -> tuple[str, str, Callable[[Tensor], Tensor]]:
    """Part of the latent codec, name of its table, how to spoil it: most of them would end the process."""
    return request.param


@pytest.fixture
def config(tiny_config: ModelConfig) -> TrainConfig:
    """The tiny model's training configuration."""
    return TrainConfig(
        model=tiny_config,
        steps=6,
        batch_size=2,
        patch_size=64,
        learning_rate=1e-3,
        ema_decay=0.9,
        num_workers=0,
        eval_share=0.2,
        eval_size=64,
        eval_every=3,
        save_every=3,
    )


@pytest.fixture
def model_file(tiny_model: GLIC, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    tiny_model.save(path)
    return path


@pytest.fixture
def ending(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run what ends its process, in this one: work, name, arguments -> exit status, stdout, stderr."""

    def run(work: Callable[[], object], *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        with pytest.raises(SystemExit) as caught:
            work()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six pictures of 70 x 90 pixels, one of them in a subfolder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
        name = "more/p.jpg" if i == 5 else f"p{i}.png"
        Image.fromarray(pixels).resize((90, 70), Image.Resampling.BICUBIC).save(folder / name)
    return folder
