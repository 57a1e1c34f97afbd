"""Blocks fitted one after the other, then end to end: each stage does what it says, and a stop costs nothing."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_train import FAST, losses, made  # noqa: F401
from tiny_model import tiny_config, tiny_llama

from onebit_distill.cli import main
from onebit_distill.errors import DistillError
from onebit_distill.export.student import pack_signs
from onebit_distill.model.config import HF_LINEARS
from onebit_distill.model.linear import OneBitLinear
from onebit_distill.model.starts import student_of
from onebit_distill.training.block_check import MixedCheck
from onebit_distill.training.block_fit import (
    BlockData,
    BlockFit,
    BlockFitter,
    BlockLoss,
    BlockReport,
    harden,
    sign_groups,
    stage_steps,
)
from onebit_distill.training.importance import output_importance, shrunk
from onebit_distill.training.metrics import read_metrics
from onebit_distill.training.reconstruct import BlockPace, Reconstruction, block_path, defaults
from onebit_distill.training.run_folder import load_student, read_run, sign_options
from onebit_distill.training.settings import Settings
from onebit_distill.training.time_budget import EvenShares, TimeBudget
from onebit_distill.training.transfer import start_options

PLAIN = Settings(precision="f32", latent="magnitude")
QUICK = BlockFit(steps=40, absorb=10, lr=1e-2, scale_lr=3e-3, float_lr=1e-3, batch=4)
HALVES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"], ["mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"]  # fmt: skip
NAMES = [*HALVES[0], *HALVES[1]]


def texts(sequences=16, tokens=24, seed=0):
    return torch.randint(0, 320, (sequences, tokens), generator=torch.Generator().manual_seed(seed))


def student_for(teacher, settings=PLAIN):
    torch.manual_seed(0)
    return student_of(teacher, settings.kind, None, sign_options(settings))


def fitter(options, settings=PLAIN, index=0, inputs=None, change=None):
    """Of one block of a tiny teacher; change: of targets, [N, T, dim]."""
    teacher = tiny_llama(tiny_config())
    student, ids = student_for(teacher, settings), texts()
    step, source = student.block_step(ids.shape[1]), teacher.model.layers[index]
    inputs = teacher.embed(ids) if inputs is None else inputs(teacher.embed(ids))
    targets = source(teacher.embed(ids), step).detach()
    if change:
        change(targets)
    outputs = output_importance(teacher, ids, settings) if options.importance == "both" else None
    data = BlockData(inputs, targets, step, outputs)
    block = student.model.layers[index]
    return BlockFitter(block, source, index, NAMES, data, options, settings, start_options(settings))


def reconstruction(teacher, student, run, options=QUICK, settings=PLAIN):
    return Reconstruction(teacher, student, texts(), run, options, settings)


@pytest.mark.parametrize("kind", ["onebit", "chain:2"])
@pytest.mark.parametrize("order", ["together", "halves", "single"])
def test_fitting_brings_the_last_state_closer_and_goes_on_after_a_stop(tmp_path, kind, order):
    teacher, settings, options = tiny_llama(tiny_config()), replace(PLAIN, kind=kind), replace(QUICK, order=order)
    ids, student = texts(), student_for(teacher, settings)
    goal = teacher(ids, hidden_states=True).hidden_states[-1]

    def distance(model):
        with torch.no_grad():
            return float((model(ids, hidden_states=True).hidden_states[-1] - goal).square().mean())

    started = distance(student_of(teacher, kind, options=sign_options(settings)))
    assert len(reconstruction(teacher, student, tmp_path, options, settings).fit_all()) == 2
    assert distance(student) < 0.6 * started
    kept = block_path(tmp_path, 1).read_bytes()
    block_path(tmp_path, 1).unlink()  # as if it had been stopped in the second block
    again = student_for(teacher, settings)
    assert len(reconstruction(teacher, again, tmp_path, options, settings).fit_all()) == 1
    assert block_path(tmp_path, 1).read_bytes() == kept
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters(), strict=True))


def test_absorption_takes_up_what_was_lost_before():
    def spoiled(x):
        return x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(5))

    work = fitter(QUICK, index=1, inputs=spoiled)
    with torch.no_grad():
        rows = torch.arange(len(work.data.inputs))
        before = float(work.loss(work.block(work.data.inputs, work.data.step), work.data.targets, rows))
    after, _ = work.descend(60)
    assert after < 0.8 * before
    # and the whole fit ends better than without
    ends = [fitter(replace(QUICK, absorb=n), index=1, inputs=spoiled).fit().last for n in (60, 0)]
    assert ends[0] < ends[1]


def test_nothing_is_to_be_absorbed_in_front_of_the_first_block(tmp_path):
    teacher = tiny_llama(tiny_config())
    first, second = reconstruction(teacher, student_for(teacher), tmp_path).fit_all()
    assert first.steps == {"absorb": 0, "mixer": 12, "feed-forward": 28} and "absorb" not in first.errors
    assert list(second.errors) == ["absorb", "mixer", "feed-forward"] and second.steps["absorb"] == 10


def test_a_token_with_huge_values_does_not_own_the_loss():
    targets = torch.randn(4, 6, 32)
    targets[0, 0] *= 1000
    rows = torch.arange(4)
    for wrong, share in ((targets[0, 0], 1 / 24), (targets[2, 3], 1 / 24)):
        made = targets.clone()
        made[(targets == wrong).all(-1)] = 0  # one token is lost altogether
        assert float(BlockLoss(targets, "relative")(made, targets, rows)) == pytest.approx(share, rel=1e-4)
    capped = BlockLoss(targets, "capped")
    made = targets.clone()
    made[0, 0] = 0  # counts, since attention may rest on it, but as 64 ordinary ones at most
    assert float(capped(made, targets, rows)) == pytest.approx(64 / 24, rel=1e-4)
    made[2] = 0
    assert float(capped(made, targets, rows)) > 64 / 24 + 0.1
    plain = BlockLoss(targets, "plain")
    made = targets.clone()
    made[2, 3] = 0
    assert float(plain(made, targets, rows)) < 1e-5  # an ordinary token means nothing there
    made[0, 0] = 0
    assert float(plain(made, targets, rows)) > 0.99


def test_a_huge_token_costs_the_others_less_with_the_relative_loss():
    def change(targets):
        targets[:, 0] *= 300  # the first of each sequence, as in some blocks of some teachers

    ends = {}
    for loss in ("relative", "capped", "plain"):
        work = fitter(replace(QUICK, loss=loss, importance="none"), change=change)
        work.fit()
        with torch.no_grad():
            made = work.block(work.data.inputs, work.data.step)
        others = (made - work.data.targets)[:, 1:].square().sum() / work.data.targets[:, 1:].square().sum()
        ends[loss] = float(others)
    assert ends["relative"] < 0.7 * ends["plain"] and ends["capped"] < 0.95 * ends["plain"]


def test_channels_count_as_they_are_worth():
    targets, rows = torch.ones(2, 3, 4), torch.arange(2)
    worth = torch.tensor([4.0, 0.0, 0.0, 0.0])
    loss = BlockLoss(targets, "relative", worth)
    made = targets.clone()
    made[..., 1:] = 9
    assert float(loss(made, targets, rows)) == 0
    made[..., 0] = 0
    assert float(loss(made, targets, rows)) == pytest.approx(1)


def test_importance_of_outputs_is_that_of_gradients():
    teacher, ids = tiny_llama(tiny_config()), texts(2, 12)
    found = output_importance(teacher, ids, PLAIN)
    layer = teacher.model.layers[1].mlp.up_proj
    layer.weight.requires_grad_(True)
    seen = []
    handle = layer.register_forward_hook(lambda _, __, y: y.register_hook(seen.append) and None)
    logits = teacher(ids).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    handle.remove()
    squares = seen[0].flatten(0, 1).square().mean(0)
    assert torch.allclose(found.linears["model.layers.1.mlp.up_proj"], shrunk(squares), rtol=1e-4)
    assert len(found.blocks) == 2 and all(abs(float(part.mean()) - 1) < 1e-9 for part in found.blocks)
    assert not any(parameter.grad is not None for name, parameter in teacher.named_parameters() if "up_proj" not in name)


def test_importance_survives_its_file(tmp_path):
    teacher, ids = tiny_llama(tiny_config()), texts(2, 12)
    found = output_importance(teacher, ids, PLAIN)
    found.save(tmp_path / "importance.safetensors")
    again = type(found).load(tmp_path / "importance.safetensors")
    assert found.linears.keys() == again.linears.keys() and len(again.blocks) == 2
    assert all(torch.equal(a, b) for a, b in zip(found.blocks, again.blocks, strict=True))


def test_groups_and_steps():
    assert sign_groups(NAMES, "together") == [NAMES]
    assert sign_groups(NAMES, "halves") == [list(HALVES[0]), list(HALVES[1])]
    single = ["v_proj", "q_proj", "o_proj", "k_proj", "gate_proj", "up_proj", "down_proj"]
    assert [group[0].split(".")[-1] for group in sign_groups(NAMES, "single")] == single
    delta = ["linear_attn.in_proj_z", "linear_attn.out_proj", "linear_attn.in_proj_qkv"]
    assert sign_groups([*delta, *HALVES[1]], "halves") == [delta, list(HALVES[1])]
    for groups in (1, 2, 7):
        assert sum(stage_steps(groups, 280)) == 280 and len(stage_steps(groups, 280)) == groups
    assert stage_steps(2, 280) == [84, 196] and stage_steps(7, 3) == [0, 0, 0, 0, 0, 0, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "qwen2", "biases": ("wq", "wk", "wv")},
        {"architecture": "mistral", "window": 7},
        {"architecture": "gpt_neox", "parallel_residual": True, "feed_forward": "plain", "activation": "gelu",
         "norm": "layer", "norm_bias": True, "n_kv_heads": 4, "biases": ("wq", "wk", "wv", "wo", "w1", "w2")},
    ],
    ids=["qwen2", "mistral", "neox"],
)  # fmt: skip
def test_blocks_of_the_family(tmp_path, changes):
    teacher = tiny_llama(tiny_config(**changes))
    student = student_for(teacher)
    reports = reconstruction(teacher, student, tmp_path).fit_all()
    assert len(reports) == 2 and all(report.last < 0.75 for report in reports)
    assert all(isinstance(layer, OneBitLinear) and layer.folds is None for layer in student.linears().values())
    assert {n: p.requires_grad for n, p in student.named_parameters()} == {
        n: p.requires_grad for n, p in student_for(teacher).named_parameters()
    }


def test_the_check_is_the_perplexity_of_the_mixed_model(tmp_path):
    teacher, ids = tiny_llama(tiny_config()), texts(4, 20, seed=3)
    student = student_of(teacher, "onebit")
    check = MixedCheck(teacher, student, ids.numpy(), PLAIN, torch.device("cpu"))
    mixed = tiny_llama(tiny_config())
    for index, block in enumerate(student.model.layers):
        mixed.model.layers[index] = block
        with torch.no_grad():
            logits = mixed(ids).logits[:, :-1].flatten(0, 1)
        want = float(torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).exp())
        assert check.behind(index, block) == pytest.approx(want, rel=1e-4)


def where(made, run):  # noqa: F811
    return ["--teacher", str(made / "teacher"), "--data", str(made / "texts.jsonl"), "--out", str(run)]


SHORT = ["--block-steps", "8", "--block-absorb", "2", "--block-tokens", "512", "--block-batch", "4"]


def test_the_command_fits_blocks_and_then_end_to_end(made, tmp_path, capsys):  # noqa: F811
    assert main(["reconstruct", *where(made, tmp_path / "run"), *FAST, "--steps", "5", *SHORT]) == 0
    told = capsys.readouterr().err
    assert "2 blocks of about 0:0" in told and "then 5 steps of about" in told
    # before it begins
    assert told.index("2 blocks of about") < told.index("block 1/2") < told.index("block 2/2")
    assert [path.name for path in sorted((tmp_path / "run").glob("block-*"))] == [
        "block-000.safetensors",
        "block-001.safetensors",
    ]
    lines = read_metrics(tmp_path / "run" / "blocks.jsonl")
    assert [line["block"] for line in lines] == [0, 1] and all(line["perplexity"] > 1 for line in lines)
    assert lines[1]["steps"] == {"absorb": 2, "mixer": 2, "feed-forward": 6}
    assert len(losses(tmp_path / "run")) == 5
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["lr"] == 1e-3  # of this command alone
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "made.obt")]) == 0
    assert (tmp_path / "made.obt").stat().st_size > 10_000


def test_an_interrupted_command_ends_with_the_same_bytes(made, tmp_path, monkeypatch):  # noqa: F811
    words = [*FAST, "--steps", "3", *SHORT]
    assert main(["reconstruct", *where(made, tmp_path / "whole"), *words]) == 0
    fit, count = BlockFitter.fit, []

    def stopped(self):
        if self.index == 1 and self.options.steps == 8:
            count.append(1)
            raise KeyboardInterrupt
        return fit(self)

    monkeypatch.setattr(BlockFitter, "fit", stopped)
    assert main(["reconstruct", *where(made, tmp_path / "cut"), *words]) == 130 and count
    monkeypatch.undo()
    assert not block_path(tmp_path / "cut", 1).exists()
    assert main(["reconstruct", *where(made, tmp_path / "cut"), *words]) == 0
    for name in ("block-000.safetensors", "block-001.safetensors", "checkpoint-0000003/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    # and with a checkpoint nothing is fitted or measured again
    monkeypatch.setattr(BlockFitter, "__init__", None)
    assert main(["reconstruct", *where(made, tmp_path / "cut"), *FAST, "--steps", "5", *SHORT]) == 0


def test_exported_signs_are_those_that_were_trained(made, tmp_path):  # noqa: F811
    """No hardening is left to do: blocks are fitted with the signs themselves, and what is packed is the same."""
    run = tmp_path / "run"
    # the first step of a warm-up moves nothing
    assert main(["reconstruct", *where(made, run), *FAST, "--steps", "1", "--warmup", "1", *SHORT]) == 0
    assert main(["export", str(run), "-o", str(tmp_path / "made.obt")]) == 0
    roles = {theirs: role for role, theirs in HF_LINEARS.items()}
    with safe_open(tmp_path / "made.obt", framework="pt") as stored:
        for index in range(2):
            fitted = load_file(block_path(run, index))
            for name in NAMES:
                at = f"layers.{index}.{roles[name]}"
                signs = torch.from_numpy(pack_signs(fitted[f"{name}.weight"]))
                assert torch.equal(stored.get_tensor(f"{at}.sign"), signs)
                for ours, part in (("g", "input_factor"), ("u", "column_out"), ("v", "column_in")):
                    assert torch.equal(stored.get_tensor(f"{at}.{ours}"), fitted[f"{name}.{part}"])


def test_a_column_is_fitted_where_nobody_says_otherwise_and_goes_along(made, tmp_path, capsys):  # noqa: F811
    run, behind = tmp_path / "run", tmp_path / "behind"
    assert main(["reconstruct", *where(made, run), *FAST, "--steps", "1", *SHORT]) == 0
    assert read_run(run).settings.column
    chain = ["reconstruct", *where(made, tmp_path / "chain"), *FAST, "--kind", "chain:1", "--steps", "1", *SHORT]
    assert main(chain) == 0 and not read_run(tmp_path / "chain").settings.column
    assert defaults("onebit", "x.obt")["column"] is False
    # what goes on with a student is that student, unless it is told to be another
    assert main(["train", *where(made, behind), *FAST, "--from", str(run), "--steps", "2"]) == 0
    assert read_run(behind).settings.column
    layers = load_student(behind)[0].linears(), load_student(run)[0].linears()
    name = "model.layers.1.mlp.down_proj"
    assert not torch.equal(layers[0][name].column_out, layers[1][name].column_out)
    capsys.readouterr()
    other = ["train", *where(made, tmp_path / "other"), *FAST, "--from", str(run), "--no-column", "--steps", "2"]
    assert main(other) == 1
    assert "made with column = True, now it is False" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["onebit", "chain:2"])
def test_hardening_turns_no_sign_and_leaves_none_near_zero(kind):
    student, ids = student_for(tiny_llama(tiny_config()), replace(PLAIN, kind=kind)), texts()
    latents = [p for n, p in student.named_parameters() if p.dim() == 2 and ".layers." in n]
    with torch.no_grad():
        for latent in latents:
            latent.mul_(torch.rand_like(latent).square())  # many near 0
            latent[0, :3] = torch.tensor([0.0, 1e-9, -1e-9])
        before, signs = student(ids).logits, [latent < 0 for latent in latents]
        harden(student, 0.05)
        assert torch.equal(student(ids).logits, before)
    assert all(torch.equal(latent < 0, sign) for latent, sign in zip(latents, signs, strict=True))
    assert all(latent.abs().min() >= 0.05 for latent in latents)


def test_the_first_steps_end_to_end_turn_no_signs(made, tmp_path):  # noqa: F811
    """Adam moves each weight by the whole rate at once: what the fit left near 0 would all turn (perplexity 151 -> 140,000)."""
    turned = {}
    for margin in ("0", "0.02"):
        run = tmp_path / margin
        rates = ["--lr", "5e-3", "--warmup", "0", "--schedule", "constant", "--block-margin", margin]
        assert main(["reconstruct", *where(made, run), *FAST, "--steps", "2", *rates, *SHORT]) == 0
        state = load_file(run / "checkpoint-0000002" / "model.safetensors")
        turned[margin] = sum(
            int(((state[f"model.layers.{index}.{name}.weight"] < 0) != (fitted[f"{name}.weight"] < 0)).sum())
            for index in range(2)
            for fitted in [load_file(block_path(run, index))]
            for name in NAMES
        )
    assert turned["0.02"] == 0 < turned["0"]


def in_minutes(made, folder, more):
    """A reconstruction in as few minutes as this machine, which may be busy, has room for: them, its words and its run."""
    for minutes in (0.15, 0.6, 2.4):
        run = folder / f"run-{minutes}"
        words = ["reconstruct", *where(made, run), *FAST, "--validate-every", "0", *more]
        if main([*words, "--minutes", str(minutes)]) == 0:
            break
    else:
        raise AssertionError("2.4 minutes are too few")
    return minutes, words, run


def test_minutes_end_in_time(made, tmp_path, capsys):  # noqa: F811
    started = time.monotonic()
    minutes, words, run = in_minutes(made, tmp_path, [*SHORT, "--checkpoint-every", "50", "--epochs", "10000"])
    took = time.monotonic() - started
    assert 60 * minutes - 3 < took < 60 * minutes + 4 or minutes > 0.15  # a plot comes behind it
    steps = losses(run)
    assert len(steps) > 20
    shares = [entry["lr_share"] for entry in read_metrics(run / "metrics.jsonl") if "loss" in entry]
    assert max(shares) > 0.9 and shares[-1] < 0.1  # the learning rate comes down within it
    assert "from now on" in capsys.readouterr().err
    # the time counts over all calls: it is over, and more of it goes on
    assert main([*words, "--minutes", str(minutes)]) == 0 and len(losses(run)) <= len(steps) + 1
    assert main([*words, "--minutes", str(1.5 * minutes)]) == 0 and len(losses(run)) > len(steps) + 1


def test_blocks_get_fewer_steps_when_time_is_short(made, tmp_path):  # noqa: F811
    minutes, _, run = in_minutes(made, tmp_path, ["--block-tokens", "512", "--block-steps", "100000"])
    lines = read_metrics(run / "blocks.jsonl")
    assert all(8 <= sum(line["steps"].values()) < 50_000 for line in lines)
    # hours without fewer steps; beside other work it once took 11.8 s where 6.75 were meant
    assert sum(line["seconds"] for line in lines) < 3 * 60 * minutes


def test_a_pace_of_blocks_whose_stages_differ():
    """Qwen3.5's: three blocks of one kind, then one of another, sign by sign."""
    recurrent = ("in_proj_qkv", "in_proj_z", "out_proj", "gate_proj", "up_proj", "down_proj")
    attention = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    pace, options = BlockPace({"absorb": 1.0, **dict.fromkeys(recurrent, 1.0)}, 0.0), BlockFit(order="single")
    assert pace.seconds(options, 6) == pytest.approx(options.absorb + options.steps)
    counts = {"absorb": 1, **dict.fromkeys(attention, 1)}
    seen = pace.seen(BlockReport(steps=counts, stage_seconds={name: 2.0 for name in counts}), 16.0)
    fewer = seen.within(options, 6, 50.0)
    assert 0 < fewer.steps < options.steps and seen.seconds(fewer, 6) < 70


