"""A tiny model's training configuration and a folder of made pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glic_pyg.config import ModelConfig
from glic_pyg.training.config import TrainConfig


@pytest.fixture
def config(tiny_config: ModelConfig) -> TrainConfig:
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
