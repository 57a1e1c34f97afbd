"""How many bits a weight of a model's linears takes, as papers count it: codes, and every scale in 16 bits."""

from __future__ import annotations

from torch import nn

from ..model.linear import BitNetLinear, OneBitLinear, QuantisedLinear, SignChain
from ..model.llama import Llama


def layer_bits(layer: nn.Module) -> tuple[float, int]:
    """(bits, weights) of a linear as it would be stored: signs, and every scale in 16 bits."""
    rows, cols = layer.out_features, layer.in_features
    if isinstance(layer, (OneBitLinear, SignChain)):
        column = 0 if layer.column_out is None else 16 * (rows + cols)
        if isinstance(layer, OneBitLinear):
            return rows * cols + 16 * (rows + cols) + column, rows * cols
        return layer.rank * (rows + cols) + 16 * (rows + cols + layer.rank) + column, rows * cols
    if isinstance(layer, BitNetLinear):
        return rows * cols + 16, rows * cols
    if isinstance(layer, QuantisedLinear):
        return layer.bits * rows * cols + 16 * rows, rows * cols
    return 16.0 * rows * cols, rows * cols


def bits_per_weight(model: Llama) -> float:
    pairs = [layer_bits(layer) for layer in model.linears().values()]
    return sum(bits for bits, _ in pairs) / sum(count for _, count in pairs)
