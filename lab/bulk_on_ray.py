"""Try `glic_pyg.bulk` on a cluster of Ray's whose node dies: nothing lost, nothing twice, the same bytes.

python lab/bulk_on_ray.py

It wants `pip install "ray[data]" "pyarrow<26"`: newer ones of pyarrow refuse the NumPy of CompressAI.
There are 200 pictures of 64 x 64, one in fifty broken, and two nodes of one core, of which one is killed
after 60 rows.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

from PIL import Image

from glic_pyg.cli.flags import Parser

PICTURES, KILLED_AFTER, STORE = 200, 60, 100 << 20


def write_pictures(folder: Path) -> None:
    """Write small pictures, one in fifty of them broken."""
    for i in range(PICTURES):
        path = folder / f"{i:03}.png"
        if i % 50 == 25:
            path.write_bytes(b"no picture")
        else:
            Image.effect_noise((64, 64), 40 + i).convert("RGB").save(path)


def main() -> None:
    """Code the pictures, kill a node on the way, and compare."""
    Parser(__doc__).parse_args()
    import ray
    from ray.cluster_utils import Cluster

    from glic_pyg.bulk import Encoder

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder))
        pictures = ray.data.read_binary_files(folder, include_paths=True, override_num_blocks=20)
        coded = pictures.map_batches(
            Encoder,
            fn_constructor_kwargs={"quality": 3},
            batch_size=5,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=2),
        )
        rows: list[tuple[str, bytes, str]] = []
        start = time.monotonic()
        for batch in coded.iter_batches(batch_size=5):
            rows += zip(batch["path"], batch["bytes"], batch["error"], strict=True)
            if nodes and len(rows) >= KILLED_AFTER:
                cluster.remove_node(nodes.pop(), allow_graceful=False)
                nodes.clear()
                print(f"a node killed after {len(rows)} rows")
        print(f"{len(rows)} rows in {time.monotonic() - start:.0f} s")
        print(f"{len({path for path, *_ in rows})} pictures")
        print(f"{sum(bool(error) for *_, error in rows)} errors")
        encoder = Encoder(quality=3)
        same = [encoder.row(path, Path(path).read_bytes())["bytes"] == data for path, data, _ in rows[::10]]
        print(f"{sum(same)} of {len(same)} files as one process makes them")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
