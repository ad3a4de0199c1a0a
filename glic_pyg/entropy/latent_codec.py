"""The two built into one: the latent codec of y."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from compressai.entropy_models import EntropyBottleneck
from compressai.latent_codecs import ChannelGroupsLatentCodec, HyperLatentCodec, HyperpriorLatentCodec
from compressai.latent_codecs.gain import GainHyperLatentCodec, GainHyperpriorLatentCodec

from glic_pyg.entropy.context import channel_context, group_codec
from glic_pyg.entropy.hyper import hyper_analysis, hyper_synthesis


def latent_codec(
    *,
    latent_channels: int,
    hyper_channels: int,
    groups: Sequence[int],
    hyper_depth: int,
    hyper_ratio: int,
    context_ratio: int,
    context_min_channels: int,
    parameters_min_channels: int,
    has_gains: bool,
) -> HyperpriorLatentCodec | GainHyperpriorLatentCodec:
    """Build the latent codec of y.

               +-> h_a -> z -> entropy bottleneck -> z_hat -> h_s -+
               |                                                   v parameters
        y -----+-> group 0: anchors, then the rest ----------------+-> y_hat of group 0
               +-> group 1: the same, reading group 0 -------------+-> y_hat of group 1
               +-> ...

    After He et al., "ELIC: Efficient Learned Image Compression with Unevenly Grouped Space-Channel
    Contextual Adaptive Coding", CVPR 2022.

    Args:
        latent_channels: Channels of y.
        hyper_channels: Channels of z, and width of h_a and h_s.
        groups: Channels of y coded together, in coding order.
        hyper_depth: Conv blocks per resolution in h_a and h_s.
        hyper_ratio: Expansion of the feed-forward nets in h_a and h_s.
        context_ratio: The same in channel context and parameter aggregation.
        context_min_channels: Least inner width of the channel context.
        parameters_min_channels: Least inner width of the parameter aggregation.
        has_gains: Whether z is scaled, for a model of several qualities.
    """
    hyper_codec, hyperprior_codec = (
        (GainHyperLatentCodec, GainHyperpriorLatentCodec)
        if has_gains
        else (HyperLatentCodec, HyperpriorLatentCodec)
    )
    hyper = hyper_codec(
        entropy_bottleneck=EntropyBottleneck(hyper_channels),
        h_a=hyper_analysis(
            latent_channels=latent_channels,
            hyper_channels=hyper_channels,
            depth=hyper_depth,
            ratio=hyper_ratio,
        ),
        h_s=hyper_synthesis(hyper_channels=hyper_channels, depth=hyper_depth, ratio=hyper_ratio),
        quantizer="ste",
    )
    before = list(accumulate(groups, initial=0))
    channel_contexts = {
        f"y{k}": channel_context(before[k], groups[k], ratio=context_ratio, min_channels=context_min_channels)
        for k in range(1, len(groups))
    }
    group_codecs = {
        f"y{k}": group_codec(
            groups[k],
            2 * hyper_channels + (2 * groups[k] if k > 0 else 0),
            ratio=context_ratio,
            min_channels=parameters_min_channels,
        )
        for k in range(len(groups))
    }
    y = ChannelGroupsLatentCodec(
        latent_codec=group_codecs, channel_context=channel_contexts, groups=list(groups)
    )
    return hyperprior_codec(latent_codec={"y": y, "hyper": hyper})
