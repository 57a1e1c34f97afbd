"""`.obt` files: the same bytes and logits as the engine's, nothing left behind when writing fails."""

import json
import os
import struct
import subprocess

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny_model import TEXT, tiny_config, tiny_llama, write_folder

from onebit_distill.data.teacher import load_teacher
from onebit_distill.errors import DistillError
from onebit_distill.export.student import export_model, pack_signs, round_as_exported
from onebit_distill.formats.crc32c import crc32c
from onebit_distill.formats.js_json import to_js_json
from onebit_distill.model.linear import SignOptions
from onebit_distill.model.starts import StartOptions, student_of
from onebit_distill.system.atomic_file import writing_atomically

IDS = [1] + [i * 31 % 320 for i in range(1, 100)]
LLAMA3 = {"type": "llama3", "factor": 4, "low_freq_factor": 1, "high_freq_factor": 4, "original_context": 64}
LINEAR = {"type": "linear", "factor": 2}
YARN = {"type": "yarn", "factor": 4.0, "original_context": 32, "beta_fast": 32, "beta_slow": 1, "attention_factor": 0}
SIX = ("wq", "wk", "wv", "wo", "w1", "w2")
OPT = {
    "architecture": "opt",
    "norm": "layer",
    "norm_bias": True,
    "positions": "learned",
    "position_offset": 2,
    "feed_forward": "plain",
    "activation": "relu",
    "tied_head": True,
    "biases": SIX,
}
GPT_NEOX = {
    "architecture": "gpt_neox",
    "norm": "layer",
    "norm_bias": True,
    "feed_forward": "plain",
    "activation": "gelu",
    "parallel_residual": True,
    "rope_dims": 4,
    "biases": SIX,
}
BITNET = {"architecture": "bitnet", "attention_inner_norm": True, "ffn_inner_norm": True, "activation": "relu2"}
DELTA = {
    "architecture": "qwen35",
    "qk_norm": True,
    "output_gate": True,
    "rope_dims": 4,
    "delta_layers": [0],
    "delta_k_heads": 2,
    "delta_v_heads": 4,
    "delta_k_dim": 16,
    "delta_v_dim": 8,
    "delta_conv": 4,
}
GATE = {"output_gate": True, "qk_norm": True, "activation": "gelu_tanh", "rope_dims": 8, "rope_scaling": LINEAR}
#: kind of student, LayerNorm, changes of the config, how embedding and head are stored, what else is not as usual
CASES = {
    "onebit": ("onebit", True, {}, "f32"),
    "onebit without LayerNorm": ("onebit", False, {"tied_head": True}, "f32"),
    "column": ("onebit", False, {}, "f32", {"column": True}),
    "column and LayerNorm": ("onebit", True, {"biases": ("wq", "w2")}, "q8", {"column": True}),
    "column of a chain": ("chain:2", False, {"architecture": "qwen3"}, "f32", {"column": True}),
    "column, f16": ("onebit", False, {}, "q8", {"column": True, "scales": "f16"}),
    "chain, f16": ("chain:1", True, {}, "q8", {"scales": "f16"}),
    "chain": ("chain:2", False, {"rope_scaling": LLAMA3}, "f32"),
    "chain with LayerNorm": ("chain:1", True, {"architecture": "qwen3"}, "q8"),
    "bitnet without LayerNorm": ("bitnet", False, {}, "f32"),
    "dense": ("dense", False, {"biases": ("wq", "wk", "wv", "wo")}, "f32"),
    "biases": ("onebit", True, {"biases": ("wq", "w2"), "rope_scaling": YARN}, "q8"),
    "window": ("onebit", True, {"architecture": "mistral", "window": 16}, "f32"),
    "qwen2": ("onebit", False, {"architecture": "qwen2", "biases": ("wq", "wk", "wv")}, "f32"),
    "opt": ("onebit", True, OPT, "f32"),
    "opt chain": ("chain:2", False, OPT, "q8"),
    "gpt_neox": ("onebit", True, GPT_NEOX, "f32"),
    "gpt_neox dense": ("dense", False, GPT_NEOX, "f16"),
    "bitnet, the architecture": ("onebit", False, BITNET, "f32"),
    "gate": ("onebit", True, GATE, "f32"),
    "delta": ("onebit", True, DELTA, "f32"),
    "delta chain": ("chain:2", False, {**DELTA, "delta_head_order": "tiled", "delta_layers": [0, 1]}, "q8"),
    "biased norms": ("onebit", True, {**BITNET, "norm_bias": True, "positions": "learned"}, "f32"),
    "factors": ("onebit", True, {"rope_scaling": {"type": "factors", "factors": [1, 1.5, 2, 3, 4, 5, 6, 7.25]}}, "f16"),
}


