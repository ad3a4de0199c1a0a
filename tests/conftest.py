"""Shared by all tests: golden data, seeded weights, a tiny model."""

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from glic_pyg import GLIC, ModelConfig
from glic_pyg.config import GraphConfig

# On busy cores, threads that wait for each other cost far more than they bring for tensors this small.
torch.set_num_threads(1)
numba.set_num_threads(1)

GOLDEN = Path(__file__).parent / "golden"

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
