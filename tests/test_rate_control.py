import pytest
import torch

from glic_pyg import rate_control
from glic_pyg.bitstream import decode, encode
from glic_pyg.codec import QualityError
from glic_pyg.container import unpack
from glic_pyg.metrics import bpp, psnr
from glic_pyg.rate_control import encode_to_bpp, encode_to_psnr

SHAPE = (64, 128)


@pytest.fixture
def latents(variable_model, photo):
    return variable_model.analyse(photo(*SHAPE))


@pytest.fixture
def calls(variable_model, latents, monkeypatch):
    """How often each transform runs; g_a gives the latents, whatever the picture."""
    count = dict.fromkeys(("g_a", "g_s"), 0)
    restore = variable_model.g_s.forward

    def counted(name, forward):
        def call(*arguments):
            count[name] += 1
            return forward(*arguments)

        return call

    monkeypatch.setattr(variable_model.g_a, "forward", counted("g_a", lambda _: latents))
    monkeypatch.setattr(variable_model.g_s, "forward", counted("g_s", restore))
    return count


@pytest.fixture
def x(variable_model, latents, calls):
    """What the decoder makes of the latents: as with trained weights, its PSNR grows with quality."""
    x = variable_model.synthesise(latents, SHAPE)
    calls.update(g_s=0)
    return x


@pytest.fixture
def targets(variable_model, x):
    """Bits per pixel and dB, in the middle of what the qualities give."""
    ends = [encode(variable_model, x, quality) for quality in (1, 4)]
    return sum(bpp(data, x) for data in ends) / 2, sum(psnr(x, decode(variable_model, d)) for d in ends) / 2


def test_wanted_size_is_met_and_never_passed(variable_model, x, targets):
    data = encode_to_bpp(variable_model, x, targets[0])
    assert 0.99 * targets[0] <= bpp(data, x) <= targets[0]
    assert 256 < unpack(data).quality < 1024


def test_wanted_psnr_is_reached_and_hardly_passed(variable_model, x, targets):
    data = encode_to_psnr(variable_model, x, targets[1])
    assert targets[1] <= psnr(x, decode(variable_model, data)) <= targets[1] + 0.1
    assert 256 < unpack(data).quality < 1024


@pytest.mark.parametrize("max_memory", [None, 2**31])
def test_a_search_analyses_once_and_never_decodes(variable_model, x, targets, calls, monkeypatch, max_memory):
    monkeypatch.setattr(type(variable_model), "decode", None)
    calls.update(g_a=0, g_s=0)
    data = encode_to_bpp(variable_model, x, targets[0], max_memory=max_memory)
    assert calls == {"g_a": 1, "g_s": 0}
    encode_to_psnr(variable_model, x, targets[1], max_memory=max_memory)
    assert calls["g_a"] == 2
    assert calls["g_s"] >= 2  # a picture per try
    assert data == encode(variable_model, x, unpack(data).quality / 256)


@pytest.fixture
def codings(monkeypatch):
    """The latents that were coded, one by one."""
    tried, code = [], rate_control.encode_latents

    def counted(model, y, *arguments):
        tried.append(y)
        return code(model, y, *arguments)

    monkeypatch.setattr(rate_control, "encode_latents", counted)
    return tried


@pytest.mark.parametrize(("index", "encode_to"), [(0, encode_to_bpp), (1, encode_to_psnr)])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_a_search_takes_few_tries(variable_model, x, codings, index, encode_to, share):
    """Halving the range would take ten."""
    ends = [encode(variable_model, x, quality) for quality in (1, 4)]
    least, most = ((bpp(data, x), psnr(x, decode(variable_model, data)))[index] for data in ends)
    encode_to(variable_model, x, least + share * (most - least))
    assert 3 <= len(codings) <= 8


def test_the_second_search_begins_where_the_first_ended(
    variable_model, latents, x, targets, refining_to, codings
):
    refining_to(latents)
    encode_to_bpp(variable_model, x, targets[0], effort=1)
    of_refined = [y for y in codings if y is latents]
    assert 2 <= len(of_refined) <= 5


