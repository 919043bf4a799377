"""The tidy tables on disk: columns, fixed-decimal formatting, strict readers, and the joins over several runs.

Every number is written with fixed decimals (percent, two of them) after a rounding that hides the last bits of floating
point, so that equal input gives equal bytes. docs/tables.md says what each column and row means.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coderl.evaluation.estimators import bootstrap_intervals, bootstrap_over_seeds
from coderl.problems import Problem
from coderl.records import DataError, atomic_path
from coderl.seeds import derived_seed

Row = dict[str, str]

COLUMNS: tuple[str, ...] = (
    "run",
    "benchmark",
    "problem_set",
    "model",
    "decoding",
    "difficulty",
    "metric",
    "value",
    "low",
    "high",
    "n_problems",
    "programs_per_problem",
    "tokens_per_problem",
    "n_filled",
    "paper",
    "paper_source",
    "note",
    "seed",
    "commit",
    "config_hash",
)
DIFFERENCE_COLUMNS: tuple[str, ...] = (
    "run",
    "benchmark",
    "problem_set",
    "comparison",
    "model",
    "decoding",
    "baseline",
    "baseline_decoding",
    "difficulty",
    "metric",
    "difference",
    "low",
    "high",
    "contains_zero",
    "n_problems",
    "seed",
    "commit",
    "config_hash",
)
POOLED_COLUMNS: tuple[str, ...] = (
    "comparison",
    "benchmark",
    "problem_set",
    "model",
    "decoding",
    "baseline",
    "baseline_decoding",
    "difficulty",
    "metric",
    "difference",
    "low",
    "high",
    "contains_zero",
    "n_problems",
    "n_seeds",
    "per_seed",
    "runs",
    "config_hash",
)
NUMBERS: tuple[str, ...] = ("value", "low", "high", "n_problems", "programs_per_problem", "tokens_per_problem", "paper", "difference")


def percent(value: float) -> str:
    """A share as percent with two decimals; empty for NaN. Rounded first, so that ties do not hang on the last bit."""
    return "" if math.isnan(value) else f"{round(value * 100, 8) + 0.0:.2f}"


def number(value: float, decimals: int) -> str:
    """A plain number with fixed decimals; empty for NaN."""
    return "" if math.isnan(value) else f"{round(value, 8) + 0.0:.{decimals}f}"


def contains_zero(low: str, high: str) -> str:
    """'yes' or 'no', judged on the numbers as they are printed; empty without an interval."""
    return "" if not low or not high else ("yes" if float(low) <= 0.0 <= float(high) else "no")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Write a CSV atomically, columns in the given order, lines ended by a bare newline."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path, columns: Sequence[str] = COLUMNS, made_by: str = "coderl evaluate") -> list[Row]:
    """Rows of a CSV that has all of `columns`; columns that are not known are dropped.

    Raises:
        DataError: no such file, no rows, a missing column, a short row or a cell that should be a number; with file and row.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with `{made_by}`")
    try:
        with open(path, encoding="utf-8", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            header = list(reader.fieldnames or [])
            missing = [name for name in columns if name not in header]
            if missing:
                raise DataError(f"{path}: column {missing[0]!r} is missing; this is no table of `{made_by}`")
            rows: list[Row] = []
            for line, row in enumerate(reader, 2):
                if None in row or None in row.values():
                    raise DataError(f"{path}: line {line}: expected {len(header)} cells, found another number; make the table again")
                for name in columns:
                    if name in NUMBERS and row[name] and not _is_number(row[name]):
                        raise DataError(f"{path}: line {line}: column {name!r} must be a number or empty, found {row[name]!r}")
                rows.append({name: row[name] for name in columns})
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}); make it with `{made_by}`") from None
    if not rows and columns == COLUMNS:
        raise DataError(f"{path}: no rows; make it with `{made_by}`")
    return rows


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def collect(*, tables: Sequence[Path], output: Path) -> None:
    """Join the tables of several runs, in the order given, into one with the same columns.

    Raises:
        DataError: a table that cannot be read, or one run given twice.
    """
    rows: list[Row] = []
    origin: dict[str, Path] = {}
    for path in tables:
        found = read_table(path)
        for run in dict.fromkeys(row["run"] for row in found):
            if run in origin:
                raise DataError(f"{path}: run {run!r} is already in {origin[run]}; give each run once")
            origin[run] = path
        rows += found
    write_table(output, COLUMNS, rows)


