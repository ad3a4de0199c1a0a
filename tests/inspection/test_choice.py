import torch
import torch.nn.functional as F

from glic_pyg.config import HYPER_STRIDE
from glic_pyg.graph.complexity import Sobel
from glic_pyg.image import pad
from glic_pyg.inspection import choose_nodes


def choose(image):
    score = Sobel()(F.avg_pool2d(pad(image, HYPER_STRIDE), 4))
    return choose_nodes(image, score.flatten(), tuple(score.shape))


def test_flat_edge_and_texture():
    image = torch.full((1, 3, 256, 384), 0.2)
    image[..., 160:] = 0.8  # an edge before column 40 of the nodes
    image[..., 256:] = torch.rand(1, 1, 64, 32).repeat_interleave(4, -2).repeat_interleave(4, -1)
    chosen = choose(image)
    assert list(chosen) == ["flat", "edge", "texture"]
    columns = {name: node % 96 for name, node in chosen.items()}
    assert columns["flat"] < 36 or 44 < columns["flat"] < 60
    assert columns["edge"] in (39, 40)
    assert columns["texture"] > 64


def test_nodes_are_apart_and_not_in_the_padding():
    generator = torch.Generator().manual_seed(0)
    for height, width in ((70, 90), (65, 129), (17, 33), (8, 300)):
        nodes = choose(torch.rand(1, 3, height, width, generator=generator)).values()
        columns = -(-width // 64) * 16
        assert len(nodes) == len(set(nodes)) > 0
        assert all(node // columns * 4 < height and node % columns * 4 < width for node in nodes)


def test_one_pixel():
    assert choose(torch.rand(1, 3, 1, 1)) == {"flat": 0}
