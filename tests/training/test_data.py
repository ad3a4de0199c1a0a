"""Folders of pictures: what is found, how it is split, which crops are drawn."""

import logging
import os
import shutil

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from glic_pyg.config import ConfigError
from glic_pyg.image import read_image, read_pixels
from glic_pyg.training.data import (
    Draw,
    Pixels,
    RandomCrops,
    RandomDraws,
    center_crops,
    find_and_split,
    find_pictures,
    folders_by_prefix,
    split_pictures,
)


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


def test_names_that_are_no_text_are_split_too(photos):
    pictures = [photos / os.fsdecode(name) for name in (b"\xff.png", b"\xfe.png", b"a.png")]
    training, held_out = split_pictures(pictures, folder=photos, eval_share=0.3)
    assert sorted(training + held_out) == sorted(pictures)


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


def pictures_of(paths):
    return Pixels([read_pixels(path) for path in paths])


def test_crops_of_a_batch_are_windows_mirrored_then_transposed(photos):
    paths = [photos / "p0.png", photos / "more" / "p.jpg", photos / "p1.png"]
    draws = [Draw(1, 0.99, 0.0, False, False, 1.0), Draw(2, 0.5, 0.4, True, False, 1.0)]
    draws += [Draw(0, 0.0, 0.6, False, True, 1.0), Draw(1, 0.2, 0.2, True, True, 1.0)]
    crops = pictures_of(paths).crop(torch.cat([draw.row() for draw in draws]), 64)
    x = [read_image(path)[0] for path in paths]
    expected = [
        x[1][:, 6:70, :64],
        x[2][:, 3:67, 10:74].flip(2),
        x[0][:, :64, 16:80].transpose(1, 2),
        x[1][:, 1:65, 5:69].flip(2).transpose(1, 2),
    ]
    assert torch.equal(crops, torch.stack(expected))


def test_scaled_crops_are_those_of_a_scaled_window(photos):
    pixels = pictures_of([photos / "p0.png", photos / "p1.png"])
    draws = [
        Draw(0, 0.3, 0.8, False, False, 0.7),
        Draw(1, 0.9, 0.1, True, True, 1.0),
        Draw(1, 0, 0, False, False, 0.6),
    ]
    crops = pixels.crop(torch.cat([draw.row() for draw in draws]), 32, least_scale=0.6)
    first, second = (read_image(photos / name) for name in ("p0.png", "p1.png"))

    def scaled(x):
        return F.interpolate(x, size=(32, 32), mode="bicubic", antialias=True).clamp(0, 1)[0]

    # 32 / 0.7 and 32 / 0.6, rounded, of 70 x 90.
    torch.testing.assert_close(crops[0], scaled(first[..., 7:53, 36:82]), atol=1e-5, rtol=0)
    torch.testing.assert_close(crops[1], second[0, :, 35:67, 5:37].flip(2).transpose(1, 2))
    torch.testing.assert_close(crops[2], scaled(second[..., :53, :53]), atol=1e-5, rtol=0)


def test_where_a_picture_is_small_the_whole_of_its_shorter_side_is_scaled(photos):
    crop = pictures_of([photos / "p0.png"]).crop(
        Draw(0, 0.9, 0.5, False, False, 0.5).row(), 64, least_scale=0.5
    )
    window = read_image(photos / "p0.png")[..., 10:80]
    expected = F.interpolate(window, size=(64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(crop, expected, atol=1e-5, rtol=0)


def test_transposed_half_the_time_and_scaled_evenly(photos):
    samples = RandomCrops([photos / "p0.png"], qualities=1, seed=0, transpose=True, least_scale=0.6)
    draws = [samples.draw(i, lambda _: True)[0] for i in range(400)]
    assert 150 < sum(draw.transpose for draw in draws) < 250
    assert 150 < sum(draw.transpose == draw.mirror for draw in draws) < 250
    scales = sorted(draw.scale for draw in draws)
    assert all(abs(scale - (0.6 + 0.4 * i / 400)) < 0.05 for i, scale in enumerate(scales))


def test_augmentation_leaves_what_is_drawn_besides_alone(photos):
    pictures = find_pictures(photos, least_size=64)
    plain = RandomCrops(pictures, qualities=3, seed=0)
    more = RandomCrops(pictures, qualities=3, seed=0, transpose=True, least_scale=0.6)
    for i in range(20):
        (draw, quality, _), (other, same, _) = (some.draw(i, lambda _: True) for some in (plain, more))
        assert (draw[:4], quality) == (other[:4], same)
        assert draw[4:] == (False, 1.0)


@pytest.mark.parametrize("settings", [{}, {"transpose": True, "least_scale": 0.6}])
def test_samples_of_pictures_in_memory_are_those_of_files(photos, settings):
    cut_short(photos / "p1.png")
    pictures = find_pictures(photos, least_size=64)
    files = RandomCrops(pictures, qualities=3, seed=0, **settings)
    memory = RandomDraws(pictures, qualities=3, seed=0, **settings)
    memory.broken = {pictures.index(photos / "p1.png")}
    draws, qualities, size = RandomDraws.collate([memory[i, 64] for i in range(20)])
    none = torch.empty(1, 3, 0, 0, dtype=torch.uint8)
    pixels = Pixels([none if path.name == "p1.png" else read_pixels(path) for path in pictures])
    crops = pixels.crop(draws, size, least_scale=memory.least_scale)
    expected = [files[i, 64] for i in range(20)]
    assert qualities.tolist() == [quality for _, quality in expected]
    torch.testing.assert_close(crops, torch.stack([x for x, _ in expected]), atol=1e-6, rtol=0)


def test_every_folder_has_its_held_out_pictures_whatever_the_others(photos, tmp_path, config):
    shutil.copytree(photos, tmp_path / "other")
    alone = find_and_split(folders_by_prefix(photos), config=config)
    both = find_and_split(folders_by_prefix([photos, tmp_path / "other"]), config=config)
    for one, two in zip(alone, both, strict=True):
        assert two == one + [tmp_path / "other" / path.relative_to(photos) for path in one]
    for path in (tmp_path / "other").glob("p*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"Expected at least 2 usable pictures in .*other \(got 1\)"):
        find_and_split(folders_by_prefix([photos, tmp_path / "other"]), config=config)


def test_folders_are_told_by_their_names(photos, tmp_path):
    assert folders_by_prefix(photos) == {"": photos}
    assert folders_by_prefix([tmp_path / "b" / ".." / "a", photos]) == {
        "a/": tmp_path / "b" / ".." / "a", "photos/": photos,
    }  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"Expected folders of different names \(got .*photos and .*photos\)"
    ):
        folders_by_prefix([photos, tmp_path / "b" / "photos"])
    message = r"^Expected folders of different names \(got s3://a/x and s3://b/x\)$"
    with pytest.raises(ConfigError, match=message):
        folders_by_prefix(["s3://a/x", "s3://b/x/"])
    for other in (photos, photos / "more"):
        with pytest.raises(ConfigError, match=r"Expected folders apart from each other \(got "):
            folders_by_prefix([photos, other])