@dataclass(frozen=True)
class ProblemValues:
    """Per-problem values of one run: (model, decoding, metric) -> {task_id: value in 0..1}; the problems' levels, and what tells
    two problems of the same task_id apart (problem_hash), by task_id."""

    values: dict[tuple[str, str, str], dict[str, float]]
    difficulty: dict[str, str]
    problem: dict[str, str]
    run: str = ""
    seed: int = 0


PER_PROBLEM_COLUMNS: tuple[str, ...] = ("run", "seed", "model", "decoding", "metric", "task_id", "problem", "difficulty", "value")


def problem_hash(problem: Problem) -> str:
    """16 hexadecimal digits of what a problem asks and how it is judged: another draw of a generated benchmark has the same
    task_ids and other problems behind them."""
    decisive = (problem.question, problem.starter_code, problem.entry_point, repr(problem.hidden_tests), repr(problem.example_tests))
    return hashlib.sha256(repr(decisive).encode()).hexdigest()[:16]


def write_per_problem(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write per-problem values as parquet, text columns dictionary-encoded; keys are PER_PROBLEM_COLUMNS."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {
        name: pa.array(columns[name], type=pa.int64() if name == "seed" else pa.float64() if name == "value" else pa.string())
        for name in PER_PROBLEM_COLUMNS
    }
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(arrays), temporary, compression="zstd")


