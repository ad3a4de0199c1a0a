import copy
import dataclasses
import math
import random
import re
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from glic_pyg.bitstream import decode, encode, most_bytes
from glic_pyg.chunks import with_chunks
from glic_pyg.codec import GLIC, QualityError
from glic_pyg.container import Bitstream, BitstreamError, pack, unpack, unpack_head
from glic_pyg.entropy import coder
from glic_pyg.image import to_8bit
from glic_pyg.kernels import ON_CPU, use_kernels
from glic_pyg.limits import MAX_PIXELS
from glic_pyg.picture import ImageError
from glic_pyg.tiles import MemoryBoundError

GOLDEN = Path(__file__).parent / "golden" / "files"

STREAM = Bitstream(bytes(range(8)), 640, 17, 300, 0x01020304, (b"abc", b"", b"x" * 200))
PINNED = (
    b"GLIC\x03\x00\x01\x02\x03\x04\x05\x06\x07\x80\x05\x11\xac\x02\x04\x03\x02\x01"
    b"\x03abc\x00\xc8\x01" + b"x" * 200
)


def with_checksum(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


def test_bytes_are_pinned():
    assert pack(STREAM) == with_checksum(PINNED)
    assert unpack(with_checksum(PINNED)) == STREAM
    version1 = b"GLIC\x01" + PINNED[5:13] + PINNED[15:]
    assert unpack(with_checksum(version1)) == dataclasses.replace(STREAM, quality=0, version=1)
    version2 = b"GLIC\x02" + PINNED[5:]
    assert unpack(with_checksum(version2)) == dataclasses.replace(STREAM, version=2)
    with pytest.raises(ValueError, match=r"Expected a stream of version 3\.\.4 to write \(got 2\)"):
        pack(dataclasses.replace(STREAM, version=2))


CHUNKS = {"EXIF": b"II*\0", "ALPH": b"a" * 130, "late": b""}
PINNED_WITH_CHUNKS = (
    b"GLIC\x04\x00\x01\x02\x03\x04\x05\x06\x07\x80\x05\x11\xac\x02\x02\x04\x03\x02\x01\x03"
    b"\x03abc\x00\xc8\x01" + b"x" * 200 + b"EXIF\x04II*\0ALPH\x82\x01" + b"a" * 130 + b"late\x00"
)


def test_bytes_of_chunks_are_pinned():
    """Channels and the number of strings come before what they are of; unknown chunks are kept."""
    stream = dataclasses.replace(STREAM, version=4, channels=2, chunks=CHUNKS)
    assert pack(stream) == with_checksum(PINNED_WITH_CHUNKS)
    assert unpack(with_checksum(PINNED_WITH_CHUNKS)) == stream
    for start in (PINNED_WITH_CHUNKS[:64], PINNED_WITH_CHUNKS[:19]):
        assert unpack_head(start) == (4, stream.identity, 640, 17, 300, 2)
    assert unpack_head(PINNED_WITH_CHUNKS[:18]) is None
    assert unpack_head(PINNED) == (3, stream.identity, 640, 17, 300, 3)
    assert most_bytes(PINNED_WITH_CHUNKS) == most_bytes(PINNED) + (1 << 24) + 640
    with pytest.raises(ValueError, match="Expected RGB without chunks in version 3"):
        pack(dataclasses.replace(stream, version=3))


def of_version_4(channels, *chunks, count=b"\x00"):
    """Return a file of 1 x 1 pixels; chunks are name, length and bytes as they are written."""
    head = b"GLIC\x04" + bytes(8) + b"\x00\x01\x01" + bytes([channels]) + bytes(4)
    return with_checksum(head + count + b"".join(chunks))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (of_version_4(0), r"Expected 1 to 4 channels \(got 0\)"),
        (of_version_4(5), r"Expected 1 to 4 channels \(got 5\)"),
        (of_version_4(4), r"Expected a chunk ALPH with 2 or 4 channels, and with no others \(got 4 ch"),
        (of_version_4(3, b"ALPH\x00"), r"Expected a chunk ALPH with 2 or 4 .* \(got 3 channels\)"),
        (of_version_4(3, b"EXIF\x00", b"EXIF\x00"), r"Expected one chunk 'EXIF' \(got two\)"),
        (of_version_4(3, b"EX\nF\x00"), r"Expected a chunk's name of 4 characters \(got 'EX\\nF'\)"),
        (of_version_4(3, b"\xffXIF\x00"), r"Expected a chunk's name of 4 characters \(got '.XIF'\)"),
        (of_version_4(3, b"EXIF\xff\xff\xff\xff\x0f"), r"Expected \d+ bytes .*: cut short"),
        (of_version_4(3, b"EXIF\x09abc"), r"Expected 32 bytes and a checksum \(got 26\): cut short"),
        (of_version_4(3, b"EXI"), "cut short"),
        (
            of_version_4(3, *(f"a{i:03}".encode() + b"\0" for i in range(65))),
            r"Expected at most 64 chunks \(got more\)",
        ),
        (of_version_4(3, count=b"\xff" + bytes(255)), r"Expected at most \d+ strings \(got more\)"),
        (of_version_4(3, count=b"\x02\x00"), "cut short"),
    ],
)
def test_chunks_that_cannot_be(data, message):
    with pytest.raises(BitstreamError, match=message):
        unpack(data)


