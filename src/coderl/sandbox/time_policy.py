"""How much CPU time a program gets before it is a time-out. Programs that never end are most of a judge's work: five in a hundred
of CodeRL's own samples, at 4 s each, cost two hundred times what all others do.

`exact`: everybody gets the configured limit. `adaptive`, in the order of the passes:

1. everybody gets `short_cpu_seconds`; whoever ends has its outcome, because more time would not have changed it;
2. for problems with time-outs, the problem's own reference solutions are timed on this machine, and the time-outs run again with
   `reference_factor` times what the slowest needed, the configured limit at most. References that do not pass prove nothing: a
   problem without a passing one keeps the configured limit;
3. of the programs that a limit below the configured one has cut, some (`exact_checks`, chosen by a hash, spread over the problems)
   run again with the configured limit. That changes no outcome, or the number of shards would; how often it would have is in
   the rows and in the table: what the policy costs in truth is measured in every run.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from coderl.config import RunTestsConfig
from coderl.problems import Problem
from coderl.sandbox.outcome import Job, Outcome

LOG = logging.getLogger(__name__)

Key = tuple[str, str]
"""(task_id, program)."""
JudgeAt = Callable[[Iterable[Job], float], Iterator[tuple[Key, Outcome]]]
"""Judges jobs, whose ids are keys, under a CPU limit in seconds."""

REFERENCES_TIMED = 3


@dataclass(frozen=True)
class Judged:
    """An outcome, the CPU limit per test it was found under, and whether the configured one gives another (None: not checked)."""

    outcome: Outcome
    cpu_limit: float
    changed: bool | None = None


def is_cut(outcome: Outcome) -> bool:
    """Whether more time could have given another outcome."""
    return outcome.error_class == "timeoutexception"


def judge_exactly(jobs: Mapping[Key, Job], config: RunTestsConfig, judge_at: JudgeAt) -> dict[Key, Judged]:
    """Every program under the configured limit."""
    return {key: Judged(outcome, config.cpu_seconds) for key, outcome in judge_at(jobs.values(), config.cpu_seconds)}


def judge_adaptively(
    jobs: Mapping[Key, Job], problems: Mapping[str, Problem], config: RunTestsConfig, judge_at: JudgeAt
) -> dict[Key, Judged]:
    """Every program under the limits of the adaptive policy (see above)."""
    exact, short = config.cpu_seconds, min(config.short_cpu_seconds, config.cpu_seconds)
    found = {key: Judged(outcome, short) for key, outcome in judge_at(jobs.values(), short)}
    cut = [key for key, judged in found.items() if is_cut(judged.outcome)]
    if not cut or short == exact:
        return found

    limits = reference_limits({key[0]: problems[key[0]] for key in cut}, jobs, config, judge_at)
    for limit in sorted(set(limits.values()) - {short}):
        again = [key for key in cut if limits[key[0]] == limit]
        found.update((key, Judged(outcome, limit)) for key, outcome in judge_at((jobs[key] for key in again), limit))

    shortened = [key for key in cut if found[key].cpu_limit < exact and is_cut(found[key].outcome)]
    checked = _spread(shortened, config.exact_checks)
    for key, outcome in judge_at((jobs[key] for key in checked), exact):
        found[key] = replace(found[key], changed=outcome.outcome != found[key].outcome.outcome)
    LOG.info(
        "time policy: %d of %d programs were cut at %g s, %d below %g s; of %d judged again with that, %d have another outcome",
        len(cut),
        len(jobs),
        short,
        len(shortened),
        exact,
        len(checked),
        sum(found[key].changed is True for key in checked),
    )
    return found


def reference_limits(
    problems: Mapping[str, Problem], jobs: Mapping[Key, Job], config: RunTestsConfig, judge_at: JudgeAt
) -> dict[str, float]:
    """CPU limit per test of each problem: `reference_factor` times what its slowest passing reference needed for all tests together.

    Rounded up to the short limit times a power of two: a clock's noise then seldom changes a limit, and few workers serve all.
    """
    tests = {key[0]: job.tests for key, job in jobs.items()}
    references = {
        (task_id, text): Job((task_id, text), text, tests[task_id], problem.entry_point)
        for task_id, problem in problems.items()
        for text in problem.solutions[:REFERENCES_TIMED]
    }
    slowest: dict[str, float] = {}
    for key, outcome in judge_at(references.values(), config.cpu_seconds):
        if outcome.outcome == "passed_test":
            slowest[key[0]] = max(outcome.cpu_seconds, slowest.get(key[0], 0.0))
    limits = {}
    for task_id in problems:
        limit = config.cpu_seconds
        if task_id in slowest:
            limit = min(config.short_cpu_seconds, limit)
            while limit < min(config.reference_factor * slowest[task_id], config.cpu_seconds):
                limit = min(2 * limit, config.cpu_seconds)
        limits[task_id] = limit
    return limits


def _spread(keys: list[Key], count: int) -> list[Key]:
    """`count` keys in the order of their hashes, one of each problem before the second of any."""
    ranks: dict[str, int] = {}
    order: list[tuple[int, str, Key]] = []
    for digest, key in sorted((hashlib.sha256(repr(key).encode()).hexdigest(), key) for key in keys):
        ranks[key[0]] = ranks.get(key[0], -1) + 1
        order.append((ranks[key[0]], digest, key))
    return [key for _, _, key in sorted(order)[:count]]
