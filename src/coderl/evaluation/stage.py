"""The stage `evaluate`: programs and outcomes in, the table, the differences and metrics.json out."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from coderl.config import DIFFICULTIES, ConfigError, CriticalSampleConfig, EvaluateConfig
from coderl.evaluation.estimators import Floats, Integers, bootstrap_intervals, means
from coderl.evaluation.measurements import (
    AGREEMENT,
    EQUAL_BUDGETS,
    OUTCOME_SHARES,
    RATES,
    Measurement,
    measure_critical,
    measure_equal_budget,
    measure_given,
    measure_plain,
)
from coderl.evaluation.paper import paper_value
from coderl.evaluation.programs import ProgramFiles, Programs, read_programs, row_name
from coderl.evaluation.tables import (
    COLUMNS,
    DIFFERENCE_COLUMNS,
    PER_PROBLEM_COLUMNS,
    Row,
    contains_zero,
    number,
    percent,
    problem_hash,
    write_per_problem,
    write_table,
)
from coderl.problems import Problem, read_problems
from coderl.records import DataError, atomic_path, parse_json
from coderl.seeds import derived_seed

log = logging.getLogger(__name__)


def config_of_set(config: EvaluateConfig, name: str) -> EvaluateConfig:
    """The section as it is for one of `also`: its own k and policies, plain sampling only.

    Raises:
        ConfigError: there is no such set.
    """
    if name not in config.also:
        raise ConfigError(f"evaluate.also has no set '{name}'; there are {', '.join(config.also) or 'none'}")
    own = config.also[name]
    changes = {"problem_set": name, "policies": own.policies, "pass_at": own.pass_at, "n_at": own.n_at}
    return config.model_copy(update={**changes, "critical": [], "comparisons": [], "also": {}, "other_runs": {}})


Column = tuple[str, str, str]
"""(model, decoding, metric)."""


def evaluate(
    *,
    config: EvaluateConfig,
    run: str,
    seed: int,
    problems: Path,
    programs: Mapping[str, ProgramFiles],
    critic_metrics: Path | None,
    critical: CriticalSampleConfig | None,
    provenance: Mapping[str, str],
    output: Path,
    differences: Path | None = None,
    metrics: Path | None = None,
    per_problem: Path | None = None,
    pass_at_k: Path | None = None,
    binary_critic_metrics: Path | None = None,
) -> None:
    """Measure every model on one problem set (spec 8) and write the run's tables.

    Args:
        config: which k, which comparisons, how many bootstrap resamples.
        run: name of the run, in every row.
        seed: seed of the run; also decides the bootstrap's draws.
        problems: the problem set; problems without hidden tests are left out.
        programs: files of every model; keys: actor, policy/<variant>, critical, critical/<variant>, reference, empty.
        critic_metrics: metrics.json of the outcome critic: a flat mapping of shares, with `_low` and `_high` for intervals.
        critical: configuration of critical sampling (its policy and its N); needed when `programs` has "critical".
        provenance: `commit` and `config_hash`, in every row.
        output: the tidy table, CSV.
        differences: paired differences with intervals, CSV; null = not written.
        metrics: nested JSON for DVC: model -> metric -> percent, over all problems; null = not written.
        per_problem: parquet with the value of every metric for every problem, for joint intervals over several seeds; null = not written.
        pass_at_k: CSV for plots: one row per k, one column per model, percent over all problems; null = not written.
        binary_critic_metrics: metrics.json of the binary critic, as `critic_metrics`.

    Raises:
        DataError: a file that cannot be used, a missing shard, zero executed tests, k larger than the number of programs.
        ConfigError: a model or a comparison that does not exist.
    """
    everything = read_problems(problems)
    kept = [problem for problem in everything if problem.hidden_tests is not None]
    if not kept:
        raise DataError(f"{problems}: no problem has hidden tests, so there is nothing to evaluate")
    if len(kept) < len(everything):
        log.warning("%s: %d of %d problems have no hidden tests and are left out", problems, len(everything) - len(kept), len(everything))
    measured = measure(config, kept, programs, critical)
    pairs = _pairs(config, measured, programs, critical)

    levels = _levels(kept)
    benchmark = "+".join(dict.fromkeys(problem.benchmark for problem in kept))
    common = {"run": run, "benchmark": benchmark, "problem_set": config.problem_set, "seed": str(seed)}
    common |= {"commit": provenance.get("commit", ""), "config_hash": provenance.get("config_hash", "")}
    rows = _rows(config, measured, levels, seed, common)
    if critic_metrics is not None:
        rows += _critic_rows(critic_metrics, common)
    if binary_critic_metrics is not None:
        rows += [{**row, "model": "binary_critic"} for row in _critic_rows(binary_critic_metrics, common) if row["model"] == "critic"]
    if differences is not None:
        write_table(differences, DIFFERENCE_COLUMNS, _difference_rows(config, measured, pairs, levels, seed, common))
    if per_problem is not None:
        _write_per_problem(per_problem, run, seed, kept, measured)
    if metrics is not None:
        _write_metrics(metrics, rows)
    if pass_at_k is not None:
        _write_pass_at_k(pass_at_k, rows)
    write_table(output, COLUMNS, rows)
    log.info("%s: %d rows on %d problems", output, len(rows), len(kept))


def measure(
    config: EvaluateConfig, problems: Sequence[Problem], programs: Mapping[str, ProgramFiles], critical: CriticalSampleConfig | None
) -> dict[Column, Measurement]:
    """All measurements, in the order of the table; files of one model are in memory at a time (two for equal budgets)."""
    order = [name for name in ("reference", "empty", "actor") if name in programs]
    order += [name for name in programs if name.startswith("policy/")]
    found: list[Measurement] = []
    policy: Programs | None = None
    policy_name = "" if critical is None else f"policy/{critical.policy}"
    for name in order:
        table = read_programs(name, programs[name], problems)
        if name in ("reference", "empty"):
            found += measure_given(row_name(name), table)
            continue
        found += measure_plain(row_name(name), table, config.pass_at, config.n_at)
        if name == policy_name:
            policy = table
    if "critical" in programs:
        if critical is None:
            raise ConfigError("evaluate: programs has 'critical', so its configuration (section critical_sample) is needed")
        table = read_programs("critical", programs["critical"], problems)
        if policy is None:
            log.warning("no plain samples of %s: critical sampling stands without its equal-budget rows", policy_name)
        else:
            found += measure_equal_budget(row_name(policy_name), policy, table, config.n_at)
        found += measure_critical("critical_sampling", table, config.pass_at, config.n_at, critical.batch)
    for name in (name for name in programs if name.startswith("critical/")):
        if critical is None:
            raise ConfigError(f"evaluate: programs has {name!r}, so its configuration (section critical_sample) is needed")
        variant = name.partition("/")[2]
        table = read_programs(name, programs[name], problems)
        if policy is not None:
            found += measure_equal_budget(row_name(policy_name), policy, table, config.n_at, variant=variant)
        batch = critical.variant(variant).batch if variant in critical.variants else critical.batch
        found += measure_critical(row_name(name), table, config.pass_at, config.n_at, batch)
    return {(m.model, m.decoding, m.metric): m for m in found}


def _levels(problems: Sequence[Problem]) -> dict[str, Integers]:
    """Positions of the problems of each difficulty, easy to hard, then `all`."""
    present = [problem.difficulty for problem in problems]
    names = [name for name in DIFFICULTIES if name in present] + sorted(set(present) - set(DIFFICULTIES))
    levels = {name: np.flatnonzero(np.array([level == name for level in present])) for name in names}
    return {**levels, "all": np.arange(len(problems))}


def _rows(
    config: EvaluateConfig,
    measured: Mapping[Column, Measurement],
    levels: Mapping[str, Integers],
    seed: int,
    common: Row,
) -> list[Row]:
    columns = list(measured.values())
    values = np.stack([m.values for m in columns], axis=1)
    numbers: dict[str, tuple[Floats, Floats, Floats]] = {}
    for level, members in levels.items():
        chosen = values[members]
        draws = derived_seed(seed, "evaluate", "bootstrap", level)
        numbers[level] = (means(chosen), *bootstrap_intervals(chosen, count=config.bootstrap, confidence=config.confidence, seed=draws))
    rows = []
    for position, m in enumerate(columns):
        for level, members in levels.items():
            mean, low, high = (part[position] for part in numbers[level])
            defined = members[~np.isnan(m.values[members])]
            if not len(defined) and not m.note:
                continue
            paper = paper_value(common["benchmark"], m.model, m.decoding, m.metric, level) if config.paper_numbers else None
            rows.append(
                {
                    **common,
                    "model": m.model,
                    "decoding": m.decoding,
                    "difficulty": level,
                    "metric": m.metric,
                    "value": percent(mean),
                    "low": percent(low),
                    "high": percent(high),
                    "n_problems": str(len(defined)),
                    "programs_per_problem": number(float(m.programs[members].mean()), 2),
                    "tokens_per_problem": number(float(m.tokens[members].mean()), 1),
                    "n_filled": "" if m.filled is None else str(int(m.filled[members].sum())),
                    "paper": "" if paper is None else f"{paper.value:.2f}",
                    "paper_source": "" if paper is None else paper.source,
                    "note": m.note,
                }
            )
    return rows


def _pairs(
    config: EvaluateConfig,
    measured: Mapping[Column, Measurement],
    programs: Mapping[str, ProgramFiles],
    critical: CriticalSampleConfig | None,
) -> list[tuple[Column, Column]]:
    """Columns to compare: the configured pairs of rows in the same decoding, and critical sampling with every equal budget."""
    models = list(dict.fromkeys(model for model, _, _ in measured))
    names = {name: row_name(name) for name in programs} | {model: model for model in models}
    wanted: list[tuple[str, str]] = []
    for better, worse in config.comparisons:
        for name in (better, worse):
            if name not in names:
                raise ConfigError(f"evaluate.comparisons: {name!r} is no row of the table; rows are {', '.join(models)}")
        wanted.append((names[better], names[worse]))
    pairs: list[tuple[Column, Column]] = []
    for ours, theirs in wanted:
        for model, decoding, metric in measured:
            if model != ours or metric.startswith(RATES):
                continue
            # S' is what critical sampling has in place of plain samples.
            for other in dict.fromkeys(
                (decoding, "all" if decoding == "final_set" else decoding, "final_set" if decoding == "all" else decoding)
            ):
                if (theirs, other, metric) in measured:
                    pairs.append(((model, decoding, metric), (theirs, other, metric)))
    if "critical" in programs and critical is not None:
        policy = row_name(f"policy/{critical.policy}")
        for budget in EQUAL_BUDGETS:
            for model, decoding, metric in measured:
                if model == "critical_sampling" and decoding == "filtered" and (policy, budget, metric) in measured:
                    pairs.append(((model, decoding, metric), (policy, budget, metric)))
                # With the same way of submission on both sides, and against plain sampling with its own.
                if model == "critical_sampling" and decoding == f"filtered_{AGREEMENT}":
                    pairs += [
                        ((model, decoding, metric), (policy, plain, metric))
                        for plain in (f"{budget}_{AGREEMENT}", budget)
                        if (policy, plain, metric) in measured
                    ]
    return list(dict.fromkeys(pairs))


def _difference_rows(
    config: EvaluateConfig,
    measured: Mapping[Column, Measurement],
    pairs: Sequence[tuple[Column, Column]],
    levels: Mapping[str, Integers],
    seed: int,
    common: Row,
) -> list[Row]:
    if not pairs:
        return []
    values = np.stack([measured[ours].values - measured[theirs].values for ours, theirs in pairs], axis=1)
    numbers: dict[str, tuple[Floats, Floats, Floats]] = {}
    for level, members in levels.items():
        chosen = values[members]
        draws = derived_seed(seed, "evaluate", "bootstrap", level)  # the draws of the table: differences are paired
        numbers[level] = (means(chosen), *bootstrap_intervals(chosen, count=config.bootstrap, confidence=config.confidence, seed=draws))
    rows = []
    for position, ((model, decoding, metric), (baseline, baseline_decoding, _)) in enumerate(pairs):
        for level, members in levels.items():
            mean, low, high = (percent(part[position]) for part in numbers[level])
            if not mean:
                continue
            beside = "" if baseline_decoding in (decoding, "all") else f" ({baseline_decoding})"
            rows.append(
                {
                    **common,
                    "comparison": f"{model} - {baseline}{beside}",
                    "model": model,
                    "decoding": decoding,
                    "baseline": baseline,
                    "baseline_decoding": baseline_decoding,
                    "difficulty": level,
                    "metric": metric,
                    "difference": mean,
                    "low": low,
                    "high": high,
                    "contains_zero": contains_zero(low, high),
                    "n_problems": str(int(np.sum(~np.isnan(values[members, position])))),
                }
            )
    return rows


RANKERS: tuple[tuple[str, str], ...] = (
    ("_mean_log_likelihood", "actor_mean_log_likelihood"),
    ("_log_likelihood", "actor_log_likelihood"),
    ("", "critic"),
)
"""Suffix of a key in the critic's metrics.json -> row: the actor's own likelihood ranks programs for nothing, so it stands beside."""


def _critic_rows(path: Path, common: Row) -> list[Row]:
    """The critic's metrics.json as rows: shares only (AUC, accuracy, F1, ...), not its counts, nothing for null."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; it is written by `coderl train-critic`")
    try:
        found = parse_json(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); make it again with `coderl train-critic`") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a mapping of metrics, found {type(found).__name__}")
    numbers: dict[str, float] = {}
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise DataError(f"{path}: {key!r} must be a number or null, found {value!r}")
        if value is not None and not math.isnan(value):
            numbers[key] = float(value)
    rows = []
    for key, value in numbers.items():
        if key.startswith(("n_", "support_")) or key.endswith(("_low", "_high", "_n_problems")):
            continue
        if not 0.0 <= value <= 1.0:
            log.warning("%s: %s = %g is no share and does not enter the table", path, key, value)
            continue
        suffix, model = next(ranker for ranker in RANKERS if key.endswith(ranker[0]))
        rows.append(
            {
                **dict.fromkeys(COLUMNS, ""),
                **common,
                "problem_set": "critic_validation",
                "model": model,
                "decoding": "validation",
                "difficulty": "all",
                "metric": key.removesuffix(suffix),
                "value": percent(value),
                "low": percent(numbers.get(f"{key}_low", math.nan)),
                "high": percent(numbers.get(f"{key}_high", math.nan)),
                "n_problems": number(numbers.get(f"{key}_n_problems", numbers.get("n_problems", math.nan)), 0),
            }
        )
    order = [model for _, model in reversed(RANKERS)]
    return sorted(rows, key=lambda row: order.index(row["model"]))