def test_fp16_fits_blocks_with_a_loss_scale():
    """As wide as real ones: a mean over so many numbers has gradients that fp16 rounds to 0."""
    def huge(states):
        return 30 * states

    def share_of_zeros(scale):
        work = fitter(replace(QUICK, steps=1, absorb=0), replace(PLAIN, precision="fp16"), inputs=huge)
        work.give_signs(NAMES)
        work.scale.scale = scale
        gradients = []
        optimisers = [SimpleNamespace(step=lambda: gradients.extend(
            parameter.grad.clone() for parameter in work.block.parameters() if parameter.grad is not None
        ), zero_grad=lambda set_to_none: None)]  # fmt: skip
        work._step(torch.arange(16), optimisers, [p for p in work.block.parameters() if p.requires_grad], [])
        return work, gradients

    assert fitter(QUICK).scale is None
    work, gradients = share_of_zeros(2.0**16)
    assert gradients and all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    # a scale that overflows makes no step, and the next one is smaller
    work, gradients = share_of_zeros(2.0**60)
    assert gradients == [] and work.scale.scale == 2.0**59


def test_a_file_of_other_options_leaves_the_defaults(made, tmp_path):  # noqa: F811
    (tmp_path / "machine.toml").write_text("[machine]\nthreads = 1\n[student]\nkind = 'chain:1'\n")
    words = ["reconstruct", "--teacher", str(made / "teacher"), "--data", str(made / "texts.jsonl"), "--out", str(tmp_path / "run"),
             "--config", str(tmp_path / "machine.toml"), "--block", "32", "--batch", "4", "--micro-batch", "2", "--steps", "1",
             "--block-steps", "2", "--block-absorb", "1", "--block-tokens", "256", "--precision", "f32"]  # fmt: skip
    assert main(words) == 0
    found, expected = read_run(tmp_path / "run").settings, defaults("chain:1", Settings.start)
    assert found.threads == 1 and found.kind == "chain:1"
    assert {name: getattr(found, name) for name in expected if name not in ("kind",)} == {
        name: value for name, value in expected.items() if name not in ("kind",)
    }


