"""Programs joined with what the sandbox found: what critic and repair model learn from.

Programs come in the order of the problems and of their ids, whatever the shards they were read from, so that nothing that is
trained on them depends on the number of shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coderl.problems import Problem
from coderl.records import DataError, OutcomeRow, Sample, read_outcomes, read_samples


@dataclass(frozen=True)
class JudgedProgram:
    """One program with its outcome on the hidden tests; `sample` is None for a reference solution."""

    task_id: str
    text: str
    outcome: OutcomeRow
    sample: Sample | None

    @property
    def passed(self) -> bool:
        """Every hidden test passed."""
        return self.outcome.outcome == "passed_test"


def _hidden_outcomes(paths: Sequence[Path]) -> dict[tuple[str, int], OutcomeRow]:
    """Outcomes by (task_id, sample_id); raises DataError if one is of the example tests."""
    rows = read_outcomes(list(paths))
    for row in rows.values():
        if row.suite != "hidden":
            names = ", ".join(str(path) for path in paths)
            raise DataError(
                f"{names}: outcome of {row.task_id!r}, sample {row.sample_id} is of the {row.suite} tests; give those of the hidden tests"
            )
    return rows


def judged_samples(problems: Sequence[Problem], samples: Sequence[Path], outcomes: Sequence[Path]) -> list[JudgedProgram]:
    """Sampled programs with their hidden outcome, in the order of (problem, sample_id).

    Samples of problems without hidden tests cannot be judged and are left out.

    Raises:
        DataError: a sample of an unknown problem, a sample without its outcome, or outcomes of the example tests.
    """
    order = {problem.task_id: i for i, problem in enumerate(problems)}
    rows = _hidden_outcomes(outcomes)
    judged = []
    for sample in sorted(read_samples(list(samples)), key=lambda s: (order.get(s.task_id, -1), s.sample_id)):
        if sample.task_id not in order:
            raise DataError(
                f"{samples[0]}: task_id {sample.task_id!r} is not among the problems; samples and problems must be of the same set"
            )
        row = rows.get((sample.task_id, sample.sample_id))
        if row is not None:
            judged.append(JudgedProgram(sample.task_id, sample.solution, row, sample))
        elif problems[order[sample.task_id]].hidden_tests is not None:
            raise DataError(
                f"{samples[0]}: no outcome for {sample.task_id!r}, sample {sample.sample_id}; run `coderl run-tests` on these samples"
            )
    return judged


def judged_references(problems: Sequence[Problem], outcomes: Sequence[Path]) -> list[JudgedProgram]:
    """Reference solutions with their outcome: a ground truth may fail its own tests (spec 4.6, 13), so it too is executed.

    Outcome (task_id, i) is that of `solutions[i]`. Solutions of problems without hidden tests are left out.

    Raises:
        DataError: a solution without its outcome, an outcome without its solution, or outcomes of the example tests.
    """
    rows = _hidden_outcomes(outcomes)
    judged = []
    for problem in problems:
        for i, text in enumerate(problem.solutions):
            row = rows.pop((problem.task_id, i), None)
            if row is not None:
                judged.append(JudgedProgram(problem.task_id, text, row, None))
            elif problem.hidden_tests is not None:
                raise DataError(
                    f"no outcome for reference solution {i} of {problem.task_id!r}; run `coderl run-tests` on the reference solutions"
                )
    if rows:
        task_id, i = next(iter(rows))
        raise DataError(
            f"{outcomes[0]}: outcome {i} of {task_id!r} has no reference solution; were the problems made again? Run `coderl run-tests`"
        )
    return judged


def distinct_programs(programs: Iterable[JudgedProgram]) -> list[JudgedProgram]:
    """The first of programs with equal text, problem by problem: a sampler repeats itself most where it is surest."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for program in programs:
        if (program.task_id, program.text) not in seen:
            seen.add((program.task_id, program.text))
            kept.append(program)
    return kept
