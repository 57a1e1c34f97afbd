"""Losses on logits that are never there as a whole: head, loss and gradient of a few tokens at a time.

Logits of 4,096 tokens of a vocabulary of 49,152 are 0.8 GB in float32, and a loss written plainly makes some eight
tensors of that size. Here the product with the head is done for some hundred tokens, what follows it for some dozen, and
what leaves is the gradient with respect to the states in front of the head and to its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.fused import fused

#: numbers of a piece's logits: of the product, large enough to be multiplied at full speed ...
_PRODUCT_NUMBERS = 1 << 25
#: ... and of what follows it, whose float32 tensors should not need more memory than that
_CACHE_NUMBERS = 1 << 21

#: in the place of a token's target: there is none
IGNORED = -100


class TokenLoss(Protocol):
    """A loss that is a weighted sum over tokens of something that their logits give."""

    #: what the sum over tokens is multiplied by
    weight: float

    def enter(self, tokens: slice) -> None:
        """Tells which tokens, of all N, the next pieces are of."""
        ...

    def piece(self, logits: Tensor, tokens: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Sum over these tokens, float32 scalar, and its gradient, [n, V] in `dtype`. logits: [n, V] in the dtype of the
        product; tokens: which of all N they are."""
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

    def piece(self, logits: Tensor, tokens: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        theirs = self._logits[tokens.start - self._first : tokens.stop - self._first]
        values, gradient = _divergence(logits, theirs, self.temperature, dtype)
        return values.sum(), gradient


@fused
def _divergence(logits: Tensor, theirs: Tensor, temperature: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """KL of each row [n] and its gradient [n, V]."""
    s, t = _wide(logits) / temperature, _wide(theirs) / temperature
    top_s, top_t = s.amax(-1, keepdim=True), t.amax(-1, keepdim=True)
    exp_s, exp_t = (s - top_s).exp(), (t - top_t).exp()
    sum_s, sum_t = exp_s.sum(-1, keepdim=True), exp_t.sum(-1, keepdim=True)
    # log p - log q = (t - s) - (log Σ exp t - log Σ exp s): two logarithms a token instead of two a word
    between = (top_s + sum_s.log() - top_t - sum_t.log()).squeeze(-1)
    values = (exp_t * (t - s)).sum(-1) / sum_t.squeeze(-1) + between
    return values, ((exp_s / sum_s - exp_t / sum_t) / temperature).to(dtype)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class Written:
    """Any other loss, as it is written for whole logits: its gradient is autograd's, piece by piece.

    loss: (logits float32 [n, V], which of all N tokens) -> the sum over them. Tokens without a loss add 0.
    """

    def __init__(self, weight: float, loss) -> None:
        self.weight, self.loss = weight, loss

    def enter(self, tokens: slice) -> None:
        pass

    def piece(self, logits: Tensor, tokens: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = _wide(logits).detach().requires_grad_()
            value = self.loss(leaf, tokens)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient.to(dtype)


def _pieces(tokens: slice, most: int) -> Iterator[slice]:
    """Of at most so many tokens each, and about as large as each other: a rest of two costs as much as hundreds where
    something is done for the whole vocabulary."""
    count = tokens.stop - tokens.start
    pieces = -(-count // most)
    for index in range(pieces):
        yield slice(tokens.start + count * index // pieces, tokens.start + count * (index + 1) // pieces)


def _gradient_of_logits(logits: Tensor, tokens: slice, losses: Sequence[TokenLoss], sums: Tensor, unit: float) -> None:
    """Puts the gradient, divided by `unit`, into the place of the logits [n, V]; adds values to sums, [losses]."""
    dtype = logits.dtype if len(losses) == 1 else torch.promote_types(logits.dtype, torch.float32)
    for part in _pieces(tokens, _rows_at_once(logits)):
        here, total = logits[part.start - tokens.start : part.stop - tokens.start], None
        for index, loss in enumerate(losses):
            value, gradient = loss.piece(here, part, dtype)
            sums[index] += value * loss.weight
            if loss.weight != unit:
                gradient = gradient.mul_(loss.weight / unit)
            total = gradient if total is None else total.add_(gradient)
        here.copy_(total)


def _rows_at_once(logits: Tensor) -> int:
    numbers = _CACHE_NUMBERS if logits.device.type == "cpu" else _PRODUCT_NUMBERS
    return max(1, numbers // logits.shape[1])


@fused
def _scaled(product: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
    return product.to(dtype) * factor


@fused
def _add_scaled(total: Tensor, product: Tensor, factor: float) -> Tensor:
    return total.add_(product.to(total.dtype) * factor)


def _added(total: Tensor | None, product: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
    """total + product · factor in one pass over memory, in place; total: of `dtype`, None for the first product."""
    return _scaled(product, factor, dtype) if total is None else _add_scaled(total, product, factor)


class _HeadLosses(torch.autograd.Function):
    """Values, and on the way all gradients: backward only multiplies them by what comes from behind."""

    @staticmethod
    def forward(ctx, state: Tensor, head: Tensor, losses: Sequence[TokenLoss], dtype: torch.dtype):
        weight = head.to(dtype)
        wanted = ctx.needs_input_grad[:2]
        grad_state = torch.empty_like(state) if wanted[0] else None
        grad_head = None
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
            if wanted[1]:
                grad_head = _added(grad_head, logits.mT @ x, unit, head.dtype)
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
    for tokens in _pieces(slice(0, len(state)), max(1, _PRODUCT_NUMBERS // len(head))):
        logits = F.linear(state[tokens].to(dtype), weight)
        for part in _pieces(slice(0, len(logits)), _rows_at_once(logits)):
            wanted = targets[tokens][part]
            total += F.cross_entropy(_wide(logits[part]), wanted, ignore_index=IGNORED, reduction="sum")
    return total


@fused
def _gap(s: Tensor, t: Tensor) -> Tensor:
    return (F.normalize(t.float(), dim=-1) - F.normalize(s.float(), dim=-1)).square().sum(-1)


@fused
def _gap_gradient(s: Tensor, t: Tensor, grad: Tensor) -> Tensor:
    wide, theirs = s.float(), F.normalize(t.float(), dim=-1)
    length = wide.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-12)
    unit = wide / length
    along = (theirs * unit).sum(-1, keepdim=True)
    return ((unit * along - theirs) * (2 * grad / length)).to(s.dtype)


class _DirectionGap(torch.autograd.Function):
    """Σ over rows of ‖t/‖t‖ − s/‖s‖‖²; keeps the two, and computes everything again for the gradient."""

    @staticmethod
    def forward(ctx, s: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(s, t)
        return _gap(s, t).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        return _gap_gradient(*ctx.saved_tensors, grad), None


def direction_gap(s: Tensor, t: Tensor) -> Tensor:
    """Mean over tokens of ‖t/‖t‖ − s/‖s‖‖², with a gradient for s only. [..., dim] both; float32 scalar."""
    s, t = s.flatten(0, -2), t.flatten(0, -2)
    return _DirectionGap.apply(s, t) / len(s)
