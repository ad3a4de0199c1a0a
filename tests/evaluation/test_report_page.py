"""A page keeps whatever text it is given as text."""

import json
import shutil
from html.parser import HTMLParser

import pytest
import torch

from glic_pyg.evaluation.bd import Curve
from glic_pyg.evaluation.curves import draw_curves
from glic_pyg.evaluation.report_page import Comparison, Restored, build_page

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


@pytest.fixture(scope="module")
def page():
    curves = [Curve(name, (0.1, 0.2), (30.0, 32.0 + i)) for i, name in enumerate(NAMES)]
    columns = {"quality": [1.0], "bpp": [0.25], "psnr-rgb": [30.5]}
    return build_page(
        title=NAMES[0],
        command=NAMES[1],
        results=[{"name": n, "results": columns, "settings": {n: n}, "command": n} for n in NAMES],
        comparisons=[Comparison(name, [["", name], [name, "-"]], [name]) for name in NAMES],
        figures={name: draw_curves(curves, score=name.replace("$", ""), most_bpp=1) for name in NAMES[:3]},
        complexity=[],
        pictures={
            name: (
                torch.full((1, 3, 40, 60), i / 20),
                [Restored(name, 0.25, 30.5, torch.zeros(1, 3, 40, 60))],
            )
            for i, name in enumerate(NAMES)
        },
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
    assert texts("code") == [NAMES[1], *NAMES]
    assert texts("caption") == NAMES * 2
    assert texts("figcaption") == NAMES[:3]
    assert texts("li") == NAMES
    assert reader.tags.count("script") == 2
    assert (reader.tags.count("img"), "b" in reader.tags) == (2, False)
    assert list(json.loads(texts("script")[0])) == NAMES


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
        for name in NAMES:
            tab.locator("#picture").select_option(name)
            labels = tab.evaluate("[...document.querySelectorAll('#left option')].map(o => o.label)")
            assert labels[1] == " ".join(f"{name}: 0.250 bpp, 30.50 dB".split())
            tab.evaluate("document.getElementById('over').decode()")
            assert tab.evaluate("document.getElementById('over').naturalWidth") == 60
        assert tab.evaluate("window.hit") is None
        assert not errors
        chromium.close()
