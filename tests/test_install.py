"""The versions agree: pyproject.toml asks, constraints.txt and Makefile answer, environment.yml repeats."""

import os
import re
import subprocess
import sys
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
APART = {"ray", "pyarrow"}  # of the extra for clusters, which is large: neither `make` nor conda installs it


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
    expected = {name: pins[name] for name in (requirements.keys() | BUILD_TOOLS) - COMPILED - APART}
    assert parse_pins(pip_lines) == expected


def test_all_are_in_the_extra_all():
    """But the one for clusters; and it is in `dev`, so that the tests test all the others."""
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == EXTRAS.keys() - {"all", "dev", "docs", "ray"}
    assert "glic_pyg[all]" in EXTRAS["dev"]


def test_the_demo_compiles_nothing():
    makefile = (ROOT / "Makefile").read_text()
    ready = re.search(r"^\$\(READY\):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    assert "[demo]" in ready
    assert "COMPILE" not in ready
    wanted = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"] + EXTRAS["demo"]}
    assert not wanted & COMPILED


CPU_BUILDS = "--extra-index-url=https://download.pytorch.org/whl/cpu"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pip's usual torch is the CPU build")
@pytest.mark.parametrize(
    ("words", "environment", "index"),
    [
        ([], {}, CPU_BUILDS),
        (["GPU=1"], {}, None),
        ([], {"GPU": "1"}, None),
        (["TORCH_INDEX="], {}, None),
        (["TORCH_INDEX=https://a.example/rocm"], {}, "--extra-index-url=https://a.example/rocm"),
        ([], {"TORCH_INDEX": "https://a.example/rocm"}, "--extra-index-url=https://a.example/rocm"),
        (["GPU=1", "TORCH_INDEX=https://a.example/cuda"], {}, "--extra-index-url=https://a.example/cuda"),
        ([], {"PIP_INDEX_URL": "https://a.example/simple"}, None),
        ([], {"PIP_EXTRA_INDEX_URL": "https://a.example/simple"}, None),
    ],
)
def test_no_libraries_for_gpus_are_fetched_unasked(words, environment, index, tmp_path):
    """Read from what make would do."""
    usual = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "MAKE", "GPU", "TORCH"))
    }
    made = subprocess.run(
        ["make", "-n", "demo", f"VENV={tmp_path}", f"PYTHON={sys.executable}", *words],
        cwd=ROOT,
        env=usual | {"PIP_CONFIG_FILE": os.devnull} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in made.stdout.splitlines() if "pip install" in line and "'torch==" in line]
    assert [word for word in line.split() if "index" in word] == ([] if index is None else [index])


def test_conda_takes_the_cpu_build():
    wanted = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert CPU_BUILDS.replace("=", " ", 1) in wanted
