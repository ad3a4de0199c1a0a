"""Ablations: variant files, complete rows, and their summary against hand-made figures."""

import csv
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch
import yaml

from glic_pyg import GLIC
from glic_pyg.config import ConfigError, ModelConfig
from glic_pyg.errors import FileError
from glic_pyg.evaluation.bd import Curve, delta
from glic_pyg.experiments.ablation import degree_statistics, load_variant, read_rows, run_row, summarize
from glic_pyg.training.config import TrainConfig

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "ablation"
DOCS = ROOT / "docs"
PAGES = {"ablations.md": "ablation", "do_graphs_pay.md": "graphs_pay"}  # page: its rows


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_variant_file_differs_from_the_base_in_its_model_or_how_it_begins(path):
    if "torch_cluster" in path.read_text():
        pytest.importorskip("torch_cluster")
    variant, base = load_variant(path), load_variant(CONFIGS / "full.yaml")
    assert (variant.name, variant.base) == (path.stem, "full")
    changes = {key for key, value in variant.config.to_dict().items() if value != base.config.to_dict()[key]}
    assert changes <= {"model", "silent_attention"}
    assert bool(changes) == (path.stem != "full")


@pytest.mark.parametrize("row", sorted((DOCS / "optimisers").iterdir()), ids=lambda path: path.name)
def test_the_rows_of_the_optimisers_have_the_settings_of_their_files(row, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    name, _, seed = row.name.rpartition("-")
    files = (folder / f"{name}.yaml" for folder in (CONFIGS.parent / "optimisers", ROOT / "examples"))
    variant = load_variant(next(file for file in files if file.exists()))
    config = dataclasses.replace(variant.config, seed=int(seed))
    assert TrainConfig.from_yaml(row / "config.yaml") == config
    told = json.loads((row / "row.json").read_text())
    assert (told["variant"], told["base"], told["seed"]) == (name, variant.base, int(seed))


@pytest.mark.parametrize(("name", "loss"), [("adam", 2.133), ("muon", 1.590), ("soap", 1.563)])
def test_the_optimisers_are_told_as_measured(name, loss):
    row = DOCS / "optimisers" / f"{name}-0"
    assert round(json.loads((row / "row.json").read_text())["loss"], 3) == loss
    assert f"| {loss:.3f} |" in (DOCS / "training.md").read_text()


@pytest.mark.parametrize(("name", "label"), [("adam", "Adam, 1e-3"), ("soap", "SOAP, 3e-3")])
def test_the_optimisers_in_pairs_are_told_as_measured(name, label):
    with (DOCS / "optimisers" / f"{name}-0" / "beside_muon.csv").open(newline="") as file:
        parts = list(csv.DictReader(file))
    assert [int(part["last"]) for part in parts] == list(range(250, 2501, 250))
    cells = " | ".join(f"{float(part['change']):+.1f} %" for part in parts[1::2])
    assert f"| {label} | {cells} |" in (DOCS / "training.md").read_text()


def test_soap_on_whole_pictures_is_told_as_measured():
    rate = rate_of(("soap-0", "muon-0"))
    assert f"needs {-rate:.1f} % fewer bits than that by Muon" in (DOCS / "training.md").read_text()
    psnr, ms_ssim = (
        rate_of(("soap-0", "soap_no_graph-0"), metric=metric) for metric in ("psnr-rgb", "ms-ssim-db-rgb")
    )
    without = rate_of(("soap_no_graph-0", "muon_no_graph-0"))
    page = " ".join((DOCS / "do_graphs_pay.md").read_text().split())
    assert f"By it the graphs need {-psnr:.1f} % fewer bits" in page
    assert f"and {-ms_ssim:.1f} % fewer by MS-SSIM" in page
    assert f"needs {without:.1f} % more bits than by Muon" in page
    psnr, ms_ssim = (
        rate_of(("soap_512-0", "soap_512_no_graph-0"), metric=metric)
        for metric in ("psnr-rgb", "ms-ssim-db-rgb")
    )
    without = rate_of(("soap_512_no_graph-0", "muon_512_no_graph-0"))
    assert f"needs {-psnr:.1f} % fewer bits than its own without, {-ms_ssim:.1f} % by MS-SSIM" in page
    assert f"the one without needs {without:.1f} % more than by Muon" in page


METRICS = ("psnr-rgb", "ms-ssim-db-rgb")
PAIRS = {
    "each node alone, against no graph layers": ("muon_512_alone", "muon_512_no_graph"),
    "graphs, against each node alone": ("muon_512", "muon_512_alone"),
}


def rate_of(pair: Sequence[str], pictures: str = "cid22", metric: str = "psnr-rgb") -> float:
    """Return the BD-rate of a row of the optimisers against another, %."""
    files = (DOCS / "optimisers" / row / f"{pictures}.json" for row in reversed(pair))
    curves = [Curve.of("", json.loads(file.read_text())["results"], metric=metric) for file in files]
    return delta(*curves, method="cubic").rate


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("muon", 1),
        ("soap", 1),
        ("muon_256", 1),
        ("muon_512", 3),
        ("muon_512_6000", 3),
        ("soap_512", 1),
        ("muon_512_deeper", 1),
    ],
)
def test_the_graphs_on_whole_pictures_are_told_as_measured(name, seeds):
    rows = [[f"{row}-{seed}" for row in (name, f"{name}_no_graph")] for seed in range(seeds)]
    losses = [
        fmean(json.loads((DOCS / "optimisers" / row / "row.json").read_text())["loss"] for row in side)
        for side in zip(*rows, strict=True)
    ]
    rates = [rate_of(pair) for pair in rows]
    change = f"{100 * (losses[0] / losses[1] - 1):+.1f} %"
    spread = f" ± {stdev(rates):.1f}" if seeds > 1 else ""
    told = f"| {seeds} | {losses[0]:.3f} | {losses[1]:.3f} | {change} | {fmean(rates):+.1f}{spread} % |"
    assert told in (DOCS / "do_graphs_pay.md").read_text()


