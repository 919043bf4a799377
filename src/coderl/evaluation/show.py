"""The table in the terminal: `coderl show results/apps_eval.csv`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coderl.config import ConfigError
from coderl.evaluation.measurements import EQUAL_BUDGETS
from coderl.evaluation.tables import DIFFERENCE_COLUMNS, POOLED_COLUMNS, Row, read_table

BUDGET_LABELS: dict[str, str] = {
    "filtered_first_round": "plain, first round only",
    "filtered_equal_programs": "plain, equal programs",
    "filtered_equal_tokens": "plain, equal tokens",
    "filtered": "critical sampling",
}


def show(table: Path, *, difficulty: str = "all", file: object = None) -> None:
    """Print a table of results, run by run, and the differences beside it when `differences.csv` lies in its folder.

    Args:
        table: apps_eval.csv of one run or of several.
        difficulty: which problems; `all` or one of the levels in the table.
        file: where to print; standard output when None.

    Raises:
        DataError: the table is missing or malformed.
        ConfigError: the table has no such difficulty.
    """
    rows = read_table(table)
    levels = list(dict.fromkeys(row["difficulty"] for row in rows))
    if difficulty not in levels:
        raise ConfigError(f"--difficulty: {table} has no {difficulty!r}; there are {', '.join(levels)}")
    out = file if file is not None else sys.stdout
    terminal = bool(getattr(out, "isatty", lambda: False)())
    # A pipe or a log has no width of its own: wide enough that no cell is folded.
    console = Console(file=out, width=None if terminal else 180, highlight=False)  # type: ignore[arg-type]
    beside = table.with_name("differences.csv")
    differences = _read_differences(beside) if beside.is_file() else []
    for run in dict.fromkeys(row["run"] for row in rows):
        here = [row for row in rows if row["run"] == run and row["difficulty"] == difficulty]
        _print_run(console, run, difficulty, here, terminal)
    _print_differences(console, [row for row in differences if row["difficulty"] == difficulty])


def _print_run(console: Console, run: str, difficulty: str, rows: Sequence[Row], terminal: bool) -> None:
    results = [row for row in rows if row["metric"].startswith("pass@") or row["metric"].split("@")[0].isdigit()]
    if not results:
        console.print(f"{run}: no problems of difficulty {difficulty}")
        return
    first = results[0]
    title = (
        f"{run}: {first['benchmark']}/{first['problem_set']}, {difficulty} ({first['n_problems']} problems), percent, seed {first['seed']}"
    )
    main = [row for row in results if not row["metric"].endswith("@budget") and row["decoding"] != "greedy"]
    console.print(pivot(main, title, [(row["model"], row["model"]) for row in main], terminal))
    budget = [
        row
        for row in results
        if row["metric"].endswith("@budget") and (row["decoding"] in EQUAL_BUDGETS or row["model"] == "critical_sampling")
    ]
    if budget:
        labels = [(row["decoding"], BUDGET_LABELS.get(row["decoding"], row["decoding"])) for row in budget]
        console.print(
            pivot(
                budget, "Critical sampling beside plain samples of the same policy, filtered by example tests", labels, terminal, cost=True
            )
        )
    rankers = [row for row in rows if row["decoding"] == "validation" and row["metric"] in ("auc", "auc_within_problem")]
    if rankers:
        title = "Which program is right? AUC of the outcome critic beside the actor's own likelihood"
        console.print(pivot(rankers, title, [(row["model"], row["model"]) for row in rankers], terminal))
    for note in dict.fromkeys(row["note"] for row in [*main, *budget] if row["note"]):
        console.print(f"  note: {note}", style="dim")


def pivot(rows: Sequence[Row], title: str, labels: Sequence[tuple[str, str]], terminal: bool, *, cost: bool = False) -> Table:
    """Rows by label (key, text), columns by metric in order of first appearance; interval under the value on a terminal."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    grid = Table(title=title, title_justify="left", title_style="bold" if terminal else "", box=None, padding=(0, 1), header_style="bold")
    grid.add_column("", no_wrap=True)
    for metric in metrics:
        grid.add_column(metric, justify="right", no_wrap=True)
    if cost:
        grid.add_column("programs", justify="right")
        grid.add_column("tokens", justify="right")
    for key, text in dict.fromkeys(labels):
        mine = [row for (name, _), row in zip(labels, rows, strict=True) if name == key]
        cells = {row["metric"]: _value(row["value"], row["low"], row["high"], terminal) for row in mine}
        extra = [mine[0]["programs_per_problem"], mine[0]["tokens_per_problem"]] if cost else []
        grid.add_row(text, *(cells.get(metric, Text("")) for metric in metrics), *extra)
    return grid


def _value(value: str, low: str, high: str, terminal: bool, signed: bool = False) -> Text:
    if not value:
        return Text("-")
    shown = f"{float(value):+.1f}" if signed else f"{float(value):.1f}"
    if not low or not high:
        return Text(shown)
    interval = f"[{float(low):+.1f}, {float(high):+.1f}]" if signed else f"[{float(low):.1f}, {float(high):.1f}]"
    return Text.assemble(shown, "\n" if terminal and not signed else " ", (interval, "dim"))


def _read_differences(path: Path) -> list[Row]:
    """A run's differences.csv, or the pooled one of several runs."""
    with open(path, encoding="utf-8") as text:
        pooled = "per_seed" in text.readline()
    return read_table(path, POOLED_COLUMNS if pooled else DIFFERENCE_COLUMNS)


def _print_differences(console: Console, rows: Sequence[Row]) -> None:
    if not rows:
        return
    seeds = max(int(row.get("n_seeds", "1")) for row in rows)
    over = f"{seeds} seeds and problems" if seeds > 1 else "problems"
    grid = Table(
        title=f"Differences, percentage points; paired intervals over {over}",
        title_justify="left",
        box=None,
        padding=(0, 1),
        header_style="bold",
    )
    for name in ("comparison", "metric", "difference", ""):
        grid.add_column(name, no_wrap=name != "comparison", justify="right" if name == "difference" else "left")
    several = len({row["run"] for row in rows if "run" in row}) > 1
    previous = ""
    for row in rows:
        label = f"{row['run']}: {row['comparison']}" if several else row["comparison"]
        verdict = "interval contains 0" if row["contains_zero"] == "yes" else ""
        interval = _value(row["difference"], row["low"], row["high"], False, signed=True)
        metric = f"greedy {row['metric']}" if row["decoding"] == "greedy" else row["metric"]
        grid.add_row("" if label == previous else label, metric, interval, Text(verdict, style="dim"))
        previous = label
    console.print(grid)
