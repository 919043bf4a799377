"""What `--profile slurm` submits: the real plugin and the real profile, with stand-ins for Slurm's commands.

A real Slurm runs the same in `make slurm-test`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_workflow import ROOT, copy_workflow, plan

from coderl.config import TRAINED_STAGES, ConfigError, WorkflowConfig, validate

pytest.importorskip("snakemake_executor_plugin_slurm", reason="the plugin is not installed; `make install` does")

SBATCH = """#!{python}
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
with open(folder / "submitted.jsonl", "a") as log:
    log.write(json.dumps(arguments) + "\\n")
number = len((folder / "submitted.jsonl").read_text().splitlines())
comment = arguments[arguments.index("--comment") + 1]
failing = folder / "failing"
failed = failing.exists() and failing.read_text() == comment
if failed:
    failing.unlink()
for output in json.loads((folder / "outputs.json").read_text())[comment] if not failed else ():
    path = pathlib.Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch() if path.suffix else path.mkdir()
with open(folder / "states", "a") as states:
    states.write(f"{{number}}|{{'TIMEOUT' if failed else 'COMPLETED'}}\\n")
print(number)
"""
LONGEST = 180  # seconds of one call of snakemake; a submission with a retry takes 20
COMMANDS = {
    "sacct": "",
    "sacctmgr": "echo my-group",
    "scontrol": "echo 'MaxArraySize = 1001'; echo 'MinJobAge = 300 sec'",
    "sinfo": "case \"$*\" in *%R*) printf 'cpu|infinite|64000\\ngpu|3-00:00:00|512000\\n' ;; *) printf 'PARTITION\\ncpu*\\ngpu\\n' ;; esac",
    "squeue": 'case "$*" in *--states=all*) cat "$(dirname "$0")/states" ;; esac',
    "srun": "",
    "scancel": "",
}


class Cluster:
    """A copy of the workflow, and a folder of stand-ins for Slurm's commands."""

    def __init__(self, folder: Path) -> None:
        self.workflow, self.bin = folder / "copy", folder / "bin"
        self.workflow.mkdir()
        copy_workflow(self.workflow)
        for name in ("slurm", "profiles"):
            os.symlink(os.readlink(ROOT / name), self.workflow / name)
        (self.workflow / "config/runs/paper.yaml").write_text("extends: smoke\n", encoding="utf-8")
        self.bin.mkdir()
        scripts = {name: f"#!/bin/sh\n{text}\n" for name, text in COMMANDS.items()}
        for name, text in {"sbatch": SBATCH.format(python=sys.executable), **scripts}.items():
            (self.bin / name).write_text(text, encoding="utf-8")
            (self.bin / name).chmod(0o755)

    def configure(self, profile: dict[str, str], **config: Any) -> None:
        file = self.workflow / "workflow/profiles/slurm/config.yaml"
        text = file.read_text(encoding="utf-8")
        for key, value in profile.items():
            text, count = re.subn(rf"^  {key}: null", f"  {key}: {value}", text, flags=re.MULTILINE)
            assert count == 1, f"{key} is set in one place"
        file.write_text(text, encoding="utf-8")
        (self.workflow / "config/config.yaml").write_text(yaml.safe_dump({"runs": ["mini"], **config}), encoding="utf-8")

    def snakemake(self, *words: str, slurm: bool = True) -> tuple[int, str]:
        # Of this machine's own programs only what is needed, so that a real Slurm is not asked.
        path = [str(self.bin)] if slurm else []
        tools = self.bin.parent / "tools"
        tools.mkdir(exist_ok=True)
        for name in ("sh", "bash", "cat", "dirname", "which", "git", "env", "python3"):
            if not (tools / name).exists():
                os.symlink(str(shutil.which(name)), tools / name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("SNAKEMAKE", "SLURM"))}
        environment |= {"PATH": os.pathsep.join([*path, str(tools)]), "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "snakemake", *words]
        with open(self.bin.parent / "said", "w+", encoding="utf-8") as said:
            done = subprocess.Popen(command, cwd=self.workflow, env=environment, stdout=said, stderr=subprocess.STDOUT, text=True)
            try:
                done.wait(LONGEST)
            except subprocess.TimeoutExpired:  # it waits for a job whose outputs or whose end the stand-ins do not give
                done.kill()
                done.wait()
                said.seek(0)
                pytest.fail(f"snakemake still waits after {LONGEST} s:\n{said.read()[-5000:]}")
            said.seek(0)
            return done.returncode, said.read()

    def submitted(self) -> list[tuple[str, str]]:
        """(comment, sbatch arguments without the command) of each submission."""
        lines = (self.bin / "submitted.jsonl").read_text(encoding="utf-8").splitlines()
        calls = [json.loads(line) for line in lines]
        return [(call[call.index("--comment") + 1], shlex.join(word for word in call if not word.startswith("--wrap"))) for call in calls]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_what_is_submitted_for_each_kind_of_job(cluster: Cluster) -> None:
    cluster.configure(
        {"account": "my-group", "partition": "cpu", "gpu_partition": "gpu", "gpu_model": "a100"},
        gpus={"warm_start": 4, "pretrain": 8},
        nodes={"pretrain": 2},
        threads={"warm_start": 4000, "corpus": 3},
    )
    jobs = plan(cluster.workflow, ["smoke"])
    comments = {}
    for job in jobs:
        values = "_".join(str(value) for value in job["wildcards"].values()).replace("/", "_")
        comments[f"rule_{job['rule']}_wildcards_{values}"] = [*job["output"], job["benchmark"]]
    (cluster.bin / "outputs.json").write_text(json.dumps(comments), encoding="utf-8")
    (cluster.bin / "failing").write_text("rule_warm_start_wildcards_smoke", encoding="utf-8")
    words = ["--profile", "slurm", "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"]
    code, output = cluster.snakemake(*words, "--", "results/smoke/models/actor")
    assert code == 0, output
    calls = cluster.submitted()
    by_rule = {comment.split("_wildcards_")[0]: call for comment, call in calls}
    assert set(by_rule) == {"rule_problems", "rule_corpus", "rule_pretrain", "rule_warm_start"}
    for call in by_rule.values():
        assert " -A my-group " in call

    corpus = by_rule["rule_corpus"]
    assert " -p cpu -t 240 --mem 16000 " in corpus
    assert "--cpus-per-task=3" in corpus
    assert "gpu" not in corpus

    # One node: torchrun starts the four processes, so Slurm starts one task.
    first, second = [call for comment, call in calls if comment.startswith("rule_warm_start")]
    assert " -p gpu -t 1440 --mem 32000 --nodes=1 " in first
    assert "--gpus=a100:4" in first
    assert "--cpus-per-task=4000" in first, "not cut to the cores of the machine that submits"
    assert "ntasks" not in first
    assert " -t 2880 --mem 64000 " in second, "a job that timed out is tried again with more time and memory"
    assert "A job of corpus that is tried again would ask for up to mem_mb=" not in output, "64000 is what partition cpu gives"

    # Two nodes: one task on each, which launch.sh starts itself.
    pretrain = by_rule["rule_pretrain"]
    assert "--gpus=a100:8" in pretrain
    assert "--nodes=2" in pretrain
    assert "--ntasks=2" in pretrain
    assert "--cpus-per-task=4" in pretrain
    assert "per-gpu" not in pretrain


def test_without_settings_slurm_chooses(cluster: Cluster) -> None:
    cluster.configure({})
    made = ["results/smoke/problems/train.parquet", "results/smoke/benchmarks/problems/train.tsv"]
    (cluster.bin / "outputs.json").write_text(json.dumps({"rule_problems_wildcards_smoke_train": made}), encoding="utf-8")
    words = ["--slurm-init-seconds-before-status-checks", "1", "--", "results/smoke/problems/train.parquet"]
    code, output = cluster.snakemake("--profile", "slurm", *words)
    assert code == 0, output
    assert "would ask for" not in output
    ((_, call),) = cluster.submitted()
    assert " -p cpu -t 60 --mem 4000 --ntasks=1 --cpus-per-task=1" in call, "the default partition of the cluster"
    assert " -A " not in call


def test_the_profile_takes_the_paper_run_and_the_command_line_wins(cluster: Cluster) -> None:
    for words, run in ([], "paper"), (["--config", "runs=[smoke]"], "smoke"):
        code, output = cluster.snakemake("--profile", "slurm", "-n", *words, "--", "results/apps_eval.csv")
        assert code == 0, output
        assert set(re.findall(r"problems of (\w+):", output)) == {run}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--default-resources", "slurm_partition=nosuch"], "this cluster has no partition 'nosuch'; there are cpu, gpu. Set partition"),
        (["--set-resources", "problems:runtime=9999", "problems:slurm_partition=gpu"], "`limits: {runtime: 4320}` in config/config.yaml"),
        (["--set-resources", "problems:mem_mb=900000"], "asks for mem_mb=900000, but partition any gives at most 512000"),
    ],
)
def test_what_the_cluster_cannot_give_is_said_before_the_first_job(cluster: Cluster, words: list[str], message: str) -> None:
    code, output = cluster.snakemake("--profile", "slurm", *words, "--", "results/smoke/problems/train.parquet")
    assert code != 0
    assert message in output
    assert not (cluster.bin / "submitted.jsonl").exists()


