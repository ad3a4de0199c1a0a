"""README and docs/: their code runs, their commands are understood, their figures were measured.

docs/extending.md has a test of its own.
"""

import argparse
import ast
import base64
import importlib
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from PIL import Image

from glic_pyg import GLIC, ModelConfig
from glic_pyg.cli.flags import Parser
from glic_pyg.cli.main import COMMANDS, make_parser, run_command
from glic_pyg.evaluation.bd import Curve, delta
from glic_pyg.evaluation.paper import curve
from glic_pyg.tiles import MemoryBoundError, check_memory

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w*)(?: \S+)?\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)

SMALL = yaml.safe_load((ROOT / "configs" / "model" / "glic_pico.yaml").read_text())


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_spans(page: Path) -> list[str]:
    """Return what stands between backticks in the running text, on one line each."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text()))]


def blocks(page: Path) -> list[str]:
    """Return a page's blocks of commands, the indented and those called `sh`."""
    text = page.read_text()
    called = [match["text"] for match in FENCE.finditer(text) if match["language"] == "sh"]
    return called + re.findall(r"(?<=\n\n)((?:    [^\n]*\n)+)", FENCE.sub("", text))


def parts_of(text: str) -> list[str]:
    """Return the commands of some lines, without comments and what is set for them."""
    parts = [part.split(" #")[0].strip() for line in text.splitlines() for part in line.split("&&")]
    return [re.sub(r"^(\w+=\S* )+(/usr/bin/time -f \"[^\"]*\" )?", "", part) for part in parts]


def commands(page: Path) -> list[str]:
    """Return the commands of a page, in blocks and in the text."""
    spans = [span for span in code_spans(page) if " " in span and "..." not in span]
    return [part for text in [*blocks(page), *spans] for part in parts_of(text)]


def words_of(command: str) -> list[str]:
    """Return a command's words as a shell makes them, without redirections."""
    command = re.split(r" [<>|]", command)[0]
    script = f"printf '%s\\n' {command}"
    result = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


class Parsed(BaseException):
    """Raised where a program has understood its arguments, before it does anything."""


@pytest.fixture
def parse(monkeypatch):
    """Let a script read its arguments, and do no more: words -> nothing; SystemExit if they are wrong."""

    def stop(cls):
        original = cls.parse_args

        def parse_args(self, *args, **kwargs):
            original(self, *args, **kwargs)
            raise Parsed

        monkeypatch.setattr(cls, "parse_args", parse_args)

    stop(argparse.ArgumentParser)
    stop(Parser)

    def run(words):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.syspath_prepend(str(ROOT / Path(words[0]).parent))
        with pytest.raises(Parsed):
            runpy.run_path(words[0], run_name="__main__")

    return run


def of_kind(start: str) -> list:
    found = {command: page for page in PAGES for command in commands(page) if command.startswith(start)}
    return [pytest.param(command, id=f"{name_of(page)}: {command[:60]}") for command, page in found.items()]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("command", of_kind("glic "))
def test_a_command_is_understood(command):
    words = words_of(command)[1:]
    assert words[0] in COMMANDS
    if words[1:]:  # else it is only named
        make_parser(words[:1]).parse_args(words)
    for path in (word for word in words if word.startswith(("configs/", "docs/"))):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", of_kind("python lab/") + of_kind("python examples/"))
def test_a_script_is_understood(command, parse):
    parse(words_of(command)[1:])


def test_no_page_has_other_commands():
    """But those that are tried here, and a few of other programs."""
    known = (
        "glic ",
        "python lab/",
        "python examples/",
        "make ",
        "pip install ",
        "npm install ",
        "python -m http.server ",
        "conda ",
        ". .venv/",
        "ruff ",
    )
    others = ("python -m pytest tests/", "python -c ", "bash lab/gpu_minutes.sh ", "bash lab/gpu_check.sh ")
    for page in PAGES:
        lines = [line for block in blocks(page) for line in parts_of(block)]
        assert all(line.startswith(known + others) for line in lines), (name_of(page), lines)


