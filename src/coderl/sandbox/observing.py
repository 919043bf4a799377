"""What programs answer on inputs that nobody has an answer for: programs are compared with each other, not with a truth.

Programs that agree on many inputs are likely the same function, and the largest group among those that pass the example tests
is more often right than a program drawn at random (AlphaCode's clustering, CodeT; spec 10.5). The inputs are made here from
those of the example tests; hidden tests have no part in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from random import Random
from typing import Any

from coderl.problems import InputOutputTests
from coderl.sandbox.judging import Answers, Judging
from coderl.sandbox.outcome import Job, Prelude, TestResult, error_of
from coderl.sandbox.worker import Run, Worker

NO_ANSWER = "none"
"""Of a program that ended, or was ended, before this input."""
_INTEGER = re.compile(r"-?\d+")
_PASSED = TestResult(True)


def made_inputs(tests: InputOutputTests, count: int, rng: Random) -> list[Any]:
    """Inputs of the form of the given ones: each is a copy of one of them with some of its numbers, and its lists, changed.

    Numbers become other numbers of the example inputs, these plus or minus one, or random ones up to the greatest magnitude
    seen; lists, and lines of at least two integers, are sometimes repeated in part, cut or shuffled. An input that means
    nothing to the problem (a count that no longer fits its list) does no harm: programs that are equal fail on it equally.

    Args:
        tests: of kind stdin or call; only the inputs are read.
        count: how many.
        rng: decides all of it.
    """
    if not tests.inputs:
        return []
    numbers = sorted({number for given in tests.inputs for number in _integers(given)})
    made: list[Any] = []
    for index in range(count):
        given = tests.inputs[index % len(tests.inputs)]
        if tests.kind == "stdin":
            made.append("\n".join(_changed_line(line, numbers, rng) for line in given.split("\n")))
        else:
            made.append([_changed(argument, numbers, rng) for argument in given])
    return made


def _integers(given: Any) -> list[int]:
    if isinstance(given, bool):
        return []
    if isinstance(given, int):
        return [given]
    if isinstance(given, str):
        return [int(number) for number in _INTEGER.findall(given)[:1000] if len(number) < 20]
    if isinstance(given, list | tuple):
        return [number for item in given for number in _integers(item)]
    return [number for item in given.values() for number in _integers(item)] if isinstance(given, dict) else []


def _number(value: int, numbers: list[int], rng: Random) -> int:
    if rng.random() < 0.2 or not numbers:
        return value
    if rng.random() < 0.5:
        return rng.choice(numbers) + rng.choice((-1, 0, 0, 1))
    most = max(abs(numbers[0]), abs(numbers[-1]), 1)
    return rng.randint(-most if numbers[0] < 0 else 0, most)


def _reshaped(items: list[Any], rng: Random) -> list[Any]:
    """The items as they are, or longer, shorter or in another order; never empty."""
    way = rng.randrange(5)
    if way <= 1:
        return [*items, *(rng.choice(items) for _ in range(rng.randint(1, len(items) + 1)))]
    if way == 2:
        return items[: rng.randint(1, len(items))]
    return rng.sample(items, len(items)) if way == 3 else list(items)


def _changed(given: Any, numbers: list[int], rng: Random) -> Any:
    if isinstance(given, bool):
        return rng.random() < 0.5
    if isinstance(given, int):
        return _number(given, numbers, rng)
    if isinstance(given, float):
        return given if rng.random() < 0.2 else round(given * rng.uniform(-2, 2), 3)
    if isinstance(given, str):
        if _INTEGER.fullmatch(given) and len(given) < 20:
            return str(_number(int(given), numbers, rng))
        return "".join(_reshaped(list(given), rng)) if given else given
    if isinstance(given, list | tuple):
        return [_changed(item, numbers, rng) for item in _reshaped(list(given), rng)] if given else list(given)
    if isinstance(given, dict):
        return {key: _changed(item, numbers, rng) for key, item in given.items()}
    return given


def _changed_line(line: str, numbers: list[int], rng: Random) -> str:
    words = line.split(" ")
    if len(words) > 1 and all(_INTEGER.fullmatch(word) for word in words):
        words = _reshaped(words, rng)
    return " ".join(str(_number(int(w), numbers, rng)) if _INTEGER.fullmatch(w) and len(w) < 20 else w for w in words)


class _Observing(Judging):
    """Runs the tests and notes the answers instead of comparing them."""

    def __init__(self, worker: Worker, job: Job, prelude: Prelude) -> None:
        super().__init__(worker, job, "strict", stop_at_first_failure=False, prelude=prelude)
        self.answers: dict[int, str] = {}

    def _compare(self, run: Run, answers: Answers) -> tuple[list[TestResult], int]:
        results: list[TestResult] = []
        start = 0
        for index, answer, error in answers.tests:
            if index >= self.n_tests:
                break
            failure = error_of(error)
            if self.tests.kind == "stdin":
                end = answer if isinstance(answer, int) and start <= answer <= run.output_size else start
                if failure is None:
                    failure = self._compare_output(index, start, end)
                start = end
            elif failure is None:
                self.answers[index] = json.dumps(answer, sort_keys=True, separators=(",", ":"))
                failure = _PASSED
            if failure.error_class is not None:
                self.answers[index] = f"error {failure.error_class}"
            results.append(failure)
        return results, start

    def _compare_output(self, index: int, start: int, end: int) -> TestResult:
        if end - start > self.worker.limits.max_output_mb << 20:
            return TestResult(False, "outputlimitexceeded", f"more than {self.worker.limits.max_output_mb} MB of output")
        self.answers[index] = " ".join(self.worker.output(start, end).decode("utf-8", "replace").split())
        return _PASSED


def observe_on(worker: Worker, job: Job, prelude: Prelude = "none") -> list[str]:
    """What a program answers on each of the job's inputs, as text: printed words, a returned value in JSON, or "error <class>".

    The job's expected outputs are not read, but there have to be as many as inputs. A program that does not compile, or ends
    early, has NO_ANSWER on the inputs it did not reach.
    """
    observed = _Observing(worker, job, prelude)
    observed.judge()
    return [observed.answers.get(index, NO_ANSWER) for index in range(observed.n_tests)]


def behaviour_of(answers: list[str]) -> str:
    """A short name of what a program answered: equal for programs that answered alike on every input."""
    return hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:16]
