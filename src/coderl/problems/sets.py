"""Stage `problems`: one file of problems from a benchmark and a split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coderl.config import ConfigError, ProblemPart, ProblemSetConfig, ProceduralConfig
from coderl.problems.problem import AssertTests, Problem, write_problems
from coderl.problems.procedural import ProceduralBenchmark
from coderl.problems.readers import READERS, read
from coderl.problems.sources import Findings
from coderl.records import DataError
from coderl.seeds import derived_seed

LOG = logging.getLogger(__name__)


def make_problem_set(
    *,
    benchmark: str,
    source: str | None,
    split: str,
    config: ProblemSetConfig,
    procedural: ProceduralConfig,
    output: Path,
    findings: Path | None = None,
) -> int:
    """Write the problems of one split to `output` (.parquet, .jsonl or .jsonl.gz); returns how many.

    Of `config`, `size`, `with_solutions`, `skip_bad_rows` and (procedural) `difficulty_shares` are used; `benchmark`, `source` and
    `split` are the arguments. Problems of files are chosen in a random order that does not depend on `size`, and written in the order
    of the file; the first `with_solutions` of that order keep their references. Procedural problems are in a drawn order
    already: the first ones are kept, and every prefix has the configured shares of difficulties. What was wrong with a source is logged
    and, with `findings`, written there in full (JSON).

    With `config.parts` these are read instead, one after the other.

    Raises:
        ConfigError: a key that is missing or does not fit the benchmark.
        DataError: unknown benchmark, unusable source (file, row and column are named), or no problem in it.
    """
    if not config.parts and benchmark == "procedural":
        problems = _generated(source, split, config, procedural)
    elif config.parts or benchmark in READERS:
        met = Findings(config.skip_bad_rows)
        problems = _joined(config.parts, output, met) if config.parts else _read(benchmark, source, split, config, met)
        met.log()
        if findings is not None:
            met.write(findings)
    else:
        known = ", ".join(["procedural", *READERS])
        raise DataError(f"benchmark {benchmark!r} has no reader; there are: {known}. Convert it to rows (docs/problem_rows.md)")
    if not problems:
        raise DataError(f"{source or benchmark}: no problem of split {split!r} in it; give a split that it has, or rows without 'split'")
    return write_problems(output, problems)


def _generated(source: str | None, split: str, config: ProblemSetConfig, procedural: ProceduralConfig) -> list[Problem]:
    if source is not None:
        raise ConfigError(f"key 'source': the procedural benchmark is generated and reads nothing; remove {source!r}")
    if config.size is None:
        raise ConfigError("key 'size' is missing: the procedural benchmark has no end, so say how many problems to draw")
    drawn = ProceduralBenchmark(procedural).problems(split, config.size, config.difficulty_shares)
    return [_stripped(item.problem, keep=_within(index, config.with_solutions)) for index, item in enumerate(drawn)]


def _joined(parts: Sequence[ProblemPart], output: Path, findings: Findings) -> list[Problem]:
    """The problems of several benchmarks, one after the other."""
    problems: list[Problem] = []
    for part in parts:
        found = _read(part.benchmark, part.source, part.split, part, findings)
        if not found:
            raise DataError(f"{part.source}: no problem of split {part.split!r} in it; give a split that it has, or leave the part out")
        LOG.info("%s: %d problems of %s, %s", output, len(found), part.benchmark, part.split)
        problems += found
    return problems


def _with_shown_asserts(problem: Problem, count: int | None) -> Problem:
    """The problem with `count` asserts in its statement, which are its example tests; the hidden tests stay all of them.

    Raises:
        ConfigError: a statement that does not end in its asserts.
    """
    if count is None:
        return problem
    tests = problem.hidden_tests
    end = "\n".join(tests.asserts) if isinstance(tests, AssertTests) else ""
    if not isinstance(tests, AssertTests) or not problem.question.endswith(end):
        raise ConfigError(f"key 'shown_asserts': the statement of {problem.task_id} does not end in its asserts; it is for benchmark mbpp")
    shown = tests.asserts[:count]
    question = problem.question.removesuffix(end) + "\n".join(shown)
    return replace(problem, question=question, example_tests=AssertTests(shown, tests.setup))


def _read(benchmark: str, source: str | None, split: str, config: ProblemPart, findings: Findings) -> list[Problem]:
    if source is None:
        raise ConfigError(f"key 'source' is missing: benchmark {benchmark!r} is read from a file, a folder or a data set of the hub")
    problems = list(read(benchmark, source, split, findings))
    order = sorted(range(len(problems)), key=lambda i: derived_seed(0, "problem order", problems[i].task_id))
    rank = {index: position for position, index in enumerate(order)}
    return [
        _with_shown_asserts(_stripped(problem, keep=_within(rank[index], config.with_solutions)), config.shown_asserts)
        for index, problem in enumerate(problems)
        if _within(rank[index], config.size)
    ]


def _within(position: int, limit: int | None) -> bool:
    return limit is None or position < limit


def _stripped(problem: Problem, *, keep: bool) -> Problem:
    return problem if keep else replace(problem, solutions=[])
