"""Training: pictures -> crops -> loss -> optimiser -> run folder."""

import glic_pyg.torchvision_shim  # noqa: F401 - before lightning, whose metrics import torchvision
