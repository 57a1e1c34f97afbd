"""What a student is trained on: the teacher's logits, its hidden states, its attention, and the text itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import DistillError
from ..model.fused import is_large
from ..model.linear import compute_dtype
from ..model.llama import Llama, LlamaOutput
from .by_pieces import IGNORED, Divergence, TokenLoss, Written, direction_gap, head_losses, next_token_targets
from .settings import Settings
from .sharding import is_split

#: the loss that is minimised, and its parts by name, each already multiplied by its weight; scalars
LossParts = dict[str, Tensor]


def kl_batchmean(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """The official code's logits loss: KL(teacher ‖ student) summed over tokens and vocabulary, divided by B only.

    Logits [B, T, V]; no shift, no mask. Equation 7 is the soft cross-entropy, which differs from this by the teacher's
    entropy, a constant. The official trainer multiplies by kd_loss_scale = 0.01.
    """
    log_q = F.log_softmax(student.float() / temperature, dim=-1)
    p = F.softmax(teacher.float() / temperature, dim=-1)
    return F.kl_div(log_q, p, reduction="batchmean")


def kl_per_token(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over tokens of KL(teacher ‖ student), in nats: the same for every sequence length. Logits [B, T, V]."""
    log_q = F.log_softmax(student.float() / temperature, dim=-1)
    log_p = F.log_softmax(teacher.float() / temperature, dim=-1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1).mean()


def hidden_loss(student: list[Tensor], teacher: list[Tensor], with_last: bool) -> Tensor:
    """Equation 8: Σ over states of the mean over tokens of ‖t/‖t‖ − s/‖s‖‖².

    Lists of [B, T, dim] with n_layers + 1 states as Hugging Face numbers them. As in the official code the state behind
    the final norm does not count (so the last layer learns from the logits only), unless `with_last`.
    """
    end = len(student) if with_last else len(student) - 1
    total = student[0].new_zeros((), dtype=torch.float32)
    for s, t in zip(student[:end], teacher[:end], strict=True):
        if is_large(s):
            total = total + direction_gap(s, t)
            continue
        gap = F.normalize(t.float(), dim=-1) - F.normalize(s.float(), dim=-1)
        total = total + gap.square().sum(-1).mean()
    return total


