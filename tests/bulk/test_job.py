"""A collection in this process: what is missing is done, and the table is true."""

import errno
import fcntl
import io
import json
import os
import subprocess
import sys
import tarfile
import threading

import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from glic_pyg import bitstream  # noqa: E402
from glic_pyg.bulk import Decoder, Encoder, Evaluator, job  # noqa: E402
from glic_pyg.bulk.deaths import Mark  # noqa: E402
from glic_pyg.bulk.table import PARTS, RESULTS, mark_name  # noqa: E402
from glic_pyg.bulk.worker import File, Worker  # noqa: E402
from glic_pyg.errors import FileError, UserError  # noqa: E402
from glic_pyg.image import png_bytes, read_image, to_8bit  # noqa: E402
from glic_pyg.metrics import psnr  # noqa: E402
from glic_pyg.places import Place  # noqa: E402


class Died(Exception):
    """Of all nodes."""


class Killed(BaseException):
    """Of one process; whoever catches it is in another."""


class Killer(Encoder):
    """Pictures of 40 rows kill its process."""

    def code(self, source):
        coded = super().code(source)
        if coded.height == 40:
            raise Killed
        return coded


@pytest.fixture
def engine():
    """What an engine does, in this process; it dies after as many batches as it has lives."""

    class Engine:
        lives = 1000
        deaths = 0

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def __call__(self, work, settings, items):
            self.handed_out = [item["batch"] for item in items]
            worker = work(**settings)
            for number, item in enumerate(items):
                if number == self.lives:
                    raise Died
                while True:
                    try:
                        yield worker(item)
                        break
                    except Killed:
                        self.deaths += 1
                        worker = work(**settings)

    return Engine()


@pytest.fixture
def photos(photo, tmp_path):
    """Three pictures in a folder, one of them broken."""
    folder = tmp_path / "photos" / "sub"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png_bytes(photo(48, 64)))
    (folder / "a.bmp").write_bytes(b"no picture")
    Image.effect_noise((40, 40), 50).convert("RGB").save(folder.parent / "b.png")
    return folder.parent


def rows_of(folder):
    return {(row["path"], row["member"]): row for row in pq.read_table(folder / RESULTS).to_pylist()}


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (RESULTS, "lock")
    }


def test_there_and_back(photos, tiny_model, engine, tmp_path):
    coded, restored = tmp_path / "coded", tmp_path / "restored"
    summary = job.run(Encoder, {"model": tiny_model}, f"{photos}/", f"{coded}", engine=engine)
    assert (summary.pictures, summary.new, summary.failed) == (3, 3, 1)
    assert summary.first_error.startswith("Expected a picture (got sub/a.bmp: ")
    expected = {
        name: bitstream.encode(tiny_model, read_image(photos / source))
        for name, source in (("b.glic", "b.png"), ("sub/a.png.glic", "sub/a.png"))
    }
    assert files_in(coded) == expected
    rows = rows_of(coded)
    assert [(row["output"], bool(row["error"])) for row in rows.values()] == [
        ("b.glic", False), ("", True), ("sub/a.png.glic", False)
    ]  # fmt: skip
    row = rows["sub/a.png", ""]
    assert row["bytes"] == len(expected["sub/a.png.glic"])
    assert row["bpp"] == pytest.approx(8 * row["bytes"] / (48 * 64))
    assert row["psnr"] is None

    summary = job.run(Decoder, {"model": tiny_model}, str(coded), str(restored), engine=engine)
    assert (summary.pictures, summary.failed) == (2, 0)
    x_hat = bitstream.decode(tiny_model, expected["b.glic"])
    assert (to_8bit(read_image(restored / "b.png")) == to_8bit(x_hat)).all()


def test_a_second_start_does_what_is_missing_by_content(photos, tiny_model, engine, tmp_path):
    coded = tmp_path / "coded"

    def start(**settings):
        return job.run(Encoder, {"model": tiny_model, **settings}, str(photos), str(coded), engine=engine).new

    assert start() == 3
    before, rows = files_in(coded), rows_of(coded)
    for path in photos.rglob("*"):
        os.utime(path)
    assert start() == 1  # the broken one is tried again
    assert files_in(coded) == before
    assert rows_of(coded)["b.png", ""] == rows["b.png", ""]  # seconds too
    (coded / "b.glic").write_bytes(b"damaged")
    assert start() == 2
    assert files_in(coded) == before
    (coded / "b.glic").unlink()
    assert start() == 2
    assert files_in(coded) == before
    (photos / "b.png").write_bytes((photos / "sub" / "a.png").read_bytes())
    assert start() == 2
    assert files_in(coded)["b.glic"] == before["sub/a.png.glic"]
    assert start(strip=True) == 3


