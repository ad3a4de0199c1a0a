"""The page in a real browser, against Python: latents to the bit, pixels nearly."""

import base64
import functools
import io
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.ans import RansDecoder, RansEncoder
from PIL import Image, ImageCms

from glic_pyg import GLIC, bitstream
from glic_pyg.container import Bitstream, pack, unpack
from glic_pyg.image import to_8bit, to_pil
from glic_pyg.ledger import write_folder
from glic_pyg.tiles import Tiling

pytest.importorskip("onnx")

from glic_pyg.viewer import viewer_files

RUNTIME = Path(__file__).parents[2] / "node_modules" / "onnxruntime-web"

PIXELS = """(which) => {
  const rgba = glic.state.first[which];
  let text = "";
  for (let i = 0; i < rgba.length; i += 32768) text += String.fromCharCode(...rgba.subarray(i, i + 32768));
  return btoa(text);
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def serve():
    """Serve a folder: path -> address."""
    servers = []

    def start(folder):
        handler = functools.partial(Quiet, directory=folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def make_page(browser, serve, tmp_path_factory):
    """Write and open the page of a model: model -> the tab; it may have no error, and ask nobody else."""
    if not RUNTIME.is_dir():
        pytest.skip(f"needs {RUNTIME}, by `npm install onnxruntime-web`")
    errors = []

    def make(model):
        folder = tmp_path_factory.mktemp("page")
        write_folder(folder, viewer_files(model, RUNTIME), force=False)
        address = serve(folder)
        tab = browser.new_page(viewport={"width": 1200, "height": 800})
        tab.on("pageerror", lambda error: errors.append(error))
        tab.on("console", lambda message: message.type == "error" and errors.append(message.text))
        tab.on("request", lambda request: request.url.startswith(address) or errors.append(request.url))
        tab.goto(address)
        tab.evaluate("async () => { while (!globalThis.glic) await new Promise((r) => setTimeout(r, 10)); }")
        tab.evaluate("glic.loaded")
        return tab

    yield make
    assert not [error for error in errors if not str(error).startswith("blob:")]


@pytest.fixture(scope="module")
def tab(make_page, variable_model):
    return make_page(variable_model)


def open_file(tab, data, name="a.glic", *, where="#file"):
    tab.set_input_files(where, {"name": name, "mimeType": "", "buffer": data})
    tab.evaluate("glic.state.work")
    return tab.evaluate(
        "document.getElementById('error').hidden ? null : document.getElementById('error').innerText"
    )


def pixels(tab, which="raw"):
    width, height = tab.evaluate("[glic.state.first.width, glic.state.first.height]")
    data = np.frombuffer(base64.b64decode(tab.evaluate(PIXELS, which)), np.uint8)
    return data.reshape(height, width, 4)


def expected_pixels(model, data, **settings):
    stream = unpack(data)
    shape, quality = (stream.height, stream.width), stream.quality / 256
    y_hat = model.decode(stream.strings, shape, quality)
    return to_8bit(model.synthesise(y_hat, shape, **settings))[0].permute(1, 2, 0).numpy()


def assert_near(found, expected):
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert (difference > 2).mean() < 1e-4  # where a similarity meets its threshold, torch differs from itself
    assert difference.mean() < 0.01


@pytest.mark.parametrize(
    ("height", "width", "quality"), [(64, 64, 1), (100, 150, 2.5), (1, 1, 4), (257, 65, 4), (130, 200, 3.01)]
)
def test_latents_are_the_same_and_pixels_nearly(tab, variable_model, photo, height, width, quality):
    data = bitstream.encode(variable_model, photo(height, width), quality)
    assert open_file(tab, data) is None
    assert tab.evaluate("glic.state.first.checksum") == unpack(data).latent_checksum
    assert_near(pixels(tab)[..., :3], expected_pixels(variable_model, data))
    facts = tab.inner_text("#facts")
    assert f"{width} x {height}" in facts
    assert f"{quality:g} of 4" in facts
    assert f"{8 * len(data) / (height * width):.4f} bpp" in facts


def test_the_map_of_bits_has_all_bits(tab, variable_model, photo):
    data = bitstream.encode(variable_model, photo(192, 128), 4)
    assert open_file(tab, data) is None
    height, width, total = tab.evaluate(
        "(({ height, width, data }) => [height, width, data.reduce((a, b) => a + b)])(glic.state.first.bits)"
    )
    assert (height, width) == (12, 8)
    strings = unpack(data).strings
    # A string has up to 64 bits beyond its symbols', of the coder's state.
    assert 0 <= 8 * sum(map(len, strings)) - total <= 64 * len(strings)


def test_large_pictures_go_in_tiles(tab, variable_model, photo):
    data = bitstream.encode(variable_model, photo(70, 1100), 2)
    assert open_file(tab, data) is None
    tiled = expected_pixels(variable_model, data, tiling=Tiling(1024))
    assert (tiled != expected_pixels(variable_model, data)).any()
    assert_near(pixels(tab)[..., :3], tiled)


@pytest.mark.parametrize("side", [1, 1024, 1025, 1153, 2048, 3000, 4001, 65535])
def test_tiles_are_pythons(tab, side):
    found = tab.evaluate(
        """async (side) => {
          const { tiles } = await import("./tiles.js");
          return tiles(64, side, { side: 1024, margin: 64 })
            .map(({ columns: c }) => [c.start, c.stop, c.first, c.last]);
        }""",
        side,
    )
    assert found == [list(tile.columns) for tile in Tiling(1024).tiles(64, side)]


def test_the_range_coder_is_compressais(tab):
    """On tables with a few symbols and many, with values far outside of their rows."""
    rng = np.random.default_rng(0)
    rows, offsets = [], []
    for count in (3, 4, 20, 300):
        steps = rng.integers(1, 50, count)
        steps[rng.integers(count)] += 65536 - steps.sum()
        rows.append([0, *np.cumsum(steps).tolist()])
        offsets.append(-int(rng.integers(count - 1)))
    indexes = rng.integers(0, 4, 3000)
    values = (rng.standard_normal(3000) * 10.0 ** rng.integers(0, 7, 3000)).astype(int)
    width = max(map(len, rows))
    padded = [row + [0] * (width - len(row)) for row in rows]
    lengths = list(map(len, rows))
    expected = RansEncoder().encode_with_indexes(values.tolist(), indexes.tolist(), padded, lengths, offsets)
    again = RansDecoder().decode_with_indexes(expected, indexes.tolist(), padded, lengths, offsets)
    assert again == values.tolist()
    string, decoded, bits = tab.evaluate(
        """async ([rows, offsets, indexes, values]) => {
          const { Decoder, Encoder, Tables } = await import("./range_coder.js");
          const tables = new Tables({ rows, offsets }, 16);
          const encoder = new Encoder(tables);
          values.forEach((value, i) => encoder.value(value, indexes[i]));
          const string = encoder.finish();
          const decoder = new Decoder(string, tables);
          let bits = 0;
          const decoded = indexes.map((row) => [decoder.value(row), (bits += decoder.bits)][0]);
          decoder.finish();
          return [[...string], decoded, bits];
        }""",
        [rows, offsets, indexes.tolist(), values.tolist()],
    )
    assert bytes(string) == expected
    assert decoded == values.tolist()
    assert 0 <= 8 * len(expected) - bits <= 64


def test_broken_files_give_one_line(tab, variable_model, other_tiny_model, photo):
    data = bitstream.encode(variable_model, photo(64, 64), 2)
    stream = unpack(data)

    def changed(**values):
        return pack(Bitstream(**{**vars(stream), **values}))

    strings = stream.strings
    cases = {
        "not a picture": (b"GIF, nearly", "or a photo that this browser reads (got another)"),
        "empty": (b"", "a .glic file"),
        "cut": (data[:50], "damaged or cut short"),
        "a bit": (data[:40] + bytes([data[40] ^ 1]) + data[41:], "damaged or cut short"),
        "newer": (b"GLIC\x09" + data[5:], "a newer glic_pyg made it"),
        "older": (Path("tests/golden/files/version_2.glic").read_bytes(), "depend on the machine"),
        "model": (
            bitstream.encode(other_tiny_model, photo(64, 64)),
            f"Expected a file of model {variable_model.config.name}, {variable_model.identity.hex()} "
            f"(got one of model {other_tiny_model.identity.hex()})",
        ),
        "quality": (changed(quality=9 * 256), "Expected a quality in 1..4 (got 9)"),
        "too few strings": (changed(strings=strings[:-1]), "Expected 5 strings of one picture (got 4)"),
        "huge": (changed(height=65535, width=65535), "pixels (got 65535 x 65535)"),
        "large, of nothing": (changed(height=8000, width=8000), "cut short"),
        "latents": (changed(latent_checksum=1), "Expected latents with checksum 00000001"),
        "longer": (changed(strings=(strings[0] + bytes(4), *strings[1:])), "end with its last symbol"),
        "shorter": (changed(strings=(strings[0][:4], *strings[1:])), "cut short"),
    }
    for what, (broken, told) in cases.items():
        name = "a.gif" if what == "not a picture" else "a.glic"
        error = open_file(tab, broken, name)
        assert error is not None, what
        assert error.startswith(f"{name}: Expected ") and "\n" not in error and told in error, (what, error)
    assert open_file(tab, data) is None  # and goes on


def test_a_photo_becomes_a_file_that_python_decodes(tab, variable_model, photo):
    x = photo(70, 101)
    png = io.BytesIO()
    to_pil(x).save(png, "PNG")
    assert open_file(tab, png.getvalue(), "a.png") is None
    tab.locator("#quality").fill("3.25")
    tab.click("#encode button")
    tab.evaluate("glic.state.work")
    data = bytes(tab.evaluate("[...glic.state.first.bytes]"))
    stream = unpack(data)
    assert (stream.height, stream.width, stream.quality) == (70, 101, 832)
    decoded = bitstream.decode(variable_model, data)  # which compares the latents' checksum
    ours = bitstream.decode(variable_model, bitstream.encode(variable_model, to_8bit(x), 3.25))
    assert (decoded - ours).abs().mean() < 1e-3
    assert len(data) == pytest.approx(len(bitstream.encode(variable_model, to_8bit(x), 3.25)), rel=0.02)
    assert tab.evaluate("glic.state.second.name") == "a.png"  # to compare with
    mse = (to_8bit(decoded).double() - to_8bit(x).double()).square().mean()
    shown = float(tab.inner_text("#facts").split("PSNR")[1].split("dB")[0])
    assert shown == pytest.approx(float(10 * torch.log10(255**2 / mse)), abs=0.02)


def test_views_by_keyboard(tab, variable_model, photo):
    data = bitstream.encode(variable_model, photo(64, 96), 2)
    other = bitstream.encode(variable_model, photo(64, 96), 4)
    assert open_file(tab, data) is None
    assert tab.locator("input[value=slider]").is_disabled()
    assert open_file(tab, other, "b.glic", where="#otherFile") is None
    tab.keyboard.press("2")
    assert tab.locator("#split").is_visible()
    before = tab.evaluate("document.getElementById('other').style.clipPath")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.getElementById('other').style.clipPath") != before
    tab.keyboard.press("3")
    seen = tab.evaluate(
        "[...document.getElementById('overlay').getContext('2d').getImageData(0, 0, 96, 64).data]"
    )
    ours, theirs = (expected_pixels(variable_model, d).astype(int) for d in (data, other))
    difference = np.array(seen).reshape(64, 96, 4)[..., :3]
    assert np.abs(difference - np.clip(8 * np.abs(ours - theirs), 0, 255)).max() <= 16
    tab.keyboard.press("4")
    assert "bits per pixel" in tab.inner_text("#legend")
    tab.keyboard.press("+")
    assert tab.evaluate("document.getElementById('sheet').style.width") == "96px"


DROP = """(files) => {
  const dropped = new DataTransfer();
  for (const [name, bytes] of files) dropped.items.add(new File([Uint8Array.from(bytes)], name));
  dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, cancelable: true }));
}"""


def test_files_are_dropped(tab, variable_model, photo):
    """Two come together; a third begins anew; the next one comes beside it; and one begins anew."""
    files = [(f"{q}.glic", list(bitstream.encode(variable_model, photo(64, 64), q))) for q in (1, 2, 3)]
    expected = {(0, 1): ["1.glic", "2.glic"], (2,): ["3.glic", None], (0,): ["3.glic", "1.glic"]}
    for dropped, shown in (expected | {(1,): ["2.glic", None]}).items():
        tab.evaluate(DROP, [files[i] for i in dropped])
        tab.evaluate("glic.state.work")
        assert tab.evaluate("[glic.state.first.name, glic.state.second?.name]") == shown


def test_it_goes_on_when_webassembly_has_failed(tab, variable_model, photo):
    data = bitstream.encode(variable_model, photo(64, 64), 2)
    tab.evaluate("glic.state.worker.postMessage({ model: { groups: [4, 12] } })")  # in which nothing is right
    error = open_file(tab, data)
    assert error is not None and error.startswith("a.glic: ") and "\n" not in error
    assert open_file(tab, data) is None


def test_a_saved_png_has_the_pixels(tab, variable_model, photo):
    data = bitstream.encode(variable_model, photo(33, 50), 2)
    assert open_file(tab, data, "photo.glic") is None
    with tab.expect_download() as download:
        tab.click("#savePng")
    assert download.value.suggested_filename == "photo.png"
    with Image.open(download.value.path()) as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels(tab)[..., :3])


def test_alpha_grey_and_profiles_are_shown_and_saved(tab, variable_model, photo):
    stream = unpack(bitstream.encode(variable_model, photo(40, 30), 2))
    alpha = Image.linear_gradient("L").resize((30, 40))
    file = io.BytesIO()
    alpha.save(file, "PNG")
    more = {
        "version": 4,
        "channels": 2,
        "chunks": {"ALPH": file.getvalue(), "EXIF": b"II*\0\x08\0\0\0\0\0", "what": b"?"},
    }
    assert open_file(tab, pack(Bitstream(**{**vars(stream), **more}))) is None
    shown = pixels(tab)
    assert np.array_equal(shown[..., 3], np.asarray(alpha))
    assert np.array_equal(shown[..., 0], shown[..., 1])
    assert "grey, alpha, EXIF, what" in tab.inner_text("#facts")
    with tab.expect_download() as download:
        tab.click("#savePng")
    with Image.open(download.value.path()) as image:
        assert image.mode == "LA"
        assert np.array_equal(np.asarray(image), shown[..., [0, 3]])
        assert image.info["exif"].endswith(b"II*\0\x08\0\0\0\0\0")


def test_a_profile_is_honoured(tab, variable_model, photo):
    """One in which red and blue have changed places."""
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = swapped.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    stream = unpack(bitstream.encode(variable_model, photo(40, 30), 2))
    more = {"version": 4, "chunks": {"ICCP": swapped}}
    assert open_file(tab, pack(Bitstream(**{**vars(stream), **more}))) is None
    coded, shown = (pixels(tab, which)[..., :3].astype(int) for which in ("raw", "rgba"))
    assert np.abs(coded[..., 0] - coded[..., 2]).max() > 20
    assert np.abs(shown - coded[..., ::-1]).max() <= 3
    with tab.expect_download() as download:
        tab.click("#savePng")
    with Image.open(download.value.path()) as image:
        assert np.array_equal(np.asarray(image), coded)
        assert image.info["icc_profile"] == swapped


def test_the_shipped_model(make_page, photo):
    model = GLIC.from_pretrained("glic_nano")
    data = bitstream.encode(model, photo(100, 130), 3.7)
    tab = make_page(model)
    assert open_file(tab, data) is None
    assert tab.evaluate("glic.state.first.checksum") == unpack(data).latent_checksum
    assert_near(pixels(tab)[..., :3], expected_pixels(model, data))
