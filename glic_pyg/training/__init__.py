"""Training: pictures -> crops -> loss -> optimiser -> run folder."""

from glic_pyg.errors import require

require(
    *("lightning", "pytorch_optimizer", "jsonargparse", "docstring_parser", "tensorboard"),
    *("pytorch_msssim", "matplotlib"),
    extra="train",
    purpose="training",
)

import glic_pyg.torchvision_shim  # noqa: E402, F401 - before lightning, whose metrics import torchvision
