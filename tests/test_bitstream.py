import copy
import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from glic_pyg import checkpoint
from glic_pyg.bitstream import Bitstream, BitstreamError, decode, encode, pack, unpack
from glic_pyg.codec import GLIC
from glic_pyg.image import MAX_PIXELS

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
    with pytest.raises(ValueError, match=r"Expected a stream of version 3 to write \(got 2\)"):
        pack(dataclasses.replace(STREAM, version=2))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_files_of_every_version_decode(version):
    """Each with the model that made it, by the program of its time.

    Probabilities in floating point, before version 3, are another machine's: its last bits differ.
    """
    model = GLIC.from_pretrained(GOLDEN / f"of_{1 if version == 1 else 2}.safetensors")
    data = (GOLDEN / f"version_{version}.glic").read_bytes()
    expected = torch.from_numpy(np.load(GOLDEN / f"version_{version}.npy"))
    stream = unpack(data)
    assert stream.version == version
    assert stream.identity == checkpoint.model_identity(model)
    strings = [[string] for string in stream.strings]
    quality = stream.quality / 256 or None
    assert quality == (None if version == 1 else 2.5)
    size = (stream.height, stream.width)
    out = model.decompress(strings, size, quality, exact=version >= 3)
    if version >= 3:
        assert torch.equal(out["y_hat"], expected)
        assert torch.equal(decode(model, data), out["x_hat"])
    else:
        torch.testing.assert_close(out["y_hat"], expected, atol=1e-3, rtol=0)
    wrong = model.decompress(strings, size, quality, exact=version < 3)["y_hat"]
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


def test_header_is_small(tiny_model, photo):
    strings = [string for (string,) in tiny_model.compress(photo(64, 64))["strings"]]
    lengths = sum(1 if len(string) < 128 else 2 for string in strings)
    assert len(encode(tiny_model, photo(64, 64))) == 5 + 8 + 1 + 2 + 4 + lengths + len(b"".join(strings)) + 4


def test_every_changed_byte_is_noticed():
    data = pack(STREAM)
    for i in range(len(data)):
        changed = data[:i] + bytes([data[i] ^ 0x41]) + data[i + 1 :]
        with pytest.raises(BitstreamError):
            unpack(changed)


def test_every_cut_is_noticed():
    data = pack(STREAM)
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
        (b"GLIC\x04" + bytes(40), r"Expected format version 1..3 \(got 4: a newer glic_pyg made it\)"),
        (b"GLIC\x00" + bytes(40), r"Expected format version 1..3 \(got 0\)"),
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
    checkpoint.save(model, tmp_path / "model.safetensors")
    data = encode(GLIC.from_pretrained(tmp_path / "model.safetensors"), photo(64, 64))
    decode(GLIC.from_pretrained(tmp_path / "model.safetensors"), data)


def test_other_latents(tiny_model, photo):
    stream = unpack(encode(tiny_model, photo(8, 8)))
    fields = vars(stream)
    message = "Expected latents with checksum .* this machine computes other probabilities"
    with pytest.raises(BitstreamError, match=message):
        decode(tiny_model, pack(Bitstream(**fields | {"latent_checksum": stream.latent_checksum ^ 1})))
    with pytest.raises(BitstreamError, match=message):
        decode(tiny_model, pack(Bitstream(**fields | {"strings": (b"",) * 5})))
    with pytest.raises(BitstreamError, match=r"Expected 5 strings of one picture \(got \[1\]\)"):
        decode(tiny_model, pack(Bitstream(**fields | {"strings": (b"",)})))


def test_too_large_a_picture(tiny_model):
    identity = checkpoint.model_identity(tiny_model)
    for size, limit in {(2**14, 2**14): MAX_PIXELS, (0, 5): MAX_PIXELS, (3, 4): 11}.items():
        message = rf"Expected a picture of 1 to {limit} pixels \(got {size[1]} x {size[0]}\)"
        with pytest.raises(BitstreamError, match=message):
            decode(tiny_model, pack(Bitstream(identity, 0, *size, 0, ())), max_pixels=limit)


def test_too_long_a_side(tiny_model):
    stream = Bitstream(checkpoint.model_identity(tiny_model), 0, 1, 2**16, 0, ())
    with pytest.raises(BitstreamError, match=r"Expected sides of at most 65535 pixels \(got 65536 x 1\)"):
        decode(tiny_model, pack(stream))


def test_too_long_a_string(tiny_model, photo):
    stream = unpack(encode(tiny_model, photo(8, 8)))
    strings = (bytes(10_000), *stream.strings[1:])  # 4 channels of 4 x 2 places
    with pytest.raises(BitstreamError, match=r"Expected at most 320 bytes for 32 symbols \(got 10000\)"):
        decode(tiny_model, pack(dataclasses.replace(stream, strings=strings)))


def test_a_model_without_tables_is_no_matter_of_the_file(tiny_config):
    with pytest.raises(ValueError, match="call update"):
        encode(GLIC(tiny_config), torch.zeros(1, 3, 8, 8))


@torch.no_grad()
def test_files_of_one_device_decode_on_another(variable_model, photo, device):
    there = copy.deepcopy(variable_model).to(device)
    x = photo(100, 150)
    files = [encode(variable_model, x, 2.5), encode(there, x.to(device), 2.5)]
    for data in files:
        here = decode(variable_model, data)
        restored = decode(there, data)  # which compares the latents' checksum
        assert restored.device.type == device
        assert (restored.cpu() - here).abs().max() < 0.02
    assert abs(len(files[0]) - len(files[1])) <= 0.02 * len(files[0])
