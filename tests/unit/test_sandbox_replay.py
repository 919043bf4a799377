"""Tests that run without the program, and what is kept away from the program when they do."""

from __future__ import annotations

from typing import Any

import pytest

from coderl.problems import AssertTests
from coderl.sandbox import asserts, judge
from coderl.sandbox.assertions import Assertions
from coderl.sandbox.inside import codec, replay
from coderl.sandbox.outcome import Limits, TestResult

CHECK = "def check(candidate):\n    for i in range(3):\n        assert candidate(i) == i * 2, 'message'\n"


def answers(calls: list[Any], function: Any) -> list[Any]:
    """A transcript as a program would write it."""
    return [[call, codec.plain(function(*[codec.value_of(form) for _, form in call[1]])), None, []] for call in calls]


def test_first_run_collects_every_call() -> None:
    reply = replay.run(CHECK, "check(f)", ["f"], [], {})
    assert reply == ["calls", 0, [[["name", "f"], [["v", number]], []] for number in range(3)]]


@pytest.mark.parametrize(("factor", "held"), [(2, True), (3, False)])
def test_verdict_over_a_transcript(factor: int, held: bool) -> None:
    _, _, calls = replay.run(CHECK, "check(f)", ["f"], [], {})
    assert replay.run(CHECK, "check(f)", ["f"], answers(calls, lambda x: x * factor), {}) == ["verdict", held, None]


def test_calls_that_depend_on_answers_are_references() -> None:
    setup = "def check(c):\n    x = 'ab'\n    assert c(g(x)) == x"
    _, _, calls = replay.run(setup, "check(f)", ["f", "g"], [], {})
    assert calls == [[["name", "g"], [["v", "ab"]], []], [["name", "f"], [["r", ["ref", 0]]], []]]
    done = [[calls[0], "ba", None, []], [calls[1], "ab", None, []]]
    assert replay.run(setup, "check(f)", ["f", "g"], done, {}) == ["verdict", True, None]


def test_a_transcript_that_does_not_fit_is_not_believed() -> None:
    _, _, calls = replay.run(CHECK, "check(f)", ["f"], [], {})
    transcript = answers(calls, lambda x: x * 2)
    transcript[1][0] = [["name", "f"], [["v", 7]], []]
    assert replay.run(CHECK, "check(f)", ["f"], transcript, {})[:2] == ["calls", 1]


def test_a_function_for_the_program_cannot_be_replayed() -> None:
    assert replay.run("", "assert f(lambda x: x) == 1", ["f"], [], {}) == ["unsupported"]


@pytest.mark.parametrize(
    ("statement", "setup", "texts", "entries"),
    [
        ("check(f)", "def check(c):\n    assert c(1) == 2\n    assert c(2, k=3) == 4, 'x'", ("_entry_0(1)", "_entry_0(2, k=3)"), ("f",)),
        (
            "check(Solution().f)",
            "def check(c):\n    'doc'\n    print\n    assert True\n    assert not c(1)",
            ("_entry_0(1)",),
            ("Solution().f",),
        ),
        ("assert f(1) == 1; assert f(2) == 2", "", ("f(1)", "f(2)"), ()),
        ("def t(c):\n    assert c(1)\nt(f)", "", ("_entry_0(1)",), ("f",)),
        ("assert f(1) == answer", "answer = [1]", ("f(1)",), ()),
        ("assert f(1).x == 3", "", ("f(1).x",), ()),
    ],
)
def test_plans(statement: str, setup: str, texts: tuple[str, ...], entries: tuple[str, ...]) -> None:
    found = asserts.plan(statement, setup)
    assert found is not None
    assert (found.texts, found.entries) == (texts, entries)


@pytest.mark.parametrize(
    "setup",
    [
        "def check(c):\n    for i in range(3):\n        assert c(i)",
        "def check(c, d):\n    assert c(1)",
        "check = print",
        "@x\ndef check(c):\n    assert c(1)",
    ],
)
def test_what_is_more_than_asserts_is_not_taken_apart(setup: str) -> None:
    assert asserts.plan("check(f)", setup) is None


def test_a_function_under_test_may_have_the_name_of_a_builtin() -> None:
    found = asserts.plan("assert sum(1, 2) == 3", "", "sum")
    assert found is not None
    assert found.texts == ("sum(1, 2)",)


@pytest.mark.parametrize(
    ("statements", "setup"),
    [
        (["check(f)"], "def check(c):\n    assert c(1) == 'secret'"),
        (["check(f)"], "def check(c):\n    for i in range(3):\n        assert c(i) == 'secret'"),
        (["assert f(1) == answer"], "answer = 'secret'"),
        (["assert close(f(1))"], "def close(x):\n    return x == 'secret'"),
        (["assert f(1) == 'secret'", "assert [f(i) for i in range(2)] == ['secret', 'secret']"], ""),
    ],
)
def test_nothing_expected_goes_to_the_program(statements: list[str], setup: str) -> None:
    def evaluate(_: str, tests: list[dict[str, Any]]) -> tuple[list[list[Any]], TestResult | None]:
        (test,) = tests
        return [[0, replay.run(test["setup"], test["replay"], test["names"], test["transcript"], {}), None]], None

    found = Assertions(AssertTests(statements, setup), "f", evaluate)
    sent = repr((found.inputs, found.setup(0, len(statements))))
    assert "secret" not in sent
    assert "f" in sent


def test_what_the_program_needs_of_the_set_up_is_kept() -> None:
    setup = "import math\nclass Node: pass\nroot = Node()\nanswer = 7\ndef check(c):\n    assert c(root) == 7"
    kept = asserts.setup_beside_program(setup, frozenset({"check"}), ("f(root)",), ())
    assert kept.split("\n") == ["import math", "", "class Node:", "    pass", "root = Node()"]


@pytest.mark.parametrize("value", [{1: (2.5, None)}, range(3), [b"x", {1}, frozenset()], 1 << 100, -(1 << 63), float("inf")])
def test_values_survive_the_channel(value: object) -> None:
    assert codec.value_of(codec.plain(value)) == value


def test_a_check_may_be_long() -> None:
    lines = "".join(f"    assert candidate({number}) == {number * 2}\n" for number in range(500))
    tests = AssertTests(["check(f)"], "def check(candidate):\n" + lines)
    assert judge("def f(x): return x * 2", tests, Limits()).outcome == "passed_test"
    assert judge("def f(x): return x * 2 - x // 499", tests, Limits()).outcome == "failed_test"
