import io

import torch
from PIL import Image

from glic_pyg.evaluation.jpeg import QUALITIES, nearest_jpeg
from glic_pyg.image import to_8bit


def size_at(x: torch.Tensor, quality: int) -> int:
    file = io.BytesIO()
    image = Image.fromarray(to_8bit(x)[0].permute(1, 2, 0).numpy())
    image.save(file, format="JPEG", quality=quality, optimize=True)
    return file.tell()


def test_nearest_of_all_qualities(photo):
    x = photo(40, 56)
    sizes = {quality: size_at(x, quality) for quality in QUALITIES}
    for wanted in (0, 700, 1000, 10**6):
        jpeg = nearest_jpeg(x, wanted)
        assert abs(len(jpeg.data) - wanted) == min(abs(size - wanted) for size in sizes.values())
        assert len(jpeg.data) == sizes[jpeg.quality]
        assert jpeg.x_hat.shape == x.shape