def test_as_many_and_as_long_chunks_as_there_may_be():
    chunks = {f"a{i:03}": b"" for i in range(63)} | {"XMP ": bytes(1 << 24)}
    stream = dataclasses.replace(STREAM, version=4, channels=1, chunks=chunks)
    assert unpack(pack(stream)) == stream
    for more in ({"late": b""}, {"a000": b"b"}):
        with pytest.raises(BitstreamError, match=r"Expected .*chunks"):
            pack(dataclasses.replace(stream, chunks=chunks | more))
    with pytest.raises(BitstreamError, match=r"Expected chunks of at most 16777216 bytes \(got more\)"):
        unpack(of_version_4(3, b"EXIF\x81\x80\x80\x08" + bytes((1 << 24) + 1)))


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_files_of_every_version_decode(version):
    """Each with the model that made it, by the program of its time.

    Probabilities in floating point, before version 3, are another machine's: its last bits differ.
    """
    model = GLIC.from_pretrained(GOLDEN / f"of_{1 if version == 1 else 2}.safetensors")
    data = (GOLDEN / f"version_{version}.glic").read_bytes()
    expected = torch.from_numpy(np.load(GOLDEN / f"version_{min(version, 3)}.npy"))
    stream = unpack(data)
    assert stream.version == version
    assert stream.identity == model.identity
    quality = stream.quality / 256 or None
    assert quality == (None if version == 1 else 2.5)
    size = (stream.height, stream.width)
    y_hat = model.decode(stream.strings, size, quality, exact=version >= 3)
    if version >= 3:
        assert torch.equal(y_hat, expected)
        assert torch.equal(decode(model, data), model.synthesise(y_hat, size))
    else:
        torch.testing.assert_close(y_hat, expected, atol=1e-3, rtol=0)
    if version == 4:
        image = with_chunks(decode(model, data), stream)
        rows, columns = np.ogrid[:70, :100]
        assert image.mode == "LA"
        assert np.array_equal(image.getchannel("A"), (3 * rows + 2 * columns) % 256)
        assert dict(image.getexif()) == {0x010F: "a maker"}
        assert stream.chunks.keys() == {"EXIF", "XMP ", "ALPH", "late"}
    wrong = model.decode(stream.strings, size, quality, exact=version < 3)
    assert (wrong - expected).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (127, 128), (16383, 16384 // 2), (1, 2**27)])
def test_sizes_round_trip(size):
    stream = Bitstream(bytes(8), 0, *size, 0, ())
    assert unpack(pack(stream)) == stream


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (100, 60)])
def test_picture_round_trip(tiny_model, photo, size):
    x = photo(*size)
    restored = decode(tiny_model, encode(tiny_model, x))
    coded = tiny_model.compress(x)
    assert torch.equal(restored, tiny_model.decompress(coded["strings"], coded["shape"])["x_hat"])


@pytest.mark.parametrize(("quality", "stored"), [(1, 1), (2.7, 691 / 256), (4, 4)])
def test_quality_is_kept_in_256ths(variable_model, photo, quality, stored):
    x = photo(64, 64)
    data = encode(variable_model, x, quality)
    coded = variable_model.compress(x, stored)
    restored = variable_model.decompress(coded["strings"], coded["shape"], stored)["x_hat"]
    assert torch.equal(decode(variable_model, data), restored)


def test_impossible_qualities(tiny_model, variable_model, photo):
    stream = unpack(encode(variable_model, photo(8, 8), 1))
    with pytest.raises(BitstreamError, match=r"Expected a quality in 1\.\.4 \(got 4\.5"):
        decode(variable_model, pack(dataclasses.replace(stream, quality=1152)))
    with pytest.raises(BitstreamError, match=r"Expected a quality in 1\.\.4 \(got 0\.0"):
        decode(variable_model, pack(dataclasses.replace(stream, quality=0)))
    stream = unpack(encode(tiny_model, photo(8, 8)))
    with pytest.raises(BitstreamError, match=r"Expected no quality for a model of one \(got 1\.0\)"):
        decode(tiny_model, pack(dataclasses.replace(stream, quality=256)))


