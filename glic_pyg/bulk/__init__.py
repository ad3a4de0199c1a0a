"""Pictures by the million: classes that code batches of them, for any engine."""

from glic_pyg.bulk.coders import Coded, Coder, Decoder, Encoder, Evaluator

__all__ = ["Coded", "Coder", "Decoder", "Encoder", "Evaluator"]
