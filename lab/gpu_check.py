"""Check what runs on a GPU, within minutes, on a machine that is lent for so long and has no network.

    python lab/gpu_check.py -o FOLDER --seconds 170

What matters most comes first: the tests that need a GPU and files across devices, then coding and training,
the kernels by themselves at the end. The rival, kernels `reference`, is measured after the default,
`triton`, and at small sizes where its gradients may take seconds. Every stage is a process of its own, with
a limit: one that breaks, or the GPU's context with it, does not end the others. Each figure is printed as
it comes and kept in FOLDER/gpu_check.json, which is whole at any moment. Without a GPU, `--dry-run` runs
every stage on tiny sizes, in Triton's interpreter. `lab/gpu_check.sh` does the same where compressai is
missing.
"""

# ruff: noqa: B023 - what a loop's functions bind is read within the same turn
from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = "RESULT "  # what a stage's lines of results begin with
STAGES = {  # name -> most seconds
    "machine": 30,
    "tests": 80,
    "devices": 60,
    "coding configs/model/glic_nano.yaml": 40,
    "training configs/model/glic_nano.yaml": 30,
    "coding configs/model/glic.yaml": 40,
    "training configs/model/glic.yaml": 40,
    "kernels": 30,
    "variants": 60,
}
TOGETHER = ("tests", "devices")
"""Stages that time nothing: they run at the same time."""

TESTS = [
    "tests/nn/kernels/test_triton_attention.py",
    "tests/graph/kernels/test_triton_threshold.py",
    "tests/nn/test_gfa_by_triton.py",
    "tests/graph/test_build.py",
    "tests/graph/test_candidates.py",
    "tests/graph/test_complexity.py",
    "tests/graph/test_quota.py",
    "tests/graph/test_selection.py",
    "tests/nn/test_conv.py",
    "tests/nn/test_gfa.py",
    "tests/nn/test_graph_attention.py",
    "tests/entropy/test_exact.py",
    "tests/test_bitstream.py",
    "tests/test_refinement.py::test_a_gpu_refines_for_every_decoder",
    "tests/cli/test_device.py",
]
BACKENDS = ("triton", "reference")
FEW = 20_000
"""Nodes up to which the rival's gradients are taken, which may need seconds for more."""


def main() -> int:
    """Run the stages one after the other, or one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seconds", type=float, default=170, help="for all stages (default: %(default)s)")
    parser.add_argument(
        "--stages", nargs="+", default=list(STAGES), help="default: all but compile, which needs no GPU"
    )
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--stage", help=argparse.SUPPRESS)  # what a process of its own is to do
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.stage is not None:
        name, *arguments = args.stage.split()
        globals()[f"stage_{name}"](Place(args.dry_run, args.output), *arguments)
        return 0
    return Run(args).all()


# ---- all stages


class Run:
    """All stages, and the file of their results.

    Args:
        args: Of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.start = time.monotonic()
        self.lock = threading.Lock()
        self.results: dict[str, Any] = {"command": sys.argv, "stages": {}}

    def all(self) -> int:
        """Run them while there is time; return 0 if all went well."""
        groups = [[name] for name in self.args.stages if name not in TOGETHER]
        groups.insert(1, [name for name in self.args.stages if name in TOGETHER])
        for group in groups:
            threads = [threading.Thread(target=self.one, args=(name,)) for name in group]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        bad = {name: s["status"] for name, s in self.results["stages"].items() if s["status"] != "done"}
        print(f"==== {time.monotonic() - self.start:.0f} s; {bad or 'all done'}", flush=True)
        return 1 if bad else 0

    def one(self, name: str) -> None:
        """Run a stage in a process of its own, if there is time; keep its results as they come."""
        seconds = self.args.seconds - (time.monotonic() - self.start)
        if seconds < 5:
            self.results["stages"][name] = {"status": "no time left"}
            print(f"==== {name}: no time left", flush=True)
            self.save()
            return
        if not self.args.dry_run:
            seconds = min(seconds, STAGES.get(name, seconds))
        stage = self.results["stages"][name] = {"status": "running", "results": []}
        begin = time.monotonic()
        print(f"==== {name} (at {begin - self.start:.0f} s, at most {seconds:.0f} s)", flush=True)
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            __file__,
            "-o",
            str(self.args.output),
            "--stage",
            name,
        ]
        if self.args.dry_run:
            command.append("--dry-run")
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "OMP_WAIT_POLICY": "passive",
        }
        if self.args.dry_run and name != "compile":
            environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env=environment, start_new_session=True, errors="replace",
        )  # fmt: skip
        last: list[str] = []

        def read() -> None:
            for line in process.stdout:
                print(line, end="", flush=True)
                if line.startswith(RESULT):
                    stage["results"].append(json.loads(line.removeprefix(RESULT)))
                    self.save()
                else:
                    last.append(line)
                    del last[:-60]

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            status = process.wait(seconds)
            stage["status"] = "done" if status == 0 else f"ended with {status}"
        except subprocess.TimeoutExpired:
            stage["status"] = f"cut after {seconds:.0f} s"
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it started
        reader.join(5)
        stage["seconds"] = round(time.monotonic() - begin, 1)
        if stage["status"] != "done":
            stage["output"] = "".join(last)
        self.save()
        print(f"---- {name}: {stage['status']}, {stage['seconds']} s", flush=True)

    def save(self) -> None:
        """Write what there is, whole."""
        path = self.args.output / "gpu_check.json"
        part = path.with_suffix(".part")
        with self.lock, suppress(RuntimeError):  # another stage has added to them: it saves them, too
            part.write_text(json.dumps(self.results, indent=1))
            part.replace(path)


