"""Looking into a model's graphs. Figures are in `glic_pyg.inspection.drawings`, which needs matplotlib."""

from glic_pyg.inspection.attention import LayerError, stage_attention
from glic_pyg.inspection.choice import choose_nodes
from glic_pyg.inspection.export import export_graphs, plain_graph
from glic_pyg.inspection.neighborhood import (
    Neighborhood,
    NodeError,
    degrees,
    neighborhood,
    node_id,
    nodes_within,
    region_nodes,
)
from glic_pyg.inspection.page import Page, graph_page
from glic_pyg.inspection.receptive_field import (
    centered_mean,
    convolutions_only,
    energy_area,
    receptive_fields,
)
from glic_pyg.inspection.stages import (
    STAGES,
    ModelRun,
    StageRun,
    limit_size,
    node_size,
    run_model,
    run_stages,
    stage_graphs,
)
from glic_pyg.inspection.summary import GraphSummary, summarize, summary_table

__all__ = [
    "STAGES",
    "GraphSummary",
    "LayerError",
    "ModelRun",
    "Neighborhood",
    "NodeError",
    "Page",
    "StageRun",
    "centered_mean",
    "choose_nodes",
    "convolutions_only",
    "degrees",
    "energy_area",
    "export_graphs",
    "graph_page",
    "limit_size",
    "neighborhood",
    "node_id",
    "node_size",
    "nodes_within",
    "plain_graph",
    "receptive_fields",
    "region_nodes",
    "run_model",
    "run_stages",
    "stage_attention",
    "stage_graphs",
    "summarize",
    "summary_table",
]
