"""Verb `tables` for runs over seeds: small versions of the paper's tables 2 to 5 and figure 8, what came after, and our goals.

The rows are those of `paper_tables`, where one is the paper's, and rows that only we have. Numbers are means over seeds; every row
stands beside others of its table as a paired difference with an interval over seeds and problems. The paper's numbers are of APPS: they are
comparable in sign and order, never in level, so its differences are worked out from its own table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coderl.config import DIFFICULTIES
from coderl.evaluation.measurements import EQUAL_BUDGETS
from coderl.evaluation.paper import LEVELS, paper_value
from coderl.evaluation.paper_tables import TABLES as PAPER
from coderl.evaluation.paper_tables import Key, Line
from coderl.evaluation.tables import Pooled, ProblemValues, Row, contains_zero, percent, pool, read_per_problem, read_table, write_table
from coderl.records import OUTCOMES, DataError, atomic_path

ABOVE = "the row above"
"""In `SeedLine.versus`: the line before, in place of a line's own name."""


@dataclass(frozen=True)
class SeedLine:
    """One row. `source`: key of `evaluate.over_seeds` that its numbers come from; `cells`: column -> where it is in the per-problem values.

    `versus`: names of the lines that it is compared with; `paper`: column -> introductory/interview/competition/all. `hidden` lines
    only serve a comparison; `short` is what the line is called in one.
    """

    name: str
    labels: tuple[str, ...]
    source: str
    cells: Mapping[str, Key]
    versus: tuple[str, ...] = ()
    paper: Mapping[str, str] = field(default_factory=dict)
    hidden: bool = False
    short: str = ""


@dataclass(frozen=True)
class SeedTable:
    """A table over seeds. `columns`: our metrics; `paper_columns`: column -> the paper's metric there, where it has another name."""

    name: str
    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[SeedLine, ...]
    note: str = ""
    paper_columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[str, ...]:
        """The keys of `evaluate.over_seeds` that the table needs."""
        return tuple(dict.fromkeys((*(line.source for line in self.lines), *self._critics)))

    @property
    def tidy_sources(self) -> tuple[str, ...]:
        """Those whose tidy tables it needs too: for the notes on equal budgets, and of `goals` for the critics."""
        noted = (line.source for line in self.lines if any(_equal_total(key) for key in line.cells.values()))
        return tuple(dict.fromkeys((*noted, *self._critics)))

    @property
    def _critics(self) -> tuple[str, ...]:
        return tuple(source for source, *_ in CRITIC_ROWS) if self.name == "goals" else ()


def _equal_total(key: Key) -> bool:
    """Plain samples at the total budget of critical sampling, which may end before it."""
    return key[1].partition("/")[0] == EQUAL_BUDGETS[-1]


def run_and_set(name: str) -> tuple[str, str]:
    """(run, set) of a `<run>/<set>` in `evaluate.over_seeds`."""
    run, _, chosen = name.partition("/")
    return run, chosen


# --------------------------------------------------------------------------------------------------- the rows

_PASS = ("pass@1", "pass@5")
_OTHER = "The paper's numbers are of APPS, by beam search: compare signs and order, not levels."
_OUR_RECIPE = "is trained by our recipe (leave-one-out returns, no critic, negative returns bounded), not by the paper's."


def _paper_lines(table: str) -> dict[str, Line]:
    """Rows of one of the paper's tables by the model, or the other run, that ours comes from; not those that we have no row for."""
    (found,) = [each for each in PAPER if each.name == table]
    return {line.other or next(iter(line.ours.values()))[0]: line for line in found.lines if line.ours}


_TABLE_2, _TABLE_3, _TABLE_4, _TABLE_5 = (_paper_lines(name) for name in ("2", "3", "4", "5"))


def _plain(model: str, *metrics: str) -> dict[str, Key]:
    return {metric: (model, "all", metric) for metric in metrics}


_SHORT = {
    "warm_start": "warm start",
    "no_values": "A",
    "ce": "CE",
    "ce_on_passing": "CE with own passing programs",
    "rl": "CodeRL, loss as ours",
}
"""Lines that others are compared with."""


