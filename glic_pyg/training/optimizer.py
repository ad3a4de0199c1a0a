"""The optimisers of a run, by name."""

from __future__ import annotations

import glic_pyg.upstream  # noqa: F401 - before torch_geometric and compressai

# isort: split
from typing import Literal

import torch
import torch_geometric.nn
from compressai.layers import CheckerboardMaskedConv2d
from torch import nn, optim


def build_optimizers(model: nn.Module, name: Literal["adam", "soap", "muon"]) -> list[optim.Optimizer]:
    """Return what updates a model's parameters; the last group of the last optimiser holds the quantiles.

    - `adam`: Adam for everything.
    - `soap`: Adam in the eigenbases of Shampoo's preconditioner, renewed every 10 steps, for weights that
      mix channels (Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", ICLR 2025).
    - `muon`: orthogonalised momentum for the same weights, kernels as matrices of a row per output channel
      (Jordan, "Muon: An optimizer for hidden layers in neural networks", 2024), scaled to the size of
      Adam's updates (Liu et al., "Muon is Scalable for LLM Training", 2025), so that one learning rate
      suits both.

    What is no such weight (norms, biases, gains, scales, depthwise kernels, the entropy bottleneck) is always
    Adam's. The entropy bottleneck's quantiles are a group of their own, with a learning rate of their own.

    Args:
        model: The model to train.
        name: Which of them.
    """
    mixing = {id(weight) for weight in mixing_weights(model)} if name != "adam" else set()
    matrices, rest, quantiles = [], [], []
    for path, parameter in model.named_parameters():
        if id(parameter) in mixing:
            matrices.append(parameter)
        elif path.endswith(".quantiles"):
            quantiles.append(parameter)
        else:
            rest.append(parameter)
    adam = optim.Adam([{"params": rest}, {"params": quantiles}], fused=True)
    if name == "soap":
        from pytorch_optimizer import SOAP

        soap = SOAP(matrices, weight_decay=0.0)
        # In other bases than the kernels' own, what a mask covers moves with the rest.
        soap.register_step_post_hook(lambda *_: _cover(model))
        return [soap, adam]
    if name == "muon":
        from pytorch_optimizer import Muon

        return [Muon([{"params": matrices, "use_muon": True, "use_adjusted_lr": True}]), adam]
    return [adam]


def mixing_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights of linear maps and convolutions that read and write several channels."""
    linear = nn.Linear | torch_geometric.nn.Linear
    weights = [
        module.get_parameter("weight")
        for module in model.modules()
        if isinstance(module, linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    ]
    return [weight for weight in weights if min(weight.shape[:2]) > 1]


@torch.no_grad()
def _cover(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, CheckerboardMaskedConv2d):
            module.weight.mul_(module.mask)
