"""The paper's table on a real model, shrunk to a tiny one: rows, how they go on, what the report says of them."""

import json
import math
import os
import re
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_settings import CONFIGS
from tiny_model import TEXT, tiny_config, write_folder

from onebit_distill.cli import main
from onebit_distill.data.teacher import load_teacher
from onebit_distill.errors import DistillError
from onebit_distill.export.student import export_model
from onebit_distill.studies.real_model import run as real_model
from onebit_distill.studies.real_model.claims import CLAIMS
from onebit_distill.studies.real_model.measure import METRICS, Engine
from onebit_distill.studies.real_model.plan import METHODS, ROWS, Plan, Row, chosen_rows, minutes_of
from onebit_distill.studies.real_model.recipes import recipe_of
from onebit_distill.studies.real_model.report import write_report
from onebit_distill.studies.real_model.results import Made, RowResult, Rows, Table, TaskScore
from onebit_distill.studies.verdicts import FAILS, HOLDS, OPEN
from onebit_distill.system.machine import describe_machine
from onebit_distill.training.settings import read_settings

FAKE = Path(__file__).parent / "fake_measuring_engine.py"
ENGINE_COMMAND = f"{sys.executable} {FAKE}"
BY_NAME = {row.name: row for row in ROWS}
#: one of each way of making, and of training only what no other test trains
MADE = ["teacher", "rtn-2", "gptq-2", "omniquant-1", "llm-qat-2", "bitnet", "onebit-paper", "onebit-best"]
#: that trained rows get: a machine that is busy with other things takes no step in the first of them
MINUTES = ("0.15", "0.6", "2.4")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    write_folder(folder / "teacher")
    words = TEXT.split()
    texts = [" ".join(words[i % 17 :][: 20 + i % 30]) for i in range(40)]
    for name, part in (("train.jsonl", texts[:30]), ("valid.jsonl", texts[30:])):
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    (folder / "wiki.txt").write_text(TEXT)
    (folder / "tasks").mkdir()
    (folder / "tasks" / "piqa-valid.jsonl").write_text("{}\n")
    os.environ["FAKE_CALLS"] = str(folder / "calls.txt")
    return folder


def arguments(material, out, *more, minutes=MINUTES[0]):
    return [
        "real-model", "--teacher", str(material / "teacher"), "--data", str(material / "train.jsonl"),
        "--validation-data", str(material / "valid.jsonl"), "--engine", ENGINE_COMMAND, "--out", str(out),
        "--perplexity-file", str(material / "wiki.txt"), "--tasks-data", str(material / "tasks"), "--limit", "50",
        "--minutes", minutes, "--full-minutes", "0.2", "--block", "16", "--batch", "2", "--calibration-tokens", "160",
        "--threads", "1", *more,
    ]  # fmt: skip


def row_file(out, name):
    return json.loads((out / "rows" / f"{name}.json").read_text())


def calls(material):
    path = material / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def finished(material, tmp_path_factory):
    for minutes in MINUTES:
        out = tmp_path_factory.mktemp("real")
        report = out / "docs" / "table.md"
        report.parent.mkdir()
        if main(arguments(material, out, "--rows", *MADE, "--report", str(report), minutes=minutes)) == 0:
            return out
    failures = [row_file(out, name)["failure"] for name in MADE]
    raise AssertionError(f"rows failed with {minutes} minutes too: {failures}")


def again(material, finished, *more):
    """The command that made `finished`, with other rows or options."""
    return arguments(material, finished, *more, minutes=str(minutes_given(finished)))


def minutes_given(out):
    return json.loads((out / "study.json").read_text())["plan"]["minutes"]


# The whole command


