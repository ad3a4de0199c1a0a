import pytest
from PIL import Image

from glic_pyg import GLIC, bitstream
from glic_pyg.evaluation import measure as module
from glic_pyg.evaluation.codecs import Options
from glic_pyg.evaluation.measure import Task, attempt, cached_codec, measure


def test_a_model_is_loaded_once_whatever_the_effort(model_file, tmp_path, monkeypatch):
    Image.linear_gradient("L").convert("RGB").resize((64, 64)).save(tmp_path / "a.png")
    loads, load = [], GLIC.from_pretrained
    monkeypatch.setattr(
        GLIC, "from_pretrained", lambda *args, **how: loads.append(args) or load(*args, **how)
    )
    monkeypatch.setattr(bitstream, "STEPS", (0, 1, 2, 3, 4))
    cached_codec.cache_clear()
    row = measure(Task(str(model_file), None, tmp_path / "a.png", Options(effort=2, lmbda=0.02)))
    assert len(loads) == 1
    assert row.codec.endswith("-effort2")
    codec = cached_codec(str(model_file), Options(effort=2, lmbda=0.02, distortion="ms-ssim"))
    assert codec.name.endswith("-effort2-ms-ssim")
    assert codec.settings["distortion"] == "ms-ssim"
    of_mse = cached_codec(str(model_file), Options(effort=2, lmbda=0.02, distortion="mse"))
    assert "distortion" not in of_mse.settings


@pytest.mark.parametrize("ended", [KeyboardInterrupt(), SystemExit(143)])
def test_what_comes_of_an_interruption_is_no_fault_of_a_picture(monkeypatch, tmp_path, ended):
    def compiled(task):
        raise SystemError("returned a result with an exception set") from ended

    def unlocking(task):
        try:
            raise ended
        finally:
            raise RuntimeError("cannot release un-acquired lock")

    for work in (compiled, unlocking):
        monkeypatch.setattr(module, "measure", work)
        with pytest.raises(type(ended)):
            attempt(Task("jpeg", 50, tmp_path / "a.png"))
