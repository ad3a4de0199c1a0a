"""The table of a run's pictures."""

import csv
import hashlib
import shutil

import pytest

from glic_pyg.config import ConfigError
from glic_pyg.training import manifest


@pytest.fixture
def table(photos, tmp_path):
    manifest.write(manifest.describe(sorted(photos.rglob("*.*")), folders={"": photos}), tmp_path / "m.csv")
    return tmp_path / "m.csv"


def test_lists_names_sizes_and_hashes(photos, table):
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["more/p.jpg", *(f"p{i}.png" for i in range(5))]
    data = (photos / "more" / "p.jpg").read_bytes()
    assert rows[0] == {
        "name": "more/p.jpg",
        "width": "90",
        "height": "70",
        "bytes": str(len(data)),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def test_the_same_pictures_are_found_again(photos, table):
    (photos / "new.png").write_bytes((photos / "p0.png").read_bytes())
    assert manifest.check(table, folders={"": photos}) == sorted(photos.rglob("*p*.*g"))[:1] + [
        photos / f"p{i}.png" for i in range(5)
    ]


def test_missing_and_changed_pictures_are_refused(photos, table):
    data = bytearray((photos / "p3.png").read_bytes())
    data[-1] ^= 1
    (photos / "p3.png").write_bytes(data)
    with pytest.raises(ConfigError, match=r"Expected the pictures of .*m\.csv .*got 1 missing .*p3\.png"):
        manifest.check(table, folders={"": photos})
    (photos / "p1.png").unlink()
    with pytest.raises(ConfigError, match=r"got 1 missing or changed, the first .*p1\.png"):
        manifest.check(table, folders={"": photos})


def test_what_is_no_manifest_is_refused(photos, tmp_path):
    for content in ("name,width\np0.png,90\n", "\0"):
        (tmp_path / "m.csv").write_text(content)
        with pytest.raises(ConfigError, match=r"Expected a manifest .*\(got .*m\.csv"):
            manifest.check(tmp_path / "m.csv", folders={"": photos})


def test_pictures_of_several_folders_are_named_by_them(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "other")
    folders = {"photos/": photos, "other/": tmp_path / "other"}
    pictures = [photos / "p0.png", photos / "more" / "p.jpg", tmp_path / "other" / "p0.png"]
    rows = manifest.describe(pictures, folders=folders)
    assert [row.name for row in rows] == ["photos/p0.png", "photos/more/p.jpg", "other/p0.png"]
    manifest.write(rows, tmp_path / "m.csv")
    assert manifest.check(tmp_path / "m.csv", folders=folders) == pictures
    with pytest.raises(ConfigError, match=r"got 1 missing"):
        manifest.check(tmp_path / "m.csv", folders={"photos/": photos, "elsewhere/": tmp_path / "other"})
