"""Lightning without what it says about matters that are as they should be."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from glic_pyg.training.lightning import Callback, Trainer


def bare_trainer(callbacks: list[Callback]) -> Trainer:
    """Return a trainer on the CPU for one epoch, which leaves nothing on disk and shows nothing."""
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out advertisements, and warnings that do not apply to our runs."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*no `val_dataloader`.*",
            ".*LeafSpec.*",  # Lightning's own, with torch 2.13
            ".*Grad strides.*",  # of 1 x 5 x 5, where they mean nothing
            ".*ended before the epoch ended.*",  # our batches begin where the run is
        ):
            warnings.filterwarnings("ignore", message)
        yield
