"""The model: caches, hidden states, windows and RoPE."""

import json
import math

import pytest
import torch

from onebit_distill.errors import DistillError
from onebit_distill.formats.hf_config import config_from_hf
from onebit_distill.model import delta
from onebit_distill.model.attention import KVCache
from onebit_distill.model.config import LlamaConfig
from onebit_distill.model.llama import Llama
from onebit_distill.model.rope import rope_frequencies
from onebit_distill.model.starts import linear_factory

SHAPE = dict(vocab_size=60, dim=32, hidden_dim=48, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8, context_length=64)
#: as a `config.json` says it
HF_SHAPE = dict(vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
TINY = LlamaConfig(**SHAPE)
QWEN = LlamaConfig(**SHAPE, architecture="qwen3", tied_head=True, biases=("wq", "wo", "w2"))
WINDOW = LlamaConfig(**SHAPE, window=4, biases=("wq", "wk", "wv"))
LAYER = {"norm": "layer", "norm_bias": True, "feed_forward": "plain"}
INNER = {"attention_inner_norm": True, "ffn_inner_norm": True}
DELTA = {"delta_k_heads": 2, "delta_v_heads": 6, "delta_k_dim": 5, "delta_v_dim": 7, "delta_conv": 4}
CONFIGS = {
    "llama": TINY,
    "qwen3": QWEN,
    "window": WINDOW,
    "opt": LlamaConfig(**SHAPE, **LAYER, positions="learned", position_offset=2, activation="relu"),
    "gpt_neox": LlamaConfig(**SHAPE, **LAYER, parallel_residual=True, rope_dims=2, activation="gelu"),
    "bitnet": LlamaConfig(**SHAPE, **INNER, activation="relu2"),
    "gate": LlamaConfig(**SHAPE, output_gate=True, rope_dims=4, activation="gelu_tanh", qk_norm=True),
    "inner layers": LlamaConfig(**SHAPE, **INNER, norm="layer", biases=("wq", "w1", "w3")),
    "delta": LlamaConfig(**SHAPE, **DELTA, delta_layers=[0, 2], rope_dims=4, output_gate=True, tied_head=True),
    "only delta": LlamaConfig(**{**SHAPE, **DELTA, "delta_layers": [0, 1, 2], "delta_head_order": "tiled"}),
    "biased norms": LlamaConfig(**SHAPE, **INNER, norm_bias=True, positions="learned"),
}
FAMILY = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
IDS = torch.randint(0, 60, (2, 20), generator=torch.Generator().manual_seed(2))


def model(config=TINY, kind="dense"):
    made = Llama(config, linear_factory(kind)).init_weights(0.3, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith((".bias", ".A_log", ".dt_bias", "conv1d.weight")) or "norm" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return made


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def activated(name, x):
    tanh = torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return {
        "silu": x / (1 + (-x).exp()),
        "relu": x * (x > 0),
        "relu2": (x * (x > 0)) ** 2,
        "gelu": x * (1 + torch.erf(x / math.sqrt(2))) / 2,
        "gelu_tanh": x * (1 + tanh) / 2,
    }[name]


class WrittenOut:
    """One sequence, heads and positions one by one, from the state dict alone."""

    def __init__(self, m):
        self.c, self.w = m.config, {name: value.double() for name, value in m.state_dict().items()}

    def linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0)

    def norm(self, name, x):
        if self.c.norm == "layer":
            x = x - x.mean(-1, keepdim=True)
        return rms(x, self.w[f"{name}.weight"]) + self.w.get(f"{name}.bias", 0)

    def turned(self, v, position):
        dims = self.c.rope_dims if self.c.positions == "rotary" else 0
        half, out = dims // 2, v.clone()
        for i in range(half):
            angle = position * self.c.rope_theta ** (-2 * i / dims)
            out[i] = v[i] * math.cos(angle) - v[i + half] * math.sin(angle)
            out[i + half] = v[i + half] * math.cos(angle) + v[i] * math.sin(angle)
        return out

    def heads(self, p, x, name, count):
        part = self.linear(f"{p}.{name}_proj", x).view(len(x), count, -1)
        part, gate = part[..., : self.c.head_dim], part[..., self.c.head_dim :]
        return (rms(part, self.w[f"{p}.{name}_norm.weight"]) if self.c.qk_norm and name != "v" else part), gate

    def attention(self, p, x):
        c = self.c
        (q, gate), (k, _), (v, _) = (
            self.heads(p, x, name, count)
            for name, count in (("q", c.n_heads), ("k", c.n_kv_heads), ("v", c.n_kv_heads))
        )
        out = torch.zeros(len(x), c.n_heads, c.head_dim, dtype=torch.float64)
        for h in range(c.n_heads):
            kv = h // (c.n_heads // c.n_kv_heads)
            for t in range(len(x)):
                seen = range(max(0, t + 1 - c.window) if c.window else 0, t + 1)
                turned = self.turned(q[t, h], t)
                scores = torch.stack([turned @ self.turned(k[s, kv], s) for s in seen]) / c.head_dim**0.5
                out[t, h] = scores.softmax(0) @ v[seen.start : t + 1, kv]
                if c.output_gate:
                    out[t, h] = out[t, h] / (1 + (-gate[t, h]).exp())
        out = out.flatten(1)
        return self.linear(f"{p}.o_proj", self.norm(f"{p}.attn_sub_norm", out) if c.attention_inner_norm else out)

    def delta(self, p, x):
        """The rule token by token and head by head."""
        c, w = self.c, self.w
        raw, z = self.linear(f"{p}.in_proj_qkv", x), self.linear(f"{p}.in_proj_z", x)
        filters, mixed = w[f"{p}.conv1d.weight"][:, 0], torch.zeros_like(raw)
        for t in range(len(x)):
            for back in range(min(t + 1, c.delta_conv)):
                mixed[t] += filters[:, -1 - back] * raw[t - back]
        mixed = activated("silu", mixed)
        width, out = c.delta_k_heads * c.delta_k_dim, torch.zeros(len(x), c.delta_v_heads, c.delta_v_dim).double()
        for h in range(c.delta_v_heads):
            kh = h // (c.delta_v_heads // c.delta_k_heads) if c.delta_head_order == "grouped" else h % c.delta_k_heads
            state = torch.zeros(c.delta_k_dim, c.delta_v_dim).double()
            for t in range(len(x)):
                q, k = (mixed[t, start + kh * c.delta_k_dim :][: c.delta_k_dim] for start in (0, width))
                q, k = (part / (part.square().sum() + 1e-6).sqrt() for part in (q, k))
                v = mixed[t, 2 * width + h * c.delta_v_dim :][: c.delta_v_dim]
                pace = (1 + (self.linear(f"{p}.in_proj_a", x[t])[h] + w[f"{p}.dt_bias"][h]).exp()).log()
                state = state * (-w[f"{p}.A_log"][h].exp() * pace).exp()
                beta = 1 / (1 + (-self.linear(f"{p}.in_proj_b", x[t])[h]).exp())
                state = state + torch.outer(k, beta * (v - state.T @ k))
                out[t, h] = state.T @ q / c.delta_k_dim**0.5
        gated = rms(out, w[f"{p}.norm.weight"]) * activated("silu", z.view_as(out))
        return self.linear(f"{p}.out_proj", gated.flatten(1))

    def feed_forward(self, p, x):
        inner = activated(self.c.activation, self.linear(f"{p}.gate_proj", x))
        if self.c.feed_forward == "gated":
            inner = inner * self.linear(f"{p}.up_proj", x)
        return self.linear(f"{p}.down_proj", self.norm(f"{p}.ffn_sub_norm", inner) if self.c.ffn_inner_norm else inner)

    def __call__(self, ids):
        c, w = self.c, self.w
        x = w["model.embed_tokens.weight"][ids]
        if c.positions == "learned":
            x = x + w["model.embed_positions.weight"][c.position_offset : c.position_offset + len(ids)]
        states = [x]
        for layer in range(c.n_layers):
            p = f"model.layers.{layer}"
            before = x
            mixer = (self.delta, "linear_attn") if layer in c.delta_layers else (self.attention, "self_attn")
            x = x + mixer[0](f"{p}.{mixer[1]}", self.norm(f"{p}.input_layernorm", x))
            read = self.norm(f"{p}.post_attention_layernorm", before if c.parallel_residual else x)
            x = x + self.feed_forward(f"{p}.mlp", read)
            states.append(x)
        states[-1] = self.norm("model.norm", x)
        return states[-1] @ w["model.embed_tokens.weight" if c.tied_head else "lm_head.weight"].T, states


@FAMILY
def test_forward_and_hidden_states_are_the_textbook_ones(config):
    m = model(config)
    out = m(IDS, hidden_states=True)
    assert len(out.hidden_states) == config.n_layers + 1
    logits, states = WrittenOut(m)(IDS[1][:9])
    torch.testing.assert_close(out.logits[1, :9].double(), logits, rtol=1e-3, atol=1e-4)
    for found, wanted in zip(out.hidden_states, states, strict=True):
        torch.testing.assert_close(found[1, :9].double(), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["delta", "only delta"])
@pytest.mark.parametrize("chunk", [1, 3, 8, 20, 64])
def test_chunks_of_the_delta_rule_change_nothing(monkeypatch, name, chunk):
    """Values and gradients: the states between the tokens of a chunk are never there."""
    m = model(CONFIGS[name]).double()
    whole = m(IDS).logits
    whole.square().mean().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in m.named_parameters()}
    m.zero_grad()
    monkeypatch.setattr(delta, "CHUNK", chunk)
    again = m(IDS).logits
    again.square().mean().backward()
    torch.testing.assert_close(again, whole, rtol=1e-4, atol=1e-4)
    for name, parameter in m.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_row_that_begins_again_forgets_its_states():
    """As `generate` does when a sequence has ended: one row at position 0, the other goes on."""
    m = model(CONFIGS["delta"])
    cache = KVCache(m.config, batch=2, capacity=32)
    for t in range(6):
        m(IDS[:, t : t + 1], cache=cache, positions=torch.tensor([[t], [t]]))
    for t in range(5):
        ids = torch.stack((IDS[0, 6 + t : 7 + t], IDS[1, t : t + 1]))
        found = m(ids, cache=cache, positions=torch.tensor([[6 + t], [t]])).logits
    torch.testing.assert_close(found[0, 0], m(IDS[:1, :11]).logits[0, -1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1, 0], m(IDS[1:, :5]).logits[0, -1], rtol=1e-4, atol=1e-4)


