"""Which runs the paper's comparisons need: a configuration file in, rows of settings out.

Every comparison is a list of `Row`s. Rows of different comparisons with the same settings are one run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ...data.generate import GenerateOptions, options_from_table
from ...errors import DistillError
from ...training.settings import Settings, option_types, read_toml, settings_from_tables, with_options

_TABLES = ("baselines", "generate", "shared", "paper", "ours", "changes")


@dataclass(frozen=True)
class Sizes:
    """The `[baselines]` table: what is compared."""

    paper_rates: Sequence[float] = (1e-4, 2e-4, 4e-4)
    rates: Sequence[float] = (1e-4, 2e-4, 4e-4, 8e-4, 1.5e-3)
    reference_rate: float = 1.5e-3
    alphas: Sequence[float] = (0.0, 1.0, 10.0)
    rounding_bits: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8)
    chain_bits: Sequence[float] = (0.5, 1.0, 2.0)
    latent_means: Sequence[float] = (0.01, 0.1)
    seeds: Sequence[int] = (0, 1, 2)
    step_seeds: Sequence[int] = (0, 1)
    longer: int = 4

    @classmethod
    def parse(cls, table: dict[str, Any], source: str) -> Sizes:
        """Raises DistillError ERR_CONFIG_FILE."""
        defaults = {item.name: item.default for item in fields(cls)}
        for name, value in table.items():
            if name not in defaults or not _is_like(value, defaults[name]):
                problem = f"[baselines] {name} = {value!r} is not an option of its kind"
                raise DistillError("ERR_CONFIG_FILE", f"{source}: {problem}")
        sizes = cls(**table)
        for needed, present in ((sizes.paper_rates, sizes.rates), ((sizes.reference_rate,), sizes.rates)):
            missing = [rate for rate in needed if rate not in present]
            if missing:
                raise DistillError("ERR_CONFIG_FILE", f"{source}: [baselines] rates lack {missing[0]:g}")
        if not {0.0, 1.0} <= set(sizes.alphas):
            raise DistillError("ERR_CONFIG_FILE", f"{source}: [baselines] alphas lack 0 or 1")
        return sizes


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value is of the default's kind: a positive number, or a list with at least one number."""
    if isinstance(default, Sequence):
        kinds = (int,) if type(default[0]) is int else (int, float)
        return isinstance(value, list) and bool(value) and all(type(item) in kinds and item >= 0 for item in value)
    return type(value) in ((int,) if type(default) is int else (int, float)) and value > 0


@dataclass(frozen=True)
class Change:
    """Options that go over from the paper's values to ours together."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One line of a comparison."""

    label: str
    settings: Settings
    #: what tells this row from the others of its comparison
    marks: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return settings_key(self.settings)


