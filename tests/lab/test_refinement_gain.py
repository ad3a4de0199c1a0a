import json

from PIL import Image


def test_the_gains_are_drawn_and_written(rig, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.radial_gradient("L").convert("RGB").resize((80, 64)).save(tmp_path / "photos" / "a.png")
    target = tmp_path / "gain.svg"
    status, out, err = rig(
        "refinement_gain", "-d", tmp_path / "photos", "-o", target,
        "--side", 64, "--quality", 2.5, "--effort", 1,
    )  # fmt: skip
    assert status == 0, err
    assert "<svg" in target.read_text()
    gains = json.loads(target.with_suffix(".json").read_text())["gains"]["2.5"]["1"]["a.png"]
    assert gains[0] == [0, 0]
    assert [gain for _, gain in gains] == sorted({gain for _, gain in gains})
    assert {step for step, _ in gains} <= {0, 10, 20, 25}
    assert f"effort 1: {gains[-1][1]:.2%}" in out
