"""Folders of pictures: what is found, how it is split, which crops are drawn."""

import logging
import shutil

import pytest
import torch
from PIL import Image

from glic_pyg.config import ConfigError
from glic_pyg.image import read_image
from glic_pyg.training.data import RandomCrops, center_crops, find_pictures, split_pictures


def cut_short(path):
    """Leave a picture's header and no more than a part of its pixels."""
    path.write_bytes(path.read_bytes()[:-200])


def test_finds_pictures_below_and_reports_what_it_skips(photos, caplog):
    (photos / "notes.txt").write_text("no picture")
    (photos / "broken.png").write_text("no picture either")
    Image.new("RGB", (100, 63)).save(photos / "small.png")
    Image.new("RGB", (63, 100)).save(photos / "very_small.png")
    found = find_pictures(photos, least_size=64)
    assert [path.relative_to(photos).as_posix() for path in found] == [
        "more/p.jpg", "p0.png", "p1.png", "p2.png", "p3.png", "p4.png",
    ]  # fmt: skip
    assert len(caplog.messages) == 2
    assert "broken.png" in caplog.messages[0]
    assert caplog.messages[1].startswith("Skipped 2 of 9 pictures, the first ")
    assert caplog.messages[1].endswith("small.png: Expected at least 64 pixels a side")


def test_refuses_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"Expected a folder of pictures \(got .*nowhere\)"):
        find_pictures(tmp_path / "nowhere", least_size=64)


def test_split_is_disjoint_and_depends_on_relative_names_alone(photos, tmp_path):
    pictures = find_pictures(photos, least_size=64)
    training, held_out = split_pictures(pictures, folder=photos, eval_share=0.34)
    assert len(held_out) == 2
    assert sorted(training + held_out) == pictures

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(photos, elsewhere)
    moved = split_pictures(
        [elsewhere / p.relative_to(photos) for p in reversed(pictures)], folder=elsewhere, eval_share=0.34
    )
    for before, after in zip((training, held_out), moved, strict=True):
        assert [p.relative_to(photos) for p in before] == [p.relative_to(elsewhere) for p in after]


def test_at_least_one_picture_is_held_out(photos):
    pictures = find_pictures(photos, least_size=64)
    training, held_out = split_pictures(pictures, folder=photos, eval_share=0.001)
    assert (len(training), len(held_out)) == (5, 1)


def test_center_crops_leave_out_what_cannot_be_decoded(photos, caplog):
    cut_short(photos / "p1.png")
    crops = center_crops([photos / "p0.png", photos / "p1.png"], size=64)
    torch.testing.assert_close(crops, read_image(photos / "p0.png")[..., 3:67, 13:77])
    assert len(caplog.messages) == 1
    assert "p1.png" in caplog.messages[0]
    with pytest.raises(
        ConfigError, match=r"Expected pictures to evaluate on \(got 1 that cannot be decoded\)"
    ):
        center_crops([photos / "p1.png"], size=64)


def test_random_crops_are_windows_everywhere_and_mirrored_half_the_time(photos):
    x = read_image(photos / "p0.png")
    windows = {}
    for row in range(7):
        for column in range(27):
            window = x[0, :, row : row + 64, column : column + 64]
            windows[window.numpy().tobytes()] = (row, column, False)
            windows[window.flip(-1).contiguous().numpy().tobytes()] = (row, column, True)
    samples = RandomCrops([photos / "p0.png"], qualities=3, seed=0)
    drawn = [samples[i, 64] for i in range(400)]
    seen = [windows[x.contiguous().numpy().tobytes()] for x, _ in drawn]
    assert {row for row, _, _ in seen} == set(range(7))
    assert {column for _, column, _ in seen} == set(range(27))
    assert 150 < sum(mirrored for _, _, mirrored in seen) < 250
    assert all(100 < sum(quality == q for _, quality in drawn) < 170 for q in (1, 2, 3))


def test_every_picture_comes_once_an_epoch_in_changing_order(photos):
    pictures = find_pictures(photos, least_size=64)
    crops = RandomCrops(pictures, qualities=1, seed=0)
    origins = {}
    for path in pictures:
        x = read_image(path)[0]
        for row in range(7):
            for column in range(27):
                window = x[:, row : row + 64, column : column + 64]
                for w in (window, window.flip(-1)):
                    origins[w.contiguous().numpy().tobytes()] = path.name
    epochs = [
        [origins[crops[6 * e + i, 64][0].contiguous().numpy().tobytes()] for i in range(6)] for e in range(3)
    ]
    assert all(sorted(epoch) == sorted(path.name for path in pictures) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_sample_depends_on_seed_and_index_alone(photos):
    pictures = find_pictures(photos, least_size=64)
    first, second = (RandomCrops(pictures, qualities=1, seed=1) for _ in range(2))
    forwards = [first[i, 64][0] for i in range(8)]
    backwards = [second[i, 64][0] for i in reversed(range(8))]
    assert all(torch.equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    other = RandomCrops(pictures, qualities=1, seed=2)
    assert not any(torch.equal(a, other[i, 64][0]) for i, a in enumerate(forwards))


def test_another_picture_is_drawn_for_a_broken_one_and_it_is_reported_once(photos, caplog):
    caplog.set_level(logging.WARNING)
    cut_short(photos / "p1.png")
    samples = RandomCrops([photos / "p0.png", photos / "p1.png"], qualities=1, seed=0)
    crops = [samples[i, 64][0] for i in range(20)]
    assert all(crop.shape == (3, 64, 64) for crop in crops)
    assert len(caplog.messages) == 1
    # The same samples come from a data set that does not know yet which picture is broken.
    fresh = RandomCrops(samples.pictures, qualities=1, seed=0)
    assert torch.equal(fresh[19, 64][0], crops[19])


def test_nothing_but_broken_pictures_is_refused(photos):
    cut_short(photos / "p1.png")
    samples = RandomCrops([photos / "p1.png"], qualities=1, seed=0)
    with pytest.raises(ConfigError, match=r"Expected pictures to train on \(got 1 that cannot be decoded\)"):
        samples[0, 64]
