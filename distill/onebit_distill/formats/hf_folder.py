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
from .architectures.architecture import our_names, split_fused
from .byte_level_files import tokenizer_from_byte_level_files
from .hf_config import described, hf_config
from .hf_ternary import TernaryWeights


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


def _read_object(path: Path) -> dict[str, Any]:
    """{} when the file is not there."""
    found = read_json(path)
    if not isinstance(found, (dict, type(None))):
        raise _bad_source(f"{path} is not a JSON object")
    return found or {}


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
    """Raises DistillError ERR_UNKNOWN_FORMAT, ERR_BAD_SOURCE and those of `hf_config.described` when opened."""

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
        self.config, self._description = described(root)
        self._ternary = TernaryWeights.of(root)

    def _find_weights(self):
        for single, read in _WEIGHTS:
            if (self.path / single).exists():
                return [self.path / single], read
            index = self.path / f"{single}.index.json"
            if index.exists():
                return [self.path / name for name in _shard_names(read_json(index), index)], read
        raise _bad_source(f"{self.path} has no model.safetensors, no pytorch_model.bin and no index of such files")

    def _stored(self, wanted: dict[str, list[str]]) -> Iterator[tuple[str, Tensor]]:
        """(their full name, tensor as it is stored) of each that holds something of the model."""
        description = self._description
        prefix, nested = description.prefix, description.nested_prefix
        for file in self.files:
            for name, tensor in self._read(file):
                # some checkpoints lack what the names of the others begin with
                full = name if name in wanted or f"{prefix}{name}" not in wanted else f"{prefix}{name}"
                if nested and name.startswith(nested):
                    full = f"{prefix}{name.removeprefix(nested)}"
                is_tied = self.config.tied_head and full == f"{description.names['lm_head']}.weight"
                if not description.is_ignored(name) and not is_tied:
                    yield full, tensor

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(our name, tensor) of each; under its own name one that a model of this architecture does not use.

        Raises DistillError ERR_MISSING_TENSOR, ERR_UNSUPPORTED_TENSOR_TYPE.
        """
        description = self._description
        wanted = our_names(self.config, description.names)
        stored = self._stored(wanted)
        seen = set()
        for full, tensor in stored if self._ternary is None else self._ternary.decoded(stored):
            ours = wanted.get(full, [full])
            seen.add(full)
            parts = [tensor] if len(ours) == 1 else split_fused(self.config, ours, tensor, description.fused)
            for name, part in zip(ours, parts, strict=True):
                yield name, description.convert(self.config, name, part)
        missing = next((name for name in wanted if name not in seen), None)
        if missing is not None:
            raise DistillError("ERR_MISSING_TENSOR", f"{self.path} has no tensor {missing}")

    def _tokenizer_config(self) -> dict[str, Any]:
        """tokenizer_config.json, with the names that older folders keep in special_tokens_map.json."""
        mapped = _read_object(self.path / "special_tokens_map.json")
        named = {name: value for name, value in mapped.items() if name.endswith("_token")}
        return {**named, **_read_object(self.path / "tokenizer_config.json")}

    def _read_merges(self) -> str | None:
        try:
            return (self.path / "merges.txt").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as cause:
            raise _bad_source(f"{self.path / 'merges.txt'} is not UTF-8") from cause
        except OSError as cause:
            raise file_error(cause, self.path / "merges.txt", "reading") from cause

    def tokenizer(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(tokenizer.json, tokenizer config with ids that end an answer), or None when there is neither a
        tokenizer.json nor vocab.json with merges.txt. Raises DistillError ERR_TOKENIZER_FILE, ERR_UNSUPPORTED_TOKENIZER.
        """
        tokenizer, config = read_json(self.path / "tokenizer.json"), self._tokenizer_config()
        if tokenizer is None:
            vocab, merges = read_json(self.path / "vocab.json"), self._read_merges()
            if vocab is None or merges is None:
                return None
            tokenizer = tokenizer_from_byte_level_files(vocab, merges, config)
        config.pop("chat_template", None)
        for source in (_read_object(self.path / "generation_config.json"), self._root):
            ends = source.get("eos_token_id")
            ends = ends if isinstance(ends, list) else [ends]
            if ends and all(isinstance(token, int) for token in ends):
                config["eos_token_ids"] = ends
                break
        return tokenizer, config

    def chat_template(self) -> str | None:
        path = self.path / "chat_template.jinja"
        if path.exists():
            return path.read_text(encoding="utf-8")
        found = _read_object(self.path / "tokenizer_config.json").get("chat_template")
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