def test_later_blocks_get_the_steps_that_the_machine_has_time_for(made, tmp_path, monkeypatch):  # noqa: F811
    pace = BlockPace({"absorb": 1.0, "mixer": 2.0}, 5.0)
    report = BlockReport(steps={"absorb": 0, "mixer": 4}, stage_seconds={"mixer": 2.0})
    assert pace.seen(report, 3.0) == BlockPace({"absorb": 1.0, "mixer": 0.5}, 1.0)

    measured = Reconstruction.measure

    def slow(work):  # as on a machine that was busy just then
        found = measured(work)
        return BlockPace({name: 20 * each for name, each in found.steps.items()}, found.rest)

    monkeypatch.setattr(Reconstruction, "measure", slow)
    _, _, run = in_minutes(made, tmp_path, ["--block-tokens", "512", "--block-steps", "100000"])
    first, second = (sum(line["steps"].values()) for line in read_metrics(run / "blocks.jsonl"))
    assert second > 2 * first


def test_too_few_minutes_are_refused(made, tmp_path, capsys):  # noqa: F811
    words = ["reconstruct", *where(made, tmp_path / "run"), *FAST, *SHORT]
    assert main([*words, "--minutes", "0.0005"]) == 1
    assert "ERR_BAD_OPTION: too few minutes" in capsys.readouterr().err
    for minutes in ("-1", "1e9", "nan"):
        assert main([*words, "--minutes", minutes]) == 1
        assert "ERR_BAD_OPTION: minutes must be" in capsys.readouterr().err


