"""Tables over seeds: small versions of the paper's tables 2 to 5 and figure 8, from files of dice through the real verbs."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_run import make_fake_run
from typer.testing import CliRunner

from coderl.cli import app
from coderl.config import CriticalVariant, EvaluateConfig, RunConfig, load_run
from coderl.evaluation import evaluate
from coderl.evaluation.paper_tables import TABLES
from coderl.evaluation.seed_tables import SEED_TABLES, as_markdown, read_seed_table, write_seed_table
from coderl.evaluation.tables import COLUMNS as TIDY
from coderl.evaluation.tables import pool, read_per_problem, write_per_problem, write_table
from coderl.provenance import run_hash
from coderl.records import DataError

ROOT = Path(__file__).parents[2]
LEVELS = ("introductory", "interview", "competition")
SEEDS = (1, 2, 3)
SOURCES = tuple(dict.fromkeys(source for table in SEED_TABLES.values() for source in table.sources))


def values_file(path: Path, source: str, seed: int, *, problems: int = 30, draw: int | None = None) -> Path:
    """Per-problem values of every cell that the tables take from a source; each model has a level of its own, each problem another."""
    keys = {key for table in SEED_TABLES.values() for line in table.lines if line.source == source for key in line.cells.values()}
    dice = np.random.default_rng([seed, SOURCES.index(source)])
    hard = np.random.default_rng(seed if draw is None else draw).random(problems)
    models = sorted({(model, decoding) for model, decoding, _ in keys})
    columns: dict[str, list[object]] = {name: [] for name in ("model", "decoding", "metric", "task_id", "problem", "difficulty", "value")}
    for model, decoding, metric in sorted(keys):
        better = 0.04 * models.index((model, decoding))
        for number in range(problems):
            share = float(np.clip(0.5 * hard[number] + better + 0.05 * dice.random(), 0, 1))
            row = (model, decoding, metric, f"procedural/test/{number:05d}", f"{draw or seed}-{number}", LEVELS[number % 3], share)
            for name, cell in zip(columns, row, strict=True):
                columns[name].append(cell)
    size = len(columns["value"])
    run = f"{source}-seed{seed}"
    write_per_problem(path, {"run": [run] * size, "seed": [seed] * size, **columns})
    tidy_file(path, run, seed)
    return path


def tidy_file(values: Path, run: str, seed: int, *rows: dict[str, str]) -> Path:
    """The tidy table beside per-problem values: a critic's row and `rows`."""
    critic = {"model": "critic", "metric": "auc_within_problem", "value": f"7{seed}.00", "n_problems": "80"}
    common = dict.fromkeys(TIDY, "") | {"run": run, "seed": str(seed)}
    write_table(values.with_suffix(".csv"), TIDY, [common | row for row in (critic, *rows)])
    return values.with_suffix(".csv")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("values")
    return {source: [values_file(folder / f"{source}{seed}.parquet", source, seed) for seed in SEEDS] for source in SOURCES}


def verb(name: str, sources: dict[str, list[Path]], folder: Path) -> list[dict[str, str]]:
    """`coderl tables --over-seeds`, as the rule calls it."""
    tidy = [path.with_suffix(".csv") for source in SEED_TABLES[name].tidy_sources for path in sources[source]]
    over = json.dumps({source: [str(path) for path in sources[source]] for source in SEED_TABLES[name].sources})
    words = ["tables", "--table", name, "--over-seeds", over, "--config", '{"bootstrap": 300}']
    words += ["--tables", *map(str, tidy)] if tidy else []
    done = CliRunner().invoke(app, [*words, "--output", str(folder / f"{name}.csv"), "--page", str(folder / f"{name}.md")])
    assert done.exit_code == 0, done.output + str(done.exception)
    return read_seed_table(folder / f"{name}.csv")


