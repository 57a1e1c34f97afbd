"""Checkpoints in the two layouts of the OneBit authors' repository, with the logits that their arithmetic gives.

    distill/.venv/bin/python scripts/goldens/official_onebit.py [--weights en10-babyllama-tok105.bin]

writes test/goldens/onebit-tiny (a model from a seed, both layouts) and, given its weights, test/goldens/onebit-en10 (a
real model of 936 thousand parameters in the packed layout, with its licence beside it). The layouts and the arithmetic
are rebuilt here from their description (arXiv 2402.11295, equations 3 and 4; what the repository's BitLinear,
BitLinearInf and scripts do), in NumPy and float64; no line of them is the authors'. Only writing the files takes PyTorch.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from llama_reference import LINEARS, NORM_EPS, ROPE_THETA, Shape, logits, read_llama2c

GOLDENS = Path(__file__).resolve().parents[2] / "test" / "goldens"
#: eps of torch's LayerNorm, which the official layer takes as it is
LAYERNORM_EPS = 1e-5
#: every 997th latent weight of the training layout is exactly 0, as training leaves some now and then
ZERO_EVERY = 997

TINY = Shape(dim=48, hidden_dim=80, n_layers=3, n_heads=4, n_kv_heads=2, vocab_size=96, context_length=64)
TINY_SEED, TINY_TOKENS = 20240217, 40
EN10_SEED = 20240218
#: the ids that the data folder's golden of the same weights has, so that its figures and ours can be compared
EN10_IDS = [
    1, 5, 15, 39, 77, 29, 95, 75, 69, 77, 99, 35, 85, 49, 27, 19, 25, 45, 79, 27, 89, 65, 55, 59, 77, 9, 55,
    15, 89, 77, 79, 95, 25, 69, 27, 99, 85, 85, 99, 27, 69, 25, 95, 79, 77, 89, 15, 55, 9, 77, 59, 55, 65, 89,
    27, 79, 45, 25, 19, 27, 49,
]  # fmt: skip


def seeded_weights(shape: Shape, seed: int) -> dict[str, np.ndarray]:
    """Float weights for a model to be made 1-bit of, of about the size that training gives them."""
    random = np.random.RandomState(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    def norm() -> np.ndarray:
        return (1 + 0.1 * random.standard_normal(shape.dim)).astype(np.float32)

    tensors = {"model.embed_tokens.weight": matrix(shape.vocab_size, shape.dim), "model.norm.weight": norm()}
    for layer in range(shape.n_layers):
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = norm()
        tensors[f"model.layers.{layer}.post_attention_layernorm.weight"] = norm()
        for name in LINEARS:
            tensors[f"model.layers.{layer}.{name}.weight"] = matrix(*shape.linear(name))
    return tensors


def rank_one(magnitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """g [columns] and h [rows] with |W| ≈ h gᵀ, the best such in least squares: each from the other until they rest."""
    w = magnitudes.astype(np.float64)
    g = w.mean(0)
    for _ in range(1000):
        h = w @ g / (g @ g)
        before, g = g, h @ w / (h @ h)
        if np.abs(g - before).max() <= 1e-14 * np.abs(g).max():
            break
    balance = np.sqrt(np.linalg.norm(h) / np.linalg.norm(g))
    return g * balance, h / balance


def _is_linear(name: str) -> bool:
    return name.endswith("_proj.weight")


def training_layout(tensors: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """What the official trainer saves: latent weights of which only the sign counts, some exactly 0; `input_factor` (g)
    and `weight_scale` (h); an untied head; and its teacher, a few tensors of which are enough here."""
    random = np.random.RandomState(seed)
    embedding = tensors["model.embed_tokens.weight"]
    made = {"model.embed_tokens.weight": embedding, "lm_head.weight": tensors.get("lm_head.weight", embedding)}
    for name, value in tensors.items():
        if _is_linear(name):
            g, h = rank_one(np.abs(value))
            latent = np.where(value < 0, -1, 1) * random.uniform(0.005, 0.015, value.shape)
            latent.reshape(-1)[::ZERO_EVERY] = 0
            made[name] = latent.astype(np.float32)
            made[name.replace("weight", "weight_scale")] = h.astype(np.float32)
            made[name.replace("weight", "input_factor")] = g.astype(np.float32)
        else:
            made[name] = value
    teacher = ("model.embed_tokens.weight", "lm_head.weight")
    return {**made, **{f"teacher_model.{name}": made[name] for name in teacher}}


def packed_layout(training: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """int8 [rows, columns / 8] for each linear: the first of eight columns in the lowest bit, 1 for -1; 0 counts as +1."""
    made = {}
    for name, value in training.items():
        if name.startswith("teacher_model."):
            continue
        made[name] = np.packbits(value < 0, axis=1, bitorder="little").view(np.int8) if _is_linear(name) else value
    return made


def packed_logits(shape: Shape, packed: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """float64 [T, vocabulary]: equation 3 for each linear, and behind it LayerNorm without weights over all outputs."""

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        bits = np.unpackbits(packed[f"{name}.weight"].view(np.uint8), axis=1, bitorder="little")
        signs = 1.0 - 2.0 * bits
        y = ((x * packed[f"{name}.input_factor"]) @ signs.T) * packed[f"{name}.weight_scale"]
        centred = y - y.mean(-1, keepdims=True)
        return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + LAYERNORM_EPS)

    return logits(shape, packed, ids, linear)


def config_json(shape: Shape, layout: str) -> dict:
    return {
        "architectures": ["BitLlamaForCausalLMInf" if layout == "packed" else "BitLlamaForCausalLM"],
        "model_type": "bitllama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden_dim,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context_length,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_THETA,
        "rope_scaling": None,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }


def logits_json(found: np.ndarray, ids: list[int]) -> dict:
    """What tests compare with: all logits of the last position, and of every position the likeliest token and the
    log-probability of the one that stands there."""
    shifted = found - found.max(-1, keepdims=True)
    scores = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    chosen = [round(float(row[token]), 6) for row, token in zip(scores[:-1], ids[1:], strict=True)]
    return {
        "ids": ids,
        "logits_last": [round(float(value), 6) for value in found[-1]],
        "argmax": found.argmax(-1).tolist(),
        "token_logprobs": [None, *chosen],
        "made_by": "scripts/goldens/official_onebit.py, NumPy, float64",
    }


def write(folder: Path, shape: Shape, layouts: dict[str, dict[str, np.ndarray]], ids: list[int]) -> None:
    import torch

    for layout, tensors in layouts.items():
        target = folder / layout
        target.mkdir(parents=True, exist_ok=True)
        (target / "config.json").write_text(json.dumps(config_json(shape, layout), indent=1) + "\n")
        torch.save(
            {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}, target / "pytorch_model.bin"
        )
    made = logits_json(packed_logits(shape, layouts["packed"], ids), ids)
    (folder / "logits.json").write_text(json.dumps(made) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Goldens in the layouts of the OneBit authors.", allow_abbrev=False)
    parser.add_argument(
        "--weights", type=Path, help="en10-babyllama-tok105.bin (test/goldens/README.md says where from)"
    )
    parser.add_argument("--out", type=Path, default=GOLDENS)
    arguments = parser.parse_args()
    training = training_layout(seeded_weights(TINY, TINY_SEED), TINY_SEED)
    layouts = {"train": training, "packed": packed_layout(training)}
    ids = [1, *np.random.RandomState(TINY_SEED).randint(3, TINY.vocab_size, TINY_TOKENS - 1).tolist()]
    write(arguments.out / "onebit-tiny", TINY, layouts, ids)
    if arguments.weights is not None:
        shape, tensors = read_llama2c(arguments.weights)
        packed = packed_layout(training_layout(tensors, EN10_SEED))
        write(arguments.out / "onebit-en10", shape, {"packed": packed}, EN10_IDS)


if __name__ == "__main__":
    main()
