"""Decode in a browser what Python encoded: the same latents, which pixels, how many seconds?

    python lab/browser.py -d DIR --runtime node_modules/onnxruntime-web

Every picture is encoded by Python, the first at quality 1, the next at 2 and so on, and decoded by Python and
by the page of `glic viewer` in Chromium. Seconds are those that the page shows. CPU seconds, of the page's
process, are what they would be on a free core; MB is the most that this process has held so far. Pictures
larger than a tile are compared with Python's in the same tiles.
"""

from __future__ import annotations

import base64
import functools
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from pictures import pictures_below

from glic_pyg import GLIC, bitstream
from glic_pyg.cli import flags
from glic_pyg.cli.main import run
from glic_pyg.cli.printing import aligned, say
from glic_pyg.cli.viewer import RUNTIME
from glic_pyg.container import QUALITY_STEPS, unpack
from glic_pyg.errors import UsageError, require
from glic_pyg.export import TILING
from glic_pyg.image import read_image, to_8bit
from glic_pyg.ledger import write_folder
from glic_pyg.viewer import viewer_files

MEMORY = 4 << 30
"""Bytes that Python may hold to encode; what a large picture takes as a whole is more."""
READY = (
    "async () => { while (!globalThis.glic) await new Promise((r) => setTimeout(r, 10)); await glic.loaded; }"
)
FOUND = """async () => {
  await glic.state.work;
  const error = document.getElementById("error");
  if (!error.hidden) throw new Error(error.textContent);
  const { raw, checksum, seconds } = glic.state.first;
  let pixels = "";
  for (let i = 0; i < raw.length; i += 32768) pixels += String.fromCharCode(...raw.subarray(i, i + 32768));
  return { pixels: btoa(pixels), checksum, seconds };
}"""


def main() -> int:
    """Parse the command line, decode, print a line per picture and one of all."""
    parser = flags.Parser(__doc__)
    flags.add_dataset(parser)
    flags.add_model(parser)
    parser.add_argument("--runtime", type=Path, default=RUNTIME, metavar="FOLDER", help="see glic viewer")
    args = parser.parse_args()
    pictures = [path for folder in args.dataset for path in pictures_below(folder)]
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)
    head = ["picture", "quality", "latents", "seconds", "CPU seconds", "MB", "largest", "above 2"]
    rows = []
    with _page(model, args.runtime) as decode:
        for i, path in enumerate(pictures):
            several = model.config.qualities > 1
            row = _compare(model, path, 1 + i % model.config.qualities if several else None, decode)
            say("  ".join(row))
            rows.append(row)
    print(aligned([head, *rows]))
    return 0


def _compare(model: GLIC, path: Path, quality: float | None, decode: Any) -> list[str]:
    data = bitstream.encode(model, read_image(path), quality, max_memory=MEMORY)
    stream = unpack(data)
    y_hat = model.decode(
        stream.strings, (stream.height, stream.width), stream.quality / QUALITY_STEPS if quality else None
    )
    x = to_8bit(model.synthesise(y_hat, (stream.height, stream.width), TILING))
    found = decode(data)
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
    pixels = pixels.reshape(stream.height, stream.width, 4)[..., :3]
    difference = np.abs(pixels.astype(int) - x[0].permute(1, 2, 0).numpy())
    return [
        path.name,
        "" if quality is None else f"{quality:g}",
        "same" if found["checksum"] == stream.latent_checksum else "OTHER",
        f"{found['seconds']:.2f}",
        f"{found['cpu']:.2f}",
        f"{found['megabytes']}",
        f"{difference.max()} of 255",
        f"{(difference > 2).sum()} of {difference.size}",
    ]


@contextmanager
def _page(model: GLIC, runtime: Path) -> Iterator[Any]:
    """Open the page: the bytes of a file -> what it shows."""
    with require("playwright", extra="dev", purpose="browsers"):
        from playwright.sync_api import sync_playwright
    chromium = shutil.which("chromium")
    if chromium is None:
        raise UsageError("Expected a command chromium (got none)")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        write_folder(Path(folder), viewer_files(model, runtime), force=False)
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.set_default_timeout(0)
        tab.goto(f"http://127.0.0.1:{server.server_port}/")
        tab.evaluate(READY)
        session = browser.new_browser_cdp_session()

        def spent() -> tuple[float, int]:
            processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
            pages = [process for process in processes if process["type"] == "renderer"]
            return sum(page["cpuTime"] for page in pages), max(_most_megabytes(page["id"]) for page in pages)

        def decode(data: bytes) -> dict[str, Any]:
            before, _ = spent()
            tab.set_input_files("#file", {"name": "a.glic", "mimeType": "", "buffer": data})
            tab.evaluate("glic.state.work")
            after, megabytes = spent()
            return {**tab.evaluate(FOUND), "cpu": after - before, "megabytes": megabytes}

        yield decode
        browser.close()
        server.shutdown()
        server.server_close()


def _most_megabytes(process: int) -> int:
    """Return what a process of Linux has held in memory at most."""
    (line,) = (t for t in Path(f"/proc/{process}/status").read_text().splitlines() if "VmHWM" in t)
    return int(line.split()[1]) >> 10


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    run(main)
