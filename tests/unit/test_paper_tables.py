"""The paper's tables with ours beside, the tables of further problem sets, and variants of critical sampling."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_run import make_fake_run

from coderl.config import ConfigError, EvaluateConfig, EvaluationSet, RunConfig, load_run, validate
from coderl.evaluation import config_of_set, evaluate, row_name
from coderl.evaluation.paper import paper_values
from coderl.evaluation.paper_tables import NOT_RUN, TABLES, write_paper_table
from coderl.evaluation.tables import COLUMNS, read_table, write_table
from coderl.problems import read_problems, write_problems
from coderl.records import DataError

ROOT = Path(__file__).parents[2]
FILES = sorted(f"table{name}.{form}" for name in ("1a", "1b", "2", "3", "4", "5", "_mbpp") for form in ("csv", "md"))


def write_paper_tables(*, tables: list[Path], others: dict[str, Path], output: Path) -> None:
    """Every table, as the jobs of the workflow write them one by one."""
    for table in TABLES:
        stem = f"table{table.name}"
        write_paper_table(name=stem, tables=tables, others=others, output=output / f"{stem}.csv", page=output / f"{stem}.md")


def tidy(path: Path, rows: list[tuple[str, str, str, str, str, str]]) -> Path:
    """A table of `coderl evaluate` with (benchmark, model, decoding, metric, difficulty, value)."""
    names = ("benchmark", "model", "decoding", "metric", "difficulty", "value")
    whole = [dict.fromkeys(COLUMNS, "") | dict(zip(names, row, strict=True)) | {"run": "mine", "problem_set": "test"} for row in rows]
    write_table(path, COLUMNS, whole)
    return path


def lines(path: Path) -> list[list[str]]:
    with path.open() as text:
        return list(csv.reader(text))


def test_every_table_has_every_row_twice_and_not_run_where_nothing_was_run(tmp_path: Path) -> None:
    write_paper_tables(
        tables=[tidy(tmp_path / "t.csv", [("apps", "warm_start", "all", "pass@1", "all", "9.99")])], others={}, output=tmp_path / "o"
    )
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == FILES
    sizes = {"1a": 8, "1b": 5, "2": 4, "3": 10, "4": 5, "5": 5, "_mbpp": 14}
    for table in TABLES:
        head, *rows = lines(tmp_path / "o" / f"table{table.name}.csv")
        width = len(table.labels) + 1 + len(table.metrics) * len(table.levels)
        assert len(head) == width
        assert all(len(row) == width for row in rows)
        assert [row[len(table.labels)] for row in rows] == ["paper", "ours"] * sizes[table.name]
        ours = [cell for row in rows if row[len(table.labels)] == "ours" for cell in row[len(table.labels) + 1 :]]
        assert set(ours) <= {NOT_RUN, "9.99"}
    found = {(name, tuple(row[:2])) for name in ("3", "5") for row in lines(tmp_path / "o" / f"table{name}.csv") if "9.99" in row}
    assert found == {("3", ("CodeT5", "none")), ("5", ("770M", "CSN+GCPY"))}


def test_numbers_of_ours_stand_where_the_papers_stand(tmp_path: Path) -> None:
    """Our table made of the paper's own numbers is the paper's table."""
    rows = [(v.benchmark, v.model, v.decoding, v.metric, v.difficulty, f"{v.value:.2f}") for v in paper_values()]
    main = tidy(tmp_path / "apps_eval.csv", rows)
    write_paper_tables(tables=[main], others={}, output=tmp_path / "o")
    compared = 0
    for table in TABLES:
        body = lines(tmp_path / "o" / f"table{table.name}.csv")[1:]
        for paper, ours in zip(body[::2], body[1::2], strict=True):
            for theirs, mine in zip(paper, ours, strict=True):
                if mine not in (NOT_RUN, theirs, "ours"):
                    assert float(mine) == float(theirs), f"table {table.name}: {paper}"
                compared += mine not in (NOT_RUN, "ours") and any(character.isdigit() for character in mine)
    assert compared > 150


def test_another_benchmark_never_stands_beside_the_papers(tmp_path: Path) -> None:
    rows = [(("procedural"), "warm_start", "all", "pass@1", level, "50.00") for level in ("introductory", "all")]
    write_paper_tables(tables=[tidy(tmp_path / "t.csv", rows)], others={}, output=tmp_path / "o")
    assert not any("50.00" in cell for table in TABLES for row in lines(tmp_path / "o" / f"table{table.name}.csv") for cell in row)
    assert "This run has no apps: it was evaluated on procedural." in (tmp_path / "o" / "table3.md").read_text()


def test_rows_of_other_runs_come_from_their_tables(tmp_path: Path) -> None:
    main = tidy(tmp_path / "main.csv", [("apps", "warm_start", "all", "pass@5", "all", "1.00")])
    small = tidy(tmp_path / "small.csv", [("apps", "warm_start", "all", "pass@5", "all", "2.00")])
    write_paper_tables(tables=[main], others={"codet5_small": small}, output=tmp_path / "o")
    ours = [row for row in lines(tmp_path / "o" / "table5.csv")[1:] if row[3] == "ours"]
    assert [row[-1] for row in ours] == ["2.00", NOT_RUN, NOT_RUN, NOT_RUN, "1.00"]
    with pytest.raises(DataError, match="--others: no row of the paper's tables comes from 'gpt'; there are codet5_base"):
        write_paper_tables(tables=[main], others={"gpt": small}, output=tmp_path / "o")
    with pytest.raises(DataError, match="--table: the paper has no 'table9'; there are table1a, "):
        write_paper_table(name="table9", tables=[main], others={}, output=tmp_path / "x.csv", page=tmp_path / "x.md")
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        write_paper_tables(tables=[tmp_path / "nowhere.csv"], others={}, output=tmp_path / "o")


def test_the_first_table_that_has_a_number_gives_it(tmp_path: Path) -> None:
    first = tidy(tmp_path / "a.csv", [("apps", "rl_finetune/rl", "all", "pass@1", "all", "3.00")])
    second = tidy(tmp_path / "b.csv", [("apps", "rl_finetune/rl", "all", "pass@1", "all", "4.00")])
    write_paper_tables(tables=[first, second], others={}, output=tmp_path / "o")
    assert "3.00" in lines(tmp_path / "o" / "table2.csv")[-1]


def test_a_further_set_has_a_table_of_plain_samples_and_a_variant_a_row(tmp_path: Path) -> None:
    """On problems that are called APPS, so that the paper's numbers would stand beside."""
    fake = make_fake_run(tmp_path / "fake", count=9)
    write_problems(fake.problems, [replace(problem, benchmark="apps") for problem in read_problems(fake.problems)])
    also = {"ablation": EvaluationSet(policies=["ce"], pass_at=[1, 5])}
    config = EvaluateConfig(policies=["rl"], critical=["refine"], pass_at=[1], n_at=[(1, 20)], also=also, bootstrap=100)

    def measured(config: EvaluateConfig, names: list[str], output: Path) -> list[dict[str, str]]:
        programs = {name: fake.programs[name.replace("critical/refine", "critical")] for name in names}
        evaluate(
            config=config,
            run="mine",
            seed=1,
            problems=fake.problems,
            programs=programs,
            critic_metrics=None,
            critical=fake.critical,
            provenance={},
            output=output,
        )
        return read_table(output)

    main = measured(config, ["actor", "policy/rl", "critical", "critical/refine"], tmp_path / "apps_eval.csv")
    of = {model: [row["value"] for row in main if row["model"] == model] for model in ("critical_sampling", "critical_sampling/refine")}
    assert of["critical_sampling"] == of["critical_sampling/refine"] != []
    own = measured(config_of_set(config, "ablation"), ["actor", "policy/ce"], tmp_path / "ablation_eval.csv")
    assert {row["model"] for row in own} == {"warm_start", "rl_finetune/ce"}
    assert {row["problem_set"] for row in own} == {"ablation"}
    assert {row["metric"] for row in own if row["metric"].startswith("pass@")} == {"pass@1", "pass@5"}
    assert any(row["paper"] for row in own)
    other = config_of_set(config.model_copy(update={"paper_numbers": False}), "ablation")
    assert not any(row["paper"] for row in measured(other, ["actor", "policy/ce"], tmp_path / "other.csv"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["ablation_eval.csv", "apps_eval.csv", "other.csv"]


# --------------------------------------------------------------------------------------------------- configuration


def test_the_paper_run_can_fill_every_line_of_ours() -> None:
    """Each (model, metric) that a table of ours reads is measured by the paper run or by one that it names."""
    paper = load_run(ROOT / "config/runs/paper.yaml")
    sheets: dict[str, list[tuple[list[str], EvaluateConfig]]] = {"apps": [], "mbpp": []}
    evaluated = paper.evaluate
    models = ["warm_start", "critical_sampling"]
    models += [f"rl_finetune/{name}" for name in evaluated.policies] + [f"critical_sampling/{name}" for name in evaluated.critical]
    sheets["apps"].append((models, evaluated))
    for name in evaluated.also:
        own = config_of_set(evaluated, name)
        benchmark = paper.problems[name].benchmark
        if benchmark in sheets:
            sheets[benchmark].append((["warm_start", *(f"rl_finetune/{policy}" for policy in own.policies)], own))
    for table in TABLES:
        for line in table.lines:
            for model, _, metric in line.ours.values():
                n, _, k = metric.partition("@")
                have = any(
                    model in names and (int(k) in sheet.pass_at if n == "pass" else (int(n), int(k)) in sheet.n_at)
                    for names, sheet in sheets[table.benchmark]
                )
                assert have or line.other, f"table {table.name}: {line.labels}, {metric}"
    for name in evaluated.other_runs.values():
        run, _, chosen = name.partition("/")
        other = load_run(ROOT / "config/runs" / f"{run}.yaml")
        assert other.evaluate.also[chosen].policies == []
    assert {line.other for table in TABLES for line in table.lines if line.other} - set(evaluated.other_runs) == {"codet5_large_gcpy"}


def changed(**evaluate: Any) -> dict[str, Any]:
    data = load_run(ROOT / "config/runs/smoke.yaml").model_dump()
    data["evaluate"].update(evaluate)
    return data


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ({"also": {"dev": {"pass_at": [4]}}}, "evaluate.also.dev.pass_at needs 4 programs per problem, but sample.sets.dev.samples"),
        ({"also": {"nowhere": {}}}, "evaluate.also needs 'nowhere', which sample.sets does not have"),
        ({"also": {"dev": {"policies": ["x"], "pass_at": [1]}}}, "evaluate.also.dev.policies needs 'x', which rl_finetune.variants"),
        ({"also": {"test": {"pass_at": [1]}}}, "evaluate.also has 'test'; name a set other than train, apps and evaluate.problem_set"),
        ({"critical": ["m9"]}, "evaluate.critical needs 'm9', which critical_sample.variants does not have; there are refine"),
        ({"also": {"dev": {"n_at": [[5, 1]]}}}, "n_at has [5, 1]"),
        ({"other_runs": {"gpt": "a/b"}}, "other_runs"),
    ],
)
def test_what_cannot_be_evaluated_is_said(evaluate: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, changed(**evaluate), "mine.yaml")
    assert message in str(caught.value)


def test_a_variant_changes_what_it_names_and_holds_no_other() -> None:
    critical = load_run(ROOT / "config/runs/paper.yaml").critical_sample
    refine = critical.variant("refine")
    assert (refine.repair_candidates, refine.refine, refine.batch, refine.variants) == (0, True, critical.batch, {})
    assert critical.variant(None) == critical.model_copy(update={"variants": {}})
    assert row_name("critical/m2") == "critical_sampling/m2"
    with pytest.raises(ConfigError, match=r"evaluate\.also has no set 'x'; there are dev"):
        config_of_set(load_run(ROOT / "config/runs/smoke.yaml").evaluate, "x")
