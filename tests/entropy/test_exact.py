import math
from copy import deepcopy
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compressai.layers import CheckerboardMaskedConv2d
from torch import nn

from glic_pyg import GLIC
from glic_pyg.build import build_entropy_model
from glic_pyg.config import ModelConfig
from glic_pyg.entropy import exact as exact_module
from glic_pyg.entropy.context import PointwiseBlock, PointwiseNet
from glic_pyg.entropy.exact import LIMIT, InexactError, _quantise, exact, exact_arithmetic, gelu
from glic_pyg.entropy.exact_kernels import QMAX
from glic_pyg.nn.conv import ConvBlock, GatedFeedForward, LayerNorm2d

CPU = torch.device("cpu")
CONVOLUTIONS = {
    "pointwise": nn.Conv2d(40, 12, 1),
    "without bias": nn.Conv2d(40, 12, 1, bias=False),
    "depthwise": nn.Conv2d(10, 10, 5, padding=2, groups=10),
    "dense": nn.Conv2d(10, 12, 3, stride=2, padding=1),
    "masked": CheckerboardMaskedConv2d(10, 12, 5, padding=2),
}


def by_integers(conv, x):
    """The convolution of the definition: 64-bit integers, one multiplication per step, then the bias."""
    kind = (1,) if conv.kernel_size == (1, 1) else (2, 3) if conv.groups > 1 else (1, 2, 3)
    largest = x.abs().amax(kind, keepdim=True)
    integers = (x * (1 / largest * QMAX)).round().long()
    made = exact(conv)
    weight = made.weight.long()
    patches = F.unfold(integers.double(), conv.kernel_size, padding=conv.padding, stride=conv.stride).long()
    groups = conv.groups
    patches = patches.view(len(x), groups, -1, patches.size(-1))
    sums = torch.einsum("gok,bgkl->bgol", weight.view(groups, -1, patches.size(2)), patches)
    y = sums.view(len(x), len(weight), *made(x).shape[2:]).float()
    y = y * (largest * (1 / QMAX)) * made.step[:, None, None]
    return y if conv.bias is None else y + conv.bias[:, None, None]


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@torch.no_grad()
def test_convolutions_are_of_integers(kind):
    conv = CONVOLUTIONS[kind]
    in_channels = conv.in_channels
    x = torch.randn(2, in_channels, 6, 8, generator=torch.Generator().manual_seed(1))
    y = exact(conv)(x)
    assert torch.equal(y, by_integers(conv, x))
    assert (y - conv(x)).norm() < 0.01 * conv(x).norm()


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@torch.no_grad()
def test_no_sum_leaves_the_integers_that_float32_has(kind):
    conv = CONVOLUTIONS[kind]
    weight = exact(conv).weight
    assert torch.equal(weight, weight.round())
    sums = weight.double().abs().flatten(1).sum(1) * QMAX
    assert (sums < LIMIT).all()
    assert (sums > 0.8 * LIMIT).all()  # and the bits that there are, are used


@pytest.mark.parametrize("spread", [0.01, 1, 100])
@torch.no_grad()
def test_wide_and_uneven_weights_stay_within(spread):
    conv = nn.Conv2d(4000, 3, 1, bias=False)
    conv.weight.copy_((spread * torch.randn(3, 4000)).exp().clamp(1e-30, 1e30)[..., None, None])
    conv.weight[2] = 0
    made = exact(conv)
    assert (made.weight.double().abs().flatten(1).sum(1) * QMAX < LIMIT).all()
    assert made(torch.ones(1, 4000, 1, 1)).isfinite().all()


@pytest.mark.parametrize("kind", ["pointwise", "dense"])
@torch.no_grad()
def test_one_weight_may_outweigh_all_others(kind):
    """Its integer then has more bits than compiled code multiplies."""
    conv = deepcopy(CONVOLUTIONS[kind])
    conv.weight[3] *= 1e-4
    conv.weight[3, 2, -1, -1] = 1
    made = exact(conv)
    assert made.weight.abs().max() > 2**15
    x = torch.randn(2, conv.in_channels, 6, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made(x), by_integers(conv, x))
    block = ConvBlock(12, 12, ratio=1)
    block.conv2.weight.copy_(torch.eye(12)[..., None, None])
    x = torch.randn(1, 12, 6, 8, generator=torch.Generator().manual_seed(1))
    assert (exact(block)(x) - block(x)).norm() < 0.02 * block(x).norm()


@pytest.mark.parametrize("zeros", [(slice(None), slice(None)), (2, slice(None)), (slice(None), 2), (1, 1)])
@torch.no_grad()
def test_weights_of_a_kernel_may_be_zero(zeros):
    """Compiled code leaves them out; the map's sides are those of the whole kernel all the same."""
    conv = deepcopy(CONVOLUTIONS["dense"])
    conv.weight[:, :, *zeros] = 0
    x = torch.randn(2, 10, 6, 7, generator=torch.Generator().manual_seed(1))
    y = exact(conv)(x)
    assert torch.equal(y, by_integers(conv, x))
    assert (y - conv(x)).norm() < 0.01 * conv(x).norm()