# ---- what stages share


class Place:
    """Where a stage runs.

    Args:
        dry: On the CPU, with tiny sizes.
        output: Folder of the results.
    """

    def __init__(self, dry: bool, output: Path) -> None:
        self.dry, self.output = dry, output
        self.device = "cpu" if dry else "cuda"

    def sync(self) -> None:
        """Wait for the GPU."""
        if not self.dry:
            import torch

            torch.cuda.synchronize()

    def times(self, function: Callable[[], Any], *, seconds: float = 0.5, most: int = 20) -> float:
        """Return the median of milliseconds that calls take, after one that warms up."""
        if not self.dry:
            function()
        self.sync()
        found, end = [], time.monotonic() + seconds
        while not found or (len(found) < most and time.monotonic() < end and not self.dry):
            start = time.perf_counter()
            function()
            self.sync()
            found.append((time.perf_counter() - start) * 1e3)
        return round(statistics.median(found), 4)

    def device_times(self, function: Callable[[], Any]) -> float:
        """Return the median of milliseconds that the GPU takes for a call; one long call is enough."""
        if self.dry:
            return self.times(function)
        import triton.testing

        self.sync()
        start = time.perf_counter()
        function()
        self.sync()
        if (once := (time.perf_counter() - start) * 1e3) > 500:
            return round(once, 4)
        return round(triton.testing.do_bench(function, warmup=20, rep=100, return_mode="median"), 4)

    def launches(self, function: Callable[[], Any]) -> dict[str, float]:
        """Return how many kernels a call launches, and the milliseconds that the GPU is busy with them."""
        if self.dry:
            return {}
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile

        self.sync()
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            function()
            self.sync()
        kernels = [event for event in record.events() if event.device_type == DeviceType.CUDA]
        busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e3
        return {"launches": len(kernels), "busy_ms": round(busy, 3)}

    @contextmanager
    def memory(self) -> Iterator[dict[str, float]]:
        """Measure the most MiB allocated on the GPU beyond what was before."""
        import torch

        found: dict[str, float] = {}
        if self.dry:
            yield found
            found["mib"] = 0.0
            return
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield found
        torch.cuda.synchronize()
        found["mib"] = round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def result(**values: Any) -> None:
    """Hand a result over."""
    print(RESULT + json.dumps(values), flush=True)


