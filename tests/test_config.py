"""Configurations: files, round trips, and what is refused."""

import dataclasses
from pathlib import Path

import pytest

from glic_pyg.config import Aggregation, Config, ConfigError, GraphConfig, ModelConfig, Part

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("path", sorted((CONFIGS / "model").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_model_file_is_read(path):
    config = ModelConfig.from_yaml(path)
    assert config.name == path.stem
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_every_config_file_has_a_test():
    folders = {path.parent.name for path in CONFIGS.rglob("*.yaml")}
    assert folders == {
        "model",
        "train",
        "ablation",
        "optimisers",
    }  # all but the first: tests/training, tests/experiments


def test_defaults_are_the_published_model():
    assert ModelConfig.from_yaml(CONFIGS / "model" / "glic.yaml") == ModelConfig()


def test_yaml_round_trip(tmp_path):
    graph = GraphConfig(degree=7, selection=Part("top_d"), score=Part("local_entropy", {"bins": 4}))
    config = ModelConfig(name="other", heads=4, depths=(1, 2, 3), graph=graph)
    path = tmp_path / "model.yaml"
    path.write_text(config.to_yaml())
    assert ModelConfig.from_yaml(path) == config


def test_values_are_frozen_and_plain_when_written():
    config = ModelConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.heads = 4
    values = config.to_dict()
    assert values["channels"] == [128, 192, 192]
    assert values["graph"] == {
        "degree": 64,
        "selection": "threshold",
        "candidates": ["local", "global"],
        "score": "sobel",
        "quota": "group",
        "similarity": "cosine",
        "strides": [4, 8],
    }
    assert values["aggregation"] == "attention"


def test_missing_keys_take_defaults():
    assert ModelConfig.from_dict({"graph": {"degree": 8}}) == ModelConfig(graph=GraphConfig(degree=8))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"neighbors": "arithmetic", "similarity": "centered"}, {"similarity": "centered"}),
        (
            {"neighbors": "torch_cluster"},
            {"candidates": ["torch_cluster", "global"], "similarity": "torch_cluster"},
        ),
        (
            {"neighbors": "torch_cluster", "similarity": "centered", "candidates": ["anchors", "a.B"]},
            {"similarity": "torch_cluster_centered", "candidates": ["anchors", "a.B"]},
        ),
    ],
)
def test_neighbors_of_earlier_configurations_are_parts(old, new):
    before = dict(old)
    assert ModelConfig.from_dict({"graph": old}) == ModelConfig.from_dict({"graph": new})
    assert old == before
    with pytest.raises(ConfigError, match=r"^Unknown key 'graph\.neighbors'"):
        ModelConfig.from_dict({"graph": old | {"neighbors": "others"}})


@dataclasses.dataclass(frozen=True)
class Example(Config):
    needed: int
    rate: float = 0.5
    limit: int | None = None
    graph: GraphConfig = dataclasses.field(default_factory=GraphConfig)


def test_integers_become_floats_and_null_stays_none():
    config = Example.from_dict({"needed": 1, "rate": 2, "limit": None})
    assert config == Example(needed=1, rate=2.0)
    assert isinstance(config.rate, float)
    assert Example.from_dict({"needed": 1, "limit": 3}).limit == 3


def test_parts_are_names_or_mappings_with_settings():
    config = ModelConfig.from_dict(
        {
            "graph": {"candidates": ["global", {"name": "my.Dilated", "step": 2}], "score": "none"},
            "aggregation": {"layer": "torch_geometric.nn.GATv2Conv", "heads": 4},
        }
    )
    assert config.graph.candidates == (Part("global"), Part("my.Dilated", {"step": 2}))
    assert config.graph.score == Part("none")
    assert config.aggregation == Aggregation("torch_geometric.nn.GATv2Conv", {"heads": 4})
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["graph"]["score"] == "none"


def test_a_part_in_a_file_is_no_file(tmp_path):
    (tmp_path / "model.yaml").write_text("aggregation: torch_geometric.nn.SAGEConv\n")
    assert ModelConfig.from_yaml(tmp_path / "model.yaml").aggregation.name.endswith("SAGEConv")


