"""Where training begins: a student made from its teacher's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import DistillError
from .chain_factors import chain_factors
from .config import HF_LINEARS, LlamaConfig
from .linear import (
    BitNetLinear,
    Dense,
    LinearFactory,
    OneBitLinear,
    QuantisedLinear,
    SignChain,
    SignOptions,
    chain_rank,
    dense_factory,
    fake_quantise,
)
from .llama import Llama
from .svid import Importance, RankOne, rank_one_of, svid_nmf, svid_svd

METHODS = ("svd", "nmf", "copy")
LATENTS = ("official", "magnitude", "relative")
DEFAULT_SIGNS = SignOptions()


#: a start that was computed elsewhere may differ from the teacher in so many signs: where a tiny weight is 0 in one of
#: the two precisions
_OTHER_SIGNS = 1e-3


@dataclass(frozen=True)
class GivenScales:
    """Of one linear, as a `.obt` file has it."""

    #: f32 [in]
    g: Tensor
    #: f32 [out]
    h: Tensor
    #: bool [out, in]: where W is negative
    negative: Tensor


@dataclass(frozen=True)
class StartOptions:
    """How scales and latent weights come from W."""

    #: svd: best rank one of |W|; nmf: the same as the official script finds it; copy: only the signs, g = 1 and h = 1
    #: (without LayerNorm h = mean |W|, or nothing would have the right size)
    method: str = "svd"
    #: svd only: ‖h‖ = σ^split, ‖g‖ = σ^(1−split); a larger factor has smaller relative updates
    split: float = 0.5
    #: official: 0.01 sign(W), magnitudes thrown away as in the official script; magnitude: W scaled so that the mean of
    #: |W| is `latent_mean`; relative: W / (h gᵀ) scaled likewise: how sure each sign is, the scales taken out
    latent: str = "official"
    latent_mean: float = 0.4
    #: chains only: steps in which both halves are drawn towards signs
    chain_steps: int = 60
    seed: int = 0
    #: by the full name of each linear: g and h that were found elsewhere, in the place of `method`'s
    given: Mapping[str, GivenScales] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, value, known in (("method", self.method, METHODS), ("latent", self.latent, LATENTS)):
            if value not in known:
                raise DistillError("ERR_BAD_OPTION", f"start {name} must be {', '.join(known)}, found {value!r}")
        if not 0 < self.latent_mean < 1e6:
            raise DistillError("ERR_BAD_OPTION", f"latent mean must be above 0, found {self.latent_mean}")


DEFAULT_START = StartOptions()


def _latent(w: Tensor, envelope: Tensor | None, options: StartOptions) -> Tensor:
    """w: [rows, cols]; envelope: what |w| is expected to be there, or None for ones."""
    if options.latent == "official":
        return 0.01 * torch.sign(w)
    if options.latent == "relative" and envelope is not None:
        # where the envelope vanishes so does w; a floor keeps 0/0 away
        w = w / envelope.clamp_min(1e-6 * float(envelope.mean()) + 1e-30)
    return w * (options.latent_mean / w.abs().mean().clamp_min(1e-30))


def _given(name: str, w: Tensor, scales: Mapping[str, GivenScales]) -> RankOne:
    """The scales of a linear from elsewhere. Raises DistillError ERR_START_FIT when they are not this matrix's."""
    found = scales.get(name)
    if found is None or found.negative.shape != w.shape:
        shape = None if found is None else list(found.negative.shape)
        raise DistillError("ERR_START_FIT", f"the start's {name} has the shape {shape}, the teacher's {list(w.shape)}")
    other = float(((w < 0) != found.negative.to(w.device)).double().mean())
    if other > _OTHER_SIGNS:
        message = f"{100 * other:.2g} % of the signs of the start's {name} are not the teacher's"
        raise DistillError("ERR_START_FIT", message, "The start was made of another model.")
    return rank_one_of(w, found.g.to(w), found.h.to(w))


def _rank_one(w: Tensor, options: StartOptions, importance: Importance | None) -> RankOne:
    """|w| ≈ h gᵀ by the method that the options name, errors weighted by importance."""
    find = svid_nmf if options.method == "nmf" else lambda matrix: svid_svd(matrix, options.split)
    if importance is None:
        return find(w)
    found = find(importance.applied(w))
    g, h = importance.removed(found.g, found.h)
    return rank_one_of(w, g.to(w), h.to(w))


