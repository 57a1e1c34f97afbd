"""Tiny dense models with a byte-level tokenizer, as folders and as GGUF files."""

import json

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from onebit_distill.formats.hf_folder import save_hf_folder
from onebit_distill.model.config import HF_LINEARS, LlamaConfig
from onebit_distill.model.llama import Llama

TEXT = "The quick brown fox jumps over 123 lazy dogs. Once upon a time, there was a tiny model. " * 3
TEMPLATE = "{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}"


def tiny_config(**changes) -> LlamaConfig:
    shape = dict(vocab_size=320, dim=64, hidden_dim=96, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16)
    return LlamaConfig(**{**shape, "context_length": 128, **changes})


def tiny_llama(config: LlamaConfig, seed=1) -> Llama:
    generator = torch.Generator().manual_seed(seed)
    model = Llama(config).init_weights(0.15, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.requires_grad_(False)


def tiny_tokenizer() -> dict:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|start|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return json.loads(tokenizer.to_str())


TOKENIZER_CONFIG = {"bos_token": "<|start|>", "eos_token": "<|end|>", "add_bos_token": True}


def write_folder(path, config=None, **tokenizer) -> Llama:
    model = tiny_llama(config or tiny_config())
    parts = {"tokenizer": tiny_tokenizer(), "tokenizer_config": TOKENIZER_CONFIG, "chat_template": TEMPLATE}
    save_hf_folder(model, path, **{**parts, **tokenizer})
    return model


def _to_neighbours(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp's conversion script: q and k rows for the rotation of neighbours."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _gguf_name(name: str) -> str:
    for role, theirs in zip(
        HF_LINEARS.values(), ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up")
    ):
        name = name.replace(role, theirs)
    pairs = {"model.layers": "blk", "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm"}
    pairs |= {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "model.norm": "output_norm"}
    pairs |= {"model.embed_tokens": "token_embd", "lm_head": "output"}
    for ours, theirs in pairs.items():
        name = name.replace(ours, theirs)
    return name


def write_gguf(path, model: Llama, kind="F32", change=None, vocabulary=True, describe=None) -> None:
    """kind: how matrices are stored. change: called with the dict of tensors by GGUF's names; describe: with the
    writer, for more metadata."""
    config = model.config
    # Mistral has llama's name there
    name = "llama" if config.architecture == "mistral" else config.architecture
    writer = gguf.GGUFWriter(path, name)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.dim)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_block_count(config.n_layers)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    if config.window > 0:
        writer.add_sliding_window(config.window)
    if describe:
        describe(writer)
    if vocabulary:
        _add_vocabulary(writer, config.vocab_size)
    tensors = {}
    for ours, value in model.state_dict().items():
        heads = config.n_heads if ".q_proj." in ours else config.n_kv_heads if ".k_proj." in ours else None
        if heads and name == "llama":
            value = _to_neighbours(value, heads)
        tensors[_gguf_name(ours)] = value.numpy()
    if change:
        change(tensors)
    for name, value in tensors.items():
        stored = gguf.GGMLQuantizationType[kind if value.ndim == 2 else "F32"]
        if stored == gguf.GGMLQuantizationType.Q1_0:
            writer.add_tensor(name, _q1_0(value), raw_dtype=stored)
        else:
            writer.add_tensor(name, gguf.quants.quantize(value, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _q1_0(w: np.ndarray) -> np.ndarray:
    blocks = w.reshape(w.shape[0], -1, 128)
    scale = np.abs(blocks).mean(-1, keepdims=True).astype(np.float16)
    bits = np.packbits(blocks >= 0, axis=-1, bitorder="little")
    return np.concatenate((scale.view(np.uint8), bits), -1).reshape(w.shape[0], -1)


def _add_vocabulary(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    made = tiny_tokenizer()
    names = [name for name, _ in sorted(made["model"]["vocab"].items(), key=lambda item: item[1])]
    names += [f"<|unused{i}|>" for i in range(len(names), vocab_size)]
    special = {token["content"] for token in made["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    writer.add_token_types([3 if name in special or name.startswith("<|unused") else 1 for name in names])
    writer.add_token_merges([" ".join(pair) for pair in made["model"]["merges"]])
    writer.add_bos_token_id(names.index("<|start|>"))
    writer.add_eos_token_id(names.index("<|end|>"))
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
