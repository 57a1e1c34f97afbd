"""Stored types of GGUF files: the recorded values to the bit, and two layouts under one id told apart."""

import json

import gguf
import numpy as np
import pytest
import torch
from tiny_model import tiny_config, tiny_llama, write_gguf

from onebit_distill.data.teacher import load_teacher
from onebit_distill.errors import DistillError
from onebit_distill.formats.gguf_types import Q2_0, Q2_0_LAYOUTS, decode, stored_type
from onebit_distill.formats.hf_ternary import _unpack

OWN = ("Q1_0", "Q2_0", "Q2_0-legacy-g128", "PQ2_0", "PTQ1_0", "I2_S")
OTHERS = ("Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0")


def layout_of(name, described):
    if described["ggml_type"] == Q2_0:
        return Q2_0_LAYOUTS["g128" in name]
    return stored_type(described["ggml_type"])


@pytest.mark.parametrize("name", [*OWN, *OTHERS])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # random bytes as f16 are infinite now and then
def test_the_recorded_values(data, name):
    folder = data("golden/codecs")
    described = json.loads((folder / "index.json").read_text())[name]
    stored, bits = layout_of(name, described), np.fromfile(folder / f"{name}.bin", np.uint8)
    wanted = np.load(folder / f"{name}.npy")
    assert stored.size(wanted.size) == len(bits)
    np.testing.assert_array_equal(decode(stored, bits).reshape(wanted.shape), wanted)
    bits[-30 - stored.tail] ^= 1  # of the last blocks, whose scales are not 0
    assert (decode(stored, bits).reshape(wanted.shape) != wanted).any()


def test_a_code_that_no_writer_makes(data):
    bits = np.fromfile(data("golden/codecs/I2_S.bin"), np.uint8)
    bits[7] = 255
    with pytest.raises(ValueError, match="code of 3"):
        decode(stored_type(36), bits)


def test_the_recorded_values_of_packed_folders(data):
    folder = data("golden/codecs")
    wanted = np.load(folder / "HF-packed.npy")
    packed = torch.from_numpy(np.fromfile(folder / "HF-packed.bin", np.uint8)).reshape(-1, wanted.shape[1])
    np.testing.assert_array_equal(_unpack(packed).numpy(), wanted)


def ternary_rows(w: np.ndarray, group: int) -> np.ndarray:
    """Blocks of Q2_0: f16 scale, then codes 0, 1, 2 for -1, 0, 1, four a byte."""
    parts = w.reshape(w.shape[0], -1, group)
    scale = np.abs(parts).mean(-1, keepdims=True).astype(np.float16)
    codes = (np.clip(np.round(parts / scale.astype(np.float32)), -1, 1) + 1).astype(np.uint8)
    packed = (codes.reshape(*codes.shape[:2], -1, 4) << np.arange(0, 8, 2, dtype=np.uint8)).sum(-1, dtype=np.uint8)
    return np.concatenate((scale.view(np.uint8), packed), -1).reshape(w.shape[0], -1)


def write_ternary(path, model, group, which="blk."):
    """A file whose matrices named `which` are written again as Q2_0, a type that the package does not have."""
    write_gguf(path, model)
    reader = gguf.GGUFReader(path)
    header, data = bytearray(path.read_bytes()[: reader.data_offset]), bytearray()
    for tensor in reader.tensors:
        data += b"\0" * (-len(data) % 32)
        end = tensor.field.offset + sum(part.nbytes for part in tensor.field.parts)
        header[end - 8 : end] = len(data).to_bytes(8, "little")
        matrix = tensor.data.reshape(tensor.shape[::-1])
        if matrix.ndim == 2 and which in tensor.name:
            header[end - 12 : end - 8] = Q2_0.to_bytes(4, "little")
            matrix = ternary_rows(matrix, group)
        data += matrix.tobytes()
    path.write_bytes(bytes(header) + bytes(data))


@pytest.mark.parametrize("group", [64, 128])
def test_groups_of_64_and_of_128_are_told_apart_by_sizes(tmp_path, group):
    model = tiny_llama(tiny_config(architecture="qwen3", dim=128, hidden_dim=256, head_dim=32))
    write_ternary(tmp_path / "t.gguf", model, group)
    found = load_teacher(tmp_path / "t.gguf").model.state_dict()
    for name, wanted in model.state_dict().items():
        if "layers" in name and wanted.dim() == 2:
            parts = wanted.reshape(wanted.shape[0], -1, group)
            scale = parts.abs().mean(-1, keepdim=True).half().float()
            torch.testing.assert_close(
                found[name], ((parts / scale).round().clamp(-1, 1) * scale).reshape(wanted.shape)
            )


@pytest.mark.parametrize(
    ("shape", "group", "which", "fit"),
    [
        ({"hidden_dim": 256, "head_dim": 32}, 32, "blk.", "neither"),
        # two rows: 72 and 68 bytes, and both end within the same 32
        ({"n_heads": 1, "n_kv_heads": 1, "head_dim": 2}, 64, "attn_k.", "both"),
    ],
    ids=["neither", "both"],
)
def test_a_layout_that_sizes_do_not_say_is_refused(tmp_path, shape, group, which, fit):
    model = tiny_llama(tiny_config(architecture="qwen3", dim=128, **shape))
    write_ternary(tmp_path / "t.gguf", model, group, which)
    with pytest.raises(DistillError, match=f"ERR_BAD_SOURCE.*Q2_0.*fit {fit}"):
        load_teacher(tmp_path / "t.gguf")


def test_tensors_that_share_bytes_are_refused(tmp_path):
    path = tmp_path / "t.gguf"
    write_gguf(path, tiny_llama(tiny_config()))
    reader = gguf.GGUFReader(path)
    first, second = reader.tensors[3:5]
    end = second.field.offset + sum(part.nbytes for part in second.field.parts)
    raw = bytearray(path.read_bytes())
    raw[end - 8 : end] = (first.data_offset - reader.data_offset + 32).to_bytes(8, "little")
    path.write_bytes(raw)
    with pytest.raises(DistillError, match=f"ERR_BAD_SOURCE.*{first.name}"):
        load_teacher(path)