@FAMILY
@torch.no_grad()
def test_cached_steps_equal_the_whole(config):
    m = model(config)
    whole = m(IDS).logits
    cache = KVCache(config, batch=2, capacity=32)
    steps = [m(IDS[:, :12], cache=cache).logits] + [m(IDS[:, t : t + 1], cache=cache).logits for t in range(12, 15)]
    cache.limit = cache.capacity
    for t in range(15, 20):  # positions as tensors, of all rows and of each
        at = torch.tensor([t]) if t < 17 else torch.tensor([[t], [t]])
        steps.append(m(IDS[:, t : t + 1], cache=cache, positions=at).logits)
    # a state adds up the rounding of all tokens; a token that is forgotten changes tenths
    most = 1e-3 if config.delta_layers else 1e-4
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=most)
    torch.testing.assert_close(m(IDS, logits="last").logits, whole[:, -1:], rtol=1e-4, atol=1e-4)
    assert m(IDS, logits="none").logits is None


@torch.no_grad()
def test_rows_of_unequal_length_in_one_cache():
    m, cache = model(), KVCache(TINY, batch=2, capacity=32)
    m(IDS[:, :10], cache=cache, positions=torch.arange(10))  # the second row's prompt has only 6 tokens
    at = torch.tensor([[10], [6]])
    found = m(torch.stack((IDS[0, 10:11], IDS[1, 6:7])), cache=cache, positions=at).logits[:, 0]
    whole = m(IDS).logits
    torch.testing.assert_close(found, torch.stack((whole[0, 10], whole[1, 6])), rtol=1e-4, atol=1e-4)