@torch.no_grad()
def test_the_order_of_channels_does_not_matter():
    """As another instruction set's sums run in another order. In floats it does."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(600, 20, 1), LayerNorm2d(600)
    order = torch.randperm(600)
    reordered = nn.Conv2d(600, 20, 1)
    reordered.weight.copy_(conv.weight[:, order])
    reordered.bias.copy_(conv.bias)
    x = torch.randn(1, 600, 8, 8)
    assert torch.equal(exact(conv)(x), exact(reordered)(x[:, order]))
    assert not torch.equal(conv(x), reordered(x[:, order]))
    x[:, 0] *= 50
    assert torch.equal(exact(norm)(x)[:, order], exact(norm)(x[:, order]))
    assert not torch.equal(norm(x)[:, order], norm(x[:, order]))


HARD = {
    "zeros": lambda x: 0 * x,
    "huge": lambda x: 1e30 * x,
    "tiny": lambda x: 1e-30 * x,
    "ties of rounding": lambda x: (2 * x).round() / 2,
    "largest is negative": lambda x: -x.abs(),
    "some positions zero": lambda x: x * (x[:, :1] > 0),
}


@pytest.mark.parametrize("over", [1, (2, 3), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("size", [(1, 7, 5, 9), (2, 33, 1, 1), (1, 1, 1, 17)], ids=str)
@pytest.mark.parametrize("change", HARD.values(), ids=HARD)
def test_steps_and_integers(change, size, over):
    """NumPy's, in both layouts, and steps by the norm that torch has for it."""
    x = change(torch.randn(size, generator=torch.Generator().manual_seed(3)))
    for layout in (x, x.contiguous(memory_format=torch.channels_last)):
        before = layout.clone()
        integers, step = _quantise(layout, over, QMAX)
        assert torch.equal(layout, before)
        largest = torch.linalg.vector_norm(x, torch.inf, over, keepdim=True).clamp(min=1e-20).numpy()
        factor = np.float32(1) / largest * np.float32(QMAX)
        assert np.array_equal(integers.numpy(), np.rint(x.numpy() * factor))
        assert np.array_equal(step.numpy(), largest * np.float32(1 / QMAX))
        assert integers.abs().max() <= QMAX


@torch.no_grad()
def test_layer_norm():
    torch.manual_seed(0)
    norm = LayerNorm2d(96)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 + torch.randn(2, 96, 4, 4)
    torch.testing.assert_close(exact(norm)(x), norm(x), atol=5e-3, rtol=0)
    small = 1e-3 * x  # eps counts here
    torch.testing.assert_close(exact(norm)(small), norm(small), atol=5e-3, rtol=0)
    flat = torch.full((1, 96, 1, 1), 2.0)
    torch.testing.assert_close(exact(norm)(flat), norm(flat))


def test_gelu():
    x = torch.linspace(-12, 12, 10001)
    expected = x.double() * (1 + torch.erf(x.double() / math.sqrt(2))) / 2
    assert ((gelu(x) - expected).abs() <= 3e-4 * x.abs()).all()
    assert gelu(torch.tensor([0.0, 1e30, -1e30])).tolist() == [0, pytest.approx(1e30), 0]


@pytest.mark.parametrize(
    "module",
    [
        GatedFeedForward(24, ratio=2),
        GatedFeedForward(24, ratio=2, depthwise=True),
        ConvBlock(24, 24, ratio=2),
        ConvBlock(24, 36, ratio=2),
        build_entropy_model(ModelConfig(hyper_channels=16)).hyper.h_s,
        build_entropy_model(ModelConfig(hyper_channels=16)).y.latent_codec["y0"].entropy_parameters,
    ],
    ids=["feed-forward", "depthwise feed-forward", "block", "adapted block", "h_s", "parameters"],
)
@torch.no_grad()
def test_networks_are_near_the_floating_point_ones(module):
    in_channels = next(m for m in module.modules() if isinstance(m, nn.Conv2d)).in_channels
    x = torch.randn(1, in_channels, 12, 20, generator=torch.Generator().manual_seed(2))
    expected = module(x)
    made = exact(module)
    y = made(x)
    assert y.shape == expected.shape
    assert (y - expected).norm() < 0.02 * expected.norm()
    assert torch.equal(made(x.contiguous(memory_format=torch.channels_last)), y)
    torch.set_num_threads(3)
    try:
        assert torch.equal(made(x), y)
    finally:
        torch.set_num_threads(1)
    assert not made.state_dict()


def test_what_has_no_exact_counterpart():
    with pytest.raises(TypeError, match=r"Expected a module of the entropy model \(got Softmax\)"):
        exact(nn.Softmax())
    with pytest.raises(TypeError, match=r"Expected a module of the entropy model \(got Softmax\)"):
        exact(nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sequential(nn.Softmax())))


