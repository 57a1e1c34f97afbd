"""The command line: usage errors are 2, our errors one line and 1."""

import pytest

from onebit_distill.cli import main


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["baseline"],
        ["train", "--teacher", "T", "--data", "d", "--out", "o", "--learning-rate", "1"],
        ["train", "--teacher", "T", "--data", "d", "--out", "o", "--epoch", "1"],  # no abbreviations
        ["train", "--teacher", "T", "--data", "d", "--out", "o", "--steps", "many"],
        ["train", "--teacher", "T", "--data", "d", "--out", "o", "--packing", "loose"],
        ["generate", "--teacher", "T"],
        ["export", "run"],
    ],
)
def test_usage_errors(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["train", "--teacher", "none", "--data", "d", "--out", "o"], "ERR_FILE_NOT_FOUND"),
        (["train", "--teacher", "none", "--data", "d", "--out", "o", "--lr", "-1"], "ERR_BAD_OPTION"),
        (["train", "--teacher", "none", "--data", "d", "--out", "o", "--config", "none.toml"], "ERR_CONFIG_FILE"),
        (["train", "--teacher", "none", "--data", "d", "--out", "o", "--device", "tpu"], "ERR_DEVICE"),
        (["generate", "--teacher", "none", "--out", "o", "--graph", "--device", "cpu"], "ERR_BAD_OPTION"),
        (["export", "none", "-o", "x.obt"], "ERR_NO_RUN"),
        (["stories", "--texts", "none", "--out", "o", "--config", "none.toml"], "ERR_CONFIG_FILE"),
    ],
)
def test_errors_are_one_line(argv, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and f"onebit_distill: {code}: " in lines[0]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("generate", "train", "export", "reconstruct", "stories"))
