import pytest

from glic_pyg import bitstream


@pytest.fixture
def coded(tiny_model, photo, tmp_path):
    path = tmp_path / "a.glic"
    path.write_bytes(bitstream.encode(tiny_model, photo(20, 30)))
    return path


def refuse(glic, *arguments):
    status, out, err = glic("decompress", *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    return err


def test_bad_files_give_one_line_and_no_picture(glic, model_file, other_tiny_model, coded, tmp_path):
    target = tmp_path / "a.png"
    data = coded.read_bytes()
    arguments = (coded, "-o", target, "--model", model_file)

    other = tmp_path / "other.safetensors"
    other_tiny_model.save(other)
    err = refuse(glic, coded, "-o", target, "--model", other)
    assert err.startswith(f"error: {coded}: Expected a file of this model")

    coded.write_bytes(data[:50])
    assert "damaged or cut short" in refuse(glic, *arguments)
    coded.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert "damaged or cut short" in refuse(glic, *arguments)
    coded.unlink()
    assert refuse(glic, *arguments) == f"error: No such file or directory: {coded}\n"
    assert not target.exists()


def test_output_must_be_png(glic, model_file, coded, tmp_path):
    status, _, err = glic("decompress", coded, "-o", tmp_path / "a.jpg", "--model", model_file)
    assert status == 2
    assert "Expected an output name that ends in .png (got " in err