def test_what_was_written_before_a_death_is_not_done_again(photos, tiny_model, engine, tmp_path, monkeypatch):
    """And the rows of a batch that is handed out twice are there once."""
    arguments = (Encoder, {"model": tiny_model}, str(photos), str(tmp_path / "coded"))
    engine.lives = 2
    with pytest.raises(Died):
        job.run(*arguments, engine=engine, batch=1)
    assert len(list((tmp_path / "coded" / PARTS).glob("*.parquet"))) == 2
    engine.lives = 1000
    summary = job.run(*arguments, engine=engine, batch=1)
    assert (summary.pictures, summary.new) == (3, 1)
    assert len(rows_of(tmp_path / "coded")) == 3

    worker = Worker(*arguments)
    item = {"batch": "x", "files": [["b.png", "b.glic", "", ""]]}
    worker(item)
    monkeypatch.setattr(worker.target, "write", None)  # it writes nothing now
    worker(item)


def test_a_picture_that_kills_its_process_is_an_error(photos, tiny_model, engine, tmp_path):
    """After three deaths: in its batch, and twice when it is known to be begun."""
    coded = tmp_path / "coded"
    arguments = (Killer, {"model": tiny_model}, str(photos), str(coded))
    for start in (1, 2):
        summary = job.run(*arguments, engine=engine)
        assert (summary.pictures, summary.failed, engine.deaths) == (3, 2, 3 * start)
    error = "Expected a file that its process outlives (got b.png, at which 2 have died)"
    assert rows_of(coded)["b.png", ""]["error"] == error
    data = bitstream.encode(tiny_model, read_image(photos / "sub" / "a.png"))
    assert files_in(coded) == {"sub/a.png.glic": data}  # and no mark

    (batch,) = engine.handed_out  # what ended an earlier start is not held against a picture
    (coded / PARTS / f"{batch}.begun").write_text('{"at": "b.png", "deaths": {"b.png": 9}}')
    assert job.run(*arguments, engine=engine).failed == 2
    assert engine.deaths == 9


@pytest.mark.parametrize("suffix", ["tar", "parquet"])
def test_the_others_of_a_shard_outlive_it(photos, tiny_model, engine, tmp_path, suffix):
    shards, coded = tmp_path / "shards", tmp_path / "coded"
    shards.mkdir()
    names = ["b.png", "sub/a.png"]
    if suffix == "tar":
        with tarfile.open(shards / "0.tar", "w") as tar:
            for name in names:
                tar.add(photos / name, name)
    else:
        pictures = [(photos / name).read_bytes() for name in names]
        pq.write_table(pa.table({"image": pictures}), shards / "0.parquet")
    summary = job.run(Killer, {"model": tiny_model}, str(shards), str(coded), engine=engine)
    assert (summary.pictures, summary.failed, engine.deaths) == (2, 1, 3)
    assert "at which 2 have died" in summary.first_error
    data = bitstream.encode(tiny_model, read_image(photos / "sub" / "a.png"))
    if suffix == "tar":
        with tarfile.open(coded / "0.tar") as tar:
            assert {member.name: tar.extractfile(member).read() for member in tar} == {"sub/a.glic": data}
    else:
        assert pq.read_table(coded / "0.parquet")["image"].to_pylist() == [None, data]


def test_a_batch_that_kills_before_any_picture_is_an_error(photos, tiny_model, tmp_path, monkeypatch):
    """As a shard larger than the disk may."""

    def kill(*arguments):
        raise Killed

    worker = Worker(Encoder, {"model": tiny_model}, str(photos), str(tmp_path / "coded"))
    item = {"batch": "x", "files": [["0.tar", "0.tar", "", ""]]}
    monkeypatch.setattr(worker.source, "fetch", kill)
    for _ in range(3):
        with pytest.raises(Killed):
            worker(item)
    worker(item)
    (row,) = pq.read_table(tmp_path / "coded" / PARTS / "x.parquet").to_pylist()
    assert (row["path"], row["error"]) == (
        "0.tar",
        "Expected a file that its process outlives (got its batch, at which 2 have died)",
    )


