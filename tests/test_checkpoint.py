import copy
import json
import re
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from glic_pyg import GLIC, checkpoint, codec, identity
from glic_pyg.checkpoint import CheckpointError, check_state
from glic_pyg.config import Aggregation, GraphConfig, Part
from glic_pyg.identity import identity_of


def test_float32_keeps_every_bit(tiny_model, tmp_path):
    tiny_model.save(tmp_path / "a.safetensors", info={"lambda": 0.013})
    stored = checkpoint.load(tmp_path / "a.safetensors")
    assert stored.config == tiny_model.config
    assert stored.info == {"lambda": 0.013}
    state = tiny_model.state_dict()
    assert stored.state.keys() == state.keys()
    for name, tensor in state.items():
        assert tensor.dtype == stored.state[name].dtype
        assert torch.equal(tensor, stored.state[name]), name


def test_float16_rounds_weights_but_not_what_tables_are_made_of(tiny_model, tmp_path):
    tiny_model.save(tmp_path / "a.safetensors", dtype=torch.float16)
    stored = checkpoint.load(tmp_path / "a.safetensors").state
    for name, tensor in tiny_model.state_dict().items():
        if "entropy_bottleneck" in name or "gaussian_conditional" in name:
            assert torch.equal(tensor, stored[name]), name
        else:
            assert stored[name].dtype == torch.float16
            torch.testing.assert_close(stored[name].float(), tensor, rtol=1e-3, atol=1e-7)
    again = GLIC.from_pretrained(tmp_path / "a.safetensors")
    again.save(tmp_path / "b.safetensors", dtype=torch.float16)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_tables_are_stored_once_and_never_recomputed(tiny_model, tmp_path):
    model = copy.deepcopy(tiny_model)
    model.latent_codec.hyper.entropy_bottleneck._quantized_cdf[0, 1] += 1
    path = tmp_path / "a.safetensors"
    model.save(path)
    loaded = GLIC.from_pretrained(path)
    assert torch.equal(
        loaded.latent_codec.hyper.entropy_bottleneck._quantized_cdf,
        model.latent_codec.hyper.entropy_bottleneck._quantized_cdf,
    )
    table = model.latent_codec.y.latent_codec.y0.y.gaussian_conditional._quantized_cdf
    assert path.stat().st_size < 2 * 4 * table.numel()


