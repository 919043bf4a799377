"""The stage `report`: read a run's tables, logs and programs, write one HTML file that needs nothing else."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from coderl.config import ReportConfig
from coderl.evaluation import ProgramFiles, Programs, pass_at_k, read_programs, read_table, row_name
from coderl.evaluation.measurements import final_set
from coderl.evaluation.programs import PASSED
from coderl.evaluation.tables import DIFFERENCE_COLUMNS, Row
from coderl.problems import Problem, read_problems
from coderl.records import OUTCOMES, DataError, atomic_path
from coderl.report import charts, sections
from coderl.report.examples import choose_examples
from coderl.report.sections import plain_table, scroll, section, text

Lines = dict[str, tuple[Sequence[float], Sequence[float], str]]


def report(
    *,
    config: ReportConfig,
    run: str,
    table: Path,
    differences: Path,
    problems: Path,
    programs: Mapping[str, ProgramFiles],
    models: Mapping[str, Path],
    corpus_statistics: Path | None,
    provenance: Mapping[str, str],
    output: Path,
    batch: int | None = None,
) -> None:
    """Write the page of one run.

    Args:
        config: how many programs to show.
        run: name of the run.
        table: its apps_eval.csv.
        differences: its differences.csv.
        problems: the evaluated problem set.
        programs: files of every model, as for `evaluate`.
        models: model name -> folder with training_log.csv.
        corpus_statistics: what the corpus filters dropped; None when the run has no corpus.
        provenance: shown at the end, key by key; `commit` and `config_hash` also at the top.
        output: the HTML file.
        batch: N of critical sampling, for its final sets; None = all programs of a problem are one batch.

    Raises:
        DataError: a file that is missing or cannot be used.
        ConfigError: matplotlib is not installed.
    """
    rows = [row for row in read_table(table) if row["run"] == run]
    if not rows:
        raise DataError(f"{table}: no rows of run {run!r}; evaluate it with `coderl evaluate`")
    compared = read_table(differences, DIFFERENCE_COLUMNS)
    kept = {problem.task_id: problem for problem in read_problems(problems) if problem.hidden_tests is not None}
    tones = sections.colours([name for name in dict.fromkeys(row["model"] for row in rows) if name not in sections.GIVEN])
    parts = [
        ("results", "Results", _results(rows)),
        ("differences", "Differences", _differences(compared)),
        ("budget", "Equal budget", _budget(rows, compared)),
        ("curves", "pass@k", _curves(kept, programs, tones, batch)),
        ("outcomes", "Outcomes", _outcomes(rows)),
        ("difficulty", "Difficulty", _difficulty(rows, tones)),
        ("training", "Training", _training(models)),
        ("critic", "Critic", _critic(rows)),
        ("corpus", "Corpus", _corpus(corpus_statistics)),
        ("programs", "Programs", _programs(kept, programs, config.example_programs)),
    ]
    shown = [(anchor, title, content) for anchor, title, content in parts if content]
    page = _page(run, rows, tones, shown, provenance)
    with atomic_path(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _page(
    run: str, rows: Sequence[Row], tones: Mapping[str, str], parts: Sequence[tuple[str, str, str]], provenance: Mapping[str, str]
) -> str:
    first = rows[0]
    facts = {
        "benchmark": f"{first['benchmark']}/{first['problem_set']}",
        "problems": max(
            (row["n_problems"] for row in rows if row["difficulty"] == "all" and row["problem_set"] == first["problem_set"]), key=int
        ),
        "seed": first["seed"],
        "commit": first["commit"][:12],
        "config": first["config_hash"][:12],
    }
    style = files("coderl.report").joinpath("style.css").read_text(encoding="utf-8")
    items = "".join(f"<li>{name} <b>{text(value)}</b></li>" for name, value in facts.items() if value)
    links = "".join(f'<a href="#{anchor}">{text(title)}</a>' for anchor, title, _ in parts)
    details = plain_table(["", ""], [[key, str(value)] for key, value in sorted(provenance.items())], text_columns=2)
    body = "\n\n".join(content for _, _, content in parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>coderl: {text(run)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="eyebrow">CodeRL, one run</p>
<h1>{text(run)}</h1>
<ul class="facts">{items}</ul>
<nav>{links}</nav>
{sections.tiles(rows, tones)}
</header>
<main>
{body}
</main>
<footer>
<p>Numbers are percent unless they say otherwise. Intervals are percentile bootstrap intervals over problems; differences are paired.
Hidden tests decide what counts as correct; example tests are those printed in the statement.</p>
<details><summary>Provenance</summary>{details}</details>
</footer>
</body>
</html>
"""


