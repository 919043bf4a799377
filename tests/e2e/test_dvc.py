"""Both engines on one small run: what each reruns and what it does not, and what neither loses (`make dvc-test`).

One scenario in scratch clones of this working tree, whose steps build on one another in the order of this file. What ran is read
from the logs, which every job writes anew. What should have run is computed from Snakemake's plan: the jobs whose parameters,
command or inputs are others than before. Snakemake reruns those and all that lies downstream; DVC stops where bytes are equal.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.dvc

ROOT = Path(__file__).parents[2]
RUN = "tiny"
CONFIG = f"config/runs/{RUN}.yaml"

TINY: dict[str, Any] = {
    "extends": "smoke",
    "description": "Every rule, as small as it goes.",
    "problems": {"train": {"size": 12, "with_solutions": 6}, "test": {"size": 6}},
    "corpus": {"sources": ["procedural"], "procedural_files": 60},
    "pretrain": {
        "phases": [
            {
                "objectives": {"msp": 0.4, "ntp": 0.6},
                "training": {"steps": 20, "batch_tokens": 1024, "learning_rate": 3.5e-3, "checkpoint_every": 20, "log_every": 10},
            }
        ]
    },
    "sample": {
        "sets": {
            "train": {"samples_per_problem": 2, "batch_problems": 6, "shards": 2},
            "test": {"samples_per_problem": 4, "batch_problems": 6, "shards": 1},
        }
    },
    "train_critic": {"training": {"steps": 10}},
    "train_repair": {"training": {"steps": 10}},
    "rl_finetune": {"variants": {"rl": {"rounds": 1, "training": {"steps": 5}}}},
    "score": {"batch_tokens": 8192},
    "critical_sample": {"batch": 2, "batch_problems": 6, "repair_candidates": 1},
    "evaluate": {
        "critical": [],
        "also": {"dev": {"policies": [], "pass_at": [1]}},
        "policies": ["rl"],
        "pass_at": [1, 2],
        "n_at": [[1, 2]],
        "bootstrap": 100,
        "comparisons": [["rl_finetune/rl", "warm_start"]],
    },
    "report": {"example_programs": 1},
}

PLAN = """
import json, sys
sys.path.insert(0, "workflow/scripts")
import dvc_stages
print(json.dumps([
    {"log": str(job.log[0]), "question": [job.rule.shellcmd, {key: str(value) for key, value in job.params._allitems()}],
     "input": [str(path) for path in job.input], "output": [str(path) for path in job.output]}
    for job in dvc_stages.jobs(None)]))
"""


@dataclass
class Job:
    """One job of Snakemake's plan, by its log: what it is asked, and hashes of the files that it reads (folders have seals)."""

    question: Any
    inputs: dict[str, str]
    outputs: list[str]


