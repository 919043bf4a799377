"""Readers of benchmarks: every form that people have, the damage that is known, and bad input of each."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coderl.config import ProblemSetConfig, ProceduralConfig
from coderl.problems import AssertTests, InputOutputTests, Problem, read_problems
from coderl.problems.readers import read
from coderl.problems.sets import make_problem_set
from coderl.problems.sources import Findings, hub_rows
from coderl.records import DataError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="real benchmark files are not beside the checkout")

APPS: dict[str, Any] = {
    "problem_id": 7,
    "question": "Add.\n\n-----Example-----\nInput\n1 2\n\nOutput\n3\n",
    "solutions": json.dumps(["print(1)"]),
    "input_output": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}),
    "difficulty": "interview",
    "url": "",
    "starter_code": "",
}
MBPP: dict[str, Any] = {
    "task_id": 11,
    "text": "Write f.",
    "code": "def f(x): return x",
    "test_list": ["assert f(1) == 1"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
SANITIZED: dict[str, Any] = {
    "source_file": "x",
    "task_id": 11,
    "prompt": "Write f.",
    "code": "def f(x): return x",
    "test_imports": ["import math"],
    "test_list": ["assert f(1) == 1"],
}
HUMANEVAL: dict[str, Any] = {
    "task_id": "HumanEval/3",
    "prompt": 'def f(x):\n    """Same.\n    >>> f(1)\n    1\n    >>> f(g)\n    <g>\n    """\n',
    "entry_point": "f",
    "canonical_solution": "    return x\n",
    "test": "def check(candidate):\n    assert candidate(1) == 1\n",
}
LEETCODE: dict[str, Any] = {
    "task_id": "same",
    "prompt": "from typing import *\n",
    "completion": "class Solution:\n    def same(self, x: int) -> int:\n        return x\n",
    "entry_point": "Solution().same",
    "test": "def check(candidate):\n    assert candidate(x = 1) == 1\n    assert candidate(x = 2) == 2\n",
    "query": "Same.\nPlease complete the following python code precisely:\n",
    "input_output": [],
    "meta": {"difficulty": "Hard", "question_title": "Same.\n\nExample 1:\n\nInput: x = 1\nOutput: 1\n", "lang_code": "class Solution:\n"},
}
ROWS = {"apps": APPS, "mbpp": MBPP, "humaneval": HUMANEVAL, "leetcode": LEETCODE, "jsonl": {"task_id": "a", "question": "q"}}


def lines(path: Path, rows: list[Any]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def problems(benchmark: str, source: Path, split: str = "test", findings: Findings | None = None) -> list[Problem]:
    return list(read(benchmark, str(source), split, findings))


# --------------------------------------------------------------------------------------------------- forms


def test_apps_in_all_column_variants_is_the_same_problem(tmp_path: Path) -> None:
    plain = {**APPS, "solutions": ["print(1)"], "input_output": {"inputs": ["1 2\n"], "outputs": ["3\n"], "fn_name": None}}
    twice = {**APPS, "input_output": json.dumps(APPS["input_output"])}
    renamed = {"id": "7", **{key: value for key, value in APPS.items() if key != "problem_id"}, "difficulty": "Interview"}
    apart = {key: value for key, value in APPS.items() if key != "input_output"} | {"inputs": ["1 2\n"], "outputs": ["3\n"]}
    tree = tmp_path / "APPS" / "test" / "0007"
    tree.mkdir(parents=True)
    (tree / "question.txt").write_text(APPS["question"])
    (tree / "solutions.json").write_text(APPS["solutions"])
    (tree / "input_output.json").write_text(APPS["input_output"])
    (tree / "metadata.json").write_text('{"difficulty": "interview", "url": ""}')
    sources = [
        lines(tmp_path / "apps.jsonl", [APPS]),
        lines(tmp_path / "apps.jsonl.gz", [twice]),
        parquet(tmp_path / "apps.parquet", [APPS]),
        parquet(tmp_path / "plain.parquet", [plain]),
        lines(tmp_path / "renamed.jsonl", [renamed]),
        lines(tmp_path / "apart.jsonl", [apart]),
        lines(tmp_path / "flat" / "test.jsonl", [APPS]).parent,
        parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", [APPS]).parents[1],
        parquet(tmp_path / "hub2" / "all" / "test-00000-of-00001.parquet", [APPS]).parents[1],
        parquet(tmp_path / "hub3" / "test" / "0000.parquet", [APPS]).parents[1],
        tmp_path / "APPS",
        tmp_path / "APPS" / "test",
    ]
    (expected,) = problems("apps", sources[0])
    assert expected.task_id == "apps/test/00007"
    assert expected.example_tests == InputOutputTests("stdin", ["1 2\n"], ["3\n"])
    for source in sources[1:]:
        assert problems("apps", source) == [expected], source


def test_a_folder_with_one_split_has_no_other(tmp_path: Path) -> None:
    parquet(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet", [APPS])
    parquet(tmp_path / "hub" / "data" / "train-00001-of-00002.parquet", [{**APPS, "problem_id": 8}])
    assert [problem.task_id for problem in problems("apps", tmp_path / "hub", "train")] == ["apps/train/00007", "apps/train/00008"]
    with pytest.raises(DataError, match=r"hub: is a folder without files of split 'test'; .* data/test-\*\.parquet"):
        problems("apps", tmp_path / "hub")


def test_two_configurations_in_a_folder_are_not_mixed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        parquet(tmp_path / name / "test-00000-of-00001.parquet", [APPS])
    with pytest.raises(DataError, match="give one of these folders"):
        problems("apps", tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the library `datasets` is not installed")
def test_the_hubs_library_reads_a_local_folder_in_the_hubs_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = parquet(tmp_path / "apps" / "data" / "test-00000-of-00001.parquet", [APPS]).parents[1]
    rows = list(hub_rows(str(folder), "test"))
    assert [(where, row["problem_id"]) for where, row in rows if isinstance(row, dict)] == [(f"{folder}: row 1", 7)]


def test_a_missing_hub_is_one_message_that_says_how_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError) as caught:
        list(read("apps", "somebody/apps-parquet", "train"))
    message = str(caught.value)
    assert message.startswith("somebody/apps-parquet: no such file or folder, and as a data set of the hub it cannot be loaded.")
    assert "`hf download somebody/apps-parquet --repo-type dataset --local-dir data/apps-parquet` and give the folder" in message
    assert "\n" not in message


def test_mbpp_full_and_sanitized_have_the_official_split(tmp_path: Path) -> None:
    ids = [1, 10, 11, 510, 511, 600, 601, 974]
    full = lines(tmp_path / "mbpp.jsonl", [{**MBPP, "task_id": each} for each in ids])
    sanitized = tmp_path / "sanitized-mbpp.json"
    sanitized.write_text(json.dumps([{**SANITIZED, "task_id": each} for each in ids]))
    for source, name, setup in ((full, "mbpp", ""), (sanitized, "mbpp_sanitized", "import math")):
        for split, expected in (("prompt", [1, 10]), ("test", [11, 510]), ("validation", [511, 600]), ("train", [601, 974])):
            found = problems("mbpp", source, split)
            assert [problem.task_id for problem in found] == [f"mbpp/{each}" for each in expected]
            assert {problem.benchmark for problem in found} == {name}
            assert found[0].hidden_tests == AssertTests(["assert f(1) == 1"], setup)
            assert found[0].question == "Write f.\nYour code should satisfy these tests:\nassert f(1) == 1"
    with pytest.raises(DataError, match="row 1: column 'task_id' is 975; MBPP's are 1 to 974"):
        problems("mbpp", lines(tmp_path / "more.jsonl", [{**MBPP, "task_id": 975}]))


def test_humaneval_is_whole_programs_and_its_docstrings_examples(tmp_path: Path) -> None:
    (problem,) = problems("humaneval", lines(tmp_path / "HumanEval.jsonl.gz", [HUMANEVAL]))
    assert (problem.task_id, problem.entry_point) == ("humaneval/3", "f")
    assert problem.solutions == [HUMANEVAL["prompt"] + "    return x\n"]
    assert problem.hidden_tests == AssertTests(["check(f)"], HUMANEVAL["test"])
    assert problem.example_tests == AssertTests(["assert f(1) == 1"]), "the second example has no literal"


def test_leetcodes_asserts_are_one_test_each(tmp_path: Path) -> None:
    (problem,) = problems("leetcode", lines(tmp_path / "leetcode-test.jsonl", [LEETCODE]))
    assert problem.hidden_tests == AssertTests(["assert Solution().same(x=1) == 1", "assert Solution().same(x=2) == 2"])
    assert (problem.entry_point, problem.difficulty, problem.starter_code) == ("same", "competition", "class Solution:\n")
    assert problem.solutions == [LEETCODE["prompt"] + LEETCODE["completion"]]
    assert problem.example_tests is None


# --------------------------------------------------------------------------------------------------- damage


def damaged(tmp_path: Path, **changes: Any) -> tuple[Problem, dict[str, list[str]]]:
    findings = Findings()
    (problem,) = problems("apps", lines(tmp_path / "apps.jsonl", [{**APPS, **changes}]), "train", findings)
    return problem, findings.mended


@pytest.mark.parametrize("empty", ["", "{}", None, '{"inputs": [], "outputs": []}', '{"fn_name": null, "inputs": null, "outputs": null}'])
def test_missing_tests_are_null_and_counted(tmp_path: Path, empty: str | None) -> None:
    problem, mended = damaged(tmp_path, input_output=empty, starter_code="class Solution:\n    def add(self, a, b):\n")
    assert problem.hidden_tests is None
    assert problem.entry_point == "add", "the prompt's format line goes by the function"
    (kind,) = mended
    assert kind.startswith("no tests")
    assert len(mended[kind]) == 1


def test_unequal_counts_keep_the_pairs_and_are_counted(tmp_path: Path) -> None:
    problem, mended = damaged(tmp_path, input_output=json.dumps({"inputs": ["1", "2", "3"], "outputs": ["1", "2"]}))
    assert problem.hidden_tests == InputOutputTests("stdin", ["1", "2"], ["1", "2"])
    assert [kind.partition(":")[0] for kind in mended] == ["another number of inputs than of outputs"]


def test_call_based_texts_become_arguments_and_are_counted(tmp_path: Path) -> None:
    tests = {"fn_name": "f", "inputs": ['[1, 2]\n"a"', "no json", [[3], "b"], "1"], "outputs": ["[3]", "4", 5, "abc"]}
    problem, mended = damaged(tmp_path, input_output=json.dumps(tests), starter_code="def f(x, y):")
    assert problem.hidden_tests == InputOutputTests("call", [[[1, 2], "a"], [[3], "b"], [1]], [[3], 5, "abc"])
    assert [kind.partition(":")[0] for kind in mended] == [
        "call-based with texts for inputs",
        "call-based with a text for input that is no JSON",
    ]
    (place,) = list(mended.values())[1]
    assert place.endswith("(1 tests)")


def test_integers_starter_code_and_missing_solutions_are_counted(tmp_path: Path) -> None:
    long = "9" * 5000
    problem, mended = damaged(tmp_path, input_output='{"fn_name": "f", "inputs": [[' + long + ']], "outputs": [1]}', solutions="[]")
    assert problem.hidden_tests is not None
    assert len(str(problem.hidden_tests.kind)) == 4
    assert [kind.partition(":")[0] for kind in mended] == [
        "no reference solutions",
        "an integer of more than 4300 digits",
        "a function is called, yet there is no starter code",
    ]
    _, mended = damaged(tmp_path, starter_code="def f():")
    assert [kind.partition(":")[0] for kind in mended] == ["starter code, yet tests on standard input"]


def test_bytes_that_are_no_utf_8_are_read_and_counted(tmp_path: Path) -> None:
    findings = Findings()
    path = tmp_path / "apps.jsonl"
    path.write_bytes(json.dumps({**APPS, "question": "Add @."}).replace("@", "\u2019").encode("cp1252"))
    (problem,) = problems("apps", path, "train", findings)
    assert problem.question == "Add \u2019."
    assert list(findings.mended.values()) == [[f"{path}: row 1"]]
    folder = tmp_path / "tree" / "0001"
    folder.mkdir(parents=True)
    (folder / "question.txt").write_bytes("\u00e9t\u00e9".encode("latin-1"))
    (folder / "metadata.json").write_text('{"difficulty": "interview"}')
    (folder / "input_output.json").write_text(APPS["input_output"])
    findings = Findings()
    (problem,) = problems("apps", tmp_path / "tree", "train", findings)
    assert problem.question == "\u00e9t\u00e9"
    assert [str(folder / "question.txt")] in findings.mended.values()


# --------------------------------------------------------------------------------------------------- bad input


BAD: dict[str, list[tuple[dict[str, Any] | str, str]]] = {
    "apps": [
        ({"problem_id": 1}, "column 'question' is missing; it has problem_id"),
        ({**APPS, "input_output": '{"inputs": [], "outputs": {}}'}, "column 'input_output': needs lists 'inputs' and 'outputs'"),
        ({**APPS, "solutions": 5}, "column 'solutions' must hold a list, found int"),
        ({**APPS, "starter_code": 5}, "column 'starter_code' must be str or null, found 5"),
        ({**APPS, "difficulty": "hard"}, "'difficulty' must be introductory, interview or competition, found 'hard'"),
    ],
    "mbpp": [
        ({**{key: MBPP[key] for key in MBPP if key != "code"}}, "column 'code' is missing"),
        ({**MBPP, "test_list": []}, "column 'test_list' must be a list of assert statements, found []"),
        ({**MBPP, "task_id": "11"}, "column 'task_id' must be int, found '11'"),
        ({**SANITIZED, "test_imports": [1]}, "column 'test_imports' must be a list of import statements, found [1]"),
    ],
    "humaneval": [
        ({**{key: HUMANEVAL[key] for key in HUMANEVAL if key != "prompt"}}, "column 'prompt' is missing"),
        ({**HUMANEVAL, "test": ""}, "column 'test' must define check(candidate), found ''"),
        ({**HUMANEVAL, "canonical_solution": None}, "column 'canonical_solution' must be str, found None"),
    ],
    "leetcode": [
        ({**{key: LEETCODE[key] for key in LEETCODE if key != "entry_point"}}, "column 'entry_point' is missing"),
        ({**LEETCODE, "test": "def check(candidate):\n    pass"}, "column 'test' has no assert statement in check(candidate)"),
        ({**LEETCODE, "test": "check = 1"}, "column 'test' must define check(candidate) of assert statements only"),
        ({**LEETCODE, "meta": "x"}, "column 'meta' is not valid JSON"),
        ({**LEETCODE, "meta": {"difficulty": "Impossible", "question_title": "q"}}, "'difficulty' must be Easy, Medium or Hard"),
    ],
    "jsonl": [
        ({"task_id": "b"}, "'question' must be a non-empty string"),
        ({"task_id": "b", "question": "q", "hidden_tests": {"kind": "stdin", "inputs": [], "outputs": []}}, "no tests in it"),
        ({"task_id": 5, "question": "q"}, "'task_id' must be a non-empty string"),
    ],
}
EVERY: list[tuple[dict[str, Any] | str, str]] = [
    ('{"task_id": ', "not valid JSON ("),
    ("[1]", "expected a JSON object, found list"),
]


@pytest.mark.parametrize(
    ("benchmark", "row", "message"), [(name, *case) for name, cases in BAD.items() for case in [*cases, *EVERY]], ids=lambda value: None
)
def test_a_bad_row_is_named_or_left_out_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, benchmark: str, row: Any, message: str
) -> None:
    source = lines(tmp_path / "rows.jsonl", [ROWS[benchmark], row])
    with pytest.raises(DataError, match=re.escape(f"{source}: row 2: ") + ".*" + re.escape(message)):
        problems(benchmark, source)
    output, found = tmp_path / "out.parquet", tmp_path / "findings.json"
    make_problem_set(
        benchmark=benchmark,
        source=str(source),
        split="test",
        config=ProblemSetConfig(skip_bad_rows=True),
        procedural=ProceduralConfig(),
        output=output,
        findings=found,
    )
    assert len(read_problems(output)) == 1
    assert "1 rows left out" in caplog.text
    (reason,) = json.loads(found.read_text())["skipped"]
    assert reason.startswith(f"{source}: row 2: ")
    assert message in reason


def test_a_row_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    source = lines(tmp_path / "rows.jsonl", [APPS, APPS])
    with pytest.raises(DataError, match=r"row 2: task_id 'apps/test/00007' is there twice, first at .*row 1"):
        problems("apps", source)


@pytest.mark.parametrize("benchmark", sorted(ROWS))
def test_a_file_that_is_cut_off_is_an_error_even_if_bad_rows_are_skipped(tmp_path: Path, benchmark: str) -> None:
    """Of an archive nobody knows how many rows are lost."""
    packed = lines(tmp_path / "rows.jsonl.gz", [{**ROWS[benchmark], "url": str(number) * 99} for number in range(500)])
    packed.write_bytes(packed.read_bytes()[:-200])
    table = parquet(tmp_path / "rows.parquet", [ROWS[benchmark]])
    table.write_bytes(table.read_bytes()[:-100])
    for path, message in ((packed, r"rows\.jsonl\.gz: cut off or damaged after row \d+"), (table, r"rows\.parquet: not a parquet file")):
        rows = read(benchmark, str(path), "test", Findings(skip_bad_rows=True))
        with pytest.raises(DataError, match=message):
            list(rows)
    whole = tmp_path / "rows.json"
    whole.write_text('[{"task_id": 1')
    with pytest.raises(DataError, match=r"rows\.json: not valid JSON .* the file may be cut off"):
        problems(benchmark, whole)


# --------------------------------------------------------------------------------------------------- real files


@needs_data
def test_real_files() -> None:
    expected = [
        ("mbpp", "mbpp/sanitized-mbpp.json", {"test": 257, "train": 120, "validation": 43, "prompt": 7}),
        ("mbpp", "mbpp/mbpp.jsonl", {"test": 500, "train": 374, "validation": 90, "prompt": 10}),
        ("humaneval", "humaneval/HumanEval.jsonl.gz", {"test": 164}),
        ("leetcode", "leetcode", {"test": 200}),
    ]
    for benchmark, name, counts in expected:
        for split, count in counts.items():
            assert len(problems(benchmark, DATA / name, split)) == count
    findings = Findings()
    found = problems("leetcode", DATA / "leetcode", "test", findings)
    assert [len(places) for places in findings.mended.values()] == [21]
    assert Counter(problem.difficulty for problem in found) == {"introductory": 51, "interview": 102, "competition": 47}
