"""The rules, as Snakemake plans them: one word per stage, precise parameters and code inputs, and dvc.yaml in step."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from coderl.config import STAGES, load_run
from coderl.problems import InputOutputTests
from coderl.problems.procedural import GeneratedProblem, ProceduralBenchmark
from coderl.provenance import code_files

ROOT = Path(__file__).parents[2]
RULES = {
    name: path
    for path in sorted((ROOT / "workflow/rules").glob("*.smk"))
    for name in re.findall(r"^rule (\w+):", path.read_text(encoding="utf-8"), re.MULTILINE)
}

PLAN = """
import json, sys
sys.path.insert(0, "workflow/scripts")
import dvc_stages
rows = []
for job in dvc_stages.jobs(*json.loads(sys.argv[1])):
    params = {key: value if isinstance(value, (str, int)) else list(value) for key, value in job.params._allitems()}
    rows.append({"rule": job.rule.name, "wildcards": dict(job.wildcards.items()), "input": [str(path) for path in job.input],
                 "output": [str(path) for path in job.output], "params": params, "log": [str(path) for path in job.log],
                 "benchmark": str(job.benchmark), "resources": {key: str(value) for key, value in job.resources.items()},
                 "message": job.message, "threads": job.threads, "shell": job.shellcmd})
print(json.dumps(rows))
"""


def plan(folder: Path, runs: list[str], targets: tuple[str, ...] = ("all",)) -> list[dict[str, Any]]:
    """The jobs of the real workflow in `folder`; in a process of its own, because Snakemake has global state."""
    done = subprocess.run(
        [sys.executable, "-c", PLAN, json.dumps([runs, targets])], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    jobs: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return jobs


def copy_workflow(folder: Path) -> Path:
    """The workflow without results, on the package's real source."""
    for name in ("config", "workflow"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    os.symlink(ROOT / "src", folder / "src")
    return folder


@pytest.fixture(scope="module")
def jobs() -> list[dict[str, Any]]:
    return plan(ROOT, ["mini"])


def ablation_targets() -> tuple[str, ...]:
    """What `make ablations` asks for."""
    (line,) = re.findall(r"^ABLATIONS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    names = re.search(r",results/mini/tables/%\.md,([^)]*)\)", line)
    assert names
    return (*(f"results/mini/tables/{name}.md" for name in names.group(1).split()), "results/mini/tables/figure8.svg")


@pytest.fixture(scope="module")
def ablations() -> list[dict[str, Any]]:
    return plan(ROOT, ["mini"], ablation_targets())


def identity(job: dict[str, Any]) -> str:
    return "/".join([job["rule"], *(f"{key}={value}" for key, value in sorted(job["wildcards"].items()))])


def test_one_stage_one_word(jobs: list[dict[str, Any]]) -> None:
    assert set(RULES) == {*STAGES, "collect", "tables", "figure", "evaluate_set"}
    others = {"evaluate_set", "tables", "figure"}
    assert {job["rule"] for job in jobs} == set(RULES) - others, (
        "the mini run goes through every rule; smoke through evaluate_set and tables too, `make ablations` through all"
    )
    dvc = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert {re.match(r"[a-z_]+", name).group() for name in dvc} == {*RULES, "dvc_yaml"} - others  # type: ignore[union-attr]
    for job in jobs:
        run = [] if job["rule"] == "collect" else ["mini"]
        folder = "/".join(["logs", *run, job["rule"]])
        assert all(path.startswith(f"{folder}/") for path in job["log"])
        verb = re.search(r"coderl ([a-z-]+) ", job["shell"])
        assert verb
        assert verb.group(1) == job["rule"].replace("_", "-")


