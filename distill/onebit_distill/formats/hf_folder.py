"""Hugging Face model folders: reading teachers, and writing what was trained here so that others can read it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DistillError
from ..model.llama import Llama
from ..system.atomic_file import file_error, writing_atomically
from .hf_config import config_from_hf, hf_config


def _bad_source(problem: str, hint: str | None = None) -> DistillError:
    return DistillError("ERR_BAD_SOURCE", problem, hint)


def read_json(path: Path) -> Any:
    """None when the file is not there. Raises DistillError ERR_BAD_SOURCE and those of reading."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as cause:
        raise _bad_source(f"{path} is not valid JSON in UTF-8") from cause
    except OSError as cause:
        raise file_error(cause, path, "reading") from cause


def _is_ignored(name: str) -> bool:
    """A table computed from the config, and the teacher that the official trainer leaves in its checkpoints."""
    return name.endswith(".rotary_emb.inv_freq") or name.startswith("teacher_model.")


def _shard_names(index: Any, path: Path) -> list[str]:
    """An index can say anything: only plain file names are followed."""
    names = sorted(set((index or {}).get("weight_map", {}).values())) if isinstance(index, dict) else []
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise _bad_source(f"{path} names a file {str(name)[:80]!r}, which is not a plain file name")
    if not names:
        raise _bad_source(f"{path} has no weight_map")
    return names


def _safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                yield name, file.get_tensor(name)
    except SafetensorError as cause:
        hint = "The download may have stopped early; get the file again."
        raise _bad_source(f"{path} is not a safetensors file that can be read ({cause})", hint) from cause
    except OSError as cause:
        raise file_error(cause, path, "reading") from cause


def _pickle(path: Path) -> Iterator[tuple[str, Tensor]]:
    import pickle

    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as cause:
        raise _bad_source(f"{path} is not a PyTorch checkpoint of plain tensors ({str(cause)[:120]})") from cause
    except OSError as cause:
        raise file_error(cause, path, "reading") from cause
    yield from tensors.items()


_WEIGHTS = (("model.safetensors", _safetensors), ("pytorch_model.bin", _pickle))


class HfFolder:
    """Raises DistillError ERR_UNKNOWN_FORMAT, ERR_BAD_SOURCE and those of `config_from_hf` when opened."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        root = read_json(self.path / "config.json")
        if root is None:
            hint = "Give a Hugging Face model folder or a .gguf file."
            raise DistillError("ERR_UNKNOWN_FORMAT", f"{self.path} has no config.json", hint)
        if isinstance(root, dict) and root.get("model_type") == "bitllama":
            hint = "It runs as it is: onebit convert FOLDER OUT.obt."
            raise DistillError("ERR_UNSUPPORTED_TEACHER", f"{self.path} is a 1-bit model, not a teacher", hint)
        self._root = root
        self.files, self._read = self._find_weights()
        self.config = config_from_hf(root)

    def _find_weights(self):
        for single, read in _WEIGHTS:
            if (self.path / single).exists():
                return [self.path / single], read
            index = self.path / f"{single}.index.json"
            if index.exists():
                return [self.path / name for name in _shard_names(read_json(index), index)], read
        raise _bad_source(f"{self.path} has no model.safetensors, no pytorch_model.bin and no index of such files")

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor as it is stored) of each."""
        for file in self.files:
            for name, tensor in self._read(file):
                # some checkpoints lack the `model.` in front
                full = name if name.startswith(("model.", "lm_head.")) else f"model.{name}"
                if not _is_ignored(name) and not (full == "lm_head.weight" and self.config.tied_head):
                    yield full, tensor

    def tokenizer(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(tokenizer.json, tokenizer config with ids that end an answer), or None when there is no tokenizer.json."""
        tokenizer = read_json(self.path / "tokenizer.json")
        if tokenizer is None:
            return None
        config = read_json(self.path / "tokenizer_config.json") or {}
        config.pop("chat_template", None)
        for source in (read_json(self.path / "generation_config.json"), self._root):
            ends = (source or {}).get("eos_token_id")
            ends = ends if isinstance(ends, list) else [ends]
            if ends and all(isinstance(token, int) for token in ends):
                config["eos_token_ids"] = ends
                break
        return tokenizer, config

    def chat_template(self) -> str | None:
        path = self.path / "chat_template.jinja"
        if path.exists():
            return path.read_text(encoding="utf-8")
        found = (read_json(self.path / "tokenizer_config.json") or {}).get("chat_template")
        if not isinstance(found, list):
            return found
        named = [item for item in found if isinstance(item, dict)]
        chosen = next((item for item in named if item.get("name") == "default"), named[0] if named else {})
        return chosen.get("template")


def save_hf_folder(
    model: Llama,
    path: str | os.PathLike,
    tokenizer: dict[str, Any] | None = None,
    tokenizer_config: dict[str, Any] | None = None,
    chat_template: str | None = None,
) -> None:
    """Writes a dense model as a folder that `load_teacher`, `onebit convert` and transformers read.

    tokenizer: the JSON of a tokenizer.json. Raises DistillError as `writing_atomically`.
    """
    from safetensors.torch import save

    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise file_error(cause, path, "writing") from cause
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
    files = {"model.safetensors": save(tensors, {"format": "pt"})}
    if tokenizer is not None:
        files["tokenizer.json"] = json.dumps(tokenizer, ensure_ascii=False).encode()
        config = {**(tokenizer_config or {}), **({"chat_template": chat_template} if chat_template else {})}
        files["tokenizer_config.json"] = json.dumps(config, ensure_ascii=False, indent=1).encode()
    # last, because a folder without it is not taken for a model
    files["config.json"] = json.dumps(hf_config(model.config), indent=1).encode()
    for name, content in files.items():
        with writing_atomically(folder / name) as file:
            file.write(content)
