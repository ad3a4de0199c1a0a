"""Looking into a model's graphs. Figures are in `glic_pyg.inspection.drawings`, which needs matplotlib."""

from glic_pyg.inspection.choice import choose_nodes
from glic_pyg.inspection.neighborhood import Neighborhood, degrees, neighborhood
from glic_pyg.inspection.stages import STAGES, limit_size, stage_graphs

__all__ = ["STAGES", "Neighborhood", "choose_nodes", "degrees", "limit_size", "neighborhood", "stage_graphs"]
