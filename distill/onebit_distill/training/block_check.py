"""What the blocks that are fitted so far do to the model, while the others are still the teacher's."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..model.attention import Step
from ..model.linear import compute_dtype
from ..model.llama import Block, Llama
from .by_pieces import cross_entropy_sum, next_token_targets
from .settings import Settings
from .trainer import autocast

#: of the validation text: a few seconds a block, beside the minute that its fit takes
_TOKENS = 4096


@torch.no_grad()
def through(block: Block, states: Tensor, step: Step, precision: str, at_once: int | None = None) -> Tensor:
    """What a block makes of states [N, T, dim], in their dtype; at_once: sequences, default all."""
    dtype = next(block.parameters()).dtype
    with autocast(states.device, precision):
        parts = [block(part.to(dtype), step) for part in states.split(at_once or len(states))]
    return torch.cat(parts).to(states.dtype)


class MixedCheck:
    """Perplexity of a model whose first blocks are the student's and whose others are the teacher's."""

    def __init__(
        self, teacher: Llama, student: Llama, validation: np.ndarray, settings: Settings, device: torch.device,
        tokens: int = _TOKENS,
    ) -> None:  # fmt: skip
        """validation: int64 [n, T], of which so many tokens are taken."""
        count = max(1, tokens // validation.shape[1])
        self.ids = torch.from_numpy(validation[:count]).to(device)
        self.teacher, self.precision = teacher, settings.precision
        self.step = teacher.block_step(self.ids.shape[1])
        with torch.no_grad():
            #: behind the student's blocks so far, [n, T, dim]
            self.states = student.embed(self.ids)

    def _pass(self, block: Block, states: Tensor) -> Tensor:
        return through(block, states, self.step, self.precision)

    @torch.no_grad()
    def behind(self, index: int, block: Block, wanted: bool = True) -> float | None:
        """Goes on through the student's block `index`; the perplexity with the teacher's blocks after it, if wanted."""
        self.states = self._pass(block, self.states)
        if not wanted:
            return None
        states, model = self.states, self.teacher.model
        for other in model.layers[index + 1 :]:
            states = self._pass(other, states)
        with autocast(states.device, self.precision):
            states = model.norm(states.to(model.norm.weight.dtype))
            dtype = compute_dtype(states)
        targets = next_token_targets(self.ids)
        total = float(cross_entropy_sum(states.flatten(0, 1), self.teacher.head_weight, targets, dtype))
        return math.exp(min(total / self.ids[:, 1:].numel(), 80.0))