def test_graphs_at_one_stride_are_told_as_measured():
    rows = [f"{name}-0" for name in ("muon_512_eighth", "muon_512", "muon_512_no_graph")]
    losses = [json.loads((DOCS / "optimisers" / row / "row.json").read_text())["loss"] for row in rows]
    one, both = (rate_of((row, rows[2])) for row in rows[:2])
    page = " ".join((DOCS / "do_graphs_pay.md").read_text().split())
    assert (
        f"a loss of {losses[0]:.3f}, where it is {losses[1]:.3f} with both and {losses[2]:.3f} without"
        in page
    )
    assert f"against that without is {one:+.1f} %, where it is {both:+.1f} % with both" in page
    quarter = json.loads((DOCS / "optimisers" / "muon_512_quarter-0" / "row.json").read_text())["loss"]
    rate = rate_of(("muon_512_quarter-0", rows[2]))
    assert f"the loss is {quarter:.3f} and the BD-rate {rate:+.1f} %" in page


def test_the_local_graph_alone_is_told_as_measured():
    losses = [
        json.loads((DOCS / "optimisers" / row / "row.json").read_text())["loss"]
        for row in ("muon_256_local-0", "muon_256-0")
    ]
    local, both = (rate_of((row, "muon_256_no_graph-0")) for row in ("muon_256_local-0", "muon_256-0"))
    page = " ".join((DOCS / "do_graphs_pay.md").read_text().split())
    assert f"the loss is {losses[0]:.3f} against {losses[1]:.3f}" in page
    assert f"needs {local:+.1f} % bits on CID22, where both need {both:+.1f} %" in page


def test_one_more_layer_is_told_as_measured():
    pair = [f"muon_512_deeper{side}-0" for side in ("", "_no_graph")]
    psnr, ms_ssim = (rate_of(pair, metric=metric) for metric in ("psnr-rgb", "ms-ssim-db-rgb"))
    graphs, none = (rate_of((row, row.replace("_deeper", ""))) for row in pair)
    page = " ".join((DOCS / "do_graphs_pay.md").read_text().split())
    assert f"graphs save {-psnr:.1f} % of the bits, and {-ms_ssim:.1f} % by MS-SSIM" in page
    assert f"brings {-graphs:.1f} % with graphs, and costs {none:.1f} % without" in page


