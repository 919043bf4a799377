"""One program from source to outcome: which children to fork, what their answers mean, what is right."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import tempfile
import threading
from dataclasses import dataclass, field, replace
from typing import Any

from coderl.problems import AssertTests, InputOutputTests
from coderl.records import DataError
from coderl.sandbox import legacy
from coderl.sandbox.assertions import Assertions
from coderl.sandbox.checkers import equal_value, legacy_output, legacy_value, strict_output
from coderl.sandbox.inside import codec
from coderl.sandbox.inside.syscalls import FATAL_SIGNALS
from coderl.sandbox.outcome import Checker, InfrastructureError, Job, Outcome, Prelude, TestResult, aggregate
from coderl.sandbox.outcome import error_of as _error
from coderl.sandbox.worker import Run, Worker, WorkerDiedError

MAX_LINE = 16 << 20
"""A longer line of answers is not read: no test of a benchmark expects a value that big."""
_decode = json.JSONDecoder().decode
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_LOOKS_AT_ITSELF = ("__file__", "argv", "inspect", "solution.py", "linecache", "traceback")
"""Programs with one of these words find their own source in a file, as they would anywhere else."""
_LOADED = '["loaded",null]'
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
    steps: dict[int, list[list[Any]]] = field(default_factory=dict)
    """[value, error, changed arguments] of the calls that a test consists of."""
    complete: bool = False


_RIGHT = Answers(loaded=True, complete=True)
"""Of a child whose tests are all passed."""


def read_answers(data: bytes, first: int) -> Answers:
    """Parse what a child wrote, which a program may have forged: every line is checked, and none can do more than answer."""
    answers = Answers()
    for line in data.decode("ascii", "replace").split("\n"):
        if not line or len(line) > MAX_LINE:
            continue
        if line == _LOADED and not answers.loaded:
            answers.loaded, answers.load_error = True, None
            continue
        try:
            row, end = _scan(line, 0)
            if end != len(line):
                row = _decode(line)
        except StopIteration:  # white space before it, or nothing at all
            try:
                row = _decode(line)
            except (ValueError, RecursionError):
                continue
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
        elif row[0] == "step" and len(row) == 4:
            answers.steps.setdefault(first + len(answers.tests), []).append(row[1:])
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
    if run.cause == 0 and run.status - 128 in FATAL_SIGNALS:  # how a shell says it; see syscalls.die_by_signals
        return TestResult(False, signal.Signals(run.status - 128).name.lower(), signal.strsignal(run.status - 128))
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


class Gate:
    """Children run side by side, but for one that has to be alone: among the threads of this process, and the processes that share a file.

    Between processes two bytes of that file are locked (POSIX locks, which a process loses when it ends): one is held by whoever is
    about to start, the other, shared, while a child runs. Who wants to be alone keeps the first, so that it gets its turn.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.count = 0
        self.waiting = 0
        self.file: int | None = None

    def shared_file(self) -> int:
        """The descriptor of a file that other processes can be given for `share`."""
        with self.changed:
            if self.file is None:
                if hasattr(os, "memfd_create"):
                    self.file = os.memfd_create("gate")
                else:  # a judge outside Linux, whose programs run in Docker
                    with tempfile.TemporaryFile() as file:
                        self.file = os.dup(file.fileno())
                if self.count:  # no one else can have it yet
                    fcntl.lockf(self.file, fcntl.LOCK_SH if self.count > 0 else fcntl.LOCK_EX, 1, 1)
            return self.file

    def share(self, file: int) -> None:
        """Heed the other processes that have this file."""
        self.file = file

    def enter(self, alone: bool) -> None:
        """Before a child starts; alone: wait until the others have ended, and let none start until this one has ended."""
        with self.changed:
            if alone or self.waiting or self.count < 0:
                self.waiting += alone
                self.changed.wait_for(lambda: self.count == 0 if alone else self.count >= 0 and not self.waiting)
                self.waiting -= alone
            if self.file is not None:
                if self.count and self._another_waits():
                    self.changed.wait_for(lambda: self.count == 0)
                if self.count == 0:  # nobody of this process is inside and would have to come out meanwhile
                    fcntl.lockf(self.file, fcntl.LOCK_EX, 1, 0)
                    fcntl.lockf(self.file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, 1, 1)
                    if not alone:
                        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, 0)
            self.count = -1 if alone else self.count + 1

    def leave(self, alone: bool) -> None:
        """After it."""
        with self.changed:
            self.count = 0 if alone else self.count - 1
            if self.count == 0 and self.file is not None:
                fcntl.lockf(self.file, fcntl.LOCK_UN, 2, 0)
            if alone or self.waiting or self.count == 0:
                self.changed.notify_all()

    def _another_waits(self) -> bool:
        """Whether a process waits until this one has nobody inside."""
        assert self.file is not None
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        except OSError:
            return True
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, 0)
        return False