def test_half_a_mark_is_one(tmp_path):
    """As some file systems keep it where a process died that wrote it."""
    place = Place(str(tmp_path))
    for half in (b"", b'{"at": "b.p'):
        place.write(mark_name("x"), half)
        mark = Mark(place, "x")
        assert mark.begin("b.png") == ""
        assert json.loads(place.read(mark_name("x"), 100).getvalue()) == {"at": "b.png", "deaths": {}}


def test_what_codes_is_made_once_and_its_error_is_no_picture_s(photos, tmp_path):
    """However many threads read; as a node that lacks the model."""
    made_by = []

    class Lost(Encoder):
        def __init__(self):
            made_by.append(threading.current_thread())
            raise FileError("Expected a model")

    worker = Worker(Lost, {}, str(photos), str(tmp_path / "coded"))
    with pytest.raises(FileError, match="Expected a model"):
        worker({"batch": "x", "files": [["b.png", "b.glic"], ["sub/a.png", "a.glic"]]})
    assert made_by == [threading.current_thread()]


def test_a_disk_without_locks(photos, tiny_model, engine, tmp_path, monkeypatch):
    def flock(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match=r"Expected locks on the disk of .* \(got: No locks available\)"):
        job.run(Encoder, {"model": tiny_model}, str(photos), str(tmp_path / "coded"), engine=engine)
    assert "b.glic" in files_in(tmp_path / "coded")


def test_two_starts_on_one_folder(photos, tiny_model, engine, tmp_path):
    """The second is refused; a lock that a dead process left is none."""
    target = tmp_path / "coded"
    arguments = (Encoder, {"model": tiny_model}, str(photos), str(target))

    class Second:
        def __enter__(self):
            with pytest.raises(FileError, match=rf"^Expected no other start at work on {target} \(got one"):
                job.run(*arguments, engine=engine)
            return engine

        def __exit__(self, *error):
            pass

    assert job.run(*arguments, engine=Second()).new == 3
    hold = "import fcntl, os, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX); os._exit(9)"
    path = tmp_path / "new" / PARTS / "lock"
    path.parent.mkdir(parents=True)
    assert subprocess.run([sys.executable, "-c", hold, path]).returncode == 9
    assert path.exists()
    assert job.run(*arguments[:3], str(tmp_path / "new"), engine=engine).new == 3


def test_what_cannot_be_is_refused_before_the_engine_begins(photos, tiny_model, tmp_path):
    class Never:
        def __enter__(self):
            raise AssertionError

    for settings, message in (
        ({"model": "nothing.safetensors"}, "nothing.safetensors"),
        ({"model": tiny_model, "quality": 99}, "got 99"),
    ):
        with pytest.raises(UserError, match=message):
            job.run(Encoder, settings, str(photos), str(tmp_path / "coded"), engine=Never())
    assert not (tmp_path / "coded").exists()


def test_an_error_without_a_message_is_one(photos, tiny_model, tmp_path, monkeypatch):
    """As a store's that answers too late."""

    def late(*arguments):
        raise TimeoutError

    worker = Worker(Encoder, {"model": tiny_model}, str(photos), str(tmp_path / "coded"))
    monkeypatch.setattr(worker.source, "read", late)
    worker({"batch": "x", "files": [["b.png", "b.glic", "", ""]]})
    (row,) = pq.read_table(tmp_path / "coded" / PARTS / "x.parquet").to_pylist()
    assert row["error"] == "TimeoutError"


def test_figures_without_outputs(photos, tiny_model, engine, tmp_path):
    arguments = (Evaluator, {"model": tiny_model}, str(photos), str(tmp_path / "figures"))
    job.run(*arguments, engine=engine, writes=False)
    assert files_in(tmp_path / "figures") == {}
    row = rows_of(tmp_path / "figures")["b.png", ""]
    x = read_image(photos / "b.png")
    data = bitstream.encode(tiny_model, x)
    assert (row["bytes"], row["output"]) == (len(data), "")
    assert row["psnr"] == pytest.approx(psnr(x, bitstream.decode(tiny_model, data)))
    assert job.run(*arguments, engine=engine, writes=False).new == 1


