"""Stage run_tests: the outcome of every program on the hidden or the example tests of its problem."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal, cast

from tqdm import tqdm

from coderl.config import RunTestsConfig, section_json
from coderl.problems import InputOutputTests, Problem, read_problems
from coderl.records import DataError, OutcomeRow, Sample, check_suffix, read_rows, read_samples, write_outcomes
from coderl.sandbox.journal import Journal
from coderl.sandbox.judge import judge_many, observe_many
from coderl.sandbox.observing import behaviour_of, made_inputs
from coderl.sandbox.outcome import Job, Limits, Outcome
from coderl.sandbox.time_policy import Judged, Key, judge_adaptively, judge_exactly
from coderl.seeds import derived_seed

LOG = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30.0
"""In a log, where no bar is drawn."""

Suite = Literal["hidden", "example"]


def limits_of(config: RunTestsConfig, cpu_seconds: float) -> Limits:
    """The sandbox's limits as configured, with this much CPU time per test."""
    return Limits(
        cpu_seconds=cpu_seconds,
        memory_mb=config.memory_mb,
        max_processes=config.max_processes,
        max_output_mb=config.max_output_mb,
        max_file_mb=config.max_file_mb,
    )


def judge_samples(
    problems: Sequence[Problem], samples: Sequence[Sample], config: RunTestsConfig, suite: Suite, journal: Journal | None = None
) -> list[OutcomeRow]:
    """Outcomes of `samples` in their order; a program that a problem has twice is judged once.

    Samples of problems that lack the suite are skipped, and their number is logged. Example tests are judged under the configured
    time limit: what may steer generation does not look at the problem's references.

    Args:
        problems: all that the samples belong to.
        samples: programs.
        config: limits, checker, time policy.
        suite: which tests.
        journal: outcomes of an earlier try, and where new ones are kept.

    Raises:
        DataError: a sample of an unknown problem, or no problem has hidden tests (zero tests are never a result). No example tests
            are no error: there are no rows then.
        InfrastructureError: the judge itself failed.
    """
    by_id = {problem.task_id: problem for problem in problems}
    jobs: dict[Key, Job] = {}
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
        if suite == "example":  # problems may do without: their programs are then not filtered
            return []
        raise DataError(f"no program was judged: there are {len(samples)} programs, and none of their problems has {suite} tests")
    LOG.info("%d programs, %d distinct", len(kept), len(jobs))
    judge_at = partial(_judge_at, config, journal)
    if config.time_policy == "adaptive" and suite == "hidden":
        found = judge_adaptively(jobs, by_id, config, judge_at)
    else:
        found = judge_exactly(jobs, config, judge_at)
    return [_row(sample, suite, found[sample.task_id, sample.solution]) for sample in kept]


def _row(sample: Sample, suite: Suite, judged: Judged) -> OutcomeRow:
    return OutcomeRow(
        task_id=sample.task_id,
        sample_id=sample.sample_id,
        suite=suite,
        **vars(judged.outcome),
        cpu_limit=judged.cpu_limit,
        limit_changed_outcome=judged.changed,
    )


def _judge_at(config: RunTestsConfig, journal: Journal | None, jobs: Iterable[Job], cpu_seconds: float) -> Iterator[tuple[Key, Outcome]]:
    """Judge jobs under a CPU limit, those that the journal does not know yet; shows progress."""
    left: list[Job] = []
    for job in jobs:
        known = journal.find(cast(Key, job.id), config.checker, cpu_seconds) if journal else None
        if known is None:
            left.append(job)
        else:
            yield cast(Key, job.id), known
    if not left:
        return
    judged = judge_many(
        left,
        limits_of(config, cpu_seconds),
        checker=config.checker,
        prelude=config.prelude,
        workers=min(config.workers, len(left)),
        stop_at_first_failure=config.stop_at_first_failure,
        backend=config.backend,
    )
    told = time.monotonic()
    for number, (key, outcome) in enumerate(tqdm(judged, total=len(left), desc="run_tests", unit="program", disable=None)):
        if journal:
            journal.add(key, cpu_seconds, outcome)
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            LOG.info("run_tests: %d of %d programs at %g s", number + 1, len(left), cpu_seconds)
        yield cast(Key, key), outcome


