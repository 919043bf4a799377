"""A few programs to look at: different problems, different outcomes, and the cases that the tests get wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coderl.evaluation import ProgramFiles, row_name
from coderl.problems import Problem
from coderl.records import DataError, OutcomeRow, Sample, read_outcomes, read_samples
from coderl.seeds import derived_seed

KINDS_OF_EXAMPLE: tuple[str, ...] = (
    "passed_test",
    "passes the example tests only",
    "failed_test",
    "refined or repaired",
    "runtime_error",
    "compile_error",
)


@dataclass(frozen=True)
class Example:
    """One program with its problem and its outcomes; `example` is None where the problem has no example tests."""

    model: str
    problem: Problem
    sample: Sample
    hidden: OutcomeRow
    example: OutcomeRow | None


def choose_examples(problems: Mapping[str, Problem], programs: Mapping[str, ProgramFiles], count: int) -> list[Example]:
    """At most `count` programs, each of another problem, the kinds of KINDS_OF_EXAMPLE in turn.

    From critical sampling if there is any, else from the first policy, else from the warm-started actor. Which program
    stands for a kind is a draw that depends on task and sample alone.
    """
    order = ["critical", *(name for name in programs if name.startswith("policy/")), "actor"]
    source = next((name for name in order if name in programs), None)
    if source is None or count == 0:
        return []
    pools: dict[str, list[Example]] = {kind: [] for kind in KINDS_OF_EXAMPLE}
    for example in _read(source, programs[source], problems):
        pools[_kind(example)].append(example)
    for pool in pools.values():
        pool.sort(key=lambda example: derived_seed(0, "report", example.problem.task_id, example.sample.sample_id))
    chosen: list[Example] = []
    seen: set[str] = set()
    while len(chosen) < count and any(pools.values()):
        for kind in KINDS_OF_EXAMPLE:
            fresh = next((example for example in pools[kind] if example.problem.task_id not in seen), None)
            pools[kind] = [] if fresh is None else pools[kind][pools[kind].index(fresh) + 1 :]
            if fresh is not None and len(chosen) < count:
                chosen.append(fresh)
                seen.add(fresh.problem.task_id)
    return chosen


def _kind(example: Example) -> str:
    if example.hidden.outcome == "passed_test":
        return "refined or repaired" if example.sample.kind in ("refine", "repair") else "passed_test"
    if example.example is not None and example.example.outcome == "passed_test":
        return "passes the example tests only"
    return example.hidden.outcome


def _read(name: str, files: ProgramFiles, problems: Mapping[str, Problem]) -> Iterator[Example]:
    """Examples of one shard of samples at a time."""
    hidden = read_outcomes(files.hidden)
    example = read_outcomes(files.example)
    for path in files.samples:
        for sample in read_samples(path):
            key = (sample.task_id, sample.sample_id)
            if sample.task_id not in problems:
                continue  # a problem without hidden tests is not evaluated
            if key not in hidden:
                raise DataError(
                    f"{path}: task_id {key[0]!r}, sample_id {key[1]} has no outcome on the hidden tests; run `coderl run-tests`"
                )
            yield Example(row_name(name), problems[sample.task_id], sample, hidden[key], example.get(key))
