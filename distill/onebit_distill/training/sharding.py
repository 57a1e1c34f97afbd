"""One model in many processes: split by FSDP or whole in each, and its tensors in one piece for checkpoints."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..model.llama import Llama
from ..system.processes import World


def shard(model: Llama, world: World) -> None:
    """Splits parameters, gradients and optimiser state over the processes (FSDP2), layer by layer."""
    if world.size == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def average_gradients(model: nn.Module, world: World) -> None:
    """For processes that each have the whole model: one exchange a step, so a slow core holds the others up once."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    line = world.mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, line.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def is_split(model: nn.Module) -> bool:
    """Whether processes share the model's weights: they are then whole only within its forward pass."""
    return hasattr(model, "set_requires_gradient_sync")


def sync_gradients(model: nn.Module, now: bool) -> None:
    """Whether the next backward pass ends an accumulation and gradients are to be averaged."""
    if is_split(model):
        model.set_requires_gradient_sync(now)


def whole(value: Any) -> Any:
    """A split tensor in one piece on the CPU; every process has to call this for every tensor."""
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    return value.detach().cpu() if isinstance(value, Tensor) else value


def place(target: Tensor, value: Tensor) -> None:
    """Copies a whole tensor into one that may be split."""
    with torch.no_grad():
        if hasattr(target, "full_tensor"):
            from torch.distributed.tensor import distribute_tensor

            value = value.to(device=target.device, dtype=target.dtype)
            target.copy_(distribute_tensor(value, target.device_mesh, target.placements))
        else:
            target.copy_(value)