class Workspace:
    """A scratch clone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def environment(self, **more: str) -> dict[str, str]:
        """That of the user, with the clone's own sources in front and without settings of this machine."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE", "SLURM", "DVC", "GIT"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        python_path = os.pathsep.join(filter(None, [str(self.folder / "src"), os.environ.get("PYTHONPATH", "")]))
        own = self.folder.parent / "settings"
        who = {f"GIT_{role}_{what}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dvc = {"DVC_GLOBAL_CONFIG_DIR": str(own), "DVC_SYSTEM_CONFIG_DIR": str(own), "DVC_SITE_CACHE_DIR": str(own)}
        return {**kept, **who, **dvc, "PATH": path, "PYTHONPATH": python_path, **more}

    def call(self, *command: str, fails: bool = False, **environment: str) -> str:
        """Standard output and error of a command that has to succeed (or to fail)."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-6000:]}"
        return done.stdout

    def snakemake(self, *words: str) -> str:
        return self.call("snakemake", "--show-failed-logs", *words)

    def dvc(self, *words: str, **environment: str) -> str:
        return self.call("dvc", *words, **environment)

    def sync(self, verb: str, fails: bool = False) -> str:
        """What `make record`, `make adopt` and `make pull` call."""
        return self.call(sys.executable, "workflow/scripts/dvc_sync.py", verb, fails=fails)

    def git(self, *words: str) -> str:
        return self.call("git", *words)

    def set(self, key: str, value: Any) -> None:
        """Change one parameter of the run."""
        file = self.folder / CONFIG
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        *parents, last = key.split(".")
        section = config
        for name in parents:
            section = section[int(name)] if isinstance(section, list) else section[name]
        assert section[last] != value
        section[last] = value
        file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")

    def edit(self, path: str, change: Callable[[str], str]) -> None:
        """Change a source file."""
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        assert change(text) != text
        file.write_text(change(text), encoding="utf-8")

    def jobs(self) -> dict[str, Job]:
        found = json.loads(self.call(sys.executable, "-c", PLAN).splitlines()[-1])
        files = {path for job in found for path in job["input"] if (self.folder / path).is_file()}
        hashes = {path: hashlib.sha256((self.folder / path).read_bytes()).hexdigest() for path in files}
        return {
            job["log"]: Job(job["question"], {path: hashes[path] for path in job["input"] if path in hashes}, job["output"])
            for job in found
        }

    def logs(self) -> dict[str, int]:
        """When each log was written; `snakemake --touch` makes empty ones."""
        files = {path.relative_to(self.folder).as_posix(): path.stat() for path in (self.folder / "logs").rglob("*.log")}
        return {name: file.st_mtime_ns for name, file in files.items() if file.st_size}

    def results(self) -> dict[str, str]:
        """Hashes of all results. Left out: what holds the hour or is Snakemake's."""
        files = [path for path in (self.folder / "results").rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.suffix != ".tsv" and not path.name.endswith("provenance.json")
        }

    def lock(self) -> str:
        return (self.folder / "dvc.lock").read_text(encoding="utf-8")

    def assert_both_at_rest(self) -> None:
        """Nothing to be done, say both engines, and nothing is done."""
        before = self.logs()
        assert "Nothing to be done" in self.snakemake("-n")
        assert "Data and pipelines are up to date" in self.dvc("repro")
        assert self.logs() == before


def started(output: str) -> set[str]:
    """The DVC stages that were run."""
    return set(re.findall(r"Running stage '([^']+)'", output))


def others(before: dict[str, Job], after: dict[str, Job]) -> set[str]:
    """Jobs that are asked something else, or read something else, than before."""
    assert before.keys() == after.keys()
    return {log for log in before if (before[log].question, before[log].inputs) != (after[log].question, after[log].inputs)}


def downstream(jobs: dict[str, Job], logs: set[str]) -> set[str]:
    """These jobs and all that read, directly or not, what they make."""
    reached, stale = set(logs), set(logs)
    while stale:
        made = {path for log in stale for path in jobs[log].outputs}
        stale = {log for log in jobs if log not in reached and made & jobs[log].inputs.keys()}
        reached |= stale
    return reached


class Change:
    """`with Change(workspace) as change: <edit>; <run>`, and then what ran and what should have run."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def __enter__(self) -> Change:
        self.before, self.logs = self.workspace.jobs(), self.workspace.logs()
        return self

    def __exit__(self, *_: object) -> None:
        now = self.workspace.logs()
        self.ran = {log for log in now if now[log] != self.logs.get(log)}
        self.after = self.workspace.jobs()
        self.equal_bytes_stop = others(self.before, self.after)

    def stale(self) -> set[str]:
        """In the middle: the jobs that the edit touches and all downstream."""
        now = self.workspace.jobs()
        return downstream(now, others(self.before, now))


def logs_of(*names: str) -> set[str]:
    return {"logs/collect/collect.log" if name == "collect" else f"logs/{RUN}/{name}.log" for name in names}


AFTER_CRITICAL = ("run_tests/critical/test/hidden/of-1/0", "run_tests/critical/test/example/of-1/0")
PAPER_TABLES = tuple(f"tables/table{name}" for name in ("1a", "1b", "2", "3", "4", "5", "_mbpp"))
TABLES = ("evaluate/evaluate", "evaluate_set/dev", *PAPER_TABLES, "collect", "report/report")
TABLE_STAGES = {f"evaluate-{RUN}", f"evaluate_set-{RUN}", f"tables-{RUN}", "collect", f"report-{RUN}"}
"""Every table names the hash of the configuration, so each parameter makes other tables."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenario")