def test_every_row_is_a_file_and_what_the_engine_said_of_it(material, finished):
    assert {path.stem for path in (finished / "rows").iterdir()} == set(MADE)
    bits = {}
    for name in MADE:
        found = row_file(finished, name)
        assert found["failure"] is None and (finished / "models" / f"{name}.obt").exists()
        assert found["perplexity"]["perplexity"] == 10.0 * (1 + sum(name.encode()) % 7)
        assert found["perplexity"]["ctx"] == 128  # the teacher's context is shorter than 2048
        metrics = {task: score["metric"] for task, score in found["tasks"].items()}
        assert metrics == METRICS and all(score["questions"] == 50 for score in found["tasks"].values())
        values = [score["value"] for score in found["tasks"].values()]
        assert found["average"] == pytest.approx(sum(values) / 6)
        assert found["average_stderr"] == pytest.approx(math.sqrt(sum((0.01 * i) ** 2 for i in range(1, 7))) / 6)
        bits[name] = found["made"]["bits"]
    assert bits["teacher"] == 16 and bits["rtn-2"] == bits["gptq-2"] == bits["omniquant-1"] + 1
    assert 2 < bits["llm-qat-2"] < bits["rtn-2"] < 3
    assert 1 < bits["bitnet"] < bits["onebit-paper"] < bits["onebit-best"] < 2


def test_rows_say_what_they_were_made_of(finished):
    made = {name: row_file(finished, name)["made"] for name in MADE}
    trained = {name for name in MADE if BY_NAME[name].trained}
    for name in trained:
        assert made[name]["seconds"] < 60 * minutes_given(finished) + 60
    for name in trained - {"omniquant-1"}:
        assert made[name]["tokens"] % 32 == 0 and made[name]["settings"]["block"] == 16
    for name in ("llm-qat-2", "bitnet", "onebit-paper"):
        assert made[name]["tokens"] > 0
    for name in ("gptq-2", "omniquant-1", "onebit-best"):
        assert made[name]["calibration_tokens"] == 160
    assert made["rtn-2"]["calibration_tokens"] == made["teacher"]["tokens"] == 0
    assert [block["block"] for block in made["gptq-2"]["blocks"]] == [0, 1]
    assert all(block["steps"] > 0 for block in made["omniquant-1"]["blocks"])
    assert {row["machine"] for row in made.values()} == {describe_machine(1)}
    assert made["llm-qat-2"]["stored"] == "q8" and made["onebit-best"]["stored"] == ""
    assert 0 < made["rtn-2"]["stored_error"] <= 0.5001 / 127


def test_what_is_done_is_not_done_again(material, finished, monkeypatch, capsys):
    before, asked = row_file(finished, "gptq-2"), calls(material)
    monkeypatch.setattr(real_model, "make", lambda *_: pytest.fail("a row was made again"))
    assert main(again(material, finished, "--rows", *MADE)) == 0
    assert row_file(finished, "gptq-2") == before and calls(material) == asked
    assert "gptq-2 is there (3/8)" in capsys.readouterr().err


def test_a_model_that_was_made_is_only_measured(material, finished, monkeypatch):
    (finished / "rows" / "rtn-2.json").unlink()
    monkeypatch.setattr(real_model, "make", lambda *_: pytest.fail("a model was made again"))
    asked = len(calls(material))
    assert main(again(material, finished, "--rows", "rtn-2")) == 0
    assert calls(material)[asked:] == ["perplexity rtn-2", "eval rtn-2"]


def test_the_report_names_what_is_missing(material, finished):
    text = (finished / "docs" / "table.md").read_text()
    missing = re.search(r"\*\*Missing rows:\*\*([^*]*?)\.\n", text)[1].replace("\n", " ")
    assert {name.strip() for name in missing.split(",")} == {row.name for row in ROWS} - set(MADE)
    charts = re.findall(r"!\[[^\]]+\]\(table/([a-z]+\.svg)\)", text)
    assert charts == ["bits.svg", "minutes.svg"]
    for name in charts:
        root = ElementTree.fromstring((finished / "docs" / "table" / name).read_text())
        drawn = "".join(root.itertext())
        assert "GPTQ" in drawn and "OneBit, the paper's recipe" in drawn and "chains" not in drawn
    assert "| GPTQ, 2 bits |" in text and str(material) not in text and "--limit 50" in text
    assert "--rows gptq" not in text and "--rows teacher" not in text
    assert "nan" not in text.lower()


