"""Options: what is accepted, and that paper.toml says what the official scripts and code say."""

from pathlib import Path

import pytest

from onebit_distill.errors import DistillError
from onebit_distill.studies.baselines.plan import all_rows, read_study
from onebit_distill.studies.stories.run import read_stories_file
from onebit_distill.training.settings import Settings, read_settings, with_options

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def code(action, *arguments, **named) -> str:
    with pytest.raises(DistillError) as caught:
        action(*arguments, **named)
    return caught.value.code


def test_paper_toml_is_the_official_recipe():
    paper = read_settings(CONFIGS / "paper.toml")
    # onebit.md 1.3: losses, hidden states, optimiser, schedule, what is frozen
    assert (paper.logits_loss, paper.logits_weight, paper.temperature) == ("batchmean", 0.01, 1.0)
    assert (paper.hidden_weight, paper.hidden_last, paper.attention_weight, paper.lm_weight) == (1.0, False, 0.0, 0.0)
    assert (paper.optimiser, paper.lr, paper.beta1, paper.beta2, paper.eps) == ("adamw", 4e-4, 0.9, 0.98, 1e-8)
    assert (paper.weight_decay, paper.decay_vectors, paper.clip, paper.ema) == (0.01, True, 1.0, 0.0)
    assert (paper.schedule, paper.warmup, paper.epochs, paper.steps, paper.min_lr) == ("cosine", 500, 50, 0, 0)
    assert (paper.batch, paper.micro_batch, paper.block, paper.packing) == (128, 4, 2048, "fixed")
    assert (paper.train_embedding, paper.train_norms) == (False, False)
    # 1.1 and 1.2: layer and start
    assert (paper.kind, paper.layernorm, paper.sign_gradient, paper.zero_is_zero) == ("onebit", True, "official", True)
    assert paper.fold_scales is False
    assert (paper.start, paper.latent) == ("nmf", "official")
    assert (paper.precision, paper.fp16_scale, paper.fp16_window) == ("fp16", 64, 100)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_every_configuration_file_is_valid(path):
    if path.name.startswith("stories"):
        assert read_stories_file(path).plan.config().tied_head
    elif path.name.startswith("baselines"):
        assert all_rows(read_study(path))
    else:
        assert isinstance(read_settings(path), Settings)


def test_the_command_line_wins_over_the_file():
    assert read_settings(CONFIGS / "paper.toml", lr=1e-3, batch=None).lr == 1e-3
    assert read_settings(CONFIGS / "paper.toml", lr=1e-3, batch=None).batch == 128


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[optimiser]\nlearning_rate = 1", "ERR_CONFIG_FILE"),
        ("[data]\nlr = 1e-3", "ERR_CONFIG_FILE"),  # in the wrong table
        ("lr = 1e-3", "ERR_CONFIG_FILE"),
        ("[optimiser\n", "ERR_CONFIG_FILE"),
        ("[optimiser]\nlr = -1", "ERR_BAD_OPTION"),
        ("[optimiser]\nlr = nan", "ERR_BAD_OPTION"),
        ("[optimiser]\nlr = '1e-3'", "ERR_BAD_OPTION"),
        ("[student]\nkind = 'twobit'", "ERR_BAD_OPTION"),
        ("[student]\nlayernorm = 1", "ERR_BAD_OPTION"),
        ("[student]\ncolumn = true\nkind = 'dense'", "ERR_BAD_OPTION"),
        ("[student]\ncolumn = true\nstart = 'x.obt'", "ERR_BAD_OPTION"),
        ("[schedule]\nbatch = 10\nmicro_batch = 4", "ERR_BAD_OPTION"),
        ("[loss]\ntop_k = 8", "ERR_BAD_OPTION"),  # needs fixed blocks
    ],
)
def test_bad_files_are_named_errors(tmp_path, text, expected):
    (tmp_path / "c.toml").write_text(text)
    assert code(read_settings, tmp_path / "c.toml") == expected


def test_a_missing_file_is_a_named_error(tmp_path):
    assert code(read_settings, tmp_path / "none.toml") == "ERR_CONFIG_FILE"


def test_changes_are_checked_too():
    assert code(with_options, Settings(), batch=0) == "ERR_BAD_OPTION"
