import json
import re
import shutil

import pytest
import torch

from glic_pyg.evaluation import report
from glic_pyg.evaluation.evaluate import evaluate
from glic_pyg.evaluation.measure import cached_codec
from glic_pyg.evaluation.report_page import UNLIKE
from glic_pyg.image import write_png


@pytest.fixture(scope="module")
def evaluated(variable_model, tmp_path_factory):
    """A folder with two pictures, a model, and results of the model and JPEG."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "photos").mkdir()
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for i, size in enumerate([(176, 192), (200, 180)]):
        x = torch.nn.functional.interpolate(noise, size, mode="bicubic").clamp(0, 1)
        write_png(x, folder / "photos" / f"{i}.png")
    variable_model.save(folder / "model.safetensors")
    evaluate(
        [folder / "photos"],
        folder / "results",
        models=[str(folder / "model.safetensors")],
        rivals=["jpeg"],
        qualities=[1, 4],
    )
    return folder


@pytest.fixture
def results(evaluated, tmp_path):
    """The same in the test's own folder; the folder of results."""
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    for path in (*tmp_path.glob("results/*.json"), *tmp_path.glob("results/*.csv")):
        path.write_text(path.read_text().replace(str(evaluated), str(tmp_path)))
    return tmp_path / "results"


def content_of(page, name):
    """Return what a page's scripts read."""
    return json.loads(re.search(rf'id="{name}">(.*?)</script>', page, re.DOTALL)[1])


def test_curves_tables_and_pictures(glic, results, tmp_path):
    status, out, err = glic(
        "report", results, "-o", tmp_path / "report", "--compare", "kodak/vtm-compressai", "--pictures", "1"
    )
    assert (status, out) == (0, f"{tmp_path / 'report' / 'report.html'}\n"), err
    page = (tmp_path / "report" / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=[\"']?https?:", page)
    for row in json.loads((results / "jpeg.json").read_text())["results"]["bpp"]:
        assert f"<td>{row:.4f}</td>" in page
    assert page.count("<th>payload bpp</th>") == 1  # the model's; JPEG has none
    assert {path.suffix for path in (tmp_path / "report").iterdir()} == {".html", ".png", ".svg", ".jsonl"}

    # Means of 24 pictures beside those of two are drawn, and marked wherever they stand.
    curves = content_of(page, "curves")
    assert [metric["label"] for metric in curves["metrics"]] == ["PSNR (RGB) in dB", "MS-SSIM in dB"]
    marks = {codec["name"]: codec["unlike"] for codec in curves["codecs"]}
    assert marks.pop("kodak/vtm-compressai") == "24 pictures of kodak, not to be compared"
    assert set(marks.values()) == {""}
    assert page.count(f"<li>{UNLIKE} kodak/vtm-compressai: means of 24 pictures of kodak</li>") == 2

    # JPEG's file has the rate of the model's, as nearly as one quality of the hundred can.
    ((original, model, jpeg),) = (picture["layers"] for picture in content_of(page, "pictures"))
    assert (original["name"], jpeg["name"]) == ("original", "jpeg")
    sizes = [int(re.match(r"[\d ]+", layer["text"])[0].replace(" ", "")) for layer in (model, jpeg)]
    assert abs(sizes[1] / sizes[0] - 1) < 0.1


@pytest.mark.filterwarnings("default:.* is not shown")
def test_a_page_does_not_grow_beyond_bounds(glic, results, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_BYTES", 100_000)
    status, _, err = glic("report", results, "-o", tmp_path / "report", "--pictures", "2")
    page = (tmp_path / "report" / "report.html").read_text()
    shown = content_of(page, "pictures")
    assert (status, len(shown)) == (0, 2 - err.count("is not shown"))
    assert len(shown) < 2
    assert sum(len(layer["uri"]) for picture in shown for layer in picture["layers"]) <= 100_000


def test_in_a_browser(glic, results, tmp_path, browser):
    """Two codecs under the slider; curves that answer."""
    glic("report", results, "-o", tmp_path / "report", "--pictures", "2", "--bpp", "0.05", "5")
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("request", lambda request: request.url.startswith("http") and errors.append(request.url))
    page.goto((tmp_path / "report" / "report.html").as_uri())
    assert page.locator("#picture option").all_inner_texts() == ["0.png", "1.png"]
    labels = page.locator("#left option").all_inner_texts()
    assert [label.split("-")[0] for label in labels] == ["original", "tiny", "jpeg"]
    page.locator("#left").select_option(index=2)
    shown = page.locator("#over").get_attribute("src")
    assert shown == page.locator("#under").get_attribute("src")  # JPEG on both sides
    page.keyboard.press("l")  # although the choice had the focus
    assert page.locator("#left-tag").inner_text() == "original"
    assert page.evaluate("document.getElementById('over').naturalWidth") == 192
    page.keyboard.press("n")
    assert page.locator("#picture").input_value() == "1.png"
    assert page.locator("#left-tag").inner_text() == "original"

    stage, split = page.locator("#stage"), page.locator("#handle")
    box = stage.bounding_box()
    stage.click(position={"x": box["width"] / 4, "y": 20})
    assert split.get_attribute("aria-valuenow") == "25"
    page.keyboard.press("ArrowRight")
    assert split.get_attribute("aria-valuenow") == "27"
    page.mouse.move(box["x"] + 0.27 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 40)
    page.mouse.up()
    assert split.get_attribute("aria-valuenow") == "60"

    place = "document.getElementById('over').style.transform"
    whole = page.evaluate(place)
    page.keyboard.press("+")
    page.keyboard.press("+")
    large = page.evaluate(place)
    assert large != whole
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 130, box["y"] + 120)
    page.mouse.up()
    assert page.evaluate(place) not in (whole, large)
    assert page.evaluate(place) == page.evaluate(place.replace("over", "under"))
    page.keyboard.press("0")
    assert page.evaluate(place) == whole
    page.keyboard.press("d")
    assert "difference" in stage.get_attribute("class")

    chart = page.locator("#chart-0")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    x, y = page.evaluate("(({x, y}) => [x, y])(Chart.getChart('chart-0').getDatasetMeta(1).data[5])")
    page.mouse.move(box["x"] + x, box["y"] + y)
    means = json.loads((results / "jpeg.json").read_text())["results"]
    assert page.locator("#rate").inner_text() == f"at {means['bpp'][5]:.2f} bpp"
    row = page.locator("#legend tbody tr").nth(1)
    assert float(row.locator("td").nth(1).inner_text()) == pytest.approx(means["psnr-rgb"][5], abs=0.1)
    assert float(row.locator("td").nth(2).inner_text()) == pytest.approx(means["ms-ssim-db-rgb"][5], abs=0.1)
    shown = "Chart.getChart('chart-1').isDatasetVisible(1)"
    assert page.evaluate(shown)
    page.locator("#legend button").nth(1).click()
    assert not page.evaluate(shown)
    color = "Chart.getChart('chart-0').data.datasets[0].borderColor"
    light = page.evaluate(color)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{color} != '{light}'")
    assert not errors
    page.close()


def test_on_a_phone_a_swipe_scrolls_and_a_drag_on_the_handle_splits(glic, results, tmp_path, browser):
    glic("report", results, "-o", tmp_path / "report", "--pictures", "1")
    phone = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    ).new_page()
    phone.goto((tmp_path / "report" / "report.html").as_uri())
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    box = phone.locator("#stage").bounding_box()
    touch = phone.context.new_cdp_session(phone)

    def swipe(x, y, dx, dy):
        for kind, share in (("Start", 0), ("Move", 0.3), ("Move", 0.7), ("Move", 1), ("End", None)):
            points = [] if share is None else [{"x": x + share * dx, "y": y + share * dy}]
            touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    swipe(box["x"] + 60, box["y"] + 150, 0, -140)
    phone.wait_for_function("scrollY > 50")
    assert phone.locator("#handle").get_attribute("aria-valuenow") == "50"
    phone.reload()
    phone.evaluate("scrollTo(0, 0)")
    swipe(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, -box["width"] / 4, 0)
    phone.wait_for_function("document.getElementById('handle').getAttribute('aria-valuenow') == '25'")
    assert phone.evaluate("scrollY") == 0
    phone.context.close()


