"""The layers against the formulas of the official repository and the paper, in plain tensor code."""

from dataclasses import replace

import pytest
import torch

from onebit_distill.errors import DistillError
from onebit_distill.model.linear import (
    SIGN_GRADIENTS,
    BitNetLinear,
    OneBitLinear,
    SignChain,
    SignOptions,
    chain_rank,
    fake_quantise,
    sign,
)

OFFICIAL = SignOptions(layernorm=True, gradient="official", zero_is_zero=True)
FOLDED = pytest.mark.parametrize("folded", [True, False], ids=["folded", "apart"])


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normed(y):
    """nn.LayerNorm(elementwise_affine=False): biased variance, eps 1e-5"""
    centred = y - y.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def onebit(bias=True, options=OFFICIAL):
    layer = OneBitLinear(24, 40, bias, options).double()
    with torch.no_grad():
        layer.weight.copy_(seeded(40, 24, seed=1))
        layer.weight[3, 5] = 0.0
        layer.input_factor.copy_(seeded(24, seed=2))
        layer.weight_scale.copy_(seeded(40, seed=3))
        if bias:
            layer.bias.copy_(seeded(40, seed=4))
    return layer


@FOLDED
def test_onebit_forward_is_the_official_formula(folded):
    layer, x = onebit(options=replace(OFFICIAL, fold_scales=folded)), seeded(2, 7, 24, seed=5)
    y = (x * layer.input_factor) @ torch.sign(layer.weight).T * layer.weight_scale
    torch.testing.assert_close(layer(x), normed(y) + layer.bias, rtol=0, atol=1e-6)
    plain = onebit(bias=False, options=replace(OFFICIAL, layernorm=False, fold_scales=folded))
    torch.testing.assert_close(plain(x), y, rtol=0, atol=1e-6)


