"""Blocks fitted one after the other."""

import json

import pytest
import torch
from test_train import FAST, losses, made  # noqa: F401
from tiny_model import tiny_config, tiny_llama

from onebit_distill.cli import main
from onebit_distill.errors import DistillError
from onebit_distill.model.starts import student_of
from onebit_distill.training.reconstruct import BlockFit, fit_blocks
from onebit_distill.training.settings import Settings


def test_fitting_brings_every_state_closer_and_goes_on_after_a_stop(tmp_path):
    torch.manual_seed(0)
    teacher, settings, options = (
        tiny_llama(tiny_config()),
        Settings(precision="f32"),
        BlockFit(steps=80, lr=1e-2, batch=4),
    )
    ids = torch.randint(0, 320, (16, 24))
    student = student_of(teacher, "onebit")
    student.requires_grad_(True)
    goal = teacher(ids, hidden_states=True).hidden_states[-1]

    def distance():
        with torch.no_grad():
            return float((student(ids, hidden_states=True).hidden_states[-1] - goal).square().mean())

    before = distance()
    assert len(fit_blocks(teacher, student, ids, tmp_path, options, settings)) == 2
    after = distance()
    assert after < 0.8 * before
    (tmp_path / "block-001.safetensors").unlink()  # as if it had been stopped in the second block
    again = student_of(teacher, "onebit")
    again.requires_grad_(True)
    assert len(fit_blocks(teacher, again, ids, tmp_path, options, settings)) == 1
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters(), strict=True))


def test_the_command_fits_blocks_and_then_end_to_end(made, tmp_path):  # noqa: F811
    where = ["--teacher", str(made / "teacher"), "--data", str(made / "texts.jsonl"), "--out", str(tmp_path / "run")]
    assert main(["reconstruct", *where, *FAST, "--steps", "5", "--block-steps", "10", "--block-tokens", "512"]) == 0
    assert sorted(p.name for p in (tmp_path / "run").glob("block-*")) == [
        "block-000.safetensors",
        "block-001.safetensors",
    ]
    assert len(losses(tmp_path / "run")) == 5
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "made.obt")]) == 0
    assert (tmp_path / "made.obt").stat().st_size > 10_000


def test_other_options_do_not_go_on_with_a_run(made, tmp_path, capsys):  # noqa: F811
    where = ["--teacher", str(made / "teacher"), "--data", str(made / "texts.jsonl"), "--out", str(tmp_path / "run")]
    blocks = ["--block-steps", "4", "--block-tokens", "512"]
    assert main(["reconstruct", *where, *FAST, "--steps", "3", *blocks]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["more"] == {
        "block_tokens": 512, "block_steps": 4, "block_lr": 1e-3, "block_batch": 8
    }  # fmt: skip
    assert main(["reconstruct", *where, *FAST, "--steps", "4", *blocks]) == 0
    for other in (["--block-steps", "5"], ["--block-lr", "1e-2"], ["--block-batch", "4"], ["--block-tokens", "256"]):
        assert main(["reconstruct", *where, *FAST, "--steps", "4", *blocks, *other]) == 1
        assert f"ERR_RUN_DIFFERS: {tmp_path / 'run'} was begun with {other[0][2:].replace('-', '_')}" in capsys.readouterr().err
    assert main(["train", *where, *FAST, "--steps", "4"]) == 1
    assert "ERR_RUN_DIFFERS" in capsys.readouterr().err


def test_a_run_from_before_they_were_recorded_goes_on(made, tmp_path):  # noqa: F811
    where = ["--teacher", str(made / "teacher"), "--data", str(made / "texts.jsonl"), "--out", str(tmp_path / "run")]
    words = ["reconstruct", *where, *FAST, "--steps", "3", "--block-steps", "2", "--block-tokens", "512"]
    assert main(words) == 0
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "more"}))
    assert main(words) == 0


@pytest.mark.parametrize("bad", [{"tokens": 0}, {"steps": -1}, {"lr": 0.0}, {"batch": 0}])
def test_bad_options(bad):
    with pytest.raises(DistillError, match="ERR_BAD_OPTION"):
        BlockFit(**bad)
