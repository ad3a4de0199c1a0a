"""glic ablate from the command line, end to end with a few steps."""

import csv
import json

import pytest
import yaml


@pytest.fixture
def setting(four_photos, tiny_config):
    """The current folder, with four pictures, a base and two variants."""
    base = {
        "model": tiny_config.to_dict(),
        "steps": 3,
        "batch_size": 2,
        "patch_size": 64,
        "eval_size": 64,
        "num_workers": 0,
    }
    (four_photos / "whole.yaml").write_text(yaml.safe_dump(base))
    for name, change in [
        ("near", {"graph": {"candidates": ["local"]}}),
        ("sage", {"aggregation": "torch_geometric.nn.SAGEConv"}),
    ]:
        (four_photos / f"{name}.yaml").write_text(yaml.safe_dump({"base": "whole.yaml", "model": change}))
    return four_photos


def test_rows_and_table(setting, glic, monkeypatch):
    status, out, err = glic(
        "ablate", "whole.yaml", "near.yaml", "-d", "photos", "-o", "out", "--seeds", "0", "4"
    )
    assert status == 0, err
    announced = [line for line in err.splitlines() if line.startswith("row ")]
    assert announced == [
        "row 1 of 4: whole, seed 0",
        "row 2 of 4: near, seed 0",
        "row 3 of 4: whole, seed 4",
        "row 4 of 4: near, seed 4",
    ]
    heading, *lines = out.splitlines()
    assert heading.split()[:4] == ["variant", "seeds", "R-D", "loss"]
    assert [line.split()[:2] for line in lines] == [["whole", "2"], ["near", "2"]]
    with (setting / "out" / "ablation.csv").open() as file:
        summaries = list(csv.DictReader(file))
    content = json.loads((setting / "out" / "ablation.json").read_text())
    assert [row["variant"] for row in summaries] == ["whole", "near"]
    losses = [row["loss"] for row in content["rows"] if row["variant"] == "near"]
    assert float(summaries[1]["loss"]) == pytest.approx(sum(losses) / 2)
    assert len(set(losses)) == 2

    # A further variant is trained alone, and stands in the table beside what is there.
    trained = {path: path.stat().st_mtime_ns for path in (setting / "out").glob("*/log.csv")}
    status, out, _ = glic("ablate", "whole.yaml", "sage.yaml", "-d", "photos", "-o", "out", "--seeds", "0")
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["whole", "2"],
        ["near", "2"],
        ["sage", "1"],
    ]
    assert all(path.stat().st_mtime_ns == time for path, time in trained.items())
    _, out, _ = glic("ablate", "whole.yaml", "-d", "photos", "-o", "out", "--seeds", "0", "--json")
    content = json.loads((setting / "out" / "ablation.json").read_text())
    assert [json.loads(line) for line in out.splitlines()] == content["summary"]


def test_steps_of_the_command_line(setting, glic):
    status, _, err = glic(
        "ablate", "whole.yaml", "near.yaml", "-d", "photos", "-o", "o", "--seeds", "0", "--steps", "2"
    )
    assert status == 0, err
    for name in ("whole", "near"):
        rows = (setting / "o" / f"{name}-0" / "log.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows] == ["step", "1", "2"]


def test_variants_see_the_same_pictures_in_the_same_order(setting, glic):
    """Without a graph of any kind a model whose graphs are not read learns the same, step by step."""
    for name, degree in (("a", 3), ("b", 9)):
        change = {"graph": {"candidates": [], "degree": degree}}
        (setting / f"{name}.yaml").write_text(yaml.safe_dump({"base": "whole.yaml", "model": change}))
    glic("ablate", "a.yaml", "b.yaml", "-d", "photos", "-o", "out", "--seeds", "1")
    rows = json.loads((setting / "out" / "ablation.json").read_text())["rows"]
    assert rows[0]["curve"] == rows[1]["curve"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yaml"], "error: Expected a YAML file (got none.yaml: "),
        (["whole.yaml", "sub/whole.yaml"], "error: Expected variants of different names (got whole, whole)"),
        (["whole.yaml", "-d", "elsewhere"], "error: Expected a folder of pictures (got elsewhere)"),
    ],
)
def test_bad_input_gives_one_line(setting, glic, arguments, message):
    (setting / "sub").mkdir()
    (setting / "sub" / "whole.yaml").write_text((setting / "whole.yaml").read_text())
    status, _, err = glic("ablate", *arguments, *(() if "-d" in arguments else ("-d", "photos")))
    assert status == 2
    assert err.splitlines()[-1].startswith(message)
    assert "Traceback" not in err
    assert not (setting / "runs" / "ablation" / "ablation.csv").exists()


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_rows_on_ray_are_those_of_one_process(setting, glic):
    pytest.importorskip("ray")
    arguments = ("ablate", "whole.yaml", "near.yaml", "-d", "photos", "--seeds", "0", "--device", "cpu")
    assert glic(*arguments, "-o", "here")[0] == 0
    status, out, err = glic(*arguments, "-o", "there", "--ray", "local")
    assert status == 0, err
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["whole", "near"]
    here, there = (
        json.loads((setting / name / "ablation.json").read_text())["rows"] for name in ("here", "there")
    )
    assert [row["curve"] for row in here] == [row["curve"] for row in there]
