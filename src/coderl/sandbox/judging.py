"""One program from source to outcome: which children to fork, what their answers mean, what is right."""

from __future__ import annotations

import json
import re
import secrets
import signal
from dataclasses import dataclass, field
from typing import Any

from coderl.problems import AssertTests, InputOutputTests
from coderl.records import DataError
from coderl.sandbox import asserts
from coderl.sandbox.checkers import PYTHON, equal_value, legacy_output, legacy_value, strict_output
from coderl.sandbox.inside import codec
from coderl.sandbox.outcome import Checker, InfrastructureError, Job, Outcome, TestResult, aggregate
from coderl.sandbox.worker import Run, Worker, WorkerDiedError

MAX_LINE = 16 << 20
"""A longer line of answers is not read: no test of a benchmark expects a value that big."""
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_decode = json.JSONDecoder().decode
_FAILED, _PASSED = TestResult(False), TestResult(True)


@dataclass
class Answers:
    """The lines of one child, checked for form; what does not fit is as if it had not been written."""

    refused: TestResult | None = None
    compiled: bool = False
    loaded: bool = False
    load_error: TestResult | None = None
    tests: list[list[Any]] = field(default_factory=list)
    """[index, answer, error] of consecutive tests from the first one on."""
    complete: bool = False


def _error(value: Any) -> TestResult | None:
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and value[0]:
        line = value[2] if isinstance(value[2], int) and not isinstance(value[2], bool) else None
        # Addresses in messages are noise, to a repair model and to whoever compares two runs.
        message = _ADDRESS.sub("0x...", str(value[1]))[:500] if value[1] is not None else None
        return TestResult(False, value[0][:100], message, line)
    return None


def read_answers(data: bytes, first: int) -> Answers:
    """Parse what a child wrote, which a program may have forged: every line is checked, and none can do more than answer."""
    answers = Answers()
    for line in data.decode("ascii", "replace").split("\n"):
        if not line or len(line) > MAX_LINE:
            continue
        try:
            row = _decode(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, list) or not row:
            continue
        if row == ["compiled"]:
            answers.compiled = True
        elif row[0] == "refused" and not answers.compiled and len(row) == 4:
            answers.refused = _error(row[1:]) or TestResult(False, "syntaxerror")
        elif row[0] == "loaded" and len(row) == 2 and not answers.loaded:
            answers.load_error = _error(row[1])
            answers.loaded = answers.load_error is None
        elif row in (["end"], ["fresh"]):
            answers.complete = True
        elif len(row) == 3 and isinstance(row[0], int) and row[0] == first + len(answers.tests):
            answers.tests.append(row)
    return answers


def source_error(program: str | bytes) -> TestResult | None:
    """The compiler's error for a source that is no text at all."""
    try:
        text = program.decode("utf-8") if isinstance(program, bytes) else program
        text.encode("utf-8")
    except UnicodeError as error:
        return TestResult(False, type(error).__name__.lower(), f"source is not UTF-8: {error.reason}"[:500])  # type: ignore[attr-defined]
    if "\0" in text:
        return TestResult(False, "syntaxerror", "source code cannot contain null bytes", text[: text.index("\0")].count("\n") + 1)
    return None


def _end_of(run: Run) -> TestResult | None:
    """The error that a child's early end stands for; None if it ended itself with status 0."""
    if run.cause:
        what = "CPU time" if run.cause == 1 else "wall time"
        return TestResult(False, "timeoutexception", f"{what} limit reached")
    if run.status < 0:
        number = -run.status
        if number == signal.SIGSYS:  # how the filter ends a program that kills itself
            return TestResult(False, "sigkill", "killed itself")
        if number == signal.SIGKILL:
            return TestResult(False, "memoryerror", "killed by the kernel for lack of memory")
        return TestResult(False, signal.Signals(number).name.lower(), signal.strsignal(number))
    return TestResult(False, "systemexit", f"exit status {run.status}") if run.status else None


