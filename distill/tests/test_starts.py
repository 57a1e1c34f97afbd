"""SVID against a full SVD, NMF against scikit-learn's recorded behaviour, and the starts of each kind of student."""

import numpy as np
import pytest
import torch

from onebit_distill.errors import DistillError
from onebit_distill.model.chain_factors import chain_factors
from onebit_distill.model.config import LlamaConfig
from onebit_distill.model.linear import OneBitLinear, SignChain, SignOptions
from onebit_distill.model.llama import Llama
from onebit_distill.model.starts import (
    StartOptions,
    StartReport,
    StudentKind,
    start_chain,
    start_column,
    start_onebit,
    student_of,
)
from onebit_distill.model.svid import Importance, svid_nmf, svid_svd
from onebit_distill.studies.bits import bits_per_weight

TINY = LlamaConfig(
    vocab_size=50, dim=32, hidden_dim=48, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, context_length=32
)


def matrix(rows=96, cols=64, seed=1, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return normal(rows, cols) * (spread * normal(rows, 1)).exp() * (spread * normal(1, cols)).exp()


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(96, 64), (64, 96), (33, 1)])
def test_svid_is_the_best_rank_one(shape, spread):
    w = matrix(*shape, spread=spread)
    found = svid_svd(w)
    u, s, vt = torch.linalg.svd(w.abs().double())
    best = s[0] * u[:, :1] @ vt[:1]
    error = float((w.abs() - best).norm() / w.norm())
    assert abs(found.relative_error - error) < 1e-5
    assert float((found.h[:, None] * found.g - best).norm() / best.norm()) < 1e-5
    # so near to the optimum only the optimum is: another vector must be worse
    worse = found.h[:, None] * found.g.roll(1)
    if shape[1] > 1:
        assert float((w.abs() - worse).norm() / w.norm()) > error + 1e-4


def test_split_moves_the_scale_and_keeps_the_product():
    w = matrix()
    sigma = float(torch.linalg.matrix_norm(w.abs().double(), 2))
    for split in (0.0, 0.3, 1.0):
        found = svid_svd(w, split)
        assert float(found.h.norm()) == pytest.approx(sigma**split, rel=1e-5)
        assert float(found.g.norm()) == pytest.approx(sigma ** (1 - split), rel=1e-5)
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        svid_svd(w, 1.5)


def test_nmf_gives_the_same_product_and_another_split():
    w = matrix(spread=0.3)
    nmf, svd = svid_nmf(w), svid_svd(w)
    product = lambda found: found.h[:, None] * found.g  # noqa: E731
    assert float((product(nmf) - product(svd)).norm() / product(svd).norm()) < 1e-3
    assert abs(float(nmf.h.norm() / svd.h.norm()) - 1) > 1e-2


def test_nmf_steps_like_scikit_learn():
    # sklearn/decomposition/_nmf.py, solver cd, written out for one component: H drawn first, W updated first
    w = matrix(24, 16, spread=0.0)
    a = w.abs().double().numpy()
    random = np.random.RandomState(0)
    average = np.sqrt(a.mean())
    hh = np.abs(average * random.standard_normal((1, 16)))[0]
    ww = np.abs(average * random.standard_normal((24, 1)))[:, 0]
    for _ in range(2):
        ww = np.maximum(0, ww - (ww * (hh @ hh) - a @ hh) / (hh @ hh))
        hh = np.maximum(0, hh - (hh * (ww @ ww) - ww @ a) / (ww @ ww))
    found = svid_nmf(w.double(), most=2)
    np.testing.assert_allclose(found.g.numpy(), hh, rtol=1e-12)
    np.testing.assert_allclose(found.h.numpy(), ww, rtol=1e-12)


def rebuilt(found):
    signs = lambda x: torch.where(x < 0, -1.0, 1.0).to(x)  # noqa: E731
    return found.h[:, None] * (signs(found.second) * found.mid) @ signs(found.first) * found.g