def _policy(name: str, labels: tuple[str, ...], *versus: str, paper: Mapping[str, str] | None = None) -> SeedLine:
    """Plain samples of a policy of the ablation runs, or of their warm start."""
    model = name if name == "warm_start" else f"rl_finetune/{name}"
    return SeedLine(name, labels, "ablation", _plain(model, *_PASS), versus, paper or {}, short=_SHORT.get(name, ""))


def _return_estimate(name: str, *versus: str) -> SeedLine:
    line = _TABLE_2[f"rl_finetune/{name}"]
    return _policy(name, line.labels, *versus, paper=line.paper)


def _objective(name: str, *versus: str) -> SeedLine:
    line = _TABLE_3[name if name == "warm_start" else f"rl_finetune/{name}"]
    return _policy(name, line.labels[1:], *versus, paper=line.paper)


_WARM_START = _TABLE_3["warm_start"].paper


def _critical(variant: str, labels: tuple[str, ...], returns_ten: bool = True) -> tuple[SeedLine, SeedLine]:
    """A way of critical sampling, and plain samples of the same policy that cost as many tokens in all.

    `returns_ten`: for every problem ten programs, which the paper counts; else no fewer than five and as many as it takes.
    """
    model = "critical_sampling" + (f"/{variant}" if variant else "")
    cells: dict[str, Key] = {"pass@5": (model, "final_set", "pass@5")}
    if returns_ten:
        cells |= {"pass@10": (model, "final_set", "pass@10"), "1@10": (model, "filtered", "1@10")}
    cells |= {metric: (model, "filtered", metric) for metric in ("1@budget", "pass@budget")}
    plain = "filtered_equal_total" + (f"/{variant}" if variant else "")
    budget = {metric: ("rl_finetune/leave_one_out", plain, metric) for metric in ("1@budget", "pass@budget")}
    line = _TABLE_4.get(model)
    paper = {} if line is None else dict(zip(("pass@5", "pass@10", "1@10"), line.paper.values(), strict=True))
    name = variant or "m1"
    return (
        SeedLine(name, labels, "critical", cells, ("none", f"{name} budget"), paper),
        SeedLine(f"{name} budget", labels, "critical", budget, hidden=True, short="plain, equal total tokens"),
    )


def _pretraining(source: str, ours: str) -> SeedLine:
    line = _TABLE_5["warm_start" if source in ("codet5_large_ntp", "main") else source]
    paper = {} if source == "main" else line.paper  # other cuts than the paper's
    first = source == "codet5_small"
    versus = () if first else ("codet5_small", ABOVE)
    return SeedLine(
        source, (*line.labels, ours), source, _plain("warm_start", *_PASS), versus, paper, short="the first row" if first else ""
    )


_OUTCOMES: tuple[str, ...] = OUTCOMES


def _outcomes(model: str, label: str, suite: str, *versus: str) -> SeedLine:
    """Shares of the four outcomes on one suite of tests; the paper's as in paper.py."""
    read_off = {name: [paper_value("apps", model, "all", f"{suite}_{name}", level) for level in LEVELS] for name in _OUTCOMES}
    paper = {name: "/".join("" if each is None else f"{each.value:.1f}" for each in values) for name, values in read_off.items()}
    cells: dict[str, Key] = {name: (model, "all", f"{suite}_{name}") for name in _OUTCOMES}
    return SeedLine(
        f"{label} {suite}", (suite, label), "main", cells, tuple(f"{each} {suite}" for each in versus), paper, short="before RL"
    )


