"""Pictures of tar shards."""

import dataclasses
import gc
import hashlib
import io
import tarfile

import fsspec
import pytest
import torch
from PIL import Image

from glic_pyg.config import ConfigError
from glic_pyg.errors import FileError
from glic_pyg.training import manifest
from glic_pyg.training.data import RandomCrops, find_and_split, find_pictures, folders_by_prefix
from glic_pyg.training.sources import Part, sources
from glic_pyg.training.trainer import train


@pytest.fixture
def shards(photos, tmp_path):
    """Two shards with the pictures of `photos`, something else and a broken picture."""
    folder = tmp_path / "shards"
    folder.mkdir()
    paths = sorted(photos.rglob("*.*g"))
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for path in paths[number::2]:
                tar.add(path, path.relative_to(photos).as_posix())
            for name in ("a.json", "broken.png"):
                tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return folder


def test_a_part_is_the_file_that_was_packed(photos, shards):
    found = {part.name.partition("/")[2]: part for part in find_pictures(shards, least_size=64)}
    paths = {path.relative_to(photos).as_posix(): path for path in photos.rglob("*.*g")}
    assert found.keys() == paths.keys()
    for name, path in paths.items():
        data = path.read_bytes()
        assert found[name].read().getvalue() == data
        assert found[name].sha256 == hashlib.sha256(data).hexdigest()
        with Image.open(path) as image:
            assert (found[name].width, found[name].height) == image.size


def test_samples_are_those_of_the_same_files(photos, shards):
    parts = {part.name.partition("/")[2]: part for part in sources(shards)}
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.*g"))]
    of_files, of_shards = (
        RandomCrops(pictures, qualities=3, seed=0)
        for pictures in ([photos / name for name in names], [parts[name] for name in names])
    )
    for i in range(12):
        (a, quality), (b, same) = of_files[i, 64], of_shards[i, 64]
        assert torch.equal(a, b)
        assert quality == same


def test_a_url_is_a_folder_too(shards):
    store = fsspec.filesystem("memory")
    store.put(f"{shards}/", "/training/shards/", recursive=True)
    here, there = sources(shards), sources("memory://training/shards")
    assert [part[1:] for part in here] == [part[1:] for part in there]
    assert here[0].read().getvalue() == there[0].read().getvalue()
    with pytest.raises(ConfigError, match=r"Expected tar shards with pictures at memory://no \(got none\)"):
        sources("memory://no")


@pytest.mark.filterwarnings("ignore")  # it leaves files open
def test_shards_of_webdataset_hold_what_it_reads(photos, tmp_path):
    """Long names that are not ASCII, several pictures of a sample, and other files."""
    webdataset = pytest.importorskip("webdataset")
    folder = tmp_path / "shards"
    folder.mkdir()
    with webdataset.ShardWriter(f"{folder}/%04d.tar", maxcount=2, verbose=0) as shards:
        for number, path in enumerate(sorted(photos.rglob("*.png"))):
            key = f"sub dir/{'x' * 120 * (number % 2)}\xe9{number}.v2"
            sample = {"png": path.read_bytes(), "left.png": b"no picture", "json": {"number": number}}
            shards.write({"__key__": key, **sample, "cls": number})
    found = {part.name.partition("/")[2]: part.read().getvalue() for part in sources(folder)}
    paths = sorted(map(str, folder.glob("*.tar")))
    expected = {
        f"{sample['__key__']}.{name}": data
        for sample in webdataset.WebDataset(paths, shardshuffle=False)
        for name, data in sample.items()
        if name.endswith("png")
    }
    gc.collect()
    assert len(paths) > 1
    assert found == expected


def test_files_and_shards_in_one_folder(photos, shards, config):
    both = photos / "both"
    shards.rename(both)
    found = sources(photos)
    assert [isinstance(source, Part) for source in found] == sorted(isinstance(s, Part) for s in found)
    assert found[-1].name.startswith("both/1.tar/")
    training, held_out = find_and_split(folders_by_prefix(photos), config=config)
    assert not set(training) & set(held_out)


def test_a_manifest_tells_of_parts(shards, tmp_path):
    folders = folders_by_prefix(shards)
    pictures = find_pictures(shards, least_size=64)
    rows = manifest.describe(pictures, folders=folders)
    assert [row.name for row in rows] == [part.name for part in pictures]
    manifest.write(rows, tmp_path / "m.csv")
    assert manifest.check(tmp_path / "m.csv", folders=folders) == pictures
    (shards / "0.tar").unlink()
    with pytest.raises(FileError, match=r"got 3 missing or changed, the first .*0\.tar"):
        manifest.check(tmp_path / "m.csv", folders=folders)


@pytest.mark.parametrize("dataset", ["shards", "./shards/", "file://{}/shards"])
def test_a_folder_by_any_name_knows_its_parts(shards, dataset, monkeypatch):
    monkeypatch.chdir(shards.parent)
    folders = folders_by_prefix(dataset.format(shards.parent))
    pictures = sources(folders[""])
    rows = manifest.describe(pictures, folders=folders)
    assert [row.name for row in rows] == [part.name for part in sources(shards)]
    assert pictures[0].read().getvalue() == sources(shards)[0].read().getvalue()


def test_a_damaged_shard_is_told(shards):
    (shards / "1.tar").write_bytes(b"no tar")
    with pytest.raises(FileError, match=r"Expected a tar shard \(got .*1\.tar: "):
        sources(shards)


def test_a_run_on_shards_goes_on_as_if_it_had_not_ended(config, shards, tmp_path):
    whole, parts = dataclasses.replace(config, steps=4), dataclasses.replace(config, steps=2)
    assert train(whole, dataset=shards, output=tmp_path / "whole", accelerator="cpu")
    assert train(parts, dataset=shards, output=tmp_path / "parts", accelerator="cpu")
    assert train(whole, dataset=shards, output=tmp_path / "parts", accelerator="cpu", resume=True)
    first, second = (
        torch.load(tmp_path / name / "latest.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
