"""Any message passing layer as the aggregation of a graph stage."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from glic_pyg.graph import Graph
from glic_pyg.graph.candidates import QUERIES, WINDOW_MARGIN

EDGE_DIM = 3


class LayerAggregation(nn.Module):
    """Aggregate neighbours by a PyG layer, whose widths are fitted to the nodes'.

        x' = W layer([x; 0], edge_index, edge_attr)[:-1]

    The zero node, the last one, has no features, and its result is dropped. W is there only if the
    layer returns another width.

    What the layer's constructor takes, by name, it is given:

    - `in_channels`, `out_channels` and `channels`: the number of channels; with `heads` whose results the
      layer concatenates (`concat`), `out_channels` is divided by them, rounded up;
    - `nn`: Linear, ReLU, Linear, from as many features as the layer's messages have, the channels once or
      twice;
    - `edge_dim`: 3, if its `forward` takes `edge_attr`;
    - `add_self_loops`: False, since a node is its own neighbour already where its graph wants it.

    A `forward` with `edge_attr`, unless `edge_dim` is None, gets `edge_attributes`.

    Args:
        layer: A class derived from `MessagePassing`, from sources to targets, or a `functools.partial` of one
            with further settings, which count more than what would be given.
        channels: Features per node, in and out.

    Raises:
        ValueError: the layer cannot be made of these, or does not map nodes to nodes.
    """

    def __init__(self, layer: Callable[..., MessagePassing], *, channels: int) -> None:
        super().__init__()
        self.layer, self.takes_edges = _fitted(layer, channels)
        width = _outcome(self.layer, channels, takes_edges=self.takes_edges).size(1)
        self.linear = nn.Identity() if width == channels else nn.Linear(width, channels)

    def prepare(self, graph: Graph) -> Float[Tensor, "E 3"] | None:
        """Return the edge attributes that the layer takes, see `edge_attributes`, if it takes any."""
        return edge_attributes(graph) if self.takes_edges else None

    def forward(
        self, x: Float[Tensor, "N C"], graph: Graph, edges: Float[Tensor, "E 3"] | None = None
    ) -> Float[Tensor, "N C"]:
        """Aggregate features `x`, `N x C`, of all nodes of a graph but the zero node.

        Args:
            x: Features.
            graph: The graph.
            edges: What `prepare` returns of the graph; several layers may share it.
        """
        edges = self.prepare(graph) if edges is None else edges
        attributes = () if edges is None else (edges.to(x.dtype),)
        x = self.layer(F.pad(x, (0, 0, 0, 1)), graph.edge_index, *attributes)
        return self.linear(x[:-1])


def _fitted(layer: Callable[..., MessagePassing], channels: int) -> tuple[MessagePassing, bool]:
    """Make a layer that works, and say whether it is to be given edge attributes."""
    cls, settings = getattr(layer, "func", layer), getattr(layer, "keywords", {})
    # The base itself, were it made, would replace what its heirs inherit.
    if not (isinstance(cls, type) and issubclass(cls, MessagePassing) and cls is not MessagePassing):
        raise ValueError(f"Expected a class derived from MessagePassing (got {cls})")
    taken = inspect.signature(cls).parameters
    takes_edges = "edge_attr" in inspect.signature(cls.forward).parameters  # type: ignore[attr-defined]
    heads = settings.get("heads", 1) if settings.get("concat", True) else 1
    given: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": -(-channels // max(1, heads)),
        "channels": channels,
        "edge_dim": EDGE_DIM if takes_edges else None,
        "add_self_loops": False,
    }
    settings = {name: value for name, value in given.items() if name in taken} | settings
    takes_edges = takes_edges and settings.get("edge_dim", EDGE_DIM) is not None
    if "nn" not in taken or "nn" in settings:
        return _working(cls, settings, channels, takes_edges=takes_edges), takes_edges
    try:
        layer = _working(cls, settings | {"nn": _mlp(channels, channels)}, channels, takes_edges=takes_edges)
    except ValueError:  # its messages may be of pairs
        layer = _working(
            cls, settings | {"nn": _mlp(2 * channels, channels)}, channels, takes_edges=takes_edges
        )
    return layer, takes_edges


def _working(
    cls: type[MessagePassing], settings: dict[str, Any], channels: int, *, takes_edges: bool
) -> MessagePassing:
    try:
        layer = cls(**settings)
    except Exception as error:  # whatever a layer says about settings it cannot take
        raise ValueError(
            f"Expected settings that the layer takes (got {cls.__name__}: {_line(error)})"
        ) from error
    if layer.flow != "source_to_target":
        raise ValueError(f"Expected a layer from sources to targets (got {cls.__name__}, {layer.flow})")
    _outcome(layer, channels, takes_edges=takes_edges)
    return layer


@torch.no_grad()
def _outcome(layer: MessagePassing, channels: int, *, takes_edges: bool) -> Tensor:
    """Return what a layer makes of a graph of four nodes."""
    name = type(layer).__name__
    edge_index = torch.tensor([[0, 1, 2, 3, 3], [0, 0, 1, 1, 2]])
    edges = (torch.zeros(5, EDGE_DIM),) if takes_edges else ()
    try:
        with torch.random.fork_rng(devices=[]):
            x = layer.eval()(torch.zeros(4, channels), edge_index, *edges)
    except Exception as error:  # whatever a layer says about nodes and edges it cannot take
        what = "nodes, edges and edge attributes" if takes_edges else "nodes and edges"
        raise ValueError(f"Expected a layer that takes {what} (got {name}: {_line(error)})") from error
    layer.train()
    if not isinstance(x, Tensor) or x.dim() != 2 or len(x) != 4:
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"Expected a layer that returns features of every node (got {name}: {shape} of 4)")
    return x


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def edge_attributes(graph: Graph) -> Float[Tensor, "E 3"]:
    """Return what is known of a graph's edges, as numbers of about unit size.

    Returns:
        `E x 3`: offset of rows and of columns, from the query, in sides of a group (-11/8..11/8; a distance
        in the local graph), and cosine similarity.
    """
    offset = (graph.offset - WINDOW_MARGIN).to(graph.similarity.dtype) / QUERIES
    return torch.cat([offset, graph.similarity[:, None]], dim=1)


def _mlp(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_channels, out_channels), nn.ReLU(), nn.Linear(out_channels, out_channels)
    )
