"""Who imports whom: everything flows down, nothing runs in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = """
    torchvision_shim errors limits yaml_text eager_call progress
    upstream eager
    config derived compiled kernels threads processes on_ray simd products
    files mending srgb names
    places
    picture
    transparency formats
    image ledger checkpoint_header figures pages
    container identity metrics chunks
    graph
    nn
    transform entropy
    build
    checkpoint tiles
    codec
    published refinement
    bitstream
    rate_control pillow
    bulk inspection evaluation training export
    experiments viewer
    cli
    __main__
"""
"""Rooms of the package, from the ground up; those of one floor may know each other."""

FLOOR = {room: height for height, rooms in enumerate(FLOORS.split("\n")) for room in rooms.split()}
LAZY = {"GLIC": "glic_pyg.codec", "ModelConfig": "glic_pyg.config"}
"""What the package itself hands out, and from where."""


def modules() -> dict[str, Path]:
    """Return the package's files by the names of their modules."""
    paths = sorted((ROOT / "glic_pyg").rglob("*.py"))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


def imported(text: str, known: dict[str, Path]) -> set[str]:
    """Return the package's modules that a file imports, wherever in it, for types too."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for name in (alias.name for alias in node.names):
                whole = f"{node.module}.{name}"
                lazy = LAZY.get(name, node.module) if node.module == "glic_pyg" else node.module
                found.add(whole if whole in known else lazy)
    return {name for name in found if name in known and name != "glic_pyg"}


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    known = modules()
    return {name: imported(path.read_text(), known) for name, path in known.items() if name != "glic_pyg"}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_a_floor(imports):
    assert {room(module) for module in imports} <= FLOOR.keys()
    assert imports["glic_pyg.bitstream"] >= {"glic_pyg.codec", "glic_pyg.container"}


def test_no_arrow_runs_up(imports):
    up = {
        f"{module} -> {other}"
        for module, others in imports.items()
        for other in others
        if FLOOR[room(module)] < FLOOR[room(other)]
    }
    assert not up


def test_no_imports_in_a_circle(imports):
    TopologicalSorter(imports).prepare()  # which names a circle


def test_no_pickle_runs():
    """What torch loads is tensors alone, wherever it is loaded."""
    files = {name: ast.parse(path.read_text()) for name, path in modules().items()}
    nodes = [(name, node) for name, tree in files.items() for node in ast.walk(tree)]
    loads = {
        f"{name}:{node.lineno}": {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        for name, node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    }
    assert {name.partition(":")[0] for name in loads} >= {"glic_pyg.published", "glic_pyg.training.trainer"}
    assert [name for name, settings in loads.items() if settings.get("weights_only") != "True"] == []
    imported = {alias.name for _, node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def test_what_is_found_in_a_file():
    text = (
        "def f():\n"
        "    from glic_pyg import GLIC, bitstream\n"
        "    from glic_pyg.codec import check_quality\n"
        "import glic_pyg.cli, os\n"
    )
    assert imported(text, modules()) == {"glic_pyg.codec", "glic_pyg.bitstream", "glic_pyg.cli"}
