"""A score of complexity that is learned with the rest of the model."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glic_pyg.graph.complexity import EPS, Score


class LearnedScore(Score):
    r"""Score each position by a small convolutional network on its features.

    .. math:: S = \mathrm{softplus}(w^T \mathrm{ReLU}(W * x))

    Choosing neighbours has no gradient. The network gets one from the gate that a stage with such a score
    has (see `glic_pyg.nn.gfa.GFALayer`), as in PyG's `TopKPooling`.

    Args:
        channels: Features per position.
        hidden: Width of the 3 x 3 convolution W.

    Raises:
        ValueError: no width.
    """

    def __init__(self, *, channels: int, hidden: int = 16) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"Expected hidden of at least 1 (got {hidden})")
        self.convolution = nn.Conv2d(channels, hidden, 3, padding=1)
        self.output = nn.Conv2d(hidden, 1, 1)

    def forward(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
        hidden = F.relu(self.convolution(feature_map))
        return F.softplus(self.output(hidden)).squeeze(1) + EPS