def run(engine, *arguments):
    done = subprocess.run(["node", str(engine), *map(str, arguments)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def student(teacher, kind, layernorm, seed=5, column=False):
    """A start with scales and biases moved, as training would."""
    options = SignOptions(layernorm=layernorm, column=column)
    made = student_of(teacher, kind, StartOptions(latent="magnitude"), options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:
                parameter *= 1 + 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


@torch.no_grad()
def log_probabilities(model, ids):
    scores = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return scores[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0].numpy()


@pytest.mark.parametrize("case", CASES)
def test_the_engine_gives_the_trainers_log_probabilities(tmp_path, engine, case):
    kind, layernorm, changes, embed, more = (*CASES[case], {})[:5]
    made = student(tiny_llama(tiny_config(**changes)), kind, layernorm, column=more.get("column", False))
    report = export_model(made, None, tmp_path / "s.obt", embed=embed, scales=more.get("scales", "f32"))
    round_as_exported(made, embed, more.get("scales", "f32"))
    exact = ["--activations", "f32", "--kv", "f32", "--json"]
    scores = run(engine, "score", tmp_path / "s.obt", "--ids", ",".join(map(str, IDS)), *exact)
    found, wanted = np.array(scores["token_logprobs"][1:]), log_probabilities(made, IDS)
    assert np.abs(found - wanted).max() < 1e-3
    # the comparison notices one flipped scale
    with torch.no_grad():
        next(p for name, p in made.named_parameters() if "layers.1.input" in name and p.dim() == 1)[3] *= -1
    assert np.abs(found - log_probabilities(made, IDS)).max() > 1e-3
    info = run(engine, "info", tmp_path / "s.obt", "--json")
    assert report.file_bytes == os.path.getsize(tmp_path / "s.obt")
    assert report.bits_per_linear_weight == pytest.approx(info["size"]["bitsPerLinearWeight"], rel=1e-9)


def test_tokenizer_template_and_provenance_go_along(tmp_path, engine):
    write_folder(tmp_path / "teacher")
    teacher = load_teacher(tmp_path / "teacher")
    made = student(teacher.model, "onebit", True)
    extra = {"command": 'train --out "é\u2028\\" 1e-5', "scores": {"perplexity": 1e-5, "2": 1e21, "1": [None, True]}}
    export_model(made, teacher, tmp_path / "s.obt", provenance=extra)
    scores = run(engine, "score", tmp_path / "s.obt", "--text", TEXT, "--json")
    assert scores["ids"] == teacher.encode(TEXT, special=True)
    provenance = run(engine, "info", tmp_path / "s.obt", "--json")["provenance"]
    assert provenance["teacher"]["sha256"] == teacher.sha256
    assert {name: provenance[name] for name in extra} == extra


def test_any_safetensors_reader_opens_it(tmp_path):
    made = student(tiny_llama(tiny_config()), "onebit", True)
    export_model(made, None, tmp_path / "s.obt", embed="f32")
    raw = (tmp_path / "s.obt").read_bytes()
    assert (8 + struct.unpack("<Q", raw[:8])[0]) % 64 == 0
    layer = made.model.layers[1].mlp.down_proj
    with safe_open(tmp_path / "s.obt", framework="np") as file:
        assert file.metadata()["format"] == "obt"
        np.testing.assert_array_equal(file.get_tensor("layers.1.w2.g"), layer.input_factor.detach().numpy())
        sign = file.get_tensor("layers.1.w2.sign")
    for row, column in ((0, 0), (3, 9), (63, 95)):
        assert (sign[row, column // 8] >> (column % 8) & 1) == int(layer.weight[row, column] < 0)


def test_exact_zeros_are_counted_and_become_plus_one(tmp_path):
    made = student(tiny_llama(tiny_config()), "onebit", True)
    with torch.no_grad():
        made.linears()["model.layers.0.self_attn.q_proj"].weight[0, :3] = torch.tensor([0.0, -0.0, -1.0])
    assert export_model(made, None, tmp_path / "s.obt").exact_zeros == 2
    assert pack_signs(torch.tensor([[0.0, -0.0, -1.0, 1, 1, 1, 1, -2]])).tolist() == [[0b10000100]]


@pytest.mark.parametrize("case", ["bitnet", "nan", "columns", "embed", "tokenizer", "deep", "number"])
def test_what_cannot_be_exported_leaves_the_old_file(tmp_path, case):
    target = tmp_path / "s.obt"
    target.write_bytes(b"old")
    config = tiny_config(hidden_dim=92) if case == "columns" else tiny_config()
    made = student(tiny_llama(config), "bitnet" if case == "bitnet" else "onebit", True)
    options, teacher = {}, None
    if case == "nan":
        with torch.no_grad():
            made.model.layers[1].mlp.up_proj.weight_scale[2] = float("nan")
    if case == "embed":
        options["embed"] = "q4"
    if case == "tokenizer":
        write_folder(tmp_path / "teacher")
        teacher = load_teacher(tmp_path / "teacher")
        made = student(tiny_llama(tiny_config(vocab_size=200)), "onebit", True)
    if case == "deep":
        options["provenance"] = {"a": [[[[[[1]]]]]]}
    if case == "number":
        options["provenance"] = {"loss": float("nan")}
    expected = {"nan": "ERR_NOT_FINITE", "embed": "ERR_BAD_OPTION", "tokenizer": "ERR_TOKENIZER_FIT"}
    expected |= {"deep": "ERR_HEADER", "number": "ERR_HEADER"}
    with pytest.raises(DistillError) as caught:
        export_model(made, teacher, target, **options)
    assert caught.value.code == expected.get(case, "ERR_NOT_EXPORTABLE")
    assert target.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir() if ".tmp-" in p.name] == []


def test_targets_that_cannot_be_written(tmp_path):
    made = student(tiny_llama(tiny_config()), "onebit", True)
    for path, code in ((tmp_path, "ERR_IS_DIRECTORY"), (tmp_path / "no" / "s.obt", "ERR_NO_FOLDER")):
        with pytest.raises(DistillError) as caught:
            export_model(made, None, path)
        assert caught.value.code == code


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_has_its_own_code(tmp_path):
    with pytest.raises(DistillError, match="ERR_DISK_FULL"):
        with writing_atomically(tmp_path / "file") as file:
            with open("/dev/full", "wb", buffering=0) as full:
                full.write(b"x")
            file.write(b"never")
    assert list(tmp_path.iterdir()) == []


def test_crc32c():
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(b"") == 0 and crc32c(b"abc") == 0x364B3FB7
    data = np.random.default_rng(0).integers(0, 256, 3_000_001, dtype=np.uint8).tobytes()
    for size in (4, 5, 255, 256, 1023, 4096, 70_001):
        crc = 0xFFFFFFFF
        for byte in data[:size]:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        assert crc32c(data[:size]) == crc ^ 0xFFFFFFFF, size
    # of a long text, through the property that the checksum behind a text is the same for all texts
    ends = {crc32c(piece + crc32c(piece).to_bytes(4, "little")) for piece in (data, data[:2_000_000], b"abc")}
    assert len(ends) == 1


def test_numbers_as_javascript_writes_them():
    cases = {1e-5: "0.00001", 1e-6: "0.000001", 1e-7: "1e-7", 1.5e-7: "1.5e-7", 1e21: "1e+21", 1e20: "1" + "0" * 20}
    cases |= {
        100000.0: "100000",
        -0.0: "0",
        123.456: "123.456",
        -2.5e30: "-2.5e+30",
        0.1: "0.1",
        2**53: "9007199254740992",
    }
    for number, wanted in cases.items():
        assert to_js_json(number) == wanted
    assert (
        to_js_json({"b": 1, "10": 2, "9": [True, None, 'é"\n\x01']})
        == '{"9":[true,null,"é\\"\\n\\u0001"],"10":2,"b":1}'
    )
    for bad in (float("inf"), "\ud800", {"__proto__": 1}, {1: 2}, {1, 2}):
        with pytest.raises(DistillError, match="ERR_HEADER"):
            to_js_json(bad)
