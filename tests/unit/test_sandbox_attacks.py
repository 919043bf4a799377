"""Nothing that a program does makes it pass, stops its judge, or reaches another program."""

from __future__ import annotations

import pytest
from sandbox_attacks import ATTACKS
from sandbox_programs import DOUBLE, OK, Case

from coderl.sandbox import Job, Limits, Outcome, judge_many

LIMITS = Limits(cpu_seconds=0.25, wall_seconds=4, memory_mb=128, max_file_mb=16)


@pytest.fixture(scope="module")
def found() -> dict[object, Outcome]:
    """Every attack, each followed by an innocent program that must not notice."""
    jobs = []
    for case in ATTACKS:
        jobs.append(Job(case.name, case.program, case.tests, "f"))
        jobs.append(Job((case.name, "after"), OK, DOUBLE))
    return dict(judge_many(jobs, LIMITS, workers=3))


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: case.name)
def test_attack(case: Case, found: dict[object, Outcome]) -> None:
    outcome = found[case.name]
    assert (outcome.outcome, outcome.error_class) == (case.outcome, case.error_class or outcome.error_class), outcome
    after = found[case.name, "after"]
    assert after.outcome == "passed_test", f"the next program: {after}"