EDGES = [1, 2, 7, 8, 63, 64, 65, 127, 128, 129]


@pytest.mark.parametrize("seed", range(30))
def test_what_encode_returns_decode_takes(variable_model, photo, seed):
    """Sides around the codec's multiples, the edges of quality, every type of picture, both bounds.

    Values are from flat to the wildest noise, and no string or file has more bytes than its reader allows.
    """
    rng = random.Random(seed)
    height, width = rng.choice(EDGES), rng.choice(EDGES)
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    x = rng.choice([photo(height, width), 0 * noise, 0 * noise + 1, noise, noise.round(), 1e-45 * noise])
    x = rng.choice([x, to_8bit(x), x.half(), x.bfloat16(), x.double(), x.transpose(2, 3).mT])
    quality = rng.choice(
        [None, 1, 1 + 1 / 600, 1 + 1 / 512, 2.5, 4 - 1 / 512, 4 - 1 / 600, 4, rng.uniform(1, 4)]
    )
    data = encode(variable_model, x, quality, max_pixels=height * width)
    stream = unpack(data)
    assert pack(stream) == data
    assert (stream.height, stream.width) == (height, width)
    assert 256 <= stream.quality <= 1024
    assert abs(stream.quality / 256 - (2 if quality is None else quality)) <= 1 / 512
    assert len(data) <= most_bytes(data[:40], max_pixels=height * width)
    *of_y, of_z = map(len, stream.strings)
    places = -(-height // 64) * -(-width // 64)
    config = variable_model.config
    halves = [8 * size * places for size in config.groups for _ in (0, 1)]
    assert all(8 <= n <= 8 * symbols + 64 for n, symbols in zip(of_y, halves, strict=True))
    assert 8 <= of_z <= 8 * config.hyper_channels * places + 64
    restored = decode(variable_model, data, max_pixels=height * width)
    assert restored.shape == x.shape
    assert restored.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 65535), (65535, 1)])
def test_the_longest_sides(tiny_model, shape):
    x = torch.zeros(1, 3, *shape, dtype=torch.uint8)
    assert decode(tiny_model, encode(tiny_model, x)).shape == x.shape


@pytest.mark.parametrize(
    ("shape", "max_pixels", "message"),
    [
        ((65536, 1), MAX_PIXELS, r"Expected sides of at most 65535 pixels \(got 1 x 65536\)"),
        ((1, 65536), MAX_PIXELS, r"Expected sides of at most 65535 pixels \(got 65536 x 1\)"),
        ((1, 70000), MAX_PIXELS, r"Expected sides of at most 65535 pixels \(got 70000 x 1\)"),
        ((16384, 8193), MAX_PIXELS, r"Expected a picture of 1 to 134217728 pixels \(got 8193 x 16384\)"),
        ((4, 5), 19, r"Expected a picture of 1 to 19 pixels \(got 5 x 4\)"),
    ],
)
def test_what_decode_would_refuse_is_not_encoded(tiny_model, shape, max_pixels, message):
    x = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(1, 3, *shape)
    with pytest.raises(ImageError, match=message):
        encode(tiny_model, x, max_pixels=max_pixels)
    stream = Bitstream(tiny_model.identity, 0, *shape, 0, ())
    with pytest.raises(BitstreamError, match=message):
        decode(tiny_model, pack(stream), max_pixels=max_pixels)


@pytest.mark.parametrize(
    "quality", [0, 1 / 600, -1, 0.9999, 4.0001, math.nan, math.inf, -math.inf, 10**400, "2", 1j]
)
def test_qualities_that_are_none_are_not_encoded(tiny_model, variable_model, photo, quality):
    with pytest.raises(QualityError, match=r"Expected a quality in 1\.\.4 \(got "):
        encode(variable_model, photo(8, 8), quality)
    with pytest.raises(QualityError, match=r"Expected no quality for a model of one \(got "):
        encode(tiny_model, photo(8, 8), quality)


def test_header_is_small(tiny_model, photo):
    strings = [string for (string,) in tiny_model.compress(photo(64, 64))["strings"]]
    lengths = sum(1 if len(string) < 128 else 2 for string in strings)
    assert len(encode(tiny_model, photo(64, 64))) == 5 + 8 + 1 + 2 + 4 + lengths + len(b"".join(strings)) + 4


