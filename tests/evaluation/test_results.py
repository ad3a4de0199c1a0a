"""Results files, this project's and other tools', whole and broken."""

import json
import math

import pytest

from glic_pyg.errors import FileError
from glic_pyg.evaluation.results import read_results

COLUMNS = {"bpp": [0.1, 0.2], "psnr-rgb": [28, 30.5]}


def read(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_results(path)


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ({"name": "n", "results": COLUMNS}, COLUMNS),
        (COLUMNS, COLUMNS),
        ({"results": [{"bpp": 0.1, "psnr-rgb": 28}, {"bpp": 0.2, "psnr-rgb": 30.5}]}, COLUMNS),
        ({"results": {"bpp": 0.1, "psnr-rgb": 28}}, {"bpp": [0.1], "psnr-rgb": [28]}),
        ({"results": {"bpp": ["0.1", "0.2"], "psnr-rgb": ["28", "30.5"]}}, COLUMNS),
        (
            {"results": {"bpp": [0.1, 0.2], "psnr-rgb": [28, None]}},
            {"bpp": [0.1, 0.2], "psnr-rgb": [28, None]},
        ),
        (b"\xef\xbb\xbf" + json.dumps(COLUMNS).encode(), COLUMNS),
    ],
)
def test_layouts(tmp_path, content, columns):
    assert read(tmp_path, content)["results"] == columns


def test_what_is_not_told_is_empty(tmp_path):
    assert read(tmp_path, COLUMNS) == {
        "name": "a", "description": "", "command": "", "codec": "", "pictures_sha256": "", "settings": {},
        "results": COLUMNS,
    }  # fmt: skip
    about = dict.fromkeys(("name", "description", "command", "codec", "pictures_sha256"), "x")
    about |= {"settings": {"identity": "i"}}
    assert read(tmp_path, about | {"results": COLUMNS}) == about | {"results": COLUMNS}
    wrong = {"name": 3, "description": [], "command": None, "codec": {}, "settings": "s"}
    assert read(tmp_path, wrong | {"results": COLUMNS})["name"] == "a"
    assert read(tmp_path, wrong | {"results": COLUMNS})["settings"] == {}


def test_numbers_that_are_none_are_kept(tmp_path):
    """Whether they matter is for those to say who compare them."""
    scores = read(tmp_path, {"bpp": [0, 0.1, 0.2], "psnr-rgb": [math.nan, math.inf, "nan"]})["results"]
    assert [str(score) for score in scores["psnr-rgb"]] == ["nan", "inf", "nan"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expected a JSON file (got {path}: Expecting value: "),
        (b"\xff\xfe", "Expected a JSON file (got {path}: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "Expected a JSON file (got {path}: nested too deep)"),
        (b'{"a":' * 100_000, "Expected a JSON file (got {path}: nested too deep)"),
        (b'{"bpp": [' + b"9" * 5000 + b"]}", "Expected a JSON file (got {path}: Exceeds the limit"),
        (b'{"bpp": [1' + b"0" * 400 + b"]}", "Expected numbers as bpp (got 10000"),
        ([1, 2], "Expected results by name (got {path} with a list)"),
        (3, "Expected results by name (got {path} with a number)"),
        ({}, "Expected results with a column bpp (got {path} without)"),
        ({"results": None}, "Expected results with a column bpp (got {path} without)"),
        ({"results": {"psnr": [1]}}, "Expected results with a column bpp (got {path} without)"),
        ({"results": []}, "Expected results as columns, or as rows with names (got others in {path})"),
        ({"results": [1]}, "Expected results as columns, or as rows with names (got others in {path})"),
        (
            {"bpp": [0.1, 0.2], "psnr": [28]},
            "Expected a value of psnr for each of 2 rates (got 1 in {path})",
        ),
        ({"bpp": ["much"]}, "Expected numbers as bpp (got 'much' in {path})"),
        ({"bpp": [True]}, "Expected numbers as bpp (got True in {path})"),
        ({"bpp": [[1]]}, "Expected numbers as bpp (got list in {path})"),
        ({"bpp": [{}]}, "Expected numbers as bpp (got mapping in {path})"),
        ({"bpp": ["x" * 1000]}, "Expected numbers as bpp (got 'xxx"),
    ],
)
def test_broken_and_foreign_files_give_one_line(tmp_path, content, message):
    with pytest.raises(FileError) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(message.format(path=tmp_path / "a.json"))
    assert str(tmp_path / "a.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_files_that_are_none(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(FileError, match=r"Expected a JSON file \(got "):
            read_results(path)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(20 << 30)
    with pytest.raises(FileError, match=r"Expected a file of at most 67108864 bytes \(got .*large\.json"):
        read_results(tmp_path / "large.json")