SEED_TABLES: dict[str, SeedTable] = {
    table.name: table
    for table in (
        SeedTable(
            "table2",
            "Table 2, small: return estimates",
            ("id", "baseline", "values"),
            _PASS,
            (
                _policy("warm_start", ("none", "", ""), paper=_WARM_START),
                _return_estimate("no_values", "warm_start"),
                _return_estimate("no_baseline", "warm_start", "no_values"),
                _return_estimate("distance", "warm_start", "no_values"),
                _return_estimate("rl", "warm_start", "no_values"),
                _policy("leave_one_out", ("ours", "leave-one-out", "none"), "warm_start", "no_values"),
                _policy("leave_one_out_critic", ("ours", "leave-one-out", "critic"), "warm_start", "no_values"),
            ),
            note="A to D are the paper's return estimates in our form of the loss (negative returns bounded, mean within a "
            f"program), the same steps for all; the literal recipe is a row of the follow-ups. {_OTHER}",
        ),
        SeedTable(
            "table3",
            "Table 3, small: learning objectives after the warm start",
            ("further training",),
            _PASS,
            (
                _objective("warm_start"),
                _objective("ce", "warm_start"),
                _objective("ce_on_samples", "warm_start", "ce"),
                _objective("rl_only", "warm_start", "ce"),
                _objective("rl", "warm_start", "ce", "ce_on_passing"),
                _policy("leave_one_out", ("CE + RL, leave-one-out (ours)",), "warm_start", "ce", "ce_on_passing"),
                _policy("ce_on_passing", ("CE on references and own passing programs (ours)",), "warm_start", "ce"),
            ),
            note="The same steps for all. CE + RL also does cross entropy on the actor's own passing programs where a "
            f"problem has no references: its fair control is the last row, which does so without RL. {_OTHER}",
        ),
        SeedTable(
            "table4",
            "Table 4, small: critical sampling",
            ("refine", "repair"),
            ("pass@5", "pass@10", "1@10", "1@budget", "pass@budget"),
            (
                SeedLine(
                    "none",
                    ("no", "no"),
                    "critical",
                    {
                        **_plain("rl_finetune/leave_one_out", "pass@5", "pass@10"),
                        "1@10": ("rl_finetune/leave_one_out", "filtered", "1@10"),
                        "1@budget": ("rl_finetune/leave_one_out", "filtered", "1@10"),
                        "pass@budget": ("rl_finetune/leave_one_out", "all", "pass@10"),
                    },
                    (),
                    dict(zip(("pass@5", "pass@10", "1@10"), _TABLE_4["rl_finetune/rl"].paper.values(), strict=True)),
                    short="the first row",
                ),
                *_critical("refine", ("yes", "no")),
                *_critical("", ("yes", "M=1")),
                *_critical("m2", ("yes", "M=2")),
                *_critical("m4", ("yes", "M=4")),
                *_critical("rounds", ("ours: five at a time while none passes", "then M=4"), returns_ten=False),
            ),
            note="Ten programs in the first round and in each later one; ours, five. pass@5, pass@10 and 1@10 count the programs that "
            "critical sampling returns, as the paper does; 1@budget and pass@budget count all that was generated, and "
            "their second difference is to plain samples that cost as many tokens in all. The policy of all rows "
            f"{_OUR_RECIPE} The paper's columns are of 200 and 1000 programs on APPS: compare signs and order.",
            paper_columns={"pass@5": "pass@200", "pass@10": "pass@1000", "1@10": "1@1000"},
        ),
        SeedTable(
            "table5",
            "Table 5, small: pretraining, cross entropy only",
            ("size", "data", "task", "ours"),
            _PASS,
            (
                _pretraining("codet5_small", "small, a tenth of the files, spans"),
                _pretraining("codet5_base", "medium, a tenth of the files, spans"),
                _pretraining("codet5_large", "large, a tenth of the files, spans"),
                _pretraining("codet5_large_gcpy", "large, all files, spans"),
                _pretraining("codet5_large_ntp", "large, all files, next tokens and spans"),
                _pretraining("main", "large, all files, next tokens (cut behind comments, ours) and spans"),
            ),
            note="The same pretraining steps for all, a tokenizer of its own corpus for each, the same warm start. The last row is the "
            "mini run's pretraining, whose next-token cuts lie behind a comment where there is one. Those of the row above lie anywhere "
            f"between 10 % and 90 % (spec 1.4), as in the paper's row of next tokens. {_OTHER}",
        ),
        SeedTable(
            "follow_ups",
            "What came after CodeRL, from the same actor and programs",
            ("objective", "by"),
            _PASS,
            (
                _policy("warm_start", ("none", "")),
                _policy("published", ("recipe: published", "CodeRL, to the letter"), "warm_start"),
                _policy("rl", ("greedy baseline, critic's values", "CodeRL, loss as ours"), "warm_start", "published"),
                _policy("rltf", ("adaptive and fine-grained feedback", "RLTF"), "warm_start", "rl"),
                _policy("grpo", ("group-normalised, clipped, KL", "GRPO"), "warm_start", "rl"),
                _policy("ppo_clip", ("leave-one-out, clipped", "PPO"), "warm_start", "rl"),
                _policy("leave_one_out", ("leave-one-out, bounded", "ours"), "warm_start", "rl"),
            ),
            note="The same steps for all (spec 10).",
        ),
        SeedTable(
            "figure8",
            "Figure 8, small: outcomes before and after RL",
            ("tests", "model"),
            _OUTCOMES,
            (
                _outcomes("warm_start", "before RL", "example"),
                _outcomes("rl_finetune/rl", "after RL", "example", "before RL"),
                _outcomes("warm_start", "before RL", "hidden"),
                _outcomes("rl_finetune/rl", "after RL", "hidden", "before RL"),
            ),
            note=f"Shares of programs in percent. The model after RL {_OUR_RECIPE} The paper's shares are of APPS.",
        ),
        SeedTable(
            "goals",
            "Goals",
            ("quantity", "goal"),
            ("pass@1", "pass@5", "1@budget"),
            (
                SeedLine("warm_start", ("warm start",), "main", _plain("warm_start", *_PASS), hidden=True),
                SeedLine("ce", ("as many steps of cross entropy",), "main", _plain("rl_finetune/ce", *_PASS), hidden=True),
                SeedLine(
                    "rl",
                    ("RL fine-tuning", "pass@1 +8, interval above +4; competition level pass@1 8"),
                    "main",
                    _plain("rl_finetune/rl", *_PASS),
                    ("warm_start",),
                ),
                SeedLine(
                    "rl ce",
                    ("RL fine-tuning", "pass@5 +10"),
                    "main",
                    _plain("rl_finetune/rl", *_PASS),
                    ("ce",),
                ),
                SeedLine(
                    "plain",
                    ("plain samples at equal total tokens",),
                    "main",
                    {"1@budget": ("rl_finetune/rl", "filtered_equal_total", "1@budget")},
                    hidden=True,
                ),
                SeedLine(
                    "critical",
                    ("critical sampling", "1@budget +5, interval above 0"),
                    "main",
                    {"1@budget": ("critical_sampling", "filtered", "1@budget")},
                    ("plain",),
                ),
            ),
            note="Competition level: the third of the slashed numbers. AUC: on the train problems that each critic holds "
            "out, every seed in parentheses.",
        ),
    )
}

