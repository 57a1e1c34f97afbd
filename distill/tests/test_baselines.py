"""The paper's comparisons: what is run, how it is judged, and the whole command shrunk to seconds."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from test_settings import CONFIGS
from tiny_model import TEXT, tiny_config, tiny_llama, write_folder
from torch.nn import functional as F

from onebit_distill.cli import main
from onebit_distill.errors import DistillError
from onebit_distill.model.linear import BitNetLinear, OneBitLinear, SignChain, SignOptions
from onebit_distill.model.starts import student_of
from onebit_distill.studies.baselines import claims as baselines_claims
from onebit_distill.studies.baselines import run as baselines
from onebit_distill.studies.baselines.book import Book
from onebit_distill.studies.baselines.claims import CLAIMS, FAILS, HOLDS, OPEN
from onebit_distill.studies.baselines.measure import Validation, rounded, score
from onebit_distill.studies.baselines.plan import all_rows, longer, read_study
from onebit_distill.studies.baselines.results import Result, Scores
from onebit_distill.studies.baselines.run import RememberingTeacher
from onebit_distill.studies.bits import layer_bits
from onebit_distill.studies.charts import Axis, Line, bar_chart, line_chart, number
from onebit_distill.training.settings import read_settings

PACKAGE = Path(__file__).resolve().parents[1]
FULL = read_study(CONFIGS / "baselines.toml")

#: configs/baselines.toml with few and short runs
SMALL = {
    "paper_rates": "[4e-4]",
    "rates": "[4e-4, 1.5e-3]",
    "alphas": "[0.0, 1.0]",
    "rounding_bits": "[1, 2, 8]",
    "chain_bits": "[1.0]",
    "latent_means": "[0.01]",
    "seeds": "[0, 1]",
    "longer": "2",
    "sequences": "24",
    "length": "48",
    "block": "16",
    "validation_blocks": "8",
    "steps": "3",
    "batch": "2",
    "micro_batch": "2",
    "checkpoint_every": "2",
}


def small_config(path: Path, **changes: str) -> Path:
    text = (CONFIGS / "baselines.toml").read_text()
    for name, value in {**SMALL, **changes}.items():
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.M)
        assert count >= 1, name
    path.write_text(text)
    return path


# What is run


def test_both_recipes_are_those_of_their_files():
    sizes = {"block", "validation", "validation_blocks", "steps", "epochs", "batch", "micro_batch", "warmup"}
    machine = {"precision", "device", "threads", "log_every", "validate_every", "checkpoint_every", "fp16_scale"}
    machine |= {"fp16_window", "gradient_checkpointing", "sharding"}
    for name, own in (("paper", {"logits_weight"}), ("default", set())):
        file = read_settings(CONFIGS / f"{name}.toml").to_dict()
        found = {"paper": FULL.paper, "default": FULL.ours}[name].to_dict()
        differing = {key for key in file if file[key] != found[key]}
        assert differing <= sizes | machine | own, differing - sizes - machine - own
    paper = read_settings(CONFIGS / "paper.toml")
    assert FULL.paper.logits_weight * FULL.paper.block == pytest.approx(paper.logits_weight * paper.block)
    assert FULL.paper.warmup == pytest.approx(paper.warmup / 29_700, rel=0.01)
    assert FULL.ours.warmup == read_settings(CONFIGS / "default.toml").warmup
    assert FULL.sizes.paper_rates == [1e-4, 2e-4, 4e-4]


def test_the_changes_lead_from_one_recipe_to_the_other():
    assert FULL.after(0) == FULL.paper and FULL.after(len(FULL.changes)) == FULL.ours
    for count, change in enumerate(FULL.changes, 1):
        before, after = FULL.after(count - 1).to_dict(), FULL.after(count).to_dict()
        assert {name for name in after if after[name] != before[name]} <= set(change.options)
        ours, without = FULL.ours.to_dict(), FULL.without(change).to_dict()
        assert {name for name in ours if ours[name] != without[name]} <= set(change.options)
        assert FULL.without(change) != FULL.ours


def test_equal_settings_are_one_run():
    rows = all_rows(FULL)
    settings = [tuple(row.settings.to_dict().items()) for row in rows]
    assert len(set(settings)) == len(rows) == len({row.key for row in rows})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[baselines]", "[baseline]", "baseline"),
        ("longer = 2", "longer = 0", "longer"),
        ("seeds = [0, 1, 2]", "seeds = []", "seeds"),
        ("seeds = [0, 1, 2]", "seeds = [0.5]", "seeds"),
        ("reference_rate = 1.5e-3", "reference_rate = 2e-3", "0.002"),
        ("alphas = [0.0, 1.0, 10.0]", "alphas = [1.0]", "alphas"),
        ('options = ["layernorm"]', "options = []", "layernorm"),
        ('options = ["layernorm"]', 'options = ["layernorm", "lr"]', "lr"),
        ('options = ["layernorm"]', 'options = ["layernorms"]', "layernorms"),
        ('name = "no LayerNorm"', 'title = "no LayerNorm"', "changes"),
        ("top_k = 50", "top_q = 50", "top_q"),
    ],
)
def test_bad_files_are_named_errors(tmp_path, old, new, said):
    text = (CONFIGS / "baselines.toml").read_text()
    assert old in text
    (tmp_path / "c.toml").write_text(text.replace(old, new))
    with pytest.raises(DistillError) as caught:
        read_study(tmp_path / "c.toml")
    assert caught.value.code == "ERR_CONFIG_FILE" and said in caught.value.message


# What is measured


def test_bits_count_scales():
    assert layer_bits(OneBitLinear(4096, 4096)) == (16_908_288, 4096 * 4096)  # appendix A.7
    assert layer_bits(SignChain(64, 128, 32)) == (32 * 192 + 16 * (192 + 32), 64 * 128)
    assert layer_bits(BitNetLinear(64, 128)) == (64 * 128 + 16, 64 * 128)


def test_scores_are_those_of_plain_formulas():
    teacher, other = tiny_llama(tiny_config(), 1), tiny_llama(tiny_config(), 2)
    blocks = (np.arange(3 * 20).reshape(3, 20) * 7 % 320).astype(np.int64)
    validation = Validation.of(teacher, blocks)
    own = score(teacher, validation)
    assert own.kl == pytest.approx(0, abs=1e-6)
    found = score(other, validation)
    ids = torch.from_numpy(blocks)
    p, q = (F.softmax(model(ids).logits.double(), -1) for model in (teacher, other))
    assert found.kl == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-4)
    picked = q[:, :-1].gather(-1, ids[:, 1:, None]).log().mean()
    assert found.perplexity == pytest.approx(math.exp(-float(picked)), rel=1e-4)
    largest = 0.0
    for layer in other.linears().values():
        layer.register_forward_hook(lambda *args: outputs.append(float(args[2].abs().max())))
    outputs = []
    other(ids)
    largest = max(outputs)
    assert found.largest_output == pytest.approx(largest, rel=1e-5) and found.largest_product == 0


@pytest.mark.parametrize(("kind", "layernorm"), [("onebit", True), ("onebit", False), ("bitnet", True)])
def test_the_product_that_overflows_is_the_one_before_h(kind, layernorm):
    teacher = tiny_llama(tiny_config())
    student = student_of(teacher, kind, options=SignOptions(layernorm=layernorm, fold_scales=False))
    blocks = (np.arange(2 * 20).reshape(2, 20) * 7 % 320).astype(np.int64)
    seen, real = [], F.linear

    def linear(x, w, *more):
        y = real(x, w, *more)
        if bool((w.abs() == 1).all()):  # signs as they are
            seen.append(float(y.abs().max()))
        return y

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onebit_distill.model.linear.F.linear", linear)
        found = score(student, Validation.of(teacher, blocks))
    assert found.largest_product == pytest.approx(max(seen), rel=1e-4) and found.largest_product > 0
    assert len(seen) >= 14


def test_more_bits_are_nearer_to_the_teacher():
    teacher = tiny_llama(tiny_config())
    validation = Validation.of(teacher, (np.arange(64).reshape(2, 32) * 11 % 320).astype(np.int64))
    for symmetric in (False, True):
        apart = [score(rounded(teacher, bits, symmetric), validation).kl for bits in (2, 4, 8)]
        assert apart[0] > apart[1] > apart[2] > 0


def test_what_the_teacher_said_is_kept_and_the_same(monkeypatch):
    model = tiny_llama(tiny_config())
    remembering = RememberingTeacher(model)
    ids, others = torch.arange(20)[None], torch.arange(20)[None] + 1
    first, plain = remembering(ids), model(ids, hidden_states=True)
    assert torch.equal(first.logits, plain.logits)
    assert all(map(torch.equal, first.hidden_states, plain.hidden_states))
    assert remembering(ids, hidden_states=True, logits="none") is remembering(ids, logits="none")
    assert torch.equal(remembering(others).logits, model(others).logits)
    assert len(remembering(ids, attentions=True).attentions) == model.config.n_layers
    monkeypatch.setattr(RememberingTeacher, "_MOST_BYTES", 0)
    full = RememberingTeacher(model)
    assert full(ids, logits="none") is not full(ids, logits="none") and not full.said


# How it is judged


def fake_book(perplexities=None, curves=None, failed=(), **parts) -> Book:
    """Every run has perplexity 10, unless its label says otherwise."""
    runs = {}
    for row in all_rows(FULL):
        label = f"{row.label} seed {row.settings.seed}"
        value = next((v for part, v in (perplexities or {}).items() if part in label), 10.0)
        curve = next((c for part, c in (curves or {}).items() if part in label), [2.0, 1.0])
        bad = any(part in label for part in failed)
        scores = None if bad else Scores(value, math.log(value), 5.0)
        runs[row.key] = Result(row.label, {}, scores, "it failed" if bad else None, curve, 1.5, 60.0)
    given = {
        "study": FULL,
        "runs": runs,
        "teacher": None,
        "teacher_scores": Scores(6.0, 0.0, 5.0),
        "rounding": {
            f"{k} {b}": Scores(5.0 + 200 / b**2, 1.0, 5.0) for k in ("even", "symmetric") for b in range(1, 9)
        },
        "starts": {"svd": {"errors": [0.6, 0.6]}},
        "rank_one_errors": [0.9, 0.9],
        "validation_tokens": 100,
        "training_tokens": 100,
        "other_cpu_seconds": 0.0,
        "command": "",
    }
    return Book(**{**given, **parts})


def verdict(name, *args, **kwargs):
    return CLAIMS[name](fake_book(*args, **kwargs)).verdict


@pytest.mark.parametrize(
    ("name", "expected", "perplexities"),
    [
        ("ratio", HOLDS, {}),
        ("ratio", FAILS, {"lr 0.0": 11.0, "OneBit, lr": 11.0}),
        ("bitnet", OPEN, {}),
        ("bitnet", HOLDS, {"BitNet": 12.0}),
        ("bitnet", FAILS, {"BitNet": 8.0}),
        ("layernorm", OPEN, {}),
        ("layernorm", HOLDS, {"without LayerNorm": 12.0}),
        ("layernorm", FAILS, {"OneBit without LayerNorm, lr 0.0015": 8.0}),
        ("hidden", OPEN, {}),
        ("hidden", HOLDS, {"alpha 0 ": 12.0}),
        ("hidden", FAILS, {"alpha 0 ": 8.0}),
        ("alpha", HOLDS, {}),
        ("alpha", FAILS, {"alpha 10 ": 8.0}),
        ("magnitudes", HOLDS, {"latents magnitude, mean 0.01": 8.0}),
        ("magnitudes", FAILS, {"latents": 12.0}),
        ("rounding", HOLDS, {}),
        ("rounding", FAILS, {"OneBit, lr": 99.0, "paper, lr": 99.0}),
        ("target", FAILS, {}),
        ("target", HOLDS, {"ours seed": 8.5}),
        ("target", FAILS, {"ours seed 1": 8.6, "ours seed": 8.0}),
        ("target", FAILS, {"ours seed": 8.0, "paper, lr 0.0001 seed 2": 9.0}),
        ("target_longer", HOLDS, {"ours, 2": 8.0}),
        ("target_longer", FAILS, {"ours, 2": 8.0, "reference rate, 2": 9.0}),
        ("attention", FAILS, {}),
        ("proposition", HOLDS, {}),
    ],
)  # fmt: skip
def test_claims_follow_the_results(name, expected, perplexities):
    assert verdict(name, perplexities) == expected


def test_claims_about_the_course_of_training():
    calm, jumping = [3.0] * 8 + [2.0] * 40, [2.0] * 24 + [4.0] * 24
    assert verdict("sensitivity") == OPEN and verdict("instability") == FAILS
    assert verdict("sensitivity", {"BitNet, lr 0.0004": 20.0}) == HOLDS
    assert verdict("sensitivity", {"paper, lr 0.0004": 20.0}) == FAILS
    assert verdict("instability", curves={"BitNet, lr 0.0015": jumping, "": calm}) == HOLDS
    everywhere = {"BitNet, lr 0.0015": jumping, "OneBit, lr 0.0008": jumping, "": calm}
    assert verdict("instability", curves=everywhere) == FAILS
    assert verdict("instability", failed=("BitNet, lr 0.0008",)) == HOLDS
    slow = {"start copy": [4.0, 1.0]}
    assert verdict("decomposition", curves=slow) == OPEN  # faster, but not better in the end
    assert verdict("decomposition", {"start copy": 12.0}, curves=slow) == HOLDS
    assert verdict("decomposition", {"start copy": 8.0}, curves=slow) == FAILS
    assert verdict("nmf", curves={"start svd": [4.0, 1.0]}) == HOLDS
    assert verdict("nmf", curves={"start svd": [1.0, 1.0]}) == FAILS
    assert verdict("layernorm", failed=("without LayerNorm, lr 0.0015",)) == HOLDS
    assert verdict("layernorm", failed=("without LayerNorm, fp16",)) == HOLDS
    assert verdict("attention", failed=("attention, fp16",)) == HOLDS
    assert verdict("attention", failed=("alpha 1 and attention",)) == FAILS  # the paper's failed in fp16


def test_products_beyond_fp16_decide_about_layernorm():
    book = fake_book()
    row = next(row for row in all_rows(FULL) if row.label == "OneBit without LayerNorm, lr 0.0008")
    for product, expected in ((6e4, OPEN), (7e4, HOLDS)):
        scores = replace(book.runs[row.key].scores, largest_product=product)
        runs = {**book.runs, row.key: replace(book.runs[row.key], scores=scores)}
        assert CLAIMS["layernorm"](replace(book, runs=runs)).verdict == expected


def test_proposition_2_is_about_every_linear():
    assert verdict("proposition", rank_one_errors=[0.9, 0.5]) == FAILS


def test_what_two_seeds_are_apart_is_no_difference():
    book = fake_book({"ours seed 2": 10.7})
    assert book.noise() == pytest.approx(0.07)
    assert verdict("hidden", {"alpha 0 ": 10.5}) == HOLDS  # one per cent is enough where seeds agree
    assert verdict("hidden", {"alpha 0 ": 10.5, "ours seed 2": 10.7}) == OPEN
    assert baselines_claims.compare(math.inf, 3.0, 0.1) == 1


# Charts


def test_charts_are_readable_svg():
    lines = [
        Line("a <b> & c", [(1.0, 3.0), (2.0, math.inf), (10.0, 4000.0)]),
        Line("level", [], level=20.0),
    ]
    svg = line_chart("T", Axis("x", log=True), Axis("y", log=True), lines)
    root = ElementTree.fromstring(svg)
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a <b> & c" in texts and "1,000" in texts and "10" in texts
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 2 and float(circles[0].get("cy")) > float(circles[1].get("cy"))
    assert "prefers-color-scheme:dark" in svg and 'class="b"' in svg
    bars = ElementTree.fromstring(bar_chart("B", [("one", 1.0), ("two", 4.0)]))
    widths = [float(e.get("width")) for e in bars.iter("{http://www.w3.org/2000/svg}rect") if e.get("class") == "f0"]
    assert widths[1] == pytest.approx(4 * widths[0], rel=1e-3)
    with pytest.raises(ValueError):
        line_chart("T", Axis("x"), Axis("y"), [])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4e-4, "0.0004"),
        (1e-5, "1e-5"),
        (1.5e-3, "0.0015"),
        (12.345, "12.3"),
        (29502.6, "29,503"),
        (1e9, "1e9"),
        (0, "0"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


# The command


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_folder(folder / "teacher")
    words = TEXT.split()
    texts = [" ".join(words[i % 17 :][: 20 + i % 30]) for i in range(30)]
    (folder / "held-out.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    small_config(folder / "small.toml")
    return folder


def arguments(made, out, *more):
    paths = ["--teacher", str(made / "teacher"), "--validation-data", str(made / "held-out.jsonl")]
    return ["baselines", *paths, "--out", str(out), "--config", str(made / "small.toml"), *more]


@pytest.fixture(scope="module")
def finished(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("baselines")
    assert main(arguments(made, out, "--report", str(out / "docs" / "paper.md"))) == 0
    return out


def all_scores(out):
    found = {path.name: json.loads(path.read_text()) for path in (out / "results").glob("*.json")}
    return {name: value["scores"] for name, value in found.items() if "scores" in value}


def test_the_whole_command(made, finished):
    study = read_study(made / "small.toml")
    assert len(all_scores(finished)) == len(all_rows(study)) > 20
    assert not list(finished.glob("running-*"))
    report = (finished / "docs" / "paper.md").read_text()
    charts = re.findall(r"!\[[^\]]+\]\(paper/([a-z-]+\.svg)\)", report)
    assert len(charts) == len(set(charts)) == 7
    for name in charts:
        ElementTree.fromstring((finished / "docs" / "paper" / name).read_text())
    assert report.count(f"**{HOLDS}**") + report.count(f"**{FAILS}**") + report.count(f"**{OPEN}**") == len(CLAIMS)
    assert "bits" not in CLAIMS and re.search(r"1\.0073\s+bits\s+for\s+each\s+number", report)
    assert re.search(r"1\.0078\s+per\s+weight", report) and "nan" not in report.lower().replace("in nan", "")
    assert str(made) not in report and "--config small.toml" in report


def test_what_is_finished_is_not_done_again(made, finished, monkeypatch, capsys):
    before = (finished / "docs" / "paper.md").read_text()
    monkeypatch.setattr(baselines, "run_row", lambda *_: pytest.fail("a finished run was done again"))
    assert main(arguments(made, finished, "--report", str(finished / "docs" / "paper.md"))) == 0
    assert (finished / "docs" / "paper.md").read_text() == before
    assert re.search(r"going on, (\d+) of \1 runs are there", capsys.readouterr().err)


def test_a_changed_option_runs_only_what_is_new(made, finished, tmp_path, monkeypatch):
    config = small_config(tmp_path / "small.toml", chain_bits="[1.0, 2.0]")
    real, done = baselines.run_row, []
    monkeypatch.setattr(baselines, "run_row", lambda row, *rest: done.append(row.label) or real(row, *rest))
    argv = arguments(made, finished, "--report", str(tmp_path / "r.md"))
    argv[argv.index("--config") + 1] = str(config)
    assert main(argv) == 0
    assert done == ["chain, 2 bits"]


def test_kill_9_loses_nothing_that_was_finished(made, finished, tmp_path):
    command = [sys.executable, "-m", "onebit_distill", *arguments(made, tmp_path)]
    quiet = {"stderr": subprocess.DEVNULL, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    child = subprocess.Popen(command, cwd=PACKAGE, **quiet)
    results = tmp_path / "results"
    while not results.exists() or len(all_scores(tmp_path)) < 3:
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert len(all_scores(tmp_path)) < len(all_scores(finished)), "the kill came too late to test anything"
    assert main(arguments(made, tmp_path)) == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    whole, resumed = all_scores(finished), all_scores(tmp_path)
    assert resumed.items() <= whole.items() and len(resumed) > 20


def test_other_texts_are_refused(made, finished, tmp_path, capsys):
    (tmp_path / "other.jsonl").write_text(json.dumps({"text": TEXT * 3}) + "\n")
    argv = arguments(made, finished)
    argv[argv.index("--validation-data") + 1] = str(tmp_path / "other.jsonl")
    assert main(argv) == 1
    assert "ERR_RUN_DIFFERS" in capsys.readouterr().err


def test_a_run_that_diverges_is_a_result(made, finished, tmp_path, monkeypatch):
    """A failed run is written down as such, and the report goes on without its number."""
    real = baselines.Trainer.train

    def train(self):
        if self.settings.kind == "bitnet" and self.settings.lr > 1e-3:
            raise DistillError("ERR_NAN_LOSS", "Training stopped at step 2: the loss is nan")
        return real(self)

    monkeypatch.setattr(baselines.Trainer, "train", train)
    study = read_study(made / "small.toml")
    row = next(row for row in all_rows(study) if row.label == "BitNet, lr 0.0015")
    (finished / "results" / f"{row.key}.json").rename(tmp_path / "kept.json")
    try:
        assert main(arguments(made, finished, "--report", str(tmp_path / "r.md"))) == 0
        report = (tmp_path / "r.md").read_text()
        assert "| BitNet | 0.0015 | failed | failed | Training stopped at step 2: the loss is nan | failed |" in report
    finally:
        (tmp_path / "kept.json").replace(finished / "results" / f"{row.key}.json")


def test_no_validation_text_is_a_named_error(made, tmp_path, capsys):
    (tmp_path / "short.txt").write_text("fox")
    argv = arguments(made, tmp_path / "out")
    argv[argv.index("--validation-data") + 1] = str(tmp_path / "short.txt")
    assert main(argv) == 1
    assert "ERR_DATA" in capsys.readouterr().err


def test_a_damaged_result_is_named(made, finished, capsys):
    study = read_study(made / "small.toml")
    path = finished / "results" / f"{all_rows(study)[0].key}.json"
    whole = path.read_bytes()
    try:
        for damaged in (whole[:-20], b"[]", b'{"label": "x"}'):
            path.write_bytes(damaged)
            assert main(arguments(made, finished)) == 1
            assert "ERR_RESULT" in capsys.readouterr().err
    finally:
        path.write_bytes(whole)


def test_longer_runs_differ_in_their_steps_only():
    assert longer(FULL, "ours", 4) == replace(FULL.ours, steps=4 * FULL.ours.steps)
