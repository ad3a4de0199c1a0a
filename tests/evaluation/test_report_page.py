"""A page keeps whatever text it is given as text, and says the result in a sentence."""

import json
import shutil
from html.parser import HTMLParser

import pytest
import torch

from glic_pyg.evaluation.bd import Curve, CurveError, Delta, Pictures, PicturesError
from glic_pyg.evaluation.codecs import PillowCodec
from glic_pyg.evaluation.report_page import UNLIKE, Comparison, build_page
from glic_pyg.evaluation.viewer import Restored, shown_picture

NAMES = [
    "<!--<script>",
    "</script><script>window.hit = 1</script>",
    '"><img src=x onerror="window.hit = 1">',
    "' onload='window.hit = 1",
    "-->&lt;b&gt;",
    "$\\frac{",
    "_a",
    "__proto__",
    "{{ 7 * 7 }}",
    "]]></svg><h1>",
]
COLUMNS = {"quality": [1.0], "bpp": [0.25], "psnr-rgb": [30.5]}


def compared(curves, deltas, label="PSNR (RGB) in dB"):
    return Comparison("PSNR", label, curves, deltas, "cubic")


def make_page(comparisons, *, names, title="title", command="command", pictures=()):
    return build_page(
        title=title,
        about="about",
        command=command,
        results=[{"name": n, "results": COLUMNS, "settings": {n: n}, "command": n} for n in names],
        comparisons=comparisons,
        most_bpp=1,
        complexity=[],
        pictures=pictures,
    )


@pytest.fixture(scope="module")
def page():
    curves = [Curve(name, (0.1, 0.2), (30.0, 32.0 + i)) for i, name in enumerate(NAMES)]
    deltas = [
        [None if i == j else CurveError(name) for j, _ in enumerate(NAMES)] for i, name in enumerate(NAMES)
    ]
    jpeg = PillowCodec("jpeg")
    pictures = []
    for i, name in enumerate(NAMES):
        x = torch.full((1, 3, 40, 60), i / 20)
        data = jpeg.encode(x, 50)
        pictures.append(shown_picture(name, x, [Restored(name, data, x, jpeg.decode(data))]))
    return make_page(
        [compared(curves, deltas)], names=NAMES, title=NAMES[0], command=NAMES[1], pictures=pictures
    )


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.texts = {}
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.setdefault(self.tags[-1] if self.tags else "", []).append(data)


def test_text_stays_text(page):
    reader = Reader()
    reader.feed(page)

    def texts(tag):
        return [text for text in reader.texts[tag] if text.strip()]

    assert texts("title") == texts("h1") == [NAMES[0]]
    assert texts("code") == [*NAMES, NAMES[1]]
    assert [text.rpartition(": ")[0] for text in texts("summary")] == NAMES
    assert texts("li") == NAMES[:-1]  # each pair once
    assert reader.tags.count("script") == 5
    assert (reader.tags.count("img"), "b" in reader.tags) == (2, False)
    scripts = texts("script")
    assert [picture["name"] for picture in json.loads(scripts[0])] == NAMES
    assert [codec["name"] for codec in json.loads(scripts[1])["codecs"]] == NAMES


def test_the_viewer_shows_pictures_of_any_name(page, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium")
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page()
        errors = []
        tab.on("pageerror", lambda error: errors.append(error))
        tab.on("request", lambda request: request.url.startswith("http") and errors.append(request.url))
        tab.goto(path.as_uri())
        assert tab.evaluate("[...document.querySelectorAll('#picture option')].map(o => o.value)") == NAMES
        for i, name in enumerate(NAMES):
            tab.locator("#picture").select_option(index=i)
            labels = tab.evaluate("[...document.querySelectorAll('#left option')].map(o => o.value)")
            assert labels == ["original", name]
            assert tab.evaluate("document.getElementById('left-tag').textContent") == name
            tab.evaluate("document.getElementById('over').decode()")
            assert tab.evaluate("document.getElementById('over').naturalWidth") == 60
        assert tab.evaluate("window.hit") is None
        assert not errors
        chromium.close()


def first_sentence(page):
    reader = Reader()
    reader.feed(page)
    return reader.texts["h1"][0].replace("\u00a0", " ")


def test_the_result_in_a_sentence():
    """The first codec against the others that were measured; the table has what is thin or published."""
    names = ["ours", "jpeg", "avif", "thin", "published", "none"]
    curves = [Curve(name, (0.1, 0.2), (30.0, 32.0)) for name in names]
    ours = [
        None, Delta(-50, 1, 1), Delta(2.34, 1, 1), Delta(-70, 1, 0.3), Delta(5, 1, 1), CurveError("none"),
    ]  # fmt: skip
    rows = [ours, *([None] * len(names) for _ in names[1:])]
    measured = [name for name in names if name != "published"]
    page = make_page([compared(curves, rows)], names=measured)
    expected = "For the same PSNR, ours needs 50.0 % fewer bits than jpeg and 2.3 % more than avif."
    assert first_sentence(page) == expected
    assert '<td class="thin"' in page
    assert ">-70.0*</td>" in page
    assert "<li>* thin: less than 50% of the shorter curve&#39;s scores are in common</li>" in page
    assert first_sentence(make_page([compared(curves[:1], [[None]])], names=["ours"])) == "title"


def test_means_of_other_pictures_are_marked():
    curves = [
        Curve("ours", (0.1, 0.2), (30.0, 32.0), Pictures(3)),
        Curve("published", (0.1, 0.2), (33.0, 35.0), Pictures(24, "kodak")),
    ]
    error = PicturesError("Expected means of the same pictures")
    page = make_page([compared(curves, [[None, error], [error, None]])], names=["ours"])
    assert page.count(f">{UNLIKE}</td>") == 2
    assert f"<li>{UNLIKE} published: means of 24 pictures of kodak</li>" in page
    assert "24 pictures of kodak, not to be compared" in page
