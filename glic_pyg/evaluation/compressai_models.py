"""CompressAI's own models by name, to lay beside ours."""

import glic_pyg.upstream  # noqa: F401 - before compressai

# isort: split
import os
from functools import lru_cache
from unittest.mock import patch

from compressai.models import CompressionModel
from compressai.registry import MODELS
from compressai.zoo import image_models

from glic_pyg.checkpoint import CheckpointError, load_failure

QUALITY = 4  # of the models that come in several widths: as wide as most papers have them


def is_compressai(name: str) -> bool:
    """Return whether CompressAI has a model of that name."""
    return name in image_models or name in MODELS


def build_compressai(name: str) -> CompressionModel:
    """Make a model with random weights, ready to compress."""
    model = image_models[name](quality=QUALITY) if name in image_models else MODELS[name]()
    model.update()
    return model.requires_grad_(False).eval()


@lru_cache(maxsize=1)
def load_compressai(name: str, *, quality: int, device: str = "cpu") -> CompressionModel:
    """Load a model with CompressAI's published weights for MSE, which are downloaded where they are not yet.

    Raises:
        CheckpointError: there are none, or they cannot be had.
    """
    try:
        # CompressAI asks torch to run whatever code a download holds; torch lets us forbid it.
        with patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"):
            model = image_models[name](quality=quality, pretrained=True)
    except Exception as error:  # whatever a download raises
        raise CheckpointError(
            f"Expected published weights of {name}, quality {quality} (got none: {load_failure(error)})"
        ) from error
    model.update()
    return model.requires_grad_(False).eval().to(device)
