"""GPTQ, OmniQuant and LLM-QAT's linear: each does what its equations say."""

import pytest
import torch
from tiny_model import tiny_config, tiny_llama

from onebit_distill.errors import DistillError
from onebit_distill.export.student import export_model
from onebit_distill.model.linear import QuantisedLinear, fake_quantise
from onebit_distill.model.starts import StudentKind, student_of
from onebit_distill.studies.bits import layer_bits
from onebit_distill.studies.post_training.blocks import Calibration, quantise_blocks
from onebit_distill.studies.post_training.gptq import GptqOptions, Hessian, gptq, gptq_block, output_error
from onebit_distill.studies.post_training.grid import grid_bits, row_grid
from onebit_distill.studies.post_training.omniquant import OmniQuantBlock, OmniQuantOptions, omniquant_block
from onebit_distill.studies.post_training.transformation import sites_of, transformed
from onebit_distill.training.time_budget import TimeBudget

NAMES = [
    *(f"self_attn.{part}_proj" for part in "qkvo"), "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj",
]  # fmt: skip


def correlated(rows=24, cols=40, tokens=400, seed=0):
    """W [rows, cols] and inputs [tokens, cols] whose channels depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(cols, cols, generator=generator) + 2 * torch.eye(cols)
    x = torch.randn(tokens, cols, generator=generator) @ mix
    return torch.randn(rows, cols, generator=generator), x


def hessian_of(x):
    seen = Hessian(x.shape[1])
    for part in x.split(128):
        seen.add(part)
    return seen.value()


def plain_gptq(w, hessian, grid, damping, order):
    """Equations 2 and 3 as they stand: the whole inverse, a column eliminated from it after each step."""
    h, left, made = hessian.double().clone(), w.double().clone(), torch.zeros_like(w).double()
    h.diagonal().add_(damping * h.diagonal().mean())
    inverse, alive = torch.linalg.inv(h), list(range(len(h)))
    for column in order:
        weights = left[:, column].clone()
        made[:, column] = grid.round(weights[:, None])[:, 0]
        error = (weights - made[:, column]) / inverse[column, column]
        left -= error[:, None] * inverse[column]
        inverse = inverse - inverse[:, column, None] * inverse[column] / inverse[column, column]
        alive.remove(column)
    assert not alive
    return made


# Grids


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_grid_is_that_of_rounding_to_nearest(bits):
    w, _ = correlated()
    torch.testing.assert_close(row_grid(w, bits).round(w), fake_quantise(w, bits), atol=1e-5, rtol=0)
    assert grid_bits(24, 40, bits) == bits * 24 * 40 + 24 * 32


def test_one_bit_has_two_levels_where_weights_are():
    w, _ = correlated()
    made = row_grid(w, 1).round(w)
    assert all(len(row.unique()) == 2 for row in made)
    assert (made - w).norm() < 0.7 * (fake_quantise(w, 1) - w).norm()
    shifted = row_grid(w + 5, 1).round(w + 5)
    torch.testing.assert_close(shifted, made + 5, atol=1e-5, rtol=0)
    with pytest.raises(DistillError):
        row_grid(w, 0)


# GPTQ


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("columns", [1, 7, 128])
def test_gptq_in_batches_is_gptq_column_by_column(columns, act_order):
    w, x = correlated()
    hessian, grid = hessian_of(x), row_grid(w, 2)
    options = GptqOptions(2, columns=columns, act_order=act_order)
    order = hessian.diagonal().argsort(descending=True).tolist() if act_order else range(w.shape[1])
    torch.testing.assert_close(
        gptq(w, hessian, grid, options), plain_gptq(w, hessian, grid, options.damping, order).float(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_gptq_keeps_outputs_better_than_rounding(bits):
    w, x = correlated()
    hessian, grid = hessian_of(x), row_grid(w, bits)
    made = gptq(w, hessian, grid, GptqOptions(bits))
    nearest = grid.round(w)
    # two levels leave later columns little to repair with
    assert (x @ (made - w).T).norm() < (0.98 if bits == 1 else 0.9) * (x @ (nearest - w).T).norm()
    layer = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
    layer.weight.data = w
    expected = ((x @ (made - w).T).square().sum() / (x @ w.T).square().sum()).item()
    assert output_error(layer, made, hessian) == pytest.approx(expected, rel=1e-3)
    assert all(len(row.unique()) <= 2**bits for row in made)


def test_gptq_bears_inputs_that_are_always_zero():
    w, x = correlated()
    x[:, 3] = 0
    grid = row_grid(w, 2)
    made = gptq(w, hessian_of(x), grid, GptqOptions(2))
    torch.testing.assert_close(made[:, 3], grid.round(w)[:, 3], atol=1e-5, rtol=0)
    with pytest.raises(DistillError) as caught:
        gptq(w, torch.full((40, 40), float("nan")), grid, GptqOptions(2))
    assert caught.value.code == "ERR_NOT_FINITE"


# Blocks


def calibration(model, index=0, sequences=12, tokens=24, targets=True):
    ids = torch.randint(0, 320, (sequences, tokens), generator=torch.Generator().manual_seed(0))
    step, states = model.block_step(tokens), model.embed(ids)
    data = Calibration(states, None, step, "f32")
    for block in model.model.layers[:index]:
        data.inputs = data.through(block, data.inputs)
    if targets:
        data.targets = data.through(model.model.layers[index], data.inputs)
    return data


def test_a_block_by_gptq_is_nearer_than_rounded_and_each_linear_is_rounded():
    model = tiny_llama(tiny_config())
    data, block = calibration(model), model.model.layers[0]
    nearest = tiny_llama(tiny_config()).model.layers[0]
    for name in NAMES:
        weight = nearest.get_submodule(name).weight
        weight.copy_(row_grid(weight, 3).round(weight))
    said = gptq_block(block, NAMES, data, GptqOptions(3))
    assert set(said) == set(NAMES)
    assert sum(mine for mine, _ in said.values()) < sum(theirs for _, theirs in said.values())
    for name in NAMES:
        assert all(len(row.unique()) <= 8 for row in block.get_submodule(name).weight)
    errors = [(data.through(made, data.inputs) - data.targets).square().mean() for made in (block, nearest)]
    assert errors[0] < errors[1]


def test_interrupted_blocks_go_on_where_they_were(tmp_path):
    ids = torch.randint(0, 320, (6, 16), generator=torch.Generator().manual_seed(0))

    def run(folder, fails_at=None):
        made, model = [], tiny_llama(tiny_config())

        def method(index, block, names, data):
            if index == fails_at:
                raise KeyboardInterrupt
            made.append(index)
            return gptq_block(block, names, data, GptqOptions(2))

        folder.mkdir(exist_ok=True)
        quantise_blocks(model, ids, method, folder, "f32", with_targets=True, budget=TimeBudget(folder, 0))
        return made, model.state_dict()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", fails_at=1)
    made, weights = run(tmp_path / "a")
    assert made == [1]
    whole, expected = run(tmp_path / "b")
    assert whole == [0, 1] and all(torch.equal(weights[name], expected[name]) for name in expected)


# OmniQuant

SHAPES = {
    "llama": ({}, 4),
    "one group a head": ({"n_kv_heads": 4}, 4),
    "biases": ({"architecture": "qwen2", "biases": ("wq", "wk", "wv", "wo", "w1", "w2", "w3")}, 4),
    "norms within": ({"attention_inner_norm": True, "ffn_inner_norm": True}, 2),
    "plain feed-forward": ({"feed_forward": "plain", "activation": "gelu", "norm": "layer", "norm_bias": True}, 3),
    "norms of heads": ({"qk_norm": True}, 4),
    "gated outputs": ({"output_gate": True}, 4),
    "parallel": ({"parallel_residual": True}, 4),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_moved_scales_change_nothing_without_rounding(shape):
    changes, count = SHAPES[shape]
    model = tiny_llama(tiny_config(**changes))
    block, data = model.model.layers[0], calibration(model, tokens=16)
    sites = sites_of(block)
    assert len(sites) == count
    generator = torch.Generator().manual_seed(3)
    scales = [torch.randn(site.channels, generator=generator).exp() for site in sites]
    floats = {name: value.detach() for name, value in block.named_parameters()}
    moved = transformed(floats, sites, scales)
    changed = [name for name in floats if not torch.equal(moved[name], floats[name])]
    assert len(changed) >= 2 * count
    made = torch.func.functional_call(block, moved, (data.inputs, data.step))
    torch.testing.assert_close(made, data.targets, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("part", ["clips", "transforms", "both"])
def test_omniquant_is_better_than_rounding(bits, part):
    model = tiny_llama(tiny_config())
    data, block = calibration(model), model.model.layers[0]
    # the authors' rates: the defaults are for real blocks, whose errors are less rugged
    parts = {"clips": part != "transforms", "transforms": part != "clips"}
    options = OmniQuantOptions(bits, clip_lr=1e-2, scale_lr=5e-3, epochs=20, batch=4, **parts)
    said = omniquant_block(block, NAMES, data, options, seconds=60)
    assert said["error"] < 0.98 * said["nearest_error"] and said["steps"] == 60
    for name in NAMES:
        assert all(len(row.unique()) <= 2**bits for row in block.get_submodule(name).weight)
    # what was folded in is what was learned
    made = data.through(block, data.inputs)
    error = (made - data.targets).square().mean() / data.targets.square().mean()
    assert float(error) == pytest.approx(said["error"], rel=1e-3)


def test_omniquant_without_rounding_is_the_float_block():
    model = tiny_llama(tiny_config())
    data = calibration(model)
    work = OmniQuantBlock(model.model.layers[0], [], data, OmniQuantOptions(2))
    assert work.error(work.parameters()) < 1e-10


def test_omniquant_ends_with_its_time_and_says_what_it_lacks():
    model = tiny_llama(tiny_config())
    data = calibration(model)
    said = omniquant_block(model.model.layers[0], NAMES, data, OmniQuantOptions(2, batch=4), seconds=0)
    assert said["steps"] == 1
    with pytest.raises(DistillError):
        OmniQuantBlock(model.model.layers[1], NAMES, calibration(model, targets=False), OmniQuantOptions(2))


# LLM-QAT


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_linear_that_is_rounded_in_every_product(bits):
    torch.manual_seed(0)
    layer, x = QuantisedLinear(16, 8, bits), torch.randn(5, 16)
    expected = fake_quantise(layer.weight.detach(), bits, symmetric=True)
    torch.testing.assert_close(layer(x), x @ expected.T)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(8, 16))  # straight through
    assert layer_bits(layer) == (bits * 128 + 16 * 8, 128)


def test_kind_qat_starts_from_the_teacher_and_is_exported_as_rounded(tmp_path):
    teacher = tiny_llama(tiny_config())
    student = student_of(teacher, "qat:2")
    name, layer = next(iter(student.linears().items()))
    assert isinstance(layer, QuantisedLinear) and torch.equal(layer.weight, teacher.linears()[name].weight)
    export_model(student, None, tmp_path / "a.obt", dense="f32")
    rounded = student_of(teacher, "dense").requires_grad_(False)
    for linear in rounded.linears().values():
        linear.weight.copy_(fake_quantise(linear.weight, 2, symmetric=True) + 0.0)  # -0 is 0
    export_model(rounded, None, tmp_path / "b.obt", dense="f32")
    assert (tmp_path / "a.obt").read_bytes() == (tmp_path / "b.obt").read_bytes()
    for wrong in ("qat", "qat:0", "qat:1.5", "qat:17"):
        with pytest.raises(DistillError):
            StudentKind.parse(wrong)
