"""The corpus stage: each filter drops what it should and nothing else, and the statistics say so."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from coderl.config import ConfigError, CorpusConfig, ProceduralConfig
from coderl.corpus import make_corpus
from coderl.corpus.filters import code_tokens, ngram_hashes
from coderl.corpus.licenses import header_contradicts, license_allowed, license_name
from coderl.problems import InputOutputTests, Problem, write_problems
from coderl.problems.procedural import ProceduralBenchmark
from coderl.records import DataError

ALLOWED = frozenset({"mit", "apache-2.0", "bsd-3-clause"})


def module(seed: int, lines: int = 40) -> str:
    """A Python file of random statements: unlike any other seed's."""
    rng = random.Random(seed)
    return "".join(f"value_{rng.randrange(10**6)} = {rng.randrange(10**6)} + other_{rng.randrange(10**6)}\n" for _ in range(lines))


def rows_file(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(
    tmp_path: Path, sources: list[str], decontaminate: list[Path] | None = None, name: str = "corpus", **keys: Any
) -> list[dict[str, Any]]:
    make_corpus(
        config=CorpusConfig(sources=sources, **keys),
        procedural=ProceduralConfig(),
        decontaminate=decontaminate or [],
        seed=1,
        output=tmp_path / f"{name}.parquet",
        statistics=tmp_path / f"{name}.csv",
    )
    rows: list[dict[str, Any]] = pq.read_table(tmp_path / f"{name}.parquet").to_pylist()
    return rows


def dropped(tmp_path: Path, name: str = "corpus") -> dict[str, int]:
    """Files dropped by each filter that dropped any, all sources together."""
    counts: dict[str, int] = {}
    with open(tmp_path / f"{name}.csv", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            if int(row["files_dropped"]):
                counts[row["filter"]] = counts.get(row["filter"], 0) + int(row["files_dropped"])
    return counts


# --------------------------------------------------------------------------------------------------- licences


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("mit license", True),
        ("Apache-2", True),
        ("apache 2.0", True),
        ("Apache License 2.0", True),
        ("New BSD", True),
        ("gpl-3.0", False),
        ("", False),
        ("MIT OR GPL-3.0", True),
        ("MIT AND GPL-3.0", False),
        ("MIT, Apache-2.0", True),
        ("(MIT OR GPL-2.0) AND GPL-3.0", False),
        ("GPL-3.0 OR (MIT AND BSD-3-Clause)", True),
        ("(MIT", False),
        ("MIT) OR MIT", False),
    ],
)
def test_license_expressions(expression: str, allowed: bool) -> None:
    assert license_allowed(expression, ALLOWED) is allowed


def test_every_licence_of_the_papers_list_is_its_own_alias() -> None:
    for name in CorpusConfig().licenses:
        assert license_name(name.upper()) == name


@pytest.mark.parametrize(
    ("header", "contradicts"),
    [
        ("# SPDX-License-Identifier: MIT\n", False),
        ("# SPDX-License-Identifier: GPL-2.0-only\n", True),
        ("# SPDX-License-Identifier: GPL-2.0-only OR MIT\n# GNU General Public License\n", False),
        ("# This program is free software under the GNU General Public License\n", True),
        ('"""Licensed under the GPLv3."""\n', True),
        ("# GNU Lesser General Public Licence applies\n", True),
        ("# Proprietary and confidential.\n", True),
        ("# for non-commercial use only\n", True),
        ("# Copyright (c) 2001 Somebody. All rights reserved.\n", False),
        ("def gplot(): pass\n", False),
        ("x = 1\n" * 60 + "# GNU General Public License\n", False),
    ],
)
def test_header_check(header: str, contradicts: bool) -> None:
    assert header_contradicts(header + "x = 1\n", ALLOWED) is contradicts


def test_an_allowed_gpl_is_no_contradiction() -> None:
    assert not header_contradicts("# GNU General Public License\n", ALLOWED | {"gpl-3.0"})


