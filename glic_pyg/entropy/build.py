"""The two built into one: configuration -> latent codec of y."""

from __future__ import annotations

from itertools import accumulate

from compressai.entropy_models import EntropyBottleneck
from compressai.latent_codecs import ChannelGroupsLatentCodec, HyperLatentCodec, HyperpriorLatentCodec
from compressai.latent_codecs.gain import GainHyperLatentCodec, GainHyperpriorLatentCodec

from glic_pyg.config import ModelConfig
from glic_pyg.entropy.context import channel_context, group_codec
from glic_pyg.entropy.hyper import hyper_analysis, hyper_synthesis


def build_entropy_model(config: ModelConfig) -> HyperpriorLatentCodec | GainHyperpriorLatentCodec:
    """Unpack the configuration into the latent codec of y.

    .. code-block:: none

               +-> h_a -> z -> entropy bottleneck -> z_hat -> h_s -+
               |                                                   v parameters
        y -----+-> group 0: anchors, then the rest ----------------+-> y_hat of group 0
               +-> group 1: the same, reading group 0 -------------+-> y_hat of group 1
               +-> ...

    After He et al., "ELIC: Efficient Learned Image Compression with Unevenly Grouped Space-Channel
    Contextual Adaptive Coding", CVPR 2022. A model of several qualities takes gains with y.
    """
    hyper_codec, hyperprior_codec = (
        (HyperLatentCodec, HyperpriorLatentCodec)
        if config.qualities == 1
        else (GainHyperLatentCodec, GainHyperpriorLatentCodec)
    )
    hyper = hyper_codec(
        entropy_bottleneck=EntropyBottleneck(config.hyper_channels),
        h_a=hyper_analysis(
            latent_channels=config.latent_channels,
            hyper_channels=config.hyper_channels,
            depth=config.hyper_depth,
            ratio=config.hyper_ffn_ratio,
        ),
        h_s=hyper_synthesis(
            hyper_channels=config.hyper_channels, depth=config.hyper_depth, ratio=config.hyper_ffn_ratio
        ),
        quantizer="ste",
    )
    groups = config.groups
    before = list(accumulate(groups, initial=0))
    channel_contexts = {
        f"y{k}": channel_context(
            before[k], groups[k], ratio=config.context_ffn_ratio, min_channels=config.context_min_channels
        )
        for k in range(1, len(groups))
    }
    group_codecs = {
        f"y{k}": group_codec(
            groups[k],
            2 * config.hyper_channels + (2 * groups[k] if k > 0 else 0),
            ratio=config.context_ffn_ratio,
            min_channels=config.parameters_min_channels,
        )
        for k in range(len(groups))
    }
    y = ChannelGroupsLatentCodec(
        latent_codec=group_codecs, channel_context=channel_contexts, groups=list(groups)
    )
    return hyperprior_codec(latent_codec={"y": y, "hyper": hyper})