def settings_key(settings: Settings) -> str:
    """The name of a run: the same for the same settings and no others."""
    return hashlib.sha256(json.dumps(settings.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Study:
    """A configuration file of `baselines`."""

    sizes: Sizes
    generate: GenerateOptions
    paper: Settings
    ours: Settings
    changes: tuple[Change, ...]

    def reference(self, **options: Any) -> Settings:
        """The paper's recipe at the rate at which single choices are compared."""
        return with_options(self.paper, **{"lr": self.sizes.reference_rate, **options})

    def _differing(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: getattr(self.ours, name) for name in names}

    def after(self, count: int) -> Settings:
        """The paper's recipe with the first `count` changes."""
        names = [name for change in self.changes[:count] for name in change.options]
        return with_options(self.paper, **self._differing(names))

    def without(self, change: Change) -> Settings:
        """Our recipe with one change taken back."""
        return with_options(self.ours, **{name: getattr(self.paper, name) for name in change.options})


def read_study(path: str | Path) -> Study:
    """Raises DistillError ERR_CONFIG_FILE, ERR_BAD_OPTION."""
    tables = read_toml(path)
    unknown = sorted(set(tables) - set(_TABLES))
    if unknown:
        raise DistillError("ERR_CONFIG_FILE", f"{path}: there is no table {unknown[0]!r}")

    def recipe(name: str) -> Settings:
        shared, own = tables.get("shared", {}), tables.get(name, {})
        merged = {table: {**shared.get(table, {}), **own.get(table, {})} for table in {**shared, **own}}
        return settings_from_tables(merged, f"{path} [{name}]")

    study = Study(
        Sizes.parse(tables.get("baselines", {}), str(path)),
        options_from_table(tables.get("generate", {}), str(path)),
        recipe("paper"),
        recipe("ours"),
        tuple(_changes(tables.get("changes", []), str(path))),
    )
    _check_changes(study, str(path))
    return study


def _changes(entries: Any, source: str) -> list[Change]:
    try:
        changes = [Change(entry["name"], tuple(entry["options"])) for entry in entries]
        named = [name for change in changes for name in change.options]
        wrong = next((name for name in named if name not in option_types()), None)
    except (KeyError, TypeError) as cause:
        raise DistillError("ERR_CONFIG_FILE", f"{source}: each of [[changes]] needs a name and options") from cause
    if wrong is not None:
        raise DistillError("ERR_CONFIG_FILE", f"{source}: [[changes]] has no option {wrong!r}")
    return changes


def _check_changes(study: Study, source: str) -> None:
    """The way from one recipe to the other must be whole, and no option may stand in it twice."""
    named = [name for change in study.changes for name in change.options]
    paper, ours = study.paper.to_dict(), study.ours.to_dict()
    differing = [name for name in paper if paper[name] != ours[name]]
    missing = sorted(set(differing) - set(named))
    if missing:
        raise DistillError("ERR_CONFIG_FILE", f"{source}: {missing[0]} differs, but no [[changes]] names it")
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise DistillError("ERR_CONFIG_FILE", f"{source}: {twice[0]} stands in two of [[changes]]")
    if not study.changes:
        raise DistillError("ERR_CONFIG_FILE", f"{source}: [paper] and [ours] are the same")


#: what figure 6 and section 5 compare, as options on top of the paper's recipe
METHODS: dict[str, dict[str, Any]] = {
    "OneBit": {},
    "OneBit without LayerNorm": {"layernorm": False},
    "BitNet": {"kind": "bitnet"},
}


def recipe_rows(study: Study) -> list[Row]:
    """The paper's recipe at each of its rates against ours, several seeds."""
    rows = []
    for seed in study.sizes.seeds:
        rows.append(Row("ours", with_options(study.ours, seed=seed), {"recipe": "ours", "seed": seed}))
        for rate in study.sizes.paper_rates:
            settings = with_options(study.paper, lr=rate, seed=seed)
            rows.append(Row(f"paper, lr {rate:g}", settings, {"recipe": "paper", "lr": rate, "seed": seed}))
    return rows


def reference_rows(study: Study) -> list[Row]:
    """The reference run with several seeds: how far apart two runs are that differ in nothing."""
    return [Row(f"reference, seed {s}", study.reference(seed=s), {"seed": s}) for s in study.sizes.seeds]


def rate_rows(study: Study) -> list[Row]:
    """All methods at all rates; without LayerNorm only from the paper's highest rate on."""
    least = {"OneBit without LayerNorm": max(study.sizes.paper_rates)}
    return [
        Row(f"{method}, lr {rate:g}", with_options(study.paper, lr=rate, **options), {"method": method, "lr": rate})
        for method, options in METHODS.items()
        for rate in study.sizes.rates
        if rate >= least.get(method, 0.0)
    ]


def start_rows(study: Study) -> list[Row]:
    return [Row(f"start {name}", study.reference(start=name), {"start": name}) for name in ("nmf", "svd", "copy")]


def loss_rows(study: Study) -> list[Row]:
    """Table 6: alpha, and the loss on attention that gave NaN there."""
    rows = [Row(f"alpha {a:g}", study.reference(hidden_weight=float(a)), {"alpha": a}) for a in study.sizes.alphas]
    with_attention = study.reference(hidden_weight=1.0, attention_weight=1.0)
    return [*rows, Row("alpha 1 and attention", with_attention, {"alpha": "attention"})]


def half_rows(study: Study) -> list[Row]:
    """What the paper saw fail in fp16, in fp16, with g and h outside of the signs as in the authors' code."""
    options = {
        "OneBit": {},
        "OneBit without LayerNorm": {"layernorm": False},
        "attention": {"hidden_weight": 1.0, "attention_weight": 1.0},
    }
    return [
        Row(f"{name}, fp16", study.reference(precision="fp16", fold_scales=False, **more), {"half": name})
        for name, more in options.items()
    ]


def latent_rows(study: Study) -> list[Row]:
    rows = [Row("latents 0.01 sign(W)", study.reference(), {"latent": "official", "mean": 0.01})]
    for mean in study.sizes.latent_means:
        for latent in ("magnitude", "relative"):
            settings = study.reference(latent=latent, latent_mean=float(mean))
            rows.append(Row(f"latents {latent}, mean {mean:g}", settings, {"latent": latent, "mean": mean}))
    return rows


def chain_rows(study: Study) -> list[Row]:
    return [
        Row(f"chain, {bits:g} bits", with_options(study.ours, kind=f"chain:{bits:g}"), {"bits": bits})
        for bits in study.sizes.chain_bits
    ]


def step_rows(study: Study) -> list[Row]:
    """From the paper's recipe to ours, one change after the other."""
    names = ["the paper's recipe", *(f"+ {change.name}" for change in study.changes)]
    return [
        Row(name, with_options(study.after(count), seed=seed), {"count": count, "seed": seed})
        for seed in study.sizes.step_seeds
        for count, name in enumerate(names)
    ]


def without_rows(study: Study) -> list[Row]:
    return [
        Row(f"ours without: {change.name}", study.without(change), {"count": count})
        for count, change in enumerate(study.changes, 1)
    ]


LONGER_RECIPES = ("ours", "paper", "paper, reference rate")


def longer(study: Study, recipe: str, times: int) -> Settings:
    """One of LONGER_RECIPES with so many times its steps."""
    made = dict(zip(LONGER_RECIPES, (study.ours, study.paper, study.reference()), strict=True))[recipe]
    return with_options(made, steps=made.steps * times)


def longer_rows(study: Study) -> list[Row]:
    return [
        Row(f"{recipe}, {times} x the steps", longer(study, recipe, times), {"recipe": recipe, "times": times})
        for times in (1, study.sizes.longer)
        for recipe in LONGER_RECIPES
    ]


#: in the order in which they are run: what matters most comes first
COMPARISONS = {
    "recipes": recipe_rows,
    "rates": rate_rows,
    "starts": start_rows,
    "losses": loss_rows,
    "half": half_rows,
    "steps": step_rows,
    "without": without_rows,
    "latents": latent_rows,
    "reference": reference_rows,
    "chains": chain_rows,
    "longer": longer_rows,
}


def all_rows(study: Study) -> list[Row]:
    """Every run once, under its first label."""
    found: dict[str, Row] = {}
    for make in COMPARISONS.values():
        for row in make(study):
            found.setdefault(row.key, row)
    return list(found.values())
