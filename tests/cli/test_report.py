import json
import re
import shutil

import pytest

from glic_pyg.evaluation.measure import cached_codec
from glic_pyg.image import write_png


@pytest.fixture
def results(glic, photo, variable_model, tmp_path):
    """Two pictures by two codecs."""
    (tmp_path / "photos").mkdir()
    for i, size in enumerate([(176, 192), (200, 180)]):
        write_png(photo(*size), tmp_path / "photos" / f"{i}.png")
    variable_model.save(tmp_path / "model.safetensors")
    status, _, err = glic(
        "evaluate", "-d", tmp_path / "photos", "-o", tmp_path / "results",
        "--model", tmp_path / "model.safetensors", "--rival", "jpeg",
    )  # fmt: skip
    assert status == 0, err
    return tmp_path / "results"


def test_curves_and_tables(glic, results, tmp_path):
    status, out, err = glic(
        "report", results, "-o", tmp_path / "report", "--compare", "kodak/vtm-compressai", "--pictures", "1"
    )
    assert (status, out) == (0, f"{tmp_path / 'report' / 'report.html'}\n"), err
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "kodak/vtm-compressai" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    for row in json.loads((results / "jpeg.json").read_text())["results"]["bpp"]:
        assert f"<td>{row:.4f}</td>" in page
    assert page.count("<td>payload bpp</td>") == 1  # the model's; JPEG has none
    assert {path.suffix for path in (tmp_path / "report").iterdir()} == {".html", ".png", ".svg", ".jsonl"}


def test_two_codecs_side_by_side_in_a_browser(glic, results, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium")
    glic("report", results, "-o", tmp_path / "report", "--pictures", "2")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto((tmp_path / "report" / "report.html").as_uri())
        assert page.locator("#picture option").all_inner_texts() == ["0.png", "1.png"]
        labels = page.locator("#left option").all_inner_texts()
        assert [label.split(":")[0].split("-")[0] for label in labels] == ["original", "tiny", "jpeg"]
        page.locator("#left").select_option(index=2)
        shown = page.locator("#over").get_attribute("src")
        assert shown != page.locator("#under").get_attribute("src")
        assert page.evaluate("document.getElementById('over').naturalWidth") == 192
        page.locator("#picture").select_option("1.png")
        assert page.locator("#over").get_attribute("src") != shown
        page.locator("#compare").click(position={"x": 45, "y": 50})
        assert page.locator("#split").input_value() == "25"
        page.locator("#difference").check()
        assert "difference" in page.locator("#compare").get_attribute("class")
        assert not errors
        chromium.close()


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
    assert "<td>other</td>" in page


def test_no_results(glic, tmp_path):
    status, _, err = glic("report", tmp_path, "-o", tmp_path / "report")
    assert (status, err) == (2, f"error: Expected results of glic evaluate in {tmp_path} (got none)\n")
