"""test/goldens: the trainer's model gives their logits, and the scripts of scripts/goldens make them again."""

import importlib
import json

import numpy as np
import pytest
import torch
from conftest import PROJECT

from onebit_distill.formats.hf_config import config_from_hf
from onebit_distill.model.linear import SignOptions
from onebit_distill.model.llama import Llama
from onebit_distill.model.starts import linear_factory

RECORDED = "golden/official-onebit-en10"


@pytest.fixture
def script(goldens, monkeypatch):
    """Modules of scripts/goldens by name."""
    monkeypatch.syspath_prepend(str(PROJECT / "scripts" / "goldens"))
    return importlib.import_module


def tensors_of(layout) -> dict[str, torch.Tensor]:
    return torch.load(layout / "pytorch_model.bin", map_location="cpu", weights_only=True)


def trainers_logits(layout, ids) -> torch.Tensor:
    """Of a folder in one of the OneBit authors' layouts, by this package's model."""
    state = {name: value for name, value in tensors_of(layout).items() if not name.startswith("teacher_model.")}
    for name, value in state.items():
        if value.dtype == torch.int8:  # bit k of byte j is column 8j + k, 1 for -1
            bits = value.to(torch.uint8)[..., None] >> torch.arange(8) & 1
            state[name] = 1.0 - 2.0 * bits.flatten(1).float()
    config = config_from_hf(json.loads((layout / "config.json").read_text()))
    model = Llama(config, linear_factory("onebit", SignOptions(layernorm=True)))
    model.load_state_dict(state)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def check_trainer(folder, layout):
    golden = json.loads((folder / "logits.json").read_text())
    logits = trainers_logits(folder / layout, golden["ids"])
    torch.testing.assert_close(logits[-1], torch.tensor(golden["logits_last"]), rtol=0, atol=1e-4)
    assert logits.argmax(-1).tolist() == golden["argmax"]


@pytest.mark.parametrize(("name", "layout"), [("tiny", "train"), ("tiny", "packed"), ("en10", "packed")])
def test_the_trainer_gives_their_logits(goldens, name, layout):
    check_trainer(goldens / f"onebit-{name}", layout)


@pytest.mark.parametrize("layout", ["packed", "train"])
def test_the_trainer_gives_the_logits_of_the_authors_class(data, layout):
    check_trainer(data(RECORDED), layout)


def same_tensors(found: dict[str, torch.Tensor], made: dict[str, np.ndarray]) -> None:
    assert list(found) == list(made)
    for name, value in made.items():
        torch.testing.assert_close(found[name], torch.from_numpy(value), rtol=1e-6, atol=0, msg=name)


def same_logits(recorded: dict, made: dict) -> None:
    for name in ("logits_last", "token_logprobs"):
        skipped = name == "token_logprobs"
        assert made[name][skipped:] == pytest.approx(recorded[name][skipped:], rel=0, abs=2e-5)
    assert (made["ids"], made["argmax"]) == (recorded["ids"], recorded["argmax"])


def test_the_tiny_model_comes_out_of_its_seed(goldens, script):
    official = script("official_onebit")
    training = official.training_layout(official.seeded_weights(official.TINY, official.TINY_SEED), official.TINY_SEED)
    packed = official.packed_layout(training)
    folder = goldens / "onebit-tiny"
    same_tensors(tensors_of(folder / "train"), training)
    same_tensors(tensors_of(folder / "packed"), packed)
    assert any((value == 0).any() for name, value in training.items() if name.endswith("_proj.weight"))
    recorded = json.loads((folder / "logits.json").read_text())
    same_logits(
        recorded, official.logits_json(official.packed_logits(official.TINY, packed, recorded["ids"]), recorded["ids"])
    )


def test_the_real_model_comes_out_of_its_weights_and_meets_the_authors_class(goldens, script, data):
    official, reference = script("official_onebit"), script("llama_reference")
    shape, weights = reference.read_llama2c(data("weights/en10-babyllama-tok105.bin"))
    packed = official.packed_layout(official.training_layout(weights, official.EN10_SEED))
    same_tensors(tensors_of(goldens / "onebit-en10" / "packed"), packed)
    recorded = json.loads((data(RECORDED) / "logits.json").read_text())
    same_logits(recorded, official.logits_json(official.packed_logits(shape, packed, recorded["ids"]), recorded["ids"]))
    ours = json.loads((goldens / "onebit-en10" / "logits.json").read_text())
    same_logits(recorded, ours)
    theirs = tensors_of(data(RECORDED) / "packed")
    assert set(theirs) == set(packed)
    for name, value in theirs.items():
        if value.dtype == torch.int8:
            assert torch.equal(value, torch.from_numpy(packed[name])), name


def test_numpy_tells_llama2cs_stories(goldens, script):
    stories, reference = script("stories260k"), script("llama_reference")
    folder = goldens / "stories260K"
    shape, weights = reference.read_llama2c(folder / "stories260K.bin")
    vocabulary = stories.Vocabulary(folder / "tok512.bin", shape.vocab_size)
    for case in json.loads((folder / "greedy.json").read_text())["cases"]:
        told = vocabulary.decode(stories.greedy(shape, weights, vocabulary.encode(case["prompt"]), 40))
        assert len(told) > 60 and case["text"].startswith(told)
