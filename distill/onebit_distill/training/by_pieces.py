"""Losses on logits that are never there as a whole: head, loss and gradient of a few tokens at a time.

Logits of 4,096 tokens of a vocabulary of 49,152 are 0.8 GB in float32, and a loss written plainly makes some eight
tensors of that size. Here the product with the head is done for some hundred tokens, what follows it for a few that fit
into a core's cache, and what leaves is the gradient with respect to the states in front of the head and to its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.by_parts import parts

#: numbers of a piece's logits: of the product, large enough to be multiplied at full speed ...
_PRODUCT_NUMBERS = 1 << 25
#: ... and of what follows it, which goes over the same numbers some ten times
_CACHE_NUMBERS = 1 << 18

#: in the place of a token's target: there is none
IGNORED = -100


class TokenLoss(Protocol):
    """A loss that is a weighted sum over tokens of something that their logits give."""

    #: what the sum over tokens is multiplied by
    weight: float

    def enter(self, tokens: slice) -> None:
        """Tells which tokens, of all N, the next pieces are of."""
        ...

    def piece(self, logits: Tensor, tokens: slice) -> tuple[Tensor, Tensor]:
        """Sum over these tokens, float32 scalar, and its gradient, float32 [n, V]. logits: float32 [n, V]; tokens:
        which of all N they are."""
        ...


class Divergence:
    """Σ over tokens of KL(teacher ‖ student) at a temperature, in nats.

    state: [N, dim] in front of the teacher's head, whose weight is [V, dim]; both in the dtype of the product.
    """

    def __init__(self, weight: float, state: Tensor, head: Tensor, temperature: float = 1.0) -> None:
        self.weight, self.state, self.head, self.temperature = weight, state, head, temperature
        self._first, self._logits = 0, None

    def enter(self, tokens: slice) -> None:
        self._first, self._logits = tokens.start, F.linear(self.state[tokens], self.head)

    def piece(self, logits: Tensor, tokens: slice) -> tuple[Tensor, Tensor]:
        theirs = _wide(self._logits[tokens.start - self._first : tokens.stop - self._first])
        if self.temperature != 1:
            logits, theirs = logits / self.temperature, theirs / self.temperature
        q, p = logits.softmax(-1), theirs.softmax(-1)
        # log p - log q = (t - s) - (log Σ exp t - log Σ exp s): two logarithms a token instead of two a word
        inside = torch.linalg.vecdot(p, theirs - logits)
        value = (inside - _log_sum_exp(theirs, p) + _log_sum_exp(logits, q)).sum()
        return value, q.sub_(p).div_(self.temperature)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _log_sum_exp(logits: Tensor, probabilities: Tensor) -> Tensor:
    """log Σ exp of each row, from the softmax that is there already. [n, V] both -> [n]."""
    return logits.amax(-1) - probabilities.amax(-1).log()


class Written:
    """Any other loss, as it is written for whole logits: its gradient is autograd's, piece by piece.

    loss: (logits float32 [n, V], which of all N tokens) -> the sum over them. Tokens without a loss add 0.
    """

    def __init__(self, weight: float, loss) -> None:
        self.weight, self.loss = weight, loss

    def enter(self, tokens: slice) -> None:
        pass

    def piece(self, logits: Tensor, tokens: slice) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            value = self.loss(leaf, tokens)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient


def _pieces(tokens: slice, size: int) -> Iterator[slice]:
    for first in range(tokens.start, tokens.stop, size):
        yield slice(first, min(first + size, tokens.stop))


def _gradient_of_logits(logits: Tensor, tokens: slice, losses: Sequence[TokenLoss], sums: Tensor, unit: float) -> None:
    """Puts the gradient, divided by `unit`, into the place of the logits [n, V]; adds values to sums, [losses]."""
    size = _CACHE_NUMBERS if logits.device.type == "cpu" else _PRODUCT_NUMBERS
    for part in _pieces(tokens, max(1, size // logits.shape[1])):
        here = logits[part.start - tokens.start : part.stop - tokens.start]
        wide, total = _wide(here), None
        for index, loss in enumerate(losses):
            value, gradient = loss.piece(wide, part)
            sums[index] += value * loss.weight
            if loss.weight != unit:
                gradient = gradient.mul_(loss.weight / unit)
            total = gradient if total is None else total.add_(gradient)
        here.copy_(total)


class _HeadLosses(torch.autograd.Function):
    """Values, and on the way all gradients: backward only multiplies them by what comes from behind."""

    @staticmethod
    def forward(ctx, state: Tensor, head: Tensor, losses: Sequence[TokenLoss], dtype: torch.dtype):
        weight = head.to(dtype)
        wanted = ctx.needs_input_grad[:2]
        grad_state = torch.empty_like(state) if wanted[0] else None
        grad_head = torch.zeros_like(head) if wanted[1] else None
        sums = torch.zeros(len(losses), dtype=torch.promote_types(dtype, torch.float32), device=state.device)
        # Gradients of probabilities lie between -1 and 1, whatever the mean over tokens or fp16's loss scale make of
        # them: they are multiplied by the small factor behind the products, so that nothing is lost to a narrow dtype.
        unit = max((loss.weight for loss in losses), default=1.0) or 1.0
        for tokens in _pieces(slice(0, len(state)), max(1, _PRODUCT_NUMBERS // len(head))):
            x = state[tokens].to(dtype)
            logits = F.linear(x, weight)
            for loss in losses:
                loss.enter(tokens)
            _gradient_of_logits(logits, tokens, losses, sums, unit)
            if grad_state is not None:
                grad_state[tokens] = logits @ weight
            if grad_head is not None:
                grad_head.add_(logits.mT @ x, alpha=unit)
        if grad_state is not None:
            grad_state.mul_(unit)
        ctx.gradients = [grad_state, grad_head]
        ctx.mark_non_differentiable(sums)
        return sums.sum(), sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor, _):
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the gradients of losses on logits were already given away")
        return *(None if gradient is None else gradient.mul_(grad) for gradient in gradients), None, None


def head_losses(
    state: Tensor, head: Tensor, losses: Sequence[TokenLoss], dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """The sum of all losses, to be minimised, and each of them without a gradient; scalars.

    state: [..., dim] in front of the student's head, N tokens in all; head: its weight [V, dim]; dtype: of the products.
    backward may be called once.
    """
    total, values = _HeadLosses.apply(state.flatten(0, -2), head, losses, dtype)
    return total, list(values.unbind())


def next_token_targets(ids: Tensor) -> Tensor:
    """What each token of ids [B, T] should predict, int64 [B T]; `IGNORED` for the last ones, which nothing follows."""
    return torch.cat((ids[:, 1:], ids.new_full((len(ids), 1), IGNORED)), dim=1).flatten()


@torch.no_grad()
def cross_entropy_sum(state: Tensor, head: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over tokens of the cross-entropy in nats, float32 scalar. state: [N, dim]; head: [V, dim]; targets: int64 [N],
    those that are IGNORED add nothing; dtype: of the product."""
    weight, total = head.to(dtype), torch.zeros((), device=state.device)
    size = _CACHE_NUMBERS if state.device.type == "cpu" else _PRODUCT_NUMBERS
    for tokens in _pieces(slice(0, len(state)), max(1, _PRODUCT_NUMBERS // len(head))):
        logits = F.linear(state[tokens].to(dtype), weight)
        for part, wanted in zip(logits.split(max(1, size // len(head))), targets[tokens].split(max(1, size // len(head))), strict=True):
            total += F.cross_entropy(_wide(part), wanted, ignore_index=IGNORED, reduction="sum")
    return total


class _DirectionGap(torch.autograd.Function):
    """Σ over rows of ‖t/‖t‖ − s/‖s‖‖²; keeps the two, and computes everything again for the gradient."""

    @staticmethod
    def forward(ctx, s: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(s, t)
        total = torch.zeros((), device=s.device)
        for part in parts(*s.shape):
            unit, theirs = (F.normalize(x[part].float(), dim=-1) for x in (s, t))
            total += theirs.sub_(unit).square_().sum()
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        s, t = ctx.saved_tensors
        out = torch.empty_like(s)
        for part in parts(*s.shape):
            wide, theirs = s[part].float(), F.normalize(t[part].float(), dim=-1)
            length = wide.norm(dim=-1, keepdim=True).clamp_min_(1e-12)
            unit = wide / length
            along = torch.linalg.vecdot(theirs, unit)[:, None]
            out[part] = unit.mul_(along).sub_(theirs).mul_(2 * grad / length)
        return out, None


def direction_gap(s: Tensor, t: Tensor) -> Tensor:
    """Mean over tokens of ‖t/‖t‖ − s/‖s‖‖², with a gradient for s only. [..., dim] both; float32 scalar."""
    s, t = s.flatten(0, -2), t.flatten(0, -2)
    return _DirectionGap.apply(s, t) / len(s)
