"""Assert tests of one program: what its process is asked, and what the answers mean. Verdicts are made out of its reach.

Three ways, the first that a test allows (asserts.py takes it apart):

split     the calls in it are evaluated beside the program, the rest over the values that come back
replay    the test runs in a child without the program, over a transcript of the program's answers (inside/replay.py)
guarded   the test runs beside the program: for tests that hand the program functions or objects of their own
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from coderl.problems import AssertTests
from coderl.sandbox import asserts
from coderl.sandbox.checkers import PYTHON, equal_value
from coderl.sandbox.outcome import TestResult, error_of

ROUNDS = 8
"""How often the calls of a replayed test are made again because the test wanted others than were foreseen."""
_FAILED, _PASSED = TestResult(False), TestResult(True)
_NEVER = TestResult(False, "systemexit", "the program ended before it answered")

Evaluate = Callable[[str, list[dict[str, Any]]], tuple[list[list[Any]], TestResult | None]]
"""(set-up code, tests) -> rows [index, answer, error] of a child without the program, and the error that stands for its early end."""


@dataclass(frozen=True)
class _Asked:
    """What all programs of a problem are asked in the same way."""

    plans: tuple[asserts.Plan | None, ...]
    inputs: tuple[dict[str, Any] | None, ...]
    """Of the split tests; None for those that need more than a look at their text."""
    expressions: tuple[tuple[str, ...], ...]
    setup: str
    """Set-up code for the program's process, unless a test has to run there."""
    answers: tuple[list[Any] | None, ...]
    """Of the tests that are one equality: the row of values that is right at the first look."""
    right: bytes | None
    """All that a child writes whose answers are these."""


@lru_cache(maxsize=1024)
def _asked(statements: tuple[str, ...], setup: str, entry_point: str | None) -> _Asked:
    plans = [asserts.plan(statement, setup, entry_point) for statement in statements]
    shared = asserts.shared_constants(tuple(text for found in plans if found for text in found.texts), setup)
    if shared:  # handed to the program, which may have changed them: what they are is for its process to say
        plans = [asserts.plan(statement, setup, entry_point, shared) for statement in statements]
    inputs: list[dict[str, Any] | None] = []
    answers: list[list[Any] | None] = []
    for found in plans:
        single = found is not None and len(found.splits) == 1 and not found.entries
        answers.append(found.splits[0].answer if found is not None and single else None)
        if found is None:
            inputs.append(None)
        elif single:
            inputs.append({"values": found.splits[0].calls})
        else:
            inputs.append({"steps": list(found.texts), "entries": list(found.entries)})
    split = [found for found in plans if found]
    beside = asserts.setup_beside_program(
        setup,
        frozenset().union(*(found.checks for found in split)),
        tuple(text for found in split for text in (*found.texts, *found.entries)),
        tuple(statement for statement, found in zip(statements, plans, strict=True) if found is None),
    )
    return _Asked(
        tuple(plans), tuple(inputs), tuple((test or {}).get("values", ()) for test in inputs), beside, tuple(answers), _right(answers)
    )


def _right(answers: list[list[Any] | None]) -> bytes | None:
    if None in answers:
        return None
    lines = ['["loaded",null]', *(json.dumps([index, answer, None]) for index, answer in enumerate(answers)), '["end"]', ""]
    return "\n".join(lines).encode()


