"""Similarities, the choice among them and the kept edges in compiled code, on the CPU, group by group.

A group's similarities exist while its edges are chosen, in the processor's caches, and nowhere else.
"""

from functools import partial
from itertools import pairwise
from typing import TypeGuard

import numba
import numpy as np
import torch
from torch import Tensor

from glic_pyg.compiled import compiled
from glic_pyg.graph.candidates import QUERIES, Candidates, slot_offsets
from glic_pyg.graph.selection import KNN, KeptEdges, Selection, Threshold, TopD
from glic_pyg.products import WIDTH, multiply
from glic_pyg.simd import full, load, lowest_bit, maximum, one_above, places_above, store
from glic_pyg.threads import parts_of, share_out

EXACT_BISECTIONS = 20  # until few nodes have another number of neighbours than wanted
ALL = (np.float32(0),) * QUERIES**2  # a vector with an entry for each query of a group


def takes(selection: Selection) -> TypeGuard[Threshold | TopD]:
    """Return whether `kept_edges` can do what a selection does."""
    return type(selection) in (Threshold, TopD, KNN)


def kept_edges(unit: Tensor, quota: Tensor, candidates: Candidates, selection: Threshold | TopD) -> KeptEdges:
    """Choose among cosines.

    It computes what `glic_pyg.graph.similarity.Cosine` and `glic_pyg.graph.selection.kept_edges` do. Sums
    run in another order: where similarities are equal, or are the threshold, to the last bits, they may
    differ.

    Args:
        unit: Features of length 1, `(N + 1) x C`, float32; the last row, of zeros, is the zero node.
        quota: Wanted number of neighbours per node, `N`.
        candidates: The groups.
        selection: One that `takes`.
    """
    if exact := isinstance(selection, TopD):
        quota, bisections = selection.counts(quota), EXACT_BISECTIONS
    else:
        bisections = selection.bisections
    features, wanted = unit.contiguous().numpy(), quota.contiguous().numpy()
    queries, candidate = candidates.node.numpy(), candidates.candidate.numpy()
    degree = np.empty(candidates.num_nodes, np.int64)
    parts = list(pairwise(parts_of(len(queries))))

    def choose(part: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return _choose(features, wanted, queries, candidate, bisections, exact, degree, *part)

    chosen = share_out(choose, parts)
    indptr = np.zeros(len(degree) + 1, np.int64)
    np.cumsum(degree, out=indptr[1:])
    index = candidates.candidate.new_empty(2, int(indptr[-1]))
    offset = index.new_empty(index.size(1), 2, dtype=torch.int8)
    similarity = unit.new_empty(index.size(1))
    arrays = (index.numpy(), offset.numpy(), similarity.numpy())
    write = partial(_write, queries, candidate, slot_offsets().numpy(), indptr, *arrays)
    share_out(lambda part: write(*chosen[part], *parts[part]), range(len(parts)))
    return KeptEdges(index, offset, similarity)


@compiled()
def _choose(features, quota, queries, candidate, bisections, exact, degree, start, stop):
    """Choose the edges of some groups: set their nodes' degrees, return place and similarity of each edge.

    Edges are in the order of groups, slots and places. If they are to be exact, each node gets its quota.
    """
    num_nodes, channels = len(quota), features.shape[1]
    num_queries, num_candidates = queries.shape[1], candidate.shape[1]
    place, kept, count = np.empty(1024, np.uint8), np.empty(1024, np.float32), 0
    near = np.empty(num_candidates * channels, np.float32)
    packed_queries = np.empty(num_queries * channels, np.float32)
    cosine = np.empty(num_candidates * num_queries, np.float32)
    wanted, threshold = np.empty(num_queries, np.float32), np.empty(num_queries, np.float32)
    total, first = np.empty(num_queries, np.float64), np.empty(num_queries + 1, np.int64)
    found = np.empty(num_queries, np.float32)
    equals = np.zeros(num_queries, np.int64)  # as similar as the threshold, that are to be taken
    for g in range(start, stop):
        for k in range(num_candidates):
            for c in range(channels):
                near[k * channels + c] = features[candidate[g, k], c]
        _pack(features, queries[g], packed_queries)
        for i in range(len(cosine)):
            cosine[i] = 0
        multiply(
            near, 0, channels, num_candidates, packed_queries, 0, channels, num_queries, cosine, 0,
            num_queries,
        )  # fmt: skip
        for q in range(num_queries):
            wanted[q] = quota[queries[g, q]] if queries[g, q] < num_nodes else 0
        _bisect(cosine, wanted, num_candidates, bisections, exact, total, threshold)
        most = load(ALL, threshold, 0)
        above = full(ALL, 0.0)
        for k in range(num_candidates):
            above = above + one_above(load(ALL, cosine, k * num_queries), most)
        store(found, 0, above)
        if exact:
            _meet(cosine, wanted, num_candidates, found, threshold, equals)
        first[0] = count
        for q in range(num_queries):
            if queries[g, q] == num_nodes:
                threshold[q], found[q] = np.inf, 0
            else:
                if found[q] == 0:
                    threshold[q], found[q] = -np.inf, num_candidates
                degree[queries[g, q]] = np.int64(found[q])
            first[q + 1] = first[q] + np.int64(found[q])
        count = first[num_queries]
        if count > len(place):
            place, kept = _longer(place, first[0], 2 * count), _longer(kept, first[0], 2 * count)
        most = load(ALL, threshold, 0)
        for k in range(num_candidates):
            similar = load(ALL, cosine, k * num_queries)
            bits = ~places_above(most, similar) if exact else places_above(similar, most)
            while bits:
                q = lowest_bit(bits)
                bits &= bits - np.uint64(1)
                if exact and cosine[k * num_queries + q] == threshold[q]:
                    if equals[q] == 0:
                        continue
                    equals[q] -= 1
                place[first[q]], kept[first[q]] = k, cosine[k * num_queries + q]
                first[q] += 1
    return place[:count], kept[:count]


@numba.njit
def _pack(features, nodes, out):
    """Lay the features of nodes out as columns, in `glic_pyg.products.packed`'s order."""
    channels = features.shape[1]
    for q in range(len(nodes)):
        panel = q // WIDTH * WIDTH
        width = min(WIDTH, len(nodes) - panel)
        for c in range(channels):
            out[panel * channels + c * width + q - panel] = features[nodes[q], c]


@numba.njit
def _longer(array, count, length):
    longer = np.empty(length, array.dtype)
    for i in range(count):
        longer[i] = array[i]
    return longer


@numba.njit
def _bisect(cosine, quota, num_candidates, bisections, exact, total, threshold):
    """Set the thresholds of a group's queries, whose similarities are the columns of `cosine`.

    If edges are to be exact, these are the last ones above which there were at most as many as the quota.
    """
    num_queries = len(quota)
    for q in range(num_queries):
        total[q] = 0
    least = load(ALL, cosine, 0)
    for k in range(num_candidates):
        for q in range(num_queries):
            total[q] += cosine[k * num_queries + q]  # in float64: the mean of equal numbers is that number
        least = -maximum(-least, -load(ALL, cosine, k * num_queries))
    for q in range(num_queries):
        threshold[q] = np.float32(total[q] / num_candidates)
    t, low, high = load(ALL, threshold, 0), least, full(ALL, 1.0)
    wanted = load(ALL, quota, 0)
    for _ in range(bisections):
        above = full(ALL, 0.0)
        for k in range(num_candidates):
            above = above + one_above(load(ALL, cosine, k * num_queries), t)
        too_many = one_above(above, wanted)
        other = 1.0 - too_many
        low, high = too_many * t + other * low, other * t + too_many * high
        t = (too_many * (t + high) + other * (t + low)) * 0.5
    store(threshold, 0, high if exact else t)


@numba.njit
def _meet(cosine, quota, num_candidates, found, threshold, equals):
    """Let the queries of a group find as many candidates as their quota, or all.

    Where it is another number, the threshold becomes the least similarity that is kept, of which some equal
    ones may have to go.
    """
    column = np.empty(num_candidates, np.float32)
    for q in range(len(quota)):
        count, other = min(np.int64(quota[q]), num_candidates), np.int64(found[q])
        found[q], equals[q] = count, 0
        if count == 0 or count == other:
            continue
        for k in range(num_candidates):
            column[k] = cosine[k * len(quota) + q]
        threshold[q] = np.partition(column, num_candidates - count)[num_candidates - count]
        equals[q] = count
        for k in range(num_candidates):
            equals[q] -= column[k] > threshold[q]


@compiled()
def _write(queries, candidate, offsets, indptr, index, offset, similarity, place, kept, start, stop):
    """Write the chosen edges of some groups where those of their targets belong."""
    num_nodes, at = len(indptr) - 1, 0
    for g in range(start, stop):
        for q in range(queries.shape[1]):
            node = queries[g, q]
            if node == num_nodes:
                continue
            for edge in range(indptr[node], indptr[node + 1]):
                k = place[at]
                index[0, edge], index[1, edge] = candidate[g, k], node
                offset[edge, 0], offset[edge, 1] = offsets[q, k, 0], offsets[q, k, 1]
                similarity[edge] = kept[at]
                at += 1
