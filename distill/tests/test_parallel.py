"""Several processes learn what one learns."""

import json
import os
import subprocess
import sys

import pytest
import torch
from onebit_distill.cli import main
from test_train import PACKAGE, arguments, losses, made  # noqa: F401

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


@pytest.fixture(scope="module")
def alone(made, tmp_path_factory):  # noqa: F811
    run = tmp_path_factory.mktemp("alone") / "run"
    assert main(arguments(made, run, *OPTIONS)) == 0
    return losses(run)


OPTIONS = ("--steps", "12", "--checkpoint-every", "5", "--optimiser", "muon", "--ema", "0.5")


@pytest.mark.parametrize("sharding", ["fsdp", "replicate"])
def test_two_processes_give_the_losses_of_one(made, tmp_path, alone, sharding):  # noqa: F811
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "onebit_distill", *arguments(made, tmp_path / "run", *OPTIONS, "--sharding", sharding)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    together = losses(tmp_path / "run")
    assert together.keys() == alone.keys()
    assert max(abs(together[step] - alone[step]) for step in alone) < 1e-4
    # whole tensors in the checkpoint: one process goes on with what two have written
    marker = json.loads((tmp_path / "run" / "checkpoint-0000012" / "DONE").read_text())
    assert "optimiser.safetensors" in marker["files"]
    assert main(arguments(made, tmp_path / "run", *OPTIONS[2:], "--steps", "13", "--sharding", sharding)) == 0
    assert 13 in losses(tmp_path / "run")
