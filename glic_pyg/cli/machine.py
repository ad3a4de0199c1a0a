"""Threads, device and model as the flags of a command ask for them. Imports torch."""

from __future__ import annotations

from argparse import Namespace

import torch

from glic_pyg.codec import GLIC
from glic_pyg.errors import UsageError
from glic_pyg.progress import tell


def set_threads(args: Namespace) -> None:
    """Set the number of threads, of torch's operators and of compiled code."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)


def prepare(args: Namespace) -> torch.device:
    """Set the number of threads, and return the device to compute on.

    Raises:
        UsageError: it is not there.
    """
    set_threads(args)
    try:
        torch.zeros(1, device=args.device).item()
        return torch.device(args.device)
    except Exception as error:  # of many kinds: a backend's own, or of a name that is none
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"Expected a device of this machine (got {args.device}: {reason})") from error


def prepare_training(args: Namespace) -> None:
    """Set the number of threads, and check that the device to train on is there.

    Raises:
        UsageError: it is not.
    """
    set_threads(args)
    if args.device != "auto":
        prepare(args)


def load_model(args: Namespace) -> GLIC:
    """Return the model of a command's flags on its device."""
    device = prepare(args)
    return read_model(args).to(device)


def read_model(args: Namespace) -> GLIC:
    """Return the model of a command's flags, on the CPU."""
    tell("reading the model")
    return GLIC.from_pretrained(args.model, allow_code=args.allow_code)
