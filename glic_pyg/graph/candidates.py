"""Where a node may look for neighbours: groups of 64 query nodes that share 256 candidates."""

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Int8, Int64
from torch import Tensor
from torch_geometric.data import Data

from glic_pyg.graph.grid import MapSize

QUERIES = 8  # a group's queries form an 8 x 8 grid,
CANDIDATES = 16  # its candidates a 16 x 16 grid
WINDOW_MARGIN = (CANDIDATES - QUERIES) // 2  # by so much a window is wider than its queries, on each side
CPU = torch.device("cpu")

# The tables depend on the map's size alone. They are kept, also for a later training: never write to them,
# and make them on a device that is named, not on one that happens to be the default at the time.


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidate neighbours of every node, stored once per group.

    Args:
        candidate: Node ids, `G x 256`, a group's 16 x 16 grid row by row; `N` is the zero node,
            which stands for positions outside the map.
        group: Each node's group, `N`.
        slot: Each node's place 0..63 in its group's 8 x 8 grid, `N`; no two nodes of a group share one.
        shift: Where candidates lie on a regular grid of the map: the row and column of each node's own place
            in it minus those of its slot, `N x 2`, int8. With `stride`, it tells how long edges are.
        stride: Rows and columns of the map per step of that grid.

    Raises:
        ValueError: another number of candidates.
    """

    candidate: Int64[Tensor, "G 256"]
    group: Int64[Tensor, " N"]
    slot: Int64[Tensor, " N"]
    shift: Int8[Tensor, "N 2"] | None = None
    stride: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.candidate.dim() != 2 or self.candidate.size(1) != CANDIDATES**2:
            raise ValueError(
                f"Expected {CANDIDATES**2} candidates per group, zero nodes among them if need be "
                f"(got {tuple(self.candidate.shape)})"
            )

    @functools.cached_property
    def node(self) -> Int64[Tensor, "G 64"]:
        """The nodes of each group by their slot, `G x 64`; `N` where a group has none.

        Raises:
            ValueError: two nodes share a slot.
        """
        with torch.inference_mode(False):
            node = self.group.new_full((len(self.candidate), QUERIES**2), self.num_nodes)
            node[self.group, self.slot] = torch.arange(self.num_nodes, device=self.group.device)
            alone = int((node < self.num_nodes).sum())
            if alone < self.num_nodes:
                raise ValueError(f"Expected a slot for each of {self.num_nodes} nodes (got {alone} slots)")
            return node

    @property
    def num_nodes(self) -> int:
        return self.group.numel()


class CandidateSet(ABC):
    """Where the nodes of a graph may look for neighbours."""

    @abstractmethod
    def __call__(self, data: Data) -> Candidates:
        """Group the nodes and find each group's candidates; called without gradient.

        Args:
            data: The nodes of a feature map, see `to_nodes`: `x` (`N x C`), `pos`, `batch`, `map_size`. Not
                to be changed.

        Returns:
            Groups whose queries and candidates are of the same picture. An edge's offset, which layers
            read, is its candidate's place in the 16 x 16 grid minus its query's in the 8 x 8 grid.
        """


class LocalWindows(CandidateSet):
    """The window around each window of queries, see `local_windows`."""

    def __call__(self, data: Data) -> Candidates:
        return local_windows(data.map_size, data.x.device)


class GlobalMesh(CandidateSet):
    """A mesh over the whole map, another one for every group, see `global_mesh`."""

    def __call__(self, data: Data) -> Candidates:
        return global_mesh(data.map_size, data.x.device)


class AnchorMesh(CandidateSet):
    """The same 16 x 16 anchors for all nodes of a picture, see `anchor_mesh`."""

    def __call__(self, data: Data) -> Candidates:
        return anchor_mesh(data.map_size, data.x.device)


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def slot_offsets(device: torch.device = CPU) -> Int8[Tensor, "64 256 2"]:
    """Return the offset (row, column) of each candidate from each query, in grid steps.

    Returns:
        `64 x 256 x 2`, int8, values -7..15: the candidate's place in the group's 16 x 16 grid
        minus the query's place in its 8 x 8 grid.
    """
    query, candidate = (
        torch.cartesian_prod(*[torch.arange(side, device=device)] * 2) for side in (QUERIES, CANDIDATES)
    )
    return (candidate[None] - query[:, None]).to(torch.int8)


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def local_windows(map_size: MapSize, device: torch.device = CPU) -> Candidates:
    """Group the nodes by 8 x 8 windows; candidates are the 16 x 16 window around each.

    Any map size works: windows at the border hold fewer queries, and candidates outside the map
    are the zero node.
    """
    _, height, width = map_size
    return _from_axes(map_size, _window_axis(height, device), _window_axis(width, device))


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def global_mesh(map_size: MapSize, device: torch.device = CPU) -> Candidates:
    """Group the nodes by strided meshes that span the map; candidates are the mesh twice as dense.

    A map whose height or width is no multiple of 16 counts as continued by zero nodes up to
    the next one.
    """
    _, height, width = map_size
    return _from_axes(map_size, _mesh_axis(height, device), _mesh_axis(width, device))


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def anchor_mesh(map_size: MapSize, device: torch.device = CPU) -> Candidates:
    """Group the nodes as `global_mesh` does; candidates of all groups are one mesh of anchors.

    Anchors lie in the middle of ceil(H / 16) x ceil(W / 16) positions each. A node is among its own
    candidates only if it is an anchor.
    """
    _, height, width = map_size
    return _from_axes(map_size, _anchor_axis(height, device), _anchor_axis(width, device))


Axis = tuple[Int64[Tensor, "_ 8"], Int64[Tensor, "_ 16"]]  # coordinates of queries and candidates


def _window_axis(length: int, device: torch.device) -> Axis:
    start = torch.arange(0, length, QUERIES, device=device)[:, None]
    return (
        start + torch.arange(QUERIES, device=device),
        start - WINDOW_MARGIN + torch.arange(CANDIDATES, device=device),
    )


def _mesh_axis(length: int, device: torch.device) -> Axis:
    candidate_stride = -(-length // CANDIDATES)
    query_stride = 2 * candidate_stride
    first = torch.arange(query_stride, device=device)[:, None]
    return (
        first + query_stride * torch.arange(QUERIES, device=device),
        first % candidate_stride + candidate_stride * torch.arange(CANDIDATES, device=device),
    )


def _anchor_axis(length: int, device: torch.device) -> Axis:
    query, _ = _mesh_axis(length, device)
    stride = -(-length // CANDIDATES)
    anchor = stride // 2 + stride * torch.arange(CANDIDATES, device=device)
    return query, anchor.expand(len(query), -1)


def _from_axes(map_size: MapSize, rows: Axis, columns: Axis) -> Candidates:
    batch_size, height, width = map_size
    num_nodes = batch_size * height * width
    query = _node_ids(map_size, rows[0], columns[0])
    inside = query < num_nodes
    places = torch.arange(query.numel(), device=query.device).view_as(query)
    place = places.new_empty(num_nodes)
    place[query[inside]] = places[inside]
    shifts = torch.cartesian_prod(*(_shift(*axis).flatten() for axis in (rows, columns)))
    shifts = shifts.view(len(rows[0]), QUERIES, len(columns[0]), QUERIES, 2).transpose(1, 2).flatten(0, 3)
    return Candidates(
        candidate=_node_ids(map_size, rows[1], columns[1]),
        group=place // query.size(1),
        slot=place % query.size(1),
        shift=shifts.to(torch.int8)[place % len(shifts)],
        stride=(_stride(rows[1]), _stride(columns[1])),
    )


def _stride(candidate: Int64[Tensor, "groups 16"]) -> int:
    return int(candidate[0, 1] - candidate[0, 0])


def _shift(
    query: Int64[Tensor, "groups 8"], candidate: Int64[Tensor, "groups 16"]
) -> Int64[Tensor, "groups 8"]:
    """Return the queries' places among the candidates, rounded, minus their slots, per axis."""
    stride = _stride(candidate)
    place = (2 * (query - candidate[:, :1]) + stride) // (2 * stride)
    return place - torch.arange(QUERIES, device=query.device)


def _node_ids(map_size: MapSize, rows: Tensor, columns: Tensor) -> Tensor:
    """Combine coordinates per axis to node ids per group, `N` where outside the map."""
    batch_size, height, width = map_size
    picture = torch.arange(batch_size, device=rows.device).view(-1, 1, 1, 1, 1) * height * width
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    ids = picture + rows * width + columns
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    ids = torch.where(inside, ids, batch_size * height * width)
    return ids.flatten(0, 2).flatten(1)


def places(queries: Int64[Tensor, "G 64"], num_nodes: int) -> Int64[Tensor, " N"]:
    """Return each node's place among the slots of all groups: its group times 64 plus its slot.

    Args:
        queries: The nodes of each group, `G x 64`, another number where there is none.
        num_nodes: How many there are.

    Returns:
        `num_nodes`.
    """
    place = queries.new_empty(num_nodes + 1)
    place[queries.flatten()] = torch.arange(queries.numel(), device=queries.device)
    return place[:-1]
