"""Losses by pieces of tokens against the same losses on whole logits: values, and all gradients."""

import pytest
import torch
from tiny_model import tiny_config, tiny_llama
from torch.nn import functional as F

from onebit_distill.errors import DistillError
from onebit_distill.model.starts import student_of
from onebit_distill.training import by_pieces, losses
from onebit_distill.training.by_pieces import IGNORED, cross_entropy_sum, head_losses, next_token_targets
from onebit_distill.training.losses import LanguageModelling, Transfer, lm_loss
from onebit_distill.training.settings import Settings

#: tokens on both sides of a piece of the product (8 here) and of what follows it (3)
COUNTS = [1, 3, 7, 8, 9, 41]
VOCABULARY = 83


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(by_pieces, "_PRODUCT_NUMBERS", 8 * VOCABULARY)
    monkeypatch.setattr(by_pieces, "_CACHE_NUMBERS", 3 * VOCABULARY + 1)


def drawn(tokens, seed=0, dim=24):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((2, tokens, dim), (VOCABULARY, dim), (2, tokens, dim), (VOCABULARY, dim))
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


@pytest.fixture
def split(monkeypatch):
    """Makes the objectives take the plain way, as they do for models that processes share."""

    def plain(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(losses, "is_split", lambda model: True)
            return function(*arguments)

    return plain


def with_gradients(function, state, head):
    state, head = state.clone().requires_grad_(), head.clone().requires_grad_()
    total, values = function(state, head)
    (total * 0.7).backward()
    return total.detach(), [value.detach() for value in values], state.grad, head.grad


def same(first, second, tolerance=1e-10):
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("tokens", COUNTS)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_and_text_together(tokens, temperature):
    state, head, their_state, their_head = drawn(tokens)
    ids = torch.randint(0, VOCABULARY, (2, tokens + 1), generator=torch.Generator().manual_seed(tokens))[:, :tokens]
    weights = 0.8 / (2 * tokens), 0.05
    targets = next_token_targets(ids)

    def plain(state, head):
        logits, theirs = F.linear(state, head), F.linear(their_state, their_head)
        log_q, log_p = ((x / temperature).log_softmax(-1) for x in (logits, theirs))
        kl = weights[0] * (log_p.exp() * (log_p - log_q)).sum()
        text = weights[1] * F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=IGNORED, reduction="sum")
        return kl + text, [kl, text]

    def pieced(state, head):
        def text(logits, tokens):
            return F.cross_entropy(logits, targets[tokens], ignore_index=IGNORED, reduction="sum")

        divergence = by_pieces.Divergence(weights[0], their_state.flatten(0, 1), their_head, temperature)
        return head_losses(state, head, [divergence, by_pieces.Written(weights[1], text)], torch.float64)

    first, second = with_gradients(plain, state, head), with_gradients(pieced, state, head)
    same([first[0], *first[1], *first[2:]], [second[0], *second[1], *second[2:]])
    # and it notices a wrong temperature
    if temperature != 1:
        temperature = 1.0
        assert abs(float(with_gradients(plain, state, head)[0] - first[0])) > 1e-6


def test_a_divergence_far_out_stays_finite():
    state, head, their_state, their_head = drawn(9)
    divergence = by_pieces.Divergence(1.0, their_state.flatten(0, 1) * 1e3, their_head, 1.0)
    total, _, *gradients = with_gradients(lambda s, h: head_losses(s, h, [divergence], torch.float64), state * 1e3, head)
    assert torch.isfinite(total) and total > 0 and all(torch.isfinite(g).all() for g in gradients)


def test_the_same_distribution_has_no_divergence():
    state, head, *_ = drawn(9)
    divergence = by_pieces.Divergence(1.0, state.flatten(0, 1), head)
    total, _, *gradients = with_gradients(lambda s, h: head_losses(s, h, [divergence], torch.float64), state, head)
    assert abs(float(total)) < 1e-12 and all(float(g.abs().max()) < 1e-12 for g in gradients)


def test_gradients_are_given_once_and_only_where_they_are_wanted():
    state, head, their_state, their_head = drawn(4)
    divergence = by_pieces.Divergence(1.0, their_state.flatten(0, 1), their_head)
    state.requires_grad_()
    total, _ = head_losses(state, head, [divergence], torch.float64)
    total.backward(retain_graph=True)
    assert state.grad is not None and head.grad is None
    with pytest.raises(RuntimeError, match="already given away"):
        total.backward()


