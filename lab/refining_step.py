"""The time of a step of `--effort`, beside a forward pass of what it goes through: g_s and the entropy model.

A pass follows each step, so that others' work on the machine is a burden to both alike.
"""

from __future__ import annotations

import time

import torch
from pictures import photo

from glic_pyg import GLIC
from glic_pyg.refinement import refine

LMBDA = 0.01
"""Any will do: all take the same steps."""


def print_step(model: str, size: tuple[int, int], *, repeats: int, threads: int | None) -> None:
    """Print the seconds of a step and of a pass, and the ratio.

    Args:
        model: GLIC weights.
        size: Height and width of the picture.
        repeats: How many are measured; the median counts.
        threads: With one, seconds are the processor's, else those of the clock; None leaves both to torch.
    """
    if threads:
        torch.set_num_threads(threads)
    steps, passes = step_and_pass(GLIC.from_pretrained(model), size, repeats)
    step, forward = (sorted(some)[len(some) // 2] for some in (steps, passes))
    height, width = size
    print(f"{model}, {height} x {width}, {torch.get_num_threads()} threads")
    print(f"  step of --effort               {step:.3f} s")
    print(f"  forward g_s and entropy model  {forward:.3f} s")
    print(f"  ratio                          {step / forward:.2f}\n")


def step_and_pass(model: GLIC, size: tuple[int, int], repeats: int) -> tuple[list[float], list[float]]:
    """Return the seconds of steps and of the passes between them."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    x = photo(*size)
    y = model.analyse(x)
    quality = model.config.default_quality
    steps: list[float] = []
    passes: list[float] = []
    begun = clock()

    def watch(*_: float) -> bool:
        nonlocal begun
        steps.append(clock() - begun)
        begun = clock()
        with torch.no_grad():
            model.g_s(model.likelihoods(y, quality)["y_hat"])
        passes.append(clock() - begun)
        begun = clock()
        return len(steps) > repeats

    # Of so many steps the first ones are not judged.
    refine(model, x, y, quality, steps=40 * (repeats + 2), lmbda=LMBDA, watch=watch)
    return steps[1:], passes[1:]  # the first ones compile