def test_a_budget_counts_over_calls(tmp_path):
    first = TimeBudget(tmp_path, 1)
    first.keep()
    (tmp_path / "time.json").write_text('{"seconds": 50}')
    assert 9 < TimeBudget(tmp_path, 1).left() <= 10
    assert TimeBudget(tmp_path, 0).left() == float("inf")
    (tmp_path / "time.json").write_text("torn")
    assert TimeBudget(tmp_path, 1).left() > 59


def test_shares_of_a_budget_are_even():
    class Clock:
        seconds = 100.0

        def left(self):
            return self.seconds

    clock = Clock()
    shares, given = EvenShares(clock, 5), []
    for index in range(5):
        clock.seconds -= 4  # before a piece learns
        given.append(shares.next(index))
        shares.used(given[-1])
        clock.seconds -= given[-1] + 2  # and behind it
    # what else a piece takes is known from the second one on
    assert given[1:] == pytest.approx([given[1]] * 4) and given[0] == pytest.approx(96 / 5)
    assert clock.seconds == pytest.approx(0, abs=7) and given[1] > 11


def test_other_options_do_not_go_on_with_a_run(made, tmp_path, capsys):  # noqa: F811
    run = tmp_path / "run"
    words = ["reconstruct", *where(made, run), *FAST, *SHORT]
    assert main([*words, "--steps", "3"]) == 0
    assert json.loads((run / "run.json").read_text())["more"] == {
        "block_tokens": 512, "block_steps": 8, "block_absorb": 2, "block_lr": BlockFit.lr, "block_scale_lr": BlockFit.scale_lr,
        "block_float_lr": BlockFit.float_lr, "block_batch": 4, "block_loss": BlockFit.loss,
        "block_importance": BlockFit.importance, "block_order": BlockFit.order, "block_margin": BlockFit.margin,
        "minutes": 0.0,
    }  # fmt: skip
    assert main([*words, "--steps", "4"]) == 0
    others = {
        "--block-steps": "5", "--block-lr": "1e-2", "--block-batch": "2", "--block-tokens": "256", "--block-absorb": "1",
        "--block-scale-lr": "0.1", "--block-float-lr": "0.1", "--block-loss": "plain", "--block-importance": "none",
        "--block-order": "single", "--block-margin": "0.1",
    }  # fmt: skip
    for name, value in others.items():
        assert main([*words, "--steps", "4", name, value]) == 1
        assert f"ERR_RUN_DIFFERS: {run} was begun with {name[2:].replace('-', '_')}" in capsys.readouterr().err
    assert main(["train", *where(made, run), *FAST, "--steps", "4"]) == 1
    assert "ERR_RUN_DIFFERS" in capsys.readouterr().err