def attention_loss(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Σ over layers of the mean over heads and queries of the squared distance of attention probabilities.

    [B, heads, T, S] each, of the layers that have attention. The paper tried a loss of this kind (table 6, kd_gamma) and got NaN in half precision;
    probabilities are float32 here.
    """
    if not student:
        message = "attention_weight must be 0 for a model whose layers all mix by the delta rule"
        raise DistillError("ERR_BAD_OPTION", message)
    total = student[0].new_zeros(())
    for s, t in zip(student, teacher, strict=True):
        total = total + (s - t).square().sum(-1).mean()
    return total


def lm_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Mean cross-entropy of the next token, in nats. logits: [B, T, V]; ids: [B, T]."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


def top_k_loss(student: Tensor, ids: Tensor, log_p: Tensor) -> Tensor:
    """KL over the teacher's k likeliest tokens and one rest for all others, mean over tokens.

    student: logits [B, T, V]; ids: int64 [B, T, k]; log_p: [B, T, k], the teacher's log-probabilities.
    """
    log_q = F.log_softmax(student.float(), dim=-1).gather(-1, ids)
    log_p = log_p.float()
    inside = (log_p.exp() * (log_p - log_q)).sum(-1)
    rest_p = (1 - log_p.exp().sum(-1)).clamp_min(1e-6)
    rest_q = (1 - log_q.exp().sum(-1)).clamp_min(1e-6)
    return (inside + rest_p * (rest_p.log() - rest_q.log())).mean()


def _written_lm(ids: Tensor, weight: float) -> Written:
    """`lm_loss` times weight, for `head_losses`."""
    targets = next_token_targets(ids)

    def summed(logits: Tensor, tokens: slice) -> Tensor:
        return F.cross_entropy(logits, targets[tokens], ignore_index=IGNORED, reduction="sum")

    return Written(weight / ids[:, 1:].numel(), summed)


def _written_top_k(ids: Tensor, log_p: Tensor, weight: float) -> Written:
    """`top_k_loss` summed over tokens, times weight, for `head_losses`."""
    ids, log_p = ids.flatten(0, 1), log_p.flatten(0, 1)

    def summed(logits: Tensor, tokens: slice) -> Tensor:
        return top_k_loss(logits, ids[tokens], log_p[tokens]) * len(logits)

    return Written(weight, summed)


class LanguageModelling:
    """Plain next-token training: how a teacher is made."""

    def __call__(self, model: Llama, ids: Tensor, first: int) -> tuple[Tensor, LossParts]:
        """first: the number of the batch's first block."""
        if is_split(model):
            loss = lm_loss(model(ids).logits, ids)
            return loss, {"lm": loss.detach()}
        state = model(ids, logits="none").state
        loss, (value,) = head_losses(state, model.head_weight, [_written_lm(ids, 1.0)], compute_dtype(state))
        return loss, {"lm": value}


class Transfer:
    """L = w_logits L_KL + α L_hidden (+ attention, + text): knowledge transfer from a teacher, run once per batch."""

    def __init__(self, teacher: Llama, settings: Settings) -> None:
        if not any((settings.logits_weight, settings.hidden_weight, settings.attention_weight, settings.lm_weight)):
            raise DistillError("ERR_BAD_OPTION", "all losses have the weight 0", "Give one of them, as --logits-weight 1.")
        self.teacher, self.settings = teacher, settings
        #: a TopKCache instead of the teacher, see topk.py
        self.cache = None

    def __call__(self, model: Llama, ids: Tensor, first: int) -> tuple[Tensor, LossParts]:
        """first: the number of the batch's first block."""
        settings = self.settings
        wanted = {"hidden_states": settings.hidden_weight > 0, "attentions": settings.attention_weight > 0}
        # a head that processes share is whole only within the model's own forward pass
        wanted["logits"] = "all" if is_split(model) else "none"
        mine, theirs, top = model(ids, **wanted), None, None
        if self.cache is not None:
            top = self.cache.lookup(self.teacher, ids, first)
        else:
            with torch.no_grad():
                theirs = self.teacher(ids, **wanted)
        if is_split(model):
            parts = self._plain_logits(mine, theirs, top, ids)
            loss = sum(parts.values())
        else:
            loss, parts = self._logits_by_pieces(model.head_weight, mine, theirs, top, ids)
        states = self._states(mine, theirs)
        loss = sum(states.values(), start=loss)
        return loss, {name: part.detach() for name, part in {**parts, **states}.items()}

    def _plain_logits(self, mine: LlamaOutput, theirs: LlamaOutput | None, top, ids: Tensor) -> LossParts:
        settings, parts = self.settings, {}
        kl = kl_batchmean if settings.logits_loss == "batchmean" else kl_per_token
        if top is not None:
            tokens = ids.shape[1] if settings.logits_loss == "batchmean" else 1
            parts["logits"] = settings.logits_weight * tokens * top_k_loss(mine.logits, *top)
        elif settings.logits_weight > 0:
            parts["logits"] = settings.logits_weight * kl(mine.logits, theirs.logits, settings.temperature)
        if settings.lm_weight > 0:
            parts["lm"] = settings.lm_weight * lm_loss(mine.logits, ids)
        return parts

    def _logits_by_pieces(
        self, head: Tensor, mine: LlamaOutput, theirs: LlamaOutput | None, top, ids: Tensor
    ) -> tuple[Tensor, LossParts]:
        """What `_plain_logits` gives, without logits of all tokens; and the sum."""
        settings, dtype = self.settings, compute_dtype(mine.state)
        losses: dict[str, TokenLoss] = {}
        count = len(ids) if settings.logits_loss == "batchmean" else ids.numel()
        if top is not None:
            losses["logits"] = _written_top_k(*top, settings.logits_weight / count)
        elif settings.logits_weight > 0:
            state, weight = theirs.state.flatten(0, 1).to(dtype), self.teacher.head_weight.to(dtype)
            losses["logits"] = Divergence(settings.logits_weight / count, state, weight, settings.temperature)
        if settings.lm_weight > 0:
            losses["lm"] = _written_lm(ids, settings.lm_weight)
        if not losses:
            return mine.state.new_zeros((), dtype=torch.float32), {}
        total, values = head_losses(mine.state, head, [*losses.values()], dtype)
        return total, dict(zip(losses, values, strict=True))

    def _states(self, mine: LlamaOutput, theirs: LlamaOutput | None) -> LossParts:
        settings, parts = self.settings, {}
        if settings.hidden_weight > 0:
            states = hidden_loss(mine.hidden_states, theirs.hidden_states, settings.hidden_last)
            parts["hidden"] = settings.hidden_weight * states
        if settings.attention_weight > 0:
            parts["attention"] = settings.attention_weight * attention_loss(mine.attentions, theirs.attentions)
        return parts
