"""What a training uses of Lightning."""

from glic_pyg.errors import require

require(
    *("lightning", "pytorch_optimizer", "tensorboard", "pytorch_msssim", "matplotlib"),
    extra="train",
    purpose="training",
)

import glic_pyg.torchvision_shim  # noqa: E402, F401 - before lightning, whose metrics import torchvision

# isort: split
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer  # noqa: E402
from lightning.pytorch.callbacks import WeightAveraging  # noqa: E402
from lightning.pytorch.loggers import TensorBoardLogger  # noqa: E402
from lightning.pytorch.plugins import TorchCheckpointIO  # noqa: E402
from lightning.pytorch.utilities import rank_zero_only  # noqa: E402

__all__ = [
    "Callback",
    "LightningDataModule",
    "LightningModule",
    "TensorBoardLogger",
    "TorchCheckpointIO",
    "Trainer",
    "WeightAveraging",
    "rank_zero_only",
]