@pytest.mark.parametrize("tokens", COUNTS[1:])
def test_cross_entropy_is_the_plain_one(tokens):
    state, head, *_ = drawn(tokens)
    ids = torch.randint(0, VOCABULARY, (2, tokens), generator=torch.Generator().manual_seed(1))
    found = cross_entropy_sum(state.flatten(0, 1), head, next_token_targets(ids), torch.float64)
    expected = lm_loss(F.linear(state, head), ids) * 2 * (tokens - 1)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


OBJECTIVES = {
    "token": {},
    "batchmean": {"logits_loss": "batchmean", "logits_weight": 0.01},
    "temperature": {"temperature": 2.0, "lm_weight": 0.3},
    "states": {"hidden_weight": 0.5, "hidden_last": True, "attention_weight": 0.2},
    "text only": {"logits_weight": 0.0, "lm_weight": 1.0},
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("options", OBJECTIVES.values(), ids=OBJECTIVES)
def test_transfer_by_pieces_is_the_plain_one(options, tied, split):
    teacher = tiny_llama(tiny_config(vocab_size=VOCABULARY, tied_head=tied))
    student = student_of(teacher, "onebit").requires_grad_(True)
    objective = Transfer(teacher, Settings(**options))
    ids = torch.randint(0, VOCABULARY, (3, 13), generator=torch.Generator().manual_seed(2))

    def gradients():
        student.zero_grad()
        loss, parts = objective(student, ids, 0)
        loss.backward()
        return [loss.detach(), *parts.values()], [p.grad.clone() for p in student.parameters()], list(parts)

    ours, plain = gradients(), split(gradients)
    assert ours[2] == plain[2]
    same(ours[0], plain[0], 1e-5)
    for one, other in zip(ours[1], plain[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))


class Remembered:
    """A cache of the teacher's likeliest tokens, as topk.py has it, without a disk."""

    def lookup(self, teacher, ids, first):
        log_p, top = torch.log_softmax(teacher(ids).logits.float(), dim=-1).topk(5, dim=-1)
        return top, log_p


def test_losses_on_states_alone(split):
    teacher = tiny_llama(tiny_config(vocab_size=VOCABULARY))
    student = student_of(teacher, "onebit").requires_grad_(True)
    ids = torch.randint(0, VOCABULARY, (3, 13), generator=torch.Generator().manual_seed(2))
    objective = Transfer(teacher, Settings(logits_weight=0, hidden_weight=1))

    def value(objective):
        student.zero_grad()
        loss, parts = objective(student, ids, 0)
        loss.backward()
        assert list(parts) == ["hidden"] and float(student.linears()["model.layers.0.mlp.up_proj"].weight.grad.abs().max()) > 0
        return [loss.detach()]

    for one, other in zip(value(objective), split(value, objective), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    with pytest.raises(DistillError, match="all losses have the weight 0"):
        Transfer(teacher, Settings(logits_weight=0, hidden_weight=0))
    with pytest.raises(DistillError, match="temperature"):
        Settings(top_k=5, packing="fixed", hidden_weight=0, temperature=2)


def test_top_k_and_language_modelling_by_pieces(split):
    teacher = tiny_llama(tiny_config(vocab_size=VOCABULARY))
    student = student_of(teacher, "onebit").requires_grad_(True)
    top_k = Transfer(teacher, Settings(lm_weight=0.2))
    top_k.cache = Remembered()
    ids = torch.randint(0, VOCABULARY, (3, 13), generator=torch.Generator().manual_seed(2))

    def gradients(objective):
        student.zero_grad()
        loss, _ = objective(student, ids, 0)
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in student.parameters())]

    summed = Transfer(teacher, Settings(logits_loss="batchmean"))
    summed.cache = Remembered()
    mean = Transfer(teacher, Settings())
    mean.cache = Remembered()
    torch.testing.assert_close(summed(student, ids, 0)[0], 13 * mean(student, ids, 0)[0])
    for objective in (top_k, summed, LanguageModelling()):
        for one, other in zip(gradients(objective), split(gradients, objective), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))