def test_a_tar_becomes_a_tar(photos, tiny_model, engine, tmp_path):
    shards, coded = tmp_path / "shards", tmp_path / "coded"
    shards.mkdir()
    with tarfile.open(shards / "0.tar", "w") as tar:
        for name in ("sub/a.png", "sub/a.bmp", "b.png"):
            tar.add(photos / name, name)
        about = tarfile.TarInfo("b.cls")
        about.size = 1
        tar.addfile(about, io.BytesIO(b"7"))
    (shards / "1.tar").write_bytes(b"no tar")
    arguments = (Encoder, {"model": tiny_model}, str(shards), str(coded))
    summary = job.run(*arguments, engine=engine)
    assert (summary.pictures, summary.failed) == (4, 2)  # the damaged shard is a row
    with tarfile.open(coded / "0.tar") as tar:
        made = {member.name: tar.extractfile(member).read() for member in tar}
    data = bitstream.encode(tiny_model, read_image(photos / "b.png"))
    assert list(made) == ["sub/a.png.glic", "b.glic", "b.cls"]
    assert (made["b.glic"], made["b.cls"]) == (data, b"7")
    rows = rows_of(coded)
    assert rows["0.tar", "b.png"]["bytes"] == len(data)
    assert rows["0.tar", "sub/a.bmp"]["error"].startswith("Expected a picture (got 0.tar/sub/a.bmp: ")
    assert rows["1.tar", ""]["error"].startswith("Expected a tar (got 1.tar: ")
    assert job.run(*arguments, engine=engine).new == 1  # the damaged shard is tried again
    (shards / "0.tar").rename(shards / "2.TAR")
    one = job.run(*arguments[:2], str(shards / "2.TAR"), str(shards / "one"), engine=engine)
    assert (one.pictures, one.failed) == (3, 1)
    assert files_in(shards / "one")["2.TAR"] == files_in(coded)["0.tar"]


def test_names_in_a_tar_stay_what_they_are(photos, tiny_model, engine, tmp_path):
    """Whose samples are told by names, ./ among them; a name may be any bytes, which the table escapes."""
    shards, coded = tmp_path / "shards", tmp_path / "coded"
    shards.mkdir()
    latin = os.fsdecode(b"\xe9.bmp")
    with tarfile.open(shards / "0.tar", "w") as tar:
        tar.add(photos / "b.png", "./sub dir/b.png")
        tar.addfile(tarfile.TarInfo("./sub dir/b.cls"))
        tar.add(photos / "sub" / "a.bmp", latin)
    with tarfile.open(shards / "1.tar", "w:gz") as tar:
        tar.add(photos / "b.png", "b.png")
    (shards / "1.tar").write_bytes((shards / "1.tar").read_bytes()[:-200])
    summary = job.run(Encoder, {"model": tiny_model}, str(shards), str(coded), engine=engine)
    assert (summary.pictures, summary.failed) == (3, 2)
    with tarfile.open(coded / "0.tar") as tar:
        assert tar.getnames() == ["./sub dir/b.glic", "./sub dir/b.cls"]
    rows = rows_of(coded)
    assert rows["0.tar", "\\udce9.bmp"]["error"].startswith("Expected a picture (got 0.tar/\\udce9.bmp: ")
    assert rows["1.tar", ""]["error"].startswith("Expected a tar (got 1.tar: ")


@pytest.mark.parametrize("nested", [False, True])
def test_a_parquet_file_becomes_one(photos, tiny_model, engine, tmp_path, nested):
    shards, coded = tmp_path / "shards", tmp_path / "coded"
    shards.mkdir()
    data = [(photos / name).read_bytes() for name in ("b.png", "sub/a.bmp")]
    pictures = [{"bytes": one, "path": "x"} for one in data] if nested else data
    pq.write_table(pa.table({"image": pictures, "label": [3, 4]}), shards / "0.parquet")
    summary = job.run(Encoder, {"model": tiny_model}, str(shards), str(coded), engine=engine)
    assert (summary.pictures, summary.failed) == (2, 1)
    table = pq.read_table(coded / "0.parquet")
    made = [image["bytes"] if nested else image for image in table["image"].to_pylist()]
    assert made == [bitstream.encode(tiny_model, read_image(photos / "b.png")), None]
    assert table["label"].to_pylist() == [3, 4]
    assert rows_of(coded)["0.parquet", "1"]["error"].startswith("Expected a picture (got 0.parquet/1: ")

    pq.write_table(pa.table({"label": [3, 4]}), shards / "0.parquet")
    summary = job.run(Encoder, {"model": tiny_model}, str(shards), str(coded), engine=engine)
    assert summary.first_error == "Expected one column of pictures' bytes in 0.parquet (got none)"


