"""The procedural benchmark: what its draw promises, checked on drawn problems and by running their solutions."""

from __future__ import annotations

import contextlib
import copy
import io
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.config import ConfigError, ProceduralConfig, load_run, validate
from coderl.problems import InputOutputTests, Problem
from coderl.problems.grammar import OUTPUTS, PHRASINGS, TRANSFORMS
from coderl.problems.procedural import GeneratedProblem, Pipeline, ProceduralBenchmark, degenerate, difficulty_order
from coderl.records import DataError

SHARES: Any = {"introductory": 0.4, "interview": 0.4, "competition": 0.2}


@pytest.fixture(scope="module")
def benchmark() -> ProceduralBenchmark:
    return ProceduralBenchmark(ProceduralConfig())


@pytest.fixture(scope="module")
def drawn(benchmark: ProceduralBenchmark) -> dict[str, list[GeneratedProblem]]:
    return {split: list(benchmark.problems(split, size, SHARES)) for split, size in (("train", 300), ("validation", 100), ("test", 200))}


def answers(program: str, tests: InputOutputTests, entry_point: str | None) -> list[Any]:
    """What a reference prints or returns for each test. Only our own generated code is run here, so no sandbox is needed."""
    results = []
    for given_input in tests.inputs:
        lines = iter(given_input.splitlines() if tests.kind == "stdin" else [])
        namespace: dict[str, Any] = {"input": lambda lines=lines: next(lines)}
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(program, namespace)
            value = namespace[entry_point](*copy.deepcopy(given_input)) if entry_point else None
        results.append(value if entry_point else printed.getvalue())
    return results


def both(problem: Problem) -> InputOutputTests:
    assert isinstance(problem.hidden_tests, InputOutputTests)
    assert isinstance(problem.example_tests, InputOutputTests)
    hidden, example = problem.hidden_tests, problem.example_tests
    return InputOutputTests(hidden.kind, example.inputs + hidden.inputs, example.outputs + hidden.outputs)


def test_the_grammar_has_16_transforms_and_6_outputs() -> None:
    assert len(TRANSFORMS) == 16
    assert len(OUTPUTS) == 6
    for operation in [*TRANSFORMS.values(), *OUTPUTS.values()]:
        assert len(set(operation.phrases)) == PHRASINGS == 3
    phrases = [phrase for transform in TRANSFORMS.values() for phrase in transform.phrases]
    assert len(set(phrases)) == len(phrases)  # a phrase means one operation


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=8), st.integers(2, 9))
@settings(max_examples=50, deadline=None)
def test_both_code_variants_of_each_operation_do_what_it_means(numbers: list[int], constant: int) -> None:
    for transform in TRANSFORMS.values():
        for code in transform.code:
            namespace = {"a": list(numbers)}
            exec("\n".join(code).format(v="a", c=constant), namespace)
            assert namespace["a"] == transform.apply(list(numbers), constant), transform.name
    for output in OUTPUTS.values():
        for expression in output.expressions:
            assert eval(expression.format(v="a"), {"a": list(numbers)}) == output.apply(list(numbers)), output.name


def test_a_problem_is_the_same_whatever_is_drawn_beside_it(
    benchmark: ProceduralBenchmark, drawn: dict[str, list[GeneratedProblem]]
) -> None:
    again = ProceduralBenchmark(ProceduralConfig())
    assert list(again.problems("train", 40, SHARES)) == drawn["train"][:40]
    last = drawn["test"][-1]
    assert again.problem("test", 199, last.problem.difficulty) == last  # type: ignore[arg-type]
    other = ProceduralBenchmark(ProceduralConfig(seed=1))
    assert next(other.problems("train", 1, SHARES)) != drawn["train"][0]


def test_no_composition_of_the_test_side_is_on_the_training_side(
    benchmark: ProceduralBenchmark, drawn: dict[str, list[GeneratedProblem]]
) -> None:
    compositions = {split: {item.pipeline.composition for item in items} for split, items in drawn.items()}
    corpus = {benchmark.corpus_file_and_pipeline(index)[1].composition for index in range(2000)}
    assert not compositions["test"] & (compositions["train"] | compositions["validation"] | corpus)
    assert len(compositions["test"]) > 50
    # The division is a property of the names: it holds for all compositions, drawn or not.
    assert all(benchmark.held_out(composition) for composition in compositions["test"])
    assert not any(benchmark.held_out(composition) for composition in compositions["train"] | compositions["validation"] | corpus)


