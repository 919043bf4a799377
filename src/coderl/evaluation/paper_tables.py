"""Verb `tables`: the paper's tables 1a to 5, and its MBPP table, in the paper's layout with one run of ours beside.

Each row of a table has two lines, the paper's numbers (spec 8.2 to 8.8) and ours; "not run" stands where nothing was run, which is
also where the paper quotes others. Ours are taken from the tidy tables of `coderl evaluate`, and only from the benchmark that the
paper's number is of. Small versions over several seeds, on another benchmark, are in `seed_tables`, which shares these rows.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from coderl.evaluation.paper import LEVELS
from coderl.evaluation.tables import Row, read_table
from coderl.records import DataError, atomic_path

NOT_RUN = "not run"
Key = tuple[str, str, str]
"""(model, decoding, metric) of a tidy table."""


@dataclass(frozen=True)
class Line:
    """One row of a table of the paper.

    `paper`: metric -> introductory/interview/competition/all, or one number; `ours`: metric -> where it is in the tidy tables; `other`:
    key of `evaluate.other_runs` that the row comes from, for models that are runs of their own.
    """

    labels: tuple[str, ...]
    paper: Mapping[str, str]
    ours: Mapping[str, Key] = field(default_factory=dict)
    other: str | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: `labels` name its first columns, `metrics` the groups of columns with numbers."""

    name: str
    title: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    benchmark: str = "apps"
    levels: tuple[str, ...] = LEVELS
    note: str = ""


def _at(model: str, decoding: str, *metrics: str) -> dict[str, Key]:
    return {metric: (model, decoding, metric) for metric in metrics}


def _numbers(metrics: Sequence[str], *values: str) -> dict[str, str]:
    return {metric: value for metric, value in zip(metrics, values, strict=True) if value != "-"}


_PASS_1A = ("pass@1", "pass@5", "pass@1000")
_ABLATION = ("pass@1", "pass@5")
_TABLE_4 = ("pass@200", "pass@1000", "1@1000")
_MBPP = ("pass@80", "pass@1000")
_BEAM = "The paper decodes by beam search here, we draw programs: compare rows of ours with one another, not with the paper's numbers."


def _critical(refine: str, repair: str, model: str, *values: str) -> Line:
    ours = {metric: (model, "filtered" if metric == "1@1000" else "final_set", metric) for metric in _TABLE_4}
    return Line((refine, repair), _numbers(_TABLE_4, *values), ours)


def _objective(name: str, model: str, *values: str) -> Line:
    return Line(("CodeT5", name), _numbers(_ABLATION, *values), _at(model, "all", *_ABLATION))


def _pretraining(size: str, data: str, task: str, other: str | None, *values: str) -> Line:
    return Line((size, data, task), _numbers(_ABLATION, *values), _at("warm_start", "all", *_ABLATION), other)


