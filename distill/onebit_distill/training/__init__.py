"""The runs of `train` and `reconstruct`: options, losses, optimisers, the loop, checkpoints, metrics."""