def _results(rows: Sequence[Row]) -> str:
    lead = (
        "<b>pass@k</b>: chance that one of k sampled programs passes all hidden tests (unbiased estimate). "
        "<b>n@k</b>: of k programs only n are submitted, chosen among those that pass the example tests."
    )
    return section("results", "Results", lead, sections.results(rows))


def _differences(rows: Sequence[Row]) -> str:
    content = sections.differences(rows, budget=False, name="differences")
    return content and section(
        "differences", "Differences", "Same problems on both sides, so the spread between problems cancels.", content
    )


def _budget(rows: Sequence[Row], compared: Sequence[Row]) -> str:
    table = sections.budget_table(rows)
    lead = (
        "Critical sampling generates more programs than its first round. Beside it stand plain samples of the same policy that may "
        "spend as much, filtered by the same example tests: as many programs or tokens problem by problem, or as many tokens in all. "
        "<b>pass@budget</b> is the share of problems that any program of the pool solves."
    )
    return table and section("budget", "Equal budget", lead, table, sections.differences(compared, budget=True, name="budget"))


def _curves(kept: Mapping[str, Problem], programs: Mapping[str, ProgramFiles], tones: Mapping[str, str], batch: int | None) -> str:
    lines: dict[str, tuple[Sequence[float], Sequence[float], str, bool]] = {}
    for name, shards in programs.items():
        if name in ("reference", "empty"):
            continue
        found = read_programs(name, shards, list(kept.values()))
        critical = name.partition("/")[0] == "critical"
        mask = final_set(found, batch or len(found)) if critical else found.of_kind("sample")
        chosen = found.select(mask)
        model = row_name(name)
        label = f"{model}, final set" if critical else model
        lines[label] = (*_pass_curve(chosen), tones.get(model, charts.INK), critical)
    if not lines or max(len(xs) for xs, _, _, _ in lines.values()) < 2:
        return ""
    lead = (
        "Programs drawn per problem against the share of problems solved. The final set of critical sampling cost more than its k programs."
    )
    chart = charts.curves(lines, "pass@k over k", "curves", x="k, programs drawn", y="pass@k, percent")
    return section("curves", "pass@k", lead, scroll(chart))


def _pass_curve(programs: Programs) -> tuple[list[float], list[float]]:
    """pass@k in percent at about 40 values of k, up to the number of programs that every problem has."""
    n, c = programs.count(), programs.count(programs.hidden == PASSED)
    ks = sorted({int(k) for k in np.geomspace(1, max(int(n.min()), 1), 40).round()})
    return [float(k) for k in ks], [round(float(pass_at_k(n, c, k).mean()) * 100, 6) for k in ks]


def _outcomes(rows: Sequence[Row]) -> str:
    content = sections.outcome_shares(rows)
    lead = (
        "What became of the programs. The gap between passing the example tests and passing the hidden ones is what filtering cannot see."
    )
    return content and section("outcomes", "Outcomes", lead, content)


def _difficulty(rows: Sequence[Row], tones: Mapping[str, str]) -> str:
    content = sections.by_difficulty(rows, tones)
    return content and section("difficulty", "Difficulty", "pass@1 at each level, with its interval.", content)