def test_an_object_store_by_its_url(photos, tiny_model, engine):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.put(f"{photos}/", "/bucket/photos/", recursive=True)
    arguments = (Encoder, {"model": tiny_model}, "memory://bucket/photos", "memory://bucket/coded")
    assert job.run(*arguments, engine=engine).new == 3
    data = bitstream.encode(tiny_model, read_image(photos / "b.png"))
    assert store.cat("/bucket/coded/b.glic") == data
    store.pipe("/bucket/coded/b.glic", b"damaged")
    assert job.run(*arguments, engine=engine).new == 2
    assert store.cat("/bucket/coded/b.glic") == data


def test_targets_of_others_are_left_alone(photos, tiny_model, engine, tmp_path):
    arguments = (Encoder, {"model": tiny_model}, str(photos))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.glic").write_bytes(b"precious")
    with pytest.raises(FileError, match="Expected a target that is empty or of an earlier call"):
        job.run(*arguments, str(tmp_path / "other"), engine=engine)
    assert (tmp_path / "other" / "b.glic").read_bytes() == b"precious"
    for inside in (photos, photos / "coded", tmp_path):
        with pytest.raises(FileError, match="Expected a target apart from the source"):
            job.run(*arguments, str(inside), engine=engine)
    with pytest.raises(FileError, match=r"Expected pictures, or shards of them, in .*/no"):
        job.run(*arguments[:2], str(tmp_path / "no"), str(tmp_path / "out"), engine=engine)


def test_a_single_file_is_never_its_own_output(photos, tiny_model, engine, tmp_path):
    with tarfile.open(photos / "0.tar", "w") as tar:
        tar.add(photos / "b.png", "b.png")
    before = (photos / "0.tar").read_bytes()
    (tmp_path / "link").symlink_to(photos)
    for target in (f"{photos}/", str(tmp_path / "link")):
        with pytest.raises(FileError, match="Expected a target apart from the source"):
            job.run(Encoder, {"model": tiny_model}, f"{photos}/0.tar/", target, engine=engine, force=True)
    assert (photos / "0.tar").read_bytes() == before


def test_tables_of_folders_below_are_no_shards(photos, tiny_model, engine, tmp_path):
    for day in ("a", "b"):
        job.run(Encoder, {"model": tiny_model}, str(photos), str(tmp_path / "coded" / day), engine=engine)
    arguments = Decoder, {"model": tiny_model}, str(tmp_path / "coded"), str(tmp_path / "restored")
    summary = job.run(*arguments, engine=engine)
    assert (summary.pictures, summary.failed) == (4, 0)


def test_names_that_are_no_text_are_left_out(photos, tiny_model, engine, tmp_path):
    (photos / os.fsdecode(b"\xff.png")).write_bytes(b"")
    (photos / "b.png").rename(photos / "b\u202f\u00e9.png")  # as macOS names screenshots
    with pytest.warns(UserWarning, match=r"Expected a name in UTF-8 \(got \\xff.png\): left out"):
        job.run(Encoder, {"model": tiny_model}, str(photos), str(tmp_path / "coded"), engine=engine)
    assert "b\u202f\u00e9.glic" in files_in(tmp_path / "coded")


def test_batches_hold_few_files_and_few_bytes(monkeypatch):
    monkeypatch.setattr(job, "BATCH_BYTES", 10)
    sizes = {"a": 3, "b": 12, "c": 3, "d": 3, "e": 3, "s.tar": 1}
    found = list(job.batches([File(name, "") for name in sizes], sizes, 3))
    assert [[file.name for file in batch] for batch in found] == [["b"], ["a", "c", "d"], ["s.tar"], ["e"]]
