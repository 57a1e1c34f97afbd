"""What torchrun starts in test_parallel.py: several command lines one after the other, in processes started once."""

import json
import os
import sys

import torch.distributed as dist

from onebit_distill.cli import main
from onebit_distill.system.processes import leave

if __name__ == "__main__":
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    dist.init_process_group("gloo")
    for argv in json.loads(sys.argv[1]):
        if cores:
            os.sched_setaffinity(0, cores)  # each command takes its share of all of them
        assert main(argv) == 0
    dist.destroy_process_group()
    leave(0)