ALONE = Gate()
"""Of all workers of this process, and of the judging processes that it started (crew.py)."""
_ASLEEP = 0.005
"""Share of the wall time that a program which only waits computes at most."""


def _text(shown: bytes) -> str:
    """What a legacy program's StringIO held, lone surrogates included."""
    try:
        return shown.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # written around it
        return shown.decode("utf-8", "replace")


class Judging:
    """Judges one job on one worker."""

    def __init__(self, worker: Worker, job: Job, checker: Checker, stop_at_first_failure: bool, prelude: Prelude = "none") -> None:
        self.worker, self.job, self.checker, self.stop = worker, job, checker, stop_at_first_failure
        self.tests = job.tests
        self.legacy = checker == "legacy" and isinstance(self.tests, InputOutputTests)
        """The whole pipeline of the official checker; it has none for asserts. It stops by a rule of its own."""
        self.with_prelude = self.legacy or prelude == "apps"
        self.rewritten: legacy.Rewritten | None = None
        self.refused: TestResult | None = None
        """A legacy program that failed while it was loaded: a compile error there."""
        self.solution = False
        self.pieces: list[str] = []
        self.expected: list[Any] = []
        self.waiting: list[tuple[int, Any]] = []
        """(test, output) for the special judge."""
        self.only_values = False
        """The tests are calls whose code the compiler has made."""
        self.n_tests = len(job.tests)
        self.cpu, self.memory = 0.0, 0.0
        self.assertions: Assertions | None = None
        self.inputs: list[Any] = self._inputs() if isinstance(job.tests, InputOutputTests) else []

    def _inputs(self) -> list[Any]:
        """What the child gets of every test: never what is expected."""
        assert isinstance(self.tests, InputOutputTests)
        if len(self.tests.inputs) != len(self.tests.outputs):
            raise DataError(f"job {self.job.id!r}: {len(self.tests.inputs)} inputs but {len(self.tests.outputs)} outputs")
        self.expected = self.tests.outputs
        if self.tests.kind == "stdin":
            for index, text in enumerate(self.tests.inputs):
                if len(text) > self.worker.limits.max_file_mb << 20:
                    raise DataError(f"job {self.job.id!r}: input {index} has {len(text) >> 20} MB; raise max_file_mb")
            return self.tests.inputs if self.legacy else [text.encode("utf-8", "surrogatepass") for text in self.tests.inputs]
        if not self.job.entry_point:
            raise DataError(f"job {self.job.id!r}: tests of kind 'call' need entry_point, the name of the function")
        given = self.tests.inputs
        if self.legacy:
            given = [legacy.cast_arguments(arguments) if isinstance(arguments, list | str) else arguments for arguments in given]
            self.expected = [legacy.cast_expected(value) for value in self.tests.outputs]
        if not all(isinstance(arguments, list | tuple) for arguments in given):
            raise DataError(f"job {self.job.id!r}: tests of kind 'call' need a list of arguments as every input")
        return [[codec.plain(argument) for argument in arguments] for arguments in given]

    def _run(self, first: int, last: int) -> tuple[Run, Answers]:
        setup = self.assertions.setup(first, last) if self.assertions is not None else ""
        if self.only_values and not setup and all("values" in test for test in self.inputs[first:last]):
            job: dict[str, Any] = {"kind": "values", **self.code, "first": first, "last": last, "stop_at_first_error": self.stop}
            return self._retried(job, first, last - first, self.assertions.right(first, last) if self.assertions else None)
        job = {
            "kind": f"legacy_{self.tests.kind}" if self.legacy else self.tests.kind,
            **self.code,
            "inputs": self.inputs[first:last],
            "first": first,
            "stop_at_first_error": self.stop,
            "entry_point": self.job.entry_point,
            "prelude": self.pieces,
        }
        if self.legacy:
            job["solution"] = self.solution
            job["entry_point"] = self.job.entry_point if self.tests.kind == "call" else "code"
        if self.assertions is not None:
            job["setup"] = setup
        return self._retried(job, first, last - first)

    def _retried(self, job: dict[str, Any], first: int, tests: int, right: bytes | None = None) -> tuple[Run, Answers]:
        """Run one child; once more where the first run says nothing about the program. `right`: all that one writes which is.

        A program that the backstop killed although it had been computing runs again while nobody else of `ALONE` does.
        """
        starved = False
        for attempt in (1, 2):
            alone, died = starved, False
            ALONE.enter(alone)
            try:
                run = self.worker.run(job, tests)
            except WorkerDiedError as error:
                if attempt == 2:
                    raise InfrastructureError(
                        f"job {self.job.id!r}: the sandbox worker died twice ({error}); see the kernel's log"
                    ) from None
                died = True
            finally:
                ALONE.leave(alone)
            if died:
                self.worker.restart()
                continue
            # It waited, or it got no processor: who computed in so much time waits no longer once it is alone.
            starved = run.cause == 2 and run.cpu_seconds > _ASLEEP * self.worker.limits.wall
            killed = run.cause == 0 and run.status == -signal.SIGKILL
            harness = run.cause == 0 and run.status == 70
            if attempt == 1 and (starved or killed or harness):
                if harness and not self.worker.works():  # a program can end with this status too
                    self.worker.restart()
                continue
            break
        answers = _RIGHT if run.answers == right else read_answers(run.answers, first)
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
        if self.with_prelude:
            if legacy.uses_numpy(source):
                self.worker = self.worker.with_numpy() or self.worker
            self.pieces = legacy.prelude(source, self.worker.numpy)
        if self.legacy:  # a byte order mark stays: there it was a syntax error
            self.rewritten = (legacy.rewrite_call if self.tests.kind == "call" else legacy.rewrite_stdin)(text)
            self.solution = self.tests.kind == "call" and "class Solution" in text
            source = self.rewritten.text
        if isinstance(self.tests, AssertTests):
            self.assertions = Assertions(self.tests, self.job.entry_point, self._evaluate)
            self.inputs = self.assertions.inputs
        compiled = self.worker.compile(source, self.assertions.expressions() if self.assertions else ())
        if isinstance(compiled, list):
            return self._outcome([_error(compiled) or TestResult(False, "syntaxerror")], compiled=False)
        if compiled is None:
            # Where the program is not executed, it cannot say that it does not compile.
            run, answers = self._retried({"kind": "compile", "source": source}, 0, 1)
            if not answers.compiled:
                refused = answers.refused or _end_of(run) or TestResult(False, "systemexit", "the compiler ended")
                return self._outcome([refused], compiled=False)
        self.code: dict[str, Any] = {"source": source} if compiled is None else {"code": compiled.code}
        self.only_values = compiled is not None and compiled.tests and self.assertions is not None and not self.pieces
        if not self.legacy and any(word in source for word in _LOOKS_AT_ITSELF):
            self.code["file"] = source
        results: list[TestResult] = []
        # Opening it empties the file, and with it the output of the tests before.
        alone = "/dev/stdout" in source and not self.legacy
        while len(results) < self.n_tests:
            first = len(results)
            found, finished = self._some(first, first + 1 if alone else self.n_tests)
            if self.refused is not None:
                return self._outcome([self.refused], compiled=False)
            if self.tests.kind == "stdin" and not alone and first == 0 and not self.legacy:
                doubt = next((index for index, result in enumerate(found) if not result.passed), 0)
                if doubt:
                    # Right on the first test, not on a later one: in case something stayed behind from one test to the next,
                    # the first failure is run in a child of its own. If it stands, so do the others.
                    again, _ = self._some(doubt, doubt + 1)
                    if again != found[doubt : doubt + 1]:
                        found, finished, alone = [*found[:doubt], *again], False, True
            results += found
            if finished or self._stops(results):
                break
        if (self.tests.kind == "stdin") if self.legacy else self.stop:
            failing = next((index for index, result in enumerate(results) if not result.passed), self.n_tests)
            results = results[: failing + 1]
        return self._outcome(results)

    def _stops(self, results: list[TestResult]) -> bool:
        """Whether the tests after these do not count. The legacy checker goes on after a wrong answer of a call, not of a script."""
        if self.legacy and self.tests.kind == "call":
            return any(result.error_class is not None for result in results)
        return (self.stop or self.legacy) and any(not result.passed for result in results)

    def _outcome(self, results: list[TestResult], compiled: bool = True) -> Outcome:
        if self.rewritten is not None:
            line = self.rewritten.line
            results = [replace(result, error_line=line(result.error_line)) if result.error_line else result for result in results]
        return aggregate(
            results,
            self.n_tests,
            compiled=compiled,
            cpu_seconds=self.cpu,
            memory_mb=max(0.0, self.memory),
            checker=self.checker,
            backend=self.worker.backend,
        )

    def _some(self, first: int, last: int) -> tuple[list[TestResult], bool]:
        """Run tests first..last in one child; returns (results of one or more tests, whether to stop there)."""
        run, answers = self._run(first, last)
        end = _end_of(run)
        if end is not None and self._too_big(run.memory_mb):
            end = self._memory_error()
        if (self.tests.kind != "stdin" or self.legacy) and not answers.loaded:
            never = TestResult(False, "systemexit", "the program ended before it could be called")
            error = answers.load_error or end or never
            if self.legacy:
                self.refused = error
            return [error], True
        if self.assertions is not None:
            found = (
                self.assertions.compare(answers.tests, answers.steps, first, last, end)
                if answers is not _RIGHT
                else [_PASSED] * self.n_tests
            )
            if found is None:
                return self._some(first, last)
            results, start = found, 0
        else:
            results, start = self._compare(run, answers)
        reached = first + len(results)
        if reached < last and not (answers.complete and results):
            if (self.stop or self.legacy) and results and results[-1].error_class is not None:
                return results, True
            if self.tests.kind == "stdin" and end is None and not self.legacy:
                results.append(self._compare_output(reached, start, run.output_size))
            else:
                results.append(end or TestResult(False, "systemexit", "the program ended before it answered"))
        if self.waiting:  # only now: the next child takes the place of this one's output
            self._ask_special_judge(results, first)
        if end is None and run.cpu_seconds > self.worker.limits.cpu_seconds * (last - first + 1):
            # Its own time is watched while it runs; this is what the processes that it started and waited for have used.
            results[-1] = TestResult(False, "timeoutexception", "CPU time limit reached, with its child processes")
        if self._too_big(run.memory_mb) and not any(result.error_class for result in results):
            results[-1] = self._memory_error()
        # After a time-out the rest is not run: the outcome is settled, and every further test would cost the limit again.
        return results, run.cause != 0 and end is results[-1]

    def _too_big(self, memory_mb: float) -> bool:
        return memory_mb - self.worker.memory_base > self.worker.limits.memory_mb

    def _memory_error(self) -> TestResult:
        return TestResult(False, "memoryerror", f"more than {self.worker.limits.memory_mb} MB")

    def _compare(self, run: Run, answers: Answers) -> tuple[list[TestResult], int]:
        """Results of the answered tests, and where the output of the last of them ends."""
        assert isinstance(self.tests, InputOutputTests)
        results: list[TestResult] = []
        start = 0
        for index, answer, error in answers.tests:
            if index >= self.n_tests:
                break
            result = _error(error)
            if self.tests.kind == "stdin":
                end = answer if isinstance(answer, int) and start <= answer <= run.output_size else start
                if result is None or end - start > self.worker.limits.max_output_mb << 20:
                    result = self._compare_output(index, start, end)
                start = end
            elif result is None:
                expected = self.expected[index]
                if self.legacy:
                    right = isinstance(answer, list) and len(answer) == 2 and legacy_value(expected, *answer)
                elif self.tests.special_judge is not None:
                    self.waiting.append((index, answer))
                    right = False
                else:
                    right = equal_value(expected, answer)
                result = _PASSED if right else _FAILED
            results.append(result)
        return results, start

    def _compare_output(self, index: int, start: int, end: int) -> TestResult:
        if end - start > self.worker.limits.max_output_mb << 20:
            return TestResult(False, "outputlimitexceeded", f"more than {self.worker.limits.max_output_mb} MB of output")
        assert isinstance(self.tests, InputOutputTests)
        shown, expected = self.worker.output(start, end), self.expected[index]
        if self.legacy:
            right = legacy_output(_text(shown), expected)
        elif self.tests.special_judge is not None:
            self.waiting.append((index, shown.decode("utf-8", "replace")))
            right = False
        else:
            right = strict_output(shown, expected)
        return _PASSED if right else _FAILED

    def _ask_special_judge(self, results: list[TestResult], first: int) -> None:
        """The problem's own judge on the outputs that wait for it, in a child without the program; `results[0]` is test `first`.

        Raises:
            DataError: naming the problem, when that judge is wrong itself: it raises, runs too long or returns no bool.
        """
        assert isinstance(self.tests, InputOutputTests)
        waiting, self.waiting = self.waiting, []
        tests = [
            {"input": codec.plain(self.tests.inputs[index]), "output": output, "expected": codec.plain(self.tests.outputs[index])}
            for index, output in waiting
        ]
        spent = self.cpu, self.memory
        run, answers = self._retried({"kind": "special", "source": self.tests.special_judge, "inputs": tests, "first": 0}, 0, len(tests))
        self.cpu, self.memory = spent
        for number, (index, _) in enumerate(waiting):
            _, answer, error = answers.tests[number] if number < len(answers.tests) else (number, None, None)
            if type(answer) is bool and error is None:
                results[index - first] = _PASSED if answer else _FAILED
                continue
            wrong = _error(error) or answers.load_error or _end_of(run) or TestResult(False, "systemexit", "it ended without an answer")
            problem = self.job.id[0] if isinstance(self.job.id, tuple) else self.job.id
            line = f", line {wrong.error_line}" if wrong.error_line else ""
            raise DataError(f"{problem}: the special judge failed on test {index}: {wrong.error_class}: {wrong.error_message}{line}")

    def _evaluate(self, setup: str, tests: list[dict[str, Any]]) -> tuple[list[list[Any]], TestResult | None]:
        """The tests' own code over what a program returned, in a child without the program."""
        job = {"kind": "evaluate", "setup": setup, "inputs": tests, "first": 0}
        run, answers = self._retried(job, 0, len(tests))
        return answers.tests[: len(tests)], _end_of(run)


os.register_at_fork(after_in_child=ALONE.__init__)  # type: ignore[misc]


def judge_on(worker: Worker, job: Job, checker: Checker, stop_at_first_failure: bool, prelude: Prelude = "none") -> Outcome:
    """Judge one job on one worker, which is replaced if it dies on the way."""
    return Judging(worker, job, checker, stop_at_first_failure, prelude).judge()