@contextmanager
def guarded(**what: Any) -> Iterator[None]:
    """Report what fails, and go on."""
    try:
        yield
    except Exception as error:
        lines = traceback.format_exc().strip().splitlines()
        result(**what, error=f"{type(error).__name__}: {error}"[:2000], where=lines[-8:])
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def difference(found: Any, expected: Any) -> float:
    """Return the norm of a difference over that of what was expected."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float(f"{((found - expected).norm() / expected.norm()).item():.3g}")


def model_of(name: str) -> Any:
    """Return a model ready to compress: the weights of glic_nano, for others drawn ones."""
    import torch

    from glic_pyg import GLIC, ModelConfig

    if name.endswith("glic_nano.yaml"):
        return GLIC.from_pretrained("glic_nano").eval()
    torch.manual_seed(0)
    model = GLIC(ModelConfig.from_yaml(name))
    for key, weight in model.named_parameters():
        if weight.ndim >= 2 and "entropy_bottleneck" not in key:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    model.update(force=True)
    return model.eval()


# ---- stages


def stage_machine(place: Place) -> None:
    """Say what the machine is, and what a copy and a matrix product reach on it."""
    import torch
    import triton

    import glic_pyg
    from glic_pyg.kernels import runs_triton

    facts = {"python": sys.version.split()[0], "torch": torch.__version__, "triton": triton.__version__}
    if not place.dry:
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    result(**facts, glic_pyg=glic_pyg.__version__, runs_triton=runs_triton(torch.device(place.device)))
    side = 64 if place.dry else 2**14
    x = torch.randn(side, side, device=place.device)
    milliseconds = place.device_times(x.clone)
    result(copy_tb_per_s=round(2 * x.nbytes / milliseconds / 1e9, 3))
    for dtype in (torch.bfloat16, torch.float32):
        y = x[: side // 2, : side // 2].to(dtype).contiguous()
        milliseconds = place.device_times(lambda y=y: y @ y)
        result(product=str(dtype), tflop_per_s=round(2 * len(y) ** 3 / milliseconds / 1e9, 1))


def stage_tests(place: Place) -> None:
    """Run the tests that need a GPU."""
    report = place.output / "tests.xml"
    report.unlink(missing_ok=True)
    chosen = "triton or cuda" if not place.dry else "test_operators_are or test_no_edges or cpu"
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "-k", chosen,
        "-o", "filterwarnings=default", "--durations=10",
        *(["-x", "--maxfail=50"] if place.dry else ["-n", "10"]), *(TESTS[:4] if place.dry else TESTS),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout[-6000:], flush=True)
    (place.output / "tests.log").write_text(done.stdout)
    counts = {"passed": 0, "skipped": 0, "failed": 0}
    for case in ET.parse(report).getroot().iter("testcase"):
        kind = "failed" if case.find("failure") is not None or case.find("error") is not None else "passed"
        kind = "skipped" if case.find("skipped") is not None else kind
        counts[kind] += 1
        if kind != "passed":
            message = next((child.get("message") or "" for child in case), "")
            result(test=f"{case.get('classname')}::{case.get('name')}", outcome=kind, message=message[:600])
    result(**counts, status=done.returncode)
    if done.returncode:
        raise SystemExit(1)


def stage_compile(place: Place) -> None:
    """Compile every kernel for several generations of GPUs, of which none need be there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from glic_pyg.graph.kernels import triton_threshold
    from glic_pyg.nn.kernels import triton_attention as attention

    def add(kernel: Any, types: dict[str, str], constants: dict[str, Any], warps: int) -> None:
        signature = {
            name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names
        }
        for capability in (80, 90, 120):
            about = {
                "kernel": kernel.__name__,
                "capability": capability,
                **constants,
                "value": types.get("value"),
            }
            with guarded(**about):
                made = triton.compile(
                    ASTSource(fn=kernel, signature=signature, constexprs=constants),
                    target=GPUTarget("cuda", capability, 32),
                    options={"num_warps": warps, "num_stages": 1},
                )
                # Shared memory of a program is limited to 99 KiB on small GPUs.
                result(
                    **about, shared_kib=made.metadata.shared / 1024, fits=made.metadata.shared <= 99 * 1024
                )

    numbers = dict.fromkeys(("node", "candidate"), "*i64")
    lists = ("bits", "kept", "kinds", "start", "order", "run", "place", "first")
    numbers |= dict.fromkeys(lists, "*i32")
    singles = dict.fromkeys(("unit", "quota", "table", "log_sum", "inner", "of_bias"), "*fp32")
    add(triton_threshold._choose, numbers | singles, {"CHANNELS": 32}, 8)
    for dtype in ("fp32", "bf16"):
        names = ("query", "key", "value", "out", "grad", "grad_query", "of_key", "of_value")
        types = numbers | singles | dict.fromkeys(names, f"*{dtype}")
        constants = {"CHANNELS": 32, "SIDE": 31}
        add(attention._forward, types, constants, attention.FORWARD["num_warps"])
        constants = {**constants, "BLOCK": attention.BACKWARD["BLOCK"]}
        add(attention._backward, types, constants, attention.BACKWARD["num_warps"])
        types = numbers | dict.fromkeys(("x", "out"), f"*{dtype}")
        add(attention._sum, types, {"ROWS": 8, "ENTRIES": 4, "WIDTH": 128}, 4)


