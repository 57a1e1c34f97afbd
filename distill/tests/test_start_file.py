"""`--start x.obt`: training begins with the signs, g and h that the engine's `convert --type onebit` found."""

import json
import struct
import subprocess

import pytest
import torch
from test_train import arguments, losses, made  # noqa: F401
from tiny_model import tiny_config, tiny_llama, write_folder

from onebit_distill.cli import main
from onebit_distill.data.teacher import load_teacher
from onebit_distill.errors import DistillError
from onebit_distill.export.student import export_model
from onebit_distill.formats.obt_start import read_start
from onebit_distill.model.linear import SignOptions
from onebit_distill.model.starts import StartOptions, StartReport, student_of
from onebit_distill.model.svid import svid_nmf, svid_svd
from onebit_distill.training.settings import Settings
from onebit_distill.training.transfer import start_options

LINEAR = "model.layers.1.mlp.up_proj"


def convert(engine, source, target, *more):
    words = ["node", str(engine), "convert", str(source), "-o", str(target), "--type", "onebit", "-q", *more]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


def written(path, model, scales="f32", **options):
    """A start as the engine would write it, by our own exporter."""
    student = student_of(model, "onebit", StartOptions(**options), SignOptions(layernorm=False))
    export_model(student, None, path, scales=scales)
    return student


@pytest.mark.parametrize("method", ["svd", "nmf"])
def test_the_student_begins_with_the_engines_scales(engine, tmp_path, method):
    teacher = write_folder(tmp_path / "teacher")
    path = convert(engine, tmp_path / "teacher", tmp_path / "s.obt", "--method", method)
    report = StartReport()
    student = student_of(teacher, "onebit", start_options(Settings(start=str(path))), report=report)
    for name, made in student.linears().items():
        own = (svid_svd if method == "svd" else svid_nmf)(teacher.linears()[name].weight)
        # the same steps by another program, in other orders of addition
        torch.testing.assert_close(made.input_factor.detach(), own.g, rtol=2e-6, atol=0)
        torch.testing.assert_close(made.weight_scale.detach(), own.h, rtol=2e-6, atol=0)
    made, own = student.linears()[LINEAR], svid_svd(teacher.linears()[LINEAR].weight)
    assert report.relative_errors[LINEAR] == pytest.approx(own.relative_error, rel=1e-4)
    assert torch.equal(made.weight < 0, teacher.linears()[LINEAR].weight < 0)
    assert float(made.weight.detach().abs().mean()) == pytest.approx(0.4, rel=1e-4)


def test_train_goes_from_it(tmp_path, made):  # noqa: F811
    path = tmp_path / "s.obt"
    written(path, load_teacher(made / "teacher").model)
    assert main(arguments(made, tmp_path / "file", "--steps", "3", "--start", str(path))) == 0
    assert main(arguments(made, tmp_path / "svd", "--steps", "3")) == 0
    assert losses(tmp_path / "file") == pytest.approx(losses(tmp_path / "svd"), rel=1e-4)
    assert json.loads((tmp_path / "file" / "run.json").read_text())["settings"]["start"] == str(path)
    # and it is this file that counts
    written(path, load_teacher(made / "teacher").model, split=0.9)
    assert main(arguments(made, tmp_path / "other", "--steps", "3", "--start", str(path))) == 0
    assert losses(tmp_path / "other")[2] != pytest.approx(losses(tmp_path / "svd")[2], rel=1e-4)


def test_starts_that_do_not_fit_are_refused(tmp_path):
    model = tiny_llama(tiny_config())
    path = tmp_path / "s.obt"
    written(path, model)

    def refused(message, teacher=model, kind="onebit", code="ERR_START_FIT", **settings):
        with pytest.raises(DistillError, match=f"{code}.*{message}"):
            student_of(teacher, kind, start_options(Settings(start=str(path), **settings)))

    refused("--no-layernorm", layernorm=True)
    refused("signs", tiny_llama(tiny_config(), seed=2))
    refused("shape", tiny_llama(tiny_config(hidden_dim=64)))
    refused("shape None", tiny_llama(tiny_config(n_layers=3)))
    refused("kind onebit", kind="chain:1", code="ERR_BAD_OPTION")
    export_model(student_of(model, "chain:1"), None, path)
    refused("not signs with g and h")
    export_model(student_of(model, "dense"), None, path)
    refused("not signs with g and h")
    path.write_bytes(b"GGUF" + bytes(100))
    refused("is no start")
    path.unlink()
    refused("no such file", code="ERR_FILE_NOT_FOUND")
    with pytest.raises(DistillError, match="ERR_BAD_OPTION.*start"):
        Settings(start="qr")


def test_a_damaged_tensor_is_found(tmp_path):
    path = tmp_path / "s.obt"
    written(path, tiny_llama(tiny_config()))
    data = bytearray(path.read_bytes())
    (size,) = struct.unpack_from("<Q", data)
    at = 8 + size + json.loads(data[8 : 8 + size])["layers.1.w3.g"]["data_offsets"][0]
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DistillError, match="ERR_CHECKSUM.*layers.1.w3.g"):
        read_start(path)


@pytest.mark.parametrize("scales", ["f32", "f16"])
def test_what_was_written_is_read(tmp_path, scales):
    student = written(tmp_path / "s.obt", tiny_llama(tiny_config()), scales)
    start = read_start(tmp_path / "s.obt")
    assert set(start.scales) == set(student.linears()) and not start.layernorm
    for name, layer in student.linears().items():
        found, g, h = start.scales[name], layer.input_factor.detach(), layer.weight_scale.detach()
        if scales == "f32":
            assert torch.equal(found.g, g) and torch.equal(found.h, h)
        # in f16 a power of two may go from g to h, and each is rounded
        torch.testing.assert_close(torch.outer(found.h, found.g), torch.outer(h, g), rtol=2**-10, atol=0)
        assert torch.equal(start.scales[name].negative, layer.weight < 0)
