"""What is computed by parts against the plain way: values and gradients."""

import pytest
import torch
from test_linear import seeded
from torch.nn import functional as F

from onebit_distill.model import causal, fused
from onebit_distill.model.linear import SIGN_GRADIENTS, OneBitLinear, SignChain, SignOptions, fold_signs, gated_product
from onebit_distill.model.norm import LayerNorm, RMSNorm, branch
from onebit_distill.model.rope import rotate
from onebit_distill.training.losses import hidden_loss


@pytest.fixture(autouse=True, params=[None, False], ids=["compiled", "plain"])
def all_large(monkeypatch, request):
    monkeypatch.setattr(fused, "LEAST_NUMBERS", 12 * 24)
    monkeypatch.setattr(fused, "_usable", request.param)


def backward(function, *inputs):
    """Outputs of a function, and the gradients of its inputs for outputs weighted by fixed random numbers."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = function(*inputs)
    sum((out.double() * seeded(out.numel(), seed=50 + i).view(out.shape)).sum() for i, out in enumerate(outputs)).backward()
    return [*(out.detach() for out in outputs), *(x.grad for x in inputs)]


def close(first, second, tolerance):
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.detach().abs().max()))


@pytest.mark.parametrize("tokens", [6, 10, 11, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_with_its_branch(tokens, dtype):
    x, weight = seeded(2, tokens, 24).to(dtype), seeded(24, seed=1).float()

    def by_part(x, weight):
        assert fused.is_large(x)
        return fused.normed_branch(x, weight, 1e-5, x.dtype)

    def plain(x, weight):
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)
        return x, normed.to(x.dtype) * weight.to(x.dtype)

    close(backward(by_part, x, weight), backward(plain, x, weight), 1e-5 if dtype is torch.float32 else 2e-2)


def test_branch_takes_the_plain_way_for_few_tokens_and_other_norms():
    x = seeded(1, 5, 24).float()
    norm = RMSNorm(24, 1e-5)
    assert branch(norm, x)[0] is x and torch.equal(branch(norm, x)[1], norm(x))
    many = seeded(2, 6, 24).float()
    assert branch(norm, many)[0] is not many
    torch.testing.assert_close(branch(norm, many)[1], norm(many))
    other = LayerNorm(24, 1e-5, True)
    assert branch(other, many)[0] is many
    with torch.autocast("cpu", torch.bfloat16):
        made = branch(norm, many)[1]
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made, norm(many).bfloat16())


@pytest.mark.parametrize("tokens", [6, 10, 11, 33])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gated_silu(tokens, dtype):
    gate, up = (seeded(2, tokens, 24, seed=seed).to(dtype) for seed in (3, 4))
    plain = backward(lambda gate, up: [F.silu(gate) * up], gate, up)
    close(backward(lambda gate, up: [fused.gated_silu(gate, up)], gate, up), plain, 1e-9 if dtype is torch.float64 else 1e-2)


def test_compiled_functions_round_where_they_are_written_to():
    x, y, weight = (seeded(*shape, seed=7).bfloat16() for shape in ((40, 24), (40, 24), (24,)))
    x4, angles = x.view(2, 10, 2, 24), seeded(10, 1, 12, seed=1)
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    cases = [(fused._norm, (x, weight, 1e-5, torch.bfloat16)), (fused.gated, (x, y)), (fused._turn, (x4, cos, sin))]
    for function, inputs in cases:
        made, plain = function(*inputs), function.plain(*inputs)
        made, plain = (out[0] if isinstance(out, tuple) else out for out in (made, plain))
        # but for an exponential or a sum that another order of additions takes over an edge
        assert float((made != plain).float().mean()) < 0.01, function.__name__


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("column", [False, True])
def test_a_gate_with_its_product(folded, column):
    layer = OneBitLinear(24, 40, True, SignOptions(False, column=column)).double()
    with torch.no_grad():
        for index, parameter in enumerate(layer.parameters()):
            parameter.copy_(seeded(*parameter.shape, seed=20 + index))
    gate, up = (seeded(2, 11, 24, seed=seed) for seed in (3, 4))
    plain = backward(lambda gate, up: [layer(F.silu(gate) * up)], gate, up)
    expected = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    folds = fold_signs(layer) if folded else []
    close(backward(lambda gate, up: [gated_product(gate, up, layer)], gate, up), plain, 1e-9)
    for fold in folds:
        fold.finish()
    close([p.grad for p in layer.parameters()], expected, 1e-9)


@pytest.mark.parametrize("dims", [16, 8])
def test_rotated(dims):
    x, angles = seeded(3, 7, 2, 16), seeded(7, 1, dims // 2, seed=1)
    cos, sin = angles.cos(), angles.sin()
    plain = backward(lambda x: [rotate(x.transpose(1, 2), cos[:, 0], sin[:, 0]).transpose(1, 2)], x)
    close(backward(lambda x: [fused.rotated(x, cos, sin)], x), plain, 1e-12)


@pytest.mark.parametrize("tokens", [3, 4, 5, 13])
@pytest.mark.parametrize("kv_heads", [6, 2])
def test_causal_attention(tokens, kv_heads, monkeypatch):
    monkeypatch.setattr(causal, "_QUERIES", 4)
    q, *kv = (seeded(3, heads, tokens, 16, seed=heads + i) for i, heads in enumerate((6, kv_heads, kv_heads)))

    def plain(q, k, v):
        return [F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)]

    close(backward(lambda q, k, v: [causal.causal_attention(q, k, v)], q, *kv), backward(plain, q, *kv), 1e-9)


@pytest.mark.parametrize("with_last", [True, False])
def test_hidden_loss(with_last):
    mine = [seeded(2, 11, 24, seed=i).float() for i in range(3)]
    theirs = [seeded(2, 11, 24, seed=10 + i).bfloat16() for i in range(3)]
    mine[0][0, 3] = 1e-3 * mine[0][0, 3]

    def plain(*states):
        # too few at once for the fused way
        rows = [[state[i : i + 1, j : j + 1] for state in states] for i in range(2) for j in range(11)]
        teacher = [[state[i : i + 1, j : j + 1] for state in theirs] for i in range(2) for j in range(11)]
        return [sum(hidden_loss(s, t, with_last) for s, t in zip(rows, teacher, strict=True)) / 22]

    def by_part(*states):
        assert fused.is_large(states[0])
        return [hidden_loss(list(states), theirs, with_last)]

    used = mine if with_last else mine[:2]
    last = [] if with_last else mine[2:]
    first = backward(lambda *states: by_part(*states, *last), *used)
    close(first, backward(lambda *states: plain(*states, *last), *used), 1e-5)


def layers(gradient, zero_is_zero, rows=40, column=False):
    options = SignOptions(False, gradient, zero_is_zero, column=column)
    made = [OneBitLinear(24, rows, True, options).double(), SignChain(rows, 24, rank=16, options=options).double()]
    with torch.no_grad():
        for layer in made:
            for index, parameter in enumerate(layer.parameters()):
                parameter.copy_(seeded(*parameter.shape, seed=20 + index))
        made[0].weight[3, 5] = 0.0
        made[0].weight[3, 6] = -0.0
    return torch.nn.Sequential(*made)


@pytest.mark.parametrize("gradient", SIGN_GRADIENTS)
@pytest.mark.parametrize("zero_is_zero", [False, True])
@pytest.mark.parametrize("column", [False, True])
def test_signs_folded_once_have_the_gradients_of_those_folded_every_time(gradient, zero_is_zero, column):
    every, once = (layers(gradient, zero_is_zero, column=column) for _ in range(2))
    folds = fold_signs(once)
    assert len(folds) == 3
    inputs = [seeded(3, 24, seed=seed) for seed in (9, 10, 11)]
    for model in (every, once):
        for x in inputs:  # an accumulation
            (model(x) * seeded(3, 24, seed=12)).sum().backward()
    assert once[0].weight.grad is None
    for fold in folds:
        fold.finish()
        fold.finish()  # there is nothing more to add
    for first, second in zip(every.parameters(), once.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fused", [False, True])
def test_folded_signs_follow_every_change(fused):
    model = layers("official", False)
    folds = fold_signs(model)
    x = seeded(3, 24, seed=9)

    def changes(act):
        before = model(x).detach()
        act()
        return not torch.equal(before, model(x).detach())

    def plain():
        for layer in model:
            layer.folds = None
        made = model(x).detach()
        fold_signs(model)
        return made

    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3.0, fused=fused)
    assert not changes(lambda: None)

    def step():
        optimiser.step()
        for fold in folds:
            fold.forget()

    assert changes(step)
    with torch.no_grad():
        assert changes(lambda: model[0].weight.neg_())
        assert changes(lambda: model[1].mid_scale.mul_(2))
        assert changes(lambda: model[0].input_factor.copy_(seeded(24, seed=30)))
    assert torch.equal(model(x).detach(), plain())


def test_gradients_of_a_precision_are_summed_in_the_latents_one():
    model = layers("identity", False).float()
    folds = fold_signs(model)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            model(seeded(3, 24, seed=9).float()).float().sum().backward()
    assert folds[0]._gradient.dtype == torch.float32
    for fold in folds:
        fold.finish()
    assert model[0].weight.grad.dtype == torch.float32


def test_without_a_compiler_it_is_said_once_and_computed_all_the_same(monkeypatch, capsys):
    def no_compiler(*_, **__):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(fused.torch, "compile", lambda function, **_: no_compiler)
    monkeypatch.setattr(fused, "_usable", None)
    double = fused.fused(lambda x: 2 * x)
    x = seeded(2, 12, 24)
    assert torch.equal(double(x), 2 * x) and torch.equal(double(x), 2 * x)
    assert capsys.readouterr().err.count("nothing can be compiled") == 1