@torch.no_grad()
def start_onebit(
    layer: OneBitLinear, w: Tensor, options: StartOptions, name: str = "", importance: Importance | None = None
) -> float:
    """Sets g, h and the latent weight from w [out, in]; returns the relative error of h sign(W) gᵀ against W.

    name: of the linear, by which `options.given` has its scales. importance: of the errors of w, for svd and nmf."""
    w = w.to(layer.weight)
    if options.method == "copy" and options.given is None:
        scale = 1.0 if layer.options.layernorm else float(w.abs().mean())
        layer.input_factor.fill_(1.0)
        layer.weight_scale.fill_(scale)
        envelope = torch.ones_like(w)
        error = float((w.abs() - w.abs().mean()).norm() / w.norm().clamp_min(1e-30))
    else:
        if options.given is not None:
            found = _given(name, w, options.given)
        else:
            found = _rank_one(w, options, importance)
        layer.input_factor.copy_(found.g)
        layer.weight_scale.copy_(found.h)
        envelope = found.h[:, None] * found.g
        error = found.relative_error
    layer.weight.copy_(_latent(w, envelope, options))
    return error


#: vectors that are iterated together, so that the first one is found soon although the second may be nearly as large
_TOGETHER = 8
_ITERATIONS = 20


def _largest_direction(w: Tensor) -> tuple[Tensor, Tensor]:
    """u [rows] and v [cols] with u vᵀ the best rank one of w, as large as each other in the mean square."""
    wide = w.double()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(w.shape[1], min(_TOGETHER, *w.shape), generator=generator, dtype=torch.float64)
    directions = torch.linalg.qr(start.to(w.device)).Q
    for _ in range(_ITERATIONS):
        directions = torch.linalg.qr(wide.mT @ (wide @ directions)).Q
    left, values, right = torch.linalg.svd(wide @ directions, full_matrices=False)
    u, v = left[:, 0] * values[0], directions @ right[0]
    share = (u.square().mean().clamp_min(1e-300) / v.square().mean().clamp_min(1e-300)) ** 0.25
    return u / share, v * share


@torch.no_grad()
def start_column(layer: OneBitLinear | SignChain, w: Tensor, importance: Importance | None = None) -> Tensor:
    """Sets u and v to the best column beside w [out, in], errors weighted by importance; returns what it leaves of w."""
    u, v = _largest_direction(w if importance is None else importance.applied(w))
    if importance is not None:
        v, u = importance.removed(v, u)
    layer.column_out.copy_(u)
    layer.column_in.copy_(v)
    return w - layer.column_out[:, None] * layer.column_in


@torch.no_grad()
def start_chain(
    layer: SignChain, w: Tensor, options: StartOptions, importance: Importance | None = None
) -> float:
    """Sets all factors from w [out, in]; returns the relative error of the product against W, weighted by importance
    where that is given."""
    weighted = w if importance is None else importance.applied(w)
    found = chain_factors(weighted.to(layer.weight1), layer.rank, options.chain_steps, options.seed)
    g, h = (found.g, found.h) if importance is None else importance.removed(found.g, found.h)
    layer.input_factor.copy_(g)
    layer.mid_scale.copy_(found.mid)
    layer.weight_scale.copy_(h)
    for latent, factor in ((layer.weight1, found.first), (layer.weight2, found.second)):
        envelope = None
        if options.latent == "relative":
            fit = svid_svd(factor)
            envelope = fit.h[:, None] * fit.g
        latent.copy_(_latent(factor, envelope, options))
    return found.relative_error


@dataclass(frozen=True)
class StudentKind:
    """onebit | chain:BITS | bitnet | dense | rtn:BITS (dense, rounded to nearest once) | qat:BITS (rounded in every
    product, floats learn)."""

    name: str
    bits: float = 0.0

    @classmethod
    def parse(cls, text: str) -> StudentKind:
        """Raises DistillError ERR_BAD_OPTION."""
        name, _, number = text.partition(":")
        try:
            bits = float(number) if number else 0.0
        except ValueError:
            bits = -1.0
        with_bits = name in ("chain", "rtn", "qat")
        if name not in ("onebit", "chain", "bitnet", "dense", "rtn", "qat") or with_bits != (bits > 0) or bits < 0:
            message = f"student kind must be onebit, chain:BITS, bitnet, dense, rtn:BITS or qat:BITS, found {text!r}"
            raise DistillError("ERR_BAD_OPTION", message)
        if name in ("rtn", "qat") and bits not in range(1, 17):
            raise DistillError("ERR_BAD_OPTION", f"{name} needs a whole number of bits from 1 to 16, found {number}")
        return cls(name, bits)


#: Linears with one output a head, a thousandth of a layer's weights: they say how long a state lives and how much a
#: token changes it, and no ternary model has given them up either.
_KEPT_DENSE = ("w_beta", "w_alpha")


def has_signs(role: str) -> bool:
    """Whether the linear of a role is of the student's kind, or stays as it is in the teacher."""
    return role not in _KEPT_DENSE