@FAMILY
def test_attentions_are_probabilities_and_change_nothing(config):
    m = model(config)
    out = m(IDS, attentions=True)
    torch.testing.assert_close(out.logits, m(IDS).logits, rtol=1e-4, atol=1e-4)
    assert len(out.attentions) == 3 - len(config.delta_layers)
    for found in out.attentions:
        assert found.shape == (2, 4, 20, 20)
        torch.testing.assert_close(found.sum(-1), torch.ones(2, 4, 20))
        assert float(found.detach().triu(1).abs().max()) == 0
        if config.window:
            assert float(found.detach().tril(-config.window).abs().max()) == 0
        assert float(found.detach().tril(1 - (config.window or 20)).abs().max()) > 0


@pytest.mark.parametrize("kind", ["onebit", "chain:1", "bitnet"])
def test_checkpointing_gives_the_same_gradients(kind):
    gradients = []
    for flag in (False, True):
        m = model(kind=kind)
        m.gradient_checkpointing = flag
        m(IDS, hidden_states=True).logits.square().mean().backward()
        gradients.append([parameter.grad for parameter in m.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_angles_stay_float32():
    m = model().to(torch.bfloat16)
    assert m.rope_cos.dtype == torch.float32 and m(IDS).logits.dtype == torch.bfloat16


def test_too_long():
    with pytest.raises(DistillError, match="ERR_CONTEXT_LENGTH"):
        model()(torch.zeros(1, 65, dtype=torch.int64))
    with pytest.raises(DistillError, match="ERR_CONTEXT_LENGTH"):
        KVCache(TINY, 1, 65)
    m, cache = model(), KVCache(TINY, 2, 21)
    m(IDS, cache=cache)
    with pytest.raises(DistillError, match="ERR_CONTEXT_LENGTH"):
        m(IDS[:, :2], cache=cache)


def test_rope_scalings():
    plain = rope_frequencies(TINY)[0]
    scaled = lambda **how: rope_frequencies(LlamaConfig(**SHAPE, rope_scaling=how))  # noqa: E731
    torch.testing.assert_close(scaled(type="linear", factor=4)[0], plain / 4)
    torch.testing.assert_close(scaled(type="factors", factors=[1, 2, 4, 8])[0], plain / torch.tensor([1, 2, 4, 8.0]))
    how = dict(factor=8, low_freq_factor=1, high_freq_factor=4, original_context=1000)
    llama3 = scaled(type="llama3", **how)[0]
    # wavelengths 6, 63, 628, 6283: kept (below 250), kept, between, divided (above 1000)
    assert llama3[0] == plain[0] and llama3[1] == plain[1] and llama3[3] == plain[3] / 8
    share = (1000 / (2 * math.pi / float(plain[2])) - 1) / 3
    assert float(llama3[2]) == pytest.approx(float(plain[2]) * ((1 - share) / 8 + share), rel=1e-12)
    how = dict(factor=4.0, original_context=1000, beta_fast=32, beta_slow=1, attention_factor=0)
    yarn, magnitude = scaled(type="yarn", **how)
    # pairs that turn 32 times and once: 0.70 and 2.20, so the ramp goes from 0 to 3
    for i in range(4):
        ramp = i / 3
        assert float(yarn[i]) == pytest.approx(float(plain[i]) * (ramp / 4 + 1 - ramp), rel=1e-12)
    assert magnitude == pytest.approx(0.1 * math.log(4) + 1)


def test_yarn_is_transformers_yarn(goldens):
    cases = json.loads((goldens / "yarn.json").read_text())["cases"]
    assert sum(case["rope_parameters"]["factor"] < 1 for case in cases.values()) == 3
    for name, case in cases.items():
        shape = {**HF_SHAPE, **{key: case[key] for key in ("head_dim", "max_position_embeddings", "rope_parameters")}}
        frequencies, magnitude = rope_frequencies(config_from_hf({"model_type": "llama", **shape}))
        assert magnitude == pytest.approx(case["magnitude"], rel=1e-12), name
        # transformers computes in float32, down to its last bits
        wanted = torch.tensor(case["frequencies"], dtype=torch.float64)
        torch.testing.assert_close(frequencies, wanted, rtol=1e-6, atol=0, msg=name)
