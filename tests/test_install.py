"""The versions agree: pyproject.toml asks, constraints.txt and Makefile answer, environment.yml repeats."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
COMPILED = {"torch-scatter", "torch-cluster"}  # they follow once torch is there
BUILD_TOOLS = {"setuptools", "wheel"}


def parse_pins(lines: list[str]) -> dict[str, str]:
    """`["PyYAML==6.0.3", ...]` -> `{"pyyaml": "6.0.3", ...}`; comments and pip options are skipped."""
    pins = {}
    for line in lines:
        if line and not line.startswith(("#", "-")):
            name, version = line.split("==")
            pins[canonicalize_name(name)] = version
    return pins


@pytest.fixture(scope="module")
def requirements() -> dict[str, Requirement]:
    """Of the package and all its extras."""
    lines = PROJECT["dependencies"] + [line for lines in EXTRAS.values() for line in lines]
    found = {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}
    del found["glic-pyg"]  # extras of extras
    return found


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    return parse_pins((ROOT / "constraints.txt").read_text().splitlines())


@pytest.fixture(scope="module")
def torch_pins() -> dict[str, str]:
    makefile = (ROOT / "Makefile").read_text()
    return parse_pins(re.search(r"^TORCH \?= (.+)$", makefile, re.MULTILINE)[1].split())


def test_torch_is_chosen_in_the_makefile_alone(constraints: dict[str, str], torch_pins: dict[str, str]):
    assert torch_pins.keys() == {"torch", "torchvision"}
    assert not torch_pins.keys() & constraints.keys()


def test_every_requirement_is_pinned_within_its_range(
    requirements: dict[str, Requirement], constraints: dict[str, str], torch_pins: dict[str, str]
):
    pins = constraints | torch_pins
    assert requirements.keys() | BUILD_TOOLS <= pins.keys()
    for name, requirement in requirements.items():
        assert pins[name] in requirement.specifier, f"Expected {requirement} (got {pins[name]})"


def test_conda_gets_the_same_versions(
    requirements: dict[str, Requirement], constraints: dict[str, str], torch_pins: dict[str, str]
):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip_lines = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    pins = constraints | torch_pins
    expected = {name: pins[name] for name in (requirements.keys() | BUILD_TOOLS) - COMPILED}
    assert parse_pins(pip_lines) == expected


def test_all_are_in_the_extra_all():
    """And it is in `dev`, so that the tests test everything."""
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == EXTRAS.keys() - {"all", "dev", "docs"}
    assert "glic_pyg[all]" in EXTRAS["dev"]


def test_the_demo_compiles_nothing():
    makefile = (ROOT / "Makefile").read_text()
    ready = re.search(r"^\$\(READY\):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    assert "[demo]" in ready
    assert "COMPILE" not in ready
    wanted = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"] + EXTRAS["demo"]}
    assert not wanted & COMPILED