def kernel_inputs(place: Place, size: tuple[int, int, int], heads: int, channels: int, dtype: Any) -> Any:
    """Return leaves, groups and bits, local and global, of random features."""
    import torch

    from glic_pyg.graph import Centered, GraphBuilder, Threshold
    from glic_pyg.nn import DistanceBias

    torch.manual_seed(0)
    x = torch.randn(size[0], heads * channels, *size[1:], device=place.device)
    builder = GraphBuilder(degree=16, similarity=Centered(), selection=Threshold(bisections=10))
    num_nodes = size[0] * size[1] * size[2]
    bias = DistanceBias(heads=heads, hidden=16).to(place.device)

    def random(*shape: int) -> Any:
        return torch.randn(*shape, device=place.device, dtype=dtype).requires_grad_()

    leaves = [random(num_nodes, heads, channels), random(num_nodes, 2, heads, channels)]
    scale = torch.linspace(2, 9, heads, device=place.device).requires_grad_()
    return x, builder, bias, [*leaves, scale]


def stage_kernels(place: Place) -> None:
    """Time the choice of neighbours and an attention layer of both backends, and compare them."""
    import torch

    from glic_pyg.kernels import use_kernels
    from glic_pyg.nn import GraphAttention

    sizes = [((1, 10, 12), 2, 6)] if place.dry else [((1, 256, 256), 8, 24), ((16, 32, 32), 4, 24)]
    for size, heads, channels in sizes:
        what: dict[str, Any] = {"nodes": size[0] * size[1] * size[2], "heads": heads, "channels": channels}
        x, builder, *_ = kernel_inputs(place, size, heads, channels, torch.float32)
        graphs = {}
        for backend in BACKENDS:
            with guarded(**what, graphs=backend), torch.no_grad():
                use_kernels(builder, backend)
                edges = backend != "triton"
                graphs[backend] = builder(x, edges=edges)
                with place.memory() as memory:
                    builder(x, edges=edges)
                ms = place.times(lambda edges=edges: builder(x, edges=edges))
                result(**what, graphs=backend, ms=ms, **memory)
        if len(graphs) < 2:
            continue
        with guarded(**what, edges="of both"):
            for listed, packed in zip(graphs["reference"], graphs["triton"], strict=True):
                bits = packed.kept[..., None] >> torch.arange(32, device=x.device) & 1
                kept = torch.zeros_like(bits.flatten(1), dtype=torch.bool)
                groups, target = packed.groups, listed.edge_index[1]
                slot = groups.slot[target]
                row, column = slot // 8 + listed.offset[:, 0], slot % 8 + listed.offset[:, 1]
                kept[target, row * 16 + column] = True
                differ = (kept != (bits.flatten(1) != 0)).sum().item()
                result(**what, edges=int(kept.sum()), differ=differ)
        for dtype in (torch.float32, torch.bfloat16) if not place.dry else (torch.float32, torch.float16):
            layer = GraphAttention(
                channels=heads * channels, heads=heads, position_hidden=16, position="distance"
            ).to(place.device)
            features = torch.randn(what["nodes"], heads * channels, device=place.device, requires_grad=True)
            wanted = [features, *layer.parameters()]
            single = dtype == torch.float32
            half = torch.autocast(place.device, None if single else dtype, enabled=not single)
            for i, scope in enumerate(("local", "global")):
                found = {}
                for backend in BACKENDS:
                    about = {**what, "dtype": str(dtype), "graph": scope, "attention": backend}
                    with guarded(**about):
                        graph = graphs[backend][i]
                        edges = use_kernels(layer, backend).prepare(graph)

                        def attend(layer=layer, x=features, graph=graph, edges=edges, half=half) -> Any:
                            with half:
                                return layer(x, graph, edges)

                        with place.memory() as memory:
                            out = attend()
                        found[backend] = [out]
                        with torch.no_grad():
                            result(**about, forward_ms=place.device_times(attend), forward_mib=memory["mib"])
                        if backend == "reference" and what["nodes"] > FEW:
                            continue
                        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)

                        def back(out=out, wanted=wanted, direction=direction) -> Any:
                            return torch.autograd.grad(out, wanted, direction, retain_graph=True)

                        with place.memory() as memory:
                            gradients = back()
                        found[backend] += gradients
                        again = all(map(torch.equal, gradients, back())) if backend == "triton" else None
                        result(
                            **about, backward_ms=place.device_times(back), backward_mib=memory["mib"],
                            same_gradients_again=again,
                        )  # fmt: skip
                if len(found) == 2:
                    names = ("out", "x", *(name for name, _ in layer.named_parameters()))
                    pairs = zip(names, found["reference"], found["triton"], strict=False)
                    what_differs = {name: difference(b, a) for name, a, b in pairs}
                    result(**what, dtype=str(dtype), graph=scope, backends_differ=what_differs)