@FOLDED
def test_onebit_gradients_are_the_official_ones(folded):
    layer, x = onebit(options=replace(OFFICIAL, fold_scales=folded)), seeded(2, 7, 24, seed=5).requires_grad_()
    target = seeded(2, 7, 40, seed=6)
    (layer(x) - target).square().sum().backward()

    # By hand, backwards: bias, LayerNorm, h, product, g; then SignSTE: grad * (1.001 - tanh(w)^2).
    w, g, h = layer.weight.detach(), layer.input_factor.detach(), layer.weight_scale.detach()
    signs, u = torch.sign(w), x.detach() * g
    product = u @ signs.T
    y = product * h
    dz = 2 * (normed(y) + layer.bias.detach() - target)
    std = (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    dy = (dz - dz.mean(-1, keepdim=True) - normed(y) * (dz * normed(y)).mean(-1, keepdim=True)) / std
    dp = dy * h
    expected = {
        "bias": dz.sum((0, 1)),
        "weight_scale": (dy * product).sum((0, 1)),
        "weight": torch.einsum("bto,bti->oi", dp, u) * (1.001 - torch.tanh(w) ** 2),
        "input_factor": ((dp @ signs) * x.detach()).sum((0, 1)),
    }
    for name, wanted in expected.items():
        torch.testing.assert_close(getattr(layer, name).grad, wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad, (dp @ signs) * g, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SIGN_GRADIENTS)
def test_each_sign_gradient(name):
    w = torch.tensor([-2.0, -0.5, 0.0, 0.01, 0.9, 1.5], dtype=torch.float64, requires_grad=True)
    sign(w, name).sum().backward()
    t = w.detach()
    expected = {
        "official": 1.001 - torch.tanh(t) ** 2,
        "official_1.01": 1.01 - torch.tanh(t) ** 2,
        "identity": torch.ones(6, dtype=torch.float64),
        "clipped": torch.tensor([0.0, 1, 1, 1, 1, 0], dtype=torch.float64),
        "polynomial": torch.tensor([0.0, 1, 2, 1.98, 0.2, 0], dtype=torch.float64),
    }
    torch.testing.assert_close(w.grad, expected[name], rtol=0, atol=1e-12)


def test_sign_of_zero():
    w = torch.tensor([-0.0, 0.0, -1e-30, 1e-30])
    assert sign(w).tolist() == [1, 1, -1, 1]
    assert sign(w, zero_is_zero=True).tolist() == [0, 0, -1, 1]


def test_bitnet_is_equation_2():
    layer = BitNetLinear(24, 40).double()
    x = seeded(3, 24, seed=7)
    with torch.no_grad():
        layer.weight.copy_(seeded(40, 24, seed=8) + 0.3)
    centred = layer.weight - layer.weight.mean()
    expected = centred.abs().mean() * normed(x) @ torch.sign(centred).T
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["onebit", "chain"])
@pytest.mark.parametrize("layernorm", [False, True])
@FOLDED
def test_a_column_is_added_before_the_layernorm(kind, layernorm, folded):
    layers = []
    for column in (False, True):
        options = SignOptions(layernorm, fold_scales=folded, column=column)
        made = SignChain(24, 40, 16, True, options) if kind == "chain" else OneBitLinear(24, 40, True, options)
        layers.append(made.double())
    plain, layer = layers
    layer.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for index, parameter in enumerate((layer.bias, layer.column_out, layer.column_in)):
            parameter.copy_(seeded(*parameter.shape, seed=30 + index))
    x = seeded(2, 3, 24, seed=9)
    product = plain._multiply(plain._multiply(x, 0), 1) if kind == "chain" else plain._multiply(x)
    product = product + (x @ layer.column_in)[..., None] * layer.column_out
    expected = (normed(product) if layernorm else product) + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer(x[0, 0]), expected[0, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("gradient", SIGN_GRADIENTS)
@pytest.mark.parametrize("zero_is_zero", [False, True])
@pytest.mark.parametrize("column", [False, True])
def test_folded_and_apart_have_the_same_gradients(gradient, zero_is_zero, column):
    found = []
    for folded in (True, False):
        options = SignOptions(False, gradient, zero_is_zero, folded, column)
        layers = [OneBitLinear(24, 40, options=options).double(), SignChain(40, 24, rank=16, options=options).double()]
        with torch.no_grad():
            for index, parameter in enumerate(parameter for layer in layers for parameter in layer.parameters()):
                parameter.copy_(seeded(*parameter.shape, seed=20 + index))
        x = seeded(3, 24, seed=9).requires_grad_()
        (layers[1](layers[0](x)) * seeded(3, 24, seed=10)).sum().backward()
        found.append([x.grad] + [parameter.grad for layer in layers for parameter in layer.parameters()])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


@FOLDED
def test_chain_is_two_sign_matrices(folded):
    layer = SignChain(24, 40, rank=16, options=SignOptions(layernorm=False, fold_scales=folded)).double()
    with torch.no_grad():
        for index, parameter in enumerate(layer.parameters()):
            parameter.copy_(seeded(*parameter.shape, seed=20 + index))
    x = seeded(3, 24, seed=9)
    inner = (x * layer.input_factor) @ torch.sign(layer.weight1).T * layer.mid_scale
    expected = inner @ torch.sign(layer.weight2).T * layer.weight_scale
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)


def test_chain_rank_keeps_to_the_bits():
    for rows, cols in ((576, 576), (1536, 576), (192, 576)):
        for bits in (0.5, 1.0, 2.0):
            rank = chain_rank(cols, rows, bits)
            assert rank % 8 == 0 and rank * (rows + cols) <= bits * rows * cols < (rank + 8) * (rows + cols)
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        chain_rank(8, 8, 0)


def test_bfloat16_and_autocast_multiply_in_bfloat16():
    layer, x = onebit().float(), seeded(5, 24, seed=5).float()
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)
    assert rounded.dtype == torch.bfloat16 and layer(x).dtype == torch.float32
    assert 0 < float((rounded.float() - exact).detach().abs().max()) < 0.1
    rounded.float().square().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("group", [None, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_rounding_uses_its_levels_and_improves_with_bits(group, symmetric):
    w = seeded(6, 24).float()
    errors = []
    for bits in range(1, 9):
        q = fake_quantise(w, bits, group, symmetric)
        assert max(len(row.unique()) for row in q.unflatten(-1, (-1, group or 24)).flatten(0, 1)) <= 2**bits
        errors.append(float((q - w).norm()))
    assert errors[-1] < 0.02 * float(w.norm()) and errors[0] > errors[3] > errors[7]
    torch.testing.assert_close(fake_quantise(q, 8, group, symmetric), q)


def test_bad_options():
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        SignOptions(gradient="steep")
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        SignChain(24, 40, rank=12)
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        BitNetLinear(24, 40, options=SignOptions(column=True))
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        fake_quantise(torch.zeros(2, 10), 4, group=4)
