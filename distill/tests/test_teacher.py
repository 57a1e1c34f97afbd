"""Teachers from folders and GGUF files; SmolLM2's recorded log-probabilities and tokens; damaged sources."""

import hashlib
import json
import math
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from tiny_model import TEXT, TOKENIZER_CONFIG, tiny_config, tiny_llama, tiny_tokenizer, write_folder, write_gguf

from onebit_distill.data.teacher import load_teacher
from onebit_distill.data.teacher_text import TeacherText
from onebit_distill.errors import DistillError
from onebit_distill.formats.gguf_vocabulary import tokenizer_from_gguf
from onebit_distill.formats.hf_config import config_from_hf, hf_config

IDS = torch.arange(40)[None] * 7 % 320
FREQS = [1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0, 8.0]
FAMILY = {
    "llama": {},
    "biases": {"biases": ("wq", "wk", "wv", "wo")},
    "mistral": {"architecture": "mistral", "window": 7},
    "qwen2": {"architecture": "qwen2", "biases": ("wq", "wk", "wv"), "tied_head": True},
    "qwen3": {"architecture": "qwen3", "tied_head": True},
}


@pytest.mark.parametrize("changes", FAMILY.values(), ids=FAMILY)
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_what_was_written_is_read(tmp_path, changes, form):
    config = tiny_config(**changes)
    model = tiny_llama(config)
    if form == "folder":
        write_folder(tmp_path, config)
    else:
        write_gguf(tmp_path / "t.gguf", model)
    teacher = load_teacher(tmp_path if form == "folder" else tmp_path / "t.gguf")
    # a GGUF file does not say more of a Mistral than that it is a llama
    named = "llama" if form == "gguf" and config.architecture == "mistral" else config.architecture
    assert teacher.config == replace(config, architecture=named)
    torch.testing.assert_close(teacher.model(IDS).logits, model(IDS).logits, rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert (teacher.bos_id, teacher.eos_ids, teacher.add_bos) == (1, [0], True)
    assert "<|start|>" in teacher.chat_template
    plain, parsed = teacher.encode("fox<|end|>"), teacher.encode("fox<|end|>", special=True, bos=False)
    assert plain[0] == 1 and 0 not in plain and parsed[-1] == 0
    assert teacher.tokenizer.decode(teacher.encode(TEXT, bos=False)) == TEXT
    file = tmp_path / ("model.safetensors" if form == "folder" else "t.gguf")
    assert teacher.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_bfloat16_keeps_its_angles(tmp_path):
    write_folder(tmp_path)
    model = load_teacher(tmp_path, torch.bfloat16).model
    assert model.rope_cos.dtype == torch.float32 and model(IDS).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q1_0"])
def test_each_stored_type(tmp_path, kind):
    config = tiny_config(dim=128, hidden_dim=128, head_dim=32)
    model = tiny_llama(config)
    write_gguf(tmp_path / "t.gguf", model, kind)
    found = load_teacher(tmp_path / "t.gguf").model.state_dict()
    worst = {"F16": 1e-3, "BF16": 5e-3, "Q8_0": 1e-2, "Q4_0": 0.15, "Q4_1": 0.15, "Q1_0": 0.7}[kind]
    for name, wanted in model.state_dict().items():
        error = float((found[name] - wanted).norm() / wanted.norm())
        assert error < worst, name
        assert wanted.dim() == 1 or error > worst / 200, name


@pytest.mark.parametrize(("factor", "usual"), [(4.0, 0.1 * math.log(4) + 1), (0.5, 1.0)])
def test_yarn_of_a_gguf_multiplies_the_usual_magnitude(tmp_path, factor, usual):
    def describe(writer):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(factor)
        writer.add_rope_scaling_orig_ctx_len(64)
        writer.add_rope_scaling_attn_factors(1.25)

    write_gguf(tmp_path / "t.gguf", tiny_llama(tiny_config()), describe=describe)
    found = load_teacher(tmp_path / "t.gguf").config.rope_scaling
    assert (found["type"], found["factor"], found["original_context"]) == ("yarn", factor, 64)
    assert found["attention_factor"] == pytest.approx(1.25 * usual, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "factor", "freqs", "wanted"),
    [
        ("linear", 4.0, None, {"type": "linear", "factor": 4.0}),
        (None, 4.0, None, {"type": "linear", "factor": 4.0}),
        (None, 0.0, None, {"type": "none"}),
        ("none", 4.0, None, {"type": "none"}),
        ("linear", 4.0, FREQS, {"type": "factors", "factors": [4 * each for each in FREQS]}),
        ("none", 4.0, FREQS, {"type": "factors", "factors": FREQS}),
    ],
)
def test_rope_scalings_of_a_gguf(tmp_path, kind, factor, freqs, wanted):
    def describe(writer):
        if kind is not None:
            writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(factor)

    def add(tensors):
        if freqs is not None:
            tensors["rope_freqs.weight"] = np.array(freqs, np.float32)

    write_gguf(tmp_path / "t.gguf", tiny_llama(tiny_config()), describe=describe, change=add)
    assert load_teacher(tmp_path / "t.gguf").config.rope_scaling == wanted