@pytest.mark.parametrize("data", [with_checksum(PINNED), with_checksum(PINNED_WITH_CHUNKS)])
def test_every_changed_byte_is_noticed(data):
    for i in range(len(data)):
        changed = data[:i] + bytes([data[i] ^ 0x41]) + data[i + 1 :]
        with pytest.raises(BitstreamError):
            unpack(changed)


@pytest.mark.parametrize("data", [with_checksum(PINNED), with_checksum(PINNED_WITH_CHUNKS)])
def test_every_cut_is_noticed(data):
    for i in range(len(data)):
        with pytest.raises(BitstreamError):
            unpack(data[:i])
    with pytest.raises(BitstreamError, match="damaged or cut short"):
        unpack(data + b"\0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"Expected a \.glic file \(got one that starts with b''\)"),
        (b"\x89PNG\r\n\x1a\n" * 9, r"Expected a \.glic file \(got one that starts with b'\\x89PNG'\)"),
        (b"GLIC", r"Expected 1 bytes and a checksum \(got 0\): cut short"),
        (b"GLIC\x05" + bytes(40), r"Expected format version 1..4 \(got 5: a newer glic_pyg made it\)"),
        (b"GLIC\x00" + bytes(40), r"Expected format version 1..4 \(got 0\)"),
        (PINNED + bytes(4), r"Expected checksum [0-9a-f]{8} \(got 00000000\): damaged or cut short"),
        # From here on made on purpose: the checksum is right.
        (with_checksum(PINNED[:30]), r"Expected 225 bytes and a checksum \(got 26\): cut short"),
        (
            with_checksum(PINNED[:13] + b"\xff" * 9),
            r"Expected a number of at most 5 bytes \(got more\): damaged",
        ),
    ],
)
def test_what_cannot_be_unpacked(data, message):
    with pytest.raises(BitstreamError, match=message):
        unpack(data)


@pytest.mark.parametrize(
    "data", ["text", None, 5, [71], np.zeros(9, np.uint8), torch.zeros(9)], ids=lambda x: type(x).__name__
)
def test_what_are_no_bytes(tiny_model, data):
    expected = rf"^Expected the bytes of a \.glic file \(got {type(data).__name__}\)$"
    with pytest.raises(BitstreamError, match=expected):
        decode(tiny_model, data)


def test_bounds_that_are_no_numbers(tiny_model, photo):
    x = photo(64, 64)
    data = encode(tiny_model, x)
    for bound in ("4G", math.nan, [1]):
        expected = rf"^Expected max_memory to be a number of bytes \(got {re.escape(repr(bound))}\)$"
        with pytest.raises(MemoryBoundError, match=expected):
            decode(tiny_model, data, max_memory=bound)
        with pytest.raises(MemoryBoundError, match=expected):
            encode(tiny_model, x, max_memory=bound)
    with pytest.raises(BitstreamError, match=r"^Expected max_pixels to be a number \(got '5'\)$"):
        decode(tiny_model, data, max_pixels="5")


def test_another_model(tiny_model, other_tiny_model, photo):
    data = encode(tiny_model, photo(8, 8))
    with pytest.raises(
        BitstreamError, match=r"Expected a file of this model, \w{16} \(got one of model \w{16}\)"
    ):
        decode(other_tiny_model, data)


def test_weights_that_a_mask_covers_do_not_tell_models_apart(tiny_model, photo, tmp_path):
    """As a training's last step leaves them: the first call of the masked convolution sets them to zero."""
    model = copy.deepcopy(tiny_model)
    for name, weight in model.named_parameters():
        if name.endswith("context_prediction.weight"):
            torch.nn.init.ones_(weight)
    model.save(tmp_path / "model.safetensors")
    data = encode(GLIC.from_pretrained(tmp_path / "model.safetensors"), photo(64, 64))
    decode(GLIC.from_pretrained(tmp_path / "model.safetensors"), data)


def test_other_latents(tiny_model, photo):
    stream = unpack(encode(tiny_model, photo(8, 8)))
    fields = vars(stream)
    message = "Expected latents with checksum .* this machine computes other probabilities"
    with pytest.raises(BitstreamError, match=message):
        decode(tiny_model, pack(Bitstream(**fields | {"latent_checksum": stream.latent_checksum ^ 1})))
    with pytest.raises(BitstreamError, match=r"Expected a string of \d+ symbols \(got 0 bytes\): cut short"):
        decode(tiny_model, pack(Bitstream(**fields | {"strings": (b"",) * 5})))
    with pytest.raises(BitstreamError, match=r"Expected 5 strings of one picture \(got 1\)"):
        decode(tiny_model, pack(Bitstream(**fields | {"strings": (b"",)})))


