"""The transforms between image and latent."""

from glic_pyg.transform.analysis import AnalysisTransform
from glic_pyg.transform.synthesis import SynthesisTransform

__all__ = ["AnalysisTransform", "SynthesisTransform"]
