"""Train on a GPU that is lent for minutes: everything in one process, every step one CUDA graph.

    pack    photos -> tar files small enough to travel
    train   models side by side on the same crops, for so many seconds, saved as it goes; with --check and
            --profile, also the same loss and gradient as on the CPU, and where the time goes

The photos lie in the GPU's memory as bytes, in several scales; crops are drawn there. Several models train in
turn on streams of their own, so that one fills the gaps of the other and they compare step by step.

    python lab/gpu_minutes.py pack -d PHOTOS -o photos --megabytes 40 --files 2
    python lab/gpu_minutes.py train full=configs/model/glic_nano.yaml --photos photos1.tar \\
        --until $(($(date +%s) + 500)) -o OUT
"""

from __future__ import annotations

import argparse
import csv
import gc
import io
import math
import os
import random
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from dense_stage import make_dense
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from glic_pyg.codec import GLIC  # isort: skip - before compressai
from compressai.entropy_models import EntropyBottleneck

from glic_pyg.config import ModelConfig
from glic_pyg.identity import current_names
from glic_pyg.nn.gfa import silence_attention
from glic_pyg.training.loss import RateDistortionLoss
from glic_pyg.training.optimizer import mixing_weights

LAMBDAS = (0.0009, 0.0016, 0.0028, 0.005, 0.009, 0.016, 0.028, 0.05, 0.09, 0.16, 0.28, 0.5)
READERS = ("g_s.up.0.0.weight", "g_s.shortcuts.0.linear.weight", "latent_codec.hyper.h_a.0.weight")
SCALES = (1.0, 0.8, 0.64)
FINAL_SHARE = 0.01  # of the learning rate, at the end of the cosine
WARMUP_STEPS = 200
SAVE_EVERY = 60  # seconds
LOG_EVERY = 100  # steps
FILL = 64  # sides of stacked matrices are multiples of it


# ---- photos