def test_a_report_alone_needs_nothing_else(material, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(real_model, "load_teacher", lambda *_, **__: pytest.fail("the teacher was loaded"))
    report = tmp_path / "table.md"
    assert main(again(material, finished, "--rows", "--report", str(report))) == 0
    texts = [path.read_text().split("## How to repeat")[0] for path in (report, finished / "docs" / "table.md")]
    assert texts[0] == texts[1]


# What goes wrong


def test_a_row_that_fails_is_recorded_and_others_go_on(material, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_REFUSES", "rtn-1")
    real = real_model.make

    def broken(material, row):
        if row.name == "rtn-3":
            raise ValueError("something of ours")
        return real(material, row)

    monkeypatch.setattr(real_model, "make", broken)
    report = tmp_path / "r.md"
    more = ["--rows", "rtn-1", "rtn-3", "rtn-2", "--report", str(report)]
    assert main(arguments(material, tmp_path / "run", *more)) == 1
    assert "ERR_ROW: 2 of 3 rows failed: rtn-1, rtn-3" in capsys.readouterr().err
    failure = row_file(tmp_path / "run", "rtn-1")["failure"]
    assert failure["code"] == "ERR_ENGINE" and "a tensor is missing" in failure["message"]
    assert row_file(tmp_path / "run", "rtn-3")["failure"] == {"code": "ERR_ROW", "message": "ValueError: something of ours"}
    assert row_file(tmp_path / "run", "rtn-2")["failure"] is None
    text = report.read_text()
    assert "- rtn-1: ERR_ENGINE:" in text and "- rtn-3: ERR_ROW: ValueError" in text
    assert "rtn-1" not in re.search(r"Missing rows:\*\*([^*]*?)\.\n", text)[1]
    # the same command tries them again
    monkeypatch.setenv("FAKE_REFUSES", "")
    monkeypatch.setattr(real_model, "make", real)
    assert main(arguments(material, tmp_path / "run", *more)) == 0
    assert "Failed rows" not in report.read_text() and row_file(tmp_path / "run", "rtn-3")["failure"] is None


def test_a_stop_ends_the_command_and_leaves_no_failure(material, tmp_path, monkeypatch, capsys):
    def stopped(*_):
        raise DistillError("ERR_INTERRUPTED", "it was stopped")

    monkeypatch.setattr(real_model, "make", stopped)
    assert main(arguments(material, tmp_path, "--rows", "rtn-1", "rtn-2")) == 1
    assert "ERR_INTERRUPTED" in capsys.readouterr().err and not list((tmp_path / "rows").iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_a_kill_ends_the_engine_too(material, tmp_path):
    told = tmp_path / "pipe"
    os.mkfifo(told)
    pipe = os.open(told, os.O_RDONLY | os.O_NONBLOCK)
    words = arguments(material, tmp_path / "run", "--rows", "rtn-2")
    study = subprocess.Popen(
        [sys.executable, "-m", "onebit_distill", *words], env={**os.environ, "FAKE_HANGS": str(told)}, cwd=CONFIGS.parent,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert select.select([pipe], [], [], 120)[0] and os.read(pipe, 100) == b"here\n"
        study.send_signal(signal.SIGTERM)
        said = study.communicate(timeout=60)[1]
        assert study.returncode == 130 and "interrupted; the same command goes on" in said
        assert select.select([pipe], [], [], 30)[0], "the engine goes on"
        assert os.read(pipe, 100) == b""
    finally:
        study.kill()
        os.close(pipe)


def changed(words, name, value):
    made = list(words)
    made[made.index(name) + 1] = value
    return made


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("--engine", "no-such-program", "ERR_ENGINE: the engine 'no-such-program' was not found"),
        ("--engine", f"{sys.executable} no-such-file.py", "ERR_ENGINE: `"),
        ("--perplexity-file", "absent.txt", "ERR_FILE_NOT_FOUND: reading absent.txt"),
        ("--tasks-data", "absent", "ERR_FILE_NOT_FOUND: absent"),
        ("--data", "absent.txt", "ERR_FILE_NOT_FOUND: reading absent.txt"),
        ("--teacher", "absent", "ERR_FILE_NOT_FOUND"),
        ("--rows", "gptq-9", "ERR_BAD_OPTION: there is no row 'gptq-9'"),
        ("--minutes", "0", "ERR_BAD_OPTION: minutes must be above 0"),
        ("--block", "1", "ERR_BAD_OPTION: block must be a whole number from 2 on"),
        ("--limit", "0", "ERR_BAD_OPTION: limit must be"),
        ("--threads", "-1", "ERR_BAD_OPTION: threads must be"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_made(material, tmp_path, capsys, name, value, said):
    words = changed(arguments(material, tmp_path / "run", "--rows", "rtn-1"), name, value)
    assert main(words) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "run" / "models").exists()


def test_only_a_report_and_nothing_to_report(material, tmp_path, capsys):
    assert main(arguments(material, tmp_path, "--rows")) == 1
    assert "ERR_BAD_OPTION: --rows without a name" in capsys.readouterr().err
    assert main(arguments(material, tmp_path / "none", "--rows", "--report", str(tmp_path / "r.md"))) == 1
    assert "ERR_NO_RUN" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("--minutes", "9"), ("--limit", "51"), ("--block", "8")])
def test_other_options_are_another_study(material, finished, capsys, name, value):
    assert main(changed(again(material, finished, "--rows", "rtn-2"), name, value)) == 1
    assert f"begun with another {name.strip('-')}" in capsys.readouterr().err


def test_a_recipe_without_its_file_fails_in_its_row_only(material, tmp_path, capsys):
    more = ["--configs", str(tmp_path), "--rows", "onebit-paper"]
    assert main(arguments(material, tmp_path / "run", *more)) == 1
    assert row_file(tmp_path / "run", "onebit-paper")["failure"]["code"] == "ERR_CONFIG_FILE"


def test_minutes_without_a_step_are_no_row(material, tmp_path):
    assert main(arguments(material, tmp_path / "run", "--rows", "llm-qat-1", minutes="0.0001")) == 1
    failure = row_file(tmp_path / "run", "llm-qat-1")["failure"]
    assert failure["code"] == "ERR_BAD_OPTION" and "too few minutes" in failure["message"]


def test_a_damaged_row_is_a_named_error(tmp_path):
    rows = Rows(tmp_path)
    for text in ("{", "{}", "[]"):
        rows.path("rtn-1").write_text(text)
        with pytest.raises(DistillError) as caught:
            rows.result(BY_NAME["rtn-1"])
        assert caught.value.code == "ERR_RESULT"


def test_the_command_to_repeat_makes_all_rows():
    words = "python -m onebit_distill real-model --rows a b --out 'my run' --rows"
    assert real_model.whole_command(words) == "python -m onebit_distill real-model --out 'my run'"


# Rows and recipes


def test_every_method_has_rows_and_every_row_a_method():
    assert {row.method for row in ROWS} == set(METHODS) and len(BY_NAME) == len(ROWS)
    assert [row.name for row in chosen_rows(["gptq-1", "teacher"])] == ["teacher", "gptq-1"]
    assert chosen_rows(None) == list(ROWS) and chosen_rows([]) == []
    plan = Plan(minutes=3, full_minutes=7)
    given = {row.name: minutes_of(row, plan) for row in ROWS}
    assert given["onebit-best-full"] == 7 and given["rtn-2"] == given["gptq-2"] == 0
    assert {given[row.name] for row in ROWS if row.trained and row.name != "onebit-best-full"} == {3}


@pytest.mark.parametrize("row", [row for row in ROWS if row.trained and row.method != "omniquant"], ids=lambda r: r.name)
def test_recipes_share_texts_and_machine(row: Row):
    plan = Plan(block=64, batch=8, seed=3)
    settings = recipe_of(row, plan, 2, CONFIGS).settings
    shared = (settings.block, settings.batch, settings.seed, settings.threads, settings.validation, settings.precision)
    assert shared == (64, 8, 3, 2, 0.0, "bf16")
    kinds = {"onebit": 1, "bitnet": 1, "qat": row.bits, "chain": row.bits}
    assert kinds[settings.kind.split(":")[0]] == row.bits
    if ":" in settings.kind:
        assert float(settings.kind.split(":")[1]) == row.bits


def test_the_papers_recipe_is_left_only_where_it_is_said():
    plan = Plan()
    paper, found = (
        made.to_dict()
        for made in (read_settings(CONFIGS / "paper.toml"), recipe_of(BY_NAME["onebit-paper"], plan, 0, CONFIGS).settings)
    )
    differing = {name for name in paper if paper[name] != found[name]}
    forced = {"block", "batch", "micro_batch", "warmup", "logits_weight", "precision", "gradient_checkpointing"}
    machine = {"device", "fold_scales", "validate_every", "checkpoint_every", "keep"}
    assert forced <= differing <= forced | machine
    assert found["logits_weight"] * plan.block == pytest.approx(paper["logits_weight"] * paper["block"])
    bitnet = recipe_of(BY_NAME["bitnet"], plan, 0, CONFIGS).settings.to_dict()
    assert {name for name in found if bitnet[name] != found[name]} == {"kind", "layernorm"}


# Claims


def result(name, ppl, value=0.5, stderr=0.01):
    made = Made({}, [], 60.0, 1000, 100, max(1.0, BY_NAME[name].bits), 1000, "")
    tasks = {task: TaskScore(metric, value, stderr, 100) for task, metric in METRICS.items()}
    return RowResult(name, made, {"perplexity": ppl}, tasks)


#: as the paper has them: LLaMA-7B
PAPER = {
    "teacher": (5.68, 0.64), "onebit-best": (10.19, 0.51), "onebit-paper": (10.5, 0.5), "onebit-best-full": (9.5, 0.52),
    "omniquant-2": (15.34, 0.48), "llm-qat-2": (710, 0.36), "gptq-2": (1900, 0.37), "rtn-1": (1e5, 0.35),
    "gptq-1": (1e5, 0.35), "omniquant-1": (1e4, 0.35), "llm-qat-1": (1e4, 0.35), "bitnet": (20, 0.4), "chain-2": (8, 0.5),
}  # fmt: skip
STUDY = {
    "teacher": "t.gguf", "parameters": 1000, "perplexity_file": "w.txt", "context": 2048, "data": ["d.txt"],
    "plan": Plan().to_dict(), "command": "python -m onebit_distill real-model --out /somewhere/run",
}  # fmt: skip


def verdicts(**changes):
    scores = {**PAPER, **{name.replace("_", "-"): value for name, value in changes.items()}}
    table = Table(STUDY, {name: result(name, *score) for name, score in scores.items() if score is not None})
    return {name: make(table).verdict for name, make in CLAIMS.items()}


def test_what_the_paper_found_holds_of_its_own_numbers():
    assert set(verdicts().values()) == {HOLDS}


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"omniquant_2": (9.0, 0.48)}, "order", FAILS),
        ({"omniquant_2": (10.25, 0.48)}, "order", OPEN),
        ({"gptq_2": None}, "order", OPEN),
        ({"gptq_2": (600, 0.37)}, "order", FAILS),
        ({"onebit_paper": (50, 0.4)}, "paper-order", FAILS),
        ({"omniquant_2": (15.34, 0.60)}, "omniquant", FAILS),
        ({"omniquant_2": (15.34, 0.511)}, "omniquant", OPEN),
        ({"onebit_best_full": (10.5, 0.5)}, "ratio", FAILS),
        ({"onebit_best_full": (10.2, 0.5)}, "ratio", HOLDS),
        ({"bitnet": (9, 0.4)}, "one-bit", FAILS),
        ({"bitnet": (9, 0.4)}, "bitnet", FAILS),
        ({"onebit_paper": (10.2, 0.5)}, "recipe", OPEN),
        ({"chain_2": (16, 0.5)}, "chain", FAILS),
        ({"onebit_best_full": (10.19, 0.51)}, "minutes", OPEN),
    ],
)
def test_claims_follow_the_rows(changes, name, verdict):
    assert verdicts(**changes)[name] == verdict


