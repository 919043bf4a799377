"""The table in the terminal: `coderl show results/apps_eval.csv`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coderl.config import ConfigError
from coderl.evaluation.measurements import AGREEMENT, CHECKER_METRICS, EQUAL_BUDGETS, RATES
from coderl.evaluation.tables import DIFFERENCE_COLUMNS, POOLED_COLUMNS, Row, read_table

BUDGET_LABELS: dict[str, str] = {
    "filtered_first_round": "plain, first round only",
    "filtered_equal_programs": "plain, equal programs",
    "filtered_equal_tokens": "plain, equal tokens",
    "filtered_equal_total": "plain, equal total tokens",
    "filtered": "critical sampling",
}
SAME_BUDGETS = "plain, equal programs and tokens"
"""Label of both rows where they hold the same numbers: without refinement they seldom differ."""
BUDGET_LABELS |= {f"{name}_{AGREEMENT}": f"{label}, by agreement" for name, label in BUDGET_LABELS.items()}
PIPE_WIDTH = 200
"""A pipe or a log has no width of its own: wide enough that no line is folded."""

Cell = Callable[[Row], Text]


def show(table: Path, *, difficulty: str = "all", file: TextIO | None = None) -> None:
    """Print a table of results run by run, and the differences beside it when `differences.csv` lies in its folder.

    Runs that differ in the seed only are followed by a table of their means.

    Args:
        table: apps_eval.csv of one run or of several.
        difficulty: which problems; `all` or one of the levels in the table.
        file: where to print; standard output when None. Colours only on a terminal.

    Raises:
        DataError: the table, or the differences beside it, are missing or malformed.
        ConfigError: the table has no such difficulty.
    """
    rows = read_table(table)
    levels = list(dict.fromkeys(row["difficulty"] for row in rows))
    if difficulty not in levels:
        raise ConfigError(f"--difficulty: {table} has no {difficulty!r}; there are {', '.join(levels)}")
    beside = table.with_name("differences.csv")
    differences = _read_differences(beside) if beside.is_file() else []
    out = file if file is not None else sys.stdout
    console = Console(file=out, width=None if out.isatty() else PIPE_WIDTH, highlight=False)

    chosen = [row for row in rows if row["difficulty"] == difficulty]
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        runs = groups.setdefault((row["benchmark"], row["config_hash"], row["commit"]), [])
        if row["run"] not in runs:
            runs.append(row["run"])
    for run in dict.fromkeys(row["run"] for row in rows):
        _print_run(console, run, difficulty, [row for row in chosen if row["run"] == run])
    for runs in groups.values():
        if len(runs) > 1:
            _print_means(console, runs, [row for row in chosen if row["run"] in runs])
    _print_differences(console, [row for row in differences if row["difficulty"] == difficulty])


def is_result(row: Row) -> bool:
    """True for pass@k and n@k, False for rates and the critic's metrics."""
    return "@" in row["metric"] and not row["metric"].startswith(RATES)


def is_budget(row: Row) -> bool:
    """True for the rows that compare critical sampling with plain samples at its own budget."""
    return row["metric"].endswith("@budget")


def is_at_budget(row: Row) -> bool:
    """True for critical sampling at its whole budget and for the plain samples that stand beside it, by chance or by agreement."""
    plain = row["decoding"].removesuffix(f"_{AGREEMENT}") in EQUAL_BUDGETS
    return is_budget(row) and (plain or row["model"] == "critical_sampling")


def budget_comparison(row: Row, minus: str = " - ", *, labels: Mapping[str, str] = BUDGET_LABELS) -> str:
    """What a row of differences.csv for which is_budget holds compares, in words."""
    return minus.join(labels.get(row[name], row[name]) for name in ("decoding", "baseline_decoding"))


def is_main(row: Row) -> bool:
    """True for a result of the main table: no budgets, no greedy programs, submission by chance as in the paper."""
    return is_result(row) and not is_budget(row) and row["decoding"] != "greedy" and not row["decoding"].endswith(AGREEMENT)


def _print_run(console: Console, run: str, difficulty: str, rows: Sequence[Row]) -> None:
    results = [row for row in rows if is_result(row)]
    if not results:
        return
    first = results[0]
    levels = "all difficulties" if difficulty == "all" else difficulty
    console.print(
        f"{run}: {first['benchmark']}/{first['problem_set']}, {levels}, {first['n_problems']} problems, "
        f"seed {first['seed']}; percent, interval over problems",
        style="bold",
    )
    main = [row for row in results if is_main(row)]
    console.print(_pivot(main, lambda row: row["model"], lambda row: _value(row, console)))
    budget, labels = budgets_once([row for row in results if is_at_budget(row)], "decoding")
    if any(row["model"] == "critical_sampling" for row in budget):
        console.print("Critical sampling beside plain samples of the same policy at its budget, filtered by example tests", style="bold")
        console.print(_pivot(budget, lambda row: labels[row["decoding"]], lambda row: _value(row, console), cost=True))
    rankers = [row for row in rows if row["metric"] in ("auc", "auc_within_problem")]
    if rankers:
        console.print("Which program is right? AUC of the critic beside the actor's own likelihood (50 = chance)", style="bold")
        console.print(_pivot(rankers, lambda row: row["model"], lambda row: _value(row, console)))
    checkers = [row for row in rows if row["metric"] in CHECKER_METRICS]
    if checkers:
        console.print("Strict and legacy checker on the same programs (the first of each problem)", style="bold")
        console.print(_pivot(checkers, lambda row: row["model"], lambda row: _value(row, console)))
    for note in dict.fromkeys(f"{row['model']}, {row['decoding']}: {row['note']}" for row in [*main, *budget] if row["note"]):
        console.print(f"  {note}", style="dim")
    console.print()


