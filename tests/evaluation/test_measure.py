from PIL import Image

from glic_pyg import GLIC, bitstream
from glic_pyg.evaluation.measure import Task, cached_codec, measure


def test_a_model_is_loaded_once_whatever_the_effort(model_file, tmp_path, monkeypatch):
    Image.linear_gradient("L").convert("RGB").resize((64, 64)).save(tmp_path / "a.png")
    loads, load = [], GLIC.from_pretrained
    monkeypatch.setattr(
        GLIC, "from_pretrained", lambda *args, **how: loads.append(args) or load(*args, **how)
    )
    monkeypatch.setattr(bitstream, "STEPS", (0, 1, 2, 3, 4))
    cached_codec.cache_clear()
    row = measure(Task(str(model_file), None, tmp_path / "a.png", effort=2, lmbda=0.02))
    assert len(loads) == 1
    assert row.codec.endswith("-effort2")
