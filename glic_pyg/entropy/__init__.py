"""The entropy model: CompressAI's latent codecs, assembled as a hyperprior with space-channel context."""

import glic_pyg.upstream  # noqa: F401 - before compressai
from glic_pyg.entropy.coder import LatentError, ProbabilityNets, decode_latents, encode_latents
from glic_pyg.entropy.forward import dithered_latents, forward_latents
from glic_pyg.entropy.gain import GainUnits
from glic_pyg.entropy.latent_codec import latent_codec
from glic_pyg.entropy.tables import (
    TABLES,
    TableError,
    accept_tables_of_any_size,
    check_tables,
    update_tables,
)

__all__ = [
    "TABLES",
    "GainUnits",
    "LatentError",
    "ProbabilityNets",
    "TableError",
    "accept_tables_of_any_size",
    "check_tables",
    "decode_latents",
    "dithered_latents",
    "encode_latents",
    "forward_latents",
    "latent_codec",
    "update_tables",
]