def test_nested_configuration_may_be_a_file_of_its_own(tmp_path):
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "small.yaml").write_text("degree: 3\n")
    (tmp_path / "example.yaml").write_text("needed: 1\ngraph: graphs/small.yaml\n")
    assert Example.from_yaml(tmp_path / "example.yaml").graph == GraphConfig(degree=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"^Expected key 'needed' in Example$"),
        ({"needed": "1"}, r"^Expected needed to be a whole number \(got '1'\)$"),
        ({"needed": True}, r"^Expected needed to be a whole number \(got True\)$"),
        ({"needed": 1.0}, r"^Expected needed to be a whole number \(got 1\.0\)$"),
        ({"needed": None}, r"^Expected needed to be a whole number \(got None\)$"),
        ({"needed": 1, "rate": "fast"}, r"^Expected rate to be a number \(got 'fast'\)$"),
        ({"needed": 1, "rate": True}, r"^Expected rate to be a number \(got True\)$"),
        ({"needed": 1, "limit": "x"}, r"^Expected limit to be a whole number \(got 'x'\)$"),
        ({"needed": 1, "graph": 5}, r"^Expected a mapping for graph \(got 5\)$"),
        (["needed"], r"^Expected a mapping for Example \(got \['needed'\]\)$"),
        (None, r"^Expected a mapping for Example \(got None\)$"),
    ],
)
def test_wrong_types_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Example.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latent_chanels": 3}, r"^Unknown key 'latent_chanels'; did you mean 'latent_channels'\?$"),
        ({"graph": {"degre": 3}}, r"^Unknown key 'graph\.degre'; did you mean 'degree'\?$"),
        ({"graph": {"xyz": 3}}, r"^Unknown key 'graph\.xyz'; known: degree, selection, candidates, "),
        ({5: 3}, r"^Unknown key '5'; known: name, channels, "),
        ({"channels": [1, 2]}, r"^Expected channels to be a list of 3 values \(got \[1, 2\]\)$"),
        ({"channels": 128}, r"^Expected channels to be a list of 3 values \(got 128\)$"),
        ({"channels": [8, "8", 8]}, r"^Expected channels\[1\] to be a whole number \(got '8'\)$"),
        ({"groups": 320}, r"^Expected groups to be a list of values \(got 320\)$"),
        ({"graph": {"score": 3}}, r"^Expected graph\.score to be a name or a mapping with a name \(got 3\)$"),
        ({"graph": {"score": {"bins": 3}}}, r"^Expected graph\.score to be a name or a mapping with a name"),
        (
            {"graph": {"strides": [8, 4]}},
            r"^Expected strides to be \[4\], \[8\] or \[4, 8\] \(got \[8, 4\]\)$",
        ),
        ({"graph": {"candidates": "local"}}, r"^Expected graph\.candidates to be a list of values \(got 'l"),
        ({"aggregation": {"name": "x"}}, r"^Expected aggregation to be a name or a mapping with a layer \(g"),
        ({"aggregation": {"layer": "attention", "heads": 2}}, r"^Expected attention without settings; its h"),
        ({"graph": {"degree": 0}}, r"^Expected degree in 1\.\.256 \(got 0\)$"),
        ({"graph": {"degree": 257}}, r"^Expected degree in 1\.\.256 \(got 257\)$"),
        ({"heads": 0}, r"^Expected heads in 1\.\.256 \(got 0\)$"),
        ({"depths": [3, 0, 5]}, r"^Expected depths in 1\.\.64 \(got \(3, 0, 5\)\)$"),
        ({"groups": [16, 16]}, r"^Expected groups to sum to latent_channels 320 \(got 32\)$"),
        ({"heads": 7}, r"^Expected channels divisible by 7 heads \(got 192\)$"),
    ],
)
def test_impossible_models_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("heads: [1", r"^Expected a YAML file \(got .*model\.yaml: "),
        ("", r"model\.yaml: Expected a mapping for ModelConfig \(got None\)$"),
        ("- 1\n", r"model\.yaml: Expected a mapping for ModelConfig \(got \[1\]\)$"),
        ("head: 8\n", r"model\.yaml: Unknown key 'head'; did you mean 'heads'\?$"),
    ],
)
def test_unusable_files_are_named_in_one_line(tmp_path, text, message):
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        ModelConfig.from_yaml(path)
    assert "\n" not in str(caught.value)


def test_missing_and_undecodable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"^Expected a YAML file \(got .*none\.yaml: .*No such file"):
        ModelConfig.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"^Expected a YAML file \(got .*binary\.yaml: "):
        ModelConfig.from_yaml(tmp_path / "binary.yaml")
