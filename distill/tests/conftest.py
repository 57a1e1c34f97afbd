"""One thread: these models are so small that more only get into each other's way."""

import torch

torch.set_num_threads(1)
