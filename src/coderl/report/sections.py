"""Sections of the page: rows of the table in, HTML out. Every text from a file is escaped; model output is untrusted."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

from coderl.evaluation.paper import LEVELS, paper_values
from coderl.evaluation.show import (
    BUDGET_LABELS,
    budget_comparison,
    budgets_once,
    is_at_budget,
    is_budget,
    is_main,
    same_submission,
)
from coderl.evaluation.tables import Row
from coderl.records import OUTCOMES
from coderl.report import charts
from coderl.report.charts import Interval
from coderl.report.examples import Example

OUTCOME_LABELS: dict[str, str] = dict(zip(OUTCOMES, ("compile error", "runtime error", "failed test", "passed all tests"), strict=True))
GIVEN = ("reference_solutions", "empty_program")
ROW_HINTS: dict[str, str] = {
    "reference_solutions": "oracle",
    "empty_program": "floor",
    "warm_start": "cross entropy only",
    "critical_sampling": "filter, refine, repair",
}


def text(value: str) -> str:
    """Escaped for HTML, quotes too."""
    return html.escape(value, quote=True)


def colours(models: Sequence[str]) -> dict[str, str]:
    """One colour per model for the whole page; warm start is grey, what is compared with it is not."""
    fixed = {"warm_start": charts.SERIES[0], "critical_sampling": charts.SERIES[2]}
    rest = [colour for colour in charts.SERIES if colour not in fixed.values()]
    others = [model for model in models if model not in fixed]
    return fixed | {model: rest[number % len(rest)] for number, model in enumerate(others)}


def section(anchor: str, title: str, lead: str, *parts: str) -> str:
    """A headed section; `lead` is HTML."""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{anchor}">\n<h2>{text(title)}</h2>\n<p>{lead}</p>\n{body}\n</section>'


def scroll(content: str) -> str:
    """A box that scrolls sideways where the screen is small."""
    return f'<div class="scroll">{content}</div>'


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> str:
    """A table of strings, all escaped; the first `text_columns` are left-aligned."""
    kind = ['class="text"' if number < text_columns else "" for number in range(len(header))]
    head = "".join(f"<th {kind[n]}>{text(cell)}</th>" for n, cell in enumerate(header))
    body = "".join("<tr>" + "".join(f"<td {kind[n]}>{text(cell)}</td>" for n, cell in enumerate(row)) + "</tr>\n" for row in rows)
    return scroll(f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>")


def _cell(row: Row | None) -> str:
    if row is None:
        return "<td></td>"
    if not row["value"]:
        return f'<td title="{text(row["note"])}">–</td>'
    interval = f'<span class="interval">{float(row["low"]):.1f} to {float(row["high"]):.1f}</span>' if row["low"] and row["high"] else ""
    paper = f'<span class="paper" title="{text(row["paper_source"])}">paper {float(row["paper"]):.2f}</span>' if row["paper"] else ""
    return f"<td>{float(row['value']):.1f}{interval}{paper}</td>"


def pivot(rows: Sequence[Row], label: Callable[[Row], str], *, cost: bool = False) -> str:
    """Rows by label, columns by metric; value with interval, and the paper's value where there is one."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    head = "".join(f"<th>{text(name)}</th>" for name in [*metrics, *(["programs", "tokens"] if cost else [])])
    body = []
    for name in dict.fromkeys(label(row) for row in rows):
        mine = {row["metric"]: row for row in rows if label(row) == name}
        some = next(iter(mine.values()))
        hint = f' <span class="small">{ROW_HINTS[name]}</span>' if name in ROW_HINTS else ""
        spent = "".join(f"<td>{text(some[key])}</td>" for key in ("programs_per_problem", "tokens_per_problem")) if cost else ""
        given = ' class="given"' if some["model"] in GIVEN else ""
        body.append(
            f'<tr{given}><th class="text">{text(name)}{hint}</th>'
            + "".join(_cell(mine.get(metric)) for metric in metrics)
            + spent
            + "</tr>"
        )
    return scroll(f'<table>\n<thead><tr><th class="text"></th>{head}</tr></thead>\n<tbody>\n' + "\n".join(body) + "\n</tbody></table>")


def main_rows(rows: Sequence[Row], difficulty: str) -> list[Row]:
    """Rows of the main table: pass@k and n@k at one difficulty, without greedy and budget rows, submission by chance."""
    return [r for r in rows if r["difficulty"] == difficulty and is_main(r)]


def tiles(rows: Sequence[Row], tones: Mapping[str, str]) -> str:
    """pass@1 of every model that wrote programs, large."""
    found = [row for row in main_rows(rows, "all") if row["metric"] == "pass@1" and row["model"] not in GIVEN and row["value"]]
    parts = []
    for row in found:
        interval = f"{float(row['low']):.1f} to {float(row['high']):.1f}" if row["low"] and row["high"] else ""
        parts.append(
            f'<div class="tile" style="--tone: var({charts.css_variable(tones[row["model"]])})"><div>{text(row["model"])}</div>'
            f'<div class="number">{float(row["value"]):.1f}<small> % pass@1</small></div><div class="small">{interval}</div></div>'
        )
    return f'<div class="tiles">{"".join(parts)}</div>' if parts else ""