# --------------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("name", "file", "keys"),
    [
        ("license", {"text": module(1), "license": "GPL-3.0"}, {}),
        ("license", {"text": module(1), "license": None}, {}),
        ("license_header", {"text": "# SPDX-License-Identifier: GPL-3.0-only\n" + module(1)}, {}),
        ("undecodable", {"text": "x = '\ud800'\n" + module(1)}, {}),
        ("min_characters", {"text": "x = 1\n"}, {}),
        ("max_characters", {"text": module(1, lines=400)}, {"max_characters": 10_000}),
        ("max_line_length", {"text": module(1) + "x = '" + "y" * 1000 + "'\n"}, {}),
        ("max_mean_line_length", {"text": ("x = '" + "y" * 150 + "'\n") * 20}, {}),
        ("min_alphanumeric_fraction", {"text": "x = (\n" + "    ((),), {}, [], [()],\n" * 20 + ")\n"}, {}),
        ("autogenerated", {"text": "# Automatically generated by a tool, do not edit\n" + module(1)}, {}),
        ("must_parse", {"text": module(1) + "print 'two'\n"}, {}),
        ("must_parse", {"text": module(1) + "x = '\x00'\n"}, {}),
        ("exact_duplicates", {"text": module(0).replace(" + ", "+").replace("\n", "\n\n")}, {}),
        ("near_duplicates", {"text": module(0) + "last = 1\n"}, {}),
    ],
)
def test_each_filter_drops_what_it_is_for(tmp_path: Path, name: str, file: dict[str, Any], keys: dict[str, Any]) -> None:
    good = [{"text": module(seed), "license": "MIT", "path": f"good_{seed}.py"} for seed in (0, 2, 3)]
    source = rows_file(tmp_path / "files.jsonl", [*good, {"license": "mit", "path": "bad.py", **file}])
    kept = run(tmp_path, [source], **keys)
    assert [row["path"] for row in kept] == ["good_0.py", "good_2.py", "good_3.py"]
    assert dropped(tmp_path) == {name: 1, "all filters": 1}
    assert set(kept[0]) == {"text", "license", "path", "source"}
    assert kept[0] == {"text": module(0), "license": "MIT", "path": "good_0.py", "source": source}


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ({"text": module(1) + "print 'two'\n"}, {"must_parse": False}),
        ({"text": "# do not edit\n" + module(1)}, {"drop_autogenerated": False}),
        ({"text": module(0) + "last = 1\n"}, {"near_duplicates": False}),
        ({"text": module(1), "license": "GPL-3.0"}, {"licenses": ["mit", "gpl-3.0"]}),
        ({"text": "x = 1\n"}, {"min_characters": 1}),
    ],
)
def test_filters_can_be_loosened(tmp_path: Path, file: dict[str, Any], keys: dict[str, Any]) -> None:
    good = {"text": module(0), "license": "MIT", "path": "good.py"}
    assert len(run(tmp_path, [rows_file(tmp_path / "files.jsonl", [good, {"license": "mit", "path": "bad.py", **file}])], **keys)) == 2


def test_near_duplicates_are_judged_by_the_threshold(tmp_path: Path) -> None:
    lines = module(0, lines=100).splitlines(keepends=True)
    half = "".join(lines[:50]) + module(5, lines=50)
    rows = [{"text": text, "license": "mit", "path": str(i)} for i, text in enumerate(["".join(lines), half])]
    assert len(run(tmp_path, [rows_file(tmp_path / "files.jsonl", rows)])) == 2
    assert len(run(tmp_path, [rows_file(tmp_path / "files.jsonl", rows)], near_duplicate_threshold=0.15)) == 1


# --------------------------------------------------------------------------------------------------- decontamination

SOLUTION = """\
def count(words):
    table = {}
    for word in words:
        table[word] = table.get(word, 0) + 1
    return sorted(table.items())
"""
STATEMENT = "You are given the names of all guests at a party and must find out how many of them share a first name with the host of it."


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    tests = InputOutputTests("call", [[["a"]]], [[["a", 1]]])
    path = tmp_path / "problems.parquet"
    write_problems(path, [Problem("t", "custom", "test", "interview", STATEMENT, "", "count", [SOLUTION, "print(1)\n"], tests, None)])
    return path


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (module(1) + SOLUTION, "decontaminate_ngram"),
        (module(1) + SOLUTION.replace("\n", "  # commented\n").replace("    ", "\t"), "decontaminate_ngram"),
        (f'"""{STATEMENT.upper()}"""\n' + module(1), "decontaminate_ngram"),
        ("# " + STATEMENT.replace(" all ", "\n# all ").replace(" a first", "\n# a first") + "\n" + module(1), "decontaminate_ngram"),
        ("# the answer is simple\nprint( 1 )\n", "decontaminate_programs"),
    ],
)
def test_files_that_overlap_with_a_problem_are_dropped(tmp_path: Path, problems: Path, text: str, name: str) -> None:
    rows = [{"text": module(0), "license": "mit", "path": "good.py"}, {"text": text, "license": "mit", "path": "bad.py"}]
    assert [row["path"] for row in run(tmp_path, [rows_file(tmp_path / "files.jsonl", rows)], [problems])] == ["good.py"]
    assert dropped(tmp_path) == {name: 1, "all filters": 1}


def test_a_shorter_overlap_is_kept(tmp_path: Path, problems: Path) -> None:
    partial = module(1) + "for word in words:\n    table[word] = 1\nprint(1)\n# You are given the names of all guests\n"
    source = rows_file(tmp_path / "files.jsonl", [{"text": partial, "license": "mit", "path": "good.py"}])
    assert len(run(tmp_path, [source], [problems])) == 1
    with pytest.raises(DataError, match="decontaminate_ngram"):
        run(tmp_path, [source], [problems], decontaminate_ngram=6)


def test_ngram_hashes_are_equal_exactly_for_equal_runs() -> None:
    tokens = code_tokens("a = b + c  # note\nd = b + c\n")
    assert tokens == ["a", "=", "b", "+", "c", "d", "=", "b", "+", "c"]
    hashes = ngram_hashes(tokens, 4)
    assert len(hashes) == 7
    assert hashes[1] == hashes[6]
    assert len(set(hashes.tolist())) == 6
    assert len(ngram_hashes(tokens, 11)) == 0


