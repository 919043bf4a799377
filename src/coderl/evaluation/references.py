"""Verb `problems-report`: what is in problem files, and how many reference solutions pass their own tests, by running them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from coderl.config import DIFFICULTIES, RunTestsConfig
from coderl.evaluation.tables import Row, write_table
from coderl.problems import Problem, read_problems
from coderl.records import OutcomeRow, Sample
from coderl.sandbox.stage import judge_samples

LOG = logging.getLogger(__name__)

COLUMNS: tuple[str, ...] = (
    "benchmark",
    "split",
    "difficulty",
    "problems",
    "without_hidden_tests",
    "hidden_tests",
    "without_example_tests",
    "example_tests",
    "without_solutions",
    "solutions",
    "solutions_judged",
    "solutions_passed_hidden",
    "solutions_passed_example",
    "problems_solved",
)
SUITES: tuple[Literal["hidden", "example"], ...] = ("hidden", "example")
FAILURE_COLUMNS: tuple[str, ...] = ("task_id", "solution", "suite", "outcome", "error_class", "error_message", "first_failed_test")


def report_problems(
    *, problems: Sequence[Path], config: RunTestsConfig, output: Path, failures: Path | None, solutions_per_problem: int | None
) -> None:
    """Write one row per benchmark, split and level (and `all`), with the outcomes of the reference solutions.

    Args:
        problems: problem files.
        config: limits and checker of the sandbox.
        output: CSV with COLUMNS. `solutions_passed_*` count solutions that pass all tests of the suite, of those that were judged on the
            hidden tests (`solutions_judged`); `problems_solved` are problems whose judged solutions pass the hidden tests at least once.
        failures: CSV to write, one row per solution and suite that is not passed.
        solutions_per_problem: judge only the first of each problem's; null = all.

    Raises:
        DataError: a problem file that cannot be read.
        InfrastructureError: the judge itself failed.
    """
    rows: list[Row] = []
    failed: list[Row] = []
    for path in problems:
        table = read_problems(path)
        samples = [
            Sample(problem.task_id, number, text, kind="reference")
            for problem in table
            for number, text in enumerate(problem.solutions[:solutions_per_problem])
        ]
        outcomes: dict[str, dict[tuple[str, int], OutcomeRow]] = {}
        for suite in SUITES:
            with_tests = {problem.task_id for problem in table if problem.tests(suite) is not None}
            judged = [sample for sample in samples if sample.task_id in with_tests]
            found = judge_samples(table, judged, config, suite) if judged else []
            outcomes[suite] = {(row.task_id, row.sample_id): row for row in found}
            failed += [_failure(row) for row in found if row.outcome != "passed_test"]
        for benchmark, split in dict.fromkeys((problem.benchmark, problem.split) for problem in table):
            members = [problem for problem in table if (problem.benchmark, problem.split) == (benchmark, split)]
            for level in [*DIFFICULTIES, "all"]:
                chosen = [problem for problem in members if level in (problem.difficulty, "all")]
                if chosen:
                    rows.append({"benchmark": benchmark, "split": split, "difficulty": level, **_counts(chosen, outcomes)})
    write_table(output, COLUMNS, rows)
    if failures is not None:
        write_table(failures, FAILURE_COLUMNS, failed)
    for row in rows:
        if row["difficulty"] == "all":
            LOG.info("%s", ", ".join(f"{name} {row[name]}" for name in COLUMNS if row[name]))


def _counts(problems: Sequence[Problem], outcomes: dict[str, dict[tuple[str, int], OutcomeRow]]) -> Row:
    names = {problem.task_id for problem in problems}
    judged = {suite: [row for (task, _), row in found.items() if task in names] for suite, found in outcomes.items()}
    passed = {suite: [row for row in found if row.outcome == "passed_test"] for suite, found in judged.items()}
    numbers = {
        "problems": len(problems),
        "without_hidden_tests": sum(problem.hidden_tests is None for problem in problems),
        "hidden_tests": sum(len(problem.hidden_tests or ()) for problem in problems),
        "without_example_tests": sum(problem.example_tests is None for problem in problems),
        "example_tests": sum(len(problem.example_tests or ()) for problem in problems),
        "without_solutions": sum(not problem.solutions for problem in problems),
        "solutions": sum(len(problem.solutions) for problem in problems),
        "solutions_judged": len(judged["hidden"]),
        "solutions_passed_hidden": len(passed["hidden"]),
        "solutions_passed_example": len(passed["example"]),
        "problems_solved": len({row.task_id for row in passed["hidden"]}),
    }
    return {name: str(number) for name, number in numbers.items()}


def _failure(row: OutcomeRow) -> Row:
    return {
        "task_id": row.task_id,
        "solution": str(row.sample_id),
        "suite": row.suite,
        "outcome": row.outcome,
        "error_class": row.error_class or "",
        "error_message": (row.error_message or "").replace("\n", " "),
        "first_failed_test": "" if row.first_failed_test is None else str(row.first_failed_test),
    }
