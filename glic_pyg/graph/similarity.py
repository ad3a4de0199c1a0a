"""How alike a node's candidates are to it."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Data

from glic_pyg.graph.candidates import CANDIDATES, QUERIES, Candidates

GROUPS_AT_ONCE = 16  # so many groups' features fit the processor's caches
BYTES_AT_ONCE = 2**28  # of groups' features on a GPU, where every product is a launch


class Similarity(ABC):
    """What the candidates of a node are ranked by: the cosine of the angle between two nodes' features."""

    def features(self, nodes: Data) -> Float[Tensor, "N C"]:
        """Return what is compared; as published, the features themselves.

        Args:
            nodes: The nodes of feature maps, see `to_nodes`. Not to be changed.

        Returns:
            `N x C`.
        """
        return nodes.x

    @abstractmethod
    def __call__(
        self, unit: Float[Tensor, "N_and_zero C"], candidates: Candidates, *, k: int
    ) -> Float[Tensor, "G 64 256"]:
        """Compare every node with its candidates; called without gradient.

        Args:
            unit: `features` of length 1, `(N + 1) x C`; the last row, of zeros, is the zero node.
            candidates: The groups.
            k: How many of a node's most similar candidates must be known, 1..256.

        Returns:
            Cosines per group, `G x 64 x 256`; minus infinity where a candidate was left out. Places without a
            node are not read.
        """


class Cosine(Similarity):
    """The cosine of features, by one matrix product per group."""

    def __call__(
        self, unit: Float[Tensor, "N_and_zero C"], candidates: Candidates, *, k: int
    ) -> Float[Tensor, "G 64 256"]:
        similarity = unit.new_empty(*candidates.node.shape, candidates.candidate.size(1))
        count = GROUPS_AT_ONCE
        if unit.device.type != "cpu":
            count = max(1, BYTES_AT_ONCE // ((QUERIES**2 + CANDIDATES**2) * unit[0].nbytes))
        parts = (x.split(count) for x in (candidates.node, candidates.candidate, similarity))
        for queries, near, result in zip(*parts, strict=True):
            torch.bmm(unit[queries], unit[near].transpose(1, 2), out=result)
        return similarity


class Centered(Cosine):
    """The cosine of features minus their mean over the picture's map.

    Features that share a large mean are all alike to `Cosine`.
    """

    def features(self, nodes: Data) -> Float[Tensor, "N C"]:
        x = nodes.x.view(nodes.map_size[0], -1, nodes.x.size(1))
        return (x - x.mean(1, keepdim=True)).flatten(0, 1)
