"""Bounds of pictures, whoever reads or makes them."""

MAX_PIXELS = 2**27
"""Of pictures that are read or restored unless somebody asks for more: a larger one is damage or malice."""
MAX_SIDE = 2**16 - 1
"""Of a picture: a longer one, padded to the codec's multiples, would have many times its pixels."""
MAX_METADATA_BYTES = 2**24
"""Of a picture: EXIF data, XMP data and colour profile together."""