def test_a_run_from_before_they_were_recorded_goes_on(made, tmp_path):  # noqa: F811
    words = ["reconstruct", *where(made, tmp_path / "run"), *FAST, "--steps", "3", *SHORT]
    assert main(words) == 0
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "more"}))
    assert main(words) == 0


def test_a_start_file_is_of_the_teachers_own_weights(made, tmp_path, capsys):  # noqa: F811
    words = ["reconstruct", *where(made, tmp_path / "run"), *FAST, *SHORT, "--start", "there.obt"]
    assert main(words) == 1
    assert "--block-absorb 0 --block-order together" in capsys.readouterr().err


@pytest.mark.parametrize(
    "bad",
    [{"tokens": 0}, {"steps": -1}, {"absorb": -1}, {"lr": 0.0}, {"scale_lr": 11.0}, {"float_lr": -1.0}, {"batch": 0},
     {"loss": "square"}, {"importance": "all"}, {"order": "backwards"}, {"lr": float("nan")},
     {"margin": -0.1}],
)  # fmt: skip
def test_bad_options(bad):
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        BlockFit(**bad)


def test_a_fit_that_diverges_says_so():
    with pytest.raises(DistillError, match="ERR_NAN_LOSS"):
        fitter(replace(QUICK, importance="none"), inputs=lambda x: x * float("nan")).fit()
