"""The training loop: it learns, survives kills at any moment, and says what went wrong."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_model import TEXT, tiny_config, tiny_llama, write_folder

from onebit_distill.cli import main
from onebit_distill.data import topk
from onebit_distill.system.processes import World, multiplied_in
from onebit_distill.training import checkpoint, trainer
from onebit_distill.training.checkpoint import (
    Progress,
    checkpoint_steps,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from onebit_distill.training.metrics import read_metrics
from onebit_distill.training.optimiser import make_optimisers, rate
from onebit_distill.training.run_folder import load_student
from onebit_distill.training.settings import Settings
from onebit_distill.training.trainer import LossScale

PACKAGE = Path(__file__).resolve().parents[1]
ALONE = World(0, 1, torch.device("cpu"))
FAST = (
    "--block 32 --batch 4 --micro-batch 2 --precision f32 --log-every 1 --hidden-weight 1 --validation-blocks 2".split()
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_folder(folder / "teacher")
    words = TEXT.split()
    texts = [" ".join(words[i % 17 :][: 20 + i % 30]) for i in range(80)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def arguments(made, run, *more):
    return [
        "train",
        "--teacher",
        str(made / "teacher"),
        "--data",
        str(made / "texts.jsonl"),
        "--out",
        str(run),
        *FAST,
        *more,
    ]


def losses(run):
    return {e["step"]: e["loss"] for e in read_metrics(run / "metrics.jsonl") if "loss" in e}


def test_it_learns_writes_metrics_and_plots(made, tmp_path):
    assert main(arguments(made, tmp_path / "run", "--steps", "60", "--validate-every", "30")) == 0
    course = losses(tmp_path / "run")
    assert sorted(course) == list(range(1, 61))
    assert sum(course[s] for s in range(51, 61)) < 0.7 * sum(course[s] for s in range(1, 11))
    checks = [e for e in read_metrics(tmp_path / "run" / "metrics.jsonl") if "validation_perplexity" in e]
    assert [e["step"] for e in checks] == [30, 60]
    assert (tmp_path / "run" / "metrics.svg").read_text().startswith("<?xml")
    model, record, step = load_student(tmp_path / "run")
    assert step == 60 and record.settings.steps == 60 and torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


def test_a_limited_time_begins_with_a_warm_up():
    """Nobody knows yet how many steps there will be: the first was once taken at the full rate, as if it were the only one."""
    one = object.__new__(trainer.Trainer)
    one.budget, one.line = SimpleNamespace(is_limited=True, left=lambda: 60.0), SimpleNamespace(steps=0)
    one.progress, one._recent = Progress(), []
    one._plan()
    assert rate(Settings(), 0, one.steps) < 0.05 and one.line.steps == one.steps
    one.progress.step, one._recent = 1, [0.5]
    one._plan()
    assert one.steps == 1 + 120
    one.progress.step, one._recent = 80, []  # one that goes on: near its end, whatever is left
    one._plan()
    assert one.steps == 81


def test_a_run_goes_on_with_the_student_of_another(made, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(arguments(made, first, "--steps", "60", "--schedule", "constant")) == 0
    longer = ("--from", str(first), "--block", "64", "--batch", "2", "--steps", "8", "--lr", "1e-3")
    assert main(arguments(made, second, *longer)) == 0
    course = losses(second)
    assert course[1] == pytest.approx(losses(first)[60], rel=0.25)  # other sequences, the same student
    assert course[1] < 0.7 * losses(first)[1]
    before, after = load_student(first)[0].linears(), load_student(second)[0].linears()
    for name, layer in after.items():  # its rates are too low for a sign to turn within 8 steps, but not for the rest
        assert torch.equal(layer.weight < 0, before[name].weight < 0)
        assert not torch.equal(layer.weight_scale, before[name].weight_scale)
    # it is the folder's own checkpoint that goes on, whatever has become of the other run
    shutil.rmtree(first)
    assert main(arguments(made, second, *longer, "--steps", "12")) == 0
    assert {step: losses(second)[step] for step in course} == course and len(losses(second)) == 12


def test_students_of_other_runs_that_do_not_fit_are_refused(made, tmp_path, capsys):
    first = tmp_path / "first"
    assert main(arguments(made, first, "--steps", "2")) == 0

    def refused(code, words, source, *more):
        capsys.readouterr()
        assert main(arguments(made, tmp_path / "other", "--from", str(source), "--steps", "2", *more)) == 1
        said = capsys.readouterr().err
        assert code in said and words in said, said
        assert not checkpoint_steps(tmp_path / "other")

    refused("ERR_START_FIT", "kind = 'onebit', now it is 'chain:1.0'", first, "--kind", "chain:1.0")
    refused("ERR_START_FIT", "layernorm = False, now it is True", first, "--layernorm")
    refused("ERR_BAD_OPTION", "there is one start", first, "--start", "s.obt")
    refused("ERR_NO_RUN", "is not the folder of a training run", tmp_path)
    write_folder(tmp_path / "teacher", tiny_config(hidden_dim=128))
    refused("ERR_START_FIT", "another shape", first, "--teacher", str(tmp_path / "teacher"))
    # and a folder that was begun without one does not go on with one
    refused_by_folder = arguments(made, first, "--steps", "4", "--from", str(first))
    assert main(refused_by_folder) == 1 and "begun with from = None" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [{"architecture": "mistral", "window": 7}, {"architecture": "qwen2", "biases": ("wq", "wk", "wv")}],
    ids=["mistral", "qwen2"],
)
def test_students_of_the_family_have_what_their_teacher_has(made, tmp_path, changes):
    write_folder(tmp_path / "teacher", tiny_config(**changes))
    shutil.copy(made / "texts.jsonl", tmp_path)
    more = ("--steps", "20", "--attention-weight", "0.1", "--gradient-checkpointing")
    assert main(arguments(tmp_path, tmp_path / "run", *more)) == 0
    course = losses(tmp_path / "run")
    assert sum(course[s] for s in range(16, 21)) < sum(course[s] for s in range(1, 6))
    model, record, _ = load_student(tmp_path / "run")
    assert record.config == tiny_config(**changes)
    bias = model.model.layers[0].self_attn.v_proj.bias
    assert (bias is None) == (record.config.biases == ())


def killed_in_the_middle(argv, run):
    """Trains 40 steps in a process of its own, from nothing, and kills it after some 10; False when it had ended before."""
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "onebit_distill", *argv]
    child = subprocess.Popen(
        command, cwd=PACKAGE, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    metrics = run / "metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) >= 10):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() in (0, -signal.SIGKILL)
    reached = checkpoint_steps(run)
    return bool(reached) and reached[-1] < 40


def test_kill_9_and_resume_give_the_losses_of_an_uninterrupted_run(made, tmp_path):
    options = ("--steps", "40", "--checkpoint-every", "7", "--ema", "0.9", "--optimiser", "muon")
    assert main(arguments(made, tmp_path / "whole", *options)) == 0
    # On a busy machine a kill may come after the end: then once more.
    assert any(
        killed_in_the_middle(arguments(made, tmp_path / "killed", *options), tmp_path / "killed") for _ in range(10)
    )
    assert main(arguments(made, tmp_path / "killed", *options)) == 0
    whole, killed = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert whole == killed and len(whole) == 40
    first, second = (load_weights(tmp_path / name)[1] for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def state(seed=1):
    model = tiny_llama(tiny_config(n_layers=1), seed).requires_grad_(True)
    optimisers = make_optimisers(model, Settings(optimiser="muon"))
    model(torch.arange(8)[None]).logits.square().mean().backward()
    for optimiser in optimisers:
        optimiser.step()
    return model, optimisers


def test_a_crash_at_any_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    model, optimisers = state()
    save_checkpoint(tmp_path, model, optimisers, None, Progress(step=1), ALONE, keep=1)
    real, calls = os.fsync, []

    def crash(handle):
        calls.append(handle)
        if len(calls) == limit:
            raise KeyboardInterrupt  # like a kill: nothing that handles errors sees it
        real(handle)

    monkeypatch.setattr(checkpoint.os, "fsync", crash)
    for limit in range(1, 12):  # noqa: B007 (read by crash)
        calls.clear()
        try:
            save_checkpoint(tmp_path, model, optimisers, None, Progress(step=2), ALONE, keep=1)
        except KeyboardInterrupt:
            last = checkpoint_steps(tmp_path)[-1]
            other, theirs = state(seed=2)
            assert load_checkpoint(tmp_path, last, other, theirs, None, ALONE).step == last
            assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
        else:
            break
    assert limit == 8 and checkpoint_steps(tmp_path) == [2]  # five files, their folder, the run's folder


def test_a_full_disk_is_said_and_loses_nothing(tmp_path, monkeypatch, capsys, made):
    assert main(arguments(made, tmp_path / "run", "--steps", "4", "--checkpoint-every", "2")) == 0
    monkeypatch.setattr(checkpoint.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
    assert main(arguments(made, tmp_path / "run", "--steps", "8", "--checkpoint-every", "2")) == 1
    assert "ERR_DISK_FULL" in capsys.readouterr().err
    assert checkpoint_steps(tmp_path / "run") == [2, 4]
    assert [p.name for p in (tmp_path / "run").glob("*tmp*")] == []


def test_a_damaged_checkpoint_is_refused(tmp_path):
    model, optimisers = state()
    save_checkpoint(tmp_path, model, optimisers, None, Progress(step=3), ALONE, keep=1)
    path = tmp_path / "checkpoint-0000003" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match="ERR_CHECKPOINT.*damaged"):
        load_checkpoint(tmp_path, 3, model, optimisers, None, ALONE)
    path.write_bytes(data[:-4])
    assert checkpoint_steps(tmp_path) == []


def test_nan_stops_with_the_step_and_keeps_the_checkpoint(made, tmp_path, capsys, monkeypatch):
    real = trainer.Trainer._gradients

    def poison(self, step):
        if step == 3:
            with torch.no_grad():
                self.model.model.norm.weight.fill_(float("nan"))
        return real(self, step)

    monkeypatch.setattr(trainer.Trainer, "_gradients", poison)
    assert main(arguments(made, tmp_path / "run", "--steps", "9", "--checkpoint-every", "2")) == 1
    error = capsys.readouterr().err
    assert "ERR_NAN_LOSS" in error and "step 4" in error and "checkpoint of step 2 is kept" in error
    assert checkpoint_steps(tmp_path / "run") == [2]
    assert all(torch.isfinite(value).all() for value in load_weights(tmp_path / "run")[1].values())


def test_sigterm_writes_a_checkpoint_and_stops(made, tmp_path, capsys, monkeypatch):
    real = trainer.Trainer._step

    def step(self):
        real(self)
        if self.progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer.Trainer, "_step", step)
    assert main(arguments(made, tmp_path / "run", "--steps", "9", "--checkpoint-every", "100")) == 1
    assert "ERR_INTERRUPTED" in capsys.readouterr().err
    assert checkpoint_steps(tmp_path / "run") == [3]


def test_a_run_is_not_continued_with_other_options(made, tmp_path, capsys):
    assert main(arguments(made, tmp_path / "run", "--steps", "1")) == 0
    assert main(arguments(made, tmp_path / "run", "--steps", "1", "--lr", "0.5")) == 1
    assert "ERR_RUN_DIFFERS" in capsys.readouterr().err


def test_a_block_beyond_the_context_is_refused(made, tmp_path, capsys):
    assert main(arguments(made, tmp_path / "run", "--block", "256")) == 1
    assert "ERR_CONTEXT_LENGTH" in capsys.readouterr().err


def test_a_cpu_works_on_a_part_of_a_large_micro_batch():
    found = [trainer._at_once(*sizes) for sizes in ((8, 512), (6, 512), (1, 4096), (3, 4096), (16, 32), (5, 1024))]
    assert found == [4, 3, 1, 1, 16, 1]


def test_parts_of_a_micro_batch_give_the_losses_of_all_of_it(made, tmp_path, monkeypatch):
    assert main(arguments(made, tmp_path / "whole", "--steps", "6")) == 0
    monkeypatch.setattr(trainer, "_CPU_TOKENS", 32)
    assert main(arguments(made, tmp_path / "parts", "--steps", "6")) == 0
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert max(abs(whole[step] - parts[step]) for step in whole) < 1e-4


def test_half_precision_skips_overflows_as_deepspeed():
    scale = LossScale(64, window=3)
    scale.update(True)
    assert scale.scale == 64  # hysteresis: the first overflow is forgiven
    scale.update(True)
    assert scale.scale == 32
    for _ in range(3):
        scale.update(False)
    assert scale.scale == 64
    for _ in range(20):
        scale.update(True)
    assert scale.scale == 1


@pytest.mark.parametrize("options", [("--precision", "fp16"), ("--precision", "bf16", "--gradient-checkpointing")])
def test_half_precision_learns(made, tmp_path, options):
    assert main(arguments(made, tmp_path / "run", "--steps", "30", *options)) == 0
    course = losses(tmp_path / "run")
    assert sum(course[s] for s in range(26, 31)) < 0.9 * sum(course[s] for s in range(1, 6))


@pytest.mark.parametrize("precision", ["bf16", "f32"])
def test_where_bf16_is_emulated_products_are_in_f32(made, tmp_path, monkeypatch, precision):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    assert multiplied_in("bf16", torch.device("cuda")) == "bf16" and multiplied_in("fp16", ALONE.device) == "fp16"
    options = ("--steps", "3", "--optimiser", "muon", "--precision")
    assert main(arguments(made, tmp_path / "run", *options, precision)) == 0
    assert main(arguments(made, tmp_path / "other", *options, "f32")) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "other")


def test_top_k_logits_are_kept_on_the_disk(made, tmp_path, monkeypatch):
    options = ("--steps", "30", "--packing", "fixed", "--top-k", "16", "--hidden-weight", "0", "--validation", "0.4")
    options = (*options, "--block", "64")
    calls = []
    real = topk.TopKCache.lookup

    def lookup(self, teacher, ids, first):
        before = int(self.filled.sum())
        found = real(self, teacher, ids, first)
        calls.append(int(self.filled.sum()) - before)
        return found

    monkeypatch.setattr(topk.TopKCache, "lookup", lookup)
    assert main(arguments(made, tmp_path / "run", *options)) == 0
    assert sum(calls[:4]) == 8 and calls[-1] == 0  # later epochs no longer need the teacher
    course = losses(tmp_path / "run")
    assert course[30] < course[1]


def test_more_logits_than_tokens_are_refused(made, tmp_path, capsys):
    options = ("--packing", "fixed", "--hidden-weight", "0", "--top-k", "1000")
    assert main(arguments(made, tmp_path / "run", *options)) == 1
    assert "ERR_BAD_OPTION: top_k" in capsys.readouterr().err


def test_a_disk_too_full_for_top_k_logits_is_said_before_they_are_written(made, tmp_path, capsys, monkeypatch):
    """A hole in a mapped file that the disk cannot fill would end the process without a word (SIGBUS)."""

    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(topk, "_reserve", full)
    options = ("--packing", "fixed", "--hidden-weight", "0", "--top-k", "16", "--steps", "2")
    assert main(arguments(made, tmp_path / "run", *options)) == 1
    assert "ERR_DISK_FULL" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(arguments(made, tmp_path / "run", *options)) == 0
    files = [path for path in (tmp_path / "run" / "top-k").iterdir() if path.stat().st_size > 4096]
    assert files and all(path.stat().st_blocks * 512 >= path.stat().st_size for path in files)


@pytest.mark.parametrize("command", ["train", "reconstruct", "generate"])
def test_a_file_in_the_place_of_the_folder_is_a_named_error(made, tmp_path, capsys, command):
    (tmp_path / "run").write_text("a file")
    argv = [command, *arguments(made, tmp_path / "run", "--steps", "1")[1:]]
    if command == "generate":
        argv = ["generate", "--teacher", str(made / "teacher"), "--out", str(tmp_path / "run"), "--length", "20"]
    assert main(argv) == 1
    assert "onebit_distill: ERR_" in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "a file"


def test_validation_texts_shorter_than_a_block_are_said(made, tmp_path, capsys):
    (tmp_path / "short.txt").write_text("fox")
    assert main(arguments(made, tmp_path / "run", "--validation-data", str(tmp_path / "short.txt"))) == 1
    assert "ERR_DATA" in capsys.readouterr().err


def test_a_torn_note_of_the_tokens_source_is_made_again(made, tmp_path):
    assert main(arguments(made, tmp_path / "run", "--steps", "1")) == 0
    (tmp_path / "run" / "tokens" / "source.json").write_text("{")
    assert main(arguments(made, tmp_path / "run", "--steps", "2")) == 0


def test_a_run_goes_on_with_the_same_texts_and_tokenizer_only(made, tmp_path, capsys):
    shutil.copytree(made / "teacher", tmp_path / "teacher")
    words = arguments(made, tmp_path / "run", "--steps", "2")
    words[words.index("--teacher") + 1] = str(tmp_path / "teacher")
    assert main(words) == 0
    words[words.index("--steps") + 1] = "3"
    # texts for validation: none of the others is held out any more, so all steps would be other ones
    assert main([*words, "--validation-data", str(made / "texts.jsonl")]) == 1
    assert "ERR_RUN_DIFFERS" in capsys.readouterr().err
    path = tmp_path / "teacher" / "tokenizer.json"
    found = json.loads(path.read_text())
    vocabulary = found["model"]["vocab"]
    # every id is another one's
    vocabulary.update(zip(vocabulary, [*list(vocabulary.values())[1:], 0], strict=True))
    path.write_text(json.dumps(found))
    kept = (tmp_path / "run" / "text.json").read_bytes()
    assert main(words) == 1
    assert "ERR_RUN_DIFFERS" in capsys.readouterr().err
    assert (tmp_path / "run" / "text.json").read_bytes() == kept
