"""Teachers of every architecture: the logits that transformers recorded, folders as they lie on the hub, GGUF files, and
their students in the engine."""

import json
import re
import shutil

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_export import log_probabilities, run, student
from test_train import FAST, losses
from tiny_model import TEXT

from onebit_distill.cli import main
from onebit_distill.data.teacher import load_teacher
from onebit_distill.errors import DistillError
from onebit_distill.export.student import export_model, round_as_exported
from onebit_distill.formats.prism_hadamard import hadamard
from onebit_distill.model.starts import student_of
from onebit_distill.training.run_folder import load_student

#: folder of golden/, how its logits are called, largest difference and root of the mean square (its README)
RECORDED = {
    **{f"family/{name}": ("logits", 1e-3, 1e-4) for name in ("opt", "gpt_neox", "mistral", "qwen2")},
    **{
        f"bitnet/{name}": ("logits-float", 5e-4, 5e-5)
        for name in ("offline-2b4t", "online-master", "silu-arch-bitnet", "falcon-style")
    },
}
RECORDED |= {f"qwen35/{name}": ("logits", 2e-3, 2e-4) for name in ("tied", "untied")}
RECORDED |= {f"qwen35/ternary-{name}": ("logits", 2e-3, 2e-4) for name in ("tq2_0", "q2_0")}
ROTATED = {"tied-v2": ["f32"], "partial-identity": ["f32"], "bonsai": ["pq2_0", "ptq1_0", "q2_0"]}
RECORDED |= {f"prism-hadamard/{name}": ("logits", 2e-3, 2e-4) for name in ROTATED}
#: with their GGUF files
FILES = [f"bitnet/offline-2b4t/model.{kind}" for kind in ("i2_s", "tq1_0", "tq2_0")]
FILES += ["bitnet/silu-arch-bitnet/model.tq2_0", "bitnet/falcon-style/model.i2_s"]
FILES += ["qwen35/tied/model.f32", "qwen35/untied/model.bf16"]
FILES += [f"qwen35/ternary-{kind}/model.{kind}" for kind in ("tq2_0", "q2_0")]
FILES += [f"prism-hadamard/{name}/model.{kind}" for name, kinds in ROTATED.items() for kind in kinds]


@torch.no_grad()
def compare(model, folder, logits, most, rms):
    for key, ids in json.loads((folder / "ids.json").read_text()).items():
        wanted = torch.from_numpy(np.load(folder / f"{logits}-{key}.npy"))
        difference = model(torch.tensor([ids])).logits[0] - wanted
        assert difference.abs().max() < most and difference.square().mean().sqrt() < rms


@pytest.mark.parametrize("name", [name for name in RECORDED if not re.search("ternary|prism", name)])
def test_the_recorded_logits_of_folders(data, name):
    folder = data(f"golden/{name}")
    model = load_teacher(folder / "hf").model
    compare(model, folder, *RECORDED[name])
    with torch.no_grad():  # the comparison notices one changed number
        model.model.layers[-1].mlp.down_proj.weight[3, 5] += 0.5
    with pytest.raises(AssertionError):
        compare(model, folder, *RECORDED[name])


@pytest.mark.parametrize("file", FILES)
def test_the_recorded_logits_of_gguf_files(data, file):
    path = data(f"golden/{file}.gguf")
    compare(load_teacher(path).model, path.parent, *RECORDED[file.rpartition("/")[0]])


STUDENTS = ("family/opt", "family/gpt_neox", "bitnet/offline-2b4t", "bitnet/silu-arch-bitnet", "qwen35/untied")


@pytest.mark.parametrize("name", STUDENTS)
def test_the_engine_runs_their_students(data, engine, tmp_path, name):
    folder = data(f"golden/{name}")
    teacher = load_teacher(folder / "hf")
    made = student(teacher.model, "onebit", True)
    export_model(made, teacher, tmp_path / "s.obt")
    round_as_exported(made)
    ids = json.loads((folder / "ids.json").read_text())["b"]
    exact = ["--activations", "f32", "--kv", "f32", "--json"]
    scores = run(engine, "score", tmp_path / "s.obt", "--ids", ",".join(map(str, ids)), *exact)
    assert np.abs(np.array(scores["token_logprobs"][1:]) - log_probabilities(made, ids)).max() < 1e-3