def test_chain_is_better_with_rank_and_with_steps():
    w = matrix(96, 64, spread=0.3)
    errors = [chain_factors(w, rank).relative_error for rank in (8, 32, 64, 128)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.4
    by_steps = [chain_factors(w, 64, steps=steps).relative_error for steps in (0, 10, 60)]
    assert by_steps == sorted(by_steps, reverse=True) and by_steps[-1] < 0.8 * by_steps[0]
    found = chain_factors(w, 32)
    assert float((w - rebuilt(found)).norm() / w.norm()) == pytest.approx(found.relative_error, abs=1e-5)


def test_chain_of_one_bit_beats_one_sign_matrix():
    # as weights are: some directions are worth more than others
    w = matrix(96, 160, spread=0.3) * torch.logspace(0, -0.5, 160)
    rank = 96 * 160 // (96 + 160)
    assert chain_factors(w, rank).relative_error < 0.97 * svid_svd(w).relative_error


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_chain_of_any_size(size):
    w = matrix(24, 16, spread=0.3)
    found = chain_factors(w.double() * size, 16)
    assert found.relative_error == pytest.approx(chain_factors(w.double(), 16).relative_error, rel=1e-3)
    assert torch.isfinite(rebuilt(found)).all()


def test_chain_of_nothing_and_of_a_single_number():
    assert torch.equal(rebuilt(chain_factors(torch.zeros(8, 16), 8)), torch.zeros(8, 16))
    w = torch.zeros(8, 16)
    w[3, 5] = 2.0
    torch.testing.assert_close(rebuilt(chain_factors(w, 8)), w)


@pytest.fixture(scope="module")
def teacher():
    return Llama(TINY).init_weights(0.1, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", ["onebit", "chain:2", "bitnet", "dense", "rtn:4"])
def test_student_copies_everything_but_the_linears(teacher, kind):
    report = StartReport()
    student = student_of(teacher, kind, options=SignOptions(layernorm=False), report=report)
    assert torch.equal(student.model.embed_tokens.weight, teacher.model.embed_tokens.weight)
    assert torch.equal(student.lm_head.weight, teacher.lm_head.weight)
    assert len(report.relative_errors) == 14
    ids = torch.arange(20)[None]
    logits, wanted = student(ids).logits, teacher(ids).logits
    if kind == "dense":
        assert torch.equal(logits, wanted) and max(report.relative_errors.values()) == 0
    elif kind == "rtn:4":
        assert 0.01 < max(report.relative_errors.values()) < 0.2
    else:
        assert 0.2 < max(report.relative_errors.values()) < 1
    for (_, made), (_, source) in zip(student.linears().items(), teacher.linears().items(), strict=True):
        if kind == "onebit":  # the layer computes what its reported factors say
            w = torch.where(source.weight < 0, -1.0, 1.0) * made.weight_scale[:, None] * made.input_factor
            x = torch.randn(3, made.in_features, generator=torch.Generator().manual_seed(4))
            torch.testing.assert_close(made(x), x @ w.T, rtol=1e-4, atol=1e-5)


def test_latents(teacher):
    w = teacher.linears()["model.layers.0.mlp.up_proj"].weight.detach()

    def layer(**how):
        return student_of(teacher, "onebit", StartOptions(**how)).linears()["model.layers.0.mlp.up_proj"]

    assert torch.equal(layer().weight, 0.01 * torch.sign(w))
    kept = layer(latent="magnitude", latent_mean=0.4).weight.detach()
    assert float(kept.abs().mean()) == pytest.approx(0.4, rel=1e-4)
    torch.testing.assert_close(kept / kept.abs().mean(), w / w.abs().mean(), rtol=1e-4, atol=1e-6)
    relative = layer(latent="relative", latent_mean=0.4)
    envelope = relative.weight_scale[:, None] * relative.input_factor
    ratio = (relative.weight * envelope / w).detach()
    assert float(ratio.std() / ratio.mean()) < 1e-4
    copied = layer(method="copy")
    assert torch.equal(copied.input_factor, torch.ones(32)) and torch.equal(copied.weight_scale, torch.ones(48))


@pytest.mark.parametrize("bad", ["", "onebit:1", "chain", "chain:x", "chain:-1", "rtn:2.5", "rtn:99", "ternary"])
def test_bad_kinds(bad):
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        StudentKind.parse(bad)


def test_bad_weights():
    with pytest.raises(DistillError, match="ERR_NOT_FINITE"):
        svid_svd(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        StartOptions(latent="half")


def importance(rows, cols, seed=4, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    of = lambda n: (spread * torch.randn(n, generator=generator)).exp().double()  # noqa: E731
    return Importance(of(rows), of(cols))


def product_of(layer):
    """What the matrices of a sign layer multiply by, [out, in]."""
    made = None
    for w, h, g in layer.matrices():
        one = torch.where(w < 0, -1.0, 1.0) * h[:, None]
        one = one if g is None else one * g
        made = one if made is None else one @ made
    return made.detach()


def started(make, w, weights=None, **options):
    layer = make()
    options = StartOptions(**options)
    if isinstance(layer, SignChain):
        start_chain(layer, w, options, weights)
    else:
        start_onebit(layer, w, options, importance=weights)
    return layer


BARE = SignOptions(layernorm=False)
MAKERS = {
    "onebit": lambda: OneBitLinear(64, 96, options=BARE),
    "chain": lambda: SignChain(64, 96, 40, options=BARE),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_equal_importance_changes_nothing(kind):
    w = matrix()
    plain, equal = (
        started(MAKERS[kind], w, weights)
        # roots that are powers of two: a chain that is drawn towards signs would show every other rounding
        for weights in (None, Importance(torch.full((96,), 4.0), torch.full((64,), 0.0625)))
    )
    assert torch.allclose(product_of(plain), product_of(equal), rtol=1e-3, atol=1e-4 * float(w.abs().max()))
    for (a, h, g), (b, other_h, other_g) in zip(plain.matrices(), equal.matrices(), strict=True):
        assert torch.equal(a < 0, b < 0) and torch.allclose(h, other_h, rtol=1e-3)
        assert g is None or torch.allclose(g, other_g, rtol=1e-3)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("method", ["svd", "nmf"])
def test_importance_lowers_the_error_that_it_weighs(kind, method):
    # all entries of one size: unweighted, there is nothing to choose; what differs is who counts
    w, weights = matrix(spread=0.0), importance(96, 64)
    errors = {}
    for name, given in (("plain", None), ("weighted", weights)):
        made = product_of(started(MAKERS[kind], w, given, method=method))
        errors[name] = float(weights.applied(w - made).norm()), float((w - made).norm())
    assert errors["weighted"][0] < 0.995 * errors["plain"][0]
    assert errors["weighted"][1] > errors["plain"][1]  # which costs those that count less


def test_weighted_svid_is_the_best_there_is():
    w, weights = matrix(), importance(96, 64)
    layer = started(MAKERS["onebit"], w, weights)
    best = float(weights.applied(w - product_of(layer)).norm())
    scaled = weights.applied(w).abs()
    u, s, vt = torch.linalg.svd(scaled)
    assert best == pytest.approx(float((scaled - s[0] * u[:, :1] @ vt[:1]).norm()), rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_column_is_the_best_beside_w(kind, weighted):
    weights = importance(96, 64) if weighted else None
    options = SignOptions(layernorm=False, column=True)
    layer = OneBitLinear(64, 96, options=options) if kind == "onebit" else SignChain(64, 96, 40, options=options)
    w = matrix()
    rest = start_column(layer, w, weights)
    column = (layer.column_out[:, None] * layer.column_in).detach()
    torch.testing.assert_close(rest, w - column)
    left = rest if weights is None else weights.applied(rest)
    values = torch.linalg.svdvals((w if weights is None else weights.applied(w)).double())
    assert float(left.double().norm()) == pytest.approx(float(values[1:].norm()), rel=1e-5)
    sizes = [float(part.detach().square().mean()) for part in (layer.column_out, layer.column_in)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)


@pytest.mark.parametrize("kind", ["onebit", "chain:1"])
def test_a_column_brings_a_start_nearer(kind):
    teacher, errors, bits = Llama(TINY), {}, {}
    with torch.no_grad():
        for layer in teacher.linears().values():
            layer.weight += 0.3 * torch.outer(torch.randn(layer.out_features), torch.randn(layer.in_features))
    for column in (False, True):
        report = StartReport()
        student = student_of(teacher, kind, options=SignOptions(layernorm=False, column=column), report=report)
        errors[column], bits[column] = report.relative_errors, bits_per_weight(student)
        for name, layer in student.linears().items():
            made = product_of(layer) + (layer.column_out[:, None] * layer.column_in if column else 0)
            w = teacher.linears()[name].weight
            assert report.relative_errors[name] == pytest.approx(float((made - w).norm() / w.norm()), rel=1e-3)
    assert all(errors[True][name] < errors[False][name] for name in errors[True])
    sizes = [(layer.out_features, layer.in_features) for layer in student.linears().values()]
    more = 16 * sum(rows + cols for rows, cols in sizes) / sum(rows * cols for rows, cols in sizes)
    assert bits[True] - bits[False] == pytest.approx(more)


def test_taking_importance_out_keeps_the_matrix_and_the_balance_of_its_scales():
    weights = importance(96, 64)
    g, h = weights.cols.sqrt() * 2, weights.rows.sqrt() * 30
    found_g, found_h = weights.removed(g, h)
    assert torch.allclose(found_h[:, None] * found_g, torch.full((96, 64), 60.0).double())
    assert float(found_h.norm() / found_g.norm()) == pytest.approx(float(h.norm() / g.norm()))


def test_importance_of_another_shape_is_refused():
    with pytest.raises(DistillError, match="ERR_TENSOR_SHAPE"):
        started(MAKERS["onebit"], matrix(), importance(64, 96))
