"""Give what reads files wrong ones: each has to be taken, or refused in a line, soon and in little memory.

python lab/fuzz.py file -n 100000 -o runs/fuzz
python lab/fuzz.py file -n 100000 -o runs/fuzz --guided
python lab/fuzz.py picture checkpoint published results manifest table -n 10000 -o runs/fuzz

Targets are the decoder (file), the encoder (picture), which has to make what the decoder takes, the loaders
of models, which have to code then, and the readers of results and training data. Inputs are true ones,
changed, cut, joined, or invented; .glic files most of them with a true checksum. Each target runs in a
process of its own with bounded memory, and goes on after what kills it. With --guided, which needs package
atheris, .glic files are changed further that reach new branches. Inputs that do something else are kept in
the output folder. Exit status 1 if there is any.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from pathlib import Path
from types import FunctionType

import numpy as np
from tqdm import tqdm
from wrong_inputs import TARGETS, Findings, attempt, file_target, try_target, wrong_file

from glic_pyg.cli import flags
from glic_pyg.cli.main import run
from glic_pyg.cli.printing import say
from glic_pyg.errors import PackageError
from glic_pyg.files import write_file


def main() -> int:
    """Parse the command line, try the inputs and print the findings."""
    parser = flags.Parser(__doc__)
    add = parser.add_argument
    add("targets", nargs="+", choices=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    add("-n", "--inputs", type=flags.count, default=1000, help="of each target (default: %(default)s)")
    add("-o", "--output", type=Path, required=True, help="folder for inputs to look at")
    add("--guided", action="store_true", help="by the branches that inputs reach; of files only")
    add("--seconds", type=flags.positive, default=10, help="an input's bound (default: %(default)s)")
    add("--memory", type=flags.size, default=1 << 30, metavar="1G", help="the process's growth (default: 1G)")
    add("--seed", type=flags.whole, default=0, help="(default: %(default)s)")
    args = parser.parse_args()
    if args.guided:
        return _guided(args.inputs, args.output, args.seconds)
    status = 0
    for name in args.targets:
        begin = time.perf_counter()
        with tqdm(total=args.inputs, unit="input", desc=name, disable=None) as bar:
            findings = try_target(
                name,
                args.inputs,
                seed=args.seed,
                seconds=args.seconds,
                memory=args.memory,
                progress=lambda number, bar=bar: bar.update(number - bar.n),
            )
        status = max(status, _report(name, findings, args.inputs, args.output, begin))
    return status


def _report(name: str, findings: Findings, inputs: int, output: Path, begin: float) -> int:
    suffix = TARGETS[name]().suffix if findings.problems else ""
    for number, (data, what) in enumerate(findings.problems):
        path = output / f"{name}-{number}{suffix}"
        say(f"{what}: {path}")
        write_file(path, data)
    for line, count in findings.refused.most_common():
        say(f"{count:8d}  {line}")
    print(f"{findings.taken:8d}  taken")
    print(
        f"{name}: {inputs} inputs in {(time.perf_counter() - begin) / 60:.1f} min; the longest took "
        f"{findings.seconds:.2f} s; memory grew by {findings.memory / 1e6:.0f} MB at most; "
        f"{len(findings.problems)} did what they should not"
    )
    return int(bool(findings.problems))


def _guided(inputs: int, output: Path, seconds: float) -> int:
    """Let atheris choose what to change further: it keeps what reaches a new branch."""
    try:
        import atheris
    except ImportError as error:
        raise PackageError("Expected package atheris for --guided (got none)") from error
    from glic_pyg import bitstream, container
    from glic_pyg.entropy import coder

    faulthandler.enable(sys.__stderr__)
    output.mkdir(parents=True, exist_ok=True)
    for owner in (bitstream, container, container._Reader, coder):
        for name, value in list(vars(owner).items()):
            if isinstance(value, FunctionType) and value.__module__ in {
                bitstream.__name__,
                container.__name__,
                coder.__name__,
            }:
                setattr(owner, name, atheris.instrument_func(value))
    target, findings, begin, done = file_target(), Findings(), time.perf_counter(), 0

    def one(data: bytes) -> None:
        nonlocal done
        attempt(target, data, findings, seconds=seconds)
        done += 1
        if done == inputs:
            status = _report("file", findings, inputs, output, begin)
            sys.stdout.flush()
            os._exit(status)  # libFuzzer would take an ordinary exit for a finding

    def change(data: bytes, most: int, seed: int) -> bytes:
        return wrong_file([data] if len(data) > 4 else target.true, np.random.default_rng(seed))[:most]

    options = ["-rss_limit_mb=4096", "-timeout=60", f"-artifact_prefix={output}/"]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=change)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    run(main)
