"""Whether what one setting of a machine encodes, each other one decodes: processes for every pair.

    python -m glic_pyg.evaluation.portability encode|decode FOLDER SETTING

is what `tools/all_pairs.py` starts, in a process with the setting's environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from glic_pyg.codec import GLIC, MULTIPLE, latent_checksum
from glic_pyg.entropy import Nets, decode_latents, encode_latents
from glic_pyg.files import write_file
from glic_pyg.image import pad, read_image

ARITHMETIC = {"exact": True, "float": False}


@dataclass(frozen=True)
class Setting:
    """A way to compute the same.

    Args:
        environment: Variables that libraries read when they start.
        threads: Of torch.
        memory_format: Of pictures and weights.
        device: Where the model is.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 2
    memory_format: torch.memory_format = torch.contiguous_format
    device: str = "cpu"


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
}
"""The first is what the libraries choose by themselves, AVX-512 where there is."""

if torch.cuda.is_available():
    SETTINGS["CUDA"] = Setting(device="cuda")


def start(step: str, folder: Path, setting: str) -> None:
    """Run a step of a setting in a process of its own.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, "-m", __name__, step, str(folder), setting]
    environment = {**os.environ, **SETTINGS[setting].environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Expected {step} under {setting} to end well (got {done.stderr[-2000:]})")


@torch.no_grad()
def encode(job: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """Code all pictures in both arithmetics.

    Returns:
        By arithmetic: by picture the strings, z's shape and y_hat's checksum; seconds of the entropy model.
    """
    model = _model(job, setting)
    codec, gains = model.latent_codec, model._gains(job["quality"])
    nets = {name: Nets(codec, exactly=exactly) for name, exactly in ARITHMETIC.items()}
    coded = {name: {} for name in ARITHMETIC}
    seconds = dict.fromkeys(ARITHMETIC, 0.0)
    for path in job["pictures"]:
        x = pad(read_image(path), MULTIPLE).to(setting.device, memory_format=setting.memory_format)
        y = gains["y"] * model.g_a(x)
        for name, net in nets.items():
            begin = time.perf_counter()
            strings, y_hat = encode_latents(
                codec, net, y, z_gain=gains["z"], z_gain_inverse=gains["z_inverse"]
            )
            seconds[name] += time.perf_counter() - begin
            z_shape = (x.size(2) // MULTIPLE, x.size(3) // MULTIPLE)
            coded[name][path] = {"strings": strings, "z_shape": z_shape, "checksum": latent_checksum(y_hat)}
    return {"coded": coded, "seconds": seconds}


@torch.no_grad()
def decode(job: Mapping[str, Any], setting: Setting, folder: Path) -> dict[str, Any]:
    """Decode what every setting has coded.

    Returns:
        By arithmetic and encoder the number of pictures whose latents are the encoder's; seconds of the
        entropy model on the first encoder's; the largest difference of its pictures to the first decoder's.
    """
    model = _model(job, setting)
    codec, gains = model.latent_codec, model._gains(job["quality"])
    nets = {name: Nets(codec, exactly=exactly) for name, exactly in ARITHMETIC.items()}
    same: dict[str, dict[str, int]] = {name: {} for name in ARITHMETIC}
    seconds = dict.fromkeys(ARITHMETIC, 0.0)
    difference = 0.0
    pictures = folder / "pictures"
    for index, encoder in enumerate(job["settings"]):
        coded = torch.load(folder / f"encode {encoder}.pt", weights_only=True)["coded"]
        for name, net in nets.items():
            same[name][encoder] = 0
            for number, stream in enumerate(coded[name].values()):
                begin = time.perf_counter()
                y_hat = decode_latents(
                    codec, net, stream["strings"], stream["z_shape"], z_gain_inverse=gains["z_inverse"]
                )
                if index == 0:
                    seconds[name] += time.perf_counter() - begin
                same[name][encoder] += latent_checksum(y_hat) == stream["checksum"]
                if index == 0 and name == "exact":
                    x_hat = model.g_s(y_hat * gains["y_inverse"]).clamp(0, 1).cpu()
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


def _main() -> None:
    step, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    job = json.loads((folder / "job.json").read_text())
    setting = SETTINGS[name]
    result = encode(job, setting) if step == "encode" else decode(job, setting, folder)
    write_file(folder / f"{step} {name}.pt", lambda file: torch.save(result, file))


if __name__ == "__main__":
    _main()