def test_what_cannot_be_saved(tiny_model, tiny_config, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"Expected a model with probability tables \(got one without\)"
    ):
        GLIC(tiny_config).save(tmp_path / "a.safetensors")
    model = copy.deepcopy(tiny_model)
    model.g_a.down[0].bias.data[0] = 1e6
    with pytest.raises(
        CheckpointError,
        match=r"Expected weights within -65504\.\.65504 for g_a\.down\.0\.bias \(got .*\.\.inf\)",
    ):
        model.save(tmp_path / "a.safetensors", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_loaded(tiny_model, tmp_path):
    def error(path):
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path = tmp_path / "a.safetensors"
    assert "No such file or directory" in error(path)
    path.write_text("no checkpoint")
    assert error(path).startswith(f"Expected a .safetensors checkpoint (got {path}: ")
    save_file({"weight": torch.zeros(1)}, path)
    assert error(path) == f"Expected a checkpoint of glic_pyg (got {path}: KeyError('glic_pyg'))"
    save_file({}, path, metadata={"glic_pyg": '{"format_version": 3}'})
    assert error(path) == f"Expected checkpoint format 1..2 (got {path} of format 3)"
    tiny_model.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert error(path).startswith(f"Expected a .safetensors checkpoint (got {path}: ")


def test_check_state_names_the_first_difference():
    expected = {"a": torch.zeros(2), "b._offset": torch.zeros(0)}
    check_state(expected, {"a": torch.ones(2), "b._offset": torch.zeros(7)}, where="x")
    for state, message in [
        ({"a": torch.zeros(2)}, r"Expected b\._offset in x \(got none\)"),
        (expected | {"c": torch.zeros(1)}, r"Expected no c in x \(got one\)"),
        (expected | {"a": torch.zeros(3)}, r"Expected shape \(2,\) for a in x \(got \(3,\)\)"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            check_state(expected, state, where="x")


def test_resolve(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path)
    with pytest.raises(CheckpointError, match=r"a model's name \(none in this installation\) \(got nano\)"):
        checkpoint.resolve("nano")
    for name in ("nano", "large"):
        (tmp_path / f"{name}.safetensors").touch()
    assert checkpoint.resolve("nano") == tmp_path / "nano.safetensors"
    assert checkpoint.resolve(tmp_path / "large.safetensors") == tmp_path / "large.safetensors"
    with pytest.raises(CheckpointError, match=r"a model's name \(large, nano\) \(got huge\)"):
        checkpoint.resolve("huge")


def about_file(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["glic_pyg"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_file_says_the_identity_of_the_model_that_it_loads_as(tiny_model, dtype, tmp_path, monkeypatch):
    tiny_model.save(tmp_path / "a.safetensors", dtype=dtype)
    loaded = GLIC.from_pretrained(tmp_path / "a.safetensors")
    expected = identity_of(loaded.config, loaded.state_dict())
    assert about_file(tmp_path / "a.safetensors")["identity"] == expected.hex()
    assert checkpoint.load(tmp_path / "a.safetensors").identity == expected
    assert (expected == tiny_model.identity) == (dtype == torch.float32)
    monkeypatch.setattr(codec, "identity_of", None)  # it is not computed again
    assert loaded.identity == expected


def test_files_of_format_1_load_with_the_identity_of_their_weights(stored, tiny_model, tmp_path):
    state, about = stored
    assert about["format_version"] == 1
    path = write(tmp_path / "a.safetensors", state, about)
    assert checkpoint.load(path).identity is None
    assert GLIC.from_pretrained(path).identity == tiny_model.identity
    migrated = checkpoint._migrated(about, path)
    assert migrated == about | {"format_version": 2, "identity": None}
    assert about["format_version"] == 1
    assert checkpoint._migrated(migrated, path) == migrated


@pytest.mark.parametrize("identity", ["", "00" * 7, "00" * 9, "no number", 7, [0] * 8])
def test_identities_that_are_none_are_refused(stored, identity, tmp_path):
    state, about = stored
    about |= {"format_version": 2, "identity": identity}
    refusal(write(tmp_path / "a.safetensors", state, about))


def test_weights_of_modules_that_had_another_name_load_and_keep_their_identity(
    stored, tiny_model, tmp_path, monkeypatch
):
    """`g_a.down` was once `g_a.convs`, and layers of stages `blocks`."""
    state, about = stored
    earlier = {
        re.sub(r"(stages\.\d)\.layers", r"\1.blocks", name.replace("g_a.down.", "g_a.convs.")): x
        for name, x in state.items()
    }
    expected = identity_of(tiny_model.config, earlier)
    assert expected != tiny_model.identity
    monkeypatch.setattr(
        identity, "RENAMED", (("g_a.convs", "g_a.down"), ("stages.*.blocks", "stages.*.layers"))
    )
    loaded = GLIC.from_pretrained(write(tmp_path / "a.safetensors", earlier, about))
    assert all(torch.equal(x, state[name]) for name, x in loaded.state_dict().items())
    assert loaded.identity == expected
    loaded.save(tmp_path / "b.safetensors")
    assert GLIC.from_pretrained(tmp_path / "b.safetensors").identity == expected


def test_a_model_with_parts_of_another_kind_is_saved_and_told_apart(tiny_config, tmp_path):
    aggregation = Aggregation("torch_geometric.nn.SAGEConv", {"aggr": "max"})
    graph = GraphConfig(degree=4, score=Part("learned"))
    model = GLIC(replace(tiny_config, aggregation=aggregation, graph=graph))
    model.update()
    x = torch.rand(1, 3, 64, 64)
    expected = model.eval()(x)["x_hat"]
    model.save(tmp_path / "a.safetensors")
    loaded = GLIC.from_pretrained(tmp_path / "a.safetensors")
    assert loaded.config == model.config
    assert loaded.identity == model.identity
    assert torch.equal(loaded(x)["x_hat"], expected)

    changed = copy.deepcopy(model)
    object.__setattr__(changed, "config", replace(model.config, graph=replace(graph, quota=Part("map"))))
    assert changed.identity != model.identity


@pytest.fixture
def stored(tiny_model, tmp_path):
    """A file's tensors and what it says of itself, to be spoilt; `write` makes a file of them."""
    tiny_model.save(tmp_path / "sound.safetensors")
    state = checkpoint.load(tmp_path / "sound.safetensors").state
    about = {"format_version": 1, "config": tiny_model.config.to_dict(), "info": {}, "same_as": {}}
    return state, about


def write(path, state, about):
    text = about if isinstance(about, str) else json.dumps(about)
    save_file({name: x.contiguous().clone() for name, x in state.items()}, path, metadata={"glic_pyg": text})
    return path


def refusal(path, **settings):
    """The one line of a file that is refused, which names it."""
    with pytest.raises(CheckpointError) as caught:
        GLIC.from_pretrained(path, **settings)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 1000
    assert str(path) in line
    return line


def test_the_file_to_be_spoilt_is_sound(stored, tiny_model, tmp_path, photo):
    model = GLIC.from_pretrained(write(tmp_path / "a.safetensors", *stored))
    assert model.identity == tiny_model.identity


def test_hostile_tables_are_refused(stored, hostile_table, tmp_path):
    state, about = stored
    owner, table, change = hostile_table
    name = f"latent_codec.{owner}.{table}"
    state[name] = change(state[name])
    assert owner in refusal(write(tmp_path / "a.safetensors", state, about))


@pytest.mark.parametrize("name", ["g_a.down.0.weight", "latent_codec.hyper.entropy_bottleneck.quantiles"])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * torch.nan,
        lambda x: x.index_fill(0, torch.tensor(0), torch.inf),
        lambda x: x.index_fill(0, torch.tensor(1), -1e9),
        lambda x: torch.full_like(x, 1e38),
        lambda x: x.double(),
        lambda x: x.bfloat16(),
        lambda x: x.int(),
        lambda x: x.bool(),
        lambda x: x.to(torch.float8_e4m3fn),
        lambda x: torch.complex(x, x),
        lambda x: x[:1],
        lambda x: x[None],
    ],
)
def test_weights_that_are_none_are_refused(stored, name, change, tmp_path):
    state, about = stored
    state[name] = change(state[name])
    assert name in refusal(write(tmp_path / "a.safetensors", state, about))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": [1, 10**7, 2]}, r"Expected depths in 1\.\.64 \(got \(1, 10000000, 2\)\)"),
        ({"hyper_depth": 10**7}, r"Expected hyper_depth in 1\.\.64 \(got 10000000\)"),
        ({"groups": [1] * 10**6}, r"Expected at most 64 groups \(got 1000000\)"),
        ({"qualities": 10**9}, r"Expected qualities in 1\.\.256 "),
        ({"channels": [4, 2**40, 8]}, r"Expected channels in 1\.\.8192 "),
        ({"channels": [4, 8192, 8192]}, r"Expected a configuration of the file's weights \(got a larger one"),
        ({"depths": [64, 64, 64]}, r"Expected a configuration of the file's weights \(got a larger one"),
        ({"ffn_ratios": [64, 64, 64]}, "Expected shape"),
        ({"qualities": 256}, "Expected "),
        ({"heads": -2}, r"Expected heads in 1\.\.256 \(got -2\)"),
        ({"heads": True}, r"Expected heads to be a whole number \(got True\)"),
        ({"heads": float("nan")}, r"Expected heads to be a whole number \(got nan\)"),
        ({"heads": 2.0}, r"Expected heads to be a whole number \(got 2\.0\)"),
        ({"name": "../../other"}, r"Expected a name of 1 to 200 letters, which files may have \(got '\.\./"),
        ({"name": "a\x1b[2J"}, r"Expected a name of 1 to 200 letters, which files may have \(got 'a\\x1b"),
        ({"name": "a" * 10**6}, r"Expected a name of 1 to 200 letters"),
        ({"graph": {"candidates": ["local"] * 10**5}}, r"Expected at most 8 candidates \(got 100000\)"),
        ({"graph": {"degree": 10**12}}, r"Expected degree in 1\.\.256 \(got 1000000000000\)"),
        (
            {"graph": {"score": {"name": "learned", "hidden": 10**9}}},
            r"Expected hidden of learned to be a wor",
        ),
        ({"graph": {"score": {"name": "learned", "hidden": 1024}}}, "Expected "),
        (
            {"graph": {"score": {"name": "learned", "hidden": -5}}},
            r"Expected settings that score learned take",
        ),
        (
            {"graph": {"score": {"name": "sobel", "a" * 10**6: 1}}},
            r"Expected settings of sobel to have names",
        ),
        ({"graph": {"score": "s" * 10**6}}, r"Expected a name of 1 to 200 letters \(got 'sss"),
        ({"a" * 10**6: 1}, r"Unknown key 'aaa"),
        (
            {"aggregation": {"layer": "torch_geometric.nn.SAGEConv", "out_channels": 10**12}},
            "Expected out_ch",
        ),
        ({"aggregation": {"layer": "torch_geometric.nn.SAGEConv", "out_channels": 1024}}, "Expected "),
        ({"aggregation": {"layer": "torch_geometric.nn.ChebConv", "K": 1024}}, "Expected "),
        ({"aggregation": {"layer": "torch_geometric.nn.GATConv", "heads": 0}}, "Expected "),
        ({"aggregation": {"layer": "torch_geometric.nn.GATConv", "heads": -3}}, "Expected "),
        (
            {"aggregation": {"layer": "torch_geometric.nn.GATConv", "heads": float("nan")}},
            "Expected heads of",
        ),
        ({"aggregation": {"layer": "torch_geometric.nn.RGCNConv", "num_relations": 1024}}, "Expected "),
        (
            {"aggregation": {"layer": "torch_geometric.nn.SplineConv", "dim": 50, "kernel_size": 50}},
            "Expected ",
        ),
        ({"aggregation": {"layer": "torch_geometric.nn.SAGEConv", "aggr": "exec"}}, "Expected "),
    ],
)
def test_hostile_configurations_are_refused(stored, change, message, tmp_path):
    state, about = stored
    about["config"] |= change
    with pytest.raises(CheckpointError, match=message):
        GLIC.from_pretrained(write(tmp_path / "a.safetensors", state, about))
    refusal(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "about",
    [
        "",
        "[]",
        "null",
        "DEEP",
        "HUGE",
        "{}",
        '{"format_version": HUGE}',
        '{"format_version": 1, "config": HUGE}',
        '{"format_version": 1, "config": DEEP}',
        '{"format_version": 1, "config": {"heads": HUGE}}',
        '{"format_version": 1, "config": {}, "info": {}, "same_as": []}',
        '{"format_version": 1, "config": {}, "info": {}, "same_as": 3}',
        '{"format_version": 1, "config": {}, "info": {}, "same_as": {"a": "b"}}',
        '{"format_version": 1, "config": {}, "info": {}, "same_as": {"a": []}}',
        '{"format_version": NaN, "config": {}, "info": {}, "same_as": {}}',
    ],
)
def test_files_that_say_nonsense_are_refused(stored, about, tmp_path):
    about = about.replace("DEEP", "[" * 100_000 + "]" * 100_000).replace("HUGE", "9" * 5000)
    refusal(write(tmp_path / "a.safetensors", stored[0], about))


@pytest.mark.parametrize(
    "name",
    [
        "this.x",
        "my_part_4712.Part",
        "os.system",
        "glic_pyg.something.weird",
        "glic_pyg.training.trainer.train",
        "glic_pyg.graph.complexity.Sobel.x",
        "torch_geometric.nn.nothing.SAGEConv",
        "torch_geometric.datasets.Planetoid",
        "torch_geometric.nnx.SAGEConv",
        "torch.nn.Linear",
        "..x",
    ],
)
@pytest.mark.parametrize("kind", ["aggregation", "score", "quota", "selection", "candidates"])
def test_code_is_run_only_if_allowed(stored, kind, name, tmp_path, monkeypatch):
    (tmp_path / "my_part_4712.py").write_text(
        f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Part: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_part_4712", raising=False)
    state, about = stored
    if kind == "aggregation":
        about["config"]["aggregation"] = {"layer": name}
    else:
        about["config"]["graph"][kind] = [name] if kind == "candidates" else name
    imported = set(sys.modules)
    line = refusal(write(tmp_path / "a.safetensors", state, about))
    assert (
        f"Expected {kind} to be of glic_pyg or torch_geometric.nn (got {name}, whose code would run" in line
    )
    assert not (tmp_path / "ran").exists()
    assert set(sys.modules) == imported
    if name == "my_part_4712.Part":
        refusal(tmp_path / "a.safetensors", allow_code=True)  # for it is no part
        assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("aggregation", "torch_geometric.nn.GCN"),
        ("aggregation", "torch_geometric.nn.Linear"),
        ("aggregation", "torch_geometric.nn.conv.nothing"),
        ("aggregation", "torch_geometric.nn.conv.sage_conv.Tensor"),
        ("aggregation", "torch_geometric.nn.MessagePassing"),
    ],
)
def test_what_is_no_layer_is_refused_whatever_is_allowed(stored, kind, name, tmp_path):
    state, about = stored
    about["config"][kind] = name
    assert name.rpartition(".")[2] in refusal(write(tmp_path / "a.safetensors", state, about))
    refusal(tmp_path / "a.safetensors", allow_code=True)


def test_a_part_of_the_users_loads_where_that_is_allowed(tiny_config, tmp_path, monkeypatch):
    (tmp_path / "my_score_4713.py").write_text(
        "from glic_pyg.graph.complexity import Sobel\nclass Mine(Sobel): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = GLIC(replace(tiny_config, graph=GraphConfig(degree=4, score=Part("my_score_4713.Mine"))))
    model.update()
    model.save(tmp_path / "a.safetensors")
    assert "my_score_4713.Mine" in refusal(tmp_path / "a.safetensors")
    loaded = GLIC.from_pretrained(tmp_path / "a.safetensors", allow_code=True)
    assert loaded.identity == model.identity


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int32])
def test_weights_are_saved_as_they_can_be_loaded(tiny_model, dtype, tmp_path):
    with pytest.raises(CheckpointError, match=r"Expected weights to be stored as float32 or float16 \(got "):
        tiny_model.save(tmp_path / "a.safetensors", dtype=dtype)
    model = copy.deepcopy(tiny_model)
    model.latent_codec.hyper.entropy_bottleneck._cdf_length[0] = 2
    with pytest.raises(CheckpointError, match="Expected _cdf_length within 3"):
        model.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
