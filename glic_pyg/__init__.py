"""glic_pyg: GLIC, a learned image codec whose transforms are graph neural networks, on PyTorch Geometric.

    image -> g_a: conv stage, then graph stages:
               feature map -> nodes -> candidates -> score -> quota -> kept edges -> message passing
          -> y -> entropy model -> bitstream -> entropy model -> y_hat -> g_s (same rooms) -> image

The folders follow this flow: `graph`, `nn`, `transform`, `entropy`, then `codec` and `bitstream`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glic_pyg.codec import GLIC
    from glic_pyg.config import ModelConfig

__all__ = ["GLIC", "ModelConfig", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what is asked for: the command line answers much without torch, which takes seconds."""
    if name == "GLIC":
        from glic_pyg.codec import GLIC

        return GLIC
    if name == "ModelConfig":
        from glic_pyg.config import ModelConfig

        return ModelConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