@pytest.mark.filterwarnings("default:.* is not shown")
def test_points_without_a_mean_and_pictures_that_are_gone(glic, results, tmp_path):
    """Are said, and the rest is drawn; names that are no text are shown with escapes."""
    content = json.loads((results / "jpeg.json").read_text())
    content["results"]["psnr-rgb"][2] = None
    content["command"] += " \udcff"
    rate = content["results"]["bpp"][2]
    (results / "jpeg.json").write_text(json.dumps(content))
    (tmp_path / "photos" / "0.png").write_text("no picture")
    (tmp_path / "model.safetensors").unlink()
    cached_codec.cache_clear()
    arguments = ["report", results, "-o", tmp_path / "report", "--pictures", "2", "--bpp", "0", "9"]
    status, _, err = glic(*arguments)
    assert status == 0
    assert [re.split("-[0-9a-f]{8}| is not shown: ", line)[0] for line in err.splitlines()] == [
        f"warning: {tmp_path / 'photos' / '0.png'}", f"warning: {tmp_path / 'photos' / '1.png'} by tiny",
    ]  # fmt: skip
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"without a point of jpeg at {rate:.3g} bpp, which have no finite mean" in page
    assert f"<li>Expected finite scores of jpeg (got none at {rate:.4g} bpp)</li>" in page
    assert page.count("data:image/webp") == 2  # the original and what JPEG made of it


def test_results_of_another_tool_are_drawn_too(glic, results, tmp_path):
    columns = {"bpp": [0.1, 0.2, 0.4, 0.8], "psnr": [28, 30, 32, 34]}
    (results / "other.json").write_text(json.dumps({"name": "other", "results": columns}))
    status, _, err = glic("report", results, "-o", tmp_path / "report", "--pictures", "0")
    assert (status, err) == (0, "")
    page = (tmp_path / "report" / "report.html").read_text()
    (other,) = (codec for codec in content_of(page, "curves")["codecs"] if codec["name"] == "other")
    assert other["points"] == [[[0.1, 28, None], [0.2, 30, None], [0.4, 32, None], [0.8, 34, None]], []]
    assert '<section class="viewer"' in page
    assert content_of(page, "pictures") == []


def test_no_results(glic, tmp_path):
    status, _, err = glic("report", tmp_path, "-o", tmp_path / "report")
    assert (status, err) == (2, f"error: Expected results of glic evaluate in {tmp_path} (got none)\n")
