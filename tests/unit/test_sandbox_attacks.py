"""Nothing that a program does makes it pass, stops its judge, or reaches another program."""

from __future__ import annotations

import pytest
from sandbox_attacks import ATTACKS
from sandbox_programs import DOUBLE, OK, Case

from coderl.sandbox import Job, Limits, Outcome, judge_many

LIMITS = Limits(cpu_seconds=0.25, wall_seconds=4, memory_mb=128, max_file_mb=16)
ROOM_TO_GROW = Limits(cpu_seconds=5, memory_mb=128, max_file_mb=16)
"""For all but what never ends: a slow machine needs more than a quarter of a second to touch memory or to fill a folder."""


@pytest.fixture(scope="module")
def found() -> dict[object, Outcome]:
    """Every attack, each followed by an innocent program that must not notice."""
    endless = {case.name for case in ATTACKS if case.error_class == "timeoutexception"}
    outcomes: dict[object, Outcome] = {}
    for limits, cases in (
        (LIMITS, [case for case in ATTACKS if case.name in endless]),
        (ROOM_TO_GROW, [case for case in ATTACKS if case.name not in endless]),
    ):
        jobs = []
        for case in cases:
            jobs.append(Job(case.name, case.program, case.tests, "f"))
            jobs.append(Job((case.name, "after"), OK, DOUBLE))
        outcomes.update(judge_many(jobs, limits, workers=3))
    return outcomes


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: case.name)
def test_attack(case: Case, found: dict[object, Outcome]) -> None:
    outcome = found[case.name]
    assert (outcome.outcome, outcome.error_class) == (case.outcome, case.error_class or outcome.error_class), outcome
    after = found[case.name, "after"]
    assert after.outcome == "passed_test", f"the next program: {after}"
