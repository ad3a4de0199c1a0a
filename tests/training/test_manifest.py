"""The table of a run's pictures."""

import csv
import hashlib
import os
import shutil

import pytest

from glic_pyg.errors import FileError
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
    with pytest.raises(FileError, match=r"Expected the pictures of .*m\.csv .*got 1 missing .*p3\.png"):
        manifest.check(table, folders={"": photos})
    (photos / "p1.png").unlink()
    with pytest.raises(FileError, match=r"got 2 missing or changed, the first .*p1\.png"):
        manifest.check(table, folders={"": photos})


def test_what_is_no_manifest_is_refused(photos, tmp_path):
    for content in ("name,width\np0.png,90\n", "\0"):
        (tmp_path / "m.csv").write_text(content)
        with pytest.raises(FileError, match=r"Expected a manifest .*\(got .*m\.csv"):
            manifest.check(tmp_path / "m.csv", folders={"": photos})


def test_pictures_of_several_folders_are_named_by_them(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "other")
    folders = {"photos/": photos, "other/": tmp_path / "other"}
    pictures = [photos / "p0.png", photos / "more" / "p.jpg", tmp_path / "other" / "p0.png"]
    rows = manifest.describe(pictures, folders=folders)
    assert [row.name for row in rows] == ["photos/p0.png", "photos/more/p.jpg", "other/p0.png"]
    manifest.write(rows, tmp_path / "m.csv")
    assert manifest.check(tmp_path / "m.csv", folders=folders) == pictures
    with pytest.raises(FileError, match=r"got 1 missing"):
        manifest.check(tmp_path / "m.csv", folders={"photos/": photos, "elsewhere/": tmp_path / "other"})


@pytest.mark.parametrize(
    "name",
    [
        "../p0.png",
        "more/../../p0.png",
        "more/..",
        "/etc/passwd",
        "{photos}/p0.png",
        "//p0.png",
        "",
        "a\0b",
        "..",
    ],
)
def test_names_do_not_lead_out_of_the_folder(photos, table, name):
    """Not even to a file of the very bytes."""
    (photos.parent / "p0.png").write_bytes((photos / "p0.png").read_bytes())
    with table.open() as file:
        rows = list(csv.reader(file))
    rows[2][0] = name.format(photos=photos)
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(
        FileError, match=r"^Expected names of files in the data set's folder \(got '.*m\.csv\)$"
    ):
        manifest.check(table, folders={"": photos})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"Expected a manifest of name, .* \(got .*m\.csv of none\)"),
        (b"a,b\n" * 3, r"\(got .*m\.csv of a, b\)"),
        (b"x" * 200_000, r"Expected a manifest \(got .*m\.csv: field larger than"),
        (b"HEAD\na.png,1,2\n", r"\(got others in row 2 of .*m\.csv\)"),
        (b"HEAD\na.png,1,2,3,4,5\n", r"\(got others in row 2 of .*m\.csv\)"),
        (b"HEAD\na.png,1,-2,3,4\n", r"\(got others in row 2 of .*m\.csv\)"),
        (b"HEAD\na.png,1,2," + b"9" * 5000 + b",4\n", r"\(got others in row 2 of .*m\.csv\)"),
        (b"HEAD\n\xff\xfe.png,1,2,3,4\n", r"\(got 1 missing or changed"),
        (b"HEAD\nmore,1,2,3,4\n", r"\(got 1 missing or changed"),
        (b"HEAD\n" + b"n" * 300 + b",1,2,3,4\n", r"\(got 1 missing or changed"),
    ],
)
def test_a_broken_manifest_gives_one_line(photos, tmp_path, content, message):
    (tmp_path / "m.csv").write_bytes(content.replace(b"HEAD", ",".join(manifest.COLUMNS).encode()))
    with pytest.raises(FileError, match=message) as caught:
        manifest.check(tmp_path / "m.csv", folders={"": photos})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_manifest_that_is_none_is_refused(photos, tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(FileError, match=r"Expected a manifest \(got "):
            manifest.check(path, folders={"": photos})


def test_names_that_are_no_text(photos, tmp_path):
    name = os.fsdecode(b'\xff\n,".png')
    (photos / name).write_bytes((photos / "p0.png").read_bytes())
    manifest.write(manifest.describe([photos / name], folders={"": photos}), tmp_path / "m.csv")
    assert manifest.check(tmp_path / "m.csv", folders={"": photos}) == [photos / name]