def results(rows: Sequence[Row]) -> str:
    """The main table at all difficulties, and one level at a time below."""
    present = list(dict.fromkeys(row["difficulty"] for row in rows))
    by_level = "".join(f"<h3>{text(level)}</h3>{pivot(main_rows(rows, level), _model)}" for level in present if level != "all")
    notes = dict.fromkeys(
        f"{row['model']}, {row['decoding'].replace('_', ' ')}: {row['note']}." for row in main_rows(rows, "all") if row["note"]
    )
    filled = [r for r in main_rows(rows, "all") if r["n_filled"] not in ("", "0")]
    if filled:
        most = max(filled, key=lambda row: int(row["n_filled"]))
        notes[
            f"Where fewer than n programs pass the example tests, n@k fills the places left at random: at most on "
            f"{most['n_filled']} of {most['n_problems']} problems ({most['model']}, {most['metric']})."
        ] = None
    return "\n".join(
        [
            pivot(main_rows(rows, "all"), _model),
            "".join(f'<p class="small">{text(note)}</p>' for note in notes),
            f"<details><summary>The same by difficulty</summary>{by_level}</details>" if by_level else "",
            "" if any(row["paper"] for row in rows) else _paper_table(),
        ]
    )


def _model(row: Row) -> str:
    return row["model"]