def test_the_term_of_similarity_is_told_as_measured():
    rows = [f"similarity_attention{side}-0" for side in ("", "_without")]
    losses = [json.loads((DOCS / "optimisers" / row / "row.json").read_text())["loss"] for row in rows]
    with (DOCS / "optimisers" / rows[0] / "beside_without.csv").open(newline="") as file:
        *_, last = csv.DictReader(file)
    page = " ".join((DOCS / "do_graphs_pay.md").read_text().split())
    assert f"the loss is {losses[0]:.3f} with the term and {losses[1]:.3f} without" in page
    assert f"{float(last['change']):+.1f} ± {float(last['error']):.1f} % in the last tenth" in page
    assert f"the codec with it needs {rate_of(rows):.1f} % more bits" in page


@pytest.mark.parametrize("pictures", ["CID22", "Kodak"])
@pytest.mark.parametrize("metric", ["PSNR", "MS-SSIM"])
def test_the_seeds_are_told_as_measured(pictures, metric):
    key = {"PSNR": "psnr-rgb", "MS-SSIM": "ms-ssim-db-rgb"}[metric]
    rates = []
    for name in ("muon_512", "muon_512_6000"):
        pairs = [(f"{name}-{seed}", f"{name}_no_graph-{seed}") for seed in range(3)]
        of_name = [rate_of(pair, pictures.lower(), key) for pair in pairs]
        rates += [*of_name, fmean(of_name)]
    cells = " | ".join(f"{rate:+.1f} %" for rate in rates)
    assert f"| {pictures}, {metric} | {cells} |" in (DOCS / "do_graphs_pay.md").read_text()


def test_neighbours_or_weights_on_kodak_is_told_as_measured():
    _, section = (DOCS / "do_graphs_pay.md").read_text().split("| the 24 Kodak pictures, 6 000 steps |")
    for label, pair in PAIRS.items():
        cells = []
        for key in METRICS:
            longer = [side.replace("512", "512_6000") for side in pair]
            rates = [rate_of([f"{side}-{seed}" for side in longer], "kodak", key) for seed in range(3)]
            cells += [f"{rate:+.1f} %" for rate in (*rates, fmean(rates))]
        assert section.partition(f"| {label} | ")[2].startswith(f"{' | '.join(cells)} |")


@pytest.mark.parametrize("metric", ["PSNR", "MS-SSIM"])
def test_neighbours_or_weights_is_told_as_measured(metric):
    key = {"PSNR": "psnr-rgb", "MS-SSIM": "ms-ssim-db-rgb"}[metric]
    _, section = (DOCS / "do_graphs_pay.md").read_text().split(f"| BD-rate by {metric} | seed 0 |")
    for label, pair in PAIRS.items():
        rates = [rate_of([f"{name}-{seed}" for name in pair], metric=key) for seed in range(3)]
        longer = [
            rate_of([f"{name.replace('512', '512_6000')}-{seed}" for name in pair], metric=key)
            for seed in range(3)
        ]
        cells = " | ".join(f"{rate:+.1f} %" for rate in (*rates, fmean(rates), *longer, fmean(longer)))
        assert section.partition(f"| {label} | ")[2].startswith(f"{cells} |")


def test_what_neighbours_bring_on_crops_is_told_as_measured():
    """Of codecs of three seeds, after 6 000 steps, beside those in which each node is alone."""
    page = " ".join((DOCS / "do_graphs_pay.md").read_text().split())
    pairs, held_out = [], []
    for seed in range(3):
        folders = [DOCS / "optimisers" / f"muon_512_6000{side}-{seed}" for side in ("", "_alone")]
        with (folders[0] / "beside_alone.csv").open(newline="") as file:
            *_, last = csv.DictReader(file)
        pairs.append(f"{-float(last['change']):.1f} ± {float(last['error']):.1f}")
        losses = [json.loads((folder / "row.json").read_text())["loss"] for folder in folders]
        held_out.append(f"{100 * (1 - losses[0] / losses[1]):.1f}")
    told = [f"{', '.join(of[:-1])} and {of[-1]} % lower" for of in (pairs, held_out)]
    assert f"its loss is {told[0]} with them, on held-out crops of 256 x 256 it is {told[1]}" in page


