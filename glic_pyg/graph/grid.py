"""Feature maps as nodes, and back."""

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch_geometric.data import Data

from glic_pyg.errors import UserError

MapSize = tuple[int, int, int]


class FeatureMapError(UserError, ValueError):
    """A feature map of which no graph can be made; the message is one line for the user."""


def to_nodes(feature_map: Shaped[Tensor, "B C H W"]) -> Data:
    """Turn every spatial position of a feature map into a node.

    Node `b * H * W + row * W + column` stands for that position of picture `b`.

    Args:
        feature_map: `B x C x H x W`.

    Returns:
        Data with `x` (`N x C`), `pos` (`N x 2`, row and column), `batch` (`N`) and
        `map_size`, the tuple `(B, H, W)`; `N = B * H * W`.

    Raises:
        FeatureMapError: `feature_map` has not four dimensions, or is empty.
    """
    if feature_map.dim() != 4 or feature_map.numel() == 0:
        raise FeatureMapError(f"Expected a feature map B x C x H x W (got {tuple(feature_map.shape)})")
    batch_size, channels, height, width = feature_map.shape
    device = feature_map.device
    rows = torch.arange(height, device=device).repeat_interleave(width)
    columns = torch.arange(width, device=device).repeat(height)
    return Data(
        x=feature_map.permute(0, 2, 3, 1).reshape(-1, channels),
        pos=torch.stack([rows, columns], dim=1).repeat(batch_size, 1),
        batch=torch.arange(batch_size, device=device).repeat_interleave(height * width),
        map_size=(batch_size, height, width),
    )


def to_map(x: Shaped[Tensor, "N C"], map_size: MapSize) -> Shaped[Tensor, "B C H W"]:
    """Lay nodes out as a feature map, without copying them.

    Args:
        x: Node features, `N x C`, in the order of `to_nodes`.
        map_size: `(B, H, W)`.

    Returns:
        `B x C x H x W`, a channels-last view of `x`.
    """
    return x.view(*map_size, -1).permute(0, 3, 1, 2)