def _paper_table() -> str:
    """The paper's values, folded away: they are of other benchmarks than this run's."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for value in paper_values():
        if "@" in value.metric:
            rows.setdefault((value.benchmark, value.model, value.metric, value.source), []).append(f"{value.value:.2f}")
    body = [[*key[:3], *["" for _ in range(len(LEVELS) - len(values))], *values, key[3]] for key, values in rows.items()]
    table = plain_table(["benchmark", "row", "metric", *LEVELS, "source"], body, text_columns=3)
    return f"<details><summary>The paper's numbers, for other benchmarks than this run's (CodeT5 770M, percent)</summary>{table}</details>"


def difference_label(row: Row, labels: Mapping[str, str] = BUDGET_LABELS) -> str:
    """What is compared, short."""
    return budget_comparison(row, " − ", labels=labels) if is_budget(row) else row["comparison"].replace(" - ", " − ")


def differences(rows: Sequence[Row], *, budget: bool, name: str) -> str:
    """Forest plot and table of the differences over all problems."""
    chosen = [r for r in rows if r["difficulty"] == "all" and (is_budget(r) and same_submission(r) if budget else is_main(r))]
    chosen, labels = budgets_once(chosen, "baseline_decoding")
    if not chosen:
        return ""
    order = list(dict.fromkeys(difference_label(row, labels) for row in chosen))
    tones = [colour for colour in charts.SERIES if colour != charts.SERIES[0]]
    groups: dict[str, list[Interval]] = {title: [] for title in order}
    for row in chosen:
        title = difference_label(row, labels)
        tone = tones[order.index(title) % len(tones)]
        groups[title].append(_interval(row, row["metric"], "difference", tone, hollow=row["contains_zero"] == "yes"))
    unclear = sum(row["contains_zero"] == "yes" for row in chosen)
    verdict = (
        "<p>No interval contains zero.</p>"
        if not unclear
        else f"<p><b>{unclear} of {len(chosen)}</b> intervals contain zero (hollow dots): no difference is shown there.</p>"
    )
    lines = "".join(
        f'<tr{" class=same" if row["contains_zero"] == "yes" else ""}><td class="text">{text(difference_label(row, labels))}</td>'
        f'<td class="text">{text(row["metric"])}</td><td>{float(row["difference"]):+.1f}</td>'
        f"<td>{_signed(row['low'])} to {_signed(row['high'])}</td>"
        f'<td class="text">{"contains zero" if row["contains_zero"] == "yes" else ""}</td></tr>\n'
        for row in chosen
    )
    head = '<th class="text">comparison</th><th class="text">metric</th><th>points</th><th>interval</th><th class="text"></th>'
    table = scroll(f"<table><thead><tr>{head}</tr></thead><tbody>\n{lines}</tbody></table>")
    plot = scroll(charts.forest(groups, "Differences with intervals", name))
    return f"{plot}\n{verdict}\n<details><summary>As a table</summary>{table}</details>"


def _interval(row: Row, label: str, column: str, tone: str, *, hollow: bool = False) -> Interval:
    low, high = (float(row[key]) if row[key] else None for key in ("low", "high"))
    return Interval(label, float(row[column]), low, high, tone, hollow)


def _signed(number: str) -> str:
    return f"{float(number):+.1f}" if number else ""


def budget_table(rows: Sequence[Row]) -> str:
    """Critical sampling and plain samples of its policy, with what each spent per problem."""
    chosen, labels = budgets_once([r for r in rows if r["difficulty"] == "all" and is_at_budget(r)], "decoding")
    if not any(row["model"] == "critical_sampling" for row in chosen):
        return ""
    notes = dict.fromkeys(f"{labels[row['decoding']]}: {row['note']}." for row in chosen if row["note"])
    table = pivot(chosen, lambda row: labels[row["decoding"]], cost=True)
    return table + "".join(f'<p class="small">{text(note)}</p>' for note in notes)


def outcome_shares(rows: Sequence[Row]) -> str:
    """Stacked bars of the outcomes on hidden and on example tests."""
    groups: dict[str, dict[str, list[float]]] = {}
    for suite in ("hidden", "example"):
        bars: dict[str, dict[str, float]] = {}
        for row in rows:
            if row["difficulty"] == "all" and row["decoding"] in ("all", "final_set") and row["value"]:
                for outcome in OUTCOMES:
                    if row["metric"] == f"{suite}_{outcome}":
                        bars.setdefault(row["model"], {})[outcome] = float(row["value"])
        whole = {
            model: [shares[o] for o in OUTCOMES] for model, shares in bars.items() if len(shares) == len(OUTCOMES) and model not in GIVEN
        }
        if whole:
            groups[f"{suite} tests"] = whole
    if not groups:
        return ""
    return scroll(charts.stacked(groups, list(OUTCOME_LABELS.values()), "Outcome shares of every model", "outcomes"))


def by_difficulty(rows: Sequence[Row], tones: Mapping[str, str]) -> str:
    """pass@1 of every model at every level."""
    present = [level for level in dict.fromkeys(row["difficulty"] for row in rows) if level != "all"]
    bars: dict[str, list[Interval]] = {}
    for level in present:
        for row in main_rows(rows, level):
            if row["metric"] == "pass@1" and row["model"] not in GIVEN and row["value"]:
                bars.setdefault(row["model"], []).append(_interval(row, row["model"], "value", tones[row["model"]]))
    bars = {model: values for model, values in bars.items() if len(values) == len(present)}
    if not bars or len(present) < 2:
        return ""
    return scroll(charts.levels(bars, present, "pass@1 by difficulty", "difficulty", y="pass@1, percent"))


def critic(rows: Sequence[Row]) -> str:
    """AUC of the critic beside the actor's likelihood, and every other metric of the critic."""
    mine = [row for row in rows if row["decoding"] == "validation" and row["value"]]
    if not mine:
        return ""
    groups: dict[str, list[Interval]] = {}
    for metric, title in (("auc_within_problem", "within a problem"), ("auc", "over all programs")):
        for row in mine:
            if row["metric"] == metric:
                chance = bool(row["low"] and row["high"]) and float(row["low"]) <= 50 <= float(row["high"])
                tone = charts.SERIES[4] if row["model"] == "critic" else charts.SERIES[0]
                groups.setdefault(title, []).append(_interval(row, row["model"], "value", tone, hollow=chance))
    plot = scroll(charts.forest(groups, "AUC of critic and likelihood", "critic", reference=50, unit="AUC, percent")) if groups else ""
    table = plain_table(
        ["model", "metric", "percent", "low", "high", "problems"],
        [[row["model"], row["metric"], row["value"], row["low"], row["high"], row["n_problems"]] for row in mine],
        text_columns=2,
    )
    return f"{plot}\n<details><summary>All metrics of the critic</summary>{table}</details>"


def program_card(example: Example, *, is_open: bool) -> str:
    """One program with statement, outcomes and error."""
    hidden, sample = example.hidden, example.sample
    origin = {"sample": "sampled", "greedy": "greedy", "refine": "refined", "repair": "repaired", "resample": "sampled later"}.get(
        sample.kind, sample.kind
    )
    suites = [("hidden tests", hidden), *([("example tests", example.example)] if example.example else [])]
    badges = " ".join(
        f'<span class="badge {text(row.outcome)}">{suite}: {OUTCOME_LABELS[row.outcome]} ({row.n_passed}/{row.n_tests})</span>'
        for suite, row in suites
    )
    where = f", line {hidden.error_line}" if hidden.error_line is not None else ""
    error = " — ".join(part for part in (hidden.error_class, hidden.error_message) if part)
    trouble = f"<h3>Error{where}</h3><pre>{text(error)}</pre>" if error else ""
    return (
        f'<details class="program"{" open" if is_open else ""}><summary><b>{text(example.problem.task_id)}</b> '
        f'<span class="small">{text(example.problem.difficulty)}, {text(example.model)}, {text(origin)}</span> {badges}</summary>\n'
        f'<div class="pair"><div><h3>Statement</h3><pre>{text(example.problem.question.strip())}</pre></div>\n'
        f"<div><h3>Program</h3><pre>{text(sample.solution.strip())}</pre>{trouble}</div></div></details>"
    )
