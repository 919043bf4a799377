"""Problem sets of several benchmarks, and MBPP with some of its asserts shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coderl.config import ConfigError, ProblemSetConfig, ProceduralConfig, load_run
from coderl.problems import AssertTests, Problem, read_problems
from coderl.problems.sets import make_problem_set

ROOT = Path(__file__).parents[2]


def mbpp(path: Path, ids: range) -> str:
    asserts = ["assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4"]
    rows = [
        {"task_id": i, "text": f"Write f, number {i}.", "code": "def f(x):\n    return x + 1", "test_list": asserts, "test_setup_code": ""}
        for i in ids
    ]
    path.write_text("".join(json.dumps(row | {"challenge_test_list": []}) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def apps(path: Path) -> str:
    row = {
        "problem_id": 7, "question": "Echo.", "solutions": json.dumps(["print(input())"]), "difficulty": "interview", "url": "",
        "input_output": json.dumps({"inputs": ["1\n"], "outputs": ["1\n"]}), "starter_code": "",
    }  # fmt: skip
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return str(path)


def made(folder: Path, config: dict[str, Any]) -> list[Problem]:
    settings = ProblemSetConfig(**config)
    make_problem_set(
        benchmark=settings.benchmark, source=settings.source, split=settings.split, config=settings, procedural=ProceduralConfig(),
        output=folder / "set.jsonl",
    )  # fmt: skip
    return read_problems(folder / "set.jsonl")


def test_parts_are_joined_in_order_each_with_its_own_size(tmp_path: Path) -> None:
    source = mbpp(tmp_path / "mbpp.jsonl", range(601, 611))
    parts = [
        {"benchmark": "mbpp", "source": source, "split": "train", "size": 3, "shown_asserts": 1},
        {"benchmark": "apps", "source": apps(tmp_path / "apps.jsonl"), "split": "train"},
    ]
    found = made(tmp_path, {"parts": parts})
    assert [problem.benchmark for problem in found] == ["mbpp"] * 3 + ["apps"]
    alone = made(tmp_path, parts[0])
    assert alone == found[:3]


def test_shown_asserts_are_in_the_statement_and_are_the_example_tests(tmp_path: Path) -> None:
    source = mbpp(tmp_path / "mbpp.jsonl", range(11, 13))
    config = {"benchmark": "mbpp", "source": source, "split": "test"}
    whole, two = made(tmp_path, config)[0], made(tmp_path, config | {"shown_asserts": 2})[0]
    assert whole.example_tests is None
    assert whole.question.count("assert") == 3
    assert two.question == "Write f, number 11.\nYour code should satisfy these tests:\nassert f(1) == 2\nassert f(2) == 3"
    assert two.example_tests == AssertTests(["assert f(1) == 2", "assert f(2) == 3"], "")
    assert two.hidden_tests == whole.hidden_tests


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'shown_asserts': the statement of apps/train/00007 does not end in its asserts"):
        made(tmp_path, {"benchmark": "apps", "source": apps(tmp_path / "apps.jsonl"), "split": "train", "shown_asserts": 1})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{parts: [{benchmark: mbpp}]}", r"problems.test.parts.0: each part needs a 'source'"),
        ("{source: x, parts: [{benchmark: mbpp, source: y}]}", r"problems.test has parts, which have their own source"),
    ],
)
def test_parts_that_cannot_be_read_are_an_error_of_the_run_file(section: str, message: str, tmp_path: Path) -> None:
    for name in ("mini.yaml", "smoke.yaml"):
        (tmp_path / name).write_text((ROOT / "config/runs" / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "own.yaml").write_text(f"extends: mini\nproblems:\n  test: {section}\n", encoding="utf-8")
    text = (tmp_path / "mini.yaml").read_text(encoding="utf-8")
    (tmp_path / "mini.yaml").write_text(text.replace("    size: 300\n", ""), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_run(tmp_path / "own.yaml")
