import math

import pytest
import torch

from glic_pyg.build import build_entropy_model
from glic_pyg.entropy import ProbabilityNets, coder, decode_latents, encode_latents, rans, update_tables

GAINS = {"z_gain": 0.5, "z_gain_inverse": 2.25}


@pytest.fixture(scope="module")
def codec(tiny_config):
    torch.manual_seed(0)
    codec = build_entropy_model(tiny_config).eval()
    update_tables(codec, force=True)
    return codec


@pytest.fixture(params=[True, False], ids=["exact", "float"])
def nets(request, codec):
    return ProbabilityNets(codec, exactly=request.param)


@torch.no_grad()
def test_decoded_latents_equal_encoded_ones(codec, nets):
    y = 5 * torch.randn(1, 16, 8, 12)
    strings, y_hat = encode_latents(codec, nets, y, **GAINS)
    assert len(strings) == 5  # two per group, and z
    decoded = decode_latents(codec, nets, strings, (2, 3), z_gain_inverse=2.25)
    assert torch.equal(decoded, y_hat)
    assert (y_hat - y).abs().max() <= 0.5001
    other = decode_latents(codec, nets, strings, (2, 3), z_gain_inverse=1.0)
    assert not torch.equal(other, y_hat)


@torch.no_grad()
@pytest.mark.parametrize("cut", range(5))
def test_a_string_that_is_cut_short_is_noticed_before_the_next_one(codec, nets, cut, monkeypatch):
    y = 5 * torch.randn(1, 16, 16, 12)
    strings, _ = encode_latents(codec, nets, y, **GAINS)
    strings[cut] = strings[cut][:-16]
    taken = []
    decode = rans.decode
    monkeypatch.setattr(rans, "decode", lambda model, s, rows: taken.append(s) or decode(model, s, rows))
    with pytest.raises(
        coder.LatentError,
        match=rf"Expected a string of \d+ symbols \(got {len(strings[cut])} bytes\): cut short",
    ):
        decode_latents(codec, nets, strings, (4, 3), z_gain_inverse=2.25)
    assert taken[-1] == strings[cut]


@torch.no_grad()
def test_floats_give_the_strings_of_compressai(codec):
    """Files of the format's first versions hold them."""
    y = 5 * torch.randn(1, 16, 8, 12)
    strings, y_hat = encode_latents(
        codec, ProbabilityNets(codec, exactly=False), y, z_gain=1.0, z_gain_inverse=1.0
    )
    expected = codec.compress(y)
    assert [[string] for string in strings] == expected["strings"]
    assert torch.equal(y_hat, expected["y_hat"])


@torch.no_grad()
def test_coded_size_is_near_the_estimate(tiny_config):
    codec = build_entropy_model(tiny_config).eval()
    update_tables(codec, force=True)
    for group in codec.y.latent_codec.values():  # leave constants: scale 3, mean 0.25
        last = group.entropy_parameters[-1]
        last.ffn.norm.weight.zero_()
        last.conv.weight.zero_()
        last.conv.bias[:] = torch.tensor([3.0, 0.25]).repeat_interleave(len(last.conv.bias) // 2)
    y = 0.25 + 3 * torch.randn(1, 16, 32, 32)
    bits = sum(-p.double().log2().sum().item() for p in codec(y)["likelihoods"].values())
    strings, _ = encode_latents(
        codec, ProbabilityNets(codec, exactly=True), y, z_gain=1.0, z_gain_inverse=1.0
    )
    assert math.isclose(8 * sum(map(len, strings)), bits, rel_tol=0.02)


@torch.no_grad()
def test_rows_of_the_table_are_compressais(codec):
    """At the table's own scales, between them, below, above, and where there is no number."""
    gaussian = codec.y.latent_codec["y0"].y.gaussian_conditional
    rows = []

    def look(gaussian_, indexes, means):
        rows.append(indexes)
        return means

    class Parameters(torch.nn.Module):
        def forward(self, x):
            return torch.cat([scales, torch.zeros_like(scales)], dim=1)

    table = gaussian.scale_table
    odd = torch.tensor([-1.0, 0.0, 1e9, torch.nan])
    values = torch.cat([table, (table[1:] + table[:-1])[:60] / 2, odd])
    scales = values.view(1, 4, 8, 4)
    nets = ProbabilityNets(codec, exactly=False)
    nets.parameter_nets[0] = Parameters()
    coder._latents(codec, nets, torch.zeros(1, 8, 2, 2), look)
    assert torch.equal(rows[0], gaussian.build_indexes(scales))
