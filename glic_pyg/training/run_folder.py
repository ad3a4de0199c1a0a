"""What a training run leaves on disk."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import glic_pyg
from glic_pyg.errors import FileError
from glic_pyg.files import naming, read_json, write_file
from glic_pyg.ledger import Ledger
from glic_pyg.training.config import TrainConfig

PACKAGES = (
    "glic_pyg",
    "lightning",
    "pytorch-optimizer",
    "torch-geometric",
    "torch-cluster",
    "torch-scatter",
    "compressai",
    "numpy",
    "pillow",
)


class RunFolder:
    """The files of one run.

    - `config.yaml`: all settings, as last started
    - `sessions.json`: for every start of the run its time, step, command, settings, versions and git state
    - `manifest.csv`: the pictures, see `manifest`
    - `log.csv`: one line per step; `eval.csv`: one line per evaluation and quality
    - `tensorboard/`: the same curves
    - `samples/`: at every evaluation held-out pictures, each beside what the lowest, middle and highest
      quality restored
    - `latest.ckpt`: all that is needed to go on; `best.ckpt`: the same of the lowest held-out loss
    - `latest.safetensors`, `best.safetensors`: the averaged models of the two, ready to use

    Args:
        path: The folder; it is made when the run starts.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.sessions = self.path / "sessions.json"
        self.log = self.path / "log.csv"
        self.eval = self.path / "eval.csv"
        self.manifest = self.path / "manifest.csv"
        self.samples = self.path / "samples"
        self.latest = self.path / "latest.ckpt"
        self.best = self.path / "best.ckpt"

    def check(self) -> None:
        """Refuse a folder that is no run's and has files that a run would overwrite.

        Raises:
            FileError: says which file.
        """
        if self.sessions.exists():
            return
        ledger = Ledger(self.path)  # a run that was killed early has noted its manifest
        for path in (self.config, self.log, self.eval, self.manifest, self.best):
            if path.exists() and not ledger.has(path):
                raise FileError(f"Expected a run's folder, or one without {path.name} (got {self.path})")

    def start(self, config: TrainConfig, *, step: int) -> None:
        """Record a start of the run at `step`, and drop what was logged after it.

        Raises:
            FileError: the folder's tables or sessions are none of a run.
            OSError: the folder cannot be made or written.
        """
        sessions = read_json(self.sessions) if step and self.sessions.exists() else []
        if not isinstance(sessions, list):
            raise FileError(f"Expected the sessions of a run (got {self.sessions})")
        sessions.append({"step": step, **describe_session(), "config": config.to_dict()})
        write_file(self.sessions, json.dumps(sessions, indent=1) + "\n")
        write_file(self.config, config.to_yaml())
        for table in (self.log, self.eval):
            if table.exists():
                try:
                    header, *rows = table.read_text().splitlines(keepends=True)
                    kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= step]
                except ValueError as error:
                    raise FileError(f"Expected a table of a run (got {table}: {error})") from error
                write_file(table, "".join([header, *kept]))

    def append(self, path: Path, row: Mapping[str, float]) -> None:
        """Append a line to `log` or `eval`; a new file gets the names as its first line."""
        with naming(path), path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row.keys(), lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow({key: f"{value:.8g}" for key, value in row.items()})


def describe_session() -> dict[str, Any]:
    """Return time, command, machine, package versions and the state of the source's git repository."""

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(glic_pyg.__file__).parent), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        # torch tells its build (+cpu, +cu130) here; its metadata does not always.
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)}
        | {name: version(name) for name in PACKAGES},
        "git": {"commit": git("rev-parse", "HEAD"), "changed": git("status", "--porcelain", "--", ".")},
    }