def test_the_shipped_model_without_neighbours_is_told_as_measured():
    page = (DOCS / "do_graphs_pay.md").read_text()
    folder = DOCS / "glic_nano"

    def rates(anchor: Path, name: str) -> list[float]:
        files = (anchor, folder / name / "cid22.json")
        results = [json.loads(file.read_text())["results"] for file in files]
        curves = ([Curve.of("", of, metric=metric).within(0.1, 0.9) for of in results] for metric in METRICS)
        return [delta(*pair, method="cubic").rate for pair in curves]

    losses = {}
    for table in (DOCS / "graphs_pay" / "neighbors.csv", folder / "losses.csv"):
        with table.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("where", "all") == "all"]
        losses |= {(row["model"], row["neighbours"]): float(row["loss"]) for row in rows}
    for label, model, neighbours in (
        ("as it ships", "glic_nano", "as chosen"),
        ("neighbours taken away", "glic_nano", "none"),
    ):
        assert f"| {label} | | | {losses[model, neighbours]:.3f} |" in page
    for label, model, neighbours in (
        ("and trained for 2 000 steps without", "nano_512_alone", "none"),
        ("and for 1 500 more", "nano_512_alone_more", "none"),
        ("trained for 2 000 steps with graphs", "nano_512", "as chosen"),
    ):
        cells = " | ".join(f"{rate:+.1f} %" for rate in rates(DOCS / "cid22" / "glic_nano.json", model))
        assert f"| {label} | {cells} | {losses[model, neighbours]:.3f} |" in page
    psnr, ms_ssim = rates(folder / "nano_512" / "cid22.json", "nano_512_alone")
    text = " ".join(page.split())
    assert f"without neighbours needs {psnr:.1f} % more bits by PSNR, and {ms_ssim:.1f} % more" in text
    assert f"needs [{psnr:.0f} % more bits]" in text
    for told in ("limits.md", "../README.md", "models/glic_nano.md", "../CHANGELOG.md"):
        assert f"{psnr:.0f} % more bits" in " ".join((DOCS / told).read_text().split())
    with (folder / "nano_512_alone" / "beside_nano_512.csv").open(newline="") as file:
        parts = list(csv.DictReader(file))
    assert [int(part["last"]) for part in parts] == list(range(200, 2001, 200))
    cells = " | ".join(f"{float(part['change']):+.1f} ± {float(part['error']):.1f}" for part in parts[1::2])
    assert f"| change of the loss, % | {cells} |" in page


def test_the_shipped_model_was_trained_on_by_its_files():
    for name, file, changes in (
        ("nano_512", "nano_512", {}),
        ("nano_512_alone", "nano_512_alone", {}),
        ("nano_512_alone_more", "nano_512_alone", {"steps": 1500, "seed": 1, "eval_every": 1500}),
    ):
        config = TrainConfig.from_yaml(CONFIGS.parent / "train" / f"{file}.yaml")
        told = TrainConfig.from_yaml(DOCS / "glic_nano" / name / "config.yaml")
        assert told == dataclasses.replace(config, **changes)


def test_a_longer_training_is_told_as_measured():
    page = " ".join((DOCS / "do_graphs_pay.md").read_text().split())
    rates = {
        (metric, name): [
            -rate_of([f"{name}{side}-{seed}" for side in ("", "_no_graph")], metric=metric)
            for seed in range(3)
        ]
        for metric in METRICS
        for name in ("muon_512", "muon_512_6000")
    }
    psnr, ms_ssim = (
        "from {:.1f}, {:.1f} and {:.1f} % to {:.1f}, {:.1f} and {:.1f} %".format(
            *rates[metric, "muon_512"], *rates[metric, "muon_512_6000"]
        )
        for metric in METRICS
    )
    means = [fmean(rates[METRICS[1], name]) for name in ("muon_512", "muon_512_6000")]
    assert f"grows in each seed: {psnr}. By MS-SSIM it goes {ms_ssim}, on the mean " in page
    assert "on the mean from {:.1f} to {:.1f} %.".format(*means) in page
    saved = [
        round(-rate_of((f"muon_512_6000{side}-{seed}", f"muon_512{side}-{seed}")))
        for side in ("", "_no_graph")
        for seed in range(3)
    ]
    assert f"steps save {min(saved)} to {max(saved)} % of the bits" in page


