"""CompressAI's own models by name, with random weights, to lay beside ours."""

from compressai.registry import MODELS
from compressai.zoo import image_models
from torch import nn

QUALITY = 4  # of the models that come in several widths: as wide as most papers have them


def is_compressai(name: str) -> bool:
    """Return whether CompressAI has a model of that name."""
    return name in image_models or name in MODELS


def build_compressai(name: str) -> nn.Module:
    """Make a model with random weights, ready to compress."""
    model = image_models[name](quality=QUALITY) if name in image_models else MODELS[name]()
    model.update()
    return model.requires_grad_(False).eval()
