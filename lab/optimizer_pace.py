"""Processor seconds of a training step by each optimiser, in turns: gradients, and what is made of them.

python lab/optimizer_pace.py --config configs/model/glic_pico.yaml --batch-size 2 --size 128 --steps 40
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from statistics import fmean

import torch
from pictures import photo

from glic_pyg import GLIC, ModelConfig
from glic_pyg.cli.main import run
from glic_pyg.cli.printing import aligned
from glic_pyg.training.loss import RateDistortionLoss
from glic_pyg.training.optimizer import build_optimizers

NAMES = ("adam", "muon", "soap")
FIRST = 10
"""Steps that are not counted: they compile, and make what optimisers keep."""


def main() -> int:
    """Parse the command line, take the steps, print a line per optimiser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="of a model of several qualities")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--size", type=int, default=128, help="sides of the crops")
    parser.add_argument("--steps", type=int, default=40, help=f"that are counted, after {FIRST} others")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GLIC(ModelConfig.from_yaml(args.config)).train()
    models = {name: copy.deepcopy(model) for name in NAMES}
    optimizers = {name: build_optimizers(models[name], name) for name in NAMES}
    x = torch.cat([photo(args.size, args.size).roll(17 * i, dims=-1) for i in range(args.batch_size)])
    loss = RateDistortionLoss([0.013] * model.config.qualities, distortion="mse")
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    for step in range(FIRST + args.steps):
        for name in NAMES:
            begin = time.process_time()
            net, quality = models[name], torch.full([len(x)], 1 + step % model.config.qualities)
            loss(net(x, quality), x, net.orthogonality_loss(), quality).loss.backward()
            middle = time.process_time()
            for optimizer in optimizers[name]:
                optimizer.step()
                optimizer.zero_grad()
            if step >= FIRST:
                seconds[name].append((middle - begin, time.process_time() - middle))
    lines = [["optimiser", "gradients", "update", "step", "of Adam's"]]
    adam = fmean(map(sum, seconds["adam"]))
    for name in NAMES:
        parts = [fmean(part) for part in zip(*seconds[name], strict=True)]
        whole = sum(parts)
        lines.append([name, *(f"{part:.3f}" for part in (*parts, whole)), f"{whole / adam:.2f}"])
    print(aligned(lines))
    return 0


if __name__ == "__main__":
    run(main)
