"""What is measured of a model besides training it: perplexity, KL to the teacher, sizes, errors of its start."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...model.linear import LAYERNORM_EPS, BitNetLinear, Dense, OneBitLinear, fake_quantise
from ...model.llama import Llama
from ...model.starts import METHODS, StartReport, student_of
from ...training.run_folder import sign_options
from ...training.settings import Settings, with_options
from ...training.transfer import choose_trained, start_options
from .plan import Study
from .results import Results, Scores

#: validation blocks at once
_AT_ONCE = 16


@dataclass
class Validation:
    """Text to compare on, and what the teacher says to it."""

    #: int64 [n, T]
    blocks: np.ndarray
    #: float32 [n, T, V]: kept, because every model is compared with it
    log_p: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, teacher: Llama, blocks: np.ndarray) -> Validation:
        parts = [torch.from_numpy(blocks[i : i + _AT_ONCE]) for i in range(0, len(blocks), _AT_ONCE)]
        return cls(blocks, torch.cat([F.log_softmax(teacher(ids).logits.float(), -1) for ids in parts]))


def sign_product(layer: nn.Module, x: Tensor) -> Tensor | None:
    """(x ⊙ g) sign(W)ᵀ in f32, as the authors' code has it before h and LayerNorm: [..., in] to [..., out]; of BitNet
    LN(x) sign(W − mean)ᵀ; None for other layers."""
    if isinstance(layer, OneBitLinear):
        return F.linear(x.float() * layer.input_factor, torch.where(layer.weight < 0, -1.0, 1.0))
    if isinstance(layer, BitNetLinear):
        normed = F.layer_norm(x.float(), x.shape[-1:], eps=LAYERNORM_EPS) if layer.options.layernorm else x.float()
        return F.linear(normed, torch.where(layer.weight < layer.weight.mean(), -1.0, 1.0))
    return None


class _Largest:
    """The largest magnitudes behind the linears of a model and within them, for as long as the block lasts."""

    def __init__(self, model: Llama) -> None:
        self.model, self.output, self.product = model, 0.0, 0.0

    def __enter__(self) -> _Largest:
        self.handles = [layer.register_forward_hook(self._look) for layer in self.model.linears().values()]
        return self

    def _look(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self.output = max(self.output, float(output.abs().max()))
        product = sign_product(layer, inputs[0])
        if product is not None:
            self.product = max(self.product, float(product.abs().max()))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def score(model: Llama, validation: Validation) -> Scores:
    """Perplexity and KL over all blocks, each from nothing."""
    blocks = validation.blocks
    training = model.training
    model.eval()
    nats, apart = 0.0, 0.0
    with _Largest(model) as largest:
        for first in range(0, len(blocks), _AT_ONCE):
            ids = torch.from_numpy(blocks[first : first + _AT_ONCE])
            log_q = F.log_softmax(model(ids).logits.float(), -1)
            theirs = validation.log_p[first : first + _AT_ONCE]
            apart += float(F.kl_div(log_q, theirs, reduction="sum", log_target=True))
            nats += float(F.nll_loss(log_q[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"))
    model.train(training)
    count, predicted = blocks.size, blocks[:, 1:].size
    return Scores(math.exp(min(nats / predicted, 80.0)), apart / count, largest.output, largest.product)


def make_student(teacher: Llama, settings: Settings, report: StartReport | None = None) -> Llama:
    student = student_of(
        teacher, settings.kind, start_options(settings), sign_options(settings), report=report
    )  # fmt: skip
    choose_trained(student, settings)
    return student


def rounded(teacher: Llama, bits: int, symmetric: bool) -> Llama:
    """The teacher with its linears rounded to nearest."""
    student = student_of(teacher, "dense")
    with torch.no_grad():
        for layer in student.linears().values():
            assert isinstance(layer, Dense)
            layer.weight.copy_(fake_quantise(layer.weight, bits, symmetric=symmetric))
    return student


def measure_rounding(study: Study, teacher: Llama, validation: Validation, results: Results) -> dict[str, Any]:
    """Scores by `even 3` and `symmetric 3`: round-to-nearest without training."""
    made = {}
    for symmetric, name in ((False, "even"), (True, "symmetric")):
        for bits in study.sizes.rounding_bits:

            def make(bits: int = bits, symmetric: bool = symmetric) -> dict[str, Any]:
                model = rounded(teacher, bits, symmetric)
                return asdict(score(model, validation))

            key = f"rounding-{name}-{bits}-of-{len(validation.blocks)}"
            made[f"{name} {bits}"] = results.once(key, make)
    return made


def measure_starts(study: Study, teacher: Llama, validation: Validation, results: Results) -> dict[str, Any]:
    """Students before their first step: relative errors of the linears, and scores with and without LayerNorm."""
    made = {}
    for method in METHODS:
        for layernorm in (True, False):
            settings = with_options(study.reference(), start=method, layernorm=layernorm)

            def make(settings: Settings = settings) -> dict[str, Any]:
                report = StartReport()
                student = make_student(teacher, settings, report)
                scores = asdict(score(student, validation))
                return {**scores, "errors": list(report.relative_errors.values())}

            name = f"{method}{'' if layernorm else ' without LayerNorm'}"
            made[name] = results.once(f"start-{name.replace(' ', '-')}-of-{len(validation.blocks)}", make)
    return made


def plain_rank_one_errors(teacher: Llama) -> list[float]:
    """‖W − best rank one of W‖ / ‖W‖ of each linear: what proposition 2 compares SVID with."""
    errors = []
    for layer in teacher.linears().values():
        squares = torch.linalg.svdvals(layer.weight.detach().double()).square()
        errors.append(float((1 - squares[0] / squares.sum()).clamp_min(0).sqrt()))
    return errors