def test_what_a_retry_cannot_have_is_said_too(cluster: Cluster) -> None:
    cluster.configure({"partition": "cpu"})
    (cluster.bin / "sbatch").write_text("#!/bin/sh\necho stopped here >&2; exit 1\n", encoding="utf-8")
    code, output = cluster.snakemake("--profile", "slurm", "--retries", "20", "--", "results/smoke/problems/train.parquet")
    assert code != 0
    assert "A job of problems that is tried again would ask for up to mem_mb=84000, which Slurm refuses" in output
    assert "Set `limits: {mem_mb: 64000}` in config/config.yaml" in output


def test_no_slurm_on_this_machine_is_one_clear_message(cluster: Cluster) -> None:
    code, output = cluster.snakemake("--profile", "slurm", "--", "results/smoke/problems/train.parquet", slurm=False)
    assert code != 0
    assert "submits jobs with sbatch, which this machine does not have. Log in to a machine of the cluster" in output


def test_snakemake_runs_as_it_is_typed(cluster: Cluster) -> None:
    """Without --cores, by the default profile."""
    code, output = cluster.snakemake("--", "results/smoke/problems/train.parquet", slurm=False)
    assert code == 0, output
    assert "specific profile profiles/default" in output
    assert (cluster.workflow / "results/smoke/problems/train.parquet").exists()


def test_the_profile_names_every_rule_with_a_gpu() -> None:
    text = (ROOT / "workflow/profiles/slurm/config.yaml").read_text(encoding="utf-8")
    listed = re.search(r"for rule in \((.*)\):", text)
    assert listed
    wanted = {job["rule"] for job in plan(ROOT, ["mini"]) if job["resources"]["gpu"] != "0"}
    assert set(re.findall(r"\w+", listed.group(1))) == wanted
    assert wanted > set(TRAINED_STAGES)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gpus": {"pretain": 2}}, "did you mean 'pretrain'"),
        ({"gpus": {"sample": 2}}, "no trained stage 'sample'"),
        ({"gpus": {"pretrain": 0}}, "at least 1"),
        ({"gpus": {"pretrain": 3}, "nodes": {"pretrain": 2}}, "3 GPUs cannot be spread evenly over 2 nodes"),
        ({"nodes": {"pretrain": 2}}, "1 GPUs cannot be spread evenly over 2 nodes"),
    ],
)
def test_devices_that_cannot_be(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(WorkflowConfig, config, "config/config.yaml")
