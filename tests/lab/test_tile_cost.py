import re

from glic_pyg.image import write_png


def test_a_line_per_margin(rig, model_file, photo, tmp_path):
    (tmp_path / "photos").mkdir()
    write_png(photo(130, 200), tmp_path / "photos" / "a.png")
    arguments = ["-d", tmp_path / "photos", "--model", model_file, "--kept", "64", "--margins"]
    status, out, err = rig("tile_cost", *arguments, "0", "128")
    assert (status, err) == (0, "")
    cut, whole = out.splitlines()
    assert cut.startswith("tiles of 64, margin 0: decoder ")
    assert int(re.search(r"decoder (\d+) of 255", cut)[1]) > 0
    assert whole == (  # one tile
        "tiles of 320, margin 128: decoder 0 of 255 and inf dB from the whole, +0.0000 dB; "
        "both +0.000 % bpp, +0.0000 dB"
    )


def test_bad_input_gives_one_line(rig, model_file, tmp_path):
    status, _, err = rig("tile_cost", "-d", tmp_path, "--model", model_file)
    assert (status, err) == (2, f"error: Expected a folder with pictures (got {tmp_path})\n")
    status, _, err = rig("tile_cost", "-d", tmp_path, "--margins", "33")
    assert status == 2
    assert "Expected --kept to be a multiple of 64 and --margins ones of 32" in err
