"""Scales of channels that can be moved through a block without changing what it computes (OmniQuant's equation 3, without
shifts: Llama's norms have no bias that could carry them).

A channel that one part writes and some linears read is divided by s where it is written and multiplied where it is read:
rounding then sees other columns. Where that is exact in a Llama, grouped heads included:

- norm and the linears behind it;
- v and o: attention is linear in v. The heads of a group share their v, and so do their columns of o share s;
- up and down: the gate multiplies channel by channel.

Left out: q and k, whose rows alone would be scaled, which a grid for each row follows without any difference (and rotation
allows it in pairs only); a gate's own rows, since its activation is not linear; and v and o or up and down where a norm
stands between them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...model.llama import Block


@dataclass(frozen=True)
class Site:
    """Channels that are scaled together."""

    name: str
    #: the norm or linear that writes them
    before: str
    #: linears that read them
    behind: tuple[str, ...]
    channels: int
    #: (heads, queries that share a head, channels a head) where one written channel is read several times
    heads: tuple[int, int, int] | None = None

    def read_scales(self, s: Tensor) -> Tensor:
        """s [channels] as the linears behind see it, [in]."""
        if self.heads is None:
            return s
        count, shared, size = self.heads
        return s.view(count, 1, size).expand(count, shared, size).reshape(-1)


def sites_of(block: Block) -> list[Site]:
    """All sites of a block that are exact."""
    found: list[Site] = []
    if hasattr(block, "self_attn"):
        attention = block.self_attn
        dim = attention.q_proj.in_features
        readers = tuple(f"self_attn.{part}_proj" for part in "qkv")
        found.append(Site("attention norm", "input_layernorm", readers, dim))
        if attention.attn_sub_norm is None:
            heads, size = attention.n_kv_heads, attention.head_dim
            shape = (heads, attention.n_heads // heads, size)
            found.append(Site("values", "self_attn.v_proj", ("self_attn.o_proj",), heads * size, shape))
    mlp = block.mlp
    gated = mlp.up_proj is not None
    readers = ("mlp.gate_proj", "mlp.up_proj") if gated else ("mlp.gate_proj",)
    found.append(Site("feed-forward norm", "post_attention_layernorm", readers, mlp.gate_proj.in_features))
    if gated and mlp.ffn_sub_norm is None:
        found.append(Site("up", "mlp.up_proj", ("mlp.down_proj",), mlp.down_proj.in_features))
    return found


def transformed(parameters: dict[str, Tensor], sites: list[Site], scales: list[Tensor]) -> dict[str, Tensor]:
    """A block's parameters by name with every site scaled by its s [channels] > 0; the block computes the same with
    them. Gradients reach the scales."""
    made = dict(parameters)
    for site, s in zip(sites, scales, strict=True):
        weight, bias = f"{site.before}.weight", f"{site.before}.bias"
        made[weight] = made[weight] / (s if made[weight].dim() == 1 else s[:, None])
        if bias in made:
            made[bias] = made[bias] / s
        read = site.read_scales(s)
        for name in site.behind:
            made[f"{name}.weight"] = made[f"{name}.weight"] * read
    return made
