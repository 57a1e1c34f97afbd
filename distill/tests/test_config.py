"""The config: its fields against the engine's list, the one form of it in a file, and what is refused."""

import json

import pytest
from conftest import PROJECT
from tiny_model import tiny_config, tiny_llama

from onebit_distill.errors import DistillError
from onebit_distill.export.student import export_model
from onebit_distill.model import llama
from onebit_distill.model.config import LlamaConfig
from onebit_distill.model.fields import FEATURES, FIELDS
from onebit_distill.model.llama import Llama

RICH = tiny_config(architecture="qwen3", tied_head=True, biases=("wq", "wo", "w2"), window=16)
YARN = {"type": "yarn", "factor": 2, "original_context": 64, "beta_fast": 32, "beta_slow": 1, "attention_factor": 0}
#: a value other than the default for each feature
OTHER = {
    "norm": "layer",
    "norm_bias": True,
    "positions": "learned",
    "position_offset": 2,
    "rope_dims": 8,
    "qk_norm": True,
    "attention_inner_norm": True,
    "window": 16,
    "output_gate": True,
    "feed_forward": "plain",
    "activation": "relu2",
    "ffn_inner_norm": True,
    "parallel_residual": True,
    "delta_layers": [1],
    "delta_k_heads": 2,
    "delta_v_heads": 4,
    "delta_k_dim": 16,
    "delta_v_dim": 8,
    "delta_conv": 3,
    "delta_head_order": "tiled",
}
DELTA = {name: value for name, value in OTHER.items() if name.startswith("delta_")}


def with_other(name: str) -> LlamaConfig:
    needed = {"positions": "learned"} if name == "position_offset" else DELTA if name in DELTA else {}
    return tiny_config(**{**needed, name: OTHER[name]})


def test_the_fields_are_the_engines():
    folder = PROJECT / "src" / "config"
    if not folder.exists():
        pytest.skip(f"{folder} not found: distill was taken without its repository")
    theirs = json.loads((folder / "fields.json").read_text())
    assert [field["name"] for field in FIELDS] == [field["name"] for field in theirs]
    for ours, field in zip(FIELDS, theirs, strict=True):
        assert ours == field


def test_a_config_has_every_field_that_is_not_about_storage():
    about_storage = {"rope_style", "embedding", "head", "linears"}
    assert {field["name"] for field in FIELDS} - about_storage == set(LlamaConfig.__dataclass_fields__) - {"biases"}
    assert set(OTHER) == set(FEATURES)
    assert tiny_config().features() == {}


def test_a_config_survives_a_round_trip():
    for config in (RICH, tiny_config(rope_scaling=YARN), *map(with_other, OTHER)):
        assert LlamaConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", OTHER)
def test_a_feature_is_named_where_it_differs_from_its_default(name):
    assert with_other(name).features()[name] == OTHER[name]


def test_defaults_that_follow_from_other_fields():
    assert tiny_config(architecture="qwen3").qk_norm and not tiny_config(architecture="qwen2").qk_norm
    assert tiny_config(architecture="qwen3").features() == {}
    assert tiny_config(architecture="qwen3", qk_norm=False).features() == {"qk_norm": False}
    assert tiny_config().rope_dims == tiny_config().head_dim
    # run.json of before there were features
    old = {name: value for name, value in RICH.to_dict().items() if name not in FEATURES}
    assert LlamaConfig.from_dict(old).qk_norm


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 0},
        {"dim": True},
        {"head_dim": 7},
        {"n_kv_heads": 3},
        {"n_heads": 1024, "head_dim": 128, "n_kv_heads": 1},
        {"norm_eps": 0},
        {"norm_eps": "small"},
        {"architecture": "GPT 4"},
        {"colour": 1},
        {"tied_head": 1},
        {"norm": "batch"},
        {"window": -1},
        {"qk_norm": "yes"},
        {"rope_dims": 18},
        {"rope_dims": 5},
        {"position_offset": 2},
        {"positions": "learned", "rope_dims": 8},
        {"positions": "learned", "rope_scaling": {"type": "linear", "factor": 2}},
        {"delta_k_heads": 2},
        {"delta_head_order": "tiled"},
        {**DELTA, "delta_conv": 0},
        {**DELTA, "delta_layers": [2]},
        {**DELTA, "delta_layers": [1, 0]},
        {**DELTA, "delta_v_heads": 3},
        {**DELTA, "delta_v_heads": 128, "delta_v_dim": 512},
        {"rope_scaling": {"type": "linear"}},
        {"rope_scaling": {"type": "magic"}},
        {"rope_scaling": {"type": "linear", "factor": 0}},
        {"rope_scaling": {"type": "factors", "factors": [1, 2]}},
        {"rope_scaling": {"type": "factors", "factors": [0] * 8}},
        {"rope_scaling": {**YARN, "beta_slow": 32}},
        {"rope_scaling": {**YARN, "original_context": 1.5}},
        {"rope_scaling": {**YARN, "attention_factor": -1}},
    ],
    ids=str,
)
def test_nonsense_is_refused(change):
    with pytest.raises(DistillError, match="ERR_CONFIG"):
        LlamaConfig.from_dict({**tiny_config().to_dict(), **change})


def test_a_missing_field_is_refused():
    with pytest.raises(DistillError, match="ERR_CONFIG"):
        LlamaConfig.from_dict({"dim": 8})


def test_what_is_not_computed_is_not_trained(monkeypatch):
    """A field that the engine has and the trainer has not, as there will be others."""
    monkeypatch.setattr(llama, "_COMPUTED", llama._COMPUTED - {"window"})
    Llama(tiny_config())
    with pytest.raises(DistillError, match="ERR_UNSUPPORTED_ARCHITECTURE.*window = 16"):
        Llama(with_other("window"))


def written(tmp_path, config: LlamaConfig) -> dict:
    export_model(tiny_llama(config), None, tmp_path / "m.obt")
    raw = (tmp_path / "m.obt").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {**json.loads(header["__metadata__"]["config"]), "tensors": list(header)[1:]}


def test_a_file_names_features_in_their_place_and_only_where_they_are_not_the_default(tmp_path):
    always = [field["name"] for field in FIELDS if field["name"] not in FEATURES]
    assert list(written(tmp_path, tiny_config())) == [*always, "tensors"]
    assert list(written(tmp_path, tiny_config(architecture="qwen3"))) == [*always, "tensors"]
    made = written(tmp_path, tiny_config(architecture="mistral", window=16, qk_norm=True))
    assert list(made) == [*always, "qk_norm", "window", "tensors"] and (made["qk_norm"], made["window"]) == (True, 16)
    at = made["tensors"].index("layers.0.wv.weight")
    assert made["tensors"][at + 1 : at + 4] == ["layers.0.q_norm", "layers.0.k_norm", "layers.0.wo.weight"]
