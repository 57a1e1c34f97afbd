"""Self-generated text: the first tokens are the likeliest, the rest is drawn as it should be, and nothing is lost."""

import json

import numpy as np
import pytest
import torch
from tiny_model import write_folder

from onebit_distill.data import generate as generate_module
from onebit_distill.data.beginnings import Beginnings
from onebit_distill.data.generate import (
    GenerateOptions,
    draw,
    first_token,
    generate,
    generate_sequences,
    greedy_total,
    uniform,
)
from onebit_distill.data.teacher import load_teacher
from onebit_distill.errors import DistillError
from onebit_distill.system.processes import World

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    write_folder(folder)
    return load_teacher(folder)


def sequences(teacher, wanted=range(12), **options):
    return dict(generate_sequences(teacher, GenerateOptions(**options), wanted))


def plain_greedy(teacher, first, length):
    """Without a cache: the whole prefix again for every token."""
    ids = [first]
    while len(ids) < length:
        token = int(teacher.model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in teacher.eos_ids:
            break
        ids.append(token)
    return ids


def test_greedy_tokens_are_the_likeliest(teacher):
    made = sequences(teacher, length=24, greedy_least=24, greedy_most=24, batch=5)
    for sequence, ids in made.items():
        assert ids == plain_greedy(teacher, sequence, 24)


def test_three_to_five_tokens_are_greedy_and_then_drawn(teacher):
    made = sequences(teacher, range(30), length=40, batch=7)
    assert set(made) == set(range(30))
    differing = 0
    for sequence, ids in made.items():
        greedy = plain_greedy(teacher, sequence, 40)
        total = 3 + sequence % 3
        assert ids[:total] == greedy[:total]
        differing += ids != greedy
    assert differing > 20


def test_what_is_drawn_does_not_depend_on_the_batch(teacher):
    # the same logits up to rounding: with a fixed seed no draw here lies so close to an edge
    assert sequences(teacher, length=32, batch=3) == sequences(teacher, length=32, batch=12)
    assert sequences(teacher, length=32, batch=3) != sequences(teacher, length=32, batch=3, seed=1)


def test_draws_follow_the_distribution_of_the_top_k():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 3.0]]).expand(20_000, 5)
    chance = uniform(7, torch.arange(20_000), torch.full((20_000,), 3))
    drawn = draw(logits, chance, temperature=2.0, top_k=3)
    expected = torch.zeros(5)
    expected[[4, 0, 1]] = torch.tensor([1.5, 1.0, 0.5]).softmax(0)
    assert torch.allclose(torch.bincount(drawn, minlength=5) / 20_000, expected, atol=0.012)
    assert len(draw(logits, chance, 1.0, top_k=0).unique()) == 5


def test_chances_are_even_and_unrelated():
    chance = uniform(1, torch.arange(300).repeat_interleave(100), torch.arange(100).repeat(300))
    assert float(chance.min()) >= 0 and float(chance.max()) < 1
    assert torch.allclose(torch.histc(chance.float(), 10, 0, 1) / 30_000, torch.tensor(0.1), atol=0.01)
    table = chance.view(300, 100)
    assert abs(float(torch.corrcoef(table[:2])[0, 1])) < 0.3


def test_first_tokens(teacher):
    assert [first_token(GenerateOptions(), i, teacher) for i in (0, 5, 321)] == [0, 5, 1]
    assert first_token(GenerateOptions(first="bos"), 3, teacher) == teacher.bos_id
    random = {first_token(GenerateOptions(first="random"), i, teacher) for i in range(200)}
    assert len(random) > 100 and max(random) < teacher.config.vocab_size


@pytest.mark.parametrize(("vocabulary", "lengths"), [(320, 3), (321, 3), (320, 4), (322, 3), (7, 7), (320, 1)])
def test_every_first_token_meets_every_greedy_length(vocabulary, lengths):
    options = GenerateOptions(sequences=0, greedy_least=3, greedy_most=2 + lengths)
    assert options.count(vocabulary) == lengths * vocabulary
    pairs = {(i % vocabulary, greedy_total(options, i, vocabulary)) for i in range(options.count(vocabulary))}
    assert pairs == {(token, 3 + length) for token in range(vocabulary) for length in range(lengths)}


def test_without_enumeration_greedy_lengths_only_take_turns():
    options = GenerateOptions(first="bos")
    assert [greedy_total(options, i, 2) for i in range(7)] == [3, 4, 5, 3, 4, 5, 3]
    with pytest.raises(DistillError, match="ERR_BAD_OPTION.*enumerate"):
        GenerateOptions(first="bos", sequences=0)


def test_zero_sequences_are_all_pairs(teacher, tmp_path):
    tokens = teacher.config.vocab_size
    generate(teacher, GenerateOptions(sequences=0, length=2, batch=256), tmp_path, ALONE)
    assert sorted(lines(tmp_path)) == list(range(3 * tokens))


def lines(folder):
    return {
        e["sequence"]: e["text"] for p in folder.glob("*.jsonl") for e in map(json.loads, open(p, encoding="utf-8"))
    }


def test_an_interrupted_generation_goes_on(teacher, tmp_path):
    options = GenerateOptions(sequences=20, length=24, batch=4)
    generate(teacher, options, tmp_path / "whole", ALONE)
    generate(teacher, options, tmp_path / "torn", ALONE)
    path = tmp_path / "torn" / "generated-0-of-1.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])  # a kill in the middle of a line
    assert len(lines_before(path)) < 20
    generate(teacher, options, tmp_path / "torn", ALONE)
    assert lines(tmp_path / "torn") == lines(tmp_path / "whole") and len(lines(tmp_path / "whole")) == 20
    assert generate(teacher, options, tmp_path / "torn", ALONE) == 0


