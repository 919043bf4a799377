"""Stage `problems`: one file of problems from a benchmark and a split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from coderl.config import ConfigError, ProblemPart, ProblemSetConfig, ProceduralConfig
from coderl.problems.problem import AssertTests, Problem, write_problems
from coderl.problems.procedural import ProceduralBenchmark
from coderl.problems.readers import read_apps, read_mbpp, read_own
from coderl.records import DataError
from coderl.seeds import derived_seed

LOG = logging.getLogger(__name__)

READERS: dict[str, Callable[[Path, str], Iterator[Problem]]] = {"jsonl": read_own, "apps": read_apps, "mbpp": read_mbpp}


def make_problem_set(
    *, benchmark: str, source: str | None, split: str, config: ProblemSetConfig, procedural: ProceduralConfig, output: Path
) -> int:
    """Write the problems of one split to `output` (.parquet, .jsonl or .jsonl.gz); returns how many.

    Of `config`, `size`, `with_solutions` and (procedural) `difficulty_shares` are used; `benchmark`, `source` and `split` are
    the arguments. Problems of files are chosen in a random order that does not depend on `size`, and written in the order
    of the file; the first `with_solutions` of that order keep their references. Procedural problems are in a drawn order
    already: the first ones are kept, and every prefix has the configured shares of difficulties.

    With `config.parts` these are read instead, one after the other.

    Raises:
        ConfigError: a key that is missing or does not fit the benchmark.
        DataError: unknown benchmark, unusable source (file, row and column are named), or no problem in it.
    """
    if config.parts:
        problems = _joined(config.parts, output)
    elif benchmark == "procedural":
        problems = _generated(source, split, config, procedural)
    elif benchmark in READERS:
        problems = _read(benchmark, source, split, config)
    else:
        known = ", ".join(["procedural", *READERS])
        raise DataError(
            f"benchmark {benchmark!r} cannot be read yet; this version reads: {known}. Convert it to rows (docs/problem_rows.md)"
        )
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


def _joined(parts: Sequence[ProblemPart], output: Path) -> list[Problem]:
    """The problems of several benchmarks, one after the other."""
    problems: list[Problem] = []
    for part in parts:
        found = _read(part.benchmark, part.source, part.split, part)
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


def _read(benchmark: str, source: str | None, split: str, config: ProblemPart) -> list[Problem]:
    if source is None:
        raise ConfigError(f"key 'source' is missing: benchmark {benchmark!r} is read from a file or folder")
    path = Path(source)
    if not path.exists():
        raise DataError(f"{source}: no such file or folder; nothing is downloaded here, so fetch it first and give its path")
    problems = list(READERS[benchmark](path, split))
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
