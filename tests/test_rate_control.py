import pytest

from glic_pyg.bitstream import decode, encode
from glic_pyg.codec import QualityError
from glic_pyg.container import unpack
from glic_pyg.metrics import bpp, psnr
from glic_pyg.rate_control import encode_to_bpp, encode_to_psnr


@pytest.fixture
def x(photo):
    return photo(128, 192)


def test_wanted_size_is_met(variable_model, x):
    least, most = (bpp(encode(variable_model, x, quality), x) for quality in (1, 4))
    target = (least + most) / 2
    data = encode_to_bpp(variable_model, x, target)
    assert bpp(data, x) == pytest.approx(target, rel=0.02)
    assert 256 < unpack(data).quality < 1024


def test_wanted_psnr_is_the_nearest_there_is(variable_model, x):
    psnrs = [psnr(x, decode(variable_model, encode(variable_model, x, quality))) for quality in (1, 2, 3, 4)]
    data = encode_to_psnr(variable_model, x, (min(psnrs[0], psnrs[-1]) + max(psnrs[0], psnrs[-1])) / 2)
    assert min(psnrs) - 0.1 <= psnr(x, decode(variable_model, data)) <= max(psnrs) + 0.1


@pytest.fixture
def calls(variable_model, monkeypatch):
    """How often each transform runs."""
    count = dict.fromkeys(("g_a", "g_s"), 0)

    def counted(name, forward):
        def call(*arguments):
            count[name] += 1
            return forward(*arguments)

        return call

    for name in count:
        module = getattr(variable_model, name)
        monkeypatch.setattr(module, "forward", counted(name, module.forward))
    return count


@pytest.mark.parametrize("max_memory", [None, 2**31])
def test_a_search_analyses_once_and_never_decodes(variable_model, x, calls, monkeypatch, max_memory):
    low, high = (encode(variable_model, x, quality) for quality in (1, 4))
    targets = [
        sum(map(f, (low, high))) / 2
        for f in (lambda d: bpp(d, x), lambda d: psnr(x, decode(variable_model, d)))
    ]
    monkeypatch.setattr(type(variable_model), "decode", None)
    calls.update(g_a=0, g_s=0)
    data = encode_to_bpp(variable_model, x, targets[0], max_memory=max_memory)
    assert calls == {"g_a": 1, "g_s": 0}
    encode_to_psnr(variable_model, x, targets[1], max_memory=max_memory)
    assert calls["g_a"] == 2
    assert calls["g_s"] >= 2  # a picture per try
    assert data == encode(variable_model, x, unpack(data).quality / 256)


def test_what_no_quality_gives_is_refused(variable_model, tiny_model, x):
    with pytest.raises(QualityError, match=r"Expected a target in .* bpp for this picture \(got 100\)"):
        encode_to_bpp(variable_model, x, 100)
    with pytest.raises(QualityError, match=r"Expected a target in .* dB for this picture \(got 99\)"):
        encode_to_psnr(variable_model, x, 99)
    with pytest.raises(QualityError, match=r"Expected a model of several qualities .* 1 bpp \(got one\)"):
        encode_to_bpp(tiny_model, x, 1)
