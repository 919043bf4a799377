"""What goes into the judge and what comes out: limits, jobs, outcomes, and the one rule that makes an outcome of tests."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from coderl.problems import Tests
from coderl.records import DataError
from coderl.records import Outcome as OutcomeName

Checker = Literal["strict", "legacy"]
Prelude = Literal["none", "apps"]
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")


class InfrastructureError(RuntimeError):
    """The judge itself failed (no isolation on this host, a worker that died twice, a full disk): never a verdict."""


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    `cpu_seconds` counts CPU time of the program per test; `wall_seconds` per test is a backstop for programs that wait
    (None: ten times the CPU limit and 10 s at least). `memory_mb` is resident memory beyond the interpreter's own and holds for
    each process of the program. `max_processes` counts processes and threads. `max_output_mb` is standard output per test,
    `max_file_mb` everything that the program may leave in its directory.
    """

    cpu_seconds: float = 4.0
    wall_seconds: float | None = None
    memory_mb: int = 512
    max_processes: int = 16
    max_output_mb: int = 10
    max_file_mb: int = 32

    def __post_init__(self) -> None:
        if self.cpu_seconds <= 0 or (self.wall_seconds is not None and self.wall_seconds <= 0):
            raise ValueError("cpu_seconds and wall_seconds must be positive")
        if min(self.memory_mb, self.max_processes, self.max_output_mb, self.max_file_mb) < 1:
            raise ValueError("memory_mb, max_processes, max_output_mb and max_file_mb must be at least 1")

    @property
    def wall(self) -> float:
        """Wall seconds per test."""
        return max(10.0, 10 * self.cpu_seconds) if self.wall_seconds is None else self.wall_seconds


@dataclass(frozen=True)
class Job:
    """One program to judge; `id` comes back with its outcome."""

    id: Hashable
    program: str | bytes
    tests: Tests
    entry_point: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What the judge found (docs/outcomes.md). `error_*` are set for compile and runtime errors only."""

    outcome: OutcomeName
    n_passed: int
    n_tests: int
    first_failed_test: int | None
    error_class: str | None
    error_message: str | None
    error_line: int | None
    cpu_seconds: float
    memory_mb: float
    checker: str
    backend: str


@dataclass(frozen=True)
class TestResult:
    """One test: passed, failed, or ended by an error (class in lower case, message, line of the program)."""

    passed: bool
    error_class: str | None = None
    error_message: str | None = None
    error_line: int | None = None

    __test__ = False  # no test class of pytest


def error_of(value: Any) -> TestResult | None:
    """The result that [class, message, line] stands for; None for what is no error."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and value[0]:
        line = value[2] if isinstance(value[2], int) and not isinstance(value[2], bool) else None
        # Addresses in messages are noise, to a repair model and to whoever compares two runs.
        message = _ADDRESS.sub("0x...", str(value[1])[:4000])[:500] if value[1] is not None else None
        # Files of outcomes are UTF-8, which lone surrogates are not.
        clean = message.encode("utf-8", "replace").decode() if message is not None else None
        return TestResult(False, value[0][:100] if value[0].isidentifier() else "exception", clean, line)
    return None


def aggregate(
    results: Sequence[TestResult],
    n_tests: int,
    *,
    compiled: bool = True,
    cpu_seconds: float = 0.0,
    memory_mb: float = 0.0,
    checker: str = "strict",
    backend: str = "namespace",
) -> Outcome:
    """The outcome of a program: compile error, else runtime error if any test ended in one, else failed test, else passed.

    Args:
        results: of the tests that were run, in order; the first `n_tests` at most. Tests without a result count as not passed.
        n_tests: tests that the problem has.
        compiled: False if `results[0]` is the compiler's error.

    Raises:
        DataError: for zero tests, which can never be a pass (spec 4.1).
    """
    if n_tests == 0 or not results:
        raise DataError("no tests were run: zero tests are never a pass; give the problem tests, or leave it out")
    error = next((result for result in results if result.error_class is not None), None)
    first = next((index for index, result in enumerate(results) if not result.passed), None)
    if first is None and len(results) < n_tests:
        first = len(results)
    outcome: OutcomeName
    if not compiled:
        outcome = "compile_error"
    elif error is not None:
        outcome = "runtime_error"
    else:
        outcome = "passed_test" if first is None else "failed_test"
    return Outcome(
        outcome=outcome,
        n_passed=sum(result.passed for result in results),
        n_tests=n_tests,
        first_failed_test=first,
        error_class=error.error_class if error else None,
        error_message=error.error_message if error else None,
        error_line=error.error_line if error else None,
        cpu_seconds=round(cpu_seconds, 4),
        memory_mb=round(memory_mb, 1),
        checker=checker,
        backend=backend,
    )
