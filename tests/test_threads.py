import os
import threading
import time

import pytest
import torch

from glic_pyg.entropy.context import PointwiseBlock, PointwiseNet
from glic_pyg.threads import (
    _openmp,
    _pools,
    _torch_library,
    in_one_thread,
    in_ranges,
    map_in_threads,
    share_out,
)


@pytest.fixture(params=[1, 2, 5])
def threads(request, set_num_threads):
    set_num_threads(request.param)
    return request.param


@pytest.fixture(params=["torch's threads", "others"])
def beside(request, monkeypatch):
    """Threads beside the present one: torch's own, and what stands in where torch has another OpenMP."""
    if request.param == "others":
        monkeypatch.setattr("glic_pyg.threads._openmp", lambda: None)
    elif _openmp() is None:
        pytest.skip("torch has another OpenMP than GNU's")


def test_results_come_in_order_from_calls_with_one_thread(threads):
    results = map_in_threads(lambda x: (x, torch.get_num_threads(), torch.is_grad_enabled()), range(20))
    assert [x for x, _, _ in results] == list(range(20))
    assert {number for _, number, _ in results} == {1}
    if threads > 1:
        assert not any(grad for _, _, grad in results)
    assert torch.get_num_threads() == threads


def test_one_call_in_one_thread(threads):
    with torch.no_grad():
        seen = in_one_thread(lambda x: (x, torch.get_num_threads(), torch.is_grad_enabled()), 5)
    assert seen == (5, 1, False)
    assert in_one_thread(lambda: map_in_threads(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
    with pytest.raises(ZeroDivisionError):
        in_one_thread(lambda: 1 // 0)
    assert torch.get_num_threads() == threads


def test_compiled_code_runs_in_this_thread_too(threads, beside):
    seen, together = set(), threading.Barrier(threads)

    def work(x):
        together.wait(timeout=20)
        seen.add(threading.get_ident())
        return x, torch.is_inference_mode_enabled()

    with torch.inference_mode():
        results = share_out(work, range(2 * threads))
    assert results == [(x, True) for x in range(2 * threads)]
    assert len(seen) == threads
    assert threading.get_ident() in seen
    with pytest.raises(ZeroDivisionError):
        share_out(lambda x: 1 // x, [1, 0, 2])


def test_compiled_code_runs_in_threads_of_torch(threads):
    """Others would wait for a core while these spin."""
    if _openmp() is None:
        pytest.skip("torch has another OpenMP than GNU's")
    in_parallel = _torch_library().omp_in_parallel
    assert share_out(lambda _: in_parallel(), range(20)) == [threads > 1] * 20


def test_after_an_error_no_other_part_begins(threads, beside):
    begun, failed = [], threading.Event()

    def work(x):
        begun.append(x)
        if x == 0:
            failed.set()
            raise KeyboardInterrupt
        assert failed.wait(timeout=20)
        time.sleep(0.05)  # so that whoever failed can say so

    with pytest.raises(KeyboardInterrupt):
        share_out(work, range(1000))
    assert len(begun) < 100


INTERRUPTED = """
import random, signal, time
import torch
from glic_pyg.threads import _openmp, share_out

torch.set_num_threads(2)
signal.signal(signal.SIGALRM, signal.default_int_handler)
rng, end, lost = random.Random(0), time.monotonic() + 2, 0
while time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 2e-3))
        for _ in range(10_000):
            share_out(lambda _: time.sleep(1e-5), range(4))
        lost += 1
    except KeyboardInterrupt:
        pass
print(lost, _openmp().omp_get_level() if _openmp() else 0, *share_out(abs, [-1, -2]))
"""


def test_no_signal_is_lost_and_none_leaves_a_region_open(child):
    """Wherever it comes: between Python's own steps, in compiled code, or on the way to other threads."""
    assert child(INTERRUPTED) == ["0 0 1 2"]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 100])
def test_ranges_cover_everything_once(threads, length):
    seen = torch.zeros(length, dtype=torch.long)

    def count(start, stop):
        seen[start:stop] += 1

    in_ranges(count, length)
    assert (seen == 1).all()


def test_other_threads_keep_their_number(threads):
    """Also those that torch first sees while pools are made."""
    seen, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            one = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            one.start()
            one.join()

    watching = threading.Thread(target=look)
    _pools.clear()
    map_in_threads(abs, [1, 2])  # the pool is made before
    watching.start()
    for _ in range(50):
        map_in_threads(lambda x: torch.rand(100, 100) @ torch.rand(100, 100), range(4))
    stop.set()
    watching.join()
    assert set(seen) == {threads}


def test_errors_reach_the_caller(threads):
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda x: 1 // x, [1, 0])
    assert torch.get_num_threads() == threads


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(threads):
    map_in_threads(abs, [1, 2])
    child = os.fork()
    if child == 0:
        os._exit(0 if map_in_threads(abs, [-1, -2]) == share_out(abs, [1, 2]) == [1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_bits_of_a_pointwise_net_do_not_depend_on_threads():
    torch.manual_seed(0)
    net = PointwiseNet(PointwiseBlock(24, 40, ratio=4), PointwiseBlock(40, 16, ratio=4))
    x = torch.randn(2, 24, 17, 23)
    expected = net(x).detach()  # as one map, for training
    results = []
    before = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            with torch.no_grad():
                results.append(net(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)
    torch.testing.assert_close(results[0], expected)


SERVER = """
import hashlib, os, sys, threading, warnings
import torch
from glic_pyg import GLIC
from glic_pyg.bitstream import decode, encode
from glic_pyg.entropy.exact import _held
warnings.simplefilter("ignore")  # Python warns of forks, too
torch.set_num_threads(2)
backends = torch.backends
if sys.argv[2] == "fewer bits":
    backends.fp32_precision = "tf32"

def settings():
    parts = (backends, backends.mkldnn.conv, backends.cuda.matmul, backends.cudnn)
    precisions = [part.fp32_precision for part in parts]
    seen = []
    one = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    one.start()
    one.join()
    return [*precisions, backends.cudnn.enabled, backends.mkldnn.enabled, torch.get_num_threads(), *seen]

model = GLIC.from_pretrained(sys.argv[1])
x = torch.rand(1, 3, 64, 70, generator=torch.Generator().manual_seed(0))
before = settings()

def work(out):
    for _ in range(3):
        data = encode(model, x)
        out.append(hashlib.sha256(data + decode(model, data).numpy().tobytes()).hexdigest())

def in_child():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        out = []
        work(out)
        os.write(write, out[0].encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return os.read(read, 100).decode()

outs = [[] for _ in range(4)]
if sys.argv[2] == "before":
    outs.append([in_child()])
threads = [threading.Thread(target=work, args=(out,)) for out in outs]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert settings() == before, (settings(), before)
assert _held.users == 0 and not _held.before
backends.fp32_precision = "ieee"
assert backends.mkldnn.conv.fp32_precision == "ieee", "no setting of its own is left"
backends.fp32_precision = "none"
outs.append([in_child()])
print(*{digest for out in outs for digest in out})
"""


@pytest.mark.parametrize("how", ["fewer bits", "before"])
def test_threads_and_forked_processes_share_a_model(child, tiny_model, tmp_path, how):
    """All files are the same, and settings of the process what they were."""
    tiny_model.save(tmp_path / "model.safetensors")
    (digests,) = child(SERVER, tmp_path / "model.safetensors", how, OMP_NUM_THREADS="2")
    assert len(digests.split()) == 1
