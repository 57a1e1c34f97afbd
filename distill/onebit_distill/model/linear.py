"""The kinds of linear layer: dense, OneBit, chains of two sign matrices, BitNet's b1, and rounding for comparison.

Parameter names of `OneBitLinear` are the official repository's (`weight`, `input_factor`, `weight_scale`), so its
training checkpoints load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DistillError
from .config import LlamaConfig
from .fused import fused, gate_gradients, gated, gated_silu

#: eps of nn.LayerNorm, which the official layer takes as it is; the engine has the same
LAYERNORM_EPS = 1e-5


def _grad_official(w: Tensor) -> Tensor:
    return 1.001 - torch.tanh(w).square()


def _grad_official_101(w: Tensor) -> Tensor:
    return 1.01 - torch.tanh(w).square()


def _grad_clipped(w: Tensor) -> Tensor:
    return (w.abs() <= 1).to(w.dtype)


def _grad_polynomial(w: Tensor) -> Tensor:
    return (2 - 2 * w.abs()).clamp_min(0)


#: What stands for the derivative of sign in the backward pass.
#: official: OneBit's SignSTE, 1.001 - tanh²(w), so that a latent weight far from 0 still moves a little;
#: official_1.01: the alternative commented out beside it; identity: 1 (Bengio et al. 2013);
#: clipped: 1 within [-1, 1] (BinaryConnect); polynomial: 2 - 2|w| within [-1, 1] (Bi-Real Net).
SIGN_GRADIENTS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "official": _grad_official,
    "official_1.01": _grad_official_101,
    "identity": None,
    "clipped": _grad_clipped,
    "polynomial": _grad_polynomial,
}


class _Sign(torch.autograd.Function):
    """Signs in the dtype of the multiplication; saves only the latent weight, which exists anyway."""

    @staticmethod
    def forward(ctx, w: Tensor, gradient: str, zero_is_zero: bool, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(w)
        ctx.gradient = gradient
        if zero_is_zero:
            return torch.sign(w).to(dtype)
        one = torch.ones((), dtype=dtype, device=w.device)
        return torch.where(w < 0, -one, one)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (w,) = ctx.saved_tensors
        derivative = SIGN_GRADIENTS[ctx.gradient]
        grad = grad.to(w.dtype)
        return (grad if derivative is None else grad * derivative(w)), None, None, None


def sign(w: Tensor, gradient: str = "official", zero_is_zero: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    """±1 of `w`, any shape, with the named straight-through gradient.

    An exact zero is +1 as in every 1-bit file; `zero_is_zero` gives torch.sign's 0, as the official code trains.
    """
    return _Sign.apply(w, gradient, zero_is_zero, dtype or w.dtype)


def _signed(w: Tensor, values: Tensor, zero_is_zero: bool) -> Tensor:
    """values ⊙ sign(w)"""
    return values * torch.sign(w) if zero_is_zero else torch.where(w < 0, -values, values)


class _ScaledSign(torch.autograd.Function):
    """diag(h) sign(w) diag(g) with the gradients of all three; saves nothing that does not exist anyway."""

    @staticmethod
    def forward(ctx, w: Tensor, h: Tensor, g: Tensor | None, gradient: str, zero_is_zero: bool, dtype: torch.dtype):
        ctx.save_for_backward(w, h, g)
        ctx.gradient, ctx.zero_is_zero = gradient, zero_is_zero
        scaled = _signed(w, h[:, None], zero_is_zero)
        return (scaled if g is None else scaled * g).to(dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        w, h, g = ctx.saved_tensors
        grad = grad.to(w.dtype)
        signed = _signed(w, grad, ctx.zero_is_zero)
        derivative = SIGN_GRADIENTS[ctx.gradient]
        grad_w = grad * h[:, None] if g is None else grad * (h[:, None] * g)
        if derivative is not None:
            grad_w = grad_w * derivative(w)
        grad_h = signed.sum(1) if g is None else signed @ g
        return grad_w, grad_h, None if g is None else h @ signed, None, None, None


@fused
def _folded(w: Tensor, h: Tensor, g: Tensor, zero_is_zero: bool, dtype: torch.dtype) -> Tensor:
    return _signed(w, h[:, None] * g, zero_is_zero).to(dtype)


@fused
def _folded_gradients(
    grad: Tensor, w: Tensor, h: Tensor, g: Tensor, gradient: str, zero_is_zero: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grad = grad.to(w.dtype)
    signed, grad_w, derivative = _signed(w, grad, zero_is_zero), grad * (h[:, None] * g), SIGN_GRADIENTS[gradient]
    if derivative is not None:
        grad_w = grad_w * derivative(w)
    return grad_w, (signed * g).sum(1), (signed * h[:, None]).sum(0)


class FoldedSigns:
    """diag(h) sign(W) diag(g) of one matrix, made once and multiplied by until W, h or g change; the gradients of all
    uses are gathered, and led through sign's derivative once, by `finish`.

    What `_ScaledSign` does in every forward and backward pass. w: [out, in]; h: [out]; g: [in] or None for ones.
    """

    def __init__(self, w: Tensor, h: Tensor, g: Tensor | None, options: SignOptions) -> None:
        self.w, self.h, self.g, self.options = w, h, g, options
        self._value: Tensor | None = None
        self._made_of: tuple[int, ...] = ()
        #: with respect to the folded matrix, [out, in]
        self._gradient: Tensor | None = None

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """W, h and g as tensors: a parameter here and a tensor there would be compiled one by one, and PyTorch gives up after
        eight."""
        g = torch.ones_like(self.w[0]) if self.g is None else self.g
        return self.w.detach(), self.h.detach(), g.detach()

    @torch.no_grad()
    def value(self, dtype: torch.dtype) -> Tensor:
        """[out, in] in the dtype of the product."""
        versions = tuple(part._version for part in (self.w, self.h, self.g) if part is not None)
        if self._value is None or self._value.dtype != dtype or self._made_of != versions:
            if self._value is None or self._value.dtype != dtype:
                self._value = torch.empty_like(self.w, dtype=dtype)
            self._value.copy_(_folded(*self._parts(), self.options.zero_is_zero, dtype))
            self._made_of = versions
        return self._value

    def forget(self) -> None:
        """To be called behind a step of an optimiser: PyTorch's fused ones change parameters without counting it as a
        change. All others are noticed."""
        self._made_of = ()

    def gather(self, gradient: Tensor) -> None:
        """Adds what one use gives. The first is kept as it is; sums are float32."""
        if self._gradient is None:
            self._gradient = gradient
        else:
            self._gradient = self._gradient.to(self.w.dtype).add_(gradient)

    @torch.no_grad()
    def finish(self) -> None:
        """Adds to the gradients of W, h and g; to be called when all backward passes of a step are done."""
        gathered, self._gradient = self._gradient, None
        if gathered is None:
            return
        grad_w, grad_h, grad_g = _folded_gradients(
            gathered, *self._parts(), self.options.gradient, self.options.zero_is_zero
        )
        for parameter, grad in ((self.w, grad_w), (self.h, grad_h), (self.g, grad_g)):
            if parameter is not None and parameter.requires_grad:
                parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)


class _FoldedProducts(torch.autograd.Function):
    """x Vᵀ with each of the folded matrices V of several W, [out, in], for the same x [..., in].

    The W are inputs so that there is something to learn; their gradients are gathered in `folds`.
    """

    @staticmethod
    def forward(ctx, x: Tensor, folds: list[FoldedSigns], *_: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x)
        ctx.folds, ctx.values = folds, [fold.value(x.dtype) for fold in folds]
        return tuple(F.linear(x, value) for value in ctx.values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor):
        (x,) = ctx.saved_tensors
        rows, grad_x = x.flatten(0, -2), None
        for fold, value, grad in zip(ctx.folds, ctx.values, grads, strict=True):
            grad = grad.flatten(0, -2)
            fold.gather(grad.mT @ rows)
            if ctx.needs_input_grad[0]:
                grad_x = grad @ value if grad_x is None else grad_x.addmm_(grad, value)
        grad_x = None if grad_x is None else grad_x.view(x.shape)
        return grad_x, None, *(None for _ in grads)


class _GatedProduct(torch.autograd.Function):
    """(silu(gate) ⊙ up) Vᵀ with the folded V of W; what is in between is computed again for the gradient of W."""

    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor, fold: FoldedSigns, _: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.fold, ctx.value = fold, fold.value(gate.dtype)
        return F.linear(gated(gate, up), ctx.value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        gate, up = ctx.saved_tensors
        grad_gate, grad_up, product = gate_gradients(gate, up, grad @ ctx.value)
        ctx.fold.gather(grad.flatten(0, -2).mT @ product.flatten(0, -2))
        return grad_gate, grad_up, None, None


def gated_product(gate: Tensor, up: Tensor, layer: nn.Module) -> Tensor:
    """`layer` of silu(gate) ⊙ up, [..., in] each."""
    is_folded = isinstance(layer, OneBitLinear) and layer.folds is not None
    # a column wants the product in between, which is not kept here
    if is_folded and layer.column_out is None and gate.dtype == compute_dtype(gate):
        return layer._finish(_GatedProduct.apply(gate, up, layer.folds[0], layer.weight), gate)
    return layer(gated_silu(gate, up))


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype F.linear is going to use: signs are made in it at once instead of being cast afterwards."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


@dataclass(frozen=True)
class LinearSpec:
    """Which of a model's linears is asked for."""

    layer: int
    #: one of config.ROLES
    role: str
    in_features: int
    out_features: int
    bias: bool


