"""One step of each optimiser against its formula, and the learning rate's course."""

import math

import pytest
import torch
from test_settings import CONFIGS
from torch import nn

from onebit_distill.model.linear import OneBitLinear
from onebit_distill.training.optimiser import make_optimisers, orthogonalise, rate
from onebit_distill.training.settings import Settings, read_settings, with_options


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = OneBitLinear(8, 4)
        self.final_norm = nn.RMSNorm(4)


def test_adamw_moves_as_written_down_and_decays_g_and_h_as_hugging_face():
    settings = read_settings(CONFIGS / "paper.toml")
    model = Wrapped()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimisers = make_optimisers(model, settings)
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.3)
    for optimiser in optimisers:
        optimiser.step()
    # after one step both moments, corrected, are g and g²: the step is lr · g / (|g| + eps)
    for name, p in model.named_parameters():
        decay = 0.0 if "norm" in name else 0.01
        expected = before[name] * (1 - 4e-4 * decay) - 4e-4 * 0.3 / (0.3 + 1e-8)
        assert torch.allclose(p, expected, atol=1e-8), name


def test_official_schedule():
    paper = with_options(read_settings(CONFIGS / "paper.toml"), steps=10_000)
    assert rate(paper, 0, 10_000) == 0 and rate(paper, 250, 10_000) == 0.5 and rate(paper, 500, 10_000) == 1
    assert rate(paper, 5250, 10_000) == pytest.approx(0.5)
    assert rate(paper, 9999, 10_000) == pytest.approx(0.5 * (1 + math.cos(math.pi * 9499 / 9500)))


def test_other_schedules():
    trapezoid = Settings(schedule="trapezoid", warmup=0.1, decay=0.5)
    assert [rate(trapezoid, s, 100) for s in (5, 10, 50, 75)] == [0.5, 1, 1, 0.5]
    assert rate(Settings(schedule="linear", warmup=0.0, min_lr=0.1), 50, 100) == pytest.approx(0.55)
    assert rate(Settings(schedule="constant", warmup=0.0), 99, 100) == 1


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    made = orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(made.float())
    assert 0.5 < float(values.min()) and float(values.max()) < 1.4


def test_muon_takes_the_matrices_of_layers_and_adamw_the_rest():
    from tiny_model import tiny_config, tiny_llama

    model = tiny_llama(tiny_config()).requires_grad_(True)
    muon, adamw = make_optimisers(model, Settings(optimiser="muon"))
    assert sum(p.numel() for g in muon.param_groups for p in g["params"]) == model.config.n_linear_weights
    covered = sum(len(g["params"]) for o in (muon, adamw) for g in o.param_groups)
    assert covered == len(list(model.parameters()))


def test_latents_may_have_a_rate_of_their_own():
    from tiny_model import tiny_config, tiny_llama

    model = tiny_llama(tiny_config()).requires_grad_(True)
    (adamw,) = make_optimisers(model, Settings(lr=1e-3, latent_lr=4e-3, weight_decay=0.1))
    rates = {id(p): (group["peak"], group["weight_decay"]) for group in adamw.param_groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        is_latent = p.dim() == 2 and ".layers." in name
        assert rates[id(p)] == (4e-3 if is_latent else 1e-3, 0.1 if p.dim() == 2 else 0.0), name
    # without one they are as the rest, in as many groups as ever: checkpoints of before go on
    (plain,) = make_optimisers(model, Settings(lr=1e-3))
    assert [group["peak"] for group in plain.param_groups] == [1e-3, 1e-3]