CRITIC_ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("critical", "critic", "critic alone (started from the pretrained model, its own likelihood trained on what passes)", "70"),
    ("main", "critic", "critic that also has the actor's likelihood (started from the actor, trained in the same way)", "87"),
    ("main", "actor_log_likelihood", "the actor's log-likelihood alone", ""),
)
"""Source, model, label and goal of the rows of the goals table that are no means over test problems: AUC within a problem, on the
critic's own held-out train problems."""


# --------------------------------------------------------------------------------------------------- the numbers

COLUMNS: tuple[str, ...] = (
    "table",
    "line",
    "labels",
    "metric",
    "difficulty",
    "value",
    "low",
    "high",
    "confidence",
    "per_seed",
    "n_problems",
    "n_seeds",
    "seeds",
    "runs",
    "versus",
    "difference",
    "difference_low",
    "difference_high",
    "contains_zero",
    "difference_per_seed",
    "paper_metric",
    "paper",
    "paper_difference",
    "note",
)
"""One row per line, metric, difficulty and comparison (a line without any has one row); `labels` is a JSON list; `note` says of which
seeds the comparison is not what it claims to be."""


def write_seed_table(
    *,
    name: str,
    sources: Mapping[str, Sequence[Path]],
    output: Path,
    page: Path,
    tidy: Sequence[Path] = (),
    bootstrap: int = 2000,
    confidence: float = 0.95,
) -> None:
    """Write one table over seeds as CSV (COLUMNS) and as Markdown in the paper's layout.

    Args:
        name: key of SEED_TABLES.
        sources: key of `evaluate.over_seeds` -> per-problem values, one file per seed, the seeds in the same order for all.
        output: CSV.
        page: Markdown.
        tidy: tables of `coderl evaluate`, of each seed of the sources that are in the table's `tidy_sources`: for the notes on equal
            budgets, and of `goals` for the critics' rows.
        bootstrap: resamples.
        confidence: e.g. 0.95.

    Raises:
        DataError: an unknown table, a source that is missing, a number that its run does not have, or runs that stand side by side and
            differ in seed or problems, or a run whose tidy table is missing; with the files.
    """
    if name not in SEED_TABLES:
        raise DataError(f"--table: no table over seeds is called {name!r}; there are {', '.join(SEED_TABLES)}")
    table = SEED_TABLES[name]
    missing = [source for source in table.sources if not sources.get(source)]
    if missing:
        raise DataError(f"--over-seeds: table {name} needs the source {missing[0]!r}; there are {', '.join(sources) or 'none'}")
    read = {path: read_per_problem(path) for source in table.sources for path in sources[source]}
    seeds = {source: [read[path] for path in sources[source]] for source in table.sources}
    _check_pairs(table, sources, seeds)
    tables = [read_table(path) for path in tidy]
    notes = _budget_notes(table, seeds, tables)
    rows = [row for line in table.lines if not line.hidden for row in _line_rows(table, line, seeds, sources, notes, bootstrap, confidence)]
    if name == "goals":
        rows += _critic_rows(seeds, tables)
    write_table(output, COLUMNS, rows)
    with atomic_path(page) as temporary:
        temporary.write_text(as_markdown(rows, f"# {table.title}"), encoding="utf-8")