def _training(models: Mapping[str, Path]) -> str:
    parts = []
    for number, (name, folder) in enumerate(models.items()):
        log = _read_log(folder / "training_log.csv")
        if len(log["step"]) < 2:
            continue
        chart = charts.panels(_panels(log), f"Training of {text(name)}", f"training{number}")
        parts.append(f"<h3>{text(name)}</h3>{scroll(chart)}")
    lead = "As logged, one point per logging interval. Shares and returns are those of the sampled programs in the batches."
    return section("training", "Training", lead, *parts) if parts else ""


def _read_log(path: Path) -> dict[str, list[float]]:
    """Columns of a training_log.csv, NaN for empty cells; raises DataError naming file and line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; train the model again, its folder holds the log")
    columns: dict[str, list[float]] = {}
    with open(path, encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if "step" not in (reader.fieldnames or []):
            raise DataError(f"{path}: column 'step' is missing; this is no training log")
        columns = {name: [] for name in reader.fieldnames or []}
        for number, row in enumerate(reader, 2):
            for name, values in columns.items():
                try:
                    values.append(float(row[name]) if row[name] else float("nan"))
                except (TypeError, ValueError):
                    raise DataError(f"{path}: line {number}: column {name!r} must be a number, found {row[name]!r}") from None
    return columns


def _panels(log: Mapping[str, Sequence[float]]) -> dict[str, Lines]:
    """Charts of one log: loss and its parts, outcome shares together, every other column for itself."""
    first = ["loss", *(name for name in log if name.startswith("loss_")), "learning_rate", "grad_norm"]
    order = [name for name in first if name in log] + [name for name in log if name not in [*first, "step", "epoch"]]
    plots: dict[str, Lines] = {}
    for name in order:
        if name.startswith("loss"):
            title, line = "loss", name
        elif name.startswith("share_"):
            title, line = "share of outcomes", name.removeprefix("share_")
        else:
            title, line = name.replace("_", " "), name
        lines = plots.setdefault(title, {})
        known = [(x, y) for x, y in zip(log["step"], log[name], strict=True) if np.isfinite(y)]
        if not known:
            continue
        colour = charts.OUTCOME_COLOURS[OUTCOMES.index(line)] if line in OUTCOMES else charts.SERIES[1 + len(lines) % 7]
        lines[line] = ([x for x, _ in known], [y for _, y in known], colour)
    return {title: lines for title, lines in plots.items() if lines}


def _critic(rows: Sequence[Row]) -> str:
    content = sections.critic(rows)
    lead = (
        "Can it tell right programs from wrong ones? <b>Within a problem</b> is what token values, ranking and seeds need; over all "
        "programs a critic also scores by knowing which problems are easy. The actor's own likelihood costs nothing. 50 is chance."
    )
    return content and section("critic", "Critic", lead, content)


def _corpus(path: Path | None) -> str:
    if path is None:
        return ""
    if not path.is_file():
        raise DataError(f"{path}: no such file; it is written by `coderl corpus`")
    with open(path, encoding="utf-8", newline="") as lines:
        table = list(csv.reader(lines))
    if len(table) < 2 or any(len(row) != len(table[0]) for row in table):
        raise DataError(f"{path}: expected a header and rows of the same length; make it again with `coderl corpus`")
    lead = "Files that entered each filter of the pretraining corpus, and how many it dropped."
    return section("corpus", "Corpus", lead, plain_table([name.replace("_", " ") for name in table[0]], table[1:], text_columns=2))


def _programs(kept: Mapping[str, Problem], programs: Mapping[str, ProgramFiles], count: int) -> str:
    examples = choose_examples(kept, programs, count)
    cards = [sections.program_card(example, is_open=number < 2) for number, example in enumerate(examples)]
    lead = "Drawn from the last stage, one per problem, so that every outcome is seen; not a representative sample."
    return section("programs", "Programs", lead, *cards) if cards else ""