@pytest.mark.parametrize("given", [{}, {"sliding_window": None}, {"sliding_window": 16}])
def test_a_window_that_is_not_mentioned_has_4096_positions(given):
    config = json.loads(json.dumps({**hf_config(tiny_config()), "model_type": "mistral", **given}))
    assert config_from_hf(config).window == {(): 4096, (None,): 0, (16,): 16}[tuple(given.values())]


@pytest.mark.parametrize(
    ("given", "window"),
    [
        ({}, 0),
        ({"sliding_window": 16}, 0),
        ({"sliding_window": 16, "use_sliding_window": True}, 0),  # from layer 28 on, and there are only two
        ({"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0}, 16),
        ({"sliding_window": 16, "use_sliding_window": True, "layer_types": ["sliding_attention"] * 2}, 16),
        ({"sliding_window": 16, "use_sliding_window": True, "layer_types": ["full_attention"] * 2}, 0),
    ],
)
def test_the_window_of_a_qwen(given, window):
    assert config_from_hf({**hf_config(tiny_config()), "model_type": "qwen2", **given}).window == window


def test_what_no_model_type_computes_is_not_written(tmp_path):
    for changes in ({"biases": ("wo",)}, {"qk_norm": True, "biases": ("w1",)}, {"window": 4, "biases": ("wo",)}):
        with pytest.raises(DistillError, match="ERR_CONFIG.*cannot say"):
            write_folder(tmp_path, tiny_config(**changes))


@pytest.mark.parametrize("name", ["qwen2", "mistral"])
@torch.no_grad()
def test_the_recorded_logits_of_the_family(data, name):
    """By transformers, in float32; weights at random."""
    folder = data(f"golden/family/{name}")
    teacher = load_teacher(folder / "hf")
    for key, ids in json.loads((folder / "ids.json").read_text()).items():
        wanted = torch.from_numpy(np.load(folder / f"logits-{key}.npy"))
        difference = teacher.model(torch.tensor([ids])).logits[0] - wanted
        assert difference.abs().max() < 1e-3 and difference.square().mean().sqrt() < 1e-4


def test_shards_and_pickles(tmp_path):
    from safetensors.torch import save_file

    model = write_folder(tmp_path / "one")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for form in ("safetensors", "pickle"):
        folder = tmp_path / form
        folder.mkdir()
        (folder / "config.json").write_text((tmp_path / "one/config.json").read_text())
        if form == "pickle":
            torch.save({**state, "teacher_model.x": torch.zeros(2)}, folder / "pytorch_model.bin")
        else:
            weight_map = {}
            for index, part in enumerate((list(state)[::2], list(state)[1::2])):
                save_file({name: state[name] for name in part}, folder / f"part-{index}.safetensors")
                weight_map |= {name: f"part-{index}.safetensors" for name in part}
            (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        teacher = load_teacher(folder)
        assert torch.equal(teacher.model(IDS).logits, load_teacher(tmp_path / "one").model(IDS).logits)
        with pytest.raises(DistillError, match="ERR_NO_TOKENIZER"):
            teacher.encode("text")


def changed_config(**fields):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def with_state(change):
    def rewrite(folder):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return rewrite


LARGE = {"<extra>": 5000} | {f"t{i}": i for i in range(400)}
DAMAGE = {
    "unknown": (changed_config(model_type="gpt2"), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "window of some layers": (
        changed_config(model_type="qwen3", use_sliding_window=True, sliding_window=64, max_window_layers=1),
        "ERR_UNSUPPORTED_ARCHITECTURE",
    ),
    "listed window of some layers": (
        changed_config(model_type="qwen3", layer_types=["full_attention", "sliding_attention"]),
        "ERR_UNSUPPORTED_ARCHITECTURE",
    ),
    "listed mistral": (
        changed_config(model_type="mistral", layer_types=["full_attention", "full_attention"]),
        "ERR_UNSUPPORTED_ARCHITECTURE",
    ),
    "too wide a window": (changed_config(model_type="mistral", sliding_window=1 << 23), "ERR_CONFIG"),
    "no biases": (changed_config(model_type="qwen2"), "ERR_MISSING_TENSOR"),
    "biases that are not declared": (
        with_state(lambda state: state.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)})),
        "ERR_BAD_SOURCE",
    ),
    "magnitude": (
        changed_config(rope_scaling={"type": "yarn", "factor": 2, "attention_factor": 0}),
        "ERR_UNSUPPORTED_ROPE",
    ),
    "gelu": (changed_config(hidden_act="gelu"), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "quantised": (changed_config(quantization_config={}), "ERR_UNSUPPORTED_TENSOR_TYPE"),
    "rope": (changed_config(rope_scaling={"type": "dynamic", "factor": 2}), "ERR_UNSUPPORTED_ROPE"),
    "field": (changed_config(hidden_size="64"), "ERR_CONFIG"),
    "wider": (changed_config(intermediate_size=100), "ERR_TENSOR_SHAPE"),
    "deeper": (changed_config(num_hidden_layers=3), "ERR_MISSING_TENSOR"),
    "shallower": (changed_config(num_hidden_layers=1), "ERR_BAD_SOURCE"),
    "one bit already": (changed_config(model_type="bitllama"), "ERR_UNSUPPORTED_TEACHER"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "ERR_UNKNOWN_FORMAT"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "ERR_BAD_SOURCE"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "ERR_BAD_SOURCE"),
    "cut": (cut_weights, "ERR_BAD_SOURCE"),
    "nan": (with_state(lambda state: state["model.norm.weight"].fill_(float("nan"))), "ERR_NOT_FINITE"),
    "missing": (with_state(lambda state: state.pop("lm_head.weight")), "ERR_MISSING_TENSOR"),
    "tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "ERR_TOKENIZER_FILE"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_folders(tmp_path, case):
    change, code = DAMAGE[case]
    write_folder(tmp_path)
    load_teacher(tmp_path)
    change(tmp_path)
    with pytest.raises(DistillError) as caught:
        load_teacher(tmp_path)
    assert caught.value.code == code


def test_a_token_beyond_the_models_vocabulary(tmp_path):
    """Fewer tokens than the model has rows, but one of them far behind."""
    tokenizer = tiny_tokenizer()
    tokenizer["model"]["vocab"]["zebra"] = 400
    write_folder(tmp_path, tokenizer=tokenizer)
    with pytest.raises(DistillError, match="ERR_TOKENIZER_FIT.*400"):
        load_teacher(tmp_path)


def test_a_tokenizer_of_another_model(tmp_path):
    write_folder(tmp_path, tiny_config(vocab_size=280))
    with pytest.raises(DistillError, match="ERR_TOKENIZER_FIT"):
        load_teacher(tmp_path)


@pytest.mark.parametrize("case", ["cut", "missing", "extra", "shape", "text", "mixtral", "unknown type"])
def test_damaged_gguf(tmp_path, case):
    path, model = tmp_path / "t.gguf", tiny_llama(tiny_config(dim=256, head_dim=64, hidden_dim=256))
    change = {
        "missing": lambda tensors: tensors.pop("blk.1.ffn_up.weight"),
        "extra": lambda tensors: tensors.update({"blk.0.ffn_gate_inp.weight": np.zeros((4, 4), np.float32)}),
        "shape": lambda tensors: tensors.update({"output_norm.weight": np.zeros(3, np.float32)}),
    }.get(case)
    if case == "text":
        path.write_text("once upon a time")
    else:
        write_gguf(path, model, change=change)
    raw = path.read_bytes()
    if case == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    if case == "mixtral":
        path.write_bytes(
            raw.replace(b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\x00\x00\x00\x00\x00\x00\x00bloom", 1)
        )
    if case == "unknown type":  # 77 instead of 0
        at = raw.index(b"output.weight") + len("output.weight") + 4 + 16
        path.write_bytes(raw[:at] + (77).to_bytes(4, "little") + raw[at + 4 :])
    expected = {"cut": "ERR_TRUNCATED", "missing": "ERR_MISSING_TENSOR", "extra": "ERR_BAD_SOURCE"}
    expected |= {"shape": "ERR_TENSOR_SHAPE", "text": "ERR_UNKNOWN_FORMAT", "mixtral": "ERR_UNSUPPORTED_ARCHITECTURE"}
    with pytest.raises(DistillError) as caught:
        load_teacher(path)
    assert caught.value.code == expected.get(case, "ERR_UNSUPPORTED_TENSOR_TYPE")


def test_no_such_file(tmp_path):
    with pytest.raises(DistillError, match="ERR_FILE_NOT_FOUND"):
        load_teacher(tmp_path / "nothing")


def test_texts_of_tokenizers():
    text = TeacherText(tiny_tokenizer(), TOKENIZER_CONFIG, "{{ bos_token }}")
    blob = json.loads(text.chat_template_blob())
    assert blob == {"template": "{{ bos_token }}", "bos_token": "<|start|>", "eos_token": "<|end|>"}
    # the engine reads a vocabulary without white space fastest
    assert json.loads(text.blob()) == {"tokenizer": text.tokenizer_json, "config": TOKENIZER_CONFIG}
    assert b'"vocab":{"' in text.blob() and b', "' not in text.blob()
    whole = text.encode("the cat sat on the mat " * 20)
    # as many models on the hub are saved
    cut = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    pad = {
        "strategy": {"Fixed": 512}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<unk>",
    }  # fmt: skip
    saved = TeacherText({**tiny_tokenizer(), "truncation": cut, "padding": pad}, TOKENIZER_CONFIG)
    assert len(whole) > 8 and saved.encode("the cat sat on the mat " * 20) == whole
    without = TeacherText(tiny_tokenizer(), {})
    assert without.encode("fox") == text.encode("fox", bos=False) and not without.add_bos
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        without.encode("fox", bos=True)
    with pytest.raises(DistillError, match="ERR_TOKENIZER_FILE"):
        tokenizer_from_gguf(lambda key: None)
    with pytest.raises(DistillError, match="ERR_UNSUPPORTED_TOKENIZER"):
        tokenizer_from_gguf(lambda key: "bert")


def test_vocabularies_of_llama_cpp(data):
    """The recorded ids of llama.cpp, for its SentencePiece and GPT-2 vocabularies."""
    for name in ("llama-spm", "gpt-2"):
        path = data(f"gguf/ggml-vocab-{name}.gguf")
        fields = gguf.GGUFReader(path).fields
        text = TeacherText(*tokenizer_from_gguf(lambda key, of=fields: of[key].contents() if key in of else None))
        inputs = (path.parent / f"{path.name}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
        wanted = (path.parent / f"{path.name}.out").read_text().splitlines()
        # a separator also follows the last text
        for source, line in zip(inputs[:-1], wanted, strict=True):
            ids = [int(token) for token in line.split()]
            assert text.encode(source, bos=False) == ids, (name, source)


@pytest.fixture(scope="module")
def smollm2():
    from conftest import DATA

    path = DATA / "weights/SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        pytest.skip(f"{path.name} not found below {DATA}")
    return load_teacher(path)


@torch.no_grad()
def test_smollm2_gives_its_recorded_log_probabilities(smollm2, data):
    golden = json.loads(data("golden/smollm2-135m-logits.json").read_text())
    for case in golden["cases"]:
        assert smollm2.encode(case["text"], special=True) == case["ids"]
        ids = torch.tensor([case["ids"]])
        scores = smollm2.model(ids).logits[0].double().log_softmax(-1)
        found = scores[:-1].gather(1, ids[0, 1:, None])[:, 0]
        wanted = torch.tensor(case["token_logprobs"][1:], dtype=torch.float64)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


def test_smollm2_cuts_war_and_peace_as_recorded(smollm2, data):
    text = data("text/war-and-peace.txt").read_bytes().decode()
    ids = smollm2.encode(text)
    assert len(ids) == 799_447
    digest = hashlib.sha256(np.array(ids, "<u4").tobytes()).hexdigest()
    assert digest == "575dc848a3d780105a5f5ef1184480ff277e4dc17487db37ba636d19ffca35fa"


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "olmo", "qwen2", "qwen35", "llama-bpe", "falcon3"])
def test_the_recorded_ids_of_each_pre_tokenizer(data, pre):
    """By the Rust library and the makers' own expressions, for texts of many scripts."""
    folder = data("golden/tokenizers")
    given = json.loads((folder / pre / "tokenizer.json").read_text())
    vocab = sorted(given["model"]["vocab"].items(), key=lambda item: item[1])
    added = {token["content"]: 3 if token["special"] else 4 for token in given["added_tokens"]}
    names = [name for name, _ in vocab]
    names += [token["content"] for token in given["added_tokens"] if token["content"] not in given["model"]["vocab"]]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in given["model"]["merges"]]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.token_type": [added.get(name, 1) for name in names],
        "tokenizer.ggml.merges": merges,
    }
    text = TeacherText(*tokenizer_from_gguf(metadata.get))
    texts = json.loads((folder / "texts.json").read_text())
    recorded = json.loads((folder / pre / "ids.json").read_text())["ids"]
    assert len(recorded) == len(texts)
    for name, source in texts.items():
        assert text.encode(source, special=True, bos=False) == recorded[name], name