@pytest.fixture(scope="module")
def work(folder: Path) -> Workspace:
    """A repository with the working tree's files as they are, and the smallest run that has every rule."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git repository, of which clones could be made")
    workspace = Workspace(folder / "first")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_symlink() or (ROOT / name).is_file():
            (workspace.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, workspace.folder / name, follow_symlinks=False)
    (workspace.folder / "dvc.lock").unlink(missing_ok=True)
    (workspace.folder / CONFIG).write_text(yaml.safe_dump(TINY, sort_keys=False), encoding="utf-8")
    (workspace.folder / "config/config.yaml").write_text(f"runs: [{RUN}]\n", encoding="utf-8")
    assert f"{workspace.folder}/src/coderl" in workspace.call(sys.executable, "-c", "import coderl; print(coderl.__file__)")
    workspace.call(sys.executable, "workflow/scripts/dvc_stages.py")
    workspace.git("init", "--quiet")
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message", "start")
    return workspace


def commit(workspace: Workspace) -> None:
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message", "results", "--allow-empty")


def test_a_dvc_takes_over_what_snakemake_made(work: Workspace) -> None:
    assert "Snakemake has work left" in work.sync("record", fails=True), "stale or missing results are not recorded"
    work.snakemake()
    assert set(work.logs()) == set(work.jobs())
    work.sync("record")
    assert "up to date" in work.dvc("status")
    work.assert_both_at_rest()
    commit(work)


def test_b_and_f_a_parameter_there_and_back_by_dvc(work: Workspace) -> None:
    original = work.results()
    with Change(work) as change:
        work.set("train_repair.training.steps", 12)
        output = work.dvc("repro")
    repaired = {f"train_repair-{RUN}", f"critical_sample-{RUN}-critical", f"run_tests-{RUN}-critical", *TABLE_STAGES}
    assert started(output) == {*repaired, "dvc_yaml"}
    assert change.ran == logs_of("train_repair/repair", "critical_sample/critical/test/of-1/0", *AFTER_CRITICAL, *TABLES)
    assert change.ran == change.equal_bytes_stop
    work.assert_both_at_rest()
    (work.folder.parent / "other_results.json").write_text(json.dumps(work.results()), encoding="utf-8")
    work.dvc("push", "--run-cache")

    with Change(work) as change:
        work.set("train_repair.training.steps", 10)
        output = work.dvc("repro")
    assert started(output) == {"dvc_yaml"}, "all else is from the cache"
    assert change.ran == set()
    assert work.results() == original
    assert "Nothing to be done" not in work.snakemake("-n"), "Snakemake has not heard of it yet"
    work.sync("adopt")
    work.assert_both_at_rest()


def test_d_a_fresh_clone_pulls_and_has_nothing_to_do(work: Workspace, folder: Path) -> None:
    work.dvc("push", "--run-cache")
    commit(work)
    work.git("clone", "--quiet", ".", str(folder / "second"))
    clone = Workspace(folder / "second")
    clone.sync("pull")
    assert clone.results().keys() == work.results().keys() - {path for path in work.results() if "/benchmarks/" in path}
    clone.assert_both_at_rest()
    assert not clone.logs(), "not one job has run here"


def test_sharing_what_one_workspace_has_run_another_does_not_run(folder: Path) -> None:
    clone = Workspace(folder / "second")
    clone.set("train_repair.training.steps", 12)
    clone.dvc("pull", "--run-cache")
    assert started(clone.dvc("repro", "--pull")) == {"dvc_yaml"}
    assert not clone.logs()
    assert clone.results() == json.loads((folder / "other_results.json").read_text(encoding="utf-8"))
    clone.sync("adopt")
    clone.assert_both_at_rest()


def test_d_without_the_remote_the_message_says_what_to_do(work: Workspace, folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    work.git("clone", "--quiet", ".", str(folder / "elsewhere/third"))
    clone = Workspace(folder / "elsewhere/third")
    message = clone.sync("pull", fails=True)
    assert "dvc remote modify --local store url" in message
    assert "dvc repro" in message
    assert "make pull" in clone.sync("adopt", fails=True)


def test_b_a_parameter_by_snakemake(work: Workspace) -> None:
    with Change(work) as change:
        work.set("critical_sample.repair_candidates", 2)
        expected = change.stale()
        work.snakemake()
    # `evaluate` and `report` read section critical_sample too, and both are downstream of it anyway.
    assert change.ran == expected == logs_of("critical_sample/critical/test/of-1/0", *AFTER_CRITICAL, *TABLES)
    assert "changed" in work.dvc("status")
    assert "dvc repro" in work.sync("adopt", fails=True), "what DVC does not know is not adopted"
    made = work.results()
    with Change(work) as change:  # in place of `make record`: DVC deletes all these outputs, and Snakemake finds them again
        assert f"critical_sample-{RUN}-critical" in started(work.dvc("repro"))
    assert change.ran == set(), "what Snakemake has made is not made again"
    assert work.results() == made
    work.assert_both_at_rest()
    commit(work)


def test_c_a_touch_reruns_nothing(work: Workspace) -> None:
    for path in sorted(work.folder.rglob("*"), key=lambda path: hashlib.sha256(str(path).encode()).digest()):
        if path.is_file() and not {".git", ".dvc", ".snakemake"} & set(path.relative_to(work.folder).parts):
            os.utime(path)
    work.assert_both_at_rest()


def test_c_and_i_an_edit_of_a_module(work: Workspace) -> None:
    recorded = work.lock()
    with Change(work) as change:
        work.edit("src/coderl/repair.py", lambda text: text + "\n# edited\n")
        output = work.dvc("repro")
    assert started(output) == {f"train_repair-{RUN}", "dvc_yaml"}, "the same model comes out, so DVC stops there"
    assert change.ran == change.equal_bytes_stop == logs_of("train_repair/repair")
    assert work.lock() != recorded, "what is recorded names the new code"
    work.assert_both_at_rest()

    recorded = work.lock()
    with Change(work) as change:
        work.edit("src/coderl/evaluation/stage.py", lambda text: text + "\n# edited\n")
        expected = change.stale()
        assert expected >= logs_of("evaluate/evaluate", "collect")
        assert not {log for log in expected if "/models/" in log or "/sample/" in log or "/run_tests/" in log}
        work.snakemake()
    assert change.ran == expected
    work.sync("record")
    assert work.lock() != recorded
    work.assert_both_at_rest()


def test_c_an_edit_of_a_rule(work: Workspace) -> None:
    with Change(work) as change:
        work.edit("workflow/rules/programs.smk", lambda text: text.replace("coderl critical-sample --", "coderl critical-sample  --"))
        output = work.dvc("repro")
    asked = {f"critical_sample-{RUN}-critical", f"score-{RUN}", f"sample-{RUN}-actor", f"sample-{RUN}-policy-rl", "dvc_yaml"}
    asked |= {f"run_tests-{RUN}-{model}" for model in ("actor", "critical", "empty", "policy-rl", "reference")}
    assert started(output) == asked, "DVC sees that the file of rules is another one"
    assert change.ran == change.equal_bytes_stop == logs_of("critical_sample/critical/test/of-1/0"), "Snakemake sees which rule is"
    work.assert_both_at_rest()

    with Change(work) as change:
        work.edit("workflow/rules/results.smk", lambda text: text.replace("coderl report --run", "coderl report  --run"))
        expected = change.stale()
        work.snakemake()
    assert change.ran == expected == logs_of("report/report")
    work.sync("record")
    work.assert_both_at_rest()


def test_dvc_repro_fails_when_its_stages_have_drifted(work: Workspace) -> None:
    text = (work.folder / CONFIG).read_text(encoding="utf-8")
    (work.folder / CONFIG).write_text(text + "procedural: {hidden_tests: 9}\n", encoding="utf-8")  # dvc.yaml has not this section
    assert "run `make dvc`" in work.call("dvc", "repro", fails=True)
    assert "run `make dvc`" in work.sync("adopt", fails=True)
    (work.folder / CONFIG).write_text(text, encoding="utf-8")
    work.dvc("repro")
    work.assert_both_at_rest()
    commit(work)


def test_i_a_restored_model_is_not_taken_for_the_one_before(work: Workspace) -> None:
    """critic 1, values 1; critic 2, values 2; critic 1 again, from the cache: what Snakemake knows says values 2, and they are stale."""
    critic, values = f"train_critic-{RUN}", f"score-{RUN}"
    scored = work.folder / f"results/{RUN}/values/train.parquet"
    work.set("train_critic.training.steps", 12)
    work.set("score.batch_tokens", 4096)
    assert started(work.dvc("repro", "--single-item", critic, values)) == {critic, values}
    of_second_critic = scored.read_bytes()
    with Change(work) as change:
        work.set("train_critic.training.steps", 10)
        assert started(work.dvc("repro", "--single-item", critic)) == set(), "from the cache"
        assert started(work.dvc("repro", "--single-item", values)) == {values}
    assert change.ran == logs_of("score/train")
    assert scored.read_bytes() != of_second_critic
    work.git("checkout", "--quiet", "--", ".")
    work.dvc("checkout")
    work.sync("adopt")
    work.assert_both_at_rest()


def test_e_an_experiment_is_a_second_row(work: Workspace) -> None:
    output = work.dvc("exp", "run", "--set-param", f"{CONFIG}:evaluate.pass_at=[1]")
    assert started(output) == {*TABLE_STAGES, "dvc_yaml"}
    shown = list(csv.DictReader(work.dvc("exp", "show", "--csv").splitlines()))
    rows = {row["Experiment"] or row["rev"]: row for row in shown}
    assert len(rows) == 3, "workspace, commit, experiment"
    name = next(row["Experiment"] for row in shown if row["typ"].startswith("branch_"))
    column = "warm_start.pass@2"
    assert [bool(row[column]) for row in shown if row["rev"] != "workspace"] == [True, False]
    assert column in work.dvc("metrics", "diff", "--md")
    work.dvc("plots", "show", "--out", "drawn")
    page = (work.folder / "drawn/index.html").read_text(encoding="utf-8")
    assert f"{RUN}: pass@k in percent" in page
    assert f"results/{RUN}/models/policy/rl: loss" in page
    assert name
    shutil.rmtree(work.folder / "drawn")
    work.git("checkout", "--quiet", "--", ".")
    work.dvc("checkout")
    work.sync("adopt")
    work.assert_both_at_rest()


def interrupted(workspace: Workspace, stage: str, when: Callable[[], bool], how: signal.Signals) -> str:
    """Start a stage in a process group of its own and send it the signal as soon as `when()`; returns what it has said."""
    with open(workspace.folder.parent / "interrupted.txt", "w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            ["dvc", "repro", "--single-item", stage],
            cwd=workspace.folder,
            env=workspace.environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell ignores for what runs in its background
        )
        limit = time.monotonic() + 600
        while not when():
            assert process.poll() is None, f"ended before it was killed: {Path(said.name).read_text(encoding='utf-8')}"
            assert time.monotonic() < limit
            time.sleep(0.02)
        os.killpg(process.pid, how)
        process.wait()
        assert process.returncode != 0
        time.sleep(1)  # the last of the group
        return Path(said.name).read_text(encoding="utf-8")


def whole_checkpoints(workspace: Workspace) -> list[int]:
    found = (workspace.folder / f"work/{RUN}/pretrain").rglob("trainer_state.json")  # the last file of a checkpoint
    return [int(path.parent.name.rpartition("-")[2]) for path in found]


def test_g_a_killed_training_resumes_from_its_last_checkpoint(work: Workspace) -> None:
    work.set("pretrain.phases.0.training.steps", 300)
    stage = f"pretrain-{RUN}"
    interrupted(work, stage, lambda: max(whole_checkpoints(work), default=0) > 20, signal.SIGKILL)
    saved = max(whole_checkpoints(work))
    assert saved < 300
    message = work.call("dvc", "repro", "--single-item", stage, fails=True)
    assert "--unlock" in message, "a lock that the kill has left: the message says how to remove it"
    work.snakemake("--unlock")
    assert started(work.dvc("repro", "--single-item", stage)) == {stage}
    log = (work.folder / f"logs/{RUN}/pretrain/base.log").read_text(encoding="utf-8")
    resumed = re.search(r"resuming from \S*checkpoint-(\d+)", log)
    assert resumed
    assert int(resumed.group(1)) >= saved - 20, "no more than one interval between checkpoints is lost"
    with open(work.folder / f"results/{RUN}/models/base/training_log.csv", encoding="utf-8") as rows:
        assert [int(float(row["step"])) for row in csv.DictReader(rows)] == list(range(10, 301, 10)), "the log is whole"
    work.git("checkout", "--quiet", "--", ".")
    work.dvc("checkout")
    work.sync("adopt")
    work.assert_both_at_rest()


def test_g_an_interrupted_stage_keeps_its_finished_shards(work: Workspace) -> None:
    """Finished: Snakemake has seen the job end. A job that is killed between its output and its end runs again."""
    shards = logs_of("sample/actor/train/of-2/0", "sample/actor/train/of-2/1", "sample/actor/test/of-1/0")
    earlier = set((work.folder / ".snakemake/log").glob("*.log"))

    def finished() -> set[str]:
        said = "".join(path.read_text(encoding="utf-8") for path in set((work.folder / ".snakemake/log").glob("*.log")) - earlier)
        names = dict(re.findall(r"^Job (\d+): .*\((logs/\S+)\)$", said, re.MULTILINE))
        return {names[number] for number in re.findall(r"^Finished jobid: (\d+) ", said, re.MULTILINE)}

    work.set("sample.sets.train.samples_per_problem", 3)
    work.set("sample.sets.test.samples_per_problem", 300)  # takes longer than the others
    stage = f"sample-{RUN}-actor"
    interrupted(work, stage, lambda: bool(finished()), signal.SIGINT)
    kept = finished()
    assert kept
    assert kept < shards
    logs = work.logs()
    assert started(work.dvc("repro", "--single-item", stage)) == {stage}, "after Ctrl-C, without another command"
    now = work.logs()
    again = {log for log in now if now[log] != logs.get(log)}  # a job that was killed may have left no log
    assert again == shards - kept, "what was finished is not made again"
    work.git("checkout", "--quiet", "--", ".")
    work.dvc("checkout")
    work.sync("adopt")
    work.assert_both_at_rest()


SBATCH = r"""#!/bin/sh
# Runs the job at once, as Slurm would later.
folder=$(dirname "$0")
echo "$@" >> "$folder/submitted"
number=$(wc -l < "$folder/submitted")
for word in "$@"; do case "$word" in --wrap=*) script=${word#--wrap=} ;; esac; done
[ -n "$script" ] || script=$(cat)
if SLURM_JOB_ID=$number sh -c "$script" > "$folder/job$number" 2>&1; then state=COMPLETED; else state=FAILED; fi
echo "$number|$state" >> "$folder/states"
echo "$number"
"""
SLURM = {
    "sbatch": SBATCH,
    "sacct": "#!/bin/sh\n",
    "sacctmgr": "#!/bin/sh\necho my-group\n",
    "scontrol": "#!/bin/sh\necho 'MaxArraySize = 1001'; echo 'MinJobAge = 300 sec'\n",
    "sinfo": "#!/bin/sh\ncase \"$*\" in *%R*) echo 'gpu|infinite|512000' ;; *) printf 'PARTITION\\ngpu*\\n' ;; esac\n",
    "squeue": '#!/bin/sh\ncase "$*" in *--states=all*) cat "$(dirname "$0")/states" ;; esac\n',
    "scancel": "#!/bin/sh\n",
    "sshare": "#!/bin/sh\n",
    "srun": '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n',
}


@pytest.mark.skipif(
    not importlib.util.find_spec("snakemake_executor_plugin_slurm"), reason="needs the Slurm plugin, of the extra `workflow`"
)
def test_h_dvc_repro_sends_the_jobs_to_slurm(work: Workspace, folder: Path) -> None:
    """The real profile and plugin; stand-ins for Slurm's commands, which run what is submitted (the real ones: `make slurm-test`)."""
    commands = folder / "slurm"
    commands.mkdir()
    for name, text in SLURM.items():
        (commands / name).write_text(text, encoding="utf-8")
        (commands / name).chmod(0o755)
    work.edit("workflow/profiles/slurm/config.yaml", lambda text: text + "\nslurm-init-seconds-before-status-checks: 1\n")
    work.set("score.batch_tokens", 2048)  # not 4096, which an earlier step has left in the cache
    work.set("report.example_programs", 2)
    path = os.pathsep.join([str(commands), work.environment()["PATH"]])
    with Change(work) as change:
        output = work.dvc("repro", "--single-item", f"score-{RUN}", f"report-{RUN}", SNAKEMAKE_PROFILE="slurm", PATH=path)
    assert started(output) == {f"score-{RUN}", f"report-{RUN}"}
    assert change.ran == logs_of("score/train", "report/report")
    score, report = (commands / "submitted").read_text(encoding="utf-8").splitlines()
    assert "rule_score" in score
    assert "--gpus=1" in score
    assert "rule_report" in report
    assert "--gpu" not in report
    assert "runs=[mini]" not in score
    for stage in (f"score-{RUN}", f"report-{RUN}"):
        assert "up to date" in work.dvc("status", stage)
