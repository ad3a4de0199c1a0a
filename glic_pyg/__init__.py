"""glic_pyg: GLIC, a learned image codec whose transforms are graph neural networks, on PyTorch Geometric.

    image -> g_a: conv stage, then graph stages:
               feature map -> nodes -> candidates -> score -> quota -> kept edges -> message passing
          -> y -> entropy model -> bitstream -> entropy model -> y_hat -> g_s (same rooms) -> image

The folders follow this flow: `graph`, `nn`, `transform`, `entropy`, then `codec` and `bitstream`.
"""

from glic_pyg.codec import GLIC
from glic_pyg.config import ModelConfig

__all__ = ["GLIC", "ModelConfig", "__version__"]

__version__ = "0.1.0"
