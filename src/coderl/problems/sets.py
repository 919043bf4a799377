"""Stage `problems`: one file of problems from a benchmark and a split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from coderl.config import ConfigError, ProblemSetConfig, ProceduralConfig
from coderl.problems.problem import Problem, write_problems
from coderl.problems.procedural import ProceduralBenchmark
from coderl.problems.readers import READERS, read
from coderl.problems.sources import Findings
from coderl.records import DataError
from coderl.seeds import derived_seed


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

    Raises:
        ConfigError: a key that is missing or does not fit the benchmark.
        DataError: unknown benchmark, unusable source (file, row and column are named), or no problem in it.
    """
    if benchmark == "procedural":
        problems = _generated(source, split, config, procedural)
    elif benchmark in READERS:
        met = Findings(config.skip_bad_rows)
        problems = _read(benchmark, source, split, config, met)
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


def _read(benchmark: str, source: str | None, split: str, config: ProblemSetConfig, findings: Findings) -> list[Problem]:
    if source is None:
        raise ConfigError(f"key 'source' is missing: benchmark {benchmark!r} is read from a file, a folder or a data set of the hub")
    problems = list(read(benchmark, source, split, findings))
    order = sorted(range(len(problems)), key=lambda i: derived_seed(0, "problem order", problems[i].task_id))
    rank = {index: position for position, index in enumerate(order)}
    return [
        _stripped(problem, keep=_within(rank[index], config.with_solutions))
        for index, problem in enumerate(problems)
        if _within(rank[index], config.size)
    ]


def _within(position: int, limit: int | None) -> bool:
    return limit is None or position < limit


def _stripped(problem: Problem, *, keep: bool) -> Problem:
    return problem if keep else replace(problem, solutions=[])
