"""The official losses, written out again in plain tensor code."""

import pytest
import torch
from test_settings import CONFIGS
from tiny_model import tiny_config, tiny_llama

from onebit_distill.errors import DistillError
from onebit_distill.model.starts import student_of
from onebit_distill.training.losses import (
    Transfer,
    attention_loss,
    hidden_loss,
    kl_batchmean,
    kl_per_token,
    lm_loss,
    top_k_loss,
)
from onebit_distill.training.run_folder import sign_options
from onebit_distill.training.settings import read_settings
from onebit_distill.training.transfer import choose_trained, start_options


def plain_kl(student, teacher):
    """Σ over all tokens and vocabulary of p (log p - log q), from exponentials."""
    p, q = (x.double().exp() / x.double().exp().sum(-1, keepdim=True) for x in (teacher, student))
    return (p * (p.log() - q.log())).sum()


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(3, 7, 11, generator=generator) for _ in range(2)]


def test_kl_is_divided_by_sequences_only(logits):
    student, teacher = logits
    assert float(kl_batchmean(student, teacher)) == pytest.approx(float(plain_kl(student, teacher)) / 3, rel=1e-6)


def test_kl_per_token_is_divided_by_tokens(logits):
    student, teacher = logits
    assert float(kl_per_token(student, teacher)) == pytest.approx(float(plain_kl(student, teacher)) / 21, rel=1e-5)


def test_top_k_of_everything_is_the_whole_kl(logits):
    student, teacher = logits
    log_p, ids = torch.log_softmax(teacher, -1).topk(11, -1)
    assert float(top_k_loss(student, ids, log_p)) == pytest.approx(float(kl_per_token(student, teacher)), abs=2e-5)
    few = top_k_loss(student, ids[..., :4], log_p[..., :4])
    assert 0 < float(few) < float(kl_per_token(student, teacher))  # merging the rest can only lose divergence


def test_lm_loss_predicts_the_next_token():
    ids = torch.tensor([[1, 2, 0]])
    logits = torch.full((1, 3, 4), -20.0)
    logits[0, 0, 2] = logits[0, 1, 0] = 20.0
    assert float(lm_loss(logits, ids)) < 1e-6


def test_attention_loss_counts_squared_distances():
    a, b = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    b[..., 0] = 0.5
    assert float(attention_loss([a, a], [b, b])) == pytest.approx(2 * 0.25)


def plain_official_loss(student, teacher, ids):
    """The official kd.py in float64: 0.01 · KL / B + Σ over hidden_states[0 .. n-1], final norm out."""
    mine, theirs = student(ids, hidden_states=True), teacher(ids, hidden_states=True)
    total = 0.01 * plain_kl(mine.logits, theirs.logits) / len(ids)
    for layer in range(teacher.config.n_layers):
        s, t = mine.hidden_states[layer].double(), theirs.hidden_states[layer].double()
        s, t = (x / x.square().sum(-1, keepdim=True).sqrt() for x in (s, t))
        total = total + ((t - s) ** 2).sum(-1).mean()
    return total


def test_paper_toml_gives_the_official_loss_and_gradient():
    settings = read_settings(CONFIGS / "paper.toml")
    teacher = tiny_llama(tiny_config()).double()
    student = student_of(teacher, settings.kind, start_options(settings), sign_options(settings)).double()
    choose_trained(student, settings)
    ids = torch.randint(0, 320, (2, 24), generator=torch.Generator().manual_seed(0))
    loss, parts = Transfer(teacher, settings)(student, ids, 0)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    assert trained == set(ours)
    assert all(name.endswith((".weight", ".input_factor", ".weight_scale")) and "_proj" in name for name in trained)
    student.zero_grad()
    expected = plain_official_loss(student, teacher, ids)
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert set(parts) == {"logits", "hidden"}
    for name, p in student.named_parameters():
        if p.requires_grad:
            assert torch.allclose(ours[name], p.grad, rtol=1e-6, atol=1e-6 * float(p.grad.abs().max())), name


def test_a_model_without_attention_has_no_such_loss():
    with pytest.raises(DistillError, match="ERR_BAD_OPTION.*attention_weight"):
        attention_loss([], [])


def test_the_last_state_can_be_counted():
    states = [torch.randn(1, 2, 4) for _ in range(3)]
    others = [*states[:2], -states[2]]
    assert float(hidden_loss(states, others, with_last=False)) == 0
    assert float(hidden_loss(states, others, with_last=True)) == pytest.approx(4)