def read_per_problem(path: Path) -> ProblemValues:
    """Read what write_per_problem wrote; raises DataError naming the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with `coderl evaluate`")
    try:
        table = pq.read_table(path).to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a parquet file, or damaged ({error}); make it with `coderl evaluate`") from None
    missing = [name for name in PER_PROBLEM_COLUMNS if name not in table]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing; make it with `coderl evaluate`")
    values: dict[tuple[str, str, str], dict[str, float]] = {}
    difficulty: dict[str, str] = {}
    problem: dict[str, str] = {}
    cells = zip(*(table[name] for name in ("model", "decoding", "metric", "task_id", "problem", "difficulty", "value")), strict=True)
    for model, decoding, metric, task_id, content, level, value in cells:
        values.setdefault((model, decoding, metric), {})[task_id] = value
        difficulty[task_id], problem[task_id] = level, content
    if not values:
        raise DataError(f"{path}: no rows; make it with `coderl evaluate`")
    return ProblemValues(values, difficulty, problem, table["run"][0], table["seed"][0])


def collect_differences(
    *,
    differences: Sequence[Path],
    per_problem: Sequence[Path],
    output: Path,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> None:
    """Differences over runs that differ in the seed only, with intervals over seeds and problems.

    Runs with the same benchmark, problem set and config hash (which leaves out the seed) are pooled; a run alone keeps
    its own interval over problems. When all seeds have the same problems, one draw of the problems serves all seeds of
    a resample; different draws of a generated benchmark, which have the same task_ids, are told apart by what the problems
    say (see pool). With few seeds the resampling of seeds is coarse: read `per_seed` too.

    Args:
        differences: one differences.csv per run.
        per_problem: one per-problem parquet per run, in the same order.
        output: CSV with POOLED_COLUMNS.
        bootstrap: resamples.
        confidence: e.g. 0.95.
        seed: seed of the resampling.

    Raises:
        DataError: lists of different length, a run given twice, or a table and a parquet that do not belong together.
    """
    if len(differences) != len(per_problem):
        raise DataError(f"{len(differences)} tables of differences but {len(per_problem)} per-problem files; give one of each per run")
    groups: dict[tuple[str, ...], list[tuple[Row, ProblemValues]]] = {}
    runs: dict[str, Path] = {}
    for table, parquet in zip(differences, per_problem, strict=True):
        rows, values = read_table(table, DIFFERENCE_COLUMNS), read_per_problem(parquet)
        for row in rows:
            if runs.setdefault(row["run"], table) != table:
                raise DataError(f"{table}: run {row['run']!r} is already in {runs[row['run']]}; give each run once")
            for side in (("model", "decoding"), ("baseline", "baseline_decoding")):
                if (row[side[0]], row[side[1]], row["metric"]) not in values.values:
                    raise DataError(f"{parquet}: has no {row['metric']} of {row[side[0]]} ({row[side[1]]}), but {table} compares it")
            key = ("config_hash", "benchmark", "problem_set", "model", "decoding", "baseline", "baseline_decoding", "difficulty", "metric")
            groups.setdefault(tuple(row[name] for name in key), []).append((row, values))
    write_table(output, POOLED_COLUMNS, (_pooled(members, bootstrap, confidence, seed) for members in groups.values()))


@dataclass(frozen=True)
class Pooled:
    """A mean over seeds and problems with its interval, in shares; NaN where nothing is defined. n_problems: of the seed with most."""

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    n_problems: int


def pool(
    per_seed: Sequence[Mapping[str, float]],
    problems: Sequence[Mapping[str, str]],
    level: str,
    *,
    count: int,
    confidence: float,
    seed: int,
) -> Pooled:
    """Mean over seeds of the means over their problems, with an interval by resampling both.

    When all seeds have the same problems, one draw of them serves all the seeds of a resample; seeds that drew problems of their own
    are resampled within each seed (bootstrap_over_seeds). The same are problems whose task_id and content agree, also where a seed has
    no value for one of them.

    Args:
        per_seed: task_id -> value, or difference of two rows of that seed (paired), in 0..1; one mapping per seed.
        problems: task_id -> problem_hash of all problems of the run, per seed.
        level: the difficulty, which decides the random draws: rows of a table share them.
        count: resamples.
        confidence: e.g. 0.95.
        seed: of the draws.
    """
    same = all(content == problems[0] for content in problems)
    if same:  # one column is one problem
        columns = [task for task in problems[0] if any(task in values for values in per_seed)]
        rows = [[values.get(task, math.nan) for task in columns] for values in per_seed]
    else:
        rows = [list(values.values()) for values in per_seed]
    width = max(map(len, rows))
    matrix = np.full((len(rows), width), np.nan)
    for s, row in enumerate(rows):
        matrix[s, : len(row)] = row
    means = tuple(float(np.mean(list(values.values()))) if values else math.nan for values in per_seed)
    draws = derived_seed(seed, "collect", level)
    if not width:
        low = high = math.nan
    elif len(per_seed) == 1:
        lows, highs = bootstrap_intervals(matrix.T, count=count, confidence=confidence, seed=draws)
        low, high = float(lows[0]), float(highs[0])
    else:
        low, high = bootstrap_over_seeds(matrix, same_problems=same, count=count, confidence=confidence, seed=draws)
    return Pooled(float(np.mean(means)), low, high, means, max(map(len, per_seed)))


def _pooled(members: Sequence[tuple[Row, ProblemValues]], count: int, confidence: float, seed: int) -> Row:
    row = members[0][0]
    per_seed: list[dict[str, float]] = []
    for _, values in members:
        ours = values.values[row["model"], row["decoding"], row["metric"]]
        theirs = values.values[row["baseline"], row["baseline_decoding"], row["metric"]]
        per_seed.append(
            {
                task: value - theirs[task]
                for task, value in ours.items()
                if task in theirs and row["difficulty"] in ("all", values.difficulty[task]) and not math.isnan(value - theirs[task])
            }
        )
    pooled = pool(per_seed, [values.problem for _, values in members], row["difficulty"], count=count, confidence=confidence, seed=seed)
    low, high = (row["low"], row["high"]) if len(members) == 1 else (percent(pooled.low), percent(pooled.high))
    return {
        **{name: row[name] for name in POOLED_COLUMNS if name in row},
        "difference": percent(pooled.mean),
        "low": low,
        "high": high,
        "contains_zero": contains_zero(low, high),
        "n_problems": str(pooled.n_problems),
        "n_seeds": str(len(members)),
        "per_seed": " ".join(percent(mean) for mean in pooled.per_seed),
        "runs": " ".join(member["run"] for member, _ in members),
    }
