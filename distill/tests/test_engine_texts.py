"""Texts by this project's own engine: the same files as PyTorch's, and nothing is lost when it is not there or dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_model import TEXT, write_folder, write_gguf

from onebit_distill.cli import main
from onebit_distill.data import engine as engine_module
from onebit_distill.data.generate import GenerateOptions, generate_sequences, order_texts
from onebit_distill.data.teacher import load_teacher
from onebit_distill.errors import DistillError

FAKE = Path(__file__).with_name("fake_engine.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher")
    write_folder(path)
    return path


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(engine_module, "find_engine", lambda: [sys.executable, str(FAKE)])
    return monkeypatch


@pytest.fixture
def real(engine, monkeypatch):
    monkeypatch.setenv("ONEBIT_ENGINE", str(engine.parents[2]))
    return engine


def run(teacher, out, *more):
    return main(["generate", "--teacher", str(teacher), "--out", str(out), "--length", "24", *map(str, more)])


def lines(out: Path) -> dict[int, dict]:
    # bytes: a text may have characters that end a line for str
    return {e["sequence"]: e for p in out.glob("*.jsonl") for e in map(json.loads, p.read_bytes().splitlines())}


def record(out: Path) -> dict:
    return json.loads((out / "generate.json").read_text())


def test_the_same_texts_whatever_their_number_at_once(real, folder, tmp_path):
    assert run(folder, tmp_path / "three", "--engine", "onebit", "--sequences", 20, "--batch", 3) == 0
    assert run(folder, tmp_path / "many", "--engine", "onebit", "--sequences", 20, "--batch", 300) == 0
    assert lines(tmp_path / "three") == lines(tmp_path / "many") and len(lines(tmp_path / "many")) == 20
    assert run(folder, tmp_path / "other", "--engine", "onebit", "--sequences", 20, "--seed", 1) == 0
    assert lines(tmp_path / "other") != lines(tmp_path / "many")


def engine_ids(teacher_path, options: GenerateOptions, tokenizer=None) -> dict[int, list[int]]:
    teacher = load_teacher(teacher_path, tokenizer=tokenizer, weights=False)
    with engine_module.open_engine(teacher_path, options, teacher.eos_ids, "f32") as opened:
        return dict(opened.texts(order_texts(teacher, options, range(options.sequences)), options.batch))


@pytest.mark.parametrize("form", ["folder", "gguf", "llama2c"])
def test_the_likeliest_tokens_are_the_teachers(real, folder, tmp_path, goldens, form):
    path, tokenizer = folder, None
    if form == "gguf":
        path = tmp_path / "t.gguf"
        write_gguf(path, load_teacher(folder).model)
    if form == "llama2c":
        path, tokenizer = (goldens / "stories260K" / name for name in ("stories260K.bin", "tok512.bin"))
    options = GenerateOptions(sequences=12, length=16, greedy_least=16, greedy_most=16, batch=5)
    expected = dict(generate_sequences(load_teacher(path, tokenizer=tokenizer), options, range(12)))
    assert engine_ids(path, options, tokenizer) == expected


def test_both_go_on_with_the_same_texts(real, folder, tmp_path):
    """What both take for likeliest behind the same beginnings, by the command; and what is wrong with it is said."""
    source = tmp_path / "own.txt"
    source.write_text(" ".join(TEXT.split()[:40]))
    more = ("--sequences", 12, "--length", 16, "--first", "texts", "--texts", source, "--begin-tokens", 6, "--top-k", 1)
    assert run(folder, tmp_path / "onebit", "--engine", "onebit", "--activations", "f32", *more) == 0
    assert run(folder, tmp_path / "torch", "--engine", "torch", *more) == 0
    made, expected = lines(tmp_path / "onebit"), lines(tmp_path / "torch")
    # of random weights two tokens may be as likely as each other up to rounding
    assert len(made) == 12 and sum(made[i] == expected[i] for i in expected) >= 9
    assert record(tmp_path / "onebit")["texts_sha256"] == record(tmp_path / "torch")["texts_sha256"]
    assert run(folder, tmp_path / "none", "--first", "texts") == 1
    assert run(folder, tmp_path / "none", "--texts", source) == 1


def test_what_is_drawn_follows_the_teachers_distribution(real, folder):
    """The second token after one first token, drawn 3,000 times from the five likeliest."""
    teacher = load_teacher(folder)
    options = GenerateOptions(
        sequences=3000, length=2, first="bos", greedy_least=1, greedy_most=1, top_k=5, temperature=2.0, batch=256
    )
    drawn = [ids[1] if len(ids) > 1 else teacher.eos_ids[0] for ids in engine_ids(folder, options).values()]
    logits, ids = teacher.model(torch.tensor([[teacher.bos_id]])).logits[0, -1].topk(5)
    shares = torch.bincount(torch.tensor(drawn), minlength=320)[ids] / 3000
    assert torch.allclose(shares, (logits / 2.0).softmax(0), atol=0.03)


def test_the_folder_says_who_wrote_it_and_auto_goes_on_with_that(fake, folder, tmp_path, capsys):
    assert run(folder, tmp_path / "e", "--sequences", 4) == 0
    assert record(tmp_path / "e")["engine"] == "onebit" and record(tmp_path / "e")["activations"] == "int8"
    assert run(folder, tmp_path / "e", "--sequences", 4, "--engine", "torch") == 1
    assert "ERR_RUN_DIFFERS" in capsys.readouterr().err
    assert run(folder, tmp_path / "t", "--sequences", 4, "--engine", "torch") == 0
    before = lines(tmp_path / "t")
    kept = record(tmp_path / "t")
    kept.pop("engine")  # as it was written when there was only PyTorch
    (tmp_path / "t" / "generate.json").write_text(json.dumps(kept))
    (tmp_path / "t" / "generated-0-of-1.jsonl").unlink()
    assert run(folder, tmp_path / "t", "--sequences", 4) == 0
    assert lines(tmp_path / "t") == before


def test_every_option_reaches_the_engine(fake, folder, tmp_path):
    fake.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    more = ("--temperature", 0.5, "--top-k", 9, "--batch", 1000, "--activations", "f32")
    assert run(folder, tmp_path / "o", "--sequences", 2, *more) == 0
    words = json.loads((tmp_path / "calls").read_text().splitlines()[-1])
    given = dict(zip(words[2::2], words[3::2]))
    assert words[:2] == ["texts", str(folder)] and words[-1].startswith("--stop=")
    assert given["--length"] == "24" and given["--temp"] == "0.5" and given["--top-k"] == "9"
    assert given["--parallel"] == "256" and given["--activations"] == "f32"


def test_finished_texts_are_kept_when_the_engine_dies(fake, folder, tmp_path, capsys):
    fake.setenv("FAKE_DIES_AFTER", "5")
    assert run(folder, tmp_path / "torn", "--sequences", 12, "--batch", 2) == 1
    error = capsys.readouterr().err
    assert "ERR_ENGINE" in error and "ERR_OUT_OF_MEMORY" in error and "after 5 texts" in error
    assert len(lines(tmp_path / "torn")) == 5
    fake.delenv("FAKE_DIES_AFTER")
    assert run(folder, tmp_path / "torn", "--sequences", 12, "--batch", 7) == 0
    assert run(folder, tmp_path / "whole", "--sequences", 12) == 0
    assert lines(tmp_path / "torn") == lines(tmp_path / "whole") and len(lines(tmp_path / "whole")) == 12


def test_a_kill_loses_no_finished_text(real, folder, tmp_path):
    out = tmp_path / "torn"
    words = [sys.executable, "-m", "onebit_distill", "generate", "--teacher", str(folder), "--out", str(out)]
    words += ["--length", "24", "--sequences", "3000", "--batch", "2", "--engine", "onebit"]
    child = subprocess.Popen(words, cwd=Path(engine_module.__file__).parents[2])
    path = out / "generated-0-of-1.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < 4:
        assert child.poll() is None
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 3 < len(kept) < 3000, "the kill came too late to test anything"
    assert run(folder, out, "--sequences", 3000) == 0
    assert run(folder, tmp_path / "whole", "--sequences", 3000) == 0
    assert lines(out) == lines(tmp_path / "whole") and len(lines(out)) == 3000


def test_without_node_pytorch_writes_unless_the_engine_was_asked_for(folder, tmp_path, capsys, monkeypatch):
    script = tmp_path / "package" / "dist" / "cli" / "onebit.js"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.setenv("ONEBIT_ENGINE", str(tmp_path / "package"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(folder, tmp_path / "asked", "--sequences", 2, "--engine", "onebit") == 1
    error = capsys.readouterr().err
    assert "ERR_ENGINE: node was not found" in error and "--engine torch" in error
    assert run(folder, tmp_path / "auto", "--sequences", 2) == 0
    assert "PyTorch writes the texts: node was not found" in capsys.readouterr().err
    assert record(tmp_path / "auto")["engine"] == "torch"
    monkeypatch.setenv("ONEBIT_ENGINE", str(tmp_path / "elsewhere"))
    assert run(folder, tmp_path / "asked", "--sequences", 2, "--engine", "onebit") == 1
    assert "ONEBIT_ENGINE" in capsys.readouterr().err


def test_a_folder_that_the_engine_began_is_not_gone_on_with_by_pytorch(fake, folder, tmp_path, capsys):
    assert run(folder, tmp_path, "--sequences", 2) == 0
    fake.setenv("FAKE_REFUSES", "1")
    assert run(folder, tmp_path, "--sequences", 2) == 1
    assert "ERR_UNSUPPORTED_ARCHITECTURE" in capsys.readouterr().err


def test_a_teacher_that_the_engine_refuses_is_pytorchs(fake, folder, tmp_path, capsys):
    fake.setenv("FAKE_REFUSES", "1")
    assert run(folder, tmp_path, "--sequences", 2) == 0
    assert "PyTorch writes the texts: the engine ended before it was ready" in capsys.readouterr().err
    assert record(tmp_path)["engine"] == "torch"


def test_another_vocabulary_is_refused(fake, folder, tmp_path, capsys):
    fake.setenv("FAKE_VOCABULARY", "321")
    assert run(folder, tmp_path / "out", "--sequences", 2) == 1
    assert "ERR_TOKENIZER_FIT" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("only", [["--precision", "bf16"], ["--temperature", "101"]])
def test_what_only_pytorch_has_is_its_own(fake, folder, tmp_path, capsys, only):
    assert run(folder, tmp_path / "asked", "--sequences", 2, "--engine", "onebit", *only) == 1
    assert "ERR_BAD_OPTION" in capsys.readouterr().err
    assert run(folder, tmp_path / "auto", "--sequences", 2, *only) == 0
    assert record(tmp_path / "auto")["engine"] == "torch"


def test_what_is_no_text_is_an_error(monkeypatch, folder, tmp_path):
    monkeypatch.setattr(engine_module, "find_engine", lambda: [sys.executable, "-c", "print('hello')"])
    with pytest.raises(DistillError, match="ERR_ENGINE.*hello"):
        with engine_module.open_engine(folder, GenerateOptions(length=8), [], "int8"):
            pass


def test_the_engine_ends_with_its_block(fake, folder):
    with engine_module.open_engine(folder, GenerateOptions(length=8), [], "int8") as opened:
        process = opened._process
        assert process.poll() is None
    assert process.poll() is not None
