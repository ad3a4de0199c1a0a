"""A whole run.

folders, shards -> manifest -> random crops -> CodecModule.training_step -> log.csv
               |                              |
               |                              +-> averaged weights -> latest.ckpt, latest.safetensors
               +-> held-out crops ------------------> evaluation ---> eval.csv, best.ckpt, samples
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from glic_pyg import checkpoint
from glic_pyg.checkpoint import load_failure
from glic_pyg.codec import GLIC
from glic_pyg.config import ConfigError, ModelConfig
from glic_pyg.ledger import note_output
from glic_pyg.nn.gfa import silence_attention
from glic_pyg.training import manifest as manifests
from glic_pyg.training.callbacks import MovingAverage, Progress, Recorder, RunStopped, WholeCheckpoints
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.data import PictureData, center_crops, find_and_split, folders_by_prefix
from glic_pyg.training.lightning import TensorBoardLogger, Trainer, rank_zero_only
from glic_pyg.training.memory import keep_freed_memory
from glic_pyg.training.module import CodecModule
from glic_pyg.training.quiet import quiet_lightning
from glic_pyg.training.run_folder import RunFolder
from glic_pyg.training.schedule import Schedule
from glic_pyg.training.sources import by_name


def train(
    config: TrainConfig,
    *,
    dataset: str | Path | Sequence[str | Path],
    output: str | Path,
    resume: bool = False,
    weights: str | Path | None = None,
    manifest: str | Path | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
) -> bool:
    """Train a model on folders of pictures.

    SIGINT (Ctrl-C) and SIGTERM end the run after the present step with a checkpoint.

    Args:
        config: The settings.
        dataset: Folder of pictures or tar shards, or URL of shards, or several; subfolders are searched too.
        output: The run folder (see `RunFolder`).
        resume: Go on from the run folder's checkpoint, if it has one.
        weights: Name or path of a trained model to start from in place of random weights.
        manifest: Another run's `manifest.csv`: take the same pictures, all of them unchanged.
        accelerator: As Lightning names it: `cpu`, `gpu`, `auto`.
        devices: GPUs, or processes on the CPU, per node; `auto` takes all GPUs.
        num_nodes: Machines.
        strategy: As Lightning names it; `ddp` for several devices.

    Returns:
        Whether the run reached its end.

    Raises:
        ConfigError: too few pictures, or a run folder or weights that do not suit.
        FileError: another's run folder, or a manifest that does not suit.
        CheckpointError: `weights` cannot be loaded.
        TrainingError: too many steps in a row without finite loss and gradient.
    """
    run = RunFolder(output)
    run.check()
    state = _read(run.latest) if run.latest.exists() else None
    if state is not None and not resume:
        raise ConfigError(
            f"Expected a new run folder (got {run.path}, which has a checkpoint); take another or resume"
        )
    if state is not None and ModelConfig.from_dict(state["config"]["model"]) != config.model:
        raise ConfigError(f"Expected the model that {run.path} was started with (got another configuration)")
    keep_freed_memory()
    torch.manual_seed(config.seed)
    model = GLIC(config.model)
    if config.silent_attention:
        silence_attention(model)
    if weights is not None and state is None:
        start_from(model, weights)

    folders = folders_by_prefix(dataset)
    file = manifest if state is None else run.manifest
    listed = None if file is None else set(manifests.check(Path(file), folders=folders))
    training, held_out = find_and_split(folders, config=config, listed=listed)
    schedule = Schedule(config, num_pictures=len(training))
    if state is not None and schedule.share(state["step"], state["seconds"]) == 1:
        return True
    crops = center_crops(held_out, size=config.eval_size)
    if is_first_process() and state is None:
        manifests.write(
            manifests.describe(sorted(training + held_out, key=by_name), folders=folders), run.manifest
        )
        note_output(run.manifest)

    module = CodecModule(model, config, schedule)
    data = PictureData(training, crops, config=config, schedule=schedule)
    recorder = Recorder(run, config)
    with quiet_lightning():
        trainer = Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            # An encoder that stays as it is has no gradient to wait for.
            strategy="ddp_find_unused_parameters_true"
            if strategy == "ddp" and config.has_rounded
            else strategy,
            precision=config.precision,
            max_epochs=1,  # to Lightning the run is one, whatever it is to us
            val_check_interval=config.eval_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
            logger=TensorBoardLogger(
                run.path,
                name=None,
                version="tensorboard",
                purge_step=state and state["step"] + 1,
                default_hp_metric=False,
            ),
            plugins=[WholeCheckpoints()],
            callbacks=[MovingAverage(config.ema_decay), recorder, Progress()],
        )
        if trainer.strategy.root_device.type == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // trainer.num_devices))
        try:
            trainer.fit(module, data, ckpt_path=None if state is None else run.latest, weights_only=True)
        except RunStopped:
            return False
    return True


def is_first_process() -> bool:
    """Return whether this process speaks for all processes of its run."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning keeps it at the function


def start_from(model: GLIC, weights: str | Path) -> None:
    """Give a model the weights of a trained one.

    That one may be of one quality where the model is of several, and its graphs may be other ones.

    Raises:
        CheckpointError: `weights` cannot be loaded, or name code that the model does not run already.
        ConfigError: another model's.
    """
    config = checkpoint.load(checkpoint.resolve(weights), allow_code=True).config
    same = replace(config, qualities=model.config.qualities, graph=model.config.graph) == model.config
    named = config.graph == model.config.graph  # what code they name, the model runs already
    trained = GLIC.from_pretrained(weights, allow_code=named).state_dict() if same else {}
    begun = model.state_dict()
    if not (same and trained.keys() <= begun.keys() and config.qualities in (1, model.config.qualities)):
        raise ConfigError(f"Expected weights of the model to train (got {weights} of another configuration)")
    model.load_state_dict(begun | trained)


def _read(path: Path) -> dict[str, Any]:
    """Return what we keep in a checkpoint; runs no code from it.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["glic_pyg"]
    except Exception as error:  # torch.load has no common error for a broken file
        raise ConfigError(f"Expected a training checkpoint (got {path}: {load_failure(error)})") from error
    if "sample" not in state:
        raise ConfigError(f"Expected a training checkpoint of this version (got {path} of an earlier one)")
    return state