def test_no_statement_and_no_hidden_test_of_the_mini_run_is_on_both_sides() -> None:
    """The very problems of config/runs/mini.yaml: statements, and hidden tests with their answers (inputs alone may meet by chance)."""
    run = load_run(Path(__file__).parents[2] / "config/runs/mini.yaml")
    benchmark = ProceduralBenchmark(run.procedural)
    sides = {
        name: [item.problem for item in benchmark.problems(name, run.problems[name].size or 0, run.problems[name].difficulty_shares)]
        for name in ("train", "test")
    }
    assert not {p.question for p in sides["train"]} & {p.question for p in sides["test"]}
    assert not {p.task_id for p in sides["train"]} & {p.task_id for p in sides["test"]}

    def suites(problems: list[Problem]) -> set[str]:
        found = set()
        for problem in problems:
            assert isinstance(problem.hidden_tests, InputOutputTests)
            found.add(repr((problem.hidden_tests.inputs, problem.hidden_tests.outputs)))
        return found

    assert len(suites(sides["test"])) == len(sides["test"])
    assert not suites(sides["train"]) & suites(sides["test"])
    corpus = {benchmark.corpus_file_and_pipeline(index)[0] for index in range(500)}
    for problem in sides["test"]:
        assert not any(solution + "\n" in corpus for solution in problem.solutions)


def test_constants_do_not_move_a_composition_to_the_other_side(benchmark: ProceduralBenchmark) -> None:
    for name in ("gt", "mul", "add", "mod"):
        sides = {benchmark.split_of(Pipeline(((name, constant), ("reverse", 0)), "list")) == "test" for constant in range(2, 10)}
        assert len(sides) == 1


def test_the_held_out_share_is_about_what_was_asked_for() -> None:
    compositions = [(first, second, output) for first in TRANSFORMS for second in TRANSFORMS for output in OUTPUTS]
    for share in (0.2, 0.5):
        held_out = sum(map(ProceduralBenchmark(ProceduralConfig(held_out_share=share)).held_out, compositions))
        assert held_out / len(compositions) == pytest.approx(share, abs=0.04)


def test_train_and_validation_share_no_pipeline(drawn: dict[str, list[GeneratedProblem]]) -> None:
    train, validation = ({item.pipeline for item in drawn[split]} for split in ("train", "validation"))
    assert not train & validation


def test_every_reference_passes_every_test(drawn: dict[str, list[GeneratedProblem]]) -> None:
    for item in [*drawn["train"][:150], *drawn["test"][:100]]:
        tests = both(item.problem)
        assert len(set(item.problem.solutions)) == 3
        for solution in item.problem.solutions:
            assert answers(solution, tests, item.problem.entry_point) == tests.outputs, item.problem.task_id


def test_example_tests_are_in_the_statement_and_hidden_ones_are_not(drawn: dict[str, list[GeneratedProblem]]) -> None:
    for item in drawn["test"]:
        problem = item.problem
        assert isinstance(problem.example_tests, InputOutputTests)
        assert isinstance(problem.hidden_tests, InputOutputTests)
        assert (len(problem.example_tests), len(problem.hidden_tests)) == (2, 10)
        block = ""
        for shown, answer in zip(problem.example_tests.inputs, problem.example_tests.outputs, strict=True):
            block += f"\nInput\n{shown[0] if problem.entry_point else shown.strip()}\nOutput\n{str(answer).strip()}"
        assert problem.question.endswith(block)
        hidden = [str(value) for value in problem.hidden_tests.inputs]
        assert len(set(hidden)) == 10
        assert not set(hidden) & {str(value) for value in problem.example_tests.inputs}