def stage_devices(place: Place) -> None:
    """Code on one device and decode on the other, both ways."""
    import copy

    import torch
    from pictures import photo

    from glic_pyg.bitstream import decode, encode

    name = "configs/model/glic_pico.yaml" if place.dry else "configs/model/glic_nano.yaml"
    size = (64, 64) if place.dry else (512, 768)
    here = model_of(name)
    if place.dry:
        from glic_pyg.kernels import use_kernels

        there = use_kernels(copy.deepcopy(here), "triton")
    else:
        there = copy.deepcopy(here).cuda()
    x = photo(*size)
    for quality in (2.0, min(8.0, here.config.qualities)):
        files = {}
        for source, model in (("cpu", here), (place.device, there)):
            with guarded(encoded_on=source, quality=quality):
                files[source] = encode(model, x.to(model.device), quality)
                result(encoded_on=source, quality=quality, bytes=len(files[source]))
        for source, data in files.items():
            with guarded(encoded_on=source, quality=quality, decoded="on both"):
                # Decoding compares the latents' checksum: other latents would not pass.
                restored = [decode(model, data).float().cpu() for model in (here, there)]
                error = (restored[0] - restored[1]).abs()
                result(
                    encoded_on=source, quality=quality, same_latents=True,
                    pixels_differ_at_most=round(error.max().item(), 6),
                    on_average=float(f"{error.mean().item():.3g}"),
                    psnr=[round(-10 * torch.log10((r - x).square().mean()).item(), 4) for r in restored],
                )  # fmt: skip


def stage_coding(place: Place, name: str) -> None:
    """Time both backends: compress and decompress in float32, the transforms in bfloat16."""
    import torch
    from pictures import photo

    from glic_pyg.kernels import use_kernels

    if place.dry:
        name = "configs/model/glic_pico.yaml"
    model = model_of(name).to(place.device)
    quality = None if model.config.qualities == 1 else 4.0
    small, large = ((64, 64), (64, 128)) if place.dry else ((512, 768), (2048, 2048))
    short, outcomes = Path(name).stem, {}
    for backend, size in (("triton", small), ("triton", large), ("reference", small), ("reference", large)):
        use_kernels(model, backend)
        x = photo(*size).to(place.device)
        what = {"model": short, "size": size, "kernels": backend}
        with guarded(**what, dtype="float32"):
            outcomes[backend, size] = exact = _coding_in_float32(place, model, x, quality, what)
            if backend == "reference":
                differ = difference(exact, outcomes["triton", size])
                result(model=short, size=size, dtype="float32", backends_differ=differ)
        with guarded(**what, dtype="bfloat16"), torch.no_grad():
            half = torch.float16 if place.dry else torch.bfloat16
            exact = outcomes.get((backend, size))
            with torch.autocast(place.device, half):
                with place.memory() as memory:
                    y = model.g_a(x)
                    model.g_s(y.float())
                result(
                    **what, dtype="bfloat16",
                    g_a_ms=place.times(lambda x=x: model.g_a(x)),
                    g_s_ms=place.times(lambda y=y: model.g_s(y.float())),
                    **memory,
                    **place.launches(lambda x=x: model.g_a(x)),
                    from_float32=None if exact is None else difference(y, exact),
                )  # fmt: skip


def _coding_in_float32(place: Place, model: Any, x: Any, quality: float | None, what: dict[str, Any]) -> Any:
    with place.memory() as analysis_memory:
        y = model.analyse(x)
    strings, y_hat = model.code(y, quality)
    shape = tuple(x.shape[-2:])
    with place.memory() as synthesis_memory:
        model.synthesise(y_hat, shape)
    result(
        **what, dtype="float32",
        g_a_ms=place.times(lambda: model.analyse(x)),
        code_ms=place.times(lambda: model.code(y, quality), most=3),
        decode_ms=place.times(lambda: model.decode(strings, shape, quality), most=3),
        g_s_ms=place.times(lambda: model.synthesise(y_hat, shape)),
        g_a_mib=analysis_memory["mib"], g_s_mib=synthesis_memory["mib"],
        bits_per_pixel=round(8 * sum(map(len, strings)) / shape[0] / shape[1], 3),
    )  # fmt: skip
    return y