def test_make_and_pip_know_what_is_asked_for():
    makefile = (ROOT / "Makefile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    seen = set()
    for page in PAGES:
        for command in commands(page):
            words = shlex.split(command)
            if words[0] == "make":
                seen.update(word for word in words[1:] if "=" not in word)
            for wanted in re.findall(r"^pip install .*(?:\.|glic_pyg)\[([\w,]+)\]", command):
                assert set(wanted.split(",")) <= extras.keys(), f"{name_of(page)}: {command}"
    assert {"demo", "docs", "test", "lint"} <= seen
    targets = {target.replace(".venv", "$(VENV)") for target in seen}
    assert targets <= set(re.findall(r"^[^\s:#]+(?=:)|(?<= := )\S+$", makefile, re.MULTILINE))


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """The current folder, with the photos that the pages speak of, small."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    (tmp_path / "demo").mkdir()
    for name in ("photo.jpg", "photo.png", "large.png", "photos/a.png", "demo/photo.jpg"):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((128, 128), Image.Resampling.BICUBIC).save(name)
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if "```python\n" in page.read_text() and page.stem != "extending"],
    ids=name_of,
)
def test_its_code_runs(page, photos):
    namespace = {}
    for match in FENCE.finditer(page.read_text()):
        if match["language"] == "python":
            exec(compile(match["text"], name_of(page), "exec"), namespace)


@pytest.mark.parametrize("notebook", sorted((ROOT / "docs").glob("*.ipynb")), ids=name_of)
def test_a_notebook_shows_what_its_cells_make(notebook, tmp_path, monkeypatch, capsys):
    """Else run it again: jupyter execute --inplace docs/pillow.ipynb"""
    monkeypatch.chdir(tmp_path)
    namespace, pictures = {}, 0
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop()
        exec(compile(tree, notebook.name, "exec"), namespace)
        (output,) = cell["outputs"]
        if output["output_type"] == "stream":
            exec(compile(ast.Module([last], []), notebook.name, "exec"), namespace)
            assert "".join(output["text"]) == capsys.readouterr().out
            continue
        value = eval(compile(ast.Expression(last.value), notebook.name, "eval"), namespace)
        with Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))) as kept:
            assert (kept.size, kept.mode) == (value.size, value.mode)
            # Another machine may round some latents to other symbols.
            assert np.abs(np.asarray(kept, float) - np.asarray(value, float)).mean() < 0.5
        pictures += 1
    assert pictures


def test_the_readme_has_a_true_configuration():
    (text,) = (m["text"] for m in FENCE.finditer((ROOT / "README.md").read_text()) if m["language"] == "yaml")
    GLIC(ModelConfig.from_dict({**SMALL, **yaml.safe_load(text)}))


def test_the_commands_of_the_start_run(photos):
    """Compress and restore, as README and docs/compress.md say it, but for searches, which are long."""
    pages = (ROOT / "README.md", ROOT / "docs" / "compress.md")
    lines = dict.fromkeys(command for page in pages for command in commands(page))
    simple = re.compile(r"glic (de)?compress (?!.*--(model|target))((demo/)?photo\S*|large\.\w+|coded/) ")
    chosen = [command for command in lines if simple.match(command)]
    assert len(chosen) == 9
    for command in chosen:
        assert run_command([*words_of(command)[1:], "--force"]) == 0
    for name in ("restored.png", "large.png", "restored/a.png", "restored/a.webp", "photo.jpg"):
        with Image.open(name) as image:
            assert image.size == (128, 128)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_paths_that_it_names_exist(page):
    roots = ("configs", "docs", "examples", "glic_pyg", "lab", "tests", "tools")
    for span in code_spans(page):
        for path in re.findall(r"(?<![\w./-])([\w.-]+/[\w./*-]+)", span):
            if path.split("/")[0] in roots:
                assert list(ROOT.glob(path.rstrip("/"))), f"{name_of(page)} names {path}"


def anchor(heading: str) -> str:
    text = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).strip().lower()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", text))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_links_lead_somewhere(page):
    """On GitHub too: mkdocs knows nothing of the README."""
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        assert not target.startswith(("http", "/")), f"{name_of(page)} links {target}"
        file, _, part = target.partition("#")
        linked = (page.parent / unquote(file)).resolve() if file else page
        assert linked.exists(), f"{name_of(page)} links {target}"
        if part and not part.startswith("glic_pyg."):
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", linked.read_text()), re.MULTILINE)
            assert part in map(anchor, headings), f"{name_of(page)} links {target}"


def test_the_floors_are_those_that_are_held():
    held = re.search(
        r'FLOORS = """\n(.*?)"""', (ROOT / "tests" / "test_architecture.py").read_text(), re.DOTALL
    )
    floors = [line.split() for line in held[1].splitlines() if line.split() not in ([], ["__main__"])]
    page = (ROOT / "docs" / "architecture.md").read_text()
    (drawn,) = (match["text"] for match in FENCE.finditer(page) if match["language"] == "text")
    assert [line.split() for line in drawn.splitlines()] == floors[::-1]


RIVALS = {"JPEG": "jpeg", "JPEG 2000": "jpeg2000", "JPEG XL": "jpegxl", "WebP": "webp", "AVIF": "avif"}
POINTS = {"BPG 4:2:0": "kodak/bpg-420-tfc", "BPG 4:4:4": "kodak/bpg-tfc"}


@cache
def measured(codec: str, pictures: str = "kodak") -> dict:
    return json.loads((ROOT / "docs" / pictures / f"{codec}.json").read_text())["results"]


@cache
def bd_rate(rival: str, metric: str, pictures: str = "kodak") -> str:
    """Return it as the pages write it, from 0.1 to 0.9 bpp."""
    if rival in POINTS:
        anchor = curve(POINTS[rival], metric=metric)
    else:
        anchor = Curve.of(rival, measured(RIVALS[rival], pictures), metric=metric)
    ours = Curve.of("glic_nano", measured("glic_nano", pictures), metric=metric)
    rate = delta(anchor.within(0.1, 0.9), ours.within(0.1, 0.9), method="cubic").rate
    return f"{rate:+.1f} %"


def test_the_readme_has_the_bd_rates():
    text = (ROOT / "README.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| (BD-rate, 0.1 to 0.9 bpp|PSNR|MS-SSIM) \|", line)
    ]
    (_, *rivals), (_, *by_psnr), (_, *by_ms_ssim) = rows
    assert {*RIVALS, "BPG 4:2:0"} == set(rivals)
    assert by_psnr == [bd_rate(rival, "psnr-rgb") for rival in rivals]
    assert by_ms_ssim == [bd_rate(r, "ms-ssim-db-rgb") if r in RIVALS else "" for r in rivals]


def test_the_model_card_has_the_bd_rates():
    text = (ROOT / "docs" / "models" / "glic_nano.md").read_text()
    for row, metric, rivals, pictures in (
        ("BD-rate by PSNR, 0.1 to 0.9 bpp", "psnr-rgb", RIVALS, "kodak"),
        ("BD-rate by MS-SSIM, the same", "ms-ssim-db-rgb", RIVALS, "kodak"),
        ("BD-rate by PSNR, published points", "psnr-rgb", POINTS, "kodak"),
        ("CID22, BD-rate by PSNR, 0.1 to 0.9 bpp", "psnr-rgb", RIVALS, "cid22"),
        ("CID22, BD-rate by MS-SSIM, the same", "ms-ssim-db-rgb", RIVALS, "cid22"),
    ):
        (cells,) = re.findall(rf"^\| {row} \| (.+) \|$", text, re.MULTILINE)
        told = dict(re.fullmatch(r"(.+) ([+-][\d.]+ %)", cell).groups() for cell in cells.split(", "))
        assert told == {rival: bd_rate(rival, metric, pictures) for rival in rivals}


def test_all_codecs_were_measured_on_the_same_pictures():
    files = [json.loads(path.read_text()) for path in (ROOT / "docs" / "cid22").glob("*.json")]
    assert len(files) == 1 + len(RIVALS)
    assert len({file["pictures_sha256"] for file in files}) == 1


def test_the_best_quality_is_told_as_it_was_measured():
    best = f"about {max(measured('glic_nano')['psnr-rgb']):.1f} dB"
    for page in ("README.md", "docs/limits.md", "docs/compress.md"):
        assert best in (ROOT / page).read_text()


def test_the_limits_are_told_as_they_were_measured():
    text = (ROOT / "docs" / "limits.md").read_text()
    told = [
        f"{float(bd_rate('AVIF', 'psnr-rgb')[:-2]):.0f}",
        f"{float(bd_rate('AVIF', 'ms-ssim-db-rgb')[:-2]):.0f}",
    ]
    told += [f"{float(bd_rate(name, 'psnr-rgb')[:-2]):.0f}" for name in POINTS]
    avif, more, coarse, fine = told  # BPG of coarse and of fine colours
    told = (
        f"{avif[1:]} % fewer than AVIF, {coarse[1:]} % fewer than BPG 4:2:0, and {fine} % more than BPG 4:4:4"
    )
    assert told in " ".join(text.split())
    assert f"By MS-SSIM it needs {more} % more than AVIF" in " ".join(text.split())


def test_figures_of_a_gpu_are_told_as_they_were_measured():
    results = json.loads((ROOT / "docs" / "gpu" / "h100.json").read_text())
    text = (ROOT / "docs" / "speed.md").read_text()
    assert results["command"] in text
    found = [row for stage in results["stages"].values() for row in stage["results"]]
    times = [(key, row[key]) for row in found for key in row if key.endswith("ms")]
    assert len(times) == 12
    for key, value in times:
        assert f"{value:.1f} ms" in text or f"{value:.2f} ms" in text or f"{value:.0f} ms" in text, key
    for row in found:
        if "differ" in row:
            counted = f"{row['edges']:,}".replace(",", " ")
            assert f"in {row['differ'] or 'none'} of {counted}" in " ".join(text.split())
        if "passed" in row:
            assert f"{row['passed']} passed and {row['failed']} failed" in text


@pytest.mark.parametrize(
    ("folder", "plain", "efforts", "against"),
    [
        ("effort/kodak", "kodak", (1, 2, 3), {"PSNR against AVIF, 0.09 to 0.65 bpp": "kodak/avif"}),
        ("effort/six", "effort/six", (2, 4), {}),
    ],
)
def test_refined_files_are_told_as_they_were_measured(folder, plain, efforts, against):
    def results(name):
        return json.loads((ROOT / "docs" / f"{name}.json").read_text())

    text = (ROOT / "docs" / "effort.md").read_text()
    unrefined = results(f"{plain}/glic_nano")
    of_efforts = [results(f"{folder}/glic_nano-effort{effort}") for effort in efforts]
    for refined in of_efforts:
        assert refined["command"] in text
        assert refined["pictures_sha256"] == unrefined["pictures_sha256"]
        assert refined["settings"]["identity"] == unrefined["settings"]["identity"]
    for i, quality in enumerate(of_efforts[0]["results"]["quality"]):
        k = unrefined["results"]["quality"].index(quality)
        cells = [
            f"{of['bpp'][j]:.4f} bpp, {of['psnr-rgb'][j]:.2f} dB"
            for of, j in ((unrefined["results"], k), *((refined["results"], i) for refined in of_efforts))
        ]
        assert f"| quality {quality:.0f} | {' | '.join(cells)} |" in text
    anchors = [("PSNR", "psnr-rgb", unrefined), ("MS-SSIM", "ms-ssim-db-rgb", unrefined)]
    anchors += [(name, "psnr-rgb", results(other)) for name, other in against.items()]
    for name, metric, anchor in anchors:
        curves = [Curve.of("", of["results"], metric=metric) for of in (anchor, *of_efforts)]
        rates = [f"{delta(curves[0], curve, method='cubic').rate:.1f} %" for curve in curves[1:]]
        rows = [line for line in text.splitlines() if line.startswith(f"| BD-rate by {name} |")]
        (row,) = (row for row in rows if row.count("|") == 3 + len(rates))  # of the table with these efforts
        assert row.endswith(f" | {' | '.join(rates)} |")


def test_gains_of_refining_are_told_as_they_were_measured():
    results = json.loads((ROOT / "docs" / "effort" / "gain.json").read_text())
    text = (ROOT / "docs" / "effort.md").read_text()
    assert results["command"] in text
    for quality, of_efforts in results["gains"].items():
        ends = [told[-1][1] for of_pictures in of_efforts.values() for told in of_pictures.values()]
        assert len(ends) == 3  # of one picture
        row = " | ".join(f"{100 * gain:.1f} %" for gain in ends)
        assert f"| quality {quality} | {row} |" in text


@pytest.mark.parametrize("side", [2048, 8192])
def test_the_least_memory_is_told(side):
    model = GLIC.from_pretrained("glic_nano")
    with pytest.raises(MemoryBoundError) as caught:
        check_memory(1, model.config, model.nbytes, (side, side))
    least = re.search(r"at least (\d+M)", str(caught.value))[1]
    text = (ROOT / "docs" / "compress.md").read_text()
    assert re.search(rf"{least} at\s{side} x {side}", text)


@pytest.mark.parametrize("room", ["graph", "nn", "inspection", "transform"])
def test_the_api_has_every_public_name(room):
    public = set(importlib.import_module(f"glic_pyg.{room}").__all__)
    text = (ROOT / "docs" / "api" / f"{room}.md").read_text()
    shown = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    assert {name for name in public if not name.isupper() or name == "KNN"} <= shown


class Loads(HTMLParser):
    """What a page of the site makes a browser load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "object", "embed"):
            self.urls += [attrs[key] for key in ("src", "srcset", "data") if attrs.get(key)]
        if tag == "link" and attrs.get("rel") not in ("next", "prev", "canonical"):
            self.urls.append(attrs["href"])


def test_the_site_is_built_and_needs_no_network(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings_handlers.python")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode == 0, result.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))  # and the one for what is not found
    for page in pages:
        assert "```" not in page.read_text(), f"{page} has a block that was not understood"
        for url in Loads(page.read_text()).urls:
            assert not re.match(r"(https?:)?//", url), f"{page} loads {url}"
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style
