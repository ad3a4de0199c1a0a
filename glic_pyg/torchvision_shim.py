"""Import torchvision, also where its compiled operators do not fit the installed torch.

CompressAI imports torchvision, whose common wheel is compiled for the CUDA build of torch. Next to a CPU
build its operators cannot be loaded, and `import torchvision` stops with "operator torchvision::nms does not
exist": its Python side describes `nms` and `qnms` without asking whether they were loaded. Nothing here calls
the two, so it is enough to declare them. Only then, though: where they were loaded, a second declaration
aborts the process.

Import this module before compressai.
"""

import sys

import torch

try:
    import torchvision
except RuntimeError as error:
    if "operator torchvision::nms does not exist" not in str(error):
        raise

    # Held by name, because the declarations live as long as this object.
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    # What the failed import left behind would be taken for whole modules.
    for _name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[_name]
    import torchvision

__all__ = ["torchvision"]
