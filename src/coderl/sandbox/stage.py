"""Stage run_tests: the outcome of every program on the hidden or the example tests of its problem."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from coderl.config import RunTestsConfig
from coderl.problems import Problem, read_problems
from coderl.records import DataError, OutcomeRow, Sample, read_rows, read_samples, write_outcomes
from coderl.sandbox.judge import judge_many
from coderl.sandbox.outcome import Job, Limits, Outcome

LOG = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30.0
"""In a log, where no bar is drawn."""

Suite = Literal["hidden", "example"]


def limits_of(config: RunTestsConfig) -> Limits:
    """The sandbox's limits as configured."""
    return Limits(
        cpu_seconds=config.cpu_seconds,
        memory_mb=config.memory_mb,
        max_processes=config.max_processes,
        max_output_mb=config.max_output_mb,
        max_file_mb=config.max_file_mb,
    )


def judge_samples(problems: Sequence[Problem], samples: Sequence[Sample], config: RunTestsConfig, suite: Suite) -> list[OutcomeRow]:
    """Outcomes of `samples` in their order; a program that a problem has twice is judged once.

    Samples of problems that lack the suite are skipped, and their number is logged.

    Raises:
        DataError: a sample of an unknown problem, or not one sample could be judged (zero tests are never a result).
        InfrastructureError: the judge itself failed.
    """
    by_id = {problem.task_id: problem for problem in problems}
    jobs: dict[tuple[str, str], Job] = {}
    kept: list[Sample] = []
    for sample in samples:
        problem = by_id.get(sample.task_id)
        if problem is None:
            raise DataError(f"sample {sample.sample_id} has the unknown task_id {sample.task_id!r}")
        tests = problem.tests(suite)
        if tests is None:
            continue
        kept.append(sample)
        key = (sample.task_id, sample.solution)
        jobs.setdefault(key, Job(key, sample.solution, tests, problem.entry_point))
    skipped = len(samples) - len(kept)
    if skipped:
        LOG.warning("%d of %d programs skipped: their problems have no %s tests", skipped, len(samples), suite)
    if not kept:
        raise DataError(f"no program was judged: there are {len(samples)} programs, and none of their problems has {suite} tests")
    LOG.info("%d programs, %d distinct", len(kept), len(jobs))
    return list(_rows(kept, jobs, config, suite))


def _rows(samples: list[Sample], jobs: dict[tuple[str, str], Job], config: RunTestsConfig, suite: Suite) -> Iterator[OutcomeRow]:
    judged = judge_many(
        jobs.values(),
        limits_of(config),
        checker=config.checker,
        workers=min(config.workers, len(jobs)),
        stop_at_first_failure=config.stop_at_first_failure,
        backend=config.backend,
    )
    found: dict[object, Outcome] = {}
    told = time.monotonic()
    for number, sample in enumerate(tqdm(samples, desc="run_tests", unit="program", disable=None)):
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            LOG.info("run_tests: %d of %d programs", number, len(samples))
        key = (sample.task_id, sample.solution)
        while key not in found:
            identity, outcome = next(judged)
            found[identity] = outcome
        yield OutcomeRow(task_id=sample.task_id, sample_id=sample.sample_id, suite=suite, **vars(found[key]))
    judged.close()  # type: ignore[attr-defined]


def _reference_samples(problems: list[Problem], path: Path) -> list[Sample]:
    samples = [
        Sample(problem.task_id, number, text, kind="reference") for problem in problems for number, text in enumerate(problem.solutions)
    ]
    if not samples:
        raise DataError(f"{path}: no problem has a reference solution, so there is nothing to judge with `--samples reference`")
    return samples


def _check_task_ids(problems: list[Problem], where: Path, paths: list[Path], samples: list[Sample]) -> None:
    known = {problem.task_id for problem in problems}
    if all(sample.task_id in known for sample in samples):
        return
    for path in paths:
        for number, row in read_rows(path):
            if row["task_id"] not in known:
                raise DataError(
                    f"{path}: row {number}: unknown task_id {row['task_id']!r}; {where} has no such problem "
                    f"(its first is {problems[0].task_id!r}): were the samples made for another problem set?"
                )


def run_tests(
    *, config: RunTestsConfig, problems: Path, samples: list[Path] | Literal["reference", "empty"], suite: Suite, output: Path
) -> None:
    """Write the outcome of every program, in the order of the samples.

    Args:
        config: limits and checker.
        problems: the problem set.
        samples: files of programs; or "reference", the problems' own solutions (sample_id counts them from 0); or "empty",
            one empty program per problem.
        suite: which tests.
        output: .jsonl or .jsonl.gz of records.OutcomeRow, complete or not there.

    Raises:
        DataError: naming file and row: an unknown task_id, malformed rows; or nothing could be judged.
        InfrastructureError: the judge itself failed; nothing is written.
    """
    table = read_problems(problems)
    if samples == "reference":
        programs = _reference_samples(table, problems)
    elif samples == "empty":
        programs = [Sample(problem.task_id, 0, "", kind="empty") for problem in table]
    else:
        assert isinstance(samples, list)
        programs = read_samples(samples)
        _check_task_ids(table, problems, samples, programs)
    if not programs:
        raise DataError(f"{', '.join(map(str, samples))}: no programs in it; make it again with `coderl sample`")
    try:
        rows = judge_samples(table, programs, config, suite)
    except DataError as error:
        raise DataError(f"{problems}: {error}") from None
    write_outcomes(output, rows)
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.outcome] = counts.get(row.outcome, 0) + 1
    LOG.info("%s: %s", output, ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