def test_a_report_of_all_rows_lacks_none(tmp_path):
    rows = {row.name: result(row.name, *PAPER.get(row.name, (50.0, 0.4))) for row in ROWS}
    write_report(Table(STUDY, rows), tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert "Missing" not in text and "Failed" not in text and text.count(f"| {HOLDS} |") == len(CLAIMS)
    assert f"{len(ROWS)} of {len(ROWS)} rows" in text.replace("\n", " ") and "/somewhere" not in text
    nothing = replace(rows["rtn-1"], made=None, perplexity=None, tasks={}, failure={"code": "ERR_X", "message": "m"})
    write_report(Table(STUDY, {"rtn-1": nothing}), tmp_path / "none.md")
    text = (tmp_path / "none.md").read_text()
    assert "no charts" in text and "- rtn-1: ERR_X: m" in text and text.count(f"| {OPEN} |") == len(CLAIMS)


def test_a_report_says_on_what_the_minutes_were(tmp_path):
    names = ("rtn-1", "bitnet", "onebit-best", "onebit-paper")
    report = tmp_path / "r.md"

    def told(machines):
        rows = {name: result(name, 50.0) for name in names}
        for name, which in machines.items():
            rows[name] = replace(rows[name], made=replace(rows[name].made, machine=which))
        write_report(Table(STUDY, rows), report)
        return report.read_text().replace("\n", " ")

    assert "What got minutes" not in told({}) and "All that got minutes" not in told({"rtn-1": "a"})
    assert "All that got minutes was made on: b; 2 threads." in told({"rtn-1": "a", "bitnet": "b; 2 threads"})
    several = told({"bitnet": "b", "onebit-best": "c", "onebit-paper": "b"})
    assert "- b: bitnet, onebit-paper" in several and "- c: onebit-best" in several


# The built engine


def test_the_engine_measures_what_is_written(material, engine, tmp_path, monkeypatch):
    monkeypatch.delenv("NODE_OPTIONS", raising=False)
    found = Engine.find(f"node {engine}", threads=1)
    words = changed(arguments(material, tmp_path, "--rows", "gptq-3"), "--tasks-data", str(material / "tasks"))
    assert main(words) == 0  # made, and measured by the fake one
    said = found.perplexity(tmp_path / "models" / "gptq-3.obt", material / "wiki.txt", 64)
    assert 1 < said["perplexity"] < 1e5 and said["ctx"] == 64
    with pytest.raises(DistillError) as caught:
        found.perplexity(tmp_path / "absent.obt", material / "wiki.txt", 64)
    assert caught.value.code == "ERR_ENGINE" and "absent.obt" in caught.value.message


def test_the_engine_answers_all_tasks(engine, data, tmp_path):
    folder = data("tasks")
    write_folder(tmp_path / "teacher", tiny_config(context_length=8192))  # some questions are long
    teacher = load_teacher(tmp_path / "teacher")
    export_model(teacher.model, teacher, tmp_path / "t.obt", dense="f16")
    scores = Engine.find(f"node {engine}", threads=1).tasks(tmp_path / "t.obt", folder, 2, tmp_path / "eval")
    assert {name: score.metric for name, score in scores.items()} == METRICS
    assert all(score.questions == 2 and 0 <= score.value <= 1 for score in scores.values())