TABLES: tuple[PaperTable, ...] = (
    PaperTable(
        "1a",
        "APPS, pass@k (spec 8.2)",
        ("model", "size"),
        _PASS_1A,
        (
            Line(("Codex", "12B"), _numbers(_PASS_1A, "4.14/0.14/0.02/0.92", "9.65/0.51/0.09/2.25", "25.02/3.70/3.23/7.87")),
            Line(("AlphaCode", "1B"), _numbers(_PASS_1A, "-", "-", "17.67/5.24/7.06/8.09")),
            Line(("GPT3", "175B"), _numbers(_PASS_1A, "0.20/0.03/0.00/0.06", "-", "-")),
            Line(("GPT2", "0.1B"), _numbers(_PASS_1A, "1.00/0.33/0.00/0.40", "2.70/0.73/0.00/1.02", "-")),
            Line(("GPT2", "1.5B"), _numbers(_PASS_1A, "1.30/0.70/0.00/0.68", "3.60/1.03/0.00/1.34", "25.00/9.27/8.80/12.32")),
            Line(("GPT-Neo", "2.7B"), _numbers(_PASS_1A, "3.90/0.57/0.00/1.12", "5.50/0.80/0.00/1.58", "27.90/9.83/11.40/13.76")),
            Line(("GPT-J", "6B"), _numbers(_PASS_1A, "5.60/1.00/0.50/1.82", "9.20/1.73/1.00/3.08", "35.20/13.15/13.51/17.63")),
            Line(
                ("CodeRL+CodeT5", "770M"),
                _numbers(_PASS_1A, "7.08/1.86/0.75/2.69", "16.37/4.95/2.84/6.81", "40.00/15.67/17.90/20.98"),
                _at("critical_sampling", "final_set", *_PASS_1A),
            ),
        ),
        note="The last row is with critical sampling: its 1000 programs are what critical sampling returns, more were generated.",
    ),
    PaperTable(
        "1b",
        "APPS, n@k (spec 8.3)",
        ("model", "size", "k"),
        ("1@k", "5@k"),
        (
            Line(("Codex", "12B", "1000"), _numbers(("1@k", "5@k"), "22.78/2.64/3.04/6.75", "24.52/3.23/3.08/7.46")),
            Line(("AlphaCode", "1B", "1000"), _numbers(("1@k", "5@k"), "-", "14.36/5.63/4.58/7.17")),
            Line(("AlphaCode", "1B", "10000"), _numbers(("1@k", "5@k"), "-", "18.18/8.21/6.65/9.89")),
            Line(("AlphaCode", "1B", "50000"), _numbers(("1@k", "5@k"), "-", "20.36/9.66/7.75/11.42")),
            Line(
                ("CodeRL+CodeT5", "770M", "1000"),
                _numbers(("1@k", "5@k"), "17.17/6.78/4.88/8.48", "25.61/9.53/8.91/12.62"),
                {"1@k": ("critical_sampling", "filtered", "1@1000"), "5@k": ("critical_sampling", "filtered", "5@1000")},
            ),
        ),
    ),
    PaperTable(
        "2",
        "Return estimates, CodeT5-770M on APPS (spec 8.4)",
        ("id", "baseline", "values"),
        _ABLATION,
        (
            Line(
                ("A", "yes", "none"),
                _numbers(_ABLATION, "4.60/1.10/0.20/1.62", "7.10/1.57/0.40/2.44"),
                _at("rl_finetune/no_values", "all", *_ABLATION),
            ),
            Line(
                ("B", "no", "critic"),
                _numbers(_ABLATION, "4.00/0.87/0.20/1.36", "5.60/1.30/0.20/1.94"),
                _at("rl_finetune/no_baseline", "all", *_ABLATION),
            ),
            Line(
                ("C", "yes", "distance"),
                _numbers(_ABLATION, "4.90/1.03/0.20/1.64", "7.80/1.60/0.30/2.58"),
                _at("rl_finetune/distance", "all", *_ABLATION),
            ),
            Line(
                ("D", "yes", "critic"),
                _numbers(_ABLATION, "6.20/1.50/0.30/2.20", "9.39/1.90/0.42/3.10"),
                _at("rl_finetune/rl", "all", *_ABLATION),
            ),
        ),
        note=_BEAM,
    ),
    PaperTable(
        "3",
        "Learning objectives after the warm start, on APPS (spec 8.5)",
        ("model", "further training"),
        _ABLATION,
        (
            Line(("GPT-Neo", "none"), _numbers(_ABLATION, "3.90/0.57/0.00/1.12", "5.50/0.80/0.00/1.58")),
            Line(("GPT-Neo", "CE"), _numbers(_ABLATION, "2.70/0.90/0.10/1.10", "5.00/1.43/0.30/1.92")),
            Line(("GPT-Neo", "CE, samples as correct"), _numbers(_ABLATION, "2.90/0.80/0.30/1.12", "5.20/1.57/0.40/2.06")),
            Line(("GPT-Neo", "RL"), _numbers(_ABLATION, "3.30/0.80/0.20/1.18", "5.30/1.57/0.20/2.04")),
            Line(("GPT-Neo", "CE + RL"), _numbers(_ABLATION, "4.70/0.73/0.30/1.44", "6.58/1.54/0.18/2.28")),
            _objective("none", "warm_start", "6.60/1.03/0.30/2.00", "8.80/1.67/0.70/2.90"),
            _objective("CE", "rl_finetune/ce", "4.60/0.93/0.10/1.50", "7.00/1.37/0.20/2.26"),
            _objective("CE, samples as correct", "rl_finetune/ce_on_samples", "5.10/1.10/0.40/1.76", "8.30/1.43/0.70/2.66"),
            _objective("RL", "rl_finetune/rl_only", "5.00/0.90/0.50/1.64", "7.60/1.53/0.60/2.56"),
            _objective("CE + RL", "rl_finetune/rl", "6.20/1.50/0.30/2.20", "9.39/1.90/0.42/3.10"),
        ),
        note=_BEAM,
    ),
    PaperTable(
        "4",
        "Critical sampling, CodeRL+CodeT5 on APPS (spec 8.6)",
        ("refine", "repair"),
        _TABLE_4,
        (
            Line(
                ("no", "no"),
                _numbers(_TABLE_4, "26.79/8.73/7.60/12.12", "35.30/13.33/13.60/17.78", "16.27/6.00/4.27/7.71"),
                {metric: ("rl_finetune/rl", "filtered" if metric == "1@1000" else "all", metric) for metric in _TABLE_4},
            ),
            _critical("yes", "no", "critical_sampling/refine", "29.10/9.67/9.50/13.52", "38.10/14.33/15.70/19.36", "16.52/6.16/4.15/7.83"),
            _critical("yes", "M=1", "critical_sampling", "29.80/10.43/10.80/14.38", "40.00/15.67/17.90/20.98", "17.17/6.78/4.88/8.48"),
            _critical("yes", "M=2", "critical_sampling/m2", "30.20/10.20/11.50/14.46", "39.90/15.57/18.00/20.92", "16.96/6.82/4.90/8.47"),
            _critical("yes", "M=4", "critical_sampling/m4", "29.50/10.60/10.80/14.42", "39.40/15.37/17.60/20.62", "16.99/6.63/4.78/8.33"),
        ),
        note="pass@k of critical sampling is of the programs it returns; what it generated for them is in programs_per_problem.",
    ),
    PaperTable(
        "5",
        "Pretraining, cross entropy only, on APPS (spec 8.7)",
        ("size", "data", "task"),
        _ABLATION,
        (
            _pretraining("60M", "CSN", "MSP", "codet5_small", "1.40/0.67/0.00/0.68", "2.60/0.87/0.10/1.06"),
            _pretraining("220M", "CSN", "MSP", "codet5_base", "2.50/0.73/0.00/0.94", "3.30/1.10/0.10/1.34"),
            _pretraining("770M", "CSN", "MSP", "codet5_large", "3.60/0.90/0.20/1.30", "4.30/1.37/0.20/1.72"),
            _pretraining("770M", "CSN+GCPY", "MSP", "codet5_large_gcpy", "4.30/1.10/0.20/1.56", "5.60/1.47/0.30/2.06"),
            _pretraining("770M", "CSN+GCPY", "MSP, NTP", None, "6.60/1.03/0.30/2.00", "8.80/1.67/0.70/2.90"),
        ),
        note=_BEAM,
    ),
    PaperTable(
        "_mbpp",
        "MBPP (spec 8.8)",
        ("model", "size"),
        _MBPP,
        (
            *(
                Line(("GPT fine-tuned", size), {"pass@80": value})
                for size, value in zip(
                    ("224M", "422M", "1B", "4B", "8B", "68B", "137B"), ("7.2", "12.6", "22.4", "33.0", "40.6", "53.6", "61.4"), strict=True
                )
            ),
            Line(("CodeT5 fine-tuned, CSN MSP", "60M"), _numbers(_MBPP, "19.2", "36.2")),
            Line(("CodeT5 fine-tuned, CSN MSP", "220M"), _numbers(_MBPP, "24.0", "42.8")),
            Line(("CodeT5 fine-tuned, CSN MSP", "770M"), _numbers(_MBPP, "32.4", "47.8")),
            Line(("CodeT5 fine-tuned, +GCPY MSP", "770M"), _numbers(_MBPP, "34.6", "51.6")),
            Line(
                ("CodeT5 fine-tuned, +GCPY +NTP", "770M"),
                _numbers(_MBPP, "46.8", "66.2"),
                _at("warm_start", "all", *_MBPP),
                "mbpp_finetuned",
            ),
            Line(("CodeT5 (APPS), zero-shot", "770M"), _numbers(_MBPP, "60.2", "78.4"), _at("warm_start", "all", *_MBPP)),
            Line(("CodeRL+CodeT5, zero-shot", "770M"), _numbers(_MBPP, "63.0", "81.8"), _at("rl_finetune/rl", "all", *_MBPP)),
        ),
        benchmark="mbpp",
        levels=("all",),
    ),
)