def budgets_once(rows: Sequence[Row], column: str) -> tuple[list[Row], dict[str, str]]:
    """(rows, label of each decoding in `column`): plain samples at equal programs and at equal tokens once where they are the same."""
    labels = dict(BUDGET_LABELS)
    kept = list(rows)
    for suffix in ("", f"_{AGREEMENT}"):
        pair = [f"filtered_equal_{kind}{suffix}" for kind in ("programs", "tokens")]
        first, second = ([{**row, column: ""} for row in rows if row[column] == name] for name in pair)
        numbers = [[{key: each for key, each in row.items() if key != "comparison"} for row in side] for side in (first, second)]
        if first and numbers[0] == numbers[1]:
            kept = [row for row in kept if row[column] != pair[1]]
            labels[pair[0]] = labels[pair[0]].replace(BUDGET_LABELS["filtered_equal_programs"], SAME_BUDGETS)
    return kept, labels


def _pivot(rows: Sequence[Row], label: Callable[[Row], str], cell: Cell, *, cost: bool = False) -> Table:
    """Rows by label, columns by metric, both in order of first appearance; `cost` adds what was spent per problem."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    grid = Table(box=None, padding=(0, 1, 0, 1), header_style="bold")
    grid.add_column("", overflow="fold")
    for metric in [*metrics, *(["programs", "tokens"] if cost else [])]:
        grid.add_column(metric, justify="right", no_wrap=True)
    for name in dict.fromkeys(label(row) for row in rows):
        mine = {row["metric"]: row for row in rows if label(row) == name}
        some = next(iter(mine.values()))
        spent = [some["programs_per_problem"], some["tokens_per_problem"]] if cost else []
        grid.add_row(name, *(cell(mine[metric]) if metric in mine else Text("") for metric in metrics), *spent)
    return grid


def _value(row: Row, console: Console) -> Text:
    """The value with its interval: under it on a terminal, where width is scarce, else beside it."""
    if not row["value"]:
        return Text("-")
    value = f"{float(row['value']):.1f}"
    if not row["low"] or not row["high"]:
        return Text(value)
    low, high = float(row["low"]), float(row["high"])
    if not console.is_terminal:
        return Text(f"{value} [{low:.1f}, {high:.1f}]")
    dash = "–" if console.encoding.startswith("utf") else "-"
    return Text.assemble(value, (f"\n{low:.1f}{dash}{high:.1f}", "dim"))


def _print_means(console: Console, runs: Sequence[str], rows: Sequence[Row]) -> None:
    """Mean over seeds with the value of every seed."""
    main = [row for row in rows if is_main(row)]

    def cell(row: Row) -> Text:
        values = [float(r["value"]) for r in main if (r["model"], r["metric"]) == (row["model"], row["metric"]) and r["value"]]
        if not values:
            return Text("-")
        return Text.assemble(f"{sum(values) / len(values):.1f} ", ("(" + "/".join(f"{value:.1f}" for value in values) + ")", "dim"))

    console.print(f"Mean of {len(runs)} seeds ({', '.join(runs)})", style="bold")
    console.print(_pivot(main, lambda row: row["model"], cell))
    console.print()


def _read_differences(path: Path) -> list[Row]:
    """A run's differences.csv, or the pooled one of several runs."""
    with open(path, encoding="utf-8", errors="replace") as text:
        pooled = "per_seed" in text.readline()
    return read_table(path, POOLED_COLUMNS if pooled else DIFFERENCE_COLUMNS)


def _print_differences(console: Console, rows: Sequence[Row]) -> None:
    if not rows:
        return
    seeds = max(int(row.get("n_seeds") or 1) for row in rows)
    over = f"{seeds} seeds and problems" if seeds > 1 else "problems"
    console.print(f"Differences in points, paired interval over {over}; *: excludes 0", style="bold")
    owners = [row.get("runs") or row.get("run", "") for row in rows]
    for owner in dict.fromkeys(owners):
        if len(set(owners)) > 1:
            console.print(owner, style="bold")
        mine = [row for row, name in zip(rows, owners, strict=True) if name == owner]
        like = [row for row in mine if is_budget(row) and same_submission(row)]
        budget, labels = budgets_once(like, "baseline_decoding")
        for chosen, label in (
            ([row for row in mine if is_main(row)], lambda row: row["comparison"]),
            (budget, partial(budget_comparison, labels=labels)),
        ):
            if chosen:
                console.print(_pivot(chosen, partial(_label, label, console), lambda row: _difference(row, console)))


def same_submission(row: Row) -> bool:
    """True where both sides submit by chance or both by agreement; one against the other is in the file only."""
    return row["decoding"].endswith(AGREEMENT) == row["baseline_decoding"].endswith(AGREEMENT)


def _label(label: Callable[[Row], str], console: Console, row: Row) -> str:
    return label(row).replace(" - ", "\n- ") if console.is_terminal else label(row)


def _difference(row: Row, console: Console) -> Text:
    value = f"{float(row['difference']):+.1f}"
    if not row["low"] or not row["high"]:
        return Text(value)
    mark = "*" if row["contains_zero"] == "no" else " "
    low, high = f"{float(row['low']):+.1f}", f"{float(row['high']):+.1f}"
    return Text.assemble(f"{value}{mark}", (f"\n{low},{high}", "dim")) if console.is_terminal else Text(f"{value}{mark} [{low}, {high}]")