@pytest.fixture
def refining_to(variable_model, latents, monkeypatch):
    """Let g_a give latents that are off, and refining others: a function that takes the latter."""
    generator = torch.Generator().manual_seed(0)
    off = latents + torch.rand(latents.shape, generator=generator) - 0.5
    monkeypatch.setattr(variable_model.g_a, "forward", lambda _: off)
    qualities = []

    def set_refined(refined):
        def refine(model, x, y, quality, **options):
            assert torch.equal(y, off)
            qualities.append(quality)
            return refined

        monkeypatch.setattr(rate_control, "refine", refine)
        return qualities

    return set_refined


def test_what_refining_saves_betters_the_picture(variable_model, latents, x, targets, refining_to):
    qualities = refining_to(latents)
    before, after = (encode_to_bpp(variable_model, x, targets[0], effort=effort) for effort in (0, 1))
    assert 0.99 * targets[0] <= bpp(after, x) <= targets[0]
    assert psnr(x, decode(variable_model, after)) > psnr(x, decode(variable_model, before)) + 1
    assert qualities == [unpack(before).quality / 256] != [unpack(after).quality / 256]


def test_what_refining_betters_saves_bits(variable_model, latents, x, refining_to):
    qualities = refining_to(latents)
    target = (
        sum(psnr(x, decode(variable_model, encode(variable_model, x, quality))) for quality in (1, 4)) / 2
    )
    before, after = (encode_to_psnr(variable_model, x, target, effort=effort) for effort in (0, 1))
    assert len(after) < len(before)
    assert target <= psnr(x, decode(variable_model, after))
    assert qualities == [unpack(before).quality / 256]
    assert unpack(after).quality < unpack(before).quality


@pytest.mark.parametrize("wrong", [0, 50])
def test_refining_in_vain_changes_nothing(variable_model, latents, x, targets, refining_to, wrong):
    """Files of such latents are small and poor, or too large at every quality."""
    refining_to(wrong * latents)
    plain, tried = (encode_to_bpp(variable_model, x, targets[0], effort=effort) for effort in (0, 1))
    assert tried == plain


def test_refining_ends_when_told_and_the_file_is_as_good(variable_model, x, targets):
    told = []
    before = encode_to_bpp(variable_model, x, targets[0])
    after = encode_to_bpp(
        variable_model, x, targets[0], effort=1, watch=lambda *now: told.append(now) or len(told) == 10
    )
    assert len(told) == 10  # once
    assert bpp(after, x) <= targets[0]
    assert psnr(x, decode(variable_model, after)) >= psnr(x, decode(variable_model, before))


def test_refining_within_a_psnr_makes_no_larger_file(variable_model, x, targets):
    before = encode_to_psnr(variable_model, x, targets[1])
    after = encode_to_psnr(variable_model, x, targets[1], effort=1, watch=lambda done, *_: done == 10)
    assert len(after) <= len(before)
    assert psnr(x, decode(variable_model, after)) >= targets[1]


def test_what_no_quality_gives_is_refused(variable_model, tiny_model, x):
    with pytest.raises(QualityError, match=r"Expected a target in .* bpp for this picture \(got 100\)"):
        encode_to_bpp(variable_model, x, 100)
    with pytest.raises(QualityError, match=r"Expected a target in .* dB for this picture \(got 99\)"):
        encode_to_psnr(variable_model, x, 99)
    with pytest.raises(QualityError, match=r"Expected a model of several qualities .* 1 bpp \(got one\)"):
        encode_to_bpp(tiny_model, x, 1)


@pytest.mark.parametrize("encode_to", [encode_to_bpp, encode_to_psnr])
def test_the_ends_that_are_told_can_be_had(variable_model, x, encode_to):
    with pytest.raises(QualityError) as refused:
        encode_to(variable_model, x, 0.01)
    for end in str(refused.value).split()[4].split(".."):
        encode_to(variable_model, x, float(end))
