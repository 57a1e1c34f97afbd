"""Teachers from llama2.c's files: every tensor in its place, llama2.c's own texts, damaged files."""

import json
import struct

import numpy as np
import pytest
import torch
from tiny_model import _to_neighbours, tiny_config, tiny_llama

from onebit_distill.data.documents import tokenise
from onebit_distill.data.teacher import load_teacher
from onebit_distill.errors import DistillError
from onebit_distill.formats.llama2c_file import read_tokenizer
from onebit_distill.model.config import HF_LINEARS, ROLES

IDS = torch.arange(40)[None] * 7 % 320


def llama2c_bytes(model) -> bytes:
    config, state = model.config, model.state_dict()
    layers = range(config.n_layers)
    parts = [state["model.embed_tokens.weight"]]

    def add(name):
        for layer in layers:
            value = state[f"model.layers.{layer}.{name}.weight"]
            heads = {"self_attn.q_proj": config.n_heads, "self_attn.k_proj": config.n_kv_heads}.get(name)
            parts.append(_to_neighbours(value, heads) if heads else value)

    for name in (
        "input_layernorm",
        *(HF_LINEARS[r] for r in ROLES[:4]),
        "post_attention_layernorm",
        *(HF_LINEARS[r] for r in ROLES[4:]),
    ):
        add(name)
    parts += [state["model.norm.weight"], torch.full((config.context_length, config.head_dim), 9.0)]
    if not config.tied_head:
        parts.append(state["lm_head.weight"])
    sizes = (config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.n_kv_heads)
    vocabulary = config.vocab_size if config.tied_head else -config.vocab_size
    header = struct.pack("<7i", *sizes, vocabulary, config.context_length)
    return header + b"".join(part.numpy().astype("<f4").tobytes() for part in parts)


def tokenizer_bytes(names) -> bytes:
    parts = [struct.pack("<i", max(len(name.encode()) for name in names))]
    for score, name in enumerate(names):
        data = name.encode()
        parts.append(struct.pack("<fi", -float(score), len(data)) + data)
    return b"".join(parts)


NAMES = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256)), " ", "a", "b", "ab", " a"]


@pytest.mark.parametrize("tied", [True, False])
def test_what_was_written_is_read(tmp_path, tied):
    model = tiny_llama(tiny_config(tied_head=tied))
    (tmp_path / "m.bin").write_bytes(llama2c_bytes(model))
    teacher = load_teacher(tmp_path / "m.bin")
    assert teacher.config == model.config and teacher.format == "llama2c" and teacher.text is None
    torch.testing.assert_close(teacher.model(IDS).logits, model(IDS).logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("change", [lambda d: d[:-4], lambda d: d + b"\0\0\0\0", lambda d: d[:20], lambda d: b""])
def test_a_size_that_does_not_fit_is_a_named_error(tmp_path, change):
    (tmp_path / "m.bin").write_bytes(change(llama2c_bytes(tiny_llama(tiny_config(tied_head=True)))))
    with pytest.raises(DistillError) as caught:
        load_teacher(tmp_path / "m.bin")
    assert caught.value.code == "ERR_UNKNOWN_FORMAT"


@pytest.mark.parametrize("field", range(7))
@pytest.mark.parametrize("value", [0, -(2**31), 2**31 - 1])
def test_senseless_integers_are_named_errors(tmp_path, field, value):
    data = bytearray(llama2c_bytes(tiny_llama(tiny_config(tied_head=True))))
    data[4 * field : 4 * field + 4] = struct.pack("<i", value)
    (tmp_path / "m.bin").write_bytes(data)
    with pytest.raises(DistillError) as caught:
        load_teacher(tmp_path / "m.bin")
    assert caught.value.code == "ERR_UNKNOWN_FORMAT"


def test_the_tokenizer_beside_the_model_or_named(tmp_path):
    config = tiny_config(tied_head=True, vocab_size=len(NAMES))
    (tmp_path / "m.bin").write_bytes(llama2c_bytes(tiny_llama(config)))
    (tmp_path / "tokenizer.bin").write_bytes(tokenizer_bytes(NAMES))
    teacher = load_teacher(tmp_path / "m.bin")
    # "ab" has a better score than "▁a", which the space in front would otherwise make of it
    assert teacher.encode("ab", bos=True) == [1, NAMES.index(" "), NAMES.index("ab")]
    assert teacher.tokenizer.decode(teacher.encode("ab ba ü")) == "ab ba ü"
    (tmp_path / "tokenizer.bin").rename(tmp_path / "other.bin")
    assert load_teacher(tmp_path / "m.bin").text is None
    assert load_teacher(tmp_path / "m.bin", tokenizer=tmp_path / "other.bin").bos_id == 1


def test_texts_are_separated_by_bos_as_those_it_learned_from(tmp_path):
    config = tiny_config(tied_head=True, vocab_size=len(NAMES))
    (tmp_path / "m.bin").write_bytes(llama2c_bytes(tiny_llama(config)))
    (tmp_path / "tokenizer.bin").write_bytes(tokenizer_bytes(NAMES))
    teacher = load_teacher(tmp_path / "m.bin")
    assert teacher.eos_ids == [1]
    store = tokenise(["a", "b"], teacher, tmp_path / "tokens")
    assert np.array(store.tokens).tolist() == [NAMES.index(" a"), 1, NAMES.index(" "), NAMES.index("b"), 1]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d[:-1],
        lambda d: d + b"\0",
        lambda d: d[:4] + struct.pack("<fi", float("nan"), 5) + d[12:],
        lambda d: d[:4] + struct.pack("<fi", 0, -1) + d[12:],
        lambda d: d[:12] + b"\xff" + d[13:],
    ],
    ids=["short", "long", "NaN", "negative length", "no UTF-8"],
)
def test_damaged_tokenizers_are_named_errors(tmp_path, change):
    (tmp_path / "t.bin").write_bytes(change(tokenizer_bytes(NAMES)))
    with pytest.raises(DistillError) as caught:
        read_tokenizer(tmp_path / "t.bin", len(NAMES))
    assert caught.value.code == "ERR_TOKENIZER_FILE"


def test_a_tokenizer_apart_is_for_llama2c_only(tmp_path):
    with pytest.raises(DistillError) as caught:
        load_teacher(tmp_path, tokenizer=tmp_path / "t.bin")
    assert caught.value.code == "ERR_BAD_OPTION"


def test_it_tells_llama2cs_own_stories(goldens):
    folder = goldens / "stories260K"
    teacher = load_teacher(folder / "stories260K.bin", tokenizer=folder / "tok512.bin")
    cases = json.loads((folder / "greedy.json").read_text())["cases"]
    assert len(cases) == 4
    for case in cases:
        ids = teacher.encode(case["prompt"], bos=True)
        while len(ids) < 60:
            ids.append(int(teacher.model(torch.tensor([ids]), logits="last").logits[0, -1].argmax()))
        told = teacher.tokenizer.decode(ids, skip_special_tokens=True)
        assert len(told) > 80 and case["text"].startswith(told)