def test_no_drawn_problem_is_degenerate(drawn: dict[str, list[GeneratedProblem]]) -> None:
    for item in drawn["train"]:
        tests = item.problem.hidden_tests  # they decide, so they have to show every step without the help of the examples
        assert isinstance(tests, InputOutputTests)
        assert len({str(output) for output in tests.outputs}) >= 3
        assert all(str(output).strip() for output in tests.outputs)
        for skipped in range(len(item.pipeline.steps)):  # written again, apart from Pipeline
            changed = False
            for given_input, output in zip(tests.inputs, tests.outputs, strict=True):
                values = list(map(int, given_input.split())) if tests.kind == "stdin" else given_input[0]
                for position, (name, constant) in enumerate(item.pipeline.steps):
                    if position != skipped:
                        values = TRANSFORMS[name].apply(values, constant)
                if not values:
                    changed = True
                    continue
                answer = OUTPUTS[item.pipeline.output].apply(values)
                if tests.kind == "stdin":
                    changed |= " ".join(map(str, answer if isinstance(answer, list) else [answer])) + "\n" != output
                else:
                    changed |= answer != output
            assert changed, item.problem.task_id


@pytest.mark.parametrize(
    ("steps", "output"),
    [
        ((("reverse", 0),), "sum"),
        ((("negate", 0), ("square", 0)), "list"),
        ((("asc", 0), ("desc", 0)), "list"),
        ((("mul", 3),), "len"),
        ((("negate", 0), ("abs", 0), ("negate", 0), ("abs", 0)), "last"),
    ],
)
def test_a_pipeline_with_an_idle_step_is_degenerate(steps: tuple[tuple[str, int], ...], output: str) -> None:
    pipeline = Pipeline(steps, output)
    inputs = [[3, -1, 4, 1, -5], [9, 2, -6, 5, 3], [5, 8, -9, 7, 9], [-3, 2, 3, 8, 4]]
    results = [answer for numbers in inputs if (answer := pipeline.run(numbers)) is not None]
    assert degenerate(pipeline, inputs, results)


def test_constant_answers_are_degenerate() -> None:
    pipeline = Pipeline((("drop_last", 0),), "len")
    inputs = [[3, -1, 4], [9, 2, -6], [5, 8, -9], [1, 2]]
    assert degenerate(pipeline, inputs, [2, 2, 2, 1])
    assert not degenerate(pipeline, [*inputs, [1, 2, 3, 4]], [2, 2, 2, 1, 3])


def test_a_pipeline_that_empties_the_list_has_no_answer() -> None:
    assert Pipeline((("gt", 9),), "sum").run([1, 2, 3]) is None
    assert Pipeline((("square", 0), ("square", 0), ("square", 0)), "max").run([20, 1]) is None  # 20**8 leaves 32 bits


def test_kinds_difficulties_and_ids(drawn: dict[str, list[GeneratedProblem]]) -> None:
    problems = [item.problem for item in drawn["train"]]
    assert Counter(problem.difficulty for problem in problems) == {"introductory": 120, "interview": 120, "competition": 60}
    depth = {"introductory": 1, "interview": 2, "competition": 3}
    assert all(len(item.pipeline.steps) == depth[item.problem.difficulty] for item in drawn["train"])
    call = [problem for problem in problems if problem.entry_point]
    assert 0.2 < len(call) / len(problems) < 0.4
    for problem in problems:
        kind = "call" if problem.entry_point else "stdin"
        assert both(problem).kind == kind
        if kind == "call":
            assert problem.starter_code in ("def solve(a):", "def solve(nums):")
            assert all(solution.startswith(problem.starter_code + "\n") for solution in problem.solutions)
        else:
            assert problem.starter_code == ""
    assert problems[12].task_id == "procedural/train/00012"
    assert len({problem.question for problem in problems}) == len(problems)


def test_difficulty_order_is_a_prefix_and_follows_the_shares() -> None:
    order = difficulty_order(SHARES, 100)
    assert difficulty_order(SHARES, 30) == order[:30]
    for size in range(1, 101):
        counts = Counter(order[:size])
        assert all(abs(counts[name] - share * size) <= 1 for name, share in SHARES.items())
    assert set(difficulty_order({"interview": 2.0, "competition": 0.0}, 5)) == {"interview"}
    with pytest.raises(ConfigError, match="difficulty_shares"):
        difficulty_order({"interview": 0.0}, 5)


