"""Whether what one setting of a machine encodes, each other one decodes: processes for every pair.

    python lab/portability.py encode|decode FOLDER SETTING

is what `lab/all_pairs.py` starts, in a process with the setting's environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from glic_pyg.codec import GLIC, latent_checksum
from glic_pyg.entropy import LatentError
from glic_pyg.files import write_file
from glic_pyg.image import read_image

ARITHMETIC = {"exact": True, "float": False}


@dataclass(frozen=True)
class Setting:
    """A way to compute the same.

    Args:
        environment: Variables that libraries read when they start.
        flags: Makers of contexts in which torch has other settings.
        threads: Of torch.
        memory_format: Of pictures and weights.
        device: Where the model is.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[Callable[[], AbstractContextManager[Any]], ...] = ()
    threads: int = 2
    memory_format: torch.memory_format = torch.contiguous_format
    device: str = "cpu"


@contextmanager
def _set(set_to: Callable[[Any], Any], value: Any, usual: Any) -> Iterator[None]:
    set_to(value)
    try:
        yield
    finally:
        set_to(usual)


_onednn, _precision = torch.backends.mkldnn, torch.set_float32_matmul_precision
_off = partial(_set, partial(setattr, _onednn, "enabled"), False, True)

SETTINGS = {
    "2 threads": Setting(),
    "1 thread": Setting(threads=1),
    "channels last": Setting(memory_format=torch.channels_last),
    "oneDNN SSE4.1": Setting({"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    "oneDNN AVX2": Setting({"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "ATen default": Setting({"ATEN_CPU_CAPABILITY": "default"}),
    "ATen AVX2": Setting({"ATEN_CPU_CAPABILITY": "avx2"}),
    "MKL SSE4.2": Setting({"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
    "MKL compatible": Setting({"MKL_CBWR": "COMPATIBLE"}),
    "oneDNN off": Setting(flags=(_off,)),
    "oneDNN and NNPACK off": Setting(flags=(_off, partial(torch.backends.nnpack.flags, enabled=False))),
    "oneDNN, deterministic": Setting(
        flags=(partial(_set, partial(setattr, _onednn, "deterministic"), True, False),)
    ),
    "oneDNN in bfloat16": Setting(
        flags=(partial(_set, partial(setattr, _onednn, "fp32_precision"), "bf16", "none"),)
    ),
    "oneDNN's own bfloat16": Setting({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}),
    "oneDNN's own float16": Setting({"ONEDNN_DEFAULT_FPMATH_MODE": "F16"}),
    "oneDNN's own choice": Setting({"ONEDNN_DEFAULT_FPMATH_MODE": "ANY"}),
    "TF32 everywhere": Setting(flags=(partial(torch.backends.flags, fp32_precision="tf32"),)),
    "products of medium precision": Setting(flags=(partial(_set, _precision, "medium", "highest"),)),
    "flushed denormals": Setting(flags=(partial(_set, torch.set_flush_denormal, True, False),)),
    "deterministic algorithms": Setting(
        {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
        flags=(partial(_set, torch.use_deterministic_algorithms, True, False),),
    ),
    "float64 by default": Setting(
        flags=(partial(_set, torch.set_default_dtype, torch.float64, torch.float32),)
    ),
    "autocast": Setting(flags=(partial(torch.autocast, "cpu", torch.bfloat16),)),
}
"""The first is what the libraries choose by themselves, AVX-512 where there is."""

if torch.cuda.is_available():
    SETTINGS |= {
        "CUDA": Setting(device="cuda"),
        "CUDA, TF32": Setting(flags=(partial(torch.backends.flags, fp32_precision="tf32"),), device="cuda"),
        "CUDA, searching algorithms": Setting(
            flags=(partial(torch.backends.cudnn.flags, benchmark=True, allow_tf32=True),), device="cuda"
        ),
    }


def start(step: str, folder: Path, setting: str) -> None:
    """Run a step of a setting in a process of its own.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, __file__, step, str(folder), setting]
    environment = {**os.environ, **SETTINGS[setting].environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Expected {step} under {setting} to end well (got {done.stderr[-2000:]})")


@torch.no_grad()
def encode(job: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """Code all pictures in both arithmetics.

    Returns:
        By arithmetic: by picture the strings, its shape and y_hat's checksum; seconds of the entropy model.
    """
    model = _model(job, setting)
    coded = {name: {} for name in ARITHMETIC}
    seconds = dict.fromkeys(ARITHMETIC, 0.0)
    for path in job["pictures"]:
        x = read_image(path).to(setting.device, memory_format=setting.memory_format)
        y = model.analyse(x).to(memory_format=setting.memory_format)
        shape = tuple(x.shape[-2:])
        for name, exact in ARITHMETIC.items():
            begin = time.perf_counter()
            strings, y_hat = model.code(y, job["quality"], exact=exact)
            seconds[name] += time.perf_counter() - begin
            coded[name][path] = {"strings": strings, "shape": shape, "checksum": latent_checksum(y_hat)}
    return {"coded": coded, "seconds": seconds}


@torch.no_grad()
def decode(job: Mapping[str, Any], setting: Setting, folder: Path) -> dict[str, Any]:
    """Decode what every setting has coded.

    Returns:
        By arithmetic and encoder the number of pictures whose latents are the encoder's; seconds of the
        entropy model on the first encoder's; the largest difference of its pictures to the first decoder's.
    """
    model = _model(job, setting)
    same: dict[str, dict[str, int]] = {name: {} for name in ARITHMETIC}
    seconds = dict.fromkeys(ARITHMETIC, 0.0)
    difference = 0.0
    pictures = folder / "pictures"
    for index, encoder in enumerate(job["settings"]):
        coded = torch.load(folder / f"encode {encoder}.pt", weights_only=True)["coded"]
        for name, exact in ARITHMETIC.items():
            same[name][encoder] = 0
            for number, stream in enumerate(coded[name].values()):
                begin = time.perf_counter()
                try:
                    y_hat = model.decode(stream["strings"], stream["shape"], job["quality"], exact=exact)
                except LatentError:  # by other probabilities a string may be too short
                    continue
                if index == 0:
                    seconds[name] += time.perf_counter() - begin
                same[name][encoder] += latent_checksum(y_hat) == stream["checksum"]
                if index == 0 and name == "exact":
                    x_hat = model.synthesise(y_hat, stream["shape"]).cpu()
                    kept = pictures / f"{number}.pt"
                    if not kept.exists():
                        write_file(kept, partial(torch.save, x_hat.clone()))
                    first = torch.load(kept, weights_only=True)
                    difference = max(difference, (x_hat - first).abs().max().item())
    return {"same": same, "seconds": seconds, "difference": difference}


def _model(job: Mapping[str, Any], setting: Setting) -> GLIC:
    torch.set_num_threads(setting.threads)
    model = GLIC.from_pretrained(job["model"], allow_code=job["allow_code"])
    return model.to(setting.device, memory_format=setting.memory_format)


def work(step: str, job: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """Do a step of a setting in this process, but for its environment; return and keep what comes of it."""
    setting = SETTINGS[name]
    with ExitStack() as stack:
        for flag in setting.flags:
            stack.enter_context(flag())
        result = encode(job, setting) if step == "encode" else decode(job, setting, folder)
    write_file(folder / f"{step} {name}.pt", lambda file: torch.save(result, file))
    return result


if __name__ == "__main__":
    work(
        sys.argv[1], json.loads((Path(sys.argv[2]) / "job.json").read_text()), sys.argv[3], Path(sys.argv[2])
    )
