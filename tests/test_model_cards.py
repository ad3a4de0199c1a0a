"""docs/models: a card tells the weights that ship, and what docs/kodak and docs/cid22 say of them."""

import json
import re
from pathlib import Path

import pytest

from glic_pyg import GLIC

DOCS = Path(__file__).parents[1] / "docs"
CARD = (DOCS / "models" / "glic_nano.md").read_text()
MEASURED = {
    name: json.loads((DOCS / name.lower() / "glic_nano.json").read_text()) for name in ("Kodak", "CID22")
}


def test_the_card_names_the_weights_that_ship():
    identity = GLIC.from_pretrained("glic_nano").identity.hex()
    assert re.findall(r"identity `(\w+)`", CARD) == [identity]
    assert {found["settings"]["identity"] for found in MEASURED.values()} == {identity}


@pytest.mark.parametrize("pictures", MEASURED)
@pytest.mark.parametrize(
    ("row", "key", "digits"),
    [("bpp", "bpp", 3), ("PSNR in dB", "psnr-rgb", 2), ("MS-SSIM", "ms-ssim-rgb", 3)],
)
def test_the_card_has_the_means(row, key, digits, pictures):
    cells = re.search(rf"^\| {pictures}, {row} \| (.+) \|$", CARD, re.MULTILINE)
    assert cells[1].split(", ") == [f"{value:.{digits}f}" for value in MEASURED[pictures]["results"][key]]