def test_too_large_a_picture(tiny_model):
    identity = tiny_model.identity
    for size, limit in {(2**14, 2**14): MAX_PIXELS, (0, 5): MAX_PIXELS, (3, 4): 11}.items():
        message = rf"Expected a picture of 1 to {limit} pixels \(got {size[1]} x {size[0]}\)"
        with pytest.raises(BitstreamError, match=message):
            decode(tiny_model, pack(Bitstream(identity, 0, *size, 0, ())), max_pixels=limit)


def test_too_long_a_side(tiny_model):
    stream = Bitstream(tiny_model.identity, 0, 1, 2**16, 0, ())
    with pytest.raises(BitstreamError, match=r"Expected sides of at most 65535 pixels \(got 65536 x 1\)"):
        decode(tiny_model, pack(stream))


def test_too_long_a_string(tiny_model, photo):
    stream = unpack(encode(tiny_model, photo(8, 8)))
    strings = (bytes(10_000), *stream.strings[1:])  # 4 channels of 4 x 2 places
    with pytest.raises(BitstreamError, match=r"Expected at most 320 bytes for 32 symbols \(got 10000\)"):
        decode(tiny_model, pack(dataclasses.replace(stream, strings=strings)))


def test_strings_without_end(tiny_model):
    """Each byte of 0 is an empty string."""
    identity = tiny_model.identity
    head = pack(Bitstream(identity, 0, 8, 8, 0, ()))[:-4]
    data = with_checksum(head + bytes(10**8))
    start = time.process_time()
    with pytest.raises(BitstreamError, match=r"Expected at most 129 strings \(got more\): damaged"):
        decode(tiny_model, data)
    assert time.process_time() - start < 2  # of which the checksum takes the most
    with pytest.raises(BitstreamError, match=r"Expected 5 strings of one picture \(got 129\)"):
        decode(tiny_model, with_checksum(head + bytes(129)))


@pytest.mark.parametrize("side", [4096, 11585])
def test_a_small_file_cannot_claim_a_large_picture(tiny_model, photo, side, monkeypatch):
    """Neither its latents nor its pixels are paid for."""
    stream = unpack(encode(tiny_model, photo(8, 8)))
    monkeypatch.setattr(coder, "_latents", None)
    with pytest.raises(
        BitstreamError, match=r"Expected a string of \d+ symbols \(got \d\d? bytes\): cut short"
    ):
        decode(tiny_model, pack(dataclasses.replace(stream, height=side, width=side)))


def test_latents_are_checked_before_a_picture_is_made(tiny_model, photo, monkeypatch):
    stream = unpack(encode(tiny_model, photo(100, 90)))
    monkeypatch.setattr(type(tiny_model.g_s), "forward", None)
    with pytest.raises(BitstreamError, match="Expected latents with checksum"):
        decode(tiny_model, pack(dataclasses.replace(stream, latent_checksum=stream.latent_checksum ^ 1)))


def test_a_model_without_tables_is_no_matter_of_the_file(tiny_config):
    with pytest.raises(ValueError, match="call update"):
        encode(GLIC(tiny_config), torch.zeros(1, 3, 8, 8))


@torch.no_grad()
def test_files_of_one_device_decode_on_another(variable_model, photo, device):
    there = copy.deepcopy(variable_model).to(device)
    x = photo(100, 150)
    files = [encode(variable_model, x, 2.5), encode(there, x, 2.5)]
    for data in files:
        here = decode(variable_model, data)
        restored = decode(there, data)  # which compares the latents' checksum
        assert restored.device.type == device
        assert (restored.cpu() - here).abs().max() < 0.02
    assert abs(len(files[0]) - len(files[1])) <= 0.02 * len(files[0])


@pytest.mark.parametrize("kernels", ON_CPU)
def test_no_step_makes_tensors_where_torch_does_by_default(variable_model, photo, monkeypatch, kernels):
    """Where the model is on a GPU, those for the CPU would be there, and the reverse."""
    model, x = use_kernels(copy.deepcopy(variable_model), kernels), photo(100, 150)
    data = encode(model, x, 2.5)
    restored = decode(model, data)
    monkeypatch.setattr("glic_pyg.codec.undisturbed", lambda device: torch.device("meta"))
    with torch.device("meta"):
        assert encode(model, x, 2.5) == data
        assert torch.equal(decode(model, data), restored)