class Assertions:
    """State of the assert tests of one job."""

    def __init__(self, tests: AssertTests, entry_point: str | None, evaluate: Evaluate) -> None:
        self.tests, self.entry_point, self.evaluate = tests, entry_point, evaluate
        self.rounds = 0
        self.asked = _asked(tuple(tests.asserts), tests.setup, entry_point)
        self.plans = self.asked.plans
        self.words: dict[int, str] = {}
        """What the tests that run beside the program answer with, by index."""
        self.inputs = [found or self._input(index) for index, found in enumerate(self.asked.inputs)]

    def right(self, first: int, last: int) -> bytes | None:
        """All that a child of all tests writes which is right everywhere: the most frequent case needs no reading."""
        return self.asked.right if first == 0 and last == len(self.inputs) else None

    def expressions(self) -> tuple[tuple[str, ...], ...]:
        """What is evaluated beside the program, of every test."""
        return self.asked.expressions

    def _input(self, index: int) -> dict[str, Any]:
        calls = self._foreseen(index)
        return self._guarded(index) if calls is None else {"calls": calls}

    def _guarded(self, index: int) -> dict[str, Any]:
        word = self.words[index] = secrets.token_hex(16)
        return {"run": self.tests.asserts[index], "word": word}

    def _foreseen(self, index: int) -> list[Any] | None:
        """The calls that a replayed test makes as far as they do not depend on answers; None if it cannot be replayed."""
        key = (self.tests.asserts[index], self.tests.setup, self.entry_point)
        if key not in _FORESEEN:
            if len(_FORESEEN) > 4096:
                _FORESEEN.clear()
            reply = self._replayed(index, [])
            _FORESEEN[key] = reply[2] if isinstance(reply, list) and reply[0] == "calls" else None
        return _FORESEEN[key]

    def _replayed(self, index: int, transcript: list[Any]) -> list[Any] | TestResult:
        """One run of the test code over a transcript."""
        statement, setup = self.tests.asserts[index], self.tests.setup
        names = asserts.foreign_names(statement, setup, self.entry_point)
        if names is None:
            return ["unsupported"]
        test = {"replay": statement, "names": list(names), "transcript": transcript, "setup": f"{asserts.COMMON_IMPORTS}\n{setup}"}
        rows, end = self.evaluate("", [test])
        if not rows:
            return end or _FAILED
        _, answer, error = rows[0]
        return error_of(error) or (answer if isinstance(answer, list) and answer else _FAILED)

    def setup(self, first: int, last: int) -> str:
        """The set-up code for the program's process: all of it only where a test has to run there."""
        if any("run" in test for test in self.inputs[first:last]):
            return self.tests.setup
        return self.asked.setup

    def compare(
        self, rows: list[list[Any]], steps: dict[int, list[list[Any]]], first: int, last: int, end: TestResult | None
    ) -> list[TestResult] | None:
        """Results of the answered tests (the last may be one that the program did not survive); None: run the program again.

        Args:
            rows: [index, answer, error] of consecutive tests.
            steps: [value, error, changed arguments] of the calls of a test.
            first: index of the first test that was run.
            last: index behind the last one.
            end: what the early end of the child stands for.
        """
        if len(rows) == last - first and all(
            answer is not None and row[1] == answer and row[2] is None and "values" in test
            for row, answer, test in zip(rows, self.asked.answers[first:last], self.inputs[first:last], strict=True)
        ):
            return [_PASSED] * len(rows)
        verdicts: list[list[TestResult | tuple[asserts.Split, list[Any]]]] = []
        again = False
        answered = {row[0]: row for row in rows}
        for index in range(first, min(last, first + len(rows) + 1)):
            row = answered.get(index)
            if row is None and not steps.get(index):
                break
            error = error_of(row[2]) if row else end or _NEVER
            test = self.inputs[index]
            if "calls" in test:
                result = self._replay(index, steps.get(index, []), error)
                again |= result is None
                verdicts.append([result or _FAILED])
            elif "steps" in test:
                verdicts.append(self._parts(index, [step[0] for step in steps.get(index, [])], error))
            elif error is not None or row is None:
                verdicts.append([error or _FAILED])
            elif "run" in test:
                verdicts.append([_PASSED if row[1] == self.words[index] else _FAILED])
            else:
                verdicts.append(self._parts(index, row[1] if isinstance(row[1], list) else [], None))
            again |= "calls" not in test and self._objects(index, verdicts[-1])
        if again:
            self.rounds += 1
            return None
        return self._decided(verdicts)

    def _parts(self, index: int, values: list[Any], error: TestResult | None) -> list[TestResult | tuple[asserts.Split, list[Any]]]:
        """What each assert of a test says, up to the first that fails or has no answer."""
        plan = self.plans[index]
        assert plan is not None
        found: list[TestResult | tuple[asserts.Split, list[Any]]] = []
        position = 0
        for part in plan.splits:
            answers = values[position : position + len(part.calls)]
            position += len(part.calls)
            if len(answers) < len(part.calls):
                found.append(error or _FAILED)
                break
            if part.is_equality and equal_value(part.expected, answers[0], PYTHON):
                found.append(_PASSED)
            elif not part.is_equality or asserts.holds(answers[0], "x"):
                found.append((part, answers))
            else:
                found.append(_FAILED)
                break
        return found

    def _objects(self, index: int, parts: list[TestResult | tuple[asserts.Split, list[Any]]]) -> bool:
        """Whether a test does more with an object of the program than compare it; then it is replayed, where objects have stand-ins."""
        if any(not isinstance(part, TestResult) and asserts.holds(part[1], "o") for part in parts):
            calls = self._foreseen(index)
            if calls is not None:
                self.inputs[index] = {"calls": calls}
                return True
        return False

    def _replay(self, index: int, steps: list[list[Any]], end: TestResult | None) -> TestResult | None:
        """The verdict of a replayed test over what the program answered; None if it has to answer more."""
        calls = self.inputs[index]["calls"]
        transcript = [[call, *step] for call, step in zip(calls, steps, strict=False)]
        reply = self._replayed(index, transcript)
        if isinstance(reply, TestResult):
            return reply
        if reply[0] == "verdict":
            return error_of(reply[2]) or (_PASSED if reply[1] is True else _FAILED)
        if (
            reply[0] == "calls"
            and reply[1] == len(steps)
            and len(steps) < len(calls)
            and reply[2][: len(steps) + 1] == calls[: len(steps) + 1]
        ):
            return end or _NEVER  # the very call that the program did not survive
        if reply[0] != "calls":
            return _FAILED  # replayable but for what this program returned: an object where it is none of the program's to have one
        if self.rounds < ROUNDS:
            self.inputs[index] = {"calls": reply[2]}
        else:
            self.inputs[index] = self._guarded(index)
        return None

    def _decided(self, verdicts: list[list[TestResult | tuple[asserts.Split, list[Any]]]]) -> list[TestResult]:
        """One result per test: that of its first assert that is not passed."""
        open_parts = [part for parts in verdicts for part in parts if not isinstance(part, TestResult)]
        settled: list[TestResult] = []
        if open_parts:
            tests = [{"expression": part.expression, "values": values} for part, values in open_parts]
            rows, end = self.evaluate(f"{asserts.COMMON_IMPORTS}\n{self.tests.setup}", tests)
            settled = [error_of(row[2]) or (_PASSED if row[1] is True else _FAILED) for row in rows]
            settled += [end or _FAILED] * (len(open_parts) - len(settled))
        waiting = iter(settled)
        results = []
        for parts in verdicts:
            found = [part if isinstance(part, TestResult) else next(waiting) for part in parts]
            results.append(next((part for part in found if not part.passed), _PASSED))
        return results


_FORESEEN: dict[tuple[str, str, str | None], list[Any] | None] = {}
