"""Programs beside each other: inputs made from the example tests, and what programs answer on them."""

from __future__ import annotations

from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from coderl.config import RunTestsConfig
from coderl.problems import InputOutputTests, Problem, write_problems
from coderl.records import Sample, read_outcomes, write_samples
from coderl.sandbox import Job, Limits, behaviour_of, made_inputs, observe_many
from coderl.sandbox.stage import run_tests

STDIN = InputOutputTests("stdin", ["1 6 -2\n", "4 4 5 2\n"], ["", ""])
CALL = InputOutputTests("call", [[[1, 6, -2], "ab"], [[4, 4], "c"]], [None, None])


def test_made_inputs_have_the_form_of_the_given_ones_and_are_new() -> None:
    lines = made_inputs(STDIN, 40, Random(1))
    assert lines == made_inputs(STDIN, 40, Random(1))
    assert len(set(lines)) > 30
    assert all(line.endswith("\n") and all(-7 <= int(word) <= 7 for word in line.split()) and line.split() for line in lines)
    assert {len(line.split()) for line in lines} > {2, 3, 4, 5}
    calls = made_inputs(CALL, 40, Random(1))
    assert all(len(arguments) == 2 and isinstance(arguments[0], list) and isinstance(arguments[1], str) for arguments in calls)
    assert all(type(number) is int for arguments in calls for number in arguments[0])
    assert made_inputs(InputOutputTests("call", [], []), 3, Random(0)) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(st.lists(JSON, max_size=3), min_size=1, max_size=3), st.lists(st.text(), min_size=1, max_size=3), st.integers())
def test_inputs_can_be_made_from_anything(calls: list[list[object]], texts: list[str], seed: int) -> None:
    assert len(made_inputs(InputOutputTests("call", calls, [None] * len(calls)), 5, Random(seed))) == 5
    assert all(isinstance(made, str) for made in made_inputs(InputOutputTests("stdin", texts, texts), 5, Random(seed)))


def test_programs_that_compute_the_same_answer_the_same() -> None:
    inputs = ["3 1 2\n", "5\n"]
    tests = InputOutputTests("stdin", inputs, ["", ""])
    texts = ["a=list(map(int,input().split()))\nprint(*sorted(a))", "print(*sorted(int(x) for x in input().split()), '')", "print(input())",
             "x = = 1", "input()\n1/0", "import os\nprint(7, flush=True)\nos._exit(0)"]  # fmt: skip
    found = dict(observe_many([Job(i, text, tests) for i, text in enumerate(texts)], Limits(cpu_seconds=1)))
    assert found[0] == found[1] == ["1 2 3", "5"]
    assert found[2] == ["3 1 2", "5"]
    assert found[3] == ["none", "none"]
    assert found[4] == ["error zerodivisionerror"] * 2
    assert behaviour_of(found[0]) == behaviour_of(found[1]) != behaviour_of(found[2])
    calls = InputOutputTests("call", [[[3, 1]], [[]]], [None, None])
    both = dict(observe_many([Job(i, f"def f(a):\n    return {body}", calls, "f") for i, body in enumerate(["sorted(a)", "a[0]"])]))
    assert both == {0: ["[1,3]", "[]"], 1: ["3", "error indexerror"]}


def test_behaviour_stands_beside_the_example_outcome_of_what_passed(tmp_path: Path) -> None:
    tests = InputOutputTests("stdin", ["3 1\n"], ["1 3\n"])
    problem = Problem("a", "custom", "test", "introductory", "Sort.", "", None, [], tests, tests)
    write_problems(tmp_path / "p.jsonl", [problem])
    texts = ["print(*sorted(map(int, input().split())))", "print(*sorted(map(int, input().split())), '')", "print('1 3')", "print(2)"]
    write_samples(tmp_path / "s.jsonl", [Sample("a", i, text) for i, text in enumerate(texts)])
    config = RunTestsConfig(cpu_seconds=1, behaviour_inputs=6)
    for suite in ("example", "hidden"):
        run_tests(
            config=config, problems=tmp_path / "p.jsonl", samples=[tmp_path / "s.jsonl"], suite=suite, output=tmp_path / f"{suite}.jsonl"
        )  # type: ignore[arg-type]
    names = [row.behaviour for row in read_outcomes(tmp_path / "example.jsonl").values()]
    assert names[0] is not None
    assert names[0] == names[1] != names[2]
    assert names[3] is None
    assert {row.behaviour for row in read_outcomes(tmp_path / "hidden.jsonl").values()} == {None}