def _check_pairs(table: SeedTable, sources: Mapping[str, Sequence[Path]], seeds: Mapping[str, Sequence[ProblemValues]]) -> None:
    """Every source has the same seeds in the same order, on the same problems."""
    first = table.sources[0]
    for source in table.sources:
        if [each.seed for each in seeds[source]] != [each.seed for each in seeds[first]]:
            found = {name: [each.seed for each in seeds[name]] for name in (first, source)}
            raise DataError(
                f"--over-seeds: {first} has the seeds {found[first]}, {source} has {found[source]}; name the runs in the same order"
            )
        for path, here, there, other in zip(sources[source], seeds[source], seeds[first], sources[first], strict=True):
            if here.problem != there.problem:
                task = next(task for task in {**here.problem, **there.problem} if here.problem.get(task) != there.problem.get(task))
                raise DataError(
                    f"{path}: {task} is not the problem that {other} has under this name, so that the two cannot be compared "
                    "problem by problem; "
                    "give both runs the same procedural.seed and the same problems"
                )


def _budget_notes(
    table: SeedTable, seeds: Mapping[str, Sequence[ProblemValues]], tables: Sequence[Sequence[Row]]
) -> dict[tuple[str, Key], str]:
    """(source, cell) -> what the tidy tables say of plain samples that ended before the budget, with the run and seed; else no entry."""
    notes: dict[tuple[str, Key], dict[str, None]] = {}
    for source in table.tidy_sources:
        for each in seeds[source]:
            found = [row for rows in tables for row in rows if row["run"] == each.run]
            if not found:
                raise DataError(
                    f"--tables: table {table.name} needs the tidy table of run {each.run!r}, which says whether its budgets are equal; "
                    "add the run's table of `coderl evaluate`"
                )
            for row in found:
                key = (row["model"], row["decoding"], row["metric"])
                if row["note"] and _equal_total(key):
                    notes.setdefault((source, key), {})[f"{each.run} (seed {each.seed}): {row['note']}"] = None
    return {place: "; ".join(texts) for place, texts in notes.items()}


def _values(line: SeedLine, column: str, seeds: Sequence[ProblemValues], paths: Sequence[Path]) -> list[dict[str, float]] | None:
    """task_id -> value per seed; None where the line has no such column."""
    key = line.cells.get(column)
    if key is None:
        return None
    for path, each in zip(paths, seeds, strict=True):
        if key not in each.values:
            raise DataError(f"{path}: has no {key[2]} of {key[0]} ({key[1]}), which the table needs; add it to the run's section evaluate")
    return [dict(each.values[key]) for each in seeds]


