"""What transformers makes of YaRN's parameters: frequencies and the magnitude of cosines and sines.

    python scripts/goldens/yarn.py     # in an environment with transformers 5 and PyTorch

writes test/goldens/yarn.json, which tests of the trainer compare with.
"""

from __future__ import annotations

import json
from pathlib import Path

import transformers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

TARGET = Path(__file__).resolve().parents[2] / "test" / "goldens" / "yarn.json"

USUAL = {"factor": 4.0, "original_max_position_embeddings": 256}
#: name: (size of a head, theta, what differs from USUAL)
CASES = {
    "usual": (16, 10000.0, {}),
    "a factor of 1": (16, 10000.0, {"factor": 1.0}),
    "a factor below 1": (16, 10000.0, {"factor": 0.5}),
    "a magnitude of its own": (16, 10000.0, {"attention_factor": 1.3}),
    "a magnitude of its own, a factor below 1": (16, 10000.0, {"factor": 0.5, "attention_factor": 0.9}),
    "mscale": (16, 10000.0, {"factor": 8.0, "mscale": 0.707, "mscale_all_dim": 1.2}),
    "mscale, a factor below 1": (16, 10000.0, {"factor": 0.25, "mscale": 0.707, "mscale_all_dim": 1.2}),
    "mscale without mscale_all_dim": (16, 10000.0, {"factor": 8.0, "mscale": 0.707}),
    "another ramp": (16, 10000.0, {"beta_fast": 16.0, "beta_slow": 2.0}),
    "a ramp without width": (16, 10000.0, {"original_max_position_embeddings": 6, "beta_fast": 2.0}),
    "a context shorter than a turn of the fastest pair": (16, 10000.0, {"original_max_position_embeddings": 4}),
    "a context in which no pair turns": (16, 10000.0, {"original_max_position_embeddings": 1}),
    "a context in which every pair turns often": (16, 500.0, {"original_max_position_embeddings": 1 << 20}),
    "larger heads": (64, 1e6, {"factor": 2.5, "original_max_position_embeddings": 32768}),
}


def computed(head_dim: int, theta: float, changes: dict) -> dict:
    parameters = {"rope_type": "yarn", "rope_theta": theta, **USUAL, **changes}
    positions = int(parameters["factor"] * parameters["original_max_position_embeddings"])
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=max(positions, 1),
        rope_parameters=parameters,
    )
    frequencies, magnitude = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    return {
        "head_dim": head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_parameters": parameters,
        "frequencies": [float(f"{value:.9g}") for value in frequencies.tolist()],
        "magnitude": magnitude,
    }


if __name__ == "__main__":
    made = {name: computed(*case) for name, case in CASES.items()}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(case)}" for name, case in made.items())
    head = f'"made_by": "scripts/goldens/yarn.py, transformers {transformers.__version__}, float32"'
    TARGET.write_text(f'{{\n {head},\n "cases": {{\n{lines}\n }}\n}}\n')