def _write_per_problem(path: Path, run: str, seed: int, problems: Sequence[Problem], measured: Mapping[Column, Measurement]) -> None:
    columns: dict[str, list[object]] = {name: [] for name in PER_PROBLEM_COLUMNS[2:]}
    contents = [problem_hash(problem) for problem in problems]
    for m in measured.values():
        if m.metric.startswith(RATES) and m.metric not in OUTCOME_SHARES:
            continue
        for position in np.flatnonzero(~np.isnan(m.values)).tolist():
            columns["model"].append(m.model)
            columns["decoding"].append(m.decoding)
            columns["metric"].append(m.metric)
            columns["task_id"].append(problems[position].task_id)
            columns["problem"].append(contents[position])
            columns["difficulty"].append(problems[position].difficulty)
            columns["value"].append(float(m.values[position]))
    size = len(columns["value"])
    write_per_problem(path, {"run": [run] * size, "seed": [seed] * size, **columns})


def _write_metrics(path: Path, rows: Sequence[Row]) -> None:
    """model -> metric -> percent over all problems; a decoding other than the row's usual one stands before the metric."""
    nested: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["difficulty"] == "all" and row["value"]:
            usual = row["decoding"] in ("all", "filtered", "final_set", "validation")
            key = row["metric"] if usual else f"{row['decoding']}:{row['metric']}"
            nested.setdefault(row["model"], {})[key] = float(row["value"])
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(nested, indent=2) + "\n", encoding="utf-8")


def _write_pass_at_k(path: Path, rows: Sequence[Row]) -> None:
    """The plain pass@k of the table, over all problems, in the wide form that plots want; empty where a model has no such k."""
    curves: dict[int, dict[str, str]] = {}
    for row in rows:
        k = row["metric"].removeprefix("pass@")
        if row["difficulty"] == "all" and row["decoding"] in ("all", "final_set") and row["metric"] != k and k.isdigit():
            curves.setdefault(int(k), {})[row["model"]] = row["value"]
    models = dict.fromkeys(model for curve in curves.values() for model in curve)
    write_table(path, ("k", *models), [{"k": str(k), **dict.fromkeys(models, ""), **curves[k]} for k in sorted(curves)])