def test_every_rule_has_what_a_cluster_and_a_reader_need(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        assert len(job["log"]) == 1
        assert job["benchmark"].endswith(".tsv")
        assert job["message"]
        assert job["threads"] >= 1
        assert {"gpu", "mem_mb", "runtime"} <= set(job["resources"])
        assert job["shell"].strip().endswith(f"> {job['log'][0]} 2>&1")
    for name, path in RULES.items():
        text = path.read_text(encoding="utf-8").partition(f"rule {name}:")[2].partition("\nrule ")[0]
        assert not re.search(r"partition|account|sbatch|SLURM", text), "what belongs to a cluster is in its profile"


def test_the_source_files_of_a_stage_are_inputs(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        listed = {path for path in job["input"] if path.startswith("src/")}
        assert listed == {str(path) for path in code_files(job["rule"], Path("src"))}
        # None is so big that Snakemake would look at its time stamp in place of its content.
        assert all((ROOT / path).stat().st_size < 1_000_000 for path in listed)


TRAINED = ("pretrain", "warm_start", "train_critic", "score", "train_repair", "rl_finetune")


@pytest.mark.parametrize("planned", ["jobs", "ablations"])
def test_nothing_of_the_test_set_reaches_a_model(planned: str, request: pytest.FixtureRequest) -> None:
    """No training job has a file of an evaluated set among its inputs or theirs, but for the corpus, which only drops files by it.

    So no test problem, program or outcome takes part in training, in choosing a checkpoint or variant, or in the critic, nor
    does any table. The critics' metrics are of train problems that are held out (train_critic.validation_share). With the runs
    that `make ablations` needs.
    """
    jobs: list[dict[str, Any]] = request.getfixturevalue(planned)
    maker = {path: job for job in jobs for path in job["output"]}

    def ancestors(path: str) -> set[str]:
        seen: set[str] = set()
        left = [path]
        while left:
            job = maker.get(left.pop())
            if job is None or job["rule"] == "corpus":
                continue
            fresh = [each for each in job["input"] if each not in seen]
            seen.update(fresh)
            left += fresh
        return seen

    def of_test(path: str) -> bool:
        """A file of a set that is evaluated, or a table."""
        parts = Path(path).with_suffix("").parts
        return parts[0] == "results" and bool({"test", "ablation", "tables"} & set(parts) or Path(path).suffix == ".csv")

    assert of_test("results/mini/problems/test.parquet")
    assert of_test("results/mini/outcomes/actor/ablation/hidden/of-1/0.jsonl.gz")
    made = [path for job in jobs if job["rule"] in TRAINED for path in job["output"]]
    runs = {job["wildcards"]["run"] for job in jobs if "run" in job["wildcards"]}
    assert len(runs) == (1 if planned == "jobs" else 21)
    assert len(made) >= len(TRAINED)
    for path in made:
        touched = {each for each in ancestors(path) if of_test(each)}
        assert not touched, f"{path} is made from {sorted(touched)}"
    for corpus in (job for job in jobs if job["rule"] == "corpus"):
        read = [each for each in corpus["input"] if each.startswith("results/")]
        assert read
        assert all(re.fullmatch(r"results/[a-z0-9-]+/problems/(test|ablation)\.parquet", each) for each in read)
        assert f"--decontaminate {' '.join(read)}" in corpus["shell"]
    # Critical sampling sees test problems, and takes their example tests alone.
    for job in jobs:
        if job["rule"] == "critical_sample":
            assert not any("/outcomes/" in each for each in job["input"])


@pytest.mark.parametrize("name", ["mini", "mini-seed2", "mini-seed3"])
def test_no_composition_statement_or_hidden_test_of_the_test_side_is_in_what_is_learnt_from(name: str) -> None:
    """By content, on smaller draws of each run's own benchmark: train problems, validation problems and the pretraining corpus."""
    benchmark = ProceduralBenchmark(load_run(ROOT / "config/runs" / f"{name}.yaml").procedural)
    shares = {"introductory": 0.34, "interview": 0.33, "competition": 0.33}
    test = list(benchmark.problems("test", 60, shares))  # type: ignore[arg-type]
    learnt = [each for split in ("train", "validation") for each in benchmark.problems(split, 150, shares)]  # type: ignore[arg-type]
    files = [benchmark.corpus_file_and_pipeline(index) for index in range(800)]
    compositions = {each.pipeline.composition for each in test}
    assert not compositions & ({each.pipeline.composition for each in learnt} | {pipeline.composition for _, pipeline in files})

    def statement(item: GeneratedProblem) -> str:
        """Without its example tests."""
        return item.problem.question.partition("\nInput\n")[0]

    def hidden(item: GeneratedProblem) -> set[tuple[str, str]]:
        suite = item.problem.hidden_tests
        assert isinstance(suite, InputOutputTests)
        return {(str(given), str(wanted)) for given, wanted in zip(suite.inputs, suite.outputs, strict=True)}

    text = "\n".join(
        [*(text for text, _ in files), *(part for each in learnt for part in (each.problem.question, *each.problem.solutions))]
    )
    known = set().union(*map(hidden, learnt))
    assert statement(learnt[0]) in text, "what is looked for would be found"
    assert len(known) > 1000
    for each in test:
        assert statement(each) not in text
        assert not hidden(each) & known
        assert not any(given.strip("[]\n") in text for given, _ in hidden(each))


def test_the_ablations_start_from_the_base_model_of_their_seed(ablations: list[dict[str, Any]]) -> None:
    """And the workflow makes it first."""
    found = {identity(job): job for job in ablations}
    for seed, run in (("", "mini"), ("-seed2", "mini-seed2"), ("-seed3", "mini-seed3")):
        job = found[f"warm_start/run=mini-ablations{seed}"]
        base = f"results/{run}/models/base"
        assert {base, f"{base}.sha256"} <= set(job["input"])
        assert f"--base-model {base} " in job["shell"]
        assert f"pretrain/run={run}" in found
        assert f"pretrain/run=mini-ablations{seed}" not in found
    for job in ablations:  # after the warm start, the models of table 5 are only asked for programs
        if job["wildcards"].get("run", "").startswith("mini-pretrain"):
            assert job["rule"] in ("problems", "corpus", "pretrain", "warm_start", "sample", "run_tests", "evaluate_set")
            assert job["wildcards"].get("model") in (None, "actor", "reference", "empty")
    tables = {job["wildcards"]["table"]: job for job in ablations if job["rule"] == "tables"}
    assert {path for path in tables["table2"]["input"] if path.startswith("results/")} == {
        f"results/mini-ablations{seed}/ablation_per_problem.parquet" for seed in ("", "-seed2", "-seed3")
    }
    assert "results/mini-seed3/apps_eval.csv" in tables["goals"]["input"]
    assert "results/mini-ablations-seed3/apps_eval.csv" in tables["table4"]["input"], "for its notes on budgets"


@pytest.mark.parametrize(
    ("over_seeds", "message"),
    [
        (
            "{main: [odd/apps, mini-seed2/apps, mini-seed3/apps]}",
            "odd/apps (main) and mini-pretrain-small/ablation (codet5_small) stand side",
        ),
        ("{main: [mini/apps]}", "codet5_small names 3 runs and main 1; one for each seed"),
        ("{main: [mini/other, mini-seed2/apps, mini-seed3/apps]}", "key 'problems' has no 'other'; there are train, test"),
        ("{main: [mini/apps, mini/apps, mini-seed3/apps]}", "mini and mini (main) both have seed 1; name one run for each seed"),
        (
            "{main: [mini/apps, changed/apps, mini-seed3/apps]}",
            "mini and changed (main) differ in more than their seeds; let one extend the other",
        ),
        ("null", "key 'evaluate.over_seeds' has no 'ablation'; there are none"),
    ],
)
def test_tables_over_seeds_of_runs_that_differ_are_refused(over_seeds: str, message: str, tmp_path: Path) -> None:
    copy = copy_workflow(tmp_path)
    (copy / "config/runs/odd.yaml").write_text("extends: mini\nprocedural: {seed: 5}\n", encoding="utf-8")
    (copy / "config/runs/changed.yaml").write_text("extends: mini-seed2\nwarm_start: {training: {steps: 400}}\n", encoding="utf-8")
    (copy / "config/runs/mine.yaml").write_text(f"extends: mini\nevaluate: {{over_seeds: {over_seeds}}}\n", encoding="utf-8")
    table = "follow_ups" if over_seeds == "null" else "table5"
    command = [sys.executable, "-m", "snakemake", "-n", "--", f"results/mine/tables/{table}.md"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert message in re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert "Traceback (most recent call last)" not in done.stdout + done.stderr


def test_a_critic_a_policy_and_a_table_read_what_they_should(jobs: list[dict[str, Any]]) -> None:
    found = {identity(job): job for job in jobs}
    policy = set(found["rl_finetune/run=mini/variant=published"]["input"])
    assert "results/mini/values/train.parquet" in policy
    control = set(found["rl_finetune/run=mini/variant=ce"]["input"])
    assert "results/mini/values/train.parquet" not in control, "cross entropy does not wait for the critic"
    assert "--classes 2" in found["train_critic/critic=binary_critic/run=mini"]["shell"]
    assert "--classes 4" in found["train_critic/critic=critic/run=mini"]["shell"]
    corpus = found["corpus/run=mini"]["input"]
    assert "results/mini/problems/test.parquet" in corpus
    assert "results/mini/problems/train.parquet" not in corpus
    programs = json.loads(found["evaluate/run=mini"]["params"]["programs"])
    assert set(programs) == {"reference", "empty", "actor", "critical", "policy/rl", "policy/published", "policy/ce"}
    named = {path for files in programs.values() for paths in files.values() for path in paths}
    assert named <= set(found["evaluate/run=mini"]["input"])
    shards = load_run(ROOT / "config/runs/mini.yaml").sample.sets["test"].shards
    assert len(programs["actor"]["samples"]) == shards
    assert programs["reference"]["samples"] == []


def test_collect_does_not_depend_on_what_stands_beside_the_main_table(jobs: list[dict[str, Any]]) -> None:
    found = {identity(job): job for job in jobs}
    config = load_run(ROOT / "config/runs/mini.yaml").evaluate
    assert config.over_seeds
    shown = json.loads(found["collect"]["params"]["evaluate"])
    assert (shown["over_seeds"], shown["also"], shown["other_runs"]) == (None, {}, {})
    assert (shown["bootstrap"], shown["confidence"]) == (config.bootstrap, config.confidence)


def test_a_section_changes_the_parameters_of_its_own_jobs_only(jobs: list[dict[str, Any]], tmp_path: Path) -> None:
    copy = copy_workflow(tmp_path)
    run = yaml.safe_load((copy / "config/runs/mini.yaml").read_text(encoding="utf-8"))
    run["sample"]["sets"]["test"]["decoding"] = {"temperature": 0.123, "top_p": 1.0}
    run["rl_finetune"]["variants"]["ce"]["training"] = {"steps": 3, "batch_size": 3}
    run["score"] = {"batch_tokens": 99}
    (copy / "config/runs/mini.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    before = {identity(job): job["params"] for job in jobs}
    after = {identity(job): job["params"] for job in plan(copy, ["mini"])}
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    hashed = {"evaluate/run=mini", "report/run=mini"}  # the table names the configuration's hash
    sampled = {name for name in before if name.startswith("sample/") and "/set=test/" in f"{name}/"}
    assert changed == {"rl_finetune/run=mini/variant=ce", "score/run=mini/set=train", *sampled, *hashed}
    assert sampled


def test_a_run_with_an_error_is_one_clear_message(tmp_path: Path) -> None:
    copy = copy_workflow(tmp_path)
    (copy / "config/runs/mine.yaml").write_text("extends: mini\nwarm_start: {trainings: {}}\n", encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "-n", "--config", "runs=[mine]", "--", "all"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "config/runs/mine.yaml: unknown key 'warm_start.trainings'; did you mean 'training'?" in done.stdout + done.stderr
    assert "Traceback (most recent call last)" not in done.stdout + done.stderr


@pytest.fixture(scope="module")
def dvc() -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return stages


def test_dvc_stages_cover_the_plan_and_keep_finished_work(jobs: list[dict[str, Any]], dvc: dict[str, Any]) -> None:
    outs = [path for stage in dvc.values() for path in [*stage.get("outs", []), *stage.get("metrics", [])]]
    assert all(isinstance(path, str) for path in outs), "with `persist: true` DVC would not look into its run cache"
    assert len(outs) == len(set(outs)), "an output belongs to one stage"
    for job in jobs:
        (stage,) = [each for name, each in dvc.items() if job["output"][0] in each["cmd"].split()]
        assert stage["cmd"].startswith(f"snakemake --config 'runs=[mini]' --allowed-rules {job['rule']} -- ")
        code = {path for path in job["input"] if path.startswith("src/")}
        assert code <= set(stage["deps"]), "without its code, an engine would believe in an old result"
        assert any(str(RULES[job["rule"]].relative_to(ROOT)) == path for path in stage["deps"])
        sections = {key for key in job["params"] if key in (*STAGES, "seed", "procedural")}
        params = {key for file in stage.get("params", []) for keys in file.values() for key in keys}
        stated = yaml.safe_load((ROOT / "config/runs/mini.yaml").read_text(encoding="utf-8"))
        assert sections & set(stated) <= params or job["rule"] == "collect", "what reruns a job reruns its stage"
        assert not params - {*STAGES, "seed", "procedural"}
        if "config_hash" in job["params"]:
            assert params == set(stated) - {"description", "report"} | sections & set(stated), "whatever moves the hash reruns the stage"


def test_dvc_draws_every_training_and_pass_at_k(jobs: list[dict[str, Any]]) -> None:
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    drawn = {path for plot in plots for content in plot.values() for path in content["y"]}
    models = {job["output"][0] for job in jobs if job["output"][0].startswith("results/mini/models/")}
    assert drawn == {"results/mini/pass_at_k.csv", *(f"{model}/training_log.csv" for model in models)}


def test_the_seal_of_a_model_is_what_its_readers_compare(jobs: list[dict[str, Any]]) -> None:
    folders = {path for job in jobs for path in job["output"] if not Path(path).suffix}
    assert folders
    for job in jobs:
        read = folders & set(job["input"])
        assert {f"{path}.sha256" for path in read} <= set(job["input"]), "of a folder Snakemake knows the time only"
        assert {f"{path}.sha256" for path in folders & set(job["output"])} <= set(job["output"])


def test_raw_inputs_are_inputs_in_both_engines(tmp_path: Path) -> None:
    copy = copy_workflow(tmp_path)
    (copy / "data/apps").mkdir(parents=True)
    for name in ("data/apps/train.jsonl", "data/apps/test.jsonl", "data/more.jsonl"):
        (copy / name).touch()
    mine = "extends: mini\nproblems: {test: {benchmark: apps, source: data/apps}}\ncorpus: {sources: [procedural, data/more.jsonl]}\n"
    (copy / "config/runs/mine.yaml").write_text(mine, encoding="utf-8")
    found = {identity(job): job["input"] for job in plan(copy, ["mine"])}
    assert {"data/apps/test.jsonl", "data/apps/train.jsonl"} <= set(found["problems/run=mine/set=test"])
    assert not [path for path in found["problems/run=mine/set=train"] if path.startswith("data/")]
    assert "data/more.jsonl" in found["corpus/run=mine"]
    command = [sys.executable, "workflow/scripts/dvc_stages.py", "--runs", "mine"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    stages = yaml.safe_load((copy / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert "data/apps" in stages["problems-mine"]["deps"]
    assert "data/more.jsonl" in stages["corpus-mine"]["deps"]

    # Many files: one hash, which `dvc add` writes, stands for them.
    for number in range(1001):
        (copy / f"data/apps/{number}.jsonl").touch()
    planned = [sys.executable, "-m", "snakemake", "-n", "--config", "runs=[mine]", "--", "results/mine/problems/test.parquet"]
    done = subprocess.run(planned, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "run `dvc add data/apps`" in done.stdout + done.stderr
    (copy / "data/apps.dvc").touch()
    assert "data/apps.dvc" in {path for job in plan(copy, ["mine"]) for path in job["input"]}
    shutil.rmtree(copy / "data/apps")
    done = subprocess.run(planned, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "run `dvc pull data/apps.dvc`" in done.stdout + done.stderr


@pytest.mark.parametrize("file", sorted((ROOT / "config/runs").glob("*.yaml")), ids=lambda file: file.stem)
def test_no_two_sections_of_a_run_file_are_one(file: Path) -> None:
    """`key: *name` would make `dvc exp run --set-param` of one key change the other, or be undone by it; `{<<: *name}` copies."""
    seen: set[int] = set()
    nodes = [yaml.compose(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.ScalarNode):
            continue
        assert id(node) not in seen, f"line {node.start_mark.line + 1} is used again by an alias"
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            nodes += [value for key, value in node.value if key.tag != "tag:yaml.org,2002:merge"]
        else:
            nodes += node.value


def test_dvc_reads_its_file(dvc: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(dvc)


def test_the_default_profile_is_where_snakemake_looks() -> None:
    """Beside the Snakefile: without it, `snakemake results/apps_eval.csv` asks for --cores, and time stamps decide for big files."""
    assert (ROOT / "profiles/default/config.yaml").samefile(ROOT / "workflow/profiles/default/config.yaml")


def test_snakemake_looks_for_work_when_a_job_ends_and_not_every_second(tmp_path: Path) -> None:
    """Its own limit of new jobs a second would start one more look per second for each job that has ended."""
    copy = copy_workflow(tmp_path)
    (copy / "Snakefile").write_text(
        'include: "workflow/rules/common.smk"\ninclude: "workflow/rules/cluster.smk"\n'
        'rule wait:\n    output: "waited/{n}"\n    shell: "sleep 3; touch {output}"\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--verbose", "--", "waited/1", "waited/2"]

    def looks(*words: str) -> int:
        done = subprocess.run([*command[:3], *words, *command[3:]], cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return (done.stdout + done.stderr).count("Ready jobs:")

    assert looks() == 2
    assert looks("--forceall", "--max-jobs-per-timespan", "50/1s") > 2, "a limit that somebody asked for is kept"
