"""A model's blocks, one after the other, each on what the finished ones before it give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ...model.attention import Step
from ...model.llama import Block, Llama
from ...model.starts import signed_linears
from ...training.block_check import through
from ...training.reconstruct import block_path, keep_block
from ...training.time_budget import TimeBudget
from ...training.trainer import DTYPES

#: tokens that go through a block at once
_TOKENS_AT_ONCE = 4096


@dataclass
class Calibration:
    """What one block is made on; states are [N, T, dim]."""

    #: what the finished blocks before it give
    inputs: Tensor
    #: what the float block gives from the float model's states; None: not asked for
    targets: Tensor | None
    step: Step
    #: of products: f32 | bf16
    precision: str

    @property
    def at_once(self) -> int:
        """Sequences that go through a block together."""
        return max(1, _TOKENS_AT_ONCE // self.inputs.shape[1])

    def through(self, block: Block, states: Tensor) -> Tensor:
        """What `block` makes of states."""
        return through(block, states, self.step, self.precision, self.at_once)


#: rounds the linears of these names (within the block of this number) in place, and says what that took
BlockMethod = Callable[[int, Block, list[str], Calibration], dict[str, Any]]


def quantise_blocks(
    model: Llama,
    ids: Tensor,
    method: BlockMethod,
    run: Path,
    precision: str,
    *,
    with_targets: bool,
    budget: TimeBudget,
    told: Callable[[int], None] = lambda _: None,
) -> None:
    """Changes all blocks of a float32 model, in order. ids: int64 [N, T].

    A finished block is kept in `run` with what `method` said of it, from which an interrupted call goes on, with the time
    that was taken. told: of each block that this call has made. Raises DistillError of `method` and of writing files.
    """
    keep = DTYPES[precision]
    with torch.no_grad():
        mine = model.embed(ids).to(keep)
    theirs, step = mine, model.block_step(ids.shape[1])
    for index, block in enumerate(model.model.layers):
        data = Calibration(mine, None, step, precision)
        if with_targets:
            theirs = data.through(block, theirs)
            data.targets = theirs
        path = block_path(run, index)
        if path.exists():
            block.load_state_dict(load_file(path))
        else:
            keep_block(run, index, block, method(index, block, signed_linears(model.config, index), data))
            budget.keep()
            told(index)
        mine = data.through(block, mine)