@pytest.mark.parametrize("name", SEED_TABLES)
def test_every_line_has_every_column_and_its_comparisons(name: str, sources: dict[str, list[Path]], tmp_path: Path) -> None:
    rows = verb(name, sources, tmp_path)
    table = SEED_TABLES[name]
    found = {(row["line"], row["metric"], row["difficulty"]) for row in rows}
    for line in table.lines:
        cells = [] if line.hidden else [column for column in table.columns if column in line.cells]
        for column in cells:
            assert {(line.name, column, level) for level in (*LEVELS, "all")} <= found
            compared = [row for row in rows if (row["line"], row["metric"], row["difficulty"]) == (line.name, column, "all")]
            assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in compared)
            assert all(float(r["difference_low"]) <= float(r["difference"]) <= float(r["difference_high"]) for r in compared if r["versus"])
    page = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    assert page == as_markdown(rows, f"# {table.title}"), "the page says what the CSV says"
    body = [line for line in page.splitlines() if line.startswith("| ")]
    extra = 2 if name == "goals" else 0  # the critics' rows
    assert len(body) == 1 + sum(not line.hidden for line in table.lines) + extra
    assert len({line.count(" | ") for line in body}) == 1
    assert ("in parentheses the paper's" in page) == any(line.paper for line in table.lines)
    assert "Not at an equal budget" not in page
    assert (tmp_path / f"{name}.csv.provenance.json").exists()


def test_a_number_is_the_mean_over_seeds_and_a_difference_is_paired(sources: dict[str, list[Path]], tmp_path: Path) -> None:
    rows = verb("table3", sources, tmp_path)
    (row,) = [
        r
        for r in rows
        if (r["line"], r["metric"], r["difficulty"], r["versus"]) == ("rl", "pass@1", "interview", "CE with own passing programs")
    ]
    read = [read_per_problem(path) for path in sources["ablation"]]
    chosen = [[task for task, level in each.difficulty.items() if level == "interview"] for each in read]
    ours, control = ("rl_finetune/rl", "all", "pass@1"), ("rl_finetune/ce_on_passing", "all", "pass@1")
    means = [np.mean([each.values[ours][task] for task in tasks]) for each, tasks in zip(read, chosen, strict=True)]
    gaps = [np.mean([each.values[ours][t] - each.values[control][t] for t in tasks]) for each, tasks in zip(read, chosen, strict=True)]
    assert float(row["value"]) == pytest.approx(100 * np.mean(means), abs=0.006)
    assert [float(text) for text in row["per_seed"].split()] == pytest.approx([100 * mean for mean in means], abs=0.006)
    assert float(row["difference"]) == pytest.approx(100 * np.mean(gaps), abs=0.006)
    assert row["runs"].split() == ["ablation-seed1", "ablation-seed2", "ablation-seed3"]
    # The pairing: problems differ far more from one another than the two rows do on any of them.
    assert float(row["difference_high"]) - float(row["difference_low"]) < 3 < float(row["high"]) - float(row["low"])
    assert (row["n_problems"], row["n_seeds"]) == ("10", "3")