def as_on_the_hub(source, folder, rename, strays=()):
    """pytorch_model.bin in the place of safetensors; vocab.json and merges.txt in that of tokenizer.json."""
    folder.mkdir()
    shutil.copy(source / "config.json", folder)
    state = {rename(name): value for name, value in load_file(source / "model.safetensors").items()}
    torch.save({**state, **{name: torch.zeros(2) for name in strays}}, folder / "pytorch_model.bin")
    model = json.loads((source / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


HUB = {
    "opt": (lambda name: name.removeprefix("model."), ("lm_head.weight",)),
    "gpt_neox": (
        lambda name: name.removeprefix("gpt_neox."),
        [f"layers.0.attention.{stray}" for stray in ("bias", "masked_bias", "rotary_emb.inv_freq")],
    ),
}


@pytest.mark.parametrize("name", HUB)
def test_folders_as_on_the_hub(data, tmp_path, name):
    folder = data(f"golden/family/{name}")
    as_on_the_hub(folder / "hf", tmp_path / "hub", *HUB[name])
    model = json.loads((folder / "hf/tokenizer.json").read_text())["model"]
    special = next(token for token in model["vocab"] if token.isascii() and len(token) > 1)
    (tmp_path / "hub/special_tokens_map.json").write_text(json.dumps({"bos_token": {"content": special}}))
    (tmp_path / "hub/tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    teacher = load_teacher(tmp_path / "hub")
    compare(teacher.model, folder, *RECORDED[f"family/{name}"])
    assert teacher.bos_id == model["vocab"][special] and teacher.encode("a")[0] == teacher.bos_id
    assert teacher.tokenizer.decode(teacher.encode("one, two", bos=False)) == "one, two"


def test_the_first_folders_of_bitnet(data, tmp_path):
    """They call themselves Llamas; their weights are masters, which the class rounds when it multiplies by them."""
    source, folder = data("golden/bitnet/online-master"), tmp_path / "first"
    folder.mkdir()
    root = json.loads((source / "hf/config.json").read_text())
    first = {"model_type": "llama", "architectures": ["BitnetForCausalLM"], "weight_bits": 1, "input_bits": 8}
    root = {name: value for name, value in root.items() if name != "quantization_config"} | first
    (folder / "config.json").write_text(json.dumps({**root, "hidden_act": "silu"}))
    state = load_file(source / "hf/model.safetensors")
    rename = {"attn_sub_norm": "inner_attn_ln", "ffn_sub_norm": "ffn_layernorm"}
    for old, new in rename.items():
        state = {name.replace(old, new): value for name, value in state.items()}
    save_file(state, folder / "model.safetensors")
    found, wanted = load_teacher(folder), load_teacher(source / "hf")
    assert found.config.activation == "silu"
    for name, value in wanted.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)
    config_with(input_bits=4)(folder)
    with pytest.raises(DistillError, match="ERR_UNSUPPORTED_ARCHITECTURE.*input_bits 4"):
        load_teacher(folder)


BROKEN_TEXT = {
    "merges": ({"merges.txt": "a b c\n"}, "ERR_TOKENIZER_FILE"),
    "vocab": ({"vocab.json": '{"a": "b"}'}, "ERR_TOKENIZER_FILE"),
    "class": ({"tokenizer_config.json": '{"tokenizer_class": "T5Tokenizer"}'}, "ERR_UNSUPPORTED_TOKENIZER"),
    "config": ({"tokenizer_config.json": "[]"}, "ERR_BAD_SOURCE"),
    "added": ({"tokenizer_config.json": '{"added_tokens_decoder": {"x": 1}}'}, "ERR_TOKENIZER_FILE"),
}


@pytest.mark.parametrize("case", BROKEN_TEXT)
def test_broken_vocabulary_files(data, tmp_path, case):
    as_on_the_hub(data("golden/family/opt/hf"), tmp_path / "hub", *HUB["opt"])
    files, code = BROKEN_TEXT[case]
    load_teacher(tmp_path / "hub")
    for name, text in files.items():
        (tmp_path / "hub" / name).write_text(text)
    with pytest.raises(DistillError) as caught:
        load_teacher(tmp_path / "hub")
    assert caught.value.code == code


def neox_gguf(source, path, change=None):
    """What llama.cpp's converter makes of a folder: the matrices of q, k and v one after the other."""
    root, state = json.loads((source / "config.json").read_text()), load_file(source / "model.safetensors")
    heads = root["num_attention_heads"]
    writer = gguf.GGUFWriter(path, "gptneox")
    writer.add_context_length(root["max_position_embeddings"])
    writer.add_embedding_length(root["hidden_size"])
    writer.add_block_count(root["num_hidden_layers"])
    writer.add_feed_forward_length(root["intermediate_size"])
    writer.add_rope_dimension_count(int(root["rotary_pct"] * root["hidden_size"] // heads))
    writer.add_head_count(heads)
    writer.add_parallel_residual(root["use_parallel_residual"])
    writer.add_layer_norm_eps(root["layer_norm_eps"])
    if change:
        change(writer)
    parts = {"gpt_neox.layers.": "blk.", "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output"}
    parts |= {"post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm", "mlp.dense_h_to_4h": "ffn_up"}
    parts |= {"mlp.dense_4h_to_h": "ffn_down", "gpt_neox.final_layer_norm": "output_norm"}
    parts |= {"gpt_neox.embed_in": "token_embd", "embed_out": "output"}
    for name, value in state.items():
        if "query_key_value" in name:
            value = value.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
        for theirs, ours in parts.items():
            name = name.replace(theirs, ours)
        writer.add_tensor(name, value.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_of_gpt_neox(data, tmp_path):
    folder = data("golden/family/gpt_neox")
    neox_gguf(folder / "hf", tmp_path / "t.gguf")
    compare(load_teacher(tmp_path / "t.gguf").model, folder, *RECORDED["family/gpt_neox"])


@pytest.mark.parametrize(
    ("key", "value"), [("block_count", 8), ("nextn_predict_layers", 2), ("nextn_predict_layers", 8)]
)
def test_counts_that_would_leave_the_last_layers_out(data, tmp_path, key, value):
    file = bytearray(data("golden/qwen35/untied/model.bf16.gguf").read_bytes())
    # behind a key are the type of its value, here u32, and the value
    at = file.index(f"qwen35.{key}".encode()) + len(f"qwen35.{key}") + 4
    file[at : at + 4] = value.to_bytes(4, "little")
    (tmp_path / "t.gguf").write_bytes(file)
    with pytest.raises(DistillError, match="ERR_BAD_SOURCE.*nextn_predict_layers"):
        load_teacher(tmp_path / "t.gguf")


def test_the_number_in_the_decoders_of_the_first_opt(data, tmp_path):
    shutil.copytree(data("golden/family/opt/hf"), tmp_path / "hf", copy_function=shutil.copyfile)
    state_with(lambda state: state.update({"model.decoder.version": torch.tensor([3.0])}))(tmp_path / "hf")
    load_teacher(tmp_path / "hf")


def test_metadata_of_rotated_files(data):
    """Each is right, or wrong in one key. Files that load have no logits beside them; those above have."""
    paths = sorted(data("golden/prism-hadamard/metadata").glob("*.gguf"))
    assert len(paths) == 38
    for path in paths:
        if path.name.startswith("ok-"):
            assert load_teacher(path).config.architecture == "qwen35"
            continue
        with pytest.raises(DistillError, match=r"prism\.hadamard\.") as caught:
            load_teacher(path)
        assert caught.value.code in ("ERR_UNSUPPORTED_ARCHITECTURE", "ERR_BAD_SOURCE"), path.name


@pytest.mark.parametrize("block", [2, 8, 64])
def test_the_transform_is_its_own_inverse_and_the_written_one(block):
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    bits = [[(i & j).bit_count() % 2 for j in range(block)] for i in range(block)]
    matrix = (1 - 2 * torch.tensor(bits).float()) / block**0.5
    torch.testing.assert_close(hadamard(x, block), (x.unflatten(1, (-1, block)) @ matrix).flatten(1))
    torch.testing.assert_close(hadamard(hadamard(x, block), block), x)


@pytest.mark.parametrize(("key", "value"), [("gptneox.attention.scale", 0.5), ("prism.hadamard.version", 1.0)])
def test_metadata_that_may_change_the_computation(data, tmp_path, key, value):
    neox_gguf(data("golden/family/gpt_neox/hf"), tmp_path / "t.gguf", lambda writer: writer.add_float32(key, value))
    with pytest.raises(DistillError, match=f"ERR_UNSUPPORTED_ARCHITECTURE.*{key.removeprefix('gptneox.')}"):
        load_teacher(tmp_path / "t.gguf")


def config_with(**fields):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def quantised(**fields):
    return config_with(quantization_config={"quant_method": "bitnet", **fields})


def state_with(change):
    def rewrite(folder):
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return rewrite


QKV = "gpt_neox.layers.0.attention.query_key_value.weight"
PACKED = "model.layers.0.self_attn.q_proj.weight"
DAMAGE = {
    "norm behind": ("family/opt", config_with(do_layer_norm_before=False), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "projections": ("family/opt", config_with(word_embed_proj_dim=32), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "no last norm": ("family/opt", config_with(_remove_final_layer_norm=True), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "opt activation": ("family/opt", config_with(activation_function="silu"), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "no biases": ("family/opt", config_with(enable_bias=False), "ERR_BAD_SOURCE"),
    "fewer positions": ("family/opt", config_with(max_position_embeddings=64), "ERR_TENSOR_SHAPE"),
    "heads": ("family/opt", config_with(num_attention_heads=None), "ERR_CONFIG"),
    "neox activation": ("family/gpt_neox", config_with(hidden_act="silu"), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "odd rotation": ("family/gpt_neox", config_with(rotary_pct=0.1), "ERR_CONFIG"),
    "fused": ("family/gpt_neox", state_with(lambda state: state.update({QKV: state[QKV][:-1]})), "ERR_TENSOR_SHAPE"),
    "no fused": ("family/gpt_neox", state_with(lambda state: state.pop(QKV)), "ERR_MISSING_TENSOR"),
    "layer types": ("qwen35/tied", config_with(layer_types=["full_attention"] * 3), "ERR_CONFIG"),
    "sliding layers": ("qwen35/tied", config_with(layer_types=["sliding"] * 8), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "no gate": ("qwen35/tied", config_with(attn_output_gate=False), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "delta heads": ("qwen35/tied", config_with(linear_num_value_heads=5), "ERR_CONFIG"),
    "delta state": ("qwen35/tied", config_with(linear_key_head_dim=8), "ERR_TENSOR_SHAPE"),
    "bitnet activation": ("bitnet/online-master", config_with(hidden_act="gelu"), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "other method": (
        "bitnet/offline-2b4t",
        config_with(quantization_config={"quant_method": "gptq"}),
        "ERR_UNSUPPORTED_TENSOR_TYPE",
    ),
    "code 3": ("bitnet/offline-2b4t", state_with(lambda state: state[PACKED].fill_(255)), "ERR_BAD_SOURCE"),
    "no scale": (
        "bitnet/offline-2b4t",
        state_with(lambda state: state.pop(PACKED.replace("weight", "weight_scale"))),
        "ERR_MISSING_TENSOR",
    ),
    "norms in front": ("bitnet/falcon-style", quantised(use_rms_norm=True), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "other class": ("bitnet/falcon-style", quantised(linear_class="sparse"), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "other mode": ("bitnet/falcon-style", quantised(quantization_mode="online"), "ERR_UNSUPPORTED_ARCHITECTURE"),
    "zero scale": (
        "bitnet/offline-2b4t",
        state_with(lambda state: state[PACKED.replace("weight", "weight_scale")].zero_()),
        "ERR_BAD_SOURCE",
    ),
    "not packed": (
        "bitnet/falcon-style",
        state_with(lambda state: state.update({PACKED: state[PACKED].repeat(4, 1).float()})),
        "ERR_BAD_SOURCE",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_cannot_be_read_is_named(data, tmp_path, case):
    name, change, code = DAMAGE[case]
    shutil.copytree(data(f"golden/{name}/hf"), tmp_path / "hf", copy_function=shutil.copyfile)
    change(tmp_path / "hf")
    with pytest.raises(DistillError) as caught:
        load_teacher(tmp_path / "hf")
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["family/opt", "family/gpt_neox", "bitnet/online-master", "qwen35/tied"])
def test_a_student_learns_from_them(data, tmp_path, name):
    """Blocks first, which reads embedded positions, and then end to end; tokens are of the teacher's tokenizer."""
    texts = [" ".join(TEXT.split()[i % 17 :][: 20 + i % 30]) for i in range(80)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    where = ["--teacher", str(data(f"golden/{name}/hf")), "--data", str(tmp_path / "texts.jsonl")]
    options = [*FAST, "--steps", "30", "--lr", "0.01", "--block-steps", "4", "--block-tokens", "256"]
    assert main(["reconstruct", *where, "--out", str(tmp_path / "run"), *options]) == 0
    course = losses(tmp_path / "run")
    assert sum(course[s] for s in range(26, 31)) < 0.9 * sum(course[s] for s in range(1, 6))
    model, record, _ = load_student(tmp_path / "run")
    assert record.config.features() == load_teacher(data(f"golden/{name}/hf")).config.features() != {}
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "s.obt")]) == 0


def test_a_student_with_a_shorter_context_has_the_first_positions(data):
    teacher = load_teacher(data("golden/family/opt/hf")).model
    made = student_of(teacher, "dense", config=teacher.config.with_context(32))
    ids = torch.arange(32)[None]
    torch.testing.assert_close(made(ids).logits, teacher(ids).logits)