def test_beginnings_are_from_anywhere_in_the_texts():
    texts = [np.arange(10, 16), np.zeros(0, np.int64), np.arange(30, 32), np.arange(50, 54)]
    beginnings = Beginnings(texts, 4)
    # of six tokens three beginnings, of two the whole, of four one
    expected = [[10, 11, 12, 13], [11, 12, 13, 14], [12, 13, 14, 15], [30, 31], [50, 51, 52, 53]]
    assert [beginnings.at((i + 0.5) / 5) for i in range(5)] == expected
    assert beginnings.at(0.0) == expected[0] and beginnings.at(1 - 2.0**-53) == expected[4]
    assert Beginnings(texts, 4, bos=1).at(0.7) == [1, 30, 31]
    assert beginnings.digest() == Beginnings(texts, 9).digest() != Beginnings(texts[:2], 4).digest()
    with pytest.raises(DistillError, match="ERR_DATA.*empty"):
        Beginnings([np.zeros(0, np.int64)], 4)


def test_sequences_go_on_with_texts(teacher, tmp_path):
    beginnings = Beginnings([np.arange(40, 90), np.arange(100, 103)], 5)
    options = GenerateOptions(sequences=24, length=16, first="texts", begin_tokens=5, batch=7, top_k=1)
    made = dict(generate_sequences(teacher, options, range(24), texts=beginnings))
    assert len({tuple(ids[:5]) for ids in made.values()}) > 12
    for sequence, ids in made.items():
        given = beginnings.at(float(uniform(0, torch.tensor([sequence]), torch.tensor([-3]))))
        assert ids[: len(given)] == given
        while len(given) < 16:  # of one likeliest token that one is drawn
            token = int(teacher.model(torch.tensor([given])).logits[0, -1].argmax())
            if token in teacher.eos_ids:
                break
            given.append(token)
        assert ids == given
    generate(teacher, options, tmp_path, ALONE, texts=beginnings)
    assert generate(teacher, options, tmp_path, ALONE, texts=beginnings) == 0
    with pytest.raises(DistillError, match="ERR_RUN_DIFFERS.*texts_sha256"):
        generate(teacher, options, tmp_path, ALONE, texts=Beginnings([np.arange(40, 91)], 5))
    with pytest.raises(DistillError, match="ERR_BAD_OPTION.*--texts"):
        generate(teacher, options, tmp_path / "other", ALONE)
    with pytest.raises(DistillError, match="ERR_BAD_OPTION.*--texts"):
        generate(teacher, GenerateOptions(sequences=2, length=8), tmp_path / "other", ALONE, texts=beginnings)


def test_folders_from_before_there_were_beginnings_go_on(teacher, tmp_path):
    options = GenerateOptions(sequences=2, length=8)
    generate(teacher, options, tmp_path, ALONE)
    path = tmp_path / "generate.json"
    kept = json.loads(path.read_text())
    del kept["begin_tokens"]
    path.write_text(json.dumps(kept))
    assert generate(teacher, options, tmp_path, ALONE) == 0


def lines_before(path):
    return [line for line in path.read_bytes().split(b"\n") if line]


def test_other_options_in_the_same_folder_are_refused(teacher, tmp_path):
    generate(teacher, GenerateOptions(sequences=2, length=8), tmp_path, ALONE)
    with pytest.raises(DistillError, match="ERR_RUN_DIFFERS.*top_k"):
        generate(teacher, GenerateOptions(sequences=2, length=8, top_k=9), tmp_path, ALONE)


def test_a_damaged_record_is_a_named_error(teacher, tmp_path):
    (tmp_path / "generate.json").write_text("{")
    with pytest.raises(DistillError, match="ERR_DATA.*generate.json"):
        generate(teacher, GenerateOptions(sequences=2, length=8), tmp_path, ALONE)


def test_each_text_is_in_the_file_as_soon_as_it_is_finished(teacher, tmp_path, monkeypatch):
    """A kill -9 loses what is being written, not what is written."""
    real, seen = generate_module.generate_sequences, []
    path = tmp_path / "generated-0-of-1.jsonl"

    def look(*arguments):
        for made in real(*arguments):
            seen.append(len(lines_before(path)))
            yield made

    monkeypatch.setattr(generate_module, "generate_sequences", look)
    generate(teacher, GenerateOptions(sequences=6, length=8, batch=2), tmp_path, ALONE)
    assert seen == list(range(6))


def test_two_processes_share_the_sequences(teacher, tmp_path):
    for rank in range(2):
        generate(teacher, GenerateOptions(sequences=9, length=12), tmp_path, World(rank, 2, torch.device("cpu")))
    assert sorted(lines(tmp_path)) == list(range(9))


def test_longer_than_the_context_is_refused(teacher, tmp_path):
    with pytest.raises(DistillError, match="ERR_CONTEXT_LENGTH"):
        generate(teacher, GenerateOptions(length=129), tmp_path, ALONE)


@pytest.mark.parametrize(
    "bad",
    [
        {"sequences": -1},
        {"temperature": 0.0},
        {"top_k": -1},
        {"greedy_most": 2},
        {"first": "x"},
        {"begin_tokens": 0},
        {"first": "texts", "begin_tokens": 31, "length": 32},
    ],
)
def test_bad_options(bad):
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        GenerateOptions(**bad)
