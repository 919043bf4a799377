"""The page of a run: self-contained, safe with hostile programs, the same bytes for the same input, and clear when a file is missing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_run import FakeRun, make_fake_run

from coderl.config import EvaluateConfig, ReportConfig
from coderl.evaluation import evaluate
from coderl.problems import read_problems
from coderl.records import DataError
from coderl.report import report
from coderl.report.examples import KINDS_OF_EXAMPLE, choose_examples
from coderl.report.stage import _panels, _read_log

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    fake: FakeRun = make_fake_run(folder / "fake", count=9, samples=24, n=8)
    config = EvaluateConfig(
        pass_at=[1, 5], n_at=[(1, 20)], comparisons=[("rl_finetune/rl", "warm_start"), ("critical_sampling", "policy/rl")], bootstrap=100
    )
    evaluate(
        config=config,
        run="mini",
        seed=1,
        problems=fake.problems,
        programs=fake.programs,
        critic_metrics=fake.critic_metrics,
        critical=fake.critical,
        provenance={"commit": "abc1234", "config_hash": "0f0f"},
        output=folder / "apps_eval.csv",
        differences=folder / "differences.csv",
        metrics=folder / "metrics.json",
        per_problem=folder / "per_problem.parquet",
    )
    return {
        "config": ReportConfig(example_programs=6),
        "run": "mini",
        "table": folder / "apps_eval.csv",
        "differences": folder / "differences.csv",
        "problems": fake.problems,
        "programs": fake.programs,
        "models": fake.models,
        "corpus_statistics": fake.corpus_statistics,
        "provenance": {"commit": "abc1234", "command": "coderl report <mini>"},
        "output": folder / "report.html",
        "batch": 8,
    }


@pytest.fixture(scope="module")
def page(arguments: dict[str, Any]) -> str:
    report(**arguments)
    return Path(arguments["output"]).read_text(encoding="utf-8")


class Balanced(HTMLParser):
    """Fails on a tag that is closed twice or never."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    names = {tag for tag, _ in parser.tags}
    assert not names & {"script", "link", "img", "iframe", "object"}
    for tag, attributes in parser.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert value is not None
                assert value.startswith("#"), (tag, value)
    assert "url(http" not in page
    assert "@import" not in page


def test_every_section_is_there_and_linked(page: str) -> None:
    anchors = ("results", "differences", "budget", "curves", "outcomes", "difficulty", "training", "critic", "corpus", "programs")
    for anchor in anchors:
        assert f'<section id="{anchor}">' in page
        assert f'href="#{anchor}"' in page
    for fact in (
        "procedural/test",
        "abc1234",
        "actor_log_likelihood",
        "plain, equal tokens",
        "exact_duplicates",
        "coderl report &lt;mini&gt;",
    ):
        assert fact in page


def test_programs_cannot_write_html(page: str) -> None:
    """Statements, programs and error messages of the fake run are full of markup."""
    assert "<script>alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>result</b>" not in page
    assert "# &lt;&amp;&gt;" in page


def test_charts_are_valid_and_take_the_pages_colours(page: str) -> None:
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) == 2 + 1 + 1 + 1 + 5 + 1  # differences, curves, outcomes, difficulty, training, critic
    ids: list[str] = []
    for chart in charts:
        root = ET.fromstring(chart.replace("xlink:href", "href"))
        ids += [value for element in root.iter() if (value := element.get("id"))]
        assert "var(--ink)" in chart
        assert not re.search(r"#0a0[bcd]", chart)
        assert "DejaVu" not in chart
    assert len(ids) == len(set(ids))


def test_intervals_that_contain_zero_are_called_out(page: str, arguments: dict[str, Any]) -> None:
    lines = Path(arguments["differences"]).read_text().splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
    shown = [r for r in rows if r["difficulty"] == "all" and not r["metric"].endswith("@budget") and r["decoding"] != "greedy"]
    unclear = sum(row["contains_zero"] == "yes" for row in shown)
    assert (f"<b>{unclear} of {len(shown)}</b> intervals contain zero" if unclear else "No interval contains zero") in page


def test_the_same_input_gives_the_same_bytes(page: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    report(**arguments | {"output": tmp_path / "again.html"})
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_examples_show_every_outcome_on_different_problems(arguments: dict[str, Any]) -> None:
    problems = {problem.task_id: problem for problem in read_problems(arguments["problems"])}
    chosen = choose_examples(problems, arguments["programs"], 6)
    assert len({example.problem.task_id for example in chosen}) == len(chosen) == 6
    assert {example.hidden.outcome for example in chosen} == {"passed_test", "failed_test", "runtime_error", "compile_error"}
    assert len(choose_examples(problems, arguments["programs"], 100)) <= len(problems)
    assert choose_examples(problems, arguments["programs"], 0) == []
    assert len(KINDS_OF_EXAMPLE) == 6


def test_columns_of_a_log_become_charts(tmp_path: Path) -> None:
    path = tmp_path / "training_log.csv"
    path.write_text("step,epoch,grad_norm,loss,loss_rl,share_passed_test,share_failed_test\n50,0.1,1,2,0.5,0.1,0.9\n100,0.2,1,1,,0.2,0.8\n")
    plots = _panels(_read_log(path))
    assert list(plots) == ["loss", "grad norm", "share of outcomes"]
    assert list(plots["loss"]) == ["loss", "loss_rl"]
    assert plots["loss"]["loss_rl"][:2] == ([50.0], [0.5])
    path.write_text("step,loss\n50,nonsense\n")
    with pytest.raises(DataError, match=r"training_log\.csv: line 2: column 'loss' must be a number, found 'nonsense'"):
        _read_log(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "no.csv"}, r"no\.csv: no such file; make it with `coderl evaluate`"),
        ({"differences": "no.csv"}, r"no\.csv: no such file"),
        ({"corpus_statistics": "no.csv"}, r"no\.csv: no such file; it is written by `coderl corpus`"),
        ({"models": {"actor": "nowhere"}}, r"training_log\.csv: no such file"),
        ({"run": "other"}, "no rows of run 'other'"),
    ],
)
def test_a_missing_file_is_one_clear_error_and_no_page(
    arguments: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    wrong: dict[str, Any] = {}
    for key, value in changes.items():
        if isinstance(value, dict):
            wrong[key] = {name: tmp_path / path for name, path in value.items()}
        else:
            wrong[key] = value if key == "run" else tmp_path / value
    with pytest.raises(DataError, match=message):
        report(**arguments | wrong | {"output": tmp_path / "report.html"})
    assert not (tmp_path / "report.html").exists()
