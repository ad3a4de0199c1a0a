"""What chosen neighbours are worth: the loss of a trained model when others are put in their place.

    python lab/neighbors.py -d PHOTOS --model glic_nano --quality 4 --lambda 0.005

In the graphs of encoder and decoder every node keeps itself and as many others as it would have chosen: the
most similar (as chosen), the nearest, random or the least similar ones; or none. `--stride` and `--graph`
name those graphs in which it does; elsewhere it keeps what it chose. The loss, lambda * 255^2 * MSE + bpp, is
estimated from likelihoods; nothing is trained again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from glic_pyg.codec import GLIC
from glic_pyg.files import files_below
from glic_pyg.graph import GraphBuilder
from glic_pyg.graph.candidates import Candidates, slot_offsets
from glic_pyg.graph.selection import KeptEdges, Selection, kept_edges
from glic_pyg.image import read_image
from glic_pyg.inspection.stages import stage_module, stages_with_graphs
from glic_pyg.picture import picture_suffixes

Preference = Callable[[Tensor, Tensor], Tensor]
PREFERENCES: dict[str, Preference] = {
    "nearest": lambda similarity, distance: -distance,
    "random": lambda similarity, distance: torch.rand_like(similarity),
    "least similar": lambda similarity, distance: -similarity,
}
"""Similarity and distance of each node's candidates, `N x 256` -> which are taken first."""
NONE = "none"
GRAPHS = ("local", "global")
STAGES = {4: ("g_a.1", "g_s.2"), 8: ("g_a.2", "g_s.1")}
"""Of each stride."""


class Fixed(Selection):
    """Keep what was decided before."""

    def __init__(self, keep: Tensor) -> None:
        self.keep = keep

    def __call__(self, similarity: Tensor, quota: Tensor) -> Tensor:
        return self.keep


def prefer(builder: GraphBuilder, preference: Preference | None, graphs: Sequence[int] = (0, 1)) -> None:
    """Let a builder's graphs of these numbers keep, beside each node, as many others by another preference.

    Without a preference they keep no others.
    """
    number = cycle(range(len(builder.candidates)))
    as_chosen = builder._kept_edges

    def kept(unit: Tensor, quota: Tensor, candidates: Candidates) -> KeptEdges:
        if next(number) not in graphs:
            return as_chosen(unit, quota, candidates)
        similarity = builder._similarity(unit, quota, candidates)
        of_nodes = similarity[candidates.group, candidates.slot]
        chosen = builder.selection(of_nodes, quota)
        count = (chosen | ~chosen.any(1, keepdim=True)).sum(1, keepdim=True)
        steps = slot_offsets()[candidates.slot] - candidates.shift[:, None]
        distance = (steps.float() * torch.tensor(candidates.stride)).norm(dim=-1)
        if preference is None:
            return kept_edges(similarity, quota, candidates, Fixed(distance == 0))
        wanted = preference(of_nodes, distance).masked_fill(distance == 0, torch.inf)
        rank = wanted.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return kept_edges(similarity, quota, candidates, Fixed(rank < count))

    builder._kept_edges = kept  # type: ignore[method-assign]


@torch.no_grad()
def loss(model: GLIC, x: Tensor, quality: float | None, lmbda: float) -> float:
    """Return the rate-distortion loss of a picture."""
    output = model(x, quality)
    mse = (output["x_hat"].clamp(0, 1) - x).square().mean()
    bits = -sum(likelihood.log2().sum() for likelihood in output["likelihoods"].values())
    return float(lmbda * 255**2 * mse + bits / x[0, 0].numel())


def main() -> None:
    """Print how much larger the loss is with each kind of neighbours."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", "--dataset", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--model", default="glic_nano", metavar="NAME|PATH", help="(default: %(default)s)")
    parser.add_argument("--quality", type=float, help="of a model of several")
    parser.add_argument("--lambda", type=float, required=True, dest="lmbda", help="weight of the distortion")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each Nth picture")
    parser.add_argument("--stride", type=int, choices=STAGES, help="other neighbours at this stride alone")
    parser.add_argument("--graph", choices=GRAPHS, help="other neighbours in these graphs alone")
    args = parser.parse_args()
    stages = [stage for stride in STAGES if args.stride in (None, stride) for stage in STAGES[stride]]
    graphs = [number for number, graph in enumerate(GRAPHS) if args.graph in (None, graph)]
    torch.manual_seed(0)
    pictures = [read_image(path) for path in files_below(args.dataset, picture_suffixes())[:: args.every]]
    losses = {}
    for name in ("as chosen", *PREFERENCES, NONE):
        model = GLIC.from_pretrained(args.model)
        for stage in stages_with_graphs(model) if name != "as chosen" else ():
            if stage in stages:
                prefer(stage_module(model, stage).graph_builder, PREFERENCES.get(name), graphs)
        found = [loss(model, x, args.quality, args.lmbda) for x in tqdm(pictures, name, disable=None)]
        losses[name] = torch.tensor(found)
        change = 100 * (losses[name] / losses["as chosen"] - 1)
        print(f"{name:14} {losses[name].mean():.4f} {change.mean():+.2f} % +- {change.std():.2f}", flush=True)


if __name__ == "__main__":
    main()
