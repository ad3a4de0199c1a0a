"""The package: what its archives hold, its version, and that it imports without what only Unix has."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import glic_pyg

ROOT = Path(__file__).parents[1]
IN_GIT_ONLY = {".gitattributes", ".gitignore", ".ci/run"}

BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # setuptools puts arguments of its own there
build_meta.build_sdist(folder)
build_meta.build_wheel(folder)
"""

# Third-party packages have guards of their own, some by other means: only this package is imported again.
IMPORT_WITHOUT_UNIX = """
import importlib, importlib.util, os, pkgutil, signal, sys

OPTIONAL = "triton", "torch_cluster"  # the first is not in torch's CPU builds, the second is compiled

def import_all():
    package = importlib.import_module("glic_pyg")
    for module in pkgutil.walk_packages(package.__path__, "glic_pyg."):
        if any(name in module.name and importlib.util.find_spec(name) is None for name in OPTIONAL):
            continue
        importlib.import_module(module.name)

import_all()
for name in [name for name in sys.modules if name.split(".")[0] == "glic_pyg"]:
    del sys.modules[name]
for name in ["fork", "register_at_fork", "getuid", "fchmod", "fchown", "sysconf", "O_NOFOLLOW", "O_NONBLOCK"]:
    delattr(os, name)
for name in ["SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1"]:
    delattr(signal, name)
for name in ["fcntl", "grp", "pwd", "resource", "termios"]:
    sys.modules[name] = None
import_all()
"""


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the repository")
    return {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def archives(tracked, tmp_path_factory) -> Path:
    """A folder with the sdist and the wheel, built from the repository and what trainings leave."""
    tree, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("built")
    for name in tracked:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    (tree / "docs/ablation/full-0/latest.ckpt").write_bytes(b"large")
    command = [sys.executable, "-c", BUILD, built]
    result = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return built


def test_the_sdist_is_the_repository(tracked, archives):
    with tarfile.open(next(archives.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert names - made == tracked - IN_GIT_ONLY


def test_the_wheel_is_the_package_and_its_licence(tracked, archives):
    with zipfile.ZipFile(next(archives.glob("*.whl"))) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        about = metadata.removesuffix("METADATA")
        commands = archive.read(about + "entry_points.txt").decode()
    assert commands.split() == ["[console_scripts]", "glic", "=", "glic_pyg.cli.main:main"]
    assert {name for name in names if not name.startswith(about)} == {
        name for name in tracked if name.startswith("glic_pyg/")
    }
    licences = ("LICENSE", "glic_pyg/evaluation/pages/chart.LICENSE.md", "glic_pyg/photos/LICENSE.md")
    assert {about + "licenses/" + licence for licence in licences} <= names
    assert f"\nVersion: {glic_pyg.__version__}\n" in text
    assert "\nLicense-Expression: BSD-3-Clause AND MIT AND CC0-1.0\n" in text


def test_every_module_imports_without_what_only_unix_has():
    command = [sys.executable, "-c", IMPORT_WITHOUT_UNIX]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
