"""Outcomes of ordinary programs, and the rule that makes an outcome of tests."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest
from sandbox_programs import CALLS, DOUBLE, LEGAL, OK, PLAIN_ERRORS, Case

from coderl.problems import AssertTests, InputOutputTests
from coderl.records import DataError
from coderl.sandbox import Job, Limits, TestResult, aggregate, judge, judge_many

LIMITS = Limits(cpu_seconds=2, memory_mb=256)


@pytest.mark.parametrize("case", LEGAL + PLAIN_ERRORS, ids=lambda case: case.name)
def test_program(case: Case) -> None:
    found = judge(case.program, case.tests, LIMITS, entry_point="f")
    assert (found.outcome, found.error_class) == (case.outcome, case.error_class or found.error_class), found
    assert (found.n_passed == found.n_tests) == (case.outcome == "passed_test")
    assert (found.first_failed_test is None) == (case.outcome == "passed_test")
    assert found.n_tests == len(case.tests)
    if case.outcome in ("passed_test", "failed_test"):
        assert found.error_class is None


PASS, FAIL, ERROR = TestResult(True), TestResult(False), TestResult(False, "valueerror", "no", 3)


@pytest.mark.parametrize(
    ("results", "compiled", "outcome"),
    [
        ([PASS, PASS], True, "passed_test"),
        ([PASS, FAIL], True, "failed_test"),
        ([ERROR], True, "runtime_error"),
        ([FAIL, ERROR, PASS], True, "runtime_error"),
        ([ERROR], False, "compile_error"),
    ],
)
def test_aggregation_table(results: list[TestResult], compiled: bool, outcome: str) -> None:
    # Spec 12: [True, True] -> passed, [True, False] -> failed, [-1] -> runtime, [-2] -> compile.
    found = aggregate(results, len(results), compiled=compiled)
    assert found.outcome == outcome
    assert found.n_passed == sum(result.passed for result in results)


def test_no_tests_are_never_a_pass() -> None:
    with pytest.raises(DataError, match="zero tests"):
        aggregate([], 0)
    with pytest.raises(DataError, match="zero tests"):
        judge(OK, InputOutputTests("stdin", [], []), LIMITS)
    with pytest.raises(DataError, match="zero tests"):
        judge("print(", AssertTests([]), LIMITS)


def test_tests_that_were_not_run_are_not_passed() -> None:
    found = aggregate([PASS], 2)
    assert (found.outcome, found.first_failed_test, found.n_passed) == ("failed_test", 1, 1)


def test_where_an_error_is() -> None:
    found = judge("n = int(input())\ndef f():\n    return n / (n - 4)\nprint(int(f()) or n * 2)", DOUBLE, LIMITS)
    assert (found.error_class, found.error_message, found.error_line, found.first_failed_test) == (
        "zerodivisionerror",
        "division by zero",
        3,
        0 if found.first_failed_test == 0 else 1,
    )
    syntax = judge("x = 1\nprint((x)", DOUBLE, LIMITS)
    assert (syntax.error_line, syntax.error_message, syntax.n_passed) == (2, "'(' was never closed", 0)


def test_addresses_do_not_enter_messages() -> None:
    found = judge("raise ValueError(object())", DOUBLE, LIMITS)
    assert found.error_message == "<object object at 0x...>"


def test_bytes_that_are_no_text() -> None:
    found = judge(b"print('\xff')", DOUBLE, LIMITS)
    assert (found.outcome, found.error_class) == ("compile_error", "unicodedecodeerror")
    assert judge(OK.encode(), DOUBLE, LIMITS).outcome == "passed_test"


def test_a_program_of_10_mb() -> None:
    assert judge(OK + "# " + "x" * 10_000_000, DOUBLE, LIMITS).outcome == "passed_test"


def test_every_test_counts_unless_stopped() -> None:
    tests = InputOutputTests("stdin", ["1", "2", "3", "4"], ["1", "2", "3", "4"])
    program = "n = int(input())\nif n == 2:\n    print(0)\nelif n == 3:\n    1 / 0\nelse:\n    print(n)"
    whole = judge(program, tests, LIMITS)
    assert (whole.outcome, whole.n_passed, whole.first_failed_test) == ("runtime_error", 2, 1)
    first = judge(program, tests, LIMITS, stop_at_first_failure=True)
    assert (first.outcome, first.n_passed, first.first_failed_test, first.n_tests) == ("failed_test", 1, 1, 4)


def test_legacy_checker_compares_as_the_official_one() -> None:
    tests = InputOutputTests("stdin", [""], ["1 2"])
    assert judge("print(2, 1)", tests, LIMITS, checker="legacy").outcome == "passed_test"
    assert judge("print(2, 1)", tests, LIMITS).outcome == "failed_test"
    calls = InputOutputTests("call", [[]], [[[1, 2]]])
    assert judge("def f(): return [1, 2]", calls, LIMITS, checker="legacy", entry_point="f").outcome == "passed_test"


def test_calls_need_an_entry_point() -> None:
    with pytest.raises(DataError, match="entry_point"):
        judge("", CALLS, LIMITS)


def test_the_same_every_time() -> None:
    # Hash seed and random state are fixed: a set of texts is in one order, and random numbers are the same, in every worker.
    program = "import random\nraise ValueError([{str(i) for i in range(99)}, random.random()])"
    tests = InputOutputTests("stdin", [""], [""])
    messages = {judge(program, tests, Limits(cpu_seconds=seconds)).error_message for seconds in (1, 1, 1.5)}
    assert len(messages) == 1


def test_many_in_order_and_lazily() -> None:
    taken: list[int] = []

    def stream() -> object:
        for number in itertools.count():
            taken.append(number)
            yield Job(number, f"print(int(input()) * {2 if number % 3 else 5})", DOUBLE)

    found = judge_many(stream(), LIMITS, workers=2)  # type: ignore[arg-type]
    for number, (identity, outcome) in zip(range(40), found, strict=False):
        assert identity == number
        assert outcome.outcome == ("passed_test" if number % 3 else "failed_test")
    found.close()  # type: ignore[attr-defined]
    assert len(taken) < 150


DATA = Path(__file__).parents[3] / "shared" / "data"
needs_mbpp = pytest.mark.skipif(not (DATA / "mbpp" / "mbpp.jsonl").exists(), reason="the shared MBPP file is not there")


def mbpp_jobs(step: int) -> list[Job]:
    rows = [json.loads(line) for line in (DATA / "mbpp" / "mbpp.jsonl").read_text(encoding="utf-8").splitlines()][::step]
    return [
        Job(row["task_id"], row["code"], AssertTests(row["test_list"] + row["challenge_test_list"], row["test_setup_code"])) for row in rows
    ]


@needs_mbpp
@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_mbpp_references_pass(step: int) -> None:
    jobs = mbpp_jobs(step)
    wrong = [(number, outcome) for number, outcome in judge_many(jobs, Limits(cpu_seconds=10)) if outcome.outcome != "passed_test"]
    assert wrong == []
    assert len(jobs) >= 60


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "humaneval").exists(), reason="the shared HumanEval file is not there")
def test_humaneval_references_pass() -> None:
    with gzip.open(DATA / "humaneval" / "HumanEval.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    jobs = [
        Job(
            row["task_id"],
            row["prompt"] + row["canonical_solution"],
            AssertTests([f"check({row['entry_point']})"], row["test"]),
            row["entry_point"],
        )
        for row in rows
    ]
    assert [identity for identity, outcome in judge_many(jobs, Limits(cpu_seconds=10)) if outcome.outcome != "passed_test"] == []