def pack(folders: list[Path], output: str, *, megabytes: float, files: int, side: int) -> None:
    """Write photos as AVIF into tar files of at most so many megabytes each, in a random but fixed order."""
    paths = sorted(p for folder in folders for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".png"))
    random.Random(0).shuffle(paths)
    for i in range(files):
        size = 0
        with tarfile.open(f"{output}{i + 1}.tar", "w") as tar:
            for path in paths[i::files]:
                photo = Image.open(path).convert("RGB")
                photo.thumbnail((side, side), Image.Resampling.LANCZOS)
                data = io.BytesIO()
                photo.save(data, "AVIF", quality=79, subsampling="4:4:4", speed=6)
                info = tarfile.TarInfo(f"{path.parent.name}-{path.stem}.avif")
                info.size = data.tell()
                size += -(-info.size // 512) * 512 + 512
                if size > megabytes * 1e6:
                    break
                data.seek(0)
                tar.addfile(info, data)


class Photos:
    """Photos as one tensor of bytes, in several scales.

    Args:
        tars: Files of `pack`.
        at_most: Photos to take; all by default.
    """

    def __init__(self, tars: list[Path], *, at_most: int | None = None) -> None:
        files = []
        for path in tars:
            with tarfile.open(path) as tar:
                files += [tar.extractfile(member).read() for member in tar]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            pyramids = [x for some in pool.map(_pyramid, files[:at_most]) for x in some]
        sizes = torch.tensor([x.shape[:2] for x in pyramids])
        self.height, self.width = sizes.unbind(1)
        pixels = sizes.prod(1)
        self.first = pixels.cumsum(0) - pixels
        self.store = torch.from_numpy(np.concatenate([x.reshape(-1, 3) for x in pyramids]))

    def to(self, device: torch.device) -> Photos:
        """Move them to a device."""
        for name in ("height", "width", "first", "store"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def large_enough(self, height: int, width: int) -> Tensor:
        """Return the numbers of the photos that hold such a crop, upright or transposed."""
        short, long = self.height.minimum(self.width), self.height.maximum(self.width)
        return ((short >= min(height, width)) & (long >= max(height, width))).nonzero()[:, 0]

    def draw(
        self, among: Tensor, batch_size: int, height: int, width: int, generator: torch.Generator
    ) -> Tensor:
        """Draw random crops, mirrored and transposed at random: `B x 3 x height x width` in [0, 1]."""
        device = among.device
        u = torch.rand(5, batch_size, generator=generator, device=device)
        photo = among[(u[0] * len(among)).long()]
        h, w, first = self.height[photo], self.width[photo], self.first[photo]
        fits, fits_turned = (h >= height) & (w >= width), (h >= width) & (w >= height)
        turned = fits_turned & (~fits | (u[1] < 0.5))
        swap = turned.long() * (width - height)
        top = (u[2] * (h - (height + swap) + 1)).long()
        left = (u[3] * (w - (width - swap) + 1)).long()
        row = torch.arange(height, device=device)[:, None]
        column = torch.arange(width, device=device).expand(batch_size, 1, width)
        column = torch.where((u[4] < 0.5)[:, None, None], width - 1 - column, column)
        place = torch.where(
            turned[:, None, None],
            (top[:, None, None] + column) * w[:, None, None] + left[:, None, None] + row,
            (top[:, None, None] + row) * w[:, None, None] + left[:, None, None] + column,
        )
        return (self.store[first[:, None, None] + place].float() / 255).permute(0, 3, 1, 2)


def _pyramid(data: bytes) -> list[np.ndarray]:
    photo = Image.open(io.BytesIO(data)).convert("RGB")
    sizes = [(round(photo.width * s), round(photo.height * s)) for s in SCALES]
    return [np.array(photo.resize(size, Image.Resampling.LANCZOS)) for size in sizes if min(size) >= 256]


# ---- models


class Phase(NamedTuple):
    """Crops from some share of the time on."""

    since: float
    batch_size: int
    height: int
    width: int


class Crops:
    """The crops of a step, for all models: a tensor for each phase, filled anew for every step.

    Args:
        phases: Their number and size.
        device: Where they are.
        seed: Of what is drawn.
    """

    def __init__(self, phases: list[Phase], *, device: torch.device, seed: int) -> None:
        self.phases = phases
        self.generator = torch.Generator(device).manual_seed(seed)
        self.x = [
            torch.empty(p.batch_size, 3, p.height, p.width, device=device, memory_format=torch.channels_last)
            for p in phases
        ]
        self.share = [torch.empty(p.batch_size, device=device) for p in phases]
        for x in (*self.x, *self.share):
            x.uniform_(generator=self.generator)  # until there are photos

    def cut_from(self, photos: Photos) -> None:
        """Draw from these photos from now on."""
        self.photos = photos
        self.among = [photos.large_enough(p.height, p.width) for p in self.phases]

    def draw(self, k: int) -> None:
        """Draw crops for phase k, and where among the qualities each is, in [0, 1)."""
        p = self.phases[k]
        self.x[k].copy_(self.photos.draw(self.among[k], p.batch_size, p.height, p.width, self.generator))
        self.share[k].uniform_(generator=self.generator)


class Muon:
    """Orthogonalised momentum for weights that mix channels, as one CUDA graph can hold it.

    The same update as `build_optimizers` takes from its library, which asks the host for the learning rate in
    every step. Matrices lie side by side in few stacks, filled up with zeros, which stay zeros.

    Args:
        weights: Linear maps and kernels, a row per output channel.
        rate: The learning rate, a scalar on their device.
    """

    def __init__(self, weights: list[nn.Parameter], rate: Tensor) -> None:
        self.weights, self.rate = weights, rate
        shapes = [(len(w), w[0].numel()) for w in weights]
        stacked = [tuple(-(-side // FILL) * FILL for side in sorted(shape)) for shape in shapes]
        self.gradients = {s: rate.new_zeros(stacked.count(s), *s) for s in dict.fromkeys(stacked)}
        self.momentum = {s: torch.zeros_like(x) for s, x in self.gradients.items()}
        self.updates = {s: torch.zeros_like(x) for s, x in self.gradients.items()}
        self.places = [
            (s, stacked[:i].count(s), rows, columns)
            for i, (s, (rows, columns)) in enumerate(zip(stacked, shapes, strict=True))
        ]

    @torch.no_grad()
    def step(self, broken: Tensor) -> None:
        """Update all weights, or none where `broken` says so."""
        torch._foreach_copy_(self._matrices(self.gradients), [w.grad.flatten(1) for w in self.weights])
        for s, gradient in self.gradients.items():
            gradient.copy_(torch.where(broken, 0.0, gradient))
            self.momentum[s].lerp_(gradient, 0.05)
            self.updates[s].copy_(orthogonalize(gradient.lerp(self.momentum[s], 0.95)))
            self.updates[s].mul_(self.rate * (~broken))
        updates = self._matrices(self.updates)
        torch._foreach_mul_(updates, [0.2 * max(u.shape) ** 0.5 for u in updates])
        torch._foreach_sub_(
            self.weights, [u.reshape(w.shape) for u, w in zip(updates, self.weights, strict=True)]
        )

    def _matrices(self, stacks: dict[tuple[int, ...], Tensor]) -> list[Tensor]:
        """Return the weights' places in the stacks, upright; they lie there with their long side across."""
        return [
            stacks[s][i, :rows, :columns] if rows <= columns else stacks[s][i, :columns, :rows].T
            for s, i, rows, columns in self.places
        ]


def orthogonalize(x: Tensor) -> Tensor:
    """Bring singular values of `N x R x C`, R <= C, near 1: Newton-Schulz steps of Jordan (2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.float()


class Job:
    """A model in training.

    Args:
        name: Of its files.
        config: The model.
        crops: What it is trained on.
        seed: Of weights and noise.
        half: Whether the transforms compute in bfloat16.
        weights: To start from.
        eager: Not to make CUDA graphs.
        learning_rate: At its largest.
        muon: Whether weights that mix channels are Muon's; all others are Adam's.
    """

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        *,
        crops: Crops,
        seed: int,
        half: bool,
        weights: dict[str, Tensor] | None,
        learning_rate: float,
        eager: bool = False,
        muon: bool = False,
    ) -> None:
        self.name, self.crops, self.half = name, crops, half
        self.device = crops.x[0].device
        torch.manual_seed(seed)
        self.model = GLIC(config)
        if weights is None:
            silence_attention(self.model)
        else:
            start_from(self.model, weights)
        self.model.to(self.device, memory_format=torch.channels_last)
        make_dense(self.model)
        self.model.latent_codec.hyper.entropy_bottleneck.forward = partial(
            factorized, self.model.latent_codec.hyper.entropy_bottleneck
        )
        self.criterion = RateDistortionLoss(LAMBDAS[: config.qualities], distortion="mse").to(self.device)
        mixing = {id(w) for w in mixing_weights(self.model)} if muon else set()
        network, matrices, quantiles = [], [], []
        for key, parameter in self.model.named_parameters():
            if id(parameter) in mixing:
                matrices.append(parameter)
            else:
                (quantiles if key.endswith(".quantiles") else network).append(parameter)
        self.largest_rate = learning_rate
        self.rate = torch.zeros((), device=self.device)
        cuda = self.device.type == "cuda"
        self.optimizer = torch.optim.Adam(
            [
                {"params": network, "lr": self.rate},
                {"params": quantiles, "lr": torch.full((), 1e-3, device=self.device)},
            ],
            fused=True,
            capturable=cuda,
        )
        self.muon = Muon(matrices, self.rate)
        self.network = [*network, *matrices]
        self.parameters = [*self.network, *quantiles]
        self.average = [p.detach().clone() for p in self.parameters]
        self.sums = torch.zeros(4, device=self.device)
        self.stream = torch.cuda.Stream() if cuda else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.eager = eager
        self.steps = 0

    def step(self, k: int) -> None:
        """Take a step of phase k."""
        x = self.crops.x[k]
        quality = (self.crops.share[k] * self.model.config.qualities).long() + 1
        self.model.zero_grad(set_to_none=True)
        output = self.forward(x, quality)
        result = self.criterion(output, x, self.model.orthogonality_loss(), quality)
        (result.loss + self.model.aux_loss()).backward()
        norm = clip_grad_norm_(self.network, 1.0, foreach=True)
        broken = ~(norm.isfinite() & result.loss.isfinite())
        # The fused Adam leaves everything as it is where this is 1, without asking the host.
        self.optimizer.grad_scale, self.optimizer.found_inf = None, broken.float()
        self.optimizer.step()
        self.muon.step(broken)
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1e-3)
        row = torch.stack([result.loss, result.bpp, result.psnr, norm]).detach()
        self.sums += row.nan_to_num(0, 0, 0)

    def forward(self, x: Tensor, quality: Tensor) -> dict[str, object]:
        """Do what `GLIC.forward` does for sides that are multiples of 128, without asking the host."""
        gains = self.model.gain(quality)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half, cache_enabled=False):
            y = gains["y"] * self.model.g_a(x)
        out = self.model.latent_codec(
            y.float(),
            y_gain=1.0,
            z_gain=gains["z"],
            y_gain_inv=gains["y_inverse"],
            z_gain_inv=gains["z_inverse"],
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half, cache_enabled=False):
            x_hat = self.model.g_s(out["y_hat"])
        return {"x_hat": x_hat.float(), "likelihoods": out["likelihoods"]}

    def capture(self, k: int) -> None:
        """Make a CUDA graph of a step of phase k, in place of another phase's; it takes a few steps."""
        self.graph = None
        torch.cuda.synchronize()
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                self.step(k)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        self.model.zero_grad(set_to_none=True)
        # Other threads may be reading photos.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            self.step(k)
        self.graph, self.phase = graph, k

    def advance(self, k: int, share: float) -> None:
        """Take a step of phase k when that share of the time is over; on a GPU, only ask for it."""
        rate = self.largest_rate * learning_rate_share(share, self.steps)
        self.steps += 1
        if self.stream is None:
            self.rate.fill_(rate)
            self.step(k)
            return
        if not self.eager and (self.graph is None or self.phase != k):
            self.capture(k)
        # The crops are there, and stay until this step has been done.
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.rate.fill_(rate)
            if self.eager:
                self.step(k)
            else:
                self.graph.replay()

    def means(self, steps: int) -> list[float]:
        """Return the means of loss, bpp, PSNR and gradient norm over the last steps, and begin anew."""
        if self.stream is not None:
            self.stream.synchronize()
        means = (self.sums / steps).tolist()
        self.sums.zero_()
        return means

    def save(self, folder: Path) -> None:
        """Write the averaged weights, in two files, since one would be too large to come back."""
        if self.stream is not None:
            self.stream.synchronize()
        names = {id(p): name for name, p in self.model.named_parameters()}
        averages = [
            (names[id(p)], a.detach().cpu().contiguous())
            for p, a in zip(self.parameters, self.average, strict=True)
        ]
        for i in range(2):
            aside = folder / f".{self.name}.{i}"
            save_file(dict(averages[i::2]), aside)
            aside.replace(folder / f"{self.name}.{i}.safetensors")


def factorized(bottleneck: EntropyBottleneck, z: Tensor) -> tuple[Tensor, Tensor]:
    """Do what CompressAI's forward does, which makes a tensor on the host: noisy z and its likelihoods."""
    values = z.transpose(0, 1).flatten(1)[:, None]
    mode = "noise" if bottleneck.training else "dequantize"
    values = bottleneck.quantize(values, mode, bottleneck._get_medians())
    likelihood = bottleneck.likelihood_lower_bound(bottleneck._likelihood(values)[0])
    shape = z.transpose(0, 1).shape
    return values.reshape(shape).transpose(0, 1), likelihood.reshape(shape).transpose(0, 1)


@torch.no_grad()
def start_from(model: GLIC, weights: dict[str, Tensor]) -> None:
    """Load weights, of a model that may have fewer qualities, and fewer groups of y.

    Further gains go on as the last ones do. Nothing reads the further channels of y as yet (`READERS`).
    """
    for name, x in model.named_parameters():
        if name not in weights:
            continue
        old = weights[name]
        if name in READERS:
            x.zero_()
        x[tuple(map(slice, old.shape))] = old
        if name.startswith("gain."):
            x[:, old.size(1) :] = x[:, : old.size(1)].mean(1, keepdim=True)
            more = torch.arange(1, 1 + len(x) - len(old))[:, None]
            x[len(old) :] = x[len(old) - 1] + more * (x[len(old) - 1] - x[len(old) - 2])


def learning_rate_share(share: float, step: int) -> float:
    """Return the learning rate over its largest value: half a cosine over the time, after a warm-up."""
    cosine = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    return min(1.0, (step + 1) / WARMUP_STEPS) * cosine


# ---- commands


def train(
    jobs: list[Job], *, since: float, until: float, output: Path, most_steps: int | None = None
) -> None:
    """Train from one time to another, in seconds since 1970; the learning rate follows it."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / "log.csv").open("a", newline="") as file:
        log = csv.writer(file)
        log.writerow(["step", "seconds", "model", "loss", "bpp", "psnr", "gradient_norm"])
        start = saved = time.time()
        step = logged = 0
        phases = jobs[0].crops.phases
        while (share := (time.time() - since) / (until - since)) < 1 and step != most_steps:
            k = sum(phase.since <= share for phase in phases) - 1
            advance(jobs, k, share)
            step += 1
            if step % LOG_EVERY == 0 or step == most_steps:
                for job in jobs:
                    log.writerow(
                        [
                            step,
                            f"{time.time() - since:.2f}",
                            job.name,
                            *(f"{m:.5g}" for m in job.means(step - logged)),
                        ]
                    )
                file.flush()
                logged = step
            if time.time() - saved > SAVE_EVERY:
                saved = time.time()
                for job in jobs:
                    job.save(output)
        for job in jobs:
            job.save(output)
    print(f"{step} steps in {time.time() - start:.1f} s", flush=True)


def advance(jobs: list[Job], k: int, share: float) -> None:
    """Take a step of each model, on the same crops."""
    jobs[0].crops.draw(k)
    for job in jobs:
        job.advance(k, share)
    if jobs[0].stream is not None:
        for job in jobs:
            torch.cuda.current_stream().wait_stream(job.stream)


def compare(job: Job) -> None:
    """Print the loss of the reference on the CPU and of the model here, and how far gradients differ."""
    config = replace(job.model.config, position="grid")
    here = Job("", config, crops=job.crops, seed=0, half=job.half, weights=None, learning_rate=1e-3)
    model = GLIC(config)
    state = {
        name: x.cpu() + 0.02 * torch.randn(x.shape) if ".aggregate.output." in name else x.cpu()
        for name, x in here.model.state_dict().items()
    }
    for m in (model, here.model):
        m.load_state_dict(state)
        m.eval()
    x = job.crops.x[0][:2].contiguous()
    quality = torch.tensor([2, config.qualities - 1])
    criterion = RateDistortionLoss(LAMBDAS[: config.qualities], distortion="mse")
    on_cpu = criterion(model(x.cpu(), quality), x.cpu(), torch.zeros(()), quality)
    on_cpu.loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    q = quality.to(x.device)
    result = here.criterion(here.forward(x, q), x, torch.zeros((), device=x.device), q)
    result.loss.backward()
    other = torch.cat([p.grad.flatten() for p in here.model.parameters() if p.grad is not None]).cpu()
    print(
        f"{job.name}: loss {on_cpu.loss.item():.5f} {result.loss.item():.5f}",
        f"bpp {on_cpu.bpp.item():.5f} {result.bpp.item():.5f}",
        f"gradient differs by {((other - gradient).norm() / gradient.norm()).item():.2e}",
        flush=True,
    )


def profile(jobs: list[Job]) -> None:
    """Print how long a step of each model takes by itself, and its kernels that take longest."""
    for job in jobs:
        start = time.monotonic()
        for _ in range(30):
            advance([job], 0, 1)
        torch.cuda.synchronize()
        print(f"{job.name}: {(time.monotonic() - start) / 30 * 1e3:.2f} ms a step")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            advance([job], 0, 1)
            torch.cuda.synchronize()
        events = sorted(seen.key_averages(), key=lambda e: -e.self_device_time_total)
        total = sum(e.self_device_time_total for e in events)
        print(f"{job.name}: {sum(e.count for e in events)} kernels a step, {total / 1e3:.2f} ms")
        for e in events[:36]:
            print(f"{e.self_device_time_total / 1e3:7.3f} ms {e.count:5d} x {e.key[:110]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("-d", "--dataset", type=Path, nargs="+", required=True, help="folders of photos")
    packing.add_argument("-o", "--output", required=True, help="beginning of the files' names")
    packing.add_argument("--megabytes", type=float, default=40, help="of each file (default: %(default)s)")
    packing.add_argument("--files", type=int, default=1, help="number of them (default: %(default)s)")
    packing.add_argument("--side", type=int, default=720, help="longest side (default: %(default)s)")
    training = commands.add_parser("train")
    training.add_argument("models", nargs="+", metavar="NAME=YAML", help="configurations of models")
    training.add_argument("--photos", type=Path, nargs="+", required=True, help="files of pack")
    training.add_argument("-o", "--output", type=Path, required=True, help="folder of weights and log")
    training.add_argument("--since", type=float, help="when it began, in seconds since 1970 (default: now)")
    training.add_argument("--until", type=float, required=True, help="when it ends, in seconds since 1970")
    training.add_argument("--eager", action="store_true", help="make no CUDA graphs")
    training.add_argument("--steps", type=int, help="at most")
    training.add_argument("--checkpoint", nargs="+", type=Path, help="weights to start from, of all models")
    training.add_argument("--learning-rate", type=float, default=1e-3)
    training.add_argument("--optimizer", choices=["adam", "muon"], default="adam")
    training.add_argument("--batch-size", type=int, default=16, help="crops (default: %(default)s)")
    training.add_argument("--large-since", type=float, default=0.75, help="share of time before larger crops")
    training.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="bf16-mixed")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--at-most", type=int, help="photos to take")
    training.add_argument("--device", default="cuda")
    training.add_argument("--check", action="store_true", help="compare with the CPU before")
    training.add_argument("--profile", action="store_true", help="time and profile a step after")
    args = parser.parse_args()
    if args.command == "pack":
        pack(args.dataset, args.output, megabytes=args.megabytes, files=args.files, side=args.side)
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = torch.device(args.device)
    start = time.monotonic()
    weights = {
        k: v for path in args.checkpoint or () for k, v in current_names(load_file(path)).items()
    } or None
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(Photos, args.photos, at_most=args.at_most)
        phases = [
            Phase(0, args.batch_size, 256, 256),
            Phase(args.large_since, max(1, args.batch_size // 3), 384, 512),
        ]
        crops = Crops(phases, device=device, seed=args.seed)
        jobs = [
            Job(
                name,
                ModelConfig.from_yaml(Path(path)),
                crops=crops,
                seed=args.seed,
                half=args.precision == "bf16-mixed",
                weights=weights or None,
                eager=args.eager,
                learning_rate=args.learning_rate,
                muon=args.optimizer == "muon",
            )
            for name, path in (model.split("=") for model in args.models)
        ]
        if args.check:
            for job in jobs:
                compare(job)
        if device.type == "cuda" and not args.eager:
            for job in jobs:
                job.capture(0)
            print(f"memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
            print(f"graphs after {time.monotonic() - start:.1f} s", flush=True)
        photos = reading.result()
    print(f"{len(photos.first)} photos, {len(photos.store) / 1e6:.0f} Mpx", flush=True)
    crops.cut_from(photos.to(device))
    print(f"prepared in {time.monotonic() - start:.1f} s", flush=True)
    # Collecting what stood in circles is not worth a pause.
    gc.collect()
    gc.disable()
    since = time.time() if args.since is None else args.since
    train(jobs, since=since, until=args.until, output=args.output, most_steps=args.steps)
    if args.profile and device.type == "cuda":
        profile(jobs)


if __name__ == "__main__":
    main()