def _line_rows(
    table: SeedTable,
    line: SeedLine,
    seeds: Mapping[str, Sequence[ProblemValues]],
    sources: Mapping[str, Sequence[Path]],
    notes: Mapping[tuple[str, Key], str],
    bootstrap: int,
    confidence: float,
) -> list[Row]:
    named = {each.name: each for each in table.lines}
    place = table.lines.index(line)
    runs = seeds[line.source]
    present = {level for each in runs for level in each.difficulty.values()}
    levels = [*(level for level in DIFFICULTIES if level in present), *sorted(present - set(DIFFICULTIES)), "all"]
    rows = []

    def pooled(values: Sequence[Mapping[str, float]], level: str) -> Pooled:
        chosen = [
            {task: value for task, value in of.items() if level in ("all", run.difficulty[task]) and not math.isnan(value)}
            for of, run in zip(values, runs, strict=True)
        ]
        return pool(chosen, [run.problem for run in runs], level, count=bootstrap, confidence=confidence, seed=0)

    for column in table.columns:
        ours = _values(line, column, runs, sources[line.source])
        if ours is None:
            continue
        others: list[tuple[str, SeedLine, list[dict[str, float]]]] = []
        for other_name in line.versus:
            other = table.lines[place - 1] if other_name == ABOVE else named[other_name]
            theirs = _values(other, column, seeds[other.source], sources[other.source])
            if theirs is not None:
                others.append((other_name, other, theirs))
        for level in levels:
            value = pooled(ours, level)
            common = {
                **dict.fromkeys(COLUMNS, ""),
                "table": table.name,
                "line": line.name,
                "labels": json.dumps(line.labels, ensure_ascii=False),
                "metric": column,
                "difficulty": level,
                "value": percent(value.mean),
                "low": percent(value.low),
                "high": percent(value.high),
                "confidence": f"{confidence:g}",
                "per_seed": " ".join(map(percent, value.per_seed)),
                "n_problems": str(value.n_problems),
                "n_seeds": str(len(runs)),
                "seeds": " ".join(str(run.seed) for run in runs),
                "runs": " ".join(run.run for run in runs),
                "paper_metric": table.paper_columns.get(column, column) if column in line.paper else "",
                "paper": _paper(line, column, level),
            }
            if not others:
                rows.append(common)
            for other_name, other, theirs in others:
                difference = pooled(
                    [{task: x - b[task] for task, x in a.items() if task in b} for a, b in zip(ours, theirs, strict=True)], level
                )
                low, high = percent(difference.low), percent(difference.high)
                here, there = _paper(line, column, level), _paper(other, column, level)
                rows.append(
                    {
                        **common,
                        "versus": ABOVE if other_name == ABOVE else other.short or ", ".join(part for part in other.labels if part),
                        "difference": percent(difference.mean),
                        "difference_low": low,
                        "difference_high": high,
                        "contains_zero": contains_zero(low, high),
                        "difference_per_seed": " ".join(map(percent, difference.per_seed)),
                        "paper_difference": f"{float(here) - float(there):.2f}" if here and there else "",
                        "note": notes.get((other.source, other.cells[column]), ""),
                    }
                )
    return rows


def _paper(line: SeedLine, column: str, level: str) -> str:
    """The paper's cell, empty where it has none."""
    values = dict(zip(LEVELS, line.paper[column].split("/"), strict=True)) if column in line.paper else {}
    return values.get(level, "").replace("-", "")


def _critic_rows(seeds: Mapping[str, Sequence[ProblemValues]], tables: Sequence[Sequence[Row]]) -> list[Row]:
    """AUC within a problem of every seed's critic, with the mean; each seed has its own interval in its own table."""
    measured = {(row["run"], row["model"]): row for table in tables for row in table if row["metric"] == "auc_within_problem"}
    rows = []
    for source, model, label, goal in CRITIC_ROWS:
        found = [measured.get((each.run, model)) for each in seeds[source]]
        if any(row is None or not row["value"] for row in found):
            continue
        values = [float(row["value"]) for row in found if row is not None]
        rows.append(
            {
                **dict.fromkeys(COLUMNS, ""),
                "table": "goals",
                "line": f"{source} {model}",
                "labels": json.dumps([f"AUC within a problem, {label}", goal]),
                "metric": "auc_within_problem",
                "difficulty": "all",
                "value": f"{sum(values) / len(values):.2f}",
                "per_seed": " ".join(f"{value:.2f}" for value in values),
                "n_problems": max((row["n_problems"] for row in found if row is not None), key=lambda text: float(text or 0)),
                "n_seeds": str(len(values)),
                "seeds": " ".join(row["seed"] for row in found if row is not None),
                "runs": " ".join(row["run"] for row in found if row is not None),
            }
        )
    return rows


