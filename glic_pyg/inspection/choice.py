"""Choosing nodes that show how differently a graph treats flat parts, edges and textures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from glic_pyg.config import HYPER_STRIDE
from glic_pyg.graph import to_map
from glic_pyg.graph.candidates import CANDIDATES
from glic_pyg.graph.grid import MapSize
from glic_pyg.image import pad
from glic_pyg.inspection.stages import node_size

SURROUNDINGS = 7  # nodes, the side of the square that is judged


def choose_nodes(image: Tensor, score: Tensor, map_size: MapSize) -> dict[str, int]:
    """Choose a node in a flat part of a picture, one on an edge, and one in a texture.

    Surroundings are flat where the score is low. Where it is high, they are an edge if the picture's
    gradients agree in direction (the structure tensor is coherent), a texture if they do not and there
    are gradients everywhere.

    Args:
        image: The picture that the graph was built for, `1 x 3 x H x W`, on any device.
        score: The nodes' scores, `N`.
        map_size: `(1, H', W')`, N = H' W'.

    Returns:
        Node ids by the name of what they show: `flat`, `edge`, `texture`; apart from each other and
        not in the padding, so there may be fewer in a tiny picture.
    """
    score = to_map(score[:, None], map_size)
    image = image.to(score.device)
    gradient, coherence = _gradients(pad(image, HYPER_STRIDE), map_size)
    merits = {
        "flat": -_mean(score),
        "edge": score * coherence,
        "texture": _least(score) * _least(gradient) * (1 - coherence),
    }
    height, width = map_size[1:]
    free = _inside(image, map_size)
    apart = min(height, width) // 4
    chosen = {}
    for name, merit in merits.items():
        if not free.any():
            break
        node = int(merit[0, 0].masked_fill(~free, -torch.inf).argmax())
        row, column = divmod(node, width)
        free[max(0, row - apart) : row + apart + 1, max(0, column - apart) : column + apart + 1] = False
        chosen[name] = node
    return chosen


def _gradients(image: Tensor, map_size: MapSize) -> tuple[Tensor, Tensor]:
    """Return the picture's gradient at each node, and how far the gradients around it agree in direction.

    Args:
        image: The padded picture.
        map_size: `(1, H', W')`.

    Returns:
        Root mean square magnitude, and coherence of the structure tensor (0 to 1), `1 x 1 x H' x W'`.
    """
    grey = F.pad(image.mean(dim=1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    along_x = grey[..., :-1, 1:] - grey[..., :-1, :-1]
    along_y = grey[..., 1:, :-1] - grey[..., :-1, :-1]
    products = torch.cat([along_x**2, along_y**2, along_x * along_y], dim=1)
    products = F.adaptive_avg_pool2d(products, map_size[1:])
    gradient = products[:, :2].sum(dim=1, keepdim=True).sqrt()
    xx, yy, xy = _mean(products).split(1, dim=1)
    return gradient, torch.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy + 1e-6)


def _mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, SURROUNDINGS, stride=1, padding=SURROUNDINGS // 2, count_include_pad=False)


def _least(x: Tensor) -> Tensor:
    return -F.max_pool2d(-x, SURROUNDINGS, stride=1, padding=SURROUNDINGS // 2)


def _inside(image: Tensor, map_size: MapSize) -> Tensor:
    """Return which nodes are neither padding nor, if there is room, near the border, `H' x W'`."""
    size = node_size(image, map_size)
    rows, columns = (-(-side // size) for side in image.shape[-2:])
    inside = torch.zeros(map_size[1:], dtype=torch.bool, device=image.device)
    top, left = min(rows // 4, CANDIDATES), min(columns // 4, CANDIDATES)
    inside[top : rows - top, left : columns - left] = True
    return inside
