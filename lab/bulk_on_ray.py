"""Try `glic bulk` on a cluster of Ray's whose node dies: nothing lost, nothing twice, the same bytes.

    python lab/bulk_on_ray.py
    python lab/bulk_on_ray.py --rates 1 2 4
    python lab/bulk_on_ray.py --cost kodak/

It wants `pip install "glic_pyg[ray]"`. The pictures are of 64 x 64, one in fifty is broken. Nodes are
processes of this machine, of a core each. One of two is killed when a quarter is done; or else, with --rates,
so many nodes do the same and none is killed. --cost tells what a picture of a folder takes, in CPU seconds of
one thread and in bytes, without Ray.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from glic_pyg.cli.flags import Parser, count

STORE = 100 << 20
BATCH = 20


def write_pictures(folder: Path, number: int) -> None:
    """Write small pictures, one in fifty of them broken."""
    for i in range(number):
        path = folder / f"{i // 500:02}" / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i % 50 == 25:
            path.write_bytes(b"no picture")
        else:
            Image.effect_noise((64, 64), 20 + i % 80).convert("RGB").save(path)


def code(photos: Path, coded: Path, nodes: int, *, kill_after: int | None = None) -> tuple[Any, list[float]]:
    """Compress a folder on so many nodes, one of which is killed after so many batches.

    Returns:
        The job's summary, and the seconds after which each batch was done.
    """
    from ray.cluster_utils import Cluster

    from glic_pyg.bulk import Encoder
    from glic_pyg.bulk.job import Engine, run
    from glic_pyg.bulk.table import PARTS
    from glic_pyg.on_ray import connected, in_actors

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    members = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(nodes)]
    times: list[float] = []

    def kill() -> None:
        while len(list((coded / PARTS).glob("*.parquet"))) < kill_after:
            time.sleep(0.05)
        cluster.remove_node(members[0], allow_graceful=False)
        print(f"a node killed after {kill_after} batches of {BATCH}")

    def hand_out(*work: Any) -> Iterator[dict[str, Any]]:
        start = time.perf_counter()
        for result in in_actors(*work, actors=nodes):
            times.append(time.perf_counter() - start)
            yield result

    @contextmanager
    def engine() -> Iterator[Engine]:
        with connected(cluster.address):
            yield hand_out

    if kill_after is not None:
        threading.Thread(target=kill, daemon=True).start()
    try:
        summary = run(Encoder, {"quality": 3}, str(photos), str(coded), engine=engine(), batch=BATCH)
        return summary, times
    finally:
        cluster.shutdown()


def print_cost(folder: Path) -> None:
    """Print what a picture takes."""
    import torch

    from glic_pyg.bulk import Decoder, Encoder, Evaluator
    from glic_pyg.files import files_below

    torch.set_num_threads(1)
    encoder = Encoder(quality=3)
    pictures = [path.read_bytes() for path in files_below(folder, encoder.suffixes)]
    streams = [encoder.row("", data)["bytes"] for data in pictures]
    work = {
        "compress": (encoder, pictures),
        "decompress": (Decoder(encoder.model), streams),
        "evaluate": (Evaluator(encoder.model, quality=3), pictures),
    }
    for name, (coder, inputs) in work.items():
        coder.row("", inputs[0])
        start = time.process_time()
        made = [len(coder.row("", data)["bytes"]) for data in inputs]
        seconds = time.process_time() - start
        size = sum(map(len, inputs)) / len(inputs)
        print(
            f"{name}: {seconds / len(inputs):.3f} CPU seconds, {size:.0f} bytes in, "
            f"{sum(made) / len(made):.0f} out, means of {len(inputs)} pictures"
        )


def main() -> None:
    """Code the pictures, and compare."""
    parser = Parser(__doc__)
    parser.add_argument("--pictures", type=count, default=2000, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--rates", type=count, nargs="+", default=[], metavar="NODES", help="measure speeds")
    parser.add_argument("--cost", type=Path, metavar="FOLDER", help="tell what a picture takes")
    args = parser.parse_args()
    if args.cost:
        print_cost(args.cost)
        return

    import pyarrow.parquet as pq

    from glic_pyg.bulk import Encoder
    from glic_pyg.bulk.table import RESULTS

    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        write_pictures(photos, args.pictures)
        for nodes in args.rates:
            summary, times = code(photos, Path(folder, str(nodes)), nodes)
            rows = pq.read_table(Path(folder, str(nodes), RESULTS))
            ones = 1000 * sum(rows["seconds"].to_pylist()) / summary.pictures
            rate = (summary.pictures - BATCH) / (times[-1] - times[0])
            print(
                f"{nodes} nodes: first batch after {times[0]:.0f} s, then {rate:.1f} pictures/s, "
                f"{ones:.0f} ms each, load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores",
                flush=True,
            )
        if args.rates:
            return
        coded = Path(folder, "coded")
        first, _ = code(photos, coded, 2, kill_after=args.pictures // BATCH // 4)
        rows = pq.read_table(coded / RESULTS).to_pylist()
        files = {path.relative_to(coded).as_posix(): path.read_bytes() for path in coded.rglob("*.glic")}
        print(f"{len(rows)} rows of {len({row['path'] for row in rows})} pictures in {first.seconds:.0f} s")
        print(f"{sum(bool(row['error']) for row in rows)} errors")
        made = {row["output"]: row["bytes"] for row in rows if row["output"]}
        sizes = {name: len(data) for name, data in files.items()}
        print(f"{len(files)} files, {'as' if made == sizes else 'NOT as'} the table tells")
        encoder = Encoder(quality=3)
        some = [row for row in rows if row["output"]][::50]
        same = [
            encoder.row("", (photos / row["path"]).read_bytes())["bytes"] == files[row["output"]]
            for row in some
        ]
        print(f"{sum(same)} of {len(same)} files as one process makes them")
        second, _ = code(photos, coded, 2)
        print(f"a second start: {second.new} tried, {second.pictures} rows, in {second.seconds:.0f} s")


if __name__ == "__main__":
    main()