def test_a_budget_that_the_plain_samples_do_not_reach_is_noted(sources: dict[str, list[Path]], tmp_path: Path) -> None:
    """Else the comparison at equal total tokens would call itself equal."""
    short = "plain samples end before the budget on 12 of 300 problems"
    for name, source, line, model, decoding in (
        ("table4", "critical", "m4", "rl_finetune/leave_one_out", "filtered_equal_total/m4"),
        ("goals", "main", "critical", "rl_finetune/rl", "filtered_equal_total"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        files = [values_file(folder / f"{source}{seed}.parquet", source, seed) for seed in SEEDS]
        noted = {"model": model, "decoding": decoding, "metric": "1@budget", "note": short}
        other = noted | {"decoding": "filtered_equal_tokens", "note": "of another budget"}
        tidy_file(files[1], f"{source}-seed2", 2, noted | {"difficulty": "interview"}, noted | {"difficulty": "all"}, other)
        rows = verb(name, {**sources, source: files}, folder)
        note = f"{source}-seed2 (seed 2): {short}"
        assert {(row["line"], row["metric"], row["note"]) for row in rows if row["note"]} == {(line, "1@budget", note)}
        assert all(row["versus"].startswith("plain") for row in rows if row["note"])
        page = (folder / f"{name}.md").read_text(encoding="utf-8")
        assert page.count(short) == 1
        assert "Not at an equal budget" in page
        tidy_file(files[2], "another run", 3)
        with pytest.raises(DataError, match=f"table {name} needs the tidy table of run '{source}-seed3'"):
            write_seed_table(
                name=name,
                sources={**sources, source: files},
                tidy=[path.with_suffix(".csv") for path in files],
                output=folder / "t.csv",
                page=folder / "t.md",
                bootstrap=100,
            )


def test_notes_and_labels_say_whose_recipe_it_is(sources: dict[str, list[Path]], tmp_path: Path) -> None:
    for name in ("table4", "figure8"):
        assert "leave-one-out returns, no critic, negative returns bounded" in SEED_TABLES[name].note
    rl = run("mini").rl_finetune.variants["rl"]
    policy = run("mini-ablations").rl_finetune.variants[run("mini-ablations").critical_sample.policy]
    for variant in (rl, policy):
        assert (variant.returns, variant.values, variant.negative_returns) == ("leave_one_out", "none", "bounded")
    verb("goals", sources, tmp_path)
    page = (tmp_path / "goals.md").read_text(encoding="utf-8")
    head = next(line for line in page.splitlines() if line.startswith("| quantity"))
    assert head.split(" | ")[-1] == "difference |"
    assert "pass@5 minus as many steps of cross entropy " in page
    alone = "critic alone (started from the pretrained model, its own likelihood trained on what passes)"
    assert f"| AUC within a problem, {alone} | 70 |" in page
    assert "| AUC within a problem, critic that also has the actor's likelihood (started from the actor" in page
    critics = [run(name).train_critic for name in ("mini-ablations", "mini")]
    assert [critic.base_model for critic in critics] == ["results/mini/models/base", None]
    assert all(critic.likelihood and critic.generation_weight for critic in critics)


def test_table_5_says_where_its_last_row_cuts() -> None:
    pretrain = run("mini").pretrain
    assert pretrain is not None
    assert pretrain.pivot_after_comment == 1.0
    assert SEED_TABLES["table5"].lines[-1].labels[-1] == "large, all files, next tokens (cut behind comments, ours) and spans"
    assert "spec 1.4" in SEED_TABLES["table5"].note


def test_the_papers_numbers_are_its_own_and_so_are_their_differences(sources: dict[str, list[Path]], tmp_path: Path) -> None:
    rows = {(r["line"], r["metric"], r["difficulty"], r["versus"]): r for r in verb("table3", sources, tmp_path)}
    row = rows["rl", "pass@5", "all", "CE"]
    assert (row["paper"], row["paper_difference"]) == ("3.10", "0.84")  # 3.10 - 2.26, table 3
    assert rows["leave_one_out", "pass@1", "all", "warm start"]["paper"] == ""
    rows = {(r["line"], r["metric"], r["difficulty"], r["versus"]): r for r in verb("table4", sources, tmp_path)}
    row = rows["m1", "pass@10", "all", "the first row"]
    assert (row["paper_metric"], row["paper"], row["paper_difference"]) == ("pass@1000", "20.98", "3.20")
    rows = {(r["line"], r["metric"], r["difficulty"], r["versus"]): r for r in verb("table5", sources, tmp_path)}
    assert rows["codet5_large_ntp", "pass@1", "all", "the row above"]["paper_difference"] == "0.44"  # 2.00 - 1.56
    assert rows["main", "pass@1", "all", "the row above"]["paper"] == "", "the paper cuts elsewhere"
    rows = {(r["line"], r["metric"], r["difficulty"], r["versus"]): r for r in verb("figure8", sources, tmp_path)}
    assert rows["after RL hidden", "passed_test", "all", "before RL"]["paper_difference"] == "1.50"


def test_the_lines_are_those_of_the_papers_tables() -> None:
    """One definition: whatever the paper's table has of ours is a line here, with the same place in the tidy tables."""
    for number, source in (("2", "table2"), ("3", "table3")):
        (paper,) = [table for table in TABLES if table.name == number]
        small = {line.name: line for line in SEED_TABLES[source].lines}
        for line in (line for line in paper.lines if line.ours):
            name = line.ours["pass@1"][0].removeprefix("rl_finetune/")
            assert small[name].cells == line.ours
            assert small[name].paper == line.paper
    assert {line.source for line in SEED_TABLES["table5"].lines} - {"main", "codet5_large_ntp"} == {
        line.other for table in TABLES if table.name == "5" for line in table.lines if line.other
    }


def test_seeds_that_draw_their_own_problems_are_resampled_within_each_seed() -> None:
    """Equal task_ids of another draw are other problems: three draws hold more than one drawn three times."""
    values = {f"t{number}": float(value) for number, value in enumerate(np.random.default_rng(0).random(200))}
    one = dict.fromkeys(values, "a")
    others = [{task: f"{task} {seed}" for task in values} for seed in SEEDS]

    def width(problems: list[dict[str, str]]) -> float:
        found = pool([values] * 3, problems, "all", count=4000, confidence=0.95, seed=0)
        assert found.mean == pytest.approx(np.mean(list(values.values())))
        return found.high - found.low

    assert width(others) == pytest.approx(width([one] * 3) * (5 / 9) ** 0.5, rel=0.1)
    alone = pool([values], [one], "all", count=4000, confidence=0.95, seed=0)
    assert alone.high - alone.low == pytest.approx(width([one] * 3), rel=0.1)


def test_a_problem_without_a_value_in_one_seed_leaves_the_problems_shared() -> None:
    """One undefined value must not make three seeds of one draw look like three draws, with a narrower interval."""
    values = {f"t{number}": float(value) for number, value in enumerate(np.random.default_rng(0).random(200))}
    problem = dict.fromkeys(values, "a")

    def width(per_seed: list[dict[str, float]]) -> float:
        found = pool(per_seed, [problem] * 3, "all", count=4000, confidence=0.95, seed=0)
        assert found.mean == pytest.approx(np.mean([np.mean(list(each.values())) for each in per_seed]))
        assert found.n_problems == max(map(len, per_seed))
        return found.high - found.low

    without_first = {task: value for task, value in values.items() if task != "t0"}
    assert width([values, values, without_first]) == pytest.approx(width([values] * 3), rel=0.03)
    # Another gap in each seed: a column is still one problem.
    gap = [{task: value for task, value in values.items() if task != f"t{seed}"} for seed in range(3)]
    assert width(gap) == pytest.approx(width([values] * 3), rel=0.05)


@pytest.mark.parametrize("effect", [0.0, 0.03])
def test_the_interval_covers_the_truth(effect: float) -> None:
    """Three seeds with problems of their own, a difference of 0.05 whose size varies by `effect` from seed to seed.

    With problems as the only chance the interval covers at least its 95 %; where seeds differ too, three of them are few, and it
    covers less: that is why tables give every seed's number.
    """
    dice, covered, trials = np.random.default_rng(5), 0, 200
    for _ in range(trials):
        seeds = [{f"t{i}": float(x) for i, x in enumerate(dice.normal(0.05 + effect * dice.normal(), 0.3, 100))} for _ in SEEDS]
        problems = [{task: f"{task} {seed}" for task in each} for seed, each in enumerate(seeds)]
        found = pool(seeds, problems, "all", count=400, confidence=0.95, seed=0)
        covered += found.low <= 0.05 <= found.high
    assert covered / trials >= (0.93 if effect == 0 else 0.8)


def test_runs_that_do_not_belong_together_are_refused(sources: dict[str, list[Path]], tmp_path: Path) -> None:
    def write(name: str, changed: dict[str, list[Path]]) -> None:
        write_seed_table(name=name, sources=changed, output=tmp_path / "t.csv", page=tmp_path / "t.md", bootstrap=100)

    with pytest.raises(DataError, match="needs the source 'codet5_small'; there are main"):
        write("table5", {"main": sources["main"]})
    with pytest.raises(DataError, match="no table over seeds is called 'table1a'; there are table2"):
        write("table1a", sources)
    with pytest.raises(DataError, match=r"codet5_small has the seeds \[1, 2, 3\], main has \[2, 1, 3\]; name the runs in the same order"):
        write("table5", {**sources, "main": [sources["main"][place] for place in (1, 0, 2)]})
    other = [values_file(tmp_path / f"{seed}.parquet", "main", seed, draw=9) for seed in SEEDS]
    with pytest.raises(
        DataError, match=r"1\.parquet: procedural/test/00000 is not the problem that .* give both runs the same procedural\.seed"
    ):
        write("table5", {**sources, "main": other})
    with pytest.raises(DataError, match=r"has no pass@1 of rl_finetune/published \(all\), which the table needs"):
        write("follow_ups", {**sources, "ablation": [without(path, "rl_finetune/published", tmp_path) for path in sources["ablation"]]})
    assert not (tmp_path / "t.csv").exists()


def without(path: Path, model: str, folder: Path) -> Path:
    """The same values without a model."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    pq.write_table(table.filter(pc.not_equal(table["model"], model)), folder / path.name)
    return folder / path.name


def test_figure_8_stands_alone(sources: dict[str, list[Path]], tmp_path: Path) -> None:
    verb("figure8", sources, tmp_path)
    words = ["figure", "--table", str(tmp_path / "figure8.csv"), "--output", str(tmp_path / "figure8.svg")]
    assert CliRunner().invoke(app, words).exit_code == 0
    svg = (tmp_path / "figure8.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert 'xmlns="http://www.w3.org/2000/svg"' in svg.partition(">")[0]
    for part in ("example tests", "hidden tests", "competition, after RL", "passed test", "--passed-test: #", "prefers-color-scheme: dark"):
        assert part in svg
    verb("table2", sources, tmp_path)
    done = CliRunner().invoke(app, ["figure", "--table", str(tmp_path / "table2.csv"), "--output", str(tmp_path / "x.svg")])
    assert isinstance(done.exception, DataError)
    assert "is no figure8.csv" in str(done.exception)


def test_the_page_of_results_follows_the_tables(sources: dict[str, list[Path]], tmp_path: Path) -> None:
    """Without results the check says nothing; with them it compares, and writing touches nothing but what is between markers."""
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs/results.md"
    page.write_bytes((ROOT / "docs/results.md").read_bytes())
    hand = page.read_text(encoding="utf-8")
    for name in SEED_TABLES:
        assert f"<!-- begin {name} -->" in hand

    def script(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "workflow/scripts/results_page.py"), *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert script("--check").returncode == 0
    (tmp_path / "results/mini/tables").mkdir(parents=True)
    evaluated = []
    for seed, commit in zip(SEEDS, ("a" * 40, "b" * 40, None), strict=True):
        folder = tmp_path / f"results/ablation-seed{seed}"
        folder.mkdir()
        evaluated.append(values_file(folder / "ablation_per_problem.parquet", "ablation", seed))
        record = folder / "ablation_eval.csv.provenance.json"
        if commit:
            record.write_text(json.dumps({"commit": commit, "dirty": seed == 2}), encoding="utf-8")
    verb("table2", {**sources, "ablation": evaluated}, tmp_path / "results/mini/tables")
    made = tmp_path / "results/mini/tables/table2.csv.provenance.json"
    made.write_text(json.dumps(json.loads(made.read_text()) | {"commit": "c" * 40, "dirty": False}), encoding="utf-8")
    assert "docs/results.md has drifted" in script("--check").stderr
    assert script().returncode == 0
    assert script("--check").returncode == 0
    written = page.read_text(encoding="utf-8")
    assert (
        f"Runs: ablation-seed1 (evaluated by commit {'a' * 12}); ablation-seed2 (evaluated by commit {'b' * 12}-dirty); "
        f"ablation-seed3 (evaluated by a commit that is not known). Table made by commit {'c' * 12}."
    ) in written
    assert "leave-one-out" in written.partition("<!-- begin table2 -->")[2].partition("<!-- end table2 -->")[0]
    assert written.partition("<!-- begin table2 -->")[0] == hand.partition("<!-- begin table2 -->")[0]
    assert written.partition("<!-- end table2 -->")[2] == hand.partition("<!-- end table2 -->")[2]


# --------------------------------------------------------------------------------------------------- what the numbers are made of


def test_a_variant_stands_beside_plain_samples_at_its_own_budget(tmp_path: Path) -> None:
    fake = make_fake_run(tmp_path / "fake", count=9)
    critical = fake.critical.model_copy(update={"variants": {"rounds": CriticalVariant(batch=5, rounds=2)}})
    programs = {
        name: fake.programs[name.replace("critical/rounds", "critical")] for name in ("actor", "policy/rl", "critical", "critical/rounds")
    }
    evaluate(
        config=EvaluateConfig(critical=["rounds"], pass_at=[1], n_at=[(1, 20)], bootstrap=100),
        run="mine",
        seed=1,
        problems=fake.problems,
        programs=programs,
        critic_metrics=None,
        critical=critical,
        provenance={},
        output=tmp_path / "apps_eval.csv",
        per_problem=tmp_path / "per_problem.parquet",
    )
    found = read_per_problem(tmp_path / "per_problem.parquet").values
    for metric in ("1@budget", "pass@budget"):  # the same programs, so the same numbers
        assert found["rl_finetune/rl", "filtered_equal_total/rounds", metric] == found["rl_finetune/rl", "filtered_equal_total", metric]
    shares = [found["warm_start", "all", f"hidden_{name}"] for name in ("compile_error", "runtime_error", "failed_test", "passed_test")]
    assert sum(share["test/0000"] for share in shares) == pytest.approx(1.0)
    assert shares[3] == pytest.approx(found["warm_start", "all", "pass@1"])
    with open(tmp_path / "apps_eval.csv", newline="") as text:
        assert any(row["decoding"] == "filtered_equal_total/rounds" for row in csv.DictReader(text))


def run(name: str) -> RunConfig:
    return load_run(ROOT / "config/runs" / f"{name}.yaml")


def test_the_mini_runs_can_fill_every_table() -> None:
    """Each cell is measured by the run that the row comes from."""
    over = run("mini").evaluate.over_seeds
    assert over is not None
    assert set(SOURCES) == set(over)
    for table in SEED_TABLES.values():
        for line in table.lines:
            for member in over[line.source]:
                name, _, chosen = member.partition("/")
                config = run(name).evaluate
                sheet = config if chosen == "apps" else config.also[chosen]
                models = ["warm_start", *(f"rl_finetune/{policy}" for policy in sheet.policies)]
                if chosen == "apps":
                    models += ["critical_sampling", *(f"critical_sampling/{variant}" for variant in config.critical)]
                for model, _, metric in line.cells.values():
                    n, _, k = metric.partition("@")
                    assert model in models, f"{member} has no {model}"
                    assert not k.isdigit() or (int(k) in sheet.pass_at if n == "pass" else (int(n), int(k)) in sheet.n_at), (
                        f"{member}: {metric}"
                    )


def test_runs_side_by_side_have_the_same_problems_and_steps() -> None:
    over = run("mini").evaluate.over_seeds
    assert over is not None
    for place, seed in enumerate(SEEDS):
        mini = run(over["main"][place].partition("/")[0])
        assert mini.seed == seed
        assert mini.pretrain is not None
        assert mini.pretrain.seed is None, "the base model too is of the run's own seed"
        for members in over.values():
            name, _, chosen = members[place].partition("/")
            other = run(name)
            assert (other.seed, other.procedural) == (mini.seed, mini.procedural)
            assert other.problems["test" if chosen == "apps" else chosen] == mini.problems["test"]
            assert other.problems["train"] == mini.problems["train"]
            assert other.sample.sets["test" if chosen == "apps" else chosen].decoding == mini.sample.sets["test"].decoding
            assert other.warm_start.training == mini.warm_start.training
            if other.pretrain is None:
                assert other.warm_start.base_model == f"results/{over['main'][place].partition('/')[0]}/models/base"
            else:
                training = [phase.training for phase in other.pretrain.phases]
                assert training == [phase.training for phase in mini.pretrain.phases], f"{name}: as many steps of pretraining as mini"
    files = [run(f"mini-pretrain-{name}").corpus for name in ("large", "medium", "small", "spans", "pivots")]
    whole = run("mini").corpus
    assert whole is not None
    assert [each.procedural_files for each in files if each] == [whole.procedural_files // 10] * 3 + [whole.procedural_files] * 2
    steps = {variant.training.steps for variant in run("mini-ablations").rl_finetune.variants.values()}
    assert len(steps) == 1, "all policies of a table have the same steps"
    assert len({run(each.partition("/")[0]).procedural.seed for each in over["main"]}) == 3, "each seed draws its own benchmark"


@pytest.mark.parametrize("seed", ["", "-seed2", "-seed3"])
def test_the_run_with_the_papers_pivots_differs_in_the_pivots_alone(seed: str) -> None:
    """Table 5: what next tokens gain by the paper's cuts, beside the mini run's cuts behind comments."""
    mini, ours, spans = run(f"mini{seed}"), run(f"mini-pretrain-pivots{seed}"), run(f"mini-pretrain-spans{seed}")
    assert mini.pretrain is not None
    assert mini.pretrain.pivot_range == (0.1, 0.9)
    cuts = {"pivot_at_line_end": 0.0, "pivot_after_comment": 0.0}
    assert ours.pretrain == mini.pretrain.model_copy(update=cuts)
    assert (ours.seed, ours.procedural, ours.corpus, ours.warm_start) == (mini.seed, mini.procedural, mini.corpus, mini.warm_start)
    assert ours.model_dump(exclude={"pretrain", "description"}) == spans.model_dump(exclude={"pretrain", "description"})
    assert run_hash(ours, ROOT / "config/runs") == run_hash(run("mini-pretrain-pivots"), ROOT / "config/runs")


def test_recipes_are_one_word() -> None:
    policies = run("mini-ablations").rl_finetune.variants
    assert policies["published"].recipe == "published"
    assert policies["leave_one_out"].recipe == "ours"
    paper = run("paper").rl_finetune.variants
    for name in ("rl", "no_values", "no_baseline", "distance", "ce", "ce_on_samples", "rl_only"):
        for key in ("losses", "returns", "values", "rounds") if "ce" not in name else ("losses",):
            assert getattr(policies[name], key) == getattr(paper[name], key), f"{name}: {key} as in the paper's run"
