"""How much errors count, and where: inputs by what comes through them, outputs by what the loss makes of them.

For y = W x an error dW costs about Σ_ij E[(∂L/∂y_i)²] E[x_j²] dW_ij²: the diagonal of the Fisher information, taken apart
into outputs and inputs (NanoQuant, arXiv 2602.06694, weighs its factorisation in this way).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..model.llama import Block, Llama
from ..system.atomic_file import writing_atomically
from .losses import LanguageModelling
from .settings import Settings
from .trainer import autocast

#: sequences whose gradients say what outputs are worth: means over some thousand tokens
_GRADIENT_TOKENS = 4096
#: of a mean over all channels that each gets before its own: few tokens say little about rare channels
_SHRINK = 0.4
#: channels above this share of all are cut down to it
_QUANTILE = 0.999


def shrunk(squares: Tensor) -> Tensor:
    """Mean squares of channels, [n], as weights of mean 1: outliers cut, and drawn towards each other."""
    squares = squares.double().clamp_min(0)
    squares = squares.clamp_max(torch.quantile(squares, _QUANTILE))
    mean = squares.mean()
    if not mean > 0:
        return torch.ones_like(squares)
    made = (1 - _SHRINK) * squares / mean + _SHRINK
    return made / made.mean()


class _MeanSquares:
    """Mean over tokens of the square of each channel, gathered batch by batch."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0.0

    def add(self, x: Tensor, weight: Tensor | None = None) -> None:
        """x: [..., channels]; weight: of each token, [...], or None for ones."""
        rows = x.detach().flatten(0, -2).float()
        ones = rows.new_ones(len(rows)) if weight is None else weight.flatten().to(rows)
        made = ones @ rows.square()
        self.total = made if self.total is None else self.total + made
        self.count += float(ones.sum())

    def weights(self) -> Tensor:
        """Mean 1, float64 [channels]."""
        return shrunk(self.total / max(self.count, 1e-30))


@dataclass(frozen=True)
class OutputImportance:
    """By name; each float64 with mean 1."""

    #: what errors of a linear's outputs cost, [out], by the linear's full name
    linears: dict[str, Tensor]
    #: what errors of a block's outputs cost, relative to the token's length, [dim], block by block
    blocks: list[Tensor]

    def save(self, path: Path) -> None:
        tensors = {f"block.{index}": value for index, value in enumerate(self.blocks)}
        with writing_atomically(path) as file:
            file.write(save({**tensors, **self.linears}))

    @classmethod
    def load(cls, path: Path) -> OutputImportance:
        tensors = load_file(path)
        blocks = [tensors.pop(f"block.{index}") for index in range(sum(name.startswith("block.") for name in tensors))]
        return cls(tensors, blocks)


@contextmanager
def _gradients_seen(teacher: Llama, linears: dict[str, _MeanSquares], blocks: list[_MeanSquares]):
    """While this lasts, gradients with respect to outputs of the teacher's linears and blocks are added up."""

    def of_linear(seen: _MeanSquares):
        def hook(_, __, y):
            if y.requires_grad:
                y.register_hook(lambda grad: seen.add(grad))

        return hook

    def of_block(seen: _MeanSquares):
        # an error relative to the token's length moves the loss by its gradient times that length
        def hook(_, __, y):
            if y.requires_grad:
                y.register_hook(lambda grad: seen.add(grad, y.detach().float().square().mean(-1)))

        return hook

    handles = [layer.register_forward_hook(of_linear(linears[name])) for name, layer in teacher.linears().items()]
    handles += [
        block.register_forward_hook(of_block(seen)) for block, seen in zip(teacher.model.layers, blocks, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def output_importance(teacher: Llama, ids: Tensor, settings: Settings) -> OutputImportance:
    """From gradients of the text's own cross-entropy under the teacher, over the first tokens of ids, int64 [N, T]."""
    linears = {name: _MeanSquares() for name in teacher.linears()}
    blocks = [_MeanSquares() for _ in teacher.model.layers]
    objective, count = LanguageModelling(), max(1, _GRADIENT_TOKENS // ids.shape[1])
    embedding = teacher.model.embed_tokens
    # the teacher learns nothing: a gradient has to begin somewhere, and what the first block reads is enough
    handle = embedding.register_forward_hook(lambda _, __, y: y.detach().requires_grad_())
    try:
        with _gradients_seen(teacher, linears, blocks), torch.enable_grad():
            for part in ids[:count].split(max(1, 2048 // ids.shape[1])):
                with autocast(ids.device, settings.precision):
                    loss, _ = objective(teacher, part, 0)
                loss.backward()
    finally:
        handle.remove()
    made = {name: seen.weights().cpu() for name, seen in linears.items()}
    return OutputImportance(made, [seen.weights().cpu() for seen in blocks])


@torch.no_grad()
def input_importance(
    block: Block, linears: dict[str, nn.Module], runs, weights: list[Tensor]
) -> dict[str, Tensor]:
    """Mean squares of what each of a block's linears reads, float64 [in] with mean 1, by the names of `linears`.

    runs: calls that run the block on one batch each; weights: of that batch's tokens, as the loss on the block's output
    has them, so that tokens with huge values own this no more than that.
    """
    seen, now = {name: _MeanSquares() for name in linears}, []

    def hook(name: str):
        return lambda _, inputs: seen[name].add(inputs[0], now[0])

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in linears.items()]
    try:
        for run, weight in zip(runs, weights, strict=True):
            now[:] = [weight]
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: squares.weights().cpu() for name, squares in seen.items()}
