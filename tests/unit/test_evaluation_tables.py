"""The stage `evaluate` on a whole run's files, the joins over runs, and the table in the terminal."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import LEVELS, FakeRun, make_fake_run

from coderl.config import ConfigError, EvaluateConfig
from coderl.evaluation import collect, collect_differences, evaluate, read_table, show
from coderl.evaluation.paper import paper_value, paper_values
from coderl.evaluation.tables import COLUMNS, DIFFERENCE_COLUMNS, POOLED_COLUMNS, contains_zero, percent, read_per_problem
from coderl.records import DataError

CONFIG = EvaluateConfig(
    pass_at=[1, 5],
    n_at=[(1, 20), (5, 20)],
    comparisons=[("rl_finetune/rl", "warm_start"), ("critical_sampling", "policy/rl")],
    bootstrap=300,
)
OUTPUTS = ("apps_eval.csv", "differences.csv", "metrics.json", "per_problem.parquet", "pass_at_k.csv")


def run_evaluate(
    fake: FakeRun, folder: Path, *, name: str = "mini", seed: int = 1, config: EvaluateConfig = CONFIG, **changes: object
) -> Path:
    arguments: dict[str, object] = {
        "config": config,
        "run": name,
        "seed": seed,
        "problems": fake.problems,
        "programs": fake.programs,
        "critic_metrics": fake.critic_metrics,
        "critical": fake.critical,
        "provenance": {"commit": "abc1234", "config_hash": "0f0f"},
        **dict(zip(("output", "differences", "metrics", "per_problem", "pass_at_k"), (folder / output for output in OUTPUTS), strict=True)),
    }
    evaluate(**(arguments | changes))  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return make_fake_run(tmp_path_factory.mktemp("fake"), count=12)


@pytest.fixture(scope="module")
def evaluated(fake: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_evaluate(fake, tmp_path_factory.mktemp("evaluated"))


def cells(folder: Path, **where: str) -> list[dict[str, str]]:
    with open(folder / "apps_eval.csv", newline="") as text:
        return [row for row in csv.DictReader(text) if all(row[key] == value for key, value in where.items())]


def test_the_table_has_every_row_and_level(evaluated: Path) -> None:
    rows = cells(evaluated)
    assert tuple(rows[0]) == COLUMNS
    assert list(dict.fromkeys(row["model"] for row in rows)) == [
        "reference_solutions",
        "empty_program",
        "warm_start",
        "rl_finetune/rl",
        "rl_finetune/ce",
        "critical_sampling",
        "critic",
        "actor_log_likelihood",
        "actor_mean_log_likelihood",
    ]
    assert {row["difficulty"] for row in rows} == {"introductory", "interview", "competition", "all"}
    assert {(row["run"], row["seed"], row["commit"], row["config_hash"]) for row in rows} == {("mini", "1", "abc1234", "0f0f")}
    (oracle,) = cells(evaluated, model="reference_solutions", metric="pass@1", difficulty="all")
    assert (oracle["value"], oracle["n_problems"]) == ("97.22", "12")  # one of 36 reference solutions fails
    (floor,) = cells(evaluated, model="empty_program", metric="pass@1", difficulty="all")
    assert (floor["value"], floor["low"], floor["high"]) == ("0.00", "0.00", "0.00")


def test_the_curves_are_the_pass_at_k_of_the_table(evaluated: Path) -> None:
    with open(evaluated / "pass_at_k.csv", newline="") as text:
        curves = list(csv.DictReader(text))
    assert [row["k"] for row in curves] == ["1", "5"]
    for row in curves:
        for model, decoding in {"warm_start": "all", "rl_finetune/rl": "all", "critical_sampling": "final_set"}.items():
            (cell,) = cells(evaluated, model=model, decoding=decoding, metric=f"pass@{row['k']}", difficulty="all")
            assert row[model] == cell["value"]
    assert curves[0]["reference_solutions"] == "97.22"
    assert curves[1]["reference_solutions"] == ""


def test_critical_sampling_stands_beside_plain_samples_at_its_budget(evaluated: Path) -> None:
    rows = {(row["model"], row["decoding"]): row for row in cells(evaluated, metric="1@budget", difficulty="all")}
    plain = [rows["rl_finetune/rl", f"filtered_{name}"] for name in ("first_round", "equal_programs", "equal_tokens")]
    critical = rows["critical_sampling", "filtered"]
    assert float(plain[0]["programs_per_problem"]) == 20
    assert float(plain[1]["programs_per_problem"]) <= float(critical["programs_per_problem"])
    assert float(critical["tokens_per_problem"]) > 0
    with open(evaluated / "differences.csv", newline="") as text:
        comparisons = {row["comparison"] for row in csv.DictReader(text)}
    assert comparisons == {
        "rl_finetune/rl - warm_start",
        "critical_sampling - rl_finetune/rl",
        "critical_sampling - rl_finetune/rl (filtered_first_round)",
        "critical_sampling - rl_finetune/rl (filtered_equal_programs)",
        "critical_sampling - rl_finetune/rl (filtered_equal_tokens)",
        "critical_sampling - rl_finetune/rl (filtered_equal_total)",
    }


def test_critic_metrics_become_rows_without_counts_and_nulls(evaluated: Path) -> None:
    (critic,) = cells(evaluated, model="critic", metric="auc_within_problem")
    assert (critic["value"], critic["low"], critic["high"], critic["n_problems"]) == ("63.00", "58.00", "68.00", "88")
    (likelihood,) = cells(evaluated, model="actor_log_likelihood", metric="auc_within_problem")
    assert likelihood["value"] == "79.00"
    assert len(cells(evaluated, model="actor_mean_log_likelihood", metric="auc_within_problem")) == 1
    assert {row["metric"] for row in cells(evaluated, model="critic")} == {"accuracy", "majority_baseline", "auc", "auc_within_problem"}


def test_the_binary_critic_has_its_own_rows_and_repeats_no_likelihood(fake: FakeRun, tmp_path: Path) -> None:
    both = run_evaluate(fake, tmp_path, binary_critic_metrics=fake.critic_metrics)
    ours, theirs = ({row["metric"]: row["value"] for row in cells(both, model=name)} for name in ("critic", "binary_critic"))
    assert ours == theirs
    assert len(cells(both, model="actor_log_likelihood", metric="auc_within_problem")) == 1


def test_differences_are_those_of_the_table_and_paired(evaluated: Path) -> None:
    table = {(row["model"], row["metric"]): float(row["value"]) for row in cells(evaluated, decoding="all", difficulty="all")}
    with open(evaluated / "differences.csv", newline="") as text:
        rows = [row for row in csv.DictReader(text) if row["difficulty"] == "all" and row["decoding"] == "all"]
    row = next(row for row in rows if row["metric"] == "pass@1" and row["baseline"] == "warm_start")
    assert float(row["difference"]) == pytest.approx(table["rl_finetune/rl", "pass@1"] - table["warm_start", "pass@1"], abs=0.011)
    (ours,) = cells(evaluated, model="rl_finetune/rl", metric="pass@1", difficulty="all", decoding="all")
    assert float(row["high"]) - float(row["low"]) < float(ours["high"]) - float(ours["low"])  # the problems' own spread cancels


def test_metrics_json_holds_the_table_for_dvc(evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())
    (row,) = cells(evaluated, model="warm_start", metric="pass@1", difficulty="all", decoding="all")
    assert metrics["warm_start"]["pass@1"] == float(row["value"])
    assert set(metrics["rl_finetune/rl"]) >= {"1@20", "greedy:pass@1", "filtered_equal_tokens:1@budget"}


def test_the_same_input_gives_the_same_bytes(fake: FakeRun, evaluated: Path, tmp_path: Path) -> None:
    again = run_evaluate(fake, tmp_path)
    for output in OUTPUTS:
        assert (again / output).read_bytes() == (evaluated / output).read_bytes(), output


def test_per_problem_values_average_to_the_table(evaluated: Path) -> None:
    values = read_per_problem(evaluated / "per_problem.parquet").values
    (row,) = cells(evaluated, model="rl_finetune/rl", metric="1@20", difficulty="all")
    assert percent(float(np.mean(list(values["rl_finetune/rl", "filtered", "1@20"].values())))) == row["value"]


def test_both_checkers_are_in_the_table_and_in_no_comparison(evaluated: Path) -> None:
    names = ("checker_disagreement", "legacy_pass@1", "strict_pass@1")
    for model in ("warm_start", "rl_finetune/rl"):
        differ, legacy, strict = (cells(evaluated, model=model, metric=name, difficulty="all")[0] for name in names)
        assert (differ["decoding"], differ["programs_per_problem"], differ["n_problems"]) == ("all", "2.00", "12")
        # Each of these programs fails for the one and passes for the other.
        assert float(legacy["value"]) - float(strict["value"]) == pytest.approx(float(differ["value"]), abs=0.011)
        assert float(differ["low"]) <= float(differ["value"]) <= float(differ["high"])
        assert {row["difficulty"] for row in cells(evaluated, model=model, metric=names[0])} == {*LEVELS, "all"}
    assert any(float(row["value"]) > 0 for row in cells(evaluated, metric=names[0]))
    assert not cells(evaluated, model="critical_sampling", metric=names[0])
    assert "legacy" not in (evaluated / "differences.csv").read_text()
    assert not any(metric in names for _, _, metric in read_per_problem(evaluated / "per_problem.parquet").values)
    text = shown(evaluated / "apps_eval.csv")
    assert "Strict and legacy checker on the same programs" in text
    assert text.index("legacy_pass@1") > text.index("Strict and legacy")


def test_bad_configuration_is_an_error_and_writes_nothing(fake: FakeRun, tmp_path: Path) -> None:
    wrong = CONFIG.model_copy(update={"comparisons": [("rl_finetune/typo", "warm_start")]})
    with pytest.raises(ConfigError, match=r"evaluate.comparisons: 'rl_finetune/typo' is no row of the table; rows are reference_solutions"):
        run_evaluate(fake, tmp_path, config=wrong)
    with pytest.raises(DataError, match="pass@100 needs at least 100"):
        run_evaluate(fake, tmp_path, config=CONFIG.model_copy(update={"pass_at": [100]}))
    with pytest.raises(ConfigError, match="critical_sample"):
        run_evaluate(fake, tmp_path, critical=None)
    with pytest.raises(DataError, match=r"nowhere\.json: no such file; it is written by `coderl train-critic`"):
        run_evaluate(fake, tmp_path, critic_metrics=tmp_path / "nowhere.json")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ several runs


@pytest.fixture(scope="module")
def three_seeds(fake: FakeRun, evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [evaluated]
    for seed in (2, 3):
        folder = tmp_path_factory.mktemp(f"seed{seed}")
        folders.append(run_evaluate(make_fake_run(folder / "fake", count=12, seed=seed), folder, name=f"mini-seed{seed}", seed=seed))
    return folders


def test_collect_joins_runs_in_order(three_seeds: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "results" / "apps_eval.csv"
    collect(tables=[folder / "apps_eval.csv" for folder in three_seeds], output=output)
    joined = read_table(output)
    assert list(dict.fromkeys(row["run"] for row in joined)) == ["mini", "mini-seed2", "mini-seed3"]
    assert len(joined) == sum(len(cells(folder)) for folder in three_seeds)
    with pytest.raises(DataError, match="run 'mini' is already in"):
        collect(tables=[three_seeds[0] / "apps_eval.csv"] * 2, output=output)


def pooled(folders: list[Path], output: Path) -> list[dict[str, str]]:
    collect_differences(
        differences=[folder / "differences.csv" for folder in folders],
        per_problem=[folder / "per_problem.parquet" for folder in folders],
        output=output,
    )
    return read_table(output, POOLED_COLUMNS)


def test_differences_are_pooled_over_seeds(three_seeds: list[Path], tmp_path: Path) -> None:
    rows = pooled(three_seeds, tmp_path / "differences.csv")
    row = next(r for r in rows if r["comparison"] == "rl_finetune/rl - warm_start" and r["metric"] == "pass@1" and r["difficulty"] == "all")
    single = []
    for folder in three_seeds:
        (found,) = [
            r
            for r in read_table(folder / "differences.csv", DIFFERENCE_COLUMNS)
            if (r["comparison"], r["metric"], r["difficulty"], r["decoding"]) == (row["comparison"], "pass@1", "all", "all")
        ]
        single.append(found["difference"])
    assert row["per_seed"].split() == single
    assert row["runs"].split() == ["mini", "mini-seed2", "mini-seed3"]
    assert row["n_seeds"] == "3"
    assert float(row["difference"]) == pytest.approx(np.mean([float(x) for x in single]), abs=0.011)
    assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    pooled(three_seeds, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "differences.csv").read_bytes()


def test_one_run_keeps_its_own_interval(three_seeds: list[Path], tmp_path: Path) -> None:
    rows = pooled(three_seeds[:1], tmp_path / "differences.csv")
    own = read_table(three_seeds[0] / "differences.csv", DIFFERENCE_COLUMNS)
    key = ("comparison", "metric", "difficulty", "decoding", "difference", "low", "high")
    assert [[r[name] for name in key] for r in rows] == [[r[name] for name in key] for r in own]


def test_runs_of_different_configuration_are_not_pooled(fake: FakeRun, evaluated: Path, tmp_path: Path) -> None:
    other = run_evaluate(fake, tmp_path, name="bigger", provenance={"commit": "abc1234", "config_hash": "beef"})
    rows = pooled([evaluated, other], tmp_path / "joined.csv")
    assert {row["runs"] for row in rows} == {"mini", "bigger"}


def test_files_that_do_not_belong_together_are_refused(three_seeds: list[Path], tmp_path: Path) -> None:
    first = three_seeds[0]
    with pytest.raises(DataError, match="one of each per run"):
        collect_differences(differences=[first / "differences.csv"], per_problem=[], output=tmp_path / "d.csv")
    with pytest.raises(DataError, match="not a parquet file"):
        collect_differences(differences=[first / "differences.csv"], per_problem=[first / "metrics.json"], output=tmp_path / "d.csv")


# ------------------------------------------------------------------------------------------------ terminal


def shown(table: Path, **arguments: str) -> str:
    out = io.StringIO()
    show(table, file=out, **arguments)
    return out.getvalue()


def test_show_prints_results_budgets_critic_and_differences(evaluated: Path) -> None:
    text = shown(evaluated / "apps_eval.csv")
    (row,) = cells(evaluated, model="rl_finetune/rl", metric="pass@5", difficulty="all", decoding="all")
    assert f"{float(row['value']):.1f} [{float(row['low']):.1f}, {float(row['high']):.1f}]" in text
    for part in (
        "mini: procedural/test, all difficulties, 12 problems",
        "plain, equal tokens",
        "actor_log_likelihood",
        "rl_finetune/rl - warm_start",
    ):
        assert part in text
    assert "\x1b" not in text
    assert "introductory, 4 problems" in shown(evaluated / "apps_eval.csv", difficulty="introductory")


def test_show_prints_budgets_that_are_the_same_once(evaluated: Path, tmp_path: Path) -> None:
    assert "equal programs and tokens" not in shown(evaluated / "apps_eval.csv")
    for name, column in (("apps_eval.csv", "decoding"), ("differences.csv", "baseline_decoding")):
        table = pd.read_csv(evaluated / name, dtype=str, keep_default_na=False)
        copied = table[table[column].str.startswith("filtered_equal_programs")]
        again = copied.assign(**{column: copied[column].str.replace("programs", "tokens")})
        if "comparison" in table:
            again["comparison"] = copied["comparison"].str.replace("programs", "tokens")
        others = table[~table[column].str.startswith("filtered_equal_tokens")]
        pd.concat([others, again]).to_csv(tmp_path / name, index=False)
    text = shown(tmp_path / "apps_eval.csv")
    assert "plain, equal tokens" not in text
    assert text.count("plain, equal programs and tokens") == text.count("plain, equal programs") == 2


def test_show_adds_the_mean_over_seeds(three_seeds: list[Path], tmp_path: Path) -> None:
    collect(tables=[folder / "apps_eval.csv" for folder in three_seeds], output=tmp_path / "apps_eval.csv")
    pooled(three_seeds, tmp_path / "differences.csv")
    text = shown(tmp_path / "apps_eval.csv")
    assert "Mean of 3 seeds (mini, mini-seed2, mini-seed3)" in text
    assert "paired interval over 3 seeds and problems" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; make it with `coderl evaluate`"),
        ("", "column 'run' is missing"),
        ("a,b\n1,2\n", "column 'run' is missing"),
        (",".join(COLUMNS) + "\n", "no rows"),
        (",".join(COLUMNS) + "\nmini,apps\n", "line 2: expected 20 cells"),
        (
            ",".join(COLUMNS) + "\n" + ",".join("many" if name == "value" else "" for name in COLUMNS) + "\n",
            "line 2: column 'value' must be a number",
        ),
        (b"\xff\xfe\x00", "not a CSV file in UTF-8"),
    ],
)
def test_a_missing_or_malformed_table_is_one_clear_error(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    path = tmp_path / "apps_eval.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        show(path)


def test_show_names_the_difficulties_there_are(evaluated: Path) -> None:
    with pytest.raises(ConfigError, match="has no 'hard'; there are introductory, interview, competition, all"):
        show(evaluated / "apps_eval.csv", difficulty="hard")


# ------------------------------------------------------------------------------------------------ small parts


def test_numbers_are_printed_without_floating_point_noise() -> None:
    assert percent(1 / 32 + 1e-17) == percent(1 / 32) == "3.12"
    assert percent(-1e-12) == "0.00"
    assert percent(float("nan")) == ""
    assert [contains_zero("-0.10", "0.00"), contains_zero("0.01", "2.00"), contains_zero("", "")] == ["yes", "no", ""]


def test_paper_values_stand_only_beside_their_own_benchmark() -> None:
    found = paper_value("apps", "rl_finetune/rl", "all", "pass@1", "all")
    assert found is not None
    assert (found.value, found.source) == (2.20, "Table 2 D, beam search")
    assert paper_value("procedural", "rl_finetune/rl", "all", "pass@1", "all") is None
    assert paper_value("mbpp", "rl_finetune/rl", "all", "pass@80", "all") is not None
    for value in paper_values():
        if value.metric.endswith(("compile_error", "runtime_error", "failed_test", "passed_test")):
            continue
        assert 0 <= value.value <= 100


def test_the_papers_totals_weigh_the_levels_as_apps_does() -> None:
    """All = 1000 : 3000 : 1000 (spec 8.1); a typing error in a table would show here."""
    values = {
        (v.model, v.decoding, v.metric, v.difficulty): v.value for v in paper_values() if v.benchmark == "apps" and v.source != "Fig. 8"
    }
    for model, decoding, metric in {key[:3] for key in values}:
        levels = [values[model, decoding, metric, level] for level in ("introductory", "interview", "competition", "all")]
        assert (levels[0] + 3 * levels[1] + levels[2]) / 5 == pytest.approx(levels[3], abs=0.06), (model, decoding, metric)