def test_configuration_draws_bigger_problems() -> None:
    config = ProceduralConfig(
        depths={"introductory": [4], "competition": [5, 6]},
        phrasings=3,
        example_tests=3,
        hidden_tests=20,
        solutions=8,
        call_based_share=0.0,
    )
    for item in ProceduralBenchmark(config).problems("test", 10, {"introductory": 0.5, "competition": 0.5}):
        tests = both(item.problem)
        assert len(tests) == 23
        assert len(item.pipeline.steps) in (4, 5, 6)
        assert len(set(item.problem.solutions)) == 8
        assert answers(item.problem.solutions[-1], tests, None) == tests.outputs


def test_a_subset_of_the_grammar_is_used_alone() -> None:
    config = ProceduralConfig(transforms=["desc", "even", "negate", "add", "drop_first"], outputs=["list", "last"], phrasings=1)
    benchmark = ProceduralBenchmark(config)
    for item in benchmark.problems("train", 30, SHARES):
        assert set(item.pipeline.composition) <= {"desc", "even", "negate", "add", "drop_first", "list", "last"}
    assert "arrange" not in "".join(benchmark.corpus_file(index) for index in range(50))


def test_deeper_than_there_are_transforms_repeats_none_side_by_side() -> None:
    config = ProceduralConfig(transforms=["reverse", "add", "square"], depths={"interview": [5]}, outputs=["list"])
    benchmark = ProceduralBenchmark(config)
    names = [benchmark.problem("train", index, "interview").pipeline.composition for index in range(5)]
    assert all(first != second for composition in names for first, second in pairwise(composition))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transforms": ["revers"]}, "did you mean 'reverse'"),
        ({"outputs": []}, "'outputs': List should have at least 1 item"),
        ({"phrasings": 4}, "'phrasings'.*3"),
        ({"depths": {"interview": [0]}}, r"depths\.interview\.0': Input should be greater"),
        ({"depths": {"interview": []}}, r"depths\.interview': List should have at least 1 item"),
        ({"depths": {}}, "'depths': Dictionary should have at least 1 item"),
        ({"transforms": ["add"], "depths": {"interview": [2]}}, "at least two transforms"),
    ],
)
def test_impossible_configurations_name_the_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProceduralBenchmark(validate(ProceduralConfig, changes, "procedural"))


def test_a_grammar_without_a_usable_problem_is_an_error_not_an_endless_search() -> None:
    benchmark = ProceduralBenchmark(ProceduralConfig(transforms=["reverse"], outputs=["sum"], depths={"introductory": [1]}))
    with pytest.raises(DataError, match="no introductory problem"):
        benchmark.problem("train", 0, "introductory")
    with pytest.raises(ConfigError, match="difficulty 'interview'"):
        benchmark.problem("train", 0, "interview")
    with pytest.raises(ConfigError, match="split"):
        benchmark.problem("dev", 0, "introductory")


def test_corpus_files_are_programs_never_statements(benchmark: ProceduralBenchmark) -> None:
    forms: Counter[str] = Counter()
    for index in range(1000):
        text, pipeline = benchmark.corpus_file_and_pipeline(index)
        compile(text, str(index), "exec")
        assert not any(word in text for word in ("Input", "Output", "QUESTION", "Read a", "You are given", "Write a function", "Use "))
        comments = text.count("# ")
        if comments >= len(pipeline.steps) + 1 and '"""' not in text:
            forms["each step"] += 1
        elif comments == 1 or '"""' in text:
            forms["on top"] += 1
        else:
            assert comments == 0
            forms["bare"] += 1
        numbers = [4, -3, 7, 7, 12, 5, -8, 2, 16, 9]
        expected = pipeline.run(numbers)
        if expected is not None:
            if "def solve" in text:
                suite, name = InputOutputTests("call", [[numbers]], [expected]), "solve"
            else:
                suite, name = InputOutputTests("stdin", [" ".join(map(str, numbers))], [expected]), None
            result = answers(text, suite, name)[0]
            assert result == (expected if name else " ".join(map(str, expected if isinstance(expected, list) else [expected])) + "\n")
    assert forms["each step"] / 1000 == pytest.approx(0.20, abs=0.05)
    assert forms["on top"] / 1000 == pytest.approx(0.70, abs=0.05)
    assert benchmark.corpus_file(7) == ProceduralBenchmark(ProceduralConfig()).corpus_file(7)