# --------------------------------------------------------------------------------------------------- the page


def read_seed_table(path: Path) -> list[Row]:
    """Rows of a CSV of write_seed_table; raises DataError as read_table does."""
    return read_table(path, COLUMNS, "coderl tables --over-seeds")


def as_markdown(rows: Sequence[Row], heading: str = "") -> str:
    """A table over seeds in the paper's layout, from the rows of its CSV; `heading` is the first line, with its number signs."""
    table = SEED_TABLES[rows[0]["table"]]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    levels = list(dict.fromkeys(row["difficulty"] for row in rows))
    lines = list(dict.fromkeys((row["line"], row["labels"]) for row in rows))
    versus = list(dict.fromkeys(row["versus"] for row in rows if row["versus"]))
    by = {(row["line"], row["metric"], row["difficulty"], row["versus"]): row for row in rows}
    cell = {(row["line"], row["metric"], row["difficulty"]): row for row in rows}
    papers = [metric for metric in metrics if any(row["paper"] for row in rows if row["metric"] == metric)]
    shared = [each for each in versus if len({line for line, _, _, other in by if other == each}) > 1]
    groups = [*shared, *(["other"] if len(shared) < len(versus) else [])]
    theirs = "; in parentheses the paper's" if any(row["paper_difference"] for row in rows) else ""
    first, problems = rows[0], next(row["n_problems"] for row in rows if row["difficulty"] == "all")
    head = [*table.labels, *metrics, *(f"minus {each}" if each != "other" else "difference" for each in groups)]
    head += [f"paper, {next(row['paper_metric'] for row in rows if row['metric'] == metric and row['paper'])}" for metric in papers]
    text = [heading, ""] if heading else []
    text += [
        f"Percent, {' / '.join(levels)}; mean over the seeds {first['seeds'].replace(' ', ', ')}, {problems} problems each. "
        "Differences over all "
        f"problems, in points, with paired {float(first['confidence']):.0%} intervals over seeds and problems, bold where they "
        f"exclude 0{theirs}.",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    for line, labels in lines:
        shown = [label or "-" for label in json.loads(labels)]
        for metric in metrics:
            shown.append(_slashed(cell, line, metric, levels, "value"))
        for group in groups:
            parts = []
            for each in [group] if group != "other" else [name for name in versus if name not in shared]:
                found = [(metric, by[line, metric, "all", each]) for metric in metrics if (line, metric, "all", each) in by]
                against = f" minus {each}" if group == "other" else ""
                parts += [f"{metric}{against} {_difference(row)}" for metric, row in found]
            shown.append("<br>".join(parts) or "-")
        for metric in papers:
            shown.append(_slashed(cell, line, metric, levels, "paper"))
        text.append("| " + " | ".join(shown) + " |")
    notes = dict.fromkeys(f"{', '.join(filter(None, json.loads(row['labels'])))}: {row['note']}" for row in rows if row["note"])
    unequal = ["", "Not at an equal budget, which favours critical sampling:", "", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join([*text, *(["", table.note] if table.note else []), *unequal, ""])


def _slashed(cell: Mapping[tuple[str, str, str], Row], line: str, metric: str, levels: Sequence[str], column: str) -> str:
    """The levels' numbers in one cell, as in the paper's own rows."""
    values = [cell[line, metric, level][column] if (line, metric, level) in cell else "" for level in levels]
    if not any(values):
        return "-"
    if not any(values[:-1]) and column == "value":  # the critics': of all problems only, so there is room for the seeds
        return f"{float(values[-1]):.1f} ({cell[line, metric, levels[-1]]['per_seed'].replace(' ', ' / ')})"
    return " / ".join((f"{float(value):.1f}" if column == "value" else value) if value else "-" for value in values)


def _difference(row: Row) -> str:
    if not row["difference"]:
        return "-"
    text = f"{float(row['difference']):+.1f} [{float(row['difference_low']):.1f}, {float(row['difference_high']):.1f}]"
    text = f"**{text}**" if row["contains_zero"] == "no" else text
    return text + (f" ({float(row['paper_difference']):+.2f})" if row["paper_difference"] else "")
