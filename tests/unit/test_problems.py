"""Rows of problems, readers of benchmarks, and the stage that writes problem sets."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coderl.config import ConfigError, ProblemSetConfig, ProceduralConfig
from coderl.problems import (
    AssertTests,
    InputOutputTests,
    Problem,
    problem_from_row,
    problem_to_row,
    read_problems,
    write_problems,
)
from coderl.problems.sets import make_problem_set
from coderl.records import DataError, json_text

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="real benchmark files are not beside the checkout")


def make(output: Path, benchmark: str, source: Path | None = None, split: str = "train", **config: Any) -> list[Problem]:
    make_problem_set(
        benchmark=benchmark,
        source=None if source is None else str(source),
        split=split,
        config=ProblemSetConfig(**config),
        procedural=ProceduralConfig(),
        output=output,
    )
    return read_problems(output)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


OWN = [
    Problem(
        "mine/1", "custom", "train", "interview", "Äpfel?\n", "", None, ["print(1)\n"], InputOutputTests("stdin", ["1\n"], ["1\n"]), None
    ),
    Problem(
        "mine/2",
        "custom",
        "train",
        "interview",
        "f",
        "def f(x):",
        "f",
        [],
        InputOutputTests("call", [[[1, 2], "a"]], [{"b": None}]),
        InputOutputTests("call", [[1]], [2.5]),
    ),
    Problem(
        "mine/3", "custom", "test", "competition", "g", "", "g", ["def g(): ..."], AssertTests(["assert g() is None"], "import os"), None
    ),
    Problem("mine/4", "custom", "train", "introductory", "h", "", None, [], None, None),
    Problem(
        "mine/5",
        "custom",
        "test",
        "introductory",
        "i",
        "",
        None,
        [],
        InputOutputTests("stdin", ["3"], ["1 2"], "def accepts(input, output, expected):\n    return output != input"),
        None,
    ),
]

DEEP: Any = 1
for _ in range(150):
    DEEP = [DEEP]

# --------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("name", ["problems.parquet", "problems.jsonl", "problems.jsonl.gz"])
def test_rows_survive_a_round_trip_and_give_equal_bytes(tmp_path: Path, name: str) -> None:
    first, second = tmp_path / name, tmp_path / ("again." + name)
    assert write_problems(first, OWN) == 5
    assert read_problems(first) == OWN
    write_problems(second, OWN)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quetsion": "x"}, "unknown field 'quetsion'"),
        ({"task_id": 3}, "'task_id' must be a non-empty string"),
        ({"solutions": "[1"}, "'solutions' is not valid JSON"),
        ({"solutions": [1]}, "'solutions' must be a list of strings"),
        ({"hidden_tests": {"kind": "stdin", "inputs": ["1"], "outputs": []}}, "'hidden_tests': 1 inputs but 0 outputs"),
        ({"hidden_tests": {"kind": "stdin", "inputs": [], "outputs": []}}, "'hidden_tests': no tests in it"),
        ({"hidden_tests": {"kind": "stdin", "inputs": [1], "outputs": ["1"]}}, "every input and output to be a string"),
        ({"example_tests": {"kind": "call", "inputs": [[1]], "outputs": [1]}}, "'example_tests' has kind 'call', so 'entry_point'"),
        ({"example_tests": {"kind": "calls"}}, "'example_tests': kind must be"),
        ({"example_tests": {"kind": "assert", "asserts": "assert 1"}}, "'asserts', a list of strings"),
        (
            {"example_tests": {"kind": "assert", "asserts": ["assert 1"], "setup": 5}},
            "'example_tests': 'setup' must be a string of code, found 5",
        ),
        ({"hidden_tests": {"kind": "stdin", "inputs": ["1"], "outputs": ["1"], "result": []}}, "unknown key 'result'; kind 'stdin' has"),
        ({"hidden_tests": {"kind": "assert", "asserts": ["assert 1"], "inputs": []}}, "unknown key 'inputs'; kind 'assert' has"),
        ({"hidden_tests": "[" * 100_000}, "field 'hidden_tests' is not valid JSON (nested too deeply)"),
        (
            {"entry_point": "f", "hidden_tests": {"kind": "call", "inputs": [[DEEP]], "outputs": [1]}},
            "'hidden_tests': nested more than 100 deep",
        ),
        ({"entry_point": "f", "hidden_tests": {"kind": "call", "inputs": [[{"\ud800": 1}]], "outputs": [1]}}, "half of a surrogate pair"),
        ({"task_id": "\ud800"}, "'task_id': holds half of a surrogate pair"),
        ({"question": "a\udfff"}, "'question': holds half of a surrogate pair"),
        ({"starter_code": "\ud800"}, "'starter_code': holds half of a surrogate pair"),
        ({"solutions": ["\ud800"]}, "'solutions': holds half of a surrogate pair"),
        ({"entry_point": ""}, "'entry_point' must be null or the name of a function, found ''"),
        ({"entry_point": "a b"}, "'entry_point' must be null or the name of a function, found 'a b'"),
        ({"difficulty": "hard"}, "'difficulty' must be introductory, interview or competition, found 'hard'"),
        ({"split": "tset"}, "'split' must be train, validation, test or prompt, found 'tset'"),
        ({"hidden_tests": {"kind": "stdin", "inputs": ["1"], "outputs": ["1"], "special_judge": "def f(): ("}}, "'special_judge' must be"),
        ({"hidden_tests": {"kind": "stdin", "inputs": ["1"], "outputs": ["1"], "special_judge": "accepts = 1"}}, "defines accepts"),
        ({"hidden_tests": {"kind": "stdin", "inputs": ["1"], "outputs": ["1"], "special_judge": 5}}, "'special_judge' must be"),
    ],
)
def test_malformed_rows_name_row_and_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [{"task_id": "a", "question": "q"}, {"task_id": "b", "question": "q", **changes}])
    with pytest.raises(DataError, match=re.escape(f"{path}: row 2: ") + ".*" + re.escape(message)):
        read_problems(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"task_id": "b", "question": ' + "9" * 5000 + "}"])
def test_lines_that_python_cannot_hold_as_they_are_name_row_and_field(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"mine\.jsonl: (line 1: not valid JSON \(nested too deeply\)|row 1: .*'question'.*found 9999)"):
        read_problems(path)


@pytest.mark.parametrize("name", ["long.jsonl", "long.parquet"])
def test_integers_of_any_length_are_legal_in_tests(tmp_path: Path, name: str) -> None:
    long = 10**5000 + 7
    source = tmp_path / "mine.jsonl"
    tests = {"kind": "call", "inputs": [[long]], "outputs": [long + 1]}
    source.write_text(json_text({"task_id": "a", "question": "q", "entry_point": "f", "hidden_tests": tests}))
    (problem,) = make(tmp_path / name, "jsonl", source)
    assert problem.hidden_tests == InputOutputTests("call", [[long]], [long + 1])
    assert sys.get_int_max_str_digits() > 0, "elsewhere the limit stays"


def test_a_misspelt_split_does_not_drop_the_row(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "mine.jsonl", [{"task_id": "a", "question": "q"}, {"task_id": "b", "question": "q", "split": "tset"}])
    with pytest.raises(DataError, match=r"mine\.jsonl: row 2: field 'split' must be .* found 'tset'"):
        make(tmp_path / "out.parquet", "jsonl", source)
    assert not (tmp_path / "out.parquet").exists()


def test_unknown_splits_and_suffixes_are_errors(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "apps.jsonl", [APPS_ROW])
    with pytest.raises(DataError, match="apps: no split 'banana'; it has train, validation, test"):
        make(tmp_path / "out.parquet", "apps", source, split="banana")
    own = write_lines(tmp_path / "own.jsonl", [{"task_id": "a", "question": "q"}])
    with pytest.raises(DataError, match="jsonl: no split 'banana'"):
        make(tmp_path / "out.parquet", "jsonl", own, split="banana")
    for name in ("p.csv", "p", "p.gz", "p.json"):
        with pytest.raises(DataError, match=re.escape(f"{name}: unknown suffix; name the output .jsonl, .jsonl.gz or .parquet")):
            make(tmp_path / name, "jsonl", own)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["apps.jsonl", "own.jsonl"]


def test_the_documented_example_is_a_valid_file(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "problem_rows.md").read_text(encoding="utf-8")
    rows = [json.loads(line) for block in re.findall(r"```jsonl\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(rows) == 4
    problems = make(tmp_path / "out.parquet", "jsonl", write_lines(tmp_path / "mine.jsonl", rows), split="test")
    assert [problem.hidden_tests.kind for problem in problems if problem.hidden_tests] == ["stdin", "call", "stdin", "assert"]
    for name in Problem.__dataclass_fields__:
        assert f"`{name}`" in text


# --------------------------------------------------------------------------------------------------- procedural sets


def test_procedural_sets_are_prefixes_of_one_another(tmp_path: Path) -> None:
    large = make(tmp_path / "large.parquet", "procedural", size=60)
    small = make(tmp_path / "small.parquet", "procedural", size=25)
    assert large[:25] == small
    make(tmp_path / "again.parquet", "procedural", size=60)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "large.parquet").read_bytes()


def test_kept_references_are_spread_over_the_difficulties_and_do_not_depend_on_the_size(tmp_path: Path) -> None:
    large = make(tmp_path / "large.parquet", "procedural", size=80, with_solutions=20)
    small = make(tmp_path / "small.parquet", "procedural", size=30, with_solutions=20)
    kept = [problem for problem in large if problem.solutions]
    assert kept == [problem for problem in small if problem.solutions]
    assert Counter(problem.difficulty for problem in kept) == {"introductory": 8, "interview": 8, "competition": 4}
    assert all(problem.hidden_tests and problem.example_tests for problem in large)
    whole = make(tmp_path / "whole.parquet", "procedural", size=80)
    assert [replace(problem, solutions=[]) for problem in whole] == [replace(problem, solutions=[]) for problem in large]


# --------------------------------------------------------------------------------------------------- own files


def test_own_files_are_read_by_split(tmp_path: Path) -> None:
    source = tmp_path / "mine.parquet"
    write_problems(source, OWN)
    assert make(tmp_path / "out.parquet", "jsonl", source) == [OWN[0], OWN[1], OWN[3]]
    assert make(tmp_path / "out.jsonl", "jsonl", source, split="test") == [OWN[2], OWN[4]]
    with pytest.raises(DataError, match="no problem of split 'validation'"):
        make(tmp_path / "none.parquet", "jsonl", source, split="validation")
    assert not (tmp_path / "none.parquet").exists()


def test_rows_without_a_split_belong_to_the_split_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "mine.jsonl.gz"
    source.write_bytes(gzip.compress(json.dumps({"task_id": "a", "question": "q"}).encode()))
    assert [problem.split for problem in make(tmp_path / "out.parquet", "jsonl", source, split="validation")] == ["validation"]


def test_size_and_with_solutions_choose_in_an_order_that_is_stable_in_the_size(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "mine.jsonl", [{"task_id": f"t{i}", "question": "q", "solutions": ["pass"]} for i in range(50)])
    chosen = {size: make(tmp_path / f"{size}.parquet", "jsonl", source, size=size, with_solutions=5) for size in (10, 30)}
    names = {size: [problem.task_id for problem in problems] for size, problems in chosen.items()}
    assert set(names[10]) < set(names[30])
    assert names[10] != [f"t{i}" for i in range(10)]  # not merely the first of the file
    assert names[30] == sorted(names[30], key=lambda name: int(name[1:]))  # written in the file's order
    kept = {size: {problem.task_id for problem in problems if problem.solutions} for size, problems in chosen.items()}
    assert kept[10] == kept[30]
    assert len(kept[10]) == 5


@pytest.mark.parametrize(
    ("benchmark", "source", "config", "error", "message"),
    [
        ("codenet", None, {}, DataError, "no reader; there are: procedural, jsonl, apps, mbpp, humaneval, leetcode"),
        ("leetcode", None, {}, ConfigError, "'source' is missing"),
        ("procedural", None, {}, ConfigError, "'size' is missing"),
        ("procedural", "file.jsonl", {"size": 3}, ConfigError, "'source'"),
        ("apps", None, {}, ConfigError, "'source' is missing"),
        ("apps", "nowhere.jsonl", {}, DataError, "nowhere.jsonl: no such file"),
        ("jsonl", ".", {}, DataError, "is a folder"),
        ("apps", ".", {}, DataError, "is a folder without files of split 'train'"),
    ],
)
def test_what_cannot_be_read_is_said(
    tmp_path: Path, benchmark: str, source: str | None, config: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        make(tmp_path / "out.parquet", benchmark, None if source is None else tmp_path / source, **config)
    assert not list(tmp_path.glob("*"))


# --------------------------------------------------------------------------------------------------- APPS and MBPP

APPS_ROW: dict[str, Any] = {
    "problem_id": 7,
    "question": "Add.",
    "solutions": json.dumps(["print(1)\r\n", "print(2)"]),
    "input_output": json.dumps({"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]}),
    "difficulty": "interview",
    "url": "",
    "starter_code": "",
}


def test_apps_rows(tmp_path: Path) -> None:
    call = {**APPS_ROW, "problem_id": 8, "input_output": json.dumps({"fn_name": "add", "inputs": [[1, [2]]], "outputs": [[3]]})}
    untested = {**APPS_ROW, "problem_id": 9, "input_output": "", "solutions": ""}
    empty = {**APPS_ROW, "problem_id": 10, "input_output": json.dumps({"inputs": [], "outputs": []})}
    source = write_lines(tmp_path / "apps.jsonl", [APPS_ROW, call, untested, empty])
    problems = make(tmp_path / "out.parquet", "apps", source)
    assert [problem.task_id for problem in problems] == [f"apps/train/{number:05d}" for number in (7, 8, 9, 10)]
    assert problems[0].hidden_tests == InputOutputTests("stdin", ["1 2\n", "3\n4"], ["3\n", "7"])
    assert problems[0].solutions == ["print(1)\n", "print(2)"]
    assert (problems[1].entry_point, problems[1].hidden_tests) == ("add", InputOutputTests("call", [[1, [2]]], [[3]]))
    assert (problems[2].hidden_tests, problems[2].solutions, problems[3].hidden_tests) == (None, [], None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": None}, "column 'question' must be str"),
        ({"solutions": "["}, "column 'solutions' is not valid JSON"),
        ({"solutions": "[1]"}, "column 'solutions' must be a list of programs"),
        ({"input_output": "[]"}, "column 'input_output' must hold a dict"),
        ({"input_output": '{"inputs": "1", "outputs": []}'}, "column 'input_output': needs lists"),
        ({"input_output": '{"inputs": [1], "outputs": ["1"]}'}, "has no 'fn_name'"),
        ({"input_output": '{"fn_name": "f", "inputs": [1], "outputs": ["1"]}'}, "list of arguments"),
        ({"input_output": "[" * 100_000}, "column 'input_output' is not valid JSON (nested too deeply)"),
        ({"input_output": '{"inputs": [' + "9" * 5000 + '], "outputs": [1]}'}, "inputs and outputs must be texts, found int"),
        ({"question": ""}, "'question' must be a non-empty string"),
        ({"question": "\ud800"}, "'question': holds half of a surrogate pair"),
        ({"difficulty": "hard"}, "'difficulty' must be introductory, interview or competition, found 'hard'"),
        ({"input_output": '{"fn_name": "", "inputs": [[1]], "outputs": ["1"]}'}, "'entry_point' must be null or the name of a function"),
    ],
)
def test_malformed_apps_rows_name_row_and_column(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = write_lines(tmp_path / "apps.jsonl", [APPS_ROW, {**APPS_ROW, "problem_id": 8, **changes}])
    with pytest.raises(DataError, match=re.escape(f"{source}: row 2: ") + ".*" + re.escape(message)):
        make(tmp_path / "out.parquet", "apps", source)
    assert not (tmp_path / "out.parquet").exists()


def test_apps_folders(tmp_path: Path) -> None:
    folder = tmp_path / "APPS" / "train" / "0012"
    folder.mkdir(parents=True)
    (folder / "question.txt").write_text("Add.", encoding="utf-8")
    (folder / "metadata.json").write_text('{"difficulty": "competition", "url": ""}', encoding="utf-8")
    (folder / "starter_code.py").write_text("class Solution:\n", encoding="utf-8")
    (folder / "input_output.json").write_text('{"fn_name": "add", "inputs": [[1]], "outputs": [2]}', encoding="utf-8")
    for source in (tmp_path / "APPS", tmp_path / "APPS" / "train"):
        (problem,) = make(tmp_path / "out.parquet", "apps", source)
        assert problem.task_id == "apps/train/00012"
        assert (problem.difficulty, problem.starter_code, problem.solutions) == ("competition", "class Solution:\n", [])
    (folder / "metadata.json").unlink()
    with pytest.raises(DataError, match="0012: column 'difficulty'"):
        make(tmp_path / "out.parquet", "apps", tmp_path / "APPS")


def test_mbpp_rows(tmp_path: Path) -> None:
    row = {
        "task_id": 11,
        "text": "Write f.",
        "code": "def g(x):\r\n\treturn x\r\ndef f(x): return g(x)",
        "test_list": ["assert set(f(1)) == {1}", "assert f(2) == 2"],
        "test_setup_code": "import math",
        "challenge_test_list": [],
    }
    source = write_lines(tmp_path / "mbpp.jsonl", [row, {**row, "task_id": 600}])
    (problem,) = make(tmp_path / "out.parquet", "mbpp", source, split="test")
    assert problem.task_id == "mbpp/11"
    assert problem.entry_point == "f"
    assert problem.question == "Write f.\nYour code should satisfy these tests:\nassert set(f(1)) == {1}\nassert f(2) == 2"
    assert problem.hidden_tests == AssertTests(["assert set(f(1)) == {1}", "assert f(2) == 2"], "import math")
    assert problem.example_tests is None
    assert "\r" not in problem.solutions[0]
    assert [item.task_id for item in make(tmp_path / "v.parquet", "mbpp", source, split="validation")] == ["mbpp/600"]
    with pytest.raises(DataError, match="no split 'dev'"):
        make(tmp_path / "out.parquet", "mbpp", source, split="dev")
    with pytest.raises(DataError, match="row 1: column 'test_list' is missing"):
        make(tmp_path / "out.parquet", "mbpp", write_lines(tmp_path / "bad.jsonl", [{"task_id": 1, "text": "x", "code": "y"}]))


@needs_data
def test_real_files_are_read_whole(tmp_path: Path) -> None:
    apps = make(tmp_path / "apps.parquet", "apps", DATA / "apps" / "apps_train_sample.jsonl")
    assert Counter(problem.difficulty for problem in apps) == {"introductory": 33, "interview": 33, "competition": 33}
    assert Counter(problem.hidden_tests.kind for problem in apps if problem.hidden_tests) == {"stdin": 91, "call": 8}
    tree = make(tmp_path / "tree.parquet", "apps", DATA / "apps" / "folders")
    assert [(problem.task_id, problem.entry_point) for problem in tree] == [
        ("apps/train/00001", None),
        ("apps/train/02404", "findKthPositive"),
    ]
    same = {problem.task_id: problem for problem in apps}["apps/train/02404"]
    assert (tree[1].question, tree[1].hidden_tests) == (same.question, same.hidden_tests)
    for split, count in (("train", 374), ("validation", 90), ("test", 500), ("prompt", 10)):
        problems = make(tmp_path / "mbpp.parquet", "mbpp", DATA / "mbpp" / "mbpp.jsonl", split=split)
        assert len(problems) == count
        assert all(problem.entry_point for problem in problems)


def test_a_row_without_a_special_judge_has_no_such_key() -> None:
    assert [set(problem_to_row(problem)["hidden_tests"] or ()) for problem in OWN if problem.task_id in ("mine/1", "mine/5")] == [
        {"kind", "inputs", "outputs"},
        {"kind", "inputs", "outputs", "special_judge"},
    ]


def test_problem_to_row_is_the_inverse_of_problem_from_row() -> None:
    for problem in OWN:
        assert problem_from_row(problem_to_row(problem), "here") == problem