#: makes the linears of a `Llama`
LinearFactory = Callable[[LinearSpec], nn.Module]


def linear_of(config: LlamaConfig, layer: int, role: str, factory: LinearFactory) -> nn.Module:
    """One of a model's linears, of the shape and with the bias that the config says."""
    rows, cols = config.linear_shape(role)
    return factory(LinearSpec(layer, role, in_features=cols, out_features=rows, bias=role in config.biases))


class Dense(nn.Linear):
    """y = x Wᵀ + b. x: [..., in], y: [..., out]."""

    def reset_parameters(self) -> None:
        # random numbers for tensors without storage would load PyTorch's compiler, which takes seconds
        if not self.weight.is_meta:
            super().reset_parameters()

    def effective_weight(self) -> Tensor:
        """What x is multiplied by, [out, in]."""
        return self.weight


def dense_factory(spec: LinearSpec) -> nn.Module:
    return Dense(spec.in_features, spec.out_features, spec.bias)


@dataclass(frozen=True)
class SignOptions:
    """How sign layers compute and learn."""

    #: the paper's LayerNorm (no weights, over all outputs) behind the product
    layernorm: bool = True
    #: one of SIGN_GRADIENTS
    gradient: str = "official"
    #: torch.sign(0) = 0 in training, as the official code; exported signs have no zero
    zero_is_zero: bool = False
    #: multiply the signs by g and h instead of the activations before and behind them, as the official code does: the
    #: same up to rounding, with fewer numbers to multiply and none to keep whenever there are more tokens than features
    fold_scales: bool = True
    #: a column of floats beside the signs: u (v · x) is added to the product
    column: bool = False

    def __post_init__(self) -> None:
        if self.gradient not in SIGN_GRADIENTS:
            known = ", ".join(SIGN_GRADIENTS)
            raise DistillError("ERR_BAD_OPTION", f"sign gradient must be one of {known}, found {self.gradient!r}")


