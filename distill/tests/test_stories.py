"""The default model's route from texts to a .obt file, shrunk to seconds; and the texts it begins with."""

import json
import random
import subprocess

import pytest
from test_settings import CONFIGS

from onebit_distill.cli import main
from onebit_distill.data.teacher_text import TeacherText
from onebit_distill.studies.stories import run as stories
from onebit_distill.studies.stories.texts import CASED, LOWER_CASED, SECOND_VERSION, read_stories, train_tokenizer
from onebit_distill.studies.stories.truecase import Truecaser

NAMES, PLACES, THINGS = ("Lily", "Tom", "Anna", "Ben"), ("park", "garden", "house"), ("ball", "cat", "kite", "red car")


def story(random_) -> str:
    name, place = random_.choice(NAMES), random_.choice(PLACES)
    thing = f"{random_.choice(THINGS)} number {random_.randrange(1_000_000)}"
    return (
        f"Once upon a time, there was a child named {name}. {name} went to the {place} with a {thing}.\n\n"
        f'"I like my {thing}," said {name}. The {thing} was big. They were happy in the {place}.'
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder, random_ = tmp_path_factory.mktemp("texts"), random.Random(1)
    cased = [story(random_) for _ in range(60)]
    more = [story(random_) for _ in range(120)]
    (folder / CASED).write_text("\n".join(cased))
    (folder / LOWER_CASED).write_text("\n".join([*cased, *more]).lower())
    second = [story(random_).replace('"', "“") for _ in range(60)]
    (folder / SECOND_VERSION).write_text("\n<|endoftext|>\n".join(second))
    (folder / "tinystories-val-0.8MB.txt").write_text("\n".join(story(random_) for _ in range(20)))
    return folder


def test_every_story_is_read_once_with_capitals(texts):
    made = read_stories(texts)
    whole = "\n".join([*made.training, *made.held_back])
    assert whole.count("Once upon a time") == 60 + 120 + 60
    assert "once upon" not in whole and "lily" not in whole and "“" not in whole
    assert len(made.held_back) == 4 and not set(made.held_back) & set(made.training)


def test_truecasing_goes_by_context():
    truecaser = Truecaser(
        ["Ben saw Lily. Lily and Ben ran.", "The cat saw Lily. They ran to the park.", "A dog ran. They saw Ben."] * 2
    )
    assert truecaser.restore("lily and ben ran. they saw the cat.") == "Lily and Ben ran. They saw the cat."
    assert truecaser.restore('"zoe!" a dog named zoe ran.') == '"Zoe!" A dog named Zoe ran.'


def test_the_tokenizer_gives_texts_back(texts):
    made = read_stories(texts)
    text = TeacherText(*train_tokenizer(made.training, 300))
    for sample in (made.training[0], "naïve 🦊\n\n  x"):
        assert text.tokenizer.decode(text.encode(sample, bos=False)) == sample
    assert text.encode("a<|endoftext|>", special=True, bos=False)[-1] == text.token_id("eos_token") == 0
    assert len(text.encode(made.training[0])) < 0.6 * len(made.training[0])


@pytest.fixture(scope="module")
def finished(texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("stories")
    command = ["stories", "--texts", str(texts), "--out", str(out), "--config", str(CONFIGS / "stories-tiny.toml")]
    assert main(command) == 0
    return out, command


def test_the_whole_route(finished):
    out, _ = finished
    scores = json.loads((out / "scores.json").read_text())
    # 8 bits are what nothing learned costs; these stories are all alike, so there is much to learn
    assert scores["teacher_bits_per_byte"] < 2.5
    assert scores["student_bits_per_byte"] < 2 * scores["teacher_bits_per_byte"]
    card = (out / "stories.md").read_text()
    assert (
        f"{scores['student_bits_per_byte']:.4f}" in card
        and "> Once upon a time" in card
        and "stories-tiny.toml" in card
        and "beside each matrix (Xu et al., arXiv 2402.11295) and a column of floats;\n" in card
    )
    assert (out / "stories.obt").stat().st_size > 5000
    assert (out / "student" / "metrics.svg").exists() and (out / "teacher-run" / "metrics.svg").exists()


def test_what_is_done_is_not_done_again(finished, monkeypatch):
    out, command = finished
    before = (out / "stories.obt").stat().st_mtime_ns
    monkeypatch.setattr(stories, "_run_stage", lambda *_: pytest.fail("a finished stage ran again"))
    assert main(command) == 0
    assert (out / "stories.obt").stat().st_mtime_ns == before


def test_a_student_interrupted_goes_on_to_the_same_file(finished, tmp_path):
    out, command = finished
    whole = (out / "stories.obt").read_bytes()
    (out / "student.done").unlink(), (out / "finish.done").unlink(), (out / "stories.obt").unlink()
    assert main(command) == 0  # the last checkpoint is there: nothing is trained, the file is made again
    assert (out / "stories.obt").read_bytes() == whole


def test_the_engine_runs_it(finished, engine):
    out, _ = finished
    argv = [
        "node",
        str(engine),
        "score",
        str(out / "stories.obt"),
        "--text",
        "Once upon a time",
        "--json",
        "--activations",
        "f32",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["ids"]) > 3


def test_missing_texts_are_a_named_error(tmp_path, capsys):
    config = str(CONFIGS / "stories-tiny.toml")
    assert main(["stories", "--texts", str(tmp_path), "--out", str(tmp_path / "o"), "--config", config]) == 1
    assert "ERR_DATA" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["[storys]", "[stories]\nlayer = 2", "[stories]\nlayers = 0", "[generate]\nlenght = 2"]
)
def test_bad_files_are_named_errors(texts, tmp_path, capsys, text):
    (tmp_path / "c.toml").write_text(text)
    argv = ["stories", "--texts", str(texts), "--out", str(tmp_path / "o"), "--config", str(tmp_path / "c.toml")]
    assert main(argv) == 1
    assert "ERR_CONFIG_FILE" in capsys.readouterr().err
