"""Where real data and the built engine are; tests that need them are skipped by name without them."""

import os
from pathlib import Path

import pytest
import torch

# These models are so small that more threads only get into each other's way.
torch.set_num_threads(1)

PROJECT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("ONEBIT_DATA", PROJECT.parent / "shared" / "data"))
GOLDENS = PROJECT / "test" / "goldens"
#: another checkout's built engine can stand in for this one's
ENGINE = Path(os.environ.get("ONEBIT_ENGINE", PROJECT)) / "dist" / "cli" / "onebit.js"


@pytest.fixture
def data():
    def find(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"{name} not found below {DATA}")
        return DATA / name

    return find


@pytest.fixture
def goldens() -> Path:
    """test/goldens, which the whole repository has and this folder alone has not."""
    if not GOLDENS.exists():
        pytest.skip(f"{GOLDENS} not found: distill was taken without its repository")
    return GOLDENS


@pytest.fixture
def engine() -> Path:
    if not ENGINE.exists():
        pytest.skip(f"the engine is not built: {ENGINE} not found (npm ci)")
    return ENGINE
