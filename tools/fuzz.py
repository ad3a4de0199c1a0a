"""Feed the decoder wrong files: each has to give a picture or one clear line, soon, in little memory.

    python tools/fuzz.py -n 100000 -o runs/fuzz
    python tools/fuzz.py -n 100000 -o runs/fuzz --guided

Files of every version are changed, cut, joined, invented, most of them with a true checksum; with --guided,
which needs package atheris, those are changed further that reach new branches. Inputs that do something else
are kept in the output folder, and so is, as `current.glic`, the one that a crash would end with. Exit status
1 if there is any.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import numpy as np
import torch
from tqdm import tqdm

from glic_pyg import GLIC, cli
from glic_pyg.bitstream import encode
from glic_pyg.errors import PackageError
from glic_pyg.evaluation.complexity import peak_memory
from glic_pyg.evaluation.fuzz import Findings, try_file, wrong_file

TRUE_FILES = Path(__file__).parents[1] / "tests" / "golden" / "files"


def main() -> int:
    """Parse the command line, try the inputs and print the findings."""
    parser = cli.Parser(__doc__)
    parser.add_argument("-n", "--inputs", type=cli.count, default=1000, help="(default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for inputs to look at")
    parser.add_argument("--guided", action="store_true", help="by the branches that inputs reach")
    parser.add_argument(
        "--seconds", type=cli.positive, default=10, help="an input's bound (default: %(default)s)"
    )
    parser.add_argument("--seed", type=cli.whole, default=0, help="(default: %(default)s)")
    args = parser.parse_args()
    faulthandler.enable(sys.__stderr__)
    args.output.mkdir(parents=True, exist_ok=True)
    current = args.output / "current.glic"
    model = GLIC.from_pretrained(TRUE_FILES / "of_2.safetensors")
    files = [(TRUE_FILES / f"version_{version}.glic").read_bytes() for version in (1, 2, 3)]
    x = torch.rand(1, 3, 80, 130, generator=torch.Generator().manual_seed(0))
    files += [encode(model, x[..., :height, :width], q) for height, width, q in [(1, 1, 1), (80, 130, 3.7)]]
    findings = Findings()

    def attempt(data: bytes) -> None:
        current.write_bytes(data)
        try_file(model, data, findings, seconds_bound=args.seconds)

    def report() -> int:
        for number, (data, what) in enumerate(findings.problems):
            print(f"{what}: {args.output / f'{number}.glic'}")
            (args.output / f"{number}.glic").write_bytes(data)
        for line, count in findings.refused.most_common():
            print(f"{count:8d}  {line}")
        print(f"{findings.decoded:8d}  decoded")
        minutes = (time.perf_counter() - begin) / 60
        print(
            f"{args.inputs} inputs in {minutes:.1f} min; the longest took {findings.seconds:.2f} s; "
            f"{len(findings.problems)} did what they should not"
        )
        return int(bool(findings.problems))

    begin = time.perf_counter()
    if args.guided:
        return _guided(files, args.inputs, args.output, attempt, report)
    rng = np.random.default_rng(args.seed)
    with peak_memory() as memory:
        for _ in tqdm(range(args.inputs), unit="file", disable=None):
            attempt(wrong_file(files, rng))
    print(f"memory grew by {memory['bytes'] / 1e6:.0f} MB at most")
    return report()


def _guided(
    files: list[bytes],
    inputs: int,
    output: Path,
    attempt: Callable[[bytes], None],
    report: Callable[[], int],
) -> int:
    """Let atheris choose what to change further: it keeps what reaches a new branch."""
    try:
        import atheris
    except ImportError as error:
        raise PackageError("Expected package atheris for --guided (got none)") from error
    from glic_pyg import bitstream
    from glic_pyg.entropy import coder

    for owner in (bitstream, bitstream._Reader, coder):
        for name, value in list(vars(owner).items()):
            if isinstance(value, FunctionType) and value.__module__ in (bitstream.__name__, coder.__name__):
                setattr(owner, name, atheris.instrument_func(value))
    done = 0

    def one(data: bytes) -> None:
        nonlocal done
        attempt(data)
        done += 1
        if done == inputs:
            status = report()
            sys.stdout.flush()
            os._exit(status)  # libFuzzer would take an ordinary exit for a finding

    def change(data: bytes, most: int, seed: int) -> bytes:
        return wrong_file([data] if len(data) > 4 else files, np.random.default_rng(seed))[:most]

    options = ["-rss_limit_mb=4096", "-timeout=60", f"-artifact_prefix={output}/"]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=change)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    cli.run(main)
