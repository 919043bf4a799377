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
for job in dvc_stages.jobs(json.loads(sys.argv[1])):
    params = {key: value if isinstance(value, (str, int)) else list(value) for key, value in job.params._allitems()}
    rows.append({"rule": job.rule.name, "wildcards": dict(job.wildcards.items()), "input": [str(path) for path in job.input],
                 "output": [str(path) for path in job.output], "params": params, "log": [str(path) for path in job.log],
                 "benchmark": str(job.benchmark), "resources": {key: str(value) for key, value in job.resources.items()},
                 "message": job.message, "threads": job.threads, "shell": job.shellcmd})
print(json.dumps(rows))
"""


def plan(folder: Path, runs: list[str]) -> list[dict[str, Any]]:
    """The jobs of the real workflow in `folder`; in a process of its own, because Snakemake has global state."""
    done = subprocess.run([sys.executable, "-c", PLAN, json.dumps(runs)], cwd=folder, capture_output=True, text=True, check=False)
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


def identity(job: dict[str, Any]) -> str:
    return "/".join([job["rule"], *(f"{key}={value}" for key, value in sorted(job["wildcards"].items()))])


def test_one_stage_one_word(jobs: list[dict[str, Any]]) -> None:
    assert set(RULES) == {*STAGES, "collect"}
    assert {job["rule"] for job in jobs} == set(RULES), "the mini run goes through every rule"
    dvc = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert {re.match(r"[a-z_]+", name).group() for name in dvc} == set(RULES)  # type: ignore[union-attr]
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


def test_nothing_of_the_test_set_reaches_a_model(jobs: list[dict[str, Any]]) -> None:
    """No training job has a file of the test set among its inputs or theirs, but for the corpus, which only drops files by it.

    So no test problem, program or outcome takes part in training, in choosing a checkpoint or variant, or in the critic. The
    critics' metrics are of train problems that are held out (train_critic.validation_share).
    """
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

    made = [path for job in jobs if job["rule"] in TRAINED for path in job["output"]]
    assert len(made) >= len(TRAINED)
    for path in made:
        touched = {each for each in ancestors(path) if re.search(r"(?<![a-z])test(?![a-z_])", each)}
        assert not touched, f"{path} is made from {sorted(touched)}"
    (corpus,) = [job for job in jobs if job["rule"] == "corpus"]
    assert [each for each in corpus["input"] if each.startswith("results/")] == ["results/mini/problems/test.parquet"]
    assert "--decontaminate results/mini/problems/test.parquet" in corpus["shell"]
    # Critical sampling sees test problems, and takes their example tests alone.
    for job in jobs:
        if job["rule"] == "critical_sample":
            assert not any("/outcomes/" in each for each in job["input"])


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
    outs = [path for stage in dvc.values() for out in [*stage.get("outs", []), *stage.get("metrics", [])] for path in out]
    assert len(outs) == len(set(outs)), "an output belongs to one stage"
    for job in jobs:
        (stage,) = [each for name, each in dvc.items() if job["output"][0] in each["cmd"].split()]
        assert f"--allowed-rules {job['rule']} -- " in stage["cmd"]
        code = {path for path in job["input"] if path.startswith("src/")}
        assert code <= set(stage["deps"]), "without its code, an engine would believe in an old result"
        assert any(str(RULES[job["rule"]].relative_to(ROOT)) == path for path in stage["deps"])
        sections = {key for key in job["params"] if key in (*STAGES, "seed", "procedural")}
        params = {key for file in stage.get("params", []) for keys in file.values() for key in keys}
        stated = yaml.safe_load((ROOT / "config/runs/mini.yaml").read_text(encoding="utf-8"))
        assert sections & set(stated) <= params or job["rule"] == "collect", "what reruns a job reruns its stage"
        assert not params - {*STAGES, "seed", "procedural"}
    for stage in dvc.values():
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            assert all(options == {"persist": True} for options in out.values())


def test_dvc_reads_its_file(dvc: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(dvc)


def test_the_default_profile_is_where_snakemake_looks() -> None:
    """Beside the Snakefile: without it, `snakemake results/apps_eval.csv` asks for --cores, and time stamps decide for big files."""
    assert (ROOT / "profiles/default/config.yaml").samefile(ROOT / "workflow/profiles/default/config.yaml")