def test_the_local_graph_at_the_finer_stride_alone_is_told_as_measured():
    names = ("muon_512_6000_local_quarter", "muon_512_6000")
    alone, both = (rate_of((f"{name}-0", "muon_512_6000_no_graph-0")) for name in names)
    page = " ".join((DOCS / "do_graphs_pay.md").read_text().split())
    assert f"its BD-rate is {alone:+.1f} %, where both graphs at both have {both:+.1f} %" in page


def test_equal_time_is_told_as_measured():
    page = " ".join((DOCS / "do_graphs_pay.md").read_text().split())
    short = rate_of(("muon_512-0", "muon_512_3500_no_graph-0"))
    longer = [rate_of((f"muon_512_6000-{seed}", f"muon_512_10500_no_graph-{seed}")) for seed in range(2)]
    assert f"after 2 000, needs {short:.1f} % more bits on CID22" in page
    assert "it needs {:.1f} and {:.1f} % more after 6 000".format(*longer) in page


@pytest.mark.parametrize(
    "path", sorted(DOCS.glob("*/*/beside_no_graph.csv")), ids=lambda path: path.parent.name
)
def test_losses_in_pairs_are_told_as_measured(path):
    name, _, seed = path.parent.name.rpartition("-")
    with path.open(newline="") as file:
        parts = list(csv.DictReader(file))
    steps = json.loads((path.parent / "row.json").read_text())["config"]["steps"]
    assert [int(part["last"]) for part in parts] == list(range(steps // 10, steps + 1, steps // 10))
    cells = " | ".join(f"{float(part['change']):+.1f} ± {float(part['error']):.1f}" for part in parts[1::2])
    (line,) = (
        line
        for line in (DOCS / "do_graphs_pay.md").read_text().splitlines()
        if line.startswith(f"| `{name}` |") and f" | {seed} | {cells} |" in line
    )
    assert f"| {steps:,}".replace(",", " ") in line


def test_what_neighbours_are_worth_is_told_as_measured():
    with (DOCS / "graphs_pay" / "neighbors.csv").open(newline="") as file:
        rows = {(row["model"], row["where"], row["neighbours"]): row for row in csv.DictReader(file)}
    models = list(dict.fromkeys(model for model, *_ in rows))
    places = list(dict.fromkeys(where for _, where, _ in rows if where != "all"))
    names = ("nearest", "random", "least similar", "none")
    lines = [(name, [(model, "all", name) for model in models]) for name in names]
    lines += [
        (f"`{model}`", [(model, where, "none") for where in places])
        for model in models
        if (model, places[0], "none") in rows
    ]
    page = (DOCS / "do_graphs_pay.md").read_text()
    for name, keys in lines:
        cells = [f"{float(rows[key]['change']):+.2f} ± {float(rows[key]['deviation']):.2f} %" for key in keys]
        assert f"| {name} | {' | '.join(cells)} |" in page


@pytest.fixture
def base(tmp_path, config) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(config.to_yaml())
    return path


def test_a_variant_changes_single_settings(tmp_path, base, config):
    changes = {
        "base": "base.yaml",
        "steps": 7,
        "model": {"heads": 4, "graph": {"score": {"name": "sobel", "pooling": "mean"}}},
    }
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(changes))
    variant = load_variant(tmp_path / "other.yaml")
    assert (variant.name, variant.base) == ("other", "base")
    assert variant.config.steps == 7
    assert variant.config.batch_size == config.batch_size
    assert variant.config.model.heads == 4
    assert variant.config.model.channels == config.model.channels
    assert variant.config.model.graph.degree == config.model.graph.degree
    assert variant.config.model.graph.score.settings == {"pooling": "mean"}


def test_settings_of_a_part_are_replaced_as_a_whole(tmp_path, base):
    for name, parent, score in [
        ("mean", "base.yaml", {"name": "sobel", "pooling": "mean"}),
        ("bins", "mean.yaml", {"name": "local_entropy", "bins": 3}),
    ]:
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({"base": parent, "model": {"graph": {"score": score}}})
        )
    assert load_variant(tmp_path / "bins.yaml").config.model.graph.score.settings == {"bins": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nowhere.yaml\n", r"^Expected a YAML file \(got .*nowhere\.yaml"),
        ("base: base.yaml\nsteps: 0\n", r"other\.yaml: Expected steps to be at least 1 \(got 0\)$"),
        ("base: base.yaml\nmodell: {}\n", r"other\.yaml: Unknown key 'modell'; did you mean 'model'\?$"),
        ("base: base.yaml\nmodel: {aggregation: torch.nn.Linear}\n", r"other\.yaml: .*from MessagePassing"),
        ("base: other.yaml\n", r"^Expected a base that does not build on itself \(got .*other\.yaml\)$"),
        ("base: worse.yaml\n", r"worse\.yaml: Expected steps to be at least 1 \(got 0\)$"),
        ("a: [", r"^Expected a YAML file \(got .*other\.yaml: "),
    ],
)
def test_unusable_files_are_named_in_one_line(tmp_path, base, text, message):
    (tmp_path / "other.yaml").write_text(text)
    (tmp_path / "worse.yaml").write_text("base: base.yaml\nsteps: 0\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_variant(tmp_path / "other.yaml")
    assert "\n" not in str(caught.value)


def test_a_row_is_trained_once(tmp_path, base, photos):
    variant, output = load_variant(base), tmp_path / "out"
    assert run_row(variant, 3, dataset=photos, output=output)
    (row,) = read_rows(output)
    assert (row["variant"], row["base"], row["seed"], row["config"]["seed"]) == ("base", "base", 3, 3)
    evaluated = [line.split(",") for line in (output / "base-3" / "eval.csv").read_text().splitlines()]
    step, _, loss, bpp, psnr = evaluated[-1]
    assert step == "6"
    assert row["curve"] == {"quality": [1], "bpp": [float(bpp)], "psnr": [float(psnr)], "loss": [float(loss)]}
    assert row["loss"] == float(loss)
    assert row["parameters"] == sum(p.numel() for p in GLIC(variant.config.model).parameters())
    assert 0 < row["step_seconds"] < 60
    assert row["degree"]["mean"] > 1

    written = (output / "base-3" / "row.json").stat().st_mtime_ns
    assert run_row(variant, 3, dataset="nowhere", output=output)
    assert (output / "base-3" / "row.json").stat().st_mtime_ns == written


def test_a_row_is_not_continued_with_other_settings(tmp_path, base, config, photos):
    assert run_row(load_variant(base), 0, dataset=photos, output=tmp_path / "out")
    base.write_text(config.to_yaml().replace("steps: 6", "steps: 9"))
    with pytest.raises(
        ConfigError, match=r"^Expected the settings that .*base-0 was begun with \(got others\)$"
    ):
        run_row(load_variant(base), 0, dataset=photos, output=tmp_path / "out")


def test_an_interrupted_row_goes_on_to_the_same_figures(tmp_path, base, config, photos, monkeypatch):
    variant = load_variant(base)
    assert run_row(variant, 0, dataset=photos, output=tmp_path / "whole")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("glic_pyg.experiments.ablation._figures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_row(variant, 0, dataset=photos, output=tmp_path / "parts")
    assert read_rows(tmp_path / "parts") == []
    monkeypatch.undo()
    assert run_row(variant, 0, dataset=photos, output=tmp_path / "parts")
    (whole,), (parts,) = read_rows(tmp_path / "whole"), read_rows(tmp_path / "parts")
    assert {**whole, "step_seconds": 0} == {**parts, "step_seconds": 0}


def test_degrees_are_those_of_the_graphs(tiny_config):
    values = tiny_config.to_dict()
    values["graph"] |= {"candidates": ["local"], "selection": {"name": "knn", "k": 9}}
    found = degree_statistics(GLIC(ModelConfig.from_dict(values)).eval(), torch.rand(2, 3, 64, 64))
    assert (found["mean"], found["deviation"]) == (9, 0)
    assert found["by_graph"] == {"g_a.1": [9], "g_a.2": [9], "g_s.1": [9], "g_s.2": [9]}
    values["graph"]["candidates"] = []
    found = degree_statistics(GLIC(ModelConfig.from_dict(values)).eval(), torch.rand(1, 3, 64, 64))
    assert (found["mean"], found["deviation"]) == (None, None)


def row(variant, seed, *, rate=1.0, loss=1.0, base="full", degree=8.0):
    bpp = [0.1, 0.2, 0.4, 0.8]
    return {
        "variant": variant,
        "base": base,
        "seed": seed,
        "loss": loss,
        "curve": {
            "bpp": [rate * b for b in bpp],
            "psnr": [30 + 6 * math.log2(b) for b in bpp],
            "loss": [loss] * 4,
            "quality": [1, 2, 3, 4],
        },
        "parameters": 7,
        "step_seconds": 0.1 + seed / 10,
        "degree": {"mean": degree, "deviation": 2.0},
    }


def test_means_and_spreads_over_seeds():
    rows = [
        row("worse", 1, rate=1.3, loss=1.4),
        row("worse", 0, rate=1.1, loss=1.2),
        row("full", 0),
        row("full", 1),
        row("full", 2, rate=0.96, loss=0.94),
        row("alone", 5, rate=2.0, degree=None),
    ]
    full, alone, worse = summarize(rows)
    assert [s.variant for s in (full, alone, worse)] == ["full", "alone", "worse"]
    assert (worse.seeds, worse.loss, worse.parameters) == (2, pytest.approx(1.3), 7)
    assert worse.loss_spread == pytest.approx(stdev([1.2, 1.4]))
    assert worse.loss_change == pytest.approx(30)
    assert worse.loss_change_spread == pytest.approx(stdev([20, 40]))
    # Curves with a constant ratio of their rates.
    assert worse.bd_rate == pytest.approx(20)
    assert worse.bd_rate_spread == pytest.approx(stdev([10, 30]))
    assert worse.step_seconds == pytest.approx(0.15)
    # What chance makes: seeds 1 and 2 against seed 0.
    assert full.bd_rate == pytest.approx((0 + 4) / 2)
    assert full.loss_change == pytest.approx((0 + 6) / 2)
    assert (full.bd_rate_spread, full.loss_change_spread, alone.bd_rate) == (None, None, None)
    assert (alone.loss_change, alone.loss_spread) == (None, None)
    assert alone.degree is None


def test_bd_rate_is_the_package_s_own():
    anchor, other = row("full", 0), row("other", 0)
    other["curve"]["bpp"] = [0.12, 0.21, 0.39, 0.9]
    curves = [Curve.of("x", r["curve"], metric="psnr") for r in (anchor, other)]
    assert summarize([anchor, other])[1].bd_rate == delta(*curves, method="cubic").rate
    other["curve"]["psnr"] = [50.0, 51.0, 52.0, 53.0]  # nothing in common
    assert summarize([anchor, other])[1].bd_rate is None


@pytest.mark.parametrize("content", ["{", "", "[]", "3", "{}", json.dumps({"variant": "a"}), "[" * 100_000])
def test_what_is_no_row_is_named(tmp_path, content):
    (tmp_path / "a-0").mkdir()
    (tmp_path / "a-0" / "row.json").write_text(content)
    with pytest.raises(FileError, match=r"^Expected a .*\(got .*row\.json"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    "folder",
    sorted(path.parent for page in PAGES for path in (DOCS / PAGES[page]).glob("*/row.json")),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_a_published_row_is_of_the_variant_as_it_is(folder):
    """So that it is not trained again."""
    name, seed = folder.name.rsplit("-", 1)
    config = load_variant(CONFIGS / f"{name}.yaml").config
    assert TrainConfig.from_yaml(folder / "config.yaml") == dataclasses.replace(config, seed=int(seed))


@pytest.mark.parametrize("page", PAGES)
def test_the_page_tells_what_the_published_rows_say(page):
    def told(value: float, spread: float | None, form: str) -> str:
        return f"{value:{form}}" if spread is None else f"{value:{form}} ± {spread:{form.lstrip('+')}}"

    table = (DOCS / page).read_text()
    for s in summarize(read_rows(DOCS / PAGES[page])):
        if s.variant == "full" and s.seeds == 1:
            change = "|"  # of both
        elif s.variant == "full":
            change = f"chance: {s.loss_change:.2f} | chance: {s.bd_rate:.2f}"
        else:
            change = (
                f"{told(s.loss_change, s.loss_change_spread, '+.2f')} | "
                f"{told(s.bd_rate, s.bd_rate_spread, '+.2f')}"
            )
        degree = "none" if s.degree is None else told(s.degree, s.degree_deviation, ".0f")
        assert (
            f"| `{s.variant}` | {s.seeds} | {told(s.loss, s.loss_spread, '.4f')} | {change} | {degree} |"
            in table
        )
