import json
import shutil

import pytest

from glic_pyg import GLIC, bitstream
from glic_pyg.checkpoint import shipped
from glic_pyg.checkpoint_header import SHIPPED
from glic_pyg.chunks import add_chunks
from glic_pyg.container import unpack


@pytest.fixture
def coded(tiny_model, photo, tmp_path):
    path = tmp_path / "a.glic"
    path.write_bytes(bitstream.encode(tiny_model, photo(40, 70)))
    return path


def test_a_file_is_told_apart_from_its_parts(glic, coded, tiny_model):
    status, out, err = glic("info", coded, "--json")
    assert (status, err) == (0, "")
    about, stream, size = json.loads(out), unpack(coded.read_bytes()), coded.stat().st_size
    strings = about.pop("strings")
    assert about == {
        "file": str(coded), "kind": "glic", "format": 3, "height": 40, "width": 70, "quality": None,
        "identity": tiny_model.identity.hex(), "model": None, "bytes": size, "bpp": 8 * size / 2800,
        "channels": 3, "chunks": [],
    }  # fmt: skip
    assert [string["bytes"] for string in strings] == [len(string) for string in stream.strings]
    assert [string["of"] for string in strings][-2:] == [
        f"y, group {len(tiny_model.config.groups)}, half 2",
        "z",
    ]
    assert strings[0]["share"] == len(stream.strings[0]) / size
    _, out, _ = glic("info", coded)
    assert out.startswith(f"{coded}: .glic file, format 3\n")
    assert f"model    {about['identity']}\n" in out
    assert "70 x 40, RGB\n" in out


def test_chunks_are_told(glic, coded):
    chunks = {"EXIF": b"II*\0", "ALPH": b"a" * 100, "late": b""}
    coded.write_bytes(add_chunks(coded.read_bytes(), 2, chunks))
    about = json.loads(glic("info", coded, "--json")[1])
    size = coded.stat().st_size
    assert (about["format"], about["channels"], about["bytes"]) == (4, 2, size)
    assert [(chunk["of"], chunk["bytes"]) for chunk in about["chunks"]] == [
        ("EXIF", 4), ("ALPH", 100), ("late", 0)
    ]  # fmt: skip
    assert about["chunks"][1]["share"] == 100 / size
    _, out, _ = glic("info", coded)
    assert "70 x 40, grey with alpha\n" in out
    assert [line.split("  ")[1] for line in out.splitlines()[-3:]] == [
        "EXIF data",
        "alpha",
        "unknown chunk late",
    ]


def test_a_checkpoint_is_told_without_its_weights(glic, tiny_model, tmp_path):
    path = tmp_path / "tiny.safetensors"
    tiny_model.save(path, info={"lambda": [0.013]})
    status, out, err = glic("info", path, "--json")
    assert (status, err) == (0, "")
    about = json.loads(out)
    assert about["identity"] == tiny_model.identity.hex()
    assert about["parameters"] == sum(p.numel() for p in tiny_model.parameters())
    assert about["config"] == tiny_model.config.to_dict()
    assert (about["name"], about["qualities"], about["info"]) == ("tiny", 1, {"lambda": [0.013]})
    _, out, _ = glic("info", path)
    assert out.startswith(f"{path}: checkpoint of tiny\n")
    assert "lambda     0.013\n" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expected a .glic file or a checkpoint of glic_pyg (got {})"),
        (b"no such thing", "Expected a .glic file or a checkpoint of glic_pyg (got {})"),
        (b"\x02" + bytes(7) + b"{}", "Expected a .glic file or a checkpoint of glic_pyg (got {})"),
        (b"GLIC", "{}: Expected 1 bytes and a checksum"),
        (b"GLIC\x07" + bytes(30), "{}: Expected format version 1..4 (got 7"),
    ],
)
def test_anything_else_is_one_line(glic, tmp_path, content, message):
    path = tmp_path / "a"
    path.write_bytes(content)
    status, out, err = glic("info", path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: " + message.format(path))


def test_what_is_larger_than_its_head_says_is_not_read(glic, tmp_path):
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.write(b"GLIC\3" + bytes(8) + b"\0\1\1")
        file.truncate(20 << 30)
    status, out, err = glic("info", path)
    assert (status, out) == (2, "")
    assert err == f"error: Expected a file of at most 67600 bytes (got {path} with more)\n"


def test_of_several_files_the_others_are_told(glic, coded, tmp_path):
    shutil.copy(coded, tmp_path / "b.glic")
    status, out, err = glic("info", coded, tmp_path / "none.glic", tmp_path / "b.glic")
    assert status == 1
    assert err == f"error: No such file or directory: {tmp_path / 'none.glic'}\n"
    assert out.count(": .glic file, ") == 2


def test_models_that_come_with_the_package_are_known(glic, photo, tmp_path):
    """By their identities, and the other way round."""
    assert set(SHIPPED.values()) == shipped().keys()
    for identity, name in SHIPPED.items():
        model = GLIC.from_pretrained(name)
        assert identity == model.identity.hex()
        (tmp_path / "a.glic").write_bytes(bitstream.encode(model, photo(64, 64)))
        for file in (name, tmp_path / "a.glic"):
            about = json.loads(glic("info", file, "--json")[1])
            assert (about["model"], about["identity"]) == (name, identity)
