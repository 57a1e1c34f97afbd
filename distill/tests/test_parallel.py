"""Several processes learn what one learns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_train import PACKAGE, arguments, losses, made  # noqa: F401

from onebit_distill.cli import main

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


#: validations between checkpoints: those with an average have to leave the weights as they were
OPTIONS = ("--steps", "12", "--checkpoint-every", "5", "--validate-every", "3", "--optimiser", "muon", "--ema", "0.5")
SHARDINGS = ("fsdp", "replicate")


@pytest.fixture(scope="module")
def runs(made, tmp_path_factory):  # noqa: F811
    """One run alone, and one by two processes for each way to share."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(arguments(made, folder / "alone", *OPTIONS)) == 0
    jobs = [arguments(made, folder / name, *OPTIONS, "--sharding", name) for name in SHARDINGS]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(Path(__file__).with_name("two_processes.py")), json.dumps(jobs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_two_processes_give_the_losses_of_one(runs, sharding):
    alone, together = losses(runs / "alone"), losses(runs / sharding)
    assert together.keys() == alone.keys() and len(alone) == 12
    assert max(abs(together[step] - alone[step]) for step in alone) < 1e-4


def test_one_process_goes_on_with_what_two_have_written(made, runs):  # noqa: F811
    more = ("--steps", "13", *OPTIONS[2:])
    assert main(arguments(made, runs / "alone", *more)) == 0
    assert main(arguments(made, runs / "fsdp", *more)) == 0
    assert abs(losses(runs / "alone")[13] - losses(runs / "fsdp")[13]) < 1e-4


@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_among_several_ends_without_taking_python_down(processes):
    """There, threads of gloo that still hold tensors would abort it."""
    program = (
        "import atexit, onebit_distill.system.processes as p; atexit.register(print, 'down'); print('said'); p.leave(3)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "WORLD_SIZE": str(processes)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 3, done.stderr
    assert done.stdout.split() == (["said", "down"] if processes == 1 else ["said"])