def write_paper_table(*, name: str, tables: Sequence[Path], others: Mapping[str, Path], output: Path, page: Path) -> None:
    """Write one table as CSV and as Markdown.

    Args:
        name: `table1a`, ...: "table" and a name of TABLES.
        tables: tidy tables of the run; of a number that several have, the first one's is taken.
        others: key of `evaluate.other_runs` -> tidy table of another run.
        output: CSV.
        page: Markdown.

    Raises:
        DataError: an unknown table, a table that cannot be read, or an unknown key.
    """
    names = [f"table{table.name}" for table in TABLES]
    if name not in names:
        raise DataError(f"--table: the paper has no {name!r}; there are {', '.join(names)}")
    table = TABLES[names.index(name)]
    known = {line.other for each in TABLES for line in each.lines if line.other}
    for key in others:
        if key not in known:
            raise DataError(f"--others: no row of the paper's tables comes from {key!r}; there are {', '.join(sorted(known))}")
    own = [row for path in tables for row in read_table(path)]
    foreign = {key: read_table(path) for key, path in others.items()}
    benchmarks = sorted({row["benchmark"] for row in own if row["problem_set"] != "critic_validation"})
    runs = list(dict.fromkeys(row["run"] for row in own))
    lines = [_cells(table, line, own if line.other is None else foreign.get(line.other, [])) for line in table.lines]
    columns = [*table.labels, "whose", *(_column(metric, level, table) for metric in table.metrics for level in table.levels)]
    _write(output, _as_csv(columns, lines))
    note = table.note
    if table.benchmark not in benchmarks:
        note = f"This run has no {table.benchmark}: it was evaluated on {', '.join(benchmarks) or 'nothing'}. {note}".strip()
    _write(page, _as_markdown(table, columns, lines, ", ".join(runs), note))


