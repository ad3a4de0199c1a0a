"""The bisected threshold and the kept edges in compiled code, on the CPU."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from glic_pyg.compiled import compiled
from glic_pyg.graph.candidates import Candidates, slot_offsets
from glic_pyg.graph.selection import KeptEdges
from glic_pyg.threads import in_ranges


def kept_edges(similarity: Tensor, quota: Tensor, candidates: Candidates, *, bisections: int) -> KeptEdges:
    """Compute what `glic_pyg.graph.selection.kept_edges` does with a `Threshold` of so many bisections.

    Sums run in another order: where a similarity equals the threshold to the last bits, the two
    may decide differently.
    """
    group, slot, candidate = (t.numpy() for t in (candidates.group, candidates.slot, candidates.candidate))
    table = similarity.contiguous().numpy()
    num_nodes = len(group)
    threshold, degree = np.empty(num_nodes, np.float32), np.empty(num_nodes, np.int64)
    in_ranges(partial(_bisect, table, group, slot, quota.numpy(), bisections, threshold, degree), num_nodes)
    indptr = np.zeros(num_nodes + 1, np.int64)
    np.cumsum(degree, out=indptr[1:])
    index = candidates.candidate.new_empty(2, int(indptr[-1]))
    offset = index.new_empty(index.size(1), 2, dtype=torch.int8)
    kept = similarity.new_empty(index.size(1))
    arrays = (index.numpy(), offset.numpy(), kept.numpy())
    fill = partial(_fill, table, group, slot, candidate, slot_offsets().numpy(), threshold, indptr, *arrays)
    in_ranges(fill, num_nodes)
    return KeptEdges(index, offset, kept)


@compiled(fastmath={"reassoc", "nsz", "contract"})
def _bisect(similarity, group, slot, quota, bisections, threshold, degree, start, stop):
    num_candidates = similarity.shape[2]
    for i in range(start, stop):
        row = similarity[group[i], slot[i]]
        # In float64, so that the order, which is the compiler's choice, is not seen in the rounded mean.
        total, low = np.float64(0), row[0]
        for k in range(num_candidates):
            total += np.float64(row[k])
            low = min(low, row[k])
        t, high = np.float32(total / num_candidates), np.float32(1)
        for _ in range(bisections):
            above = np.int32(0)
            for k in range(num_candidates):
                above += row[k] > t
            if above > quota[i]:
                low = t
                t = (t + high) / np.float32(2)
            else:
                high = t
                t = (t + low) / np.float32(2)
        above = np.int32(0)
        for k in range(num_candidates):
            above += row[k] > t
        threshold[i] = t if above > 0 else -np.inf
        degree[i] = above if above > 0 else num_candidates


@compiled()
def _fill(similarity, group, slot, candidate, offsets, threshold, indptr, index, offset, kept, start, stop):
    for i in range(start, stop):
        row = similarity[group[i], slot[i]]
        edge = indptr[i]
        for k in range(len(row)):
            if not row[k] <= threshold[i]:  # a similarity that is no number is kept, as `_bisect` counts it
                index[0, edge] = candidate[group[i], k]
                index[1, edge] = i
                offset[edge, 0] = offsets[slot[i], k, 0]
                offset[edge, 1] = offsets[slot[i], k, 1]
                kept[edge] = row[k]
                edge += 1
