"""AdamW for everything, or Muon for the layers' matrices with AdamW for the rest; the learning rate's course."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..system.processes import multiplied_in
from .settings import Settings

#: coefficients of the quintic iteration that takes singular values towards 1 (Keller Jordan, Muon, 2024)
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5

_CPU_NUMBERS = 1 << 21


def orthogonalise(m: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """U Vᵀ of the SVD of each matrix, roughly (singular values end between about 0.7 and 1.2). m: [n, rows, cols].

    dtype: of the iteration. bfloat16 is enough by its author's experience and twice as fast, but turns differences in
    the last bit of a gradient into visible ones.
    """
    tall = m.shape[-2] > m.shape[-1]
    # lying matrices, one row behind the other: products of transposed ones take twice as long on a CPU
    x = (m.mT if tall else m).to(dtype).contiguous()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(m.dtype)


def _at_once(parameter: Tensor) -> int:
    """How many matrices of this shape are worked on together: all of them, to keep a GPU busy; on a CPU a few, whose
    copies stay near the cores and need little memory."""
    return max(1, _CPU_NUMBERS // parameter.numel()) if parameter.device.type == "cpu" else 1 << 30


def _whole(t: Tensor) -> Tensor:
    """A parameter that FSDP has split, in one piece."""
    return t.full_tensor() if hasattr(t, "full_tensor") else t


def _as_split(whole: Tensor, like: Tensor) -> Tensor:
    if not hasattr(like, "full_tensor"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, like.device_mesh, like.placements)


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is orthogonalised before it is applied (Jordan 2024); decoupled weight decay.

    The update of a [rows, cols] matrix is scaled by sqrt(max(1, rows / cols)). About twice the progress per token of
    AdamW on small models, for a tenth more time a step; the reason why it is here is that on a CPU tokens are scarce.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        # before the first step, whose activations would otherwise leave holes around them
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, alike in by_shape.items():
                size = _at_once(alike[0])
                for first in range(0, len(alike), size):
                    self._apply(alike[first : first + size], group, math.sqrt(max(1.0, shape[0] / shape[1])))

    def _ahead(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov's momentum after this step's gradient."""
        kept = self.state[parameter]["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(kept, momentum)

    def _apply(self, parameters: list[nn.Parameter], group: dict, scale: float) -> None:
        ahead = [_whole(self._ahead(parameter, group["momentum"])) for parameter in parameters]
        for parameter, update in zip(parameters, orthogonalise(torch.stack(ahead), self.dtype), strict=True):
            if group["weight_decay"] != 0:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(_as_split(update, parameter), alpha=-group["lr"] * scale)


def _is_layer_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() == 2 and ".layers." in name


def _is_decayed(name: str, parameter: nn.Parameter, scales_too: bool) -> bool:
    """Matrices always. Hugging Face's trainer, which the official code runs in, leaves out only norms and biases, so g
    and h are decayed there; ours leaves out all vectors, unless `decay_vectors`."""
    if parameter.dim() >= 2:
        return True
    return scales_too and not name.endswith((".bias", "norm.weight"))


def _adamw_groups(named: list[tuple[str, nn.Parameter]], settings: Settings) -> list[dict]:
    """Layers' matrices apart where they have a rate of their own, then what is decayed, then the rest."""
    latents, decayed, others = [], [], []
    for name, p in named:
        if settings.latent_lr > 0 and _is_layer_matrix(name, p):
            latents.append(p)
        else:
            (decayed if _is_decayed(name, p, settings.decay_vectors) else others).append(p)
    return [
        {"params": latents, "lr": settings.latent_lr, "weight_decay": settings.weight_decay},
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def make_optimisers(model: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """Optimisers over what `requires_grad`; each parameter group keeps its peak learning rate as `peak`."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimisers: list[torch.optim.Optimizer] = []
    if settings.optimiser == "muon":
        matrices = [parameter for name, parameter in named if _is_layer_matrix(name, parameter)]
        named = [(name, parameter) for name, parameter in named if not _is_layer_matrix(name, parameter)]
        if matrices:
            narrow = multiplied_in(settings.precision, matrices[0].device) == "bf16"
            dtype = torch.bfloat16 if narrow else torch.float32
            optimisers.append(Muon(matrices, settings.muon_lr, weight_decay=settings.weight_decay, dtype=dtype))
    groups = [group for group in _adamw_groups(named, settings) if group["params"]]
    if groups:
        fused = all(parameter.device.type in ("cpu", "cuda") for _, parameter in named)
        betas = (settings.beta1, settings.beta2)
        optimisers.append(torch.optim.AdamW(groups, lr=settings.lr, betas=betas, eps=settings.eps, fused=fused))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers


def warmup_steps(settings: Settings, steps: int) -> int:
    return int(settings.warmup) if settings.warmup >= 1 else round(settings.warmup * steps)


def rate(settings: Settings, step: int, steps: int) -> float:
    """Share of the peak learning rate in step `step` of 0 … steps - 1.

    Warm-up is linear, (step) / warm-up as transformers' schedulers have it, so the very first step of a warm-up moves
    nothing; cosine and linear end at min_lr; a trapezoid stays at the peak until `decay` of the steps are left.
    """
    warm = warmup_steps(settings, steps)
    if step < warm:
        return step / warm
    done = (step - warm) / max(1, steps - warm)
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "cosine":
        course = 0.5 * (1 + math.cos(math.pi * done))
    elif settings.schedule == "linear":
        course = 1 - done
    else:
        course = min(1.0, (steps - step) / max(1.0, settings.decay * steps))
    return settings.min_lr + (1 - settings.min_lr) * course