def stage_training(place: Place, name: str) -> None:
    """Time a training step of both backends, without an optimiser."""
    import torch
    from pictures import photo

    from glic_pyg import GLIC, ModelConfig
    from glic_pyg.kernels import use_kernels
    from glic_pyg.training.loss import RateDistortionLoss

    if place.dry:
        name = "configs/model/glic_pico.yaml"
    torch.manual_seed(0)
    config = ModelConfig.from_yaml(name)
    model = GLIC(config).to(place.device).train()
    criterion = RateDistortionLoss((0.01,) * config.qualities, distortion="mse").to(place.device)
    large = (16 if "nano" in name else 8, 256)  # pictures, side
    small = (1, 64) if place.dry else (2, 128)
    dtypes = (None, torch.float16 if place.dry else torch.bfloat16)
    runs = [(backend, small, dtype) for backend in BACKENDS for dtype in dtypes]
    if not place.dry:
        runs = [("triton", large, dtype) for dtype in dtypes] + runs
    gradients = {}
    for backend, (count, side), dtype in runs:
        use_kernels(model, backend)
        x = photo(side, side).to(place.device)
        x = torch.cat([x.roll(17 * i, dims=-1) for i in range(count)])
        quality = torch.arange(count, device=place.device) % config.qualities + 1
        about = {"model": Path(name).stem, "batch": count, "side": side}
        about["dtype"] = "float32" if dtype is None else str(dtype)

        def step() -> None:
            model.zero_grad(set_to_none=True)
            torch.manual_seed(1)  # the same noise
            with torch.autocast(place.device, dtype, enabled=dtype is not None):
                output = model(x, quality if config.qualities > 1 else None)
            criterion(output, x, model.orthogonality_loss(), quality).loss.backward()

        with guarded(**about, kernels=backend):
            with place.memory() as memory:
                step()
            gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).cpu()
            result(**about, kernels=backend, step_ms=place.times(step, seconds=2, most=10), **memory)
            if backend == "triton":
                gradients[str(about)] = gradient
            else:
                result(**about, gradients_differ=difference(gradient, gradients[str(about)]))


def stage_variants(place: Place) -> None:
    """Time the attention kernels with other blocks and numbers of warps."""
    import torch

    from glic_pyg.kernels import use_kernels
    from glic_pyg.nn.kernels import triton_attention as kernels

    size, heads, channels = ((1, 10, 12), 2, 6) if place.dry else ((1, 256, 256), 8, 24)
    x, builder, bias, _ = kernel_inputs(place, size, heads, channels, torch.float32)
    graph = use_kernels(builder, "triton")(x, edges=False)[1]
    table = bias(graph.stride).detach().requires_grad_()
    groups = kernels.groups_of(graph.groups, heads=heads, distance=True)
    for dtype in (torch.float16,) if place.dry else (torch.bfloat16, torch.float32):
        *_, leaves = kernel_inputs(place, size, heads, channels, dtype)
        leaves.append(table)
        for warps in (8,) if place.dry else (8, 4, 16):
            with guarded(dtype=str(dtype), forward_warps=warps), torch.no_grad():
                kernels.FORWARD["num_warps"] = warps
                ms = place.device_times(
                    lambda leaves=leaves: kernels.triton_attention(*leaves, graph.kept, groups)
                )
                result(dtype=str(dtype), forward_warps=warps, ms=ms)
        kernels.FORWARD["num_warps"] = 8
        out = kernels.triton_attention(*leaves, graph.kept, groups)
        direction = torch.randn_like(out)
        choices = ((32, 4), (64, 4), (64, 8), (32, 8), (128, 8), (16, 4))
        for block, warps in choices[:1] if place.dry else choices:
            with guarded(dtype=str(dtype), backward_block=block, warps=warps):
                kernels.BACKWARD.update(BLOCK=block, num_warps=warps)
                ms = place.device_times(
                    lambda out=out, leaves=leaves, direction=direction: torch.autograd.grad(
                        out, leaves, direction, retain_graph=True
                    )
                )
                result(dtype=str(dtype), backward_block=block, warps=warps, ms=ms)


if __name__ == "__main__":
    raise SystemExit(main())
