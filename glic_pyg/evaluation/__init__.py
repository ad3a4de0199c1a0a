"""How good the pictures and how small the files are."""

from glic_pyg.errors import require

require("pytorch_msssim", "bjontegaard", "matplotlib", extra="evaluate", purpose="evaluation")