def _fingerprint(config: RunTestsConfig, problems: Path, suite: Suite) -> str:
    """What outcomes depend on besides the program: the tests, the settings (not how many workers), the judge's own code."""
    settings = section_json(config.model_copy(update={"workers": 1}))
    digest = hashlib.sha256(json.dumps([settings, suite, sys.version]).encode())
    for path in (problems, *sorted(Path(__file__).parent.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def with_legacy_outcomes(
    rows: Sequence[OutcomeRow],
    problems: Sequence[Problem],
    samples: Sequence[Sample],
    config: RunTestsConfig,
    journal: Journal | None = None,
) -> list[OutcomeRow]:
    """`rows` on the hidden tests with the legacy checker's outcome on the first `config.legacy_samples` programs of each problem.

    Greedy programs are not counted: the table's pass@k is of drawn ones. Asserts are left out, the legacy checker has none.
    """
    by_id = {problem.task_id: problem for problem in problems}
    counts: dict[str, int] = {}
    wanted: dict[tuple[str, int], tuple[str, str]] = {}
    jobs: dict[tuple[str, str], Job] = {}
    for sample in samples:
        tests = by_id[sample.task_id].hidden_tests
        if tests is None or tests.kind == "assert" or sample.kind == "greedy" or counts.get(sample.task_id, 0) >= config.legacy_samples:
            continue
        counts[sample.task_id] = counts.get(sample.task_id, 0) + 1
        key = (sample.task_id, sample.solution)
        wanted[sample.task_id, sample.sample_id] = key
        jobs.setdefault(key, Job(key, sample.solution, tests, by_id[sample.task_id].entry_point))
    if not jobs:
        return list(rows)
    LOG.info("legacy checker: %d programs, %d distinct", len(wanted), len(jobs))
    official = config.model_copy(update={"checker": "legacy", "prelude": "none", "stop_at_first_failure": False})
    found = {key: outcome.outcome for key, outcome in _judge_at(official, journal, jobs.values(), config.cpu_seconds)}
    return [
        replace(row, legacy_outcome=found[wanted[row.task_id, row.sample_id]]) if (row.task_id, row.sample_id) in wanted else row
        for row in rows
    ]


def with_behaviours(
    rows: Sequence[OutcomeRow], problems: Sequence[Problem], samples: Sequence[Sample], config: RunTestsConfig
) -> list[OutcomeRow]:
    """`rows` on the example tests with the behaviour of the programs that passed: what they answer on made inputs (observing.py).

    The inputs depend on the example tests of the problem alone. Problems whose example tests are asserts have none.
    """
    by_id = {problem.task_id: problem for problem in problems}
    texts = {(sample.task_id, sample.sample_id): sample.solution for sample in samples}
    jobs: dict[tuple[str, str], Job] = {}
    inputs: dict[str, list[Any]] = {}
    for row in rows:
        problem = by_id[row.task_id]
        tests = problem.example_tests
        if row.outcome != "passed_test" or not isinstance(tests, InputOutputTests):
            continue
        if row.task_id not in inputs:
            rng = Random(derived_seed(0, "behaviour", json.dumps(tests.inputs, default=str)))
            inputs[row.task_id] = made_inputs(tests, config.behaviour_inputs, rng)
        made = inputs[row.task_id]
        if made:
            key = (row.task_id, texts[row.task_id, row.sample_id])
            jobs.setdefault(key, Job(key, key[1], InputOutputTests(tests.kind, made, [""] * len(made)), problem.entry_point))
    observed = observe_many(jobs.values(), limits_of(config, config.cpu_seconds), prelude=config.prelude, backend=config.backend)
    found = {key: behaviour_of(answers) for key, answers in observed}
    LOG.info("behaviour on %d made inputs: %d programs", config.behaviour_inputs, len(jobs))
    return [replace(row, behaviour=found.get((row.task_id, texts[row.task_id, row.sample_id]))) for row in rows]


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
        output: .jsonl, .jsonl.gz or .parquet of records.OutcomeRow, complete or not there. A run that is killed leaves what it had
            judged beside it (`.<name>.judged`); the next one with the same tests and settings goes on from there.

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
    check_suffix(output)
    # What a killed run had judged is beside the output, and this run goes on from there.
    with Journal(output.with_name(f".{output.name}.judged"), _fingerprint(config, problems, suite)) as journal:
        try:
            rows = judge_samples(table, programs, config, suite, journal)
            if suite == "hidden" and config.legacy_samples:
                rows = with_legacy_outcomes(rows, table, programs, config, journal)
            if suite == "example" and config.behaviour_inputs:
                rows = with_behaviours(rows, table, programs, config)
        except DataError as error:
            raise DataError(f"{problems}: {error}") from None
        write_outcomes(output, rows)
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.outcome] = counts.get(row.outcome, 0) + 1
    LOG.info("%s: %s", output, ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