def signed_linears(config: LlamaConfig, layer: int) -> list[str]:
    """Those of a layer that get signs, by their names within its block (`self_attn.q_proj` …)."""
    return [HF_LINEARS[role] for role in config.roles(layer) if has_signs(role)]


def linear_factory(kind: StudentKind | str, options: SignOptions = DEFAULT_SIGNS) -> LinearFactory:
    """The factory of a kind's linears: for a student to be loaded from a checkpoint, without a teacher."""
    kind = StudentKind.parse(kind) if isinstance(kind, str) else kind
    made = _factory(kind, options)
    return lambda spec: (dense_factory if spec.role in _KEPT_DENSE else made)(spec)


def _factory(kind: StudentKind, options: SignOptions) -> LinearFactory:
    if kind.name == "onebit":
        return lambda spec: OneBitLinear(spec.in_features, spec.out_features, spec.bias, options)
    if kind.name == "bitnet":
        return lambda spec: BitNetLinear(spec.in_features, spec.out_features, spec.bias, options)
    if kind.name == "chain":

        def chain(spec):
            rank = chain_rank(spec.in_features, spec.out_features, kind.bits)
            return SignChain(spec.in_features, spec.out_features, rank, spec.bias, options)

        return chain
    if kind.name == "qat":
        return lambda spec: QuantisedLinear(spec.in_features, spec.out_features, int(kind.bits), spec.bias)
    return dense_factory


def start_linear(
    layer: nn.Module,
    w: Tensor,
    kind: StudentKind,
    options: StartOptions,
    name: str,
    importance: Importance | None = None,
) -> float:
    """Starts a student's linear from w, float32 [out, in]; the relative error against it. name: in the model.

    importance: of the errors, for sign layers whose scales are searched for here."""
    if options.given is not None and not isinstance(layer, OneBitLinear):
        raise DistillError("ERR_BAD_OPTION", f"start: a file has g and h for kind onebit, not for {kind.name}")
    if isinstance(layer, (OneBitLinear, SignChain)):
        rest = w if layer.column_out is None else start_column(layer, w, importance)
        if isinstance(layer, OneBitLinear):
            error = start_onebit(layer, rest, options, name, importance)
        else:
            error = start_chain(layer, rest, options, importance)
        return error * float(rest.norm() / w.norm().clamp_min(1e-30))
    made = fake_quantise(w, int(kind.bits)) if kind.name == "rtn" else w
    with torch.no_grad():
        layer.weight.copy_(made)
    if isinstance(layer, QuantisedLinear):
        made = layer.effective_weight().detach()
    if isinstance(layer, BitNetLinear):
        centred = w.float() - w.float().mean()
        made = centred.abs().mean() * torch.where(centred < 0, -1.0, 1.0)
    return float((w.float() - made.float()).norm() / w.float().norm().clamp_min(1e-30))


@dataclass
class StartReport:
    #: ‖W − what the student's layer multiplies by‖ / ‖W‖ of each linear, LayerNorm not counted
    relative_errors: dict[str, float] = field(default_factory=dict)


def student_of(
    teacher: Llama,
    kind: StudentKind | str,
    start: StartOptions | None = DEFAULT_START,
    options: SignOptions = DEFAULT_SIGNS,
    *,
    config: LlamaConfig | None = None,
    report: StartReport | None = None,
    on_layer: Callable[[str, float], None] | None = None,
) -> Llama:
    """A float32 student on the teacher's device: linears of `kind` started from the teacher's, everything else copied.

    start: None leaves the linears of `kind` as they were made, for whoever starts them one by one. config: the teacher's
    with a shorter context, if any. on_layer: called with name and relative error.
    """
    kind = StudentKind.parse(kind) if isinstance(kind, str) else kind
    student = Llama(config or teacher.config, linear_factory(kind, options))
    device = teacher.model.embed_tokens.weight.device
    student.to(device)
    sources, made = teacher.linears(), student.linears()
    kept = tuple(HF_LINEARS[role] for role in _KEPT_DENSE)
    made = {name: layer for name, layer in made.items() if not name.endswith(kept)}
    own = {f"{name}.weight" for name in made}
    with torch.no_grad():
        copied = dict(teacher.named_parameters())
        for name, parameter in student.named_parameters():
            if name in copied and name not in own:
                # a shorter context has fewer positions
                parameter.copy_(copied[name][: len(parameter)] if "embed_positions" in name else copied[name])
    for name, layer in made.items():
        source = sources[name]
        if not isinstance(source, Dense):
            raise DistillError("ERR_UNSUPPORTED_TEACHER", f"The teacher's {name} is not dense")
        if start is None:
            continue
        error = start_linear(layer, source.weight.detach().float(), kind, start, name)
        if report is not None:
            report.relative_errors[name] = error
        if on_layer is not None:
            on_layer(name, error)
    return student