class Judging:
    """Judges one job on one worker."""

    def __init__(self, worker: Worker, job: Job, checker: Checker, stop_at_first_failure: bool) -> None:
        self.worker, self.job, self.checker, self.stop = worker, job, checker, stop_at_first_failure
        self.tests = job.tests
        self.n_tests = len(job.tests)
        self.cpu, self.memory = 0.0, 0.0
        self.words: list[str] = []
        self.splits: list[asserts.Split | None] = []
        self.inputs = self._inputs()

    def _inputs(self) -> list[Any]:
        """What the child gets of every test: never what is expected."""
        if isinstance(self.tests, InputOutputTests):
            if len(self.tests.inputs) != len(self.tests.outputs):
                raise DataError(f"job {self.job.id!r}: {len(self.tests.inputs)} inputs but {len(self.tests.outputs)} outputs")
            if self.tests.kind == "stdin":
                return [text.encode("utf-8", "surrogatepass") for text in self.tests.inputs]
            if not self.job.entry_point:
                raise DataError(f"job {self.job.id!r}: tests of kind 'call' need entry_point, the name of the function")
            return [[codec.plain(argument) for argument in arguments] for arguments in self.tests.inputs]
        inputs: list[Any] = []
        for statement in self.tests.asserts:
            parts = asserts.split(statement, self.tests.setup)
            word = secrets.token_hex(16) if parts is None else ""
            self.splits.append(parts)
            self.words.append(word)
            inputs.append({"run": statement, "word": word} if parts is None else {"values": parts.calls})
        return inputs

    def _run(self, first: int, last: int) -> tuple[Run, Answers]:
        job: dict[str, Any] = {
            "kind": self.tests.kind,
            **self.code,
            "inputs": self.inputs[first:last],
            "first": first,
            "stop_at_first_error": self.stop,
            "entry_point": self.job.entry_point,
        }
        if isinstance(self.tests, AssertTests):
            job["setup"] = self.tests.setup
        return self._retried(job, first, last - first)

    def _retried(self, job: dict[str, Any], first: int, tests: int) -> tuple[Run, Answers]:
        """Run one child; once more where the first run says nothing about the program."""
        for attempt in (1, 2):
            try:
                run = self.worker.run(job, tests)
            except WorkerDiedError as error:
                if attempt == 2:
                    raise InfrastructureError(
                        f"job {self.job.id!r}: the sandbox worker died twice ({error}); see the kernel's log"
                    ) from None
                self.worker.restart()
                continue
            starved = run.cause == 2 and run.cpu_seconds > 0.1 * self.worker.limits.cpu_seconds
            killed = run.cause == 0 and run.status == -signal.SIGKILL
            harness = run.cause == 0 and run.status == 70
            if attempt == 1 and (starved or killed or harness):
                continue
            answers = read_answers(run.answers, first)
            answers.compiled |= "code" in job or job["kind"] == "evaluate"
            if harness and not answers.compiled:
                raise InfrastructureError(f"job {self.job.id!r}: the sandbox could not set a program up; is the disk or the memory full?")
            break
        self.cpu += run.cpu_seconds
        self.memory = max(self.memory, run.memory_mb - self.worker.memory_base)
        return run, answers

    def judge(self) -> Outcome:
        """Run the tests and compare; raises InfrastructureError, DataError for zero tests."""
        if self.n_tests == 0:
            raise DataError(f"job {self.job.id!r}: no tests: zero tests are never a pass; give the problem tests, or leave it out")
        refused = source_error(self.job.program)
        if refused is not None:
            return self._outcome([refused], compiled=False)
        program = self.job.program
        text = program.decode("utf-8") if isinstance(program, bytes) else program
        source = text.removeprefix("\ufeff")
        compiled = self.worker.compile(source, tuple(() if parts is None else parts.calls for parts in self.splits))
        if isinstance(compiled, list):
            return self._outcome([_error(compiled) or TestResult(False, "syntaxerror")], compiled=False)
        self.code: dict[str, Any] = {"source": source} if compiled is None else {"code": compiled}
        results: list[TestResult] = []
        # Opening it empties the file, and with it the output of the tests before.
        alone = "/dev/stdout" in source
        while len(results) < self.n_tests:
            first = len(results)
            found, refusal, finished = self._some(first, first + 1 if alone else self.n_tests)
            if refusal is not None:
                return self._outcome([refusal], compiled=False)
            if self.tests.kind == "stdin" and not alone and first == 0:
                doubt = next((index for index, result in enumerate(found) if not result.passed), 0)
                if doubt:
                    # Right on the first test, not on a later one: in case something stayed behind from one test to the next,
                    # the first failure is run in a child of its own. If it stands, so do the others.
                    again, _, _ = self._some(doubt, doubt + 1)
                    if again != found[doubt : doubt + 1]:
                        found, finished, alone = [*found[:doubt], *again], False, True
            results += found
            failed = self.stop and any(not result.passed for result in results)
            if finished or failed:
                break
        if self.stop:
            failing = next((index for index, result in enumerate(results) if not result.passed), self.n_tests)
            results = results[: failing + 1]
        return self._outcome(results)

    def _outcome(self, results: list[TestResult], compiled: bool = True) -> Outcome:
        return aggregate(
            results,
            self.n_tests,
            compiled=compiled,
            cpu_seconds=self.cpu,
            memory_mb=max(0.0, self.memory),
            checker=self.checker,
            backend=self.worker.backend,
        )

    def _some(self, first: int, last: int) -> tuple[list[TestResult], TestResult | None, bool]:
        """Run tests first..last in one child; returns (results of one or more tests, the compiler's error, whether to stop there)."""
        run, answers = self._run(first, last)
        end = _end_of(run)
        if end is not None and self._too_big(run.memory_mb):
            end = self._memory_error()
        if answers.refused is not None and not answers.compiled:
            return [], answers.refused, True
        if not answers.compiled:
            # Nothing of the program had run: it broke the compiler, or compiling it took too long.
            return [], end or TestResult(False, "systemexit", "the compiler ended"), True
        if self.tests.kind != "stdin" and not answers.loaded:
            never = TestResult(False, "systemexit", "the program ended before it could be called")
            return [answers.load_error or end or never], None, True
        results, start = self._compare(run, answers)
        reached = first + len(results)
        if reached < last and not (answers.complete and results):
            if self.stop and results and results[-1].error_class is not None:
                return results, None, True
            if self.tests.kind == "stdin" and end is None:
                results.append(self._compare_output(reached, start, run.output_size))
            else:
                results.append(end or TestResult(False, "systemexit", "the program ended before it answered"))
        if self._too_big(run.memory_mb) and not any(result.error_class for result in results):
            results[-1] = self._memory_error()
        # After a time-out the rest is not run: the outcome is settled, and every further test would cost the limit again.
        return results, None, run.cause != 0 and end is results[-1]

    def _too_big(self, memory_mb: float) -> bool:
        return memory_mb - self.worker.memory_base > self.worker.limits.memory_mb

    def _memory_error(self) -> TestResult:
        return TestResult(False, "memoryerror", f"more than {self.worker.limits.memory_mb} MB")

    def _compare(self, run: Run, answers: Answers) -> tuple[list[TestResult], int]:
        """Results of the answered tests, and where the output of the last of them ends."""
        results: list[TestResult] = []
        start = 0
        values: list[tuple[int, asserts.Split, list[Any]]] = []
        for index, answer, error in answers.tests:
            if index >= self.n_tests:
                break
            result = _error(error)
            if self.tests.kind == "stdin":
                end = answer if isinstance(answer, int) and start <= answer <= run.output_size else start
                result = result or self._compare_output(index, start, end)
                start = end
            elif result is None and isinstance(self.tests, InputOutputTests):
                expected = self.tests.outputs[index]
                right = legacy_value(expected, answer) if self.checker == "legacy" else equal_value(expected, answer)
                result = _PASSED if right else _FAILED
            elif result is None:
                parts = self.splits[index]
                if parts is None:
                    result = _PASSED if answer == self.words[index] else _FAILED
                elif not isinstance(answer, list) or len(answer) != len(parts.calls):
                    result = _FAILED
                elif parts.is_equality:
                    result = _PASSED if equal_value(parts.expected, answer[0], PYTHON) else _FAILED
                else:
                    values.append((len(results), parts, answer))
                    result = _FAILED
            results.append(result)
        if values:
            self._evaluate(values, results)
        return results, start

    def _compare_output(self, index: int, start: int, end: int) -> TestResult:
        if end - start > self.worker.limits.max_output_mb << 20:
            return TestResult(False, "outputlimitexceeded", f"more than {self.worker.limits.max_output_mb} MB of output")
        assert isinstance(self.tests, InputOutputTests)
        text = self.worker.output(start, end).decode("utf-8", "replace")
        expected = self.tests.outputs[index]
        right = legacy_output(text, expected) if self.checker == "legacy" else strict_output(text, expected)
        return _PASSED if right else _FAILED

    def _evaluate(self, values: list[tuple[int, asserts.Split, list[Any]]], results: list[TestResult]) -> None:
        """Expressions over returned values, in a child without the program."""
        assert isinstance(self.tests, AssertTests)
        tests = [{"expression": parts.expression, "values": answer} for _, parts, answer in values]
        job = {"kind": "evaluate", "setup": f"{asserts.COMMON_IMPORTS}\n{self.tests.setup}", "inputs": tests, "first": 0}
        run, answers = self._retried(job, 0, len(tests))
        for (position, _, _), row in zip(values, answers.tests, strict=False):
            results[position] = _error(row[2]) or (_PASSED if row[1] is True else _FAILED)
        for position, _, _ in values[len(answers.tests) :]:
            results[position] = _end_of(run) or _FAILED


def judge_on(worker: Worker, job: Job, checker: Checker, stop_at_first_failure: bool) -> Outcome:
    """Judge one job on one worker, which is replaced if it dies on the way."""
    return Judging(worker, job, checker, stop_at_first_failure).judge()
