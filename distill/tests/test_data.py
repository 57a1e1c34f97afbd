"""Texts to blocks: what is read, how it is cut, and an order that resumes anywhere."""

import json

import numpy as np
import pytest

from onebit_distill.data.blocks import Blocks, split_documents, validation_blocks
from onebit_distill.data.documents import TokenStore, documents, tokenise
from onebit_distill.errors import DistillError


class Letters:
    """A tokenizer of one id per byte."""

    bos_id, eos_id = 256, 257

    def encode(self, text, bos=None):
        return list(text.encode())


@pytest.fixture
def store(tmp_path):
    return tokenise([chr(97 + i % 26) * (3 + 7 * i % 41) for i in range(60)], Letters(), tmp_path / "tokens")


def test_documents_of_text_jsonl_and_folders(tmp_path):
    (tmp_path / "a.txt").write_text("one\n<|endoftext|>\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n\n{"text": "four", "more": 1}\n')
    (tmp_path / "generate.json").write_text("{}")
    assert list(documents([tmp_path])) == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"txt": 1}'),
        ("a.jsonl", b"{"),
        ("a.jsonl", b'{"text": 7}'),
        ("a.txt", b"\xff\xfe"),
        ("a.md", b"x"),
    ],
)
def test_bad_files_are_named_errors(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistillError, match="ERR_DATA.*a\\."):
        list(documents([tmp_path / name]))


def test_no_text_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(DistillError, match="hold no text"):
        tokenise(documents([tmp_path]), Letters(), tmp_path / "tokens")


def test_bos_and_eos_stand_around_every_document(tmp_path):
    store = tokenise(["ab", "c"], Letters(), tmp_path / "tokens")
    assert store.tokens.tolist() == [256, 97, 98, 257, 256, 99, 257]


def test_a_torn_store_is_refused(tmp_path, store):
    with open(tmp_path / "tokens" / "tokens.bin", "r+b") as file:
        file.truncate(100)
    with pytest.raises(DistillError, match="ERR_DATA"):
        TokenStore(tmp_path / "tokens")


def test_official_packing_is_documents_in_order_cut_and_the_rest_dropped(store):
    blocks = Blocks(store, np.arange(60), 16, "fixed", seed=3)
    whole = store.tokens[: len(store.tokens) // 16 * 16].reshape(-1, 16)
    epoch = np.stack([blocks[i] for i in range(blocks.per_epoch)])
    assert sorted(map(tuple, epoch)) == sorted(map(tuple, whole))
    assert not np.array_equal(epoch, whole)
    again = np.stack([blocks[i] for i in range(blocks.per_epoch, 2 * blocks.per_epoch)])
    assert sorted(map(tuple, again)) == sorted(map(tuple, epoch)) and not np.array_equal(again, epoch)


def test_reshuffling_meets_every_token_once_an_epoch_at_new_places(store):
    blocks = Blocks(store, np.arange(60), 16, "reshuffle", seed=3)
    first, second = (
        np.concatenate([blocks[e * blocks.per_epoch + i] for i in range(blocks.per_epoch)]) for e in (0, 1)
    )
    left_out = np.bincount(store.tokens, minlength=258) - np.bincount(first, minlength=258)
    assert left_out.min() >= 0 and left_out.sum() == len(store.tokens) % 16
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("packing", ["fixed", "reshuffle"])
def test_any_block_is_the_same_whenever_it_is_asked_for(store, packing):
    blocks = Blocks(store, np.arange(60), 16, packing, seed=3)
    in_order = blocks.batch(0, 3 * blocks.per_epoch)
    other = Blocks(store, np.arange(60), 16, packing, seed=3)
    for index in (2 * blocks.per_epoch + 1, 0, blocks.per_epoch, 5):
        assert np.array_equal(other[index], in_order[index])
    assert not np.array_equal(Blocks(store, np.arange(60), 16, packing, seed=4).batch(0, 9), in_order[:9])


def test_too_little_text_for_a_block_is_an_error(store):
    with pytest.raises(DistillError, match="less than one block"):
        Blocks(store, np.arange(2), 512, "reshuffle", seed=0)


def test_the_validation_split_is_fixed_and_apart(store):
    training, kept = split_documents(60, 0.1)
    assert len(kept) == 6 and not set(kept) & set(training) and len(training) == 54
    assert np.array_equal(split_documents(60, 0.1)[1], kept)
    assert validation_blocks(store, kept, 16, 4).shape == (4, 16)
    assert validation_blocks(store, kept[:0], 16, 4).shape == (0, 16)


def test_jsonl_survives_unicode(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "naïve 🦊"}, ensure_ascii=False))
    assert list(documents([tmp_path / "a.jsonl"])) == ["naïve 🦊"]


def test_lines_of_jsonl_end_where_json_lines_do(tmp_path):
    text = "one\u2028two\x85three\u2029four"  # ends of lines to Python, none to JSON
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False) + "\r\n", newline="")
    assert list(documents([tmp_path / "a.jsonl"])) == [text]


def test_line_ends_stay_as_they_are(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\nthree\r\n\r\n\r\nfour\r\n")
    assert list(documents([tmp_path / "a.txt"])) == ["one\r\ntwo\nthree", "four"]