class _SignLayer(nn.Module):
    """What OneBit, chains and BitNet share: signs with options, and what follows the product."""

    def __init__(self, in_features: int, out_features: int, bias: bool, options: SignOptions) -> None:
        super().__init__()
        self.in_features, self.out_features, self.options = in_features, out_features, options
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        #: u [out] and v [in] of a column of floats: u (v · x) is added to the product; or None
        self.column_out = nn.Parameter(torch.zeros(out_features)) if options.column else None
        self.column_in = nn.Parameter(torch.full((in_features,), in_features**-0.5)) if options.column else None
        #: of each of `matrices`, while `fold_signs` has them folded beforehand
        self.folds: list[FoldedSigns] | None = None

    def matrices(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """W [out, in] with the h [out] and g [in] around it, in the order of the products."""
        raise NotImplementedError

    def _signs(self, w: Tensor, dtype: torch.dtype) -> Tensor:
        return sign(w, self.options.gradient, self.options.zero_is_zero, dtype)

    def _multiply(self, x: Tensor, index: int = 0) -> Tensor:
        """((x ⊙ g) sign(w)ᵀ) ⊙ h by one of the matrices, in the dtype of the product."""
        options, dtype = self.options, compute_dtype(x)
        w, h, g = self.matrices()[index]
        if self.folds is not None:
            return _FoldedProducts.apply(x.to(dtype), [self.folds[index]], w)[0]
        if options.fold_scales:
            scaled = _ScaledSign.apply(w, h, g, options.gradient, options.zero_is_zero, dtype)
            return F.linear(x.to(dtype), scaled)
        x = x.to(dtype) if g is None else x.to(dtype) * g.to(dtype)
        return F.linear(x, self._signs(w, dtype)) * h.to(dtype)

    def _with_column(self, y: Tensor, x: Tensor) -> Tensor:
        """y + u (v · x), in the dtype of y. As a product, so that nothing of y's size is kept for the gradients."""
        along = F.linear(x.to(y.dtype), self.column_in.to(y.dtype)[None])
        u = self.column_out.to(y.dtype)[None]
        return torch.addmm(y.reshape(-1, self.out_features), along.reshape(-1, 1), u).view_as(y)

    def _finish(self, y: Tensor, x: Tensor) -> Tensor:
        """What follows the product y [..., out] of x [..., in]."""
        if self.column_out is not None:
            y = self._with_column(y, x)
        if self.options.layernorm:
            # autocast makes LayerNorm's result float32, which everything behind it would carry on
            y = F.layer_norm(y, (self.out_features,), eps=LAYERNORM_EPS).to(y.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.options}"


class OneBitLinear(_SignLayer):
    """y = LayerNorm(((x ⊙ g) sign(W)ᵀ) ⊙ h) + b, equation 3 of arXiv 2402.11295 (bias behind, as the official code).

    x: [..., in]; y: [..., out]; W latent [out, in]; g = `input_factor` [in]; h = `weight_scale` [out].
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False, options: SignOptions = SignOptions()):
        super().__init__(in_features, out_features, bias, options)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-0.01, 0.01))
        self.input_factor = nn.Parameter(torch.ones(in_features))
        self.weight_scale = nn.Parameter(torch.full((out_features,), in_features**-0.5))

    def matrices(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        return [(self.weight, self.weight_scale, self.input_factor)]

    def forward(self, x: Tensor) -> Tensor:
        return self._finish(self._multiply(x), x)


def products(x: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """What each of several linears makes of the same x, [..., in]."""
    if not all(isinstance(layer, OneBitLinear) and layer.folds is not None for layer in layers):
        return tuple(layer(x) for layer in layers)
    folds, weights = [layer.folds[0] for layer in layers], [layer.weight for layer in layers]
    made = _FoldedProducts.apply(x.to(compute_dtype(x)), folds, *weights)
    return tuple(layer._finish(y, x) for layer, y in zip(layers, made, strict=True))


class SignChain(_SignLayer):
    """y = LN((((x ⊙ g) S1ᵀ) ⊙ mid) S2ᵀ ⊙ h) + b with S1 = sign(W1) [rank, in] and S2 = sign(W2) [out, rank].

    Two sign matrices with three scale vectors (DBF; NanoQuant, arXiv 2602.06694): the rank says how many bits a weight
    gets.
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int, bias: bool = False, options: SignOptions = SignOptions()
    ) -> None:
        if rank < 8 or rank % 8 != 0:
            raise DistillError("ERR_BAD_OPTION", f"the rank of a chain must be a multiple of 8, found {rank}")
        super().__init__(in_features, out_features, bias, options)
        self.rank = rank
        self.weight1 = nn.Parameter(torch.empty(rank, in_features).uniform_(-0.01, 0.01))
        self.weight2 = nn.Parameter(torch.empty(out_features, rank).uniform_(-0.01, 0.01))
        self.input_factor = nn.Parameter(torch.ones(in_features))
        self.mid_scale = nn.Parameter(torch.full((rank,), (in_features * rank) ** -0.5))
        self.weight_scale = nn.Parameter(torch.ones(out_features))

    def matrices(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        return [(self.weight1, self.mid_scale, self.input_factor), (self.weight2, self.weight_scale, None)]

    def forward(self, x: Tensor) -> Tensor:
        return self._finish(self._multiply(self._multiply(x, 0), 1), x)


def fold_signs(model: nn.Module) -> list[FoldedSigns]:
    """From now on all layers of `model` that fold scales into signs do so once a change of their parameters.

    `finish` of each has to be called between backward passes and whoever reads gradients (W, h and g have none before),
    `forget` behind each step of an optimiser. Parameters must stay the same objects, whole in this process.
    """
    folds = []
    for layer in model.modules():
        if isinstance(layer, (OneBitLinear, SignChain)) and layer.options.fold_scales:
            layer.folds = [FoldedSigns(*matrix, layer.options) for matrix in layer.matrices()]
            folds += layer.folds
    return folds


def chain_rank(in_features: int, out_features: int, bits_per_weight: float) -> int:
    """The largest multiple of 8 (at least 8) whose signs cost at most `bits_per_weight`; scales are not counted."""
    if not 0 < bits_per_weight <= 16 or not math.isfinite(bits_per_weight):
        raise DistillError("ERR_BAD_OPTION", f"bits per weight must be above 0 and at most 16, found {bits_per_weight}")
    return max(8, int(bits_per_weight * in_features * out_features / (in_features + out_features)) // 8 * 8)


class BitNetLinear(_SignLayer):
    """y = η LN(x) sign(W − mean W)ᵀ + b, η = mean |W − mean W|: equation 2 of arXiv 2402.11295, BitNet's b1.

    The LayerNorm (no weights) is on the input; with `options.layernorm` off there is none. Only for comparison: a
    `.obt` file has no LayerNorm at this place.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False, options: SignOptions = SignOptions()):
        if options.column:
            raise DistillError("ERR_BAD_OPTION", "BitNet's linears have no column of floats")
        super().__init__(in_features, out_features, bias, options)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).normal_(std=in_features**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        dtype = compute_dtype(x)
        centred = self.weight - self.weight.mean()
        if self.options.layernorm:
            x = F.layer_norm(x, (self.in_features,), eps=LAYERNORM_EPS)
        y = F.linear(x.to(dtype), self._signs(centred, dtype)) * centred.abs().mean().to(dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def fake_quantise(w: Tensor, bits: int, group: int | None = None, symmetric: bool = False) -> Tensor:
    """Round-to-nearest at 2**bits levels with one scale per row, or per `group` columns; values as they come back.

    Asymmetric: levels from the smallest to the largest weight (GPTQ's quantiser without its search). Symmetric: levels
    around 0, at 1 bit ± the mean magnitude. w: [rows, cols]; the result has its shape and dtype.
    """
    if not 1 <= bits <= 16:
        raise DistillError("ERR_BAD_OPTION", f"bits must be from 1 to 16, found {bits}")
    if group is not None and w.shape[-1] % group != 0:
        raise DistillError("ERR_BAD_OPTION", f"a group of {group} columns does not divide {w.shape[-1]}")
    parts = w.float() if group is None else w.float().unflatten(-1, (-1, group))
    if symmetric and bits == 1:
        rounded = torch.where(parts < 0, -1.0, 1.0) * parts.abs().mean(-1, keepdim=True)
    elif symmetric:
        scale = (parts.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).clamp_min(1e-30)
        rounded = (parts / scale).round() * scale
    else:
        low, high = parts.amin(-1, keepdim=True), parts.amax(-1, keepdim=True)
        scale = ((high - low) / (2**bits - 1)).clamp_min(1e-30)
        rounded = ((parts - low) / scale).round() * scale + low
    return rounded.reshape(w.shape).to(w.dtype)


def straight_through(value: Tensor, like: Tensor) -> Tensor:
    """`value` to the bit (what is added to it is 0); the gradient goes to `like` as it is."""
    return value.detach() + (like - like.detach())


class QuantisedLinear(Dense):
    """y = x Q(W)ᵀ + b, Q symmetric with one scale a row: LLM-QAT's weights (arXiv 2305.17888, equation 1 and section 2.2).

    Q is `fake_quantise`'s symmetric rounding between ± the row's largest magnitude; at 1 bit, which LLM-QAT has not, signs
    times the mean magnitude. W learns as if Q were not there (straight through). x: [..., in]; y: [..., out].
    """

    def __init__(self, in_features: int, out_features: int, bits: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias)
        self.bits = bits

    def effective_weight(self) -> Tensor:
        """At most 2**bits values a row."""
        return straight_through(fake_quantise(self.weight.detach(), self.bits, symmetric=True), self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.effective_weight(), self.bias)