@pytest.mark.parametrize(
    ("set_to", "usual"),
    [
        (torch.set_float32_matmul_precision, ("medium", "highest")),
        (partial(setattr, torch.backends, "fp32_precision"), ("bf16", "none")),
    ],
)
def test_fewer_bits_are_not_allowed_within(set_to, usual):
    backends = torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.cuda.matmul
    at_first = [backend.fp32_precision for backend in backends]
    fewer_bits, all_bits = usual
    set_to(fewer_bits)
    try:
        fewer = [backend.fp32_precision for backend in backends]
        assert "bf16" in fewer
        with exact_arithmetic(CPU):
            assert {backend.fp32_precision for backend in backends} <= {"ieee", "none"}
            assert torch.backends.cudnn.enabled != torch.cuda.is_available()
        assert [backend.fp32_precision for backend in backends] == fewer
        assert torch.backends.cudnn.enabled
    finally:
        set_to(all_bits)
        for backend, precision in zip(backends, at_first, strict=True):
            backend.fp32_precision = precision
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("name", ["NVIDIA_TF32_OVERRIDE", "CUBLAS_EMULATE_SINGLE_PRECISION"])
def test_what_overrules_torch_is_refused_on_a_gpu(name, monkeypatch):
    """Whatever has been set in torch; on the CPU they mean nothing."""
    monkeypatch.setenv(name, "1")
    with exact_arithmetic(CPU):
        pass
    message = rf"^Expected {name} to be unset, for exact sums on the GPU \(got 1\)$"
    with pytest.raises(InexactError, match=message), exact_arithmetic(torch.device("cuda")):
        pass
    monkeypatch.setenv(name, "0")  # fewer bits never
    with exact_arithmetic(torch.device("cuda")):
        pass


@pytest.mark.parametrize("kind", ["pointwise", "dense", "masked"])
@torch.no_grad()
def test_convolutions_of_a_batch_without_onednn_are_of_integers(kind, monkeypatch):
    """Which NNPACK would take, and transform: sums would leave the integers."""
    conv = CONVOLUTIONS[kind]
    x = torch.randn(16, conv.in_channels, 12, 12, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    with exact_arithmetic(CPU):
        assert torch.equal(exact(conv)(x), by_integers(conv, x))
    assert torch._C._get_nnpack_enabled()


@torch.no_grad()
def test_it_costs_next_to_nothing_in_bits():
    """A trained model, a picture with edges and texture, large enough that single roundings even out."""
    from skimage.data import astronaut

    model = GLIC.from_pretrained("glic_nano")
    x = torch.from_numpy(astronaut()).movedim(-1, 0)[None] / 255
    y = model.analyse(x)
    sizes = {False: 0, True: 0}
    for quality, exactly in product((2, 5, 8), sizes):
        strings, _ = model.code(y, quality, exact=exactly)
        sizes[exactly] += sum(map(len, strings))
    assert sizes[True] == pytest.approx(sizes[False], rel=0.005)


@pytest.mark.parametrize("change", HARD.values(), ids=HARD)
@torch.no_grad()
def test_every_device_has_the_same_bits(change, tiny_config, device):
    torch.manual_seed(0)
    channels = tiny_config.hyper_channels
    x = change(torch.randn(1, channels, 3, 5))
    networks = [
        build_entropy_model(tiny_config).hyper.h_s,
        nn.Sequential(ConvBlock(channels, 12, ratio=2), nn.Conv2d(12, 10, 3, stride=2, padding=1)),
        LayerNorm2d(channels),
    ]
    for network in networks:
        made = exact(network)
        with exact_arithmetic(CPU):
            expected = made(x)
            assert torch.equal(made.to(device)(x.to(device)).cpu(), expected)


NETWORKS = {
    "a convolution": lambda: nn.Conv2d(13, 21, 1),
    "without bias": lambda: nn.Conv2d(13, 40, 1, bias=False),
    "a dense one": lambda: nn.Conv2d(13, 21, 3, stride=2, padding=1),
    "a masked one": lambda: CheckerboardMaskedConv2d(13, 21, 5, padding=2),
    "a block": lambda: ConvBlock(13, 21, ratio=2),
    "a block without adaptor": lambda: ConvBlock(13, 13, ratio=1),
    "positions": lambda: PointwiseNet(
        PointwiseBlock(13, 24, ratio=1), nn.Identity(), PointwiseBlock(24, 7, ratio=3)
    ),
}


@pytest.mark.parametrize("change", HARD.values(), ids=HARD)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@torch.no_grad()
def test_compiled_code_has_the_bits_of_torch(make, change, monkeypatch):
    torch.manual_seed(0)
    network = exact(make())
    x = change(torch.randn(2, 13, 9, 11))
    assert network.narrow
    found = network(x)
    monkeypatch.setattr(exact_module, "compiled_for", lambda module, x: False)
    monkeypatch.setattr(exact_module, "POSITIONS_AT_ONCE", 50)
    for name in ("linear", "feed_forward", "convolution", "conv_block"):
        monkeypatch.setattr(exact_module.exact_kernels, name, None)
    expected = network(x)
    assert torch.equal(found.contiguous().view(torch.int32), expected.contiguous().view(torch.int32))
