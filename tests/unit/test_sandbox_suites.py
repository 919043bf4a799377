"""Every program of the suites gets the outcome that its case asks for, and the program after it does not notice.

The suites: sandbox_signals_and_exits, sandbox_forgeries, sandbox_exhaustion, sandbox_legal (and, on their own, sandbox_programs and
sandbox_attacks). A backend that passes them all judges as this one does.
"""

from __future__ import annotations

import pytest
import sandbox_exhaustion
import sandbox_forgeries
import sandbox_legal
import sandbox_signals_and_exits
from sandbox_programs import DOUBLE, OK, Case

from coderl.sandbox import Job, Limits, Outcome, judge_many

LIMITS = Limits(cpu_seconds=0.5, wall_seconds=3, memory_mb=128)
"""For what never ends."""
ROOM = Limits(cpu_seconds=8, memory_mb=128)
"""For what a slow machine needs time to do: touching memory, filling output, compiling 10 MB."""
SUITES = {
    "exits": sandbox_signals_and_exits.CASES,
    "forgeries": sandbox_forgeries.CASES,
    "exhaustion": sandbox_exhaustion.CASES,
    "legal": sandbox_legal.CASES,
}


def limits_of(case: Case) -> Limits:
    never_ends = case.error_class == "timeoutexception" or "endless" in case.name or case.name in sandbox_exhaustion.SHORT
    return LIMITS if never_ends else ROOM


@pytest.fixture(scope="module")
def found() -> dict[object, Outcome]:
    outcomes: dict[object, Outcome] = {}
    for limits in (LIMITS, ROOM):
        jobs = []
        for suite, cases in SUITES.items():
            for case in cases:
                if limits_of(case) == limits:
                    jobs.append(Job((suite, case.name), case.program, case.tests, "f"))
                    jobs.append(Job((suite, case.name, "after"), OK, DOUBLE))
        outcomes.update(judge_many(jobs, limits, workers=4))
    return outcomes


@pytest.mark.parametrize(
    ("suite", "case"), [pytest.param(suite, case, id=f"{suite}: {case.name}") for suite, cases in SUITES.items() for case in cases]
)
def test_case(suite: str, case: Case, found: dict[object, Outcome]) -> None:
    outcome = found[suite, case.name]
    assert (outcome.outcome, outcome.error_class) == (case.outcome, case.error_class or outcome.error_class), outcome
    assert (outcome.n_passed == outcome.n_tests) == (case.outcome == "passed_test")
    assert (outcome.error_class is None) == (case.outcome in ("passed_test", "failed_test"))
    after = found[suite, case.name, "after"]
    assert after.outcome == "passed_test", f"the next program: {after}"


def test_names_are_unique() -> None:
    for suite, cases in SUITES.items():
        assert len({case.name for case in cases}) == len(cases), suite
