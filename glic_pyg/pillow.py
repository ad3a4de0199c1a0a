"""Pillow reads and writes .glic files after `import glic_pyg.pillow`.

    import glic_pyg.pillow
    from PIL import Image

    Image.open("photo.jpg").save("photo.glic", quality=5)
    Image.open("photo.glic").show()

What a file says of itself, size, mode and metadata, is there at once; torch and a model are imported and
loaded when pixels are.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageFile

from glic_pyg.checkpoint_header import SHIPPED
from glic_pyg.container import (
    HEAD_BYTES,
    MAGIC,
    VERSION,
    Bitstream,
    BitstreamError,
    most_bytes,
    unpack,
    unpack_head,
)

if TYPE_CHECKING:
    from glic_pyg.codec import GLIC

FORMAT, SUFFIX, MIME = "GLIC", ".glic", "image/x-glic"
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's names for numbers of channels."""
INFO = {"exif": "EXIF", "xmp": "XMP ", "icc_profile": "ICCP"}
"""Pillow's names for chunks."""
OPTIONS = {"quality", "effort", "lmbda", "distortion", "max_memory"}
"""Of `bitstream.encode`, which `Image.save` takes too."""

_models: list[str | Path | GLIC] = ["glic_nano"]
_loaded: dict[str | Path, GLIC] = {}


def register(*models: str | Path | GLIC) -> None:
    """Let Pillow read and write .glic files; importing this module does it, with the model `glic_nano`.

    Args:
        models: Codecs, names of models or paths of checkpoints, which are loaded when they are needed. The
            first one is what `Image.save` codes with. Files of all of them are read, and those of models that
            come with the package. Without any, those of the call before stay.
    """
    _models[:] = models or _models
    Image.register_open(FORMAT, GlicImageFile, _accept)
    Image.register_decoder("glic", _Decoder)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, SUFFIX)
    Image.register_mime(FORMAT, MIME)


class GlicImageFile(ImageFile.ImageFile):
    """A .glic file as Pillow opens it."""

    format = FORMAT
    format_description = "GLIC, a learned codec of graph neural networks"

    def _open(self) -> None:
        try:
            start = self._file().read(HEAD_BYTES)
            head = unpack_head(start)
            if head is None:
                raise SyntaxError("cut short")
            self._size, self._mode = (head.width, head.height), MODES[head.channels]
        except BitstreamError as error:
            raise SyntaxError(str(error)) from error
        self.tile = [ImageFile._Tile("glic", (0, 0, *self.size), 0, (self.mode,))]
        # Metadata are behind the strings. Of a damaged file, pixels will tell.
        try:
            chunks = unpack(_whole(self._file())).chunks
        except BitstreamError:
            return
        for key, name in INFO.items():
            if name in chunks:
                self.info[key] = (b"Exif\0\0" if key == "exif" else b"") + chunks[name]

    def verify(self) -> None:
        """Raise an OSError if the file is damaged; nothing is decoded."""
        try:
            unpack(_whole(self._file()))
        except BitstreamError as error:
            raise OSError(str(error)) from error
        finally:
            super().verify()

    def _file(self) -> IO[bytes]:
        if self.fp is None:
            raise ValueError("Expected an open file (got one that is loaded or closed)")
        return self.fp


class _Decoder(ImageFile.PyDecoder):
    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        """Decode the whole file; see Pillow, Writing your own image plugin."""
        from glic_pyg import bitstream
        from glic_pyg.chunks import with_chunks

        assert self.fd is not None
        try:
            data = _whole(self.fd)
            stream = unpack(data)
            x_hat = bitstream.decode(_model_of(stream), data, max_pixels=stream.height * stream.width)
            image = with_chunks(x_hat, stream)
        except BitstreamError as error:
            raise OSError(str(error)) from error
        if (image.mode, image.size) != (self.mode, (self.state.xsize, self.state.ysize)):
            raise OSError("Expected the file that was opened (got another one)")
        self.set_as_raw(image.tobytes())
        return -1, 0


def _whole(file: IO[bytes]) -> bytes:
    """Return a file's bytes, hardly more than there are pixels for.

    Raises:
        BitstreamError: not a .glic file that begins as one.
    """
    file.seek(0)
    start = file.read(HEAD_BYTES)
    return start + file.read(max(0, most_bytes(start) - len(start)))


def _accept(prefix: bytes) -> bool | str:
    if not prefix.startswith(MAGIC):
        return False
    if len(prefix) > len(MAGIC) and prefix[len(MAGIC)] > VERSION:
        return f"Expected a .glic file of format 1..{VERSION} (got {prefix[len(MAGIC)]}: a newer glic_pyg's)"
    return True


def _save(im: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Code a picture; what `OPTIONS` names is that of `bitstream.encode`.

    Metadata in `im.info` travel, or what `exif`, `xmp` and `icc_profile` give in their place; none if that is
    empty. `keep_icc` leaves colours in the space of the profile.
    """
    from glic_pyg import bitstream
    from glic_pyg.chunks import add_chunks, chunks_of
    from glic_pyg.image import to_tensor
    from glic_pyg.picture import DEEP, picture_of
    from glic_pyg.transparency import filled

    options: dict[str, Any] = im.encoderinfo
    notes: list[str] = []
    given = {key: options[key] for key in INFO if key in options}
    if isinstance(given.get("exif"), Image.Exif):
        given["exif"] = given["exif"].tobytes()
    if given:
        im = im.copy()
        im.info = {key: value for key, value in (im.info | given).items() if value}
    picture = picture_of(im, notes, keep_icc=bool(options.get("keep_icc")))
    for note in [*notes, *([DEEP] if picture.is_deep else [])]:
        warnings.warn(f"{os.fsdecode(filename) or 'picture'} {note}", stacklevel=4)
    model = _loaded_model(_models[0])
    x = to_tensor(filled(picture)).to(model.device)
    chosen = {key: options[key] for key in OPTIONS & options.keys()}
    data = bitstream.encode(model, x, max_pixels=im.width * im.height, **chosen)
    fp.write(add_chunks(data, picture.channels, chunks_of(picture)))


def _model_of(stream: Bitstream) -> GLIC:
    """Return the model that a file was made with, if it is known.

    Raises:
        BitstreamError: it is not.
    """
    wanted = stream.identity.hex()
    for model in dict.fromkeys([SHIPPED.get(wanted), *_models]):
        if model is not None and (loaded := _loaded_model(model)).identity == stream.identity:
            return loaded
    raise BitstreamError(
        f"Expected a file of a model that glic_pyg.pillow.register was given (got one of {wanted})"
    )


def _loaded_model(model: str | Path | GLIC) -> GLIC:
    if not isinstance(model, str | Path):
        return model
    if model not in _loaded:
        from glic_pyg.codec import GLIC

        _loaded[model] = GLIC.from_pretrained(model)
    return _loaded[model]


register()