def _column(metric: str, level: str, table: PaperTable) -> str:
    return metric if len(table.levels) == 1 else f"{metric} {level}"


def _cells(table: PaperTable, line: Line, rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """(the paper's cells, ours), labels first."""
    paper = [*line.labels, "paper"]
    ours = [*line.labels, "ours"]
    for metric in table.metrics:
        values = line.paper[metric].split("/") if metric in line.paper else ["-"] * len(table.levels)
        paper += values
        for level in table.levels:
            key = line.ours.get(metric)
            found = [
                row["value"]
                for row in rows
                if key is not None
                and (row["model"], row["decoding"], row["metric"]) == key
                and row["difficulty"] == level
                and row["benchmark"] == table.benchmark
                and row["value"]
            ]
            ours.append(found[0] if found else NOT_RUN)
    return paper, ours


def _as_csv(columns: Sequence[str], lines: Sequence[tuple[list[str], list[str]]]) -> str:
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for pair in lines:
        writer.writerows(pair)
    return out.getvalue()


def _as_markdown(table: PaperTable, columns: Sequence[str], lines: Sequence[tuple[list[str], list[str]]], runs: str, note: str) -> str:
    """One column per metric, levels separated by slashes as in the paper's own rows."""
    labels, width = len(table.labels) + 1, len(table.levels)
    levels = "" if width == 1 else f", {' / '.join(table.levels)}"
    text = [f"# {table.title}", "", f"Percent{levels}. Ours: {runs}.", "", "| " + " | ".join([*columns[:labels], *table.metrics]) + " |"]
    text.append("|---" * (labels + len(table.metrics)) + "|")
    for pair in lines:
        for cells in pair:
            groups = [cells[start : start + width] for start in range(labels, len(cells), width)]
            shown = [group[0] if len(set(group)) == 1 and group[0] in ("-", NOT_RUN) else " / ".join(group) for group in groups]
            text.append("| " + " | ".join([*cells[:labels], *shown]) + " |")
    return "\n".join([*text, *(["", note] if note else []), ""])


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
