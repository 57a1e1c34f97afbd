"""A model's blocks, one after the other, each on what the finished ones before it give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ...model.attention import Step
from ...model.config import HF_LINEARS
from ...model.llama import Block, Llama
from ...model.starts import has_signs
from ...system.atomic_file import writing_atomically
from ...training.reconstruct import block_path
from ...training.time_budget import TimeBudget
from ...training.trainer import DTYPES, autocast

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

    def parts(self) -> list[Tensor]:
        """Numbers of sequences, [n] each, that go through a block together."""
        count = max(1, _TOKENS_AT_ONCE // self.inputs.shape[1])
        return list(torch.arange(len(self.inputs)).split(count))

    @torch.no_grad()
    def through(self, block: Block, states: Tensor) -> Tensor:
        """What `block` makes of states."""
        made = [self.one(block, states[rows]) for rows in self.parts()]
        return torch.cat(made).to(states.dtype)

    def one(self, block: Block, states: Tensor) -> Tensor:
        with autocast(states.device, self.precision):
            return block(states.float(), self.step)


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
    told: Callable[[int, dict[str, Any]], None] = lambda *_: None,
) -> None:
    """Changes all blocks of a float32 model, in order. ids: int64 [N, T].

    A finished block is kept in `run`, from which an interrupted call goes on, with the time that was taken. told: of each
    block that this call has made, and of what `method` said. Raises DistillError of `method` and of writing files.
    """
    keep = DTYPES[precision]
    with torch.no_grad():
        mine = model.embed(ids).to(keep)
    theirs, step = mine, model.block_step(ids.shape[1])
    for index, block in enumerate(model.model.layers):
        names = [HF_LINEARS[role] for role in model.config.roles(index) if has_signs(role)]
        data = Calibration(mine, None, step, precision)
        if with_targets:
            theirs = data.through(block, theirs)
            data.targets = theirs
        path = block_path(run, index)
        if path.exists():
            block.load_state_dict(load_file(path))
        else:
            said = method(index, block, names, data)
            with writing_atomically(path) as file:
                file.write(save({name: value.contiguous() for name, value in block.state_dict().items()}))
            budget.keep()
            told(index, said)
        mine = data.through(block, mine)