# --------------------------------------------------------------------------------------------------- sources


def test_generated_files_need_no_near_duplicate_filter_and_hold_no_held_out_composition(tmp_path: Path) -> None:
    benchmark = ProceduralBenchmark(ProceduralConfig())
    test = [item.problem for item in benchmark.problems("test", 40, {"introductory": 1, "interview": 1, "competition": 1})]
    write_problems(tmp_path / "test.parquet", test)
    rows = run(tmp_path, ["procedural"], [tmp_path / "test.parquet"], procedural_files=300)
    counts = dropped(tmp_path)
    assert set(counts) <= {"exact_duplicates", "all filters"}
    assert len(rows) == 300 - counts.get("all filters", 0) > 270
    assert {row["license"] for row in rows} == {"bsd-3-clause"}
    by_path = {row["path"]: row["text"] for row in rows}
    assert by_path["procedural/000005.py"] == benchmark.corpus_file(5)
    solutions = {tuple(code_tokens(solution)) for problem in test for solution in problem.solutions}
    assert not solutions & {tuple(code_tokens(row["text"])) for row in rows}


def test_the_standard_library_is_read_without_its_tests(tmp_path: Path) -> None:
    rows = run(tmp_path, ["stdlib"], stdlib_files=30, licenses=["psf-2.0"])
    assert 15 <= len(rows) <= 30
    assert not any({"test", "tests", "site-packages", "idlelib"} & set(row["path"].split("/")) for row in rows)
    assert not any(row["path"].startswith("/") for row in rows)
    assert {row["license"] for row in rows} == {"psf-2.0"}
    with pytest.raises(DataError, match="'license' dropped most"):
        run(tmp_path, ["stdlib"], stdlib_files=5)  # the paper's list has no PSF licence


def test_folders_are_read_in_a_fixed_order_with_the_default_licence(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "z.py").write_text(module(1), encoding="utf-8")
    (folder / "a.py").write_bytes(("# coding: latin-1\nname = 'é'\n" + module(2)).encode("latin-1"))
    (folder / "broken.py").write_bytes(b"x = '\xff\xfe'\n" + module(3).encode())
    (folder / "notes.txt").write_text("no code", encoding="utf-8")
    rows = run(tmp_path, [str(folder)], default_license="MIT")
    assert [row["path"] for row in rows] == ["a.py", "b/z.py"]
    assert "é" in rows[0]["text"]
    assert dropped(tmp_path) == {"undecodable": 1, "all filters": 1}
    with pytest.raises(ConfigError, match="default_license"):
        run(tmp_path, [str(folder)])


def test_parquet_sources_and_the_statistics_table(tmp_path: Path) -> None:
    import pyarrow as pa

    texts = [module(0), module(1), "x = 1\n"]
    pq.write_table(
        pa.table({"text": texts, "license": ["mit"] * 3, "path": ["0", "1", "2"], "size": [1, 2, 3]}), tmp_path / "files.parquet"
    )
    assert len(run(tmp_path, [str(tmp_path / "files.parquet")])) == 2
    with open(tmp_path / "corpus.csv", encoding="utf-8") as table:
        rows = {row["filter"]: row for row in csv.DictReader(table)}
    total = sum(map(len, texts))
    assert list(rows) == [
        *("license", "undecodable", "license_header", "min_characters", "max_characters", "max_line_length", "max_mean_line_length"),
        *("min_alphanumeric_fraction", "autogenerated", "must_parse", "exact_duplicates", "decontaminate_programs", "decontaminate_ngram"),
        *("near_duplicates", "all filters"),
    ]
    assert (rows["license"]["files_in"], rows["license"]["characters_in"]) == ("3", str(total))
    assert (rows["min_characters"]["files_dropped"], rows["min_characters"]["characters_dropped"]) == ("1", "6")
    assert (rows["must_parse"]["files_in"], rows["must_parse"]["characters_in"]) == ("2", str(total - 6))
    assert (rows["all filters"]["files_in"], rows["all filters"]["files_dropped"]) == ("3", "1")


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        run(tmp_path, ["procedural", "stdlib"], name=name, procedural_files=50, stdlib_files=10, licenses=["psf-2.0", "bsd-3-clause"])
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"license": "mit", "path": "p"}, "row 2: column 'text' must be a string"),
        ({"text": "x", "license": "mit", "path": 3}, "row 2: column 'path' must be a string"),
        ({"text": "x", "license": ["mit"], "path": "p"}, "row 2: column 'license' must be a string or null"),
        ({"text": "x", "path": "p"}, "row 2: column 'license' is missing"),
    ],
)
def test_malformed_rows_name_file_row_and_column(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    source = rows_file(tmp_path / "files.jsonl", [{"text": module(0), "license": "mit", "path": "a"}, row])
    with pytest.raises(DataError, match=re.escape(f"{source}: {message}")):
        run(tmp_path, [source])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files.jsonl"]  # nothing half-written


def test_unusable_sources_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source 'nowhere\.jsonl'"):
        run(tmp_path, ["nowhere.jsonl"])
    with pytest.raises(DataError, match="the sources hold no file"):
        run(tmp_path, ["procedural"], procedural_files=0)
