"""`make slurm-test`: the smoke run through a real Slurm of this machine, with a training killed on the way.

Brings up two nodes on loopback (cluster.sh), runs the workflow in a copy of the repository by `--profile slurm`, cancels the
pretraining job after its first checkpoint, and asserts that its second attempt goes on from there, that stages with several
GPUs train under torchrun on one and on two nodes, that the run ends well, and that `dvc repro` sends a stage to Slurm. Takes the
cluster down whatever happens.

Needs root and Debian's packages (installed when missing). `--transcript FILE` writes commands and output as Markdown.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "tests/slurm/cluster.sh"
PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mysqld": "mariadb-server",
}
TARGET = "results/apps_eval.csv"
RUN = ["snakemake", "--profile", "slurm", "--config", "runs=[smoke]", "--slurm-init-seconds-before-status-checks", "8"]
BY_SLURM = {"SNAKEMAKE_PROFILE": "slurm"}
SHOWN = re.compile(  # of what Snakemake prints, in the transcript
    r"has been submitted|^Running stage|^SLURM-job|SLURM status is|Error in rule|Trying to restart|attempt|steps \(|Nothing to be done"
    r"|^WorkflowError|Nothing was submitted|resources: .*gpu=[1-9]"
)


class Transcript:
    """What was typed and what was answered, without what belongs to this machine."""

    def __init__(self, hidden: dict[str, str]) -> None:
        self.hidden, self.parts, self.began = hidden, [], time.monotonic()

    def say(self, text: str) -> None:
        self.parts.append(f"\n{text}\n")
        print(f"[{time.monotonic() - self.began:4.0f} s] {text}", flush=True)

    def show(self, command: str, output: str, keep: re.Pattern[str] | None = None) -> None:
        lines = [line.rstrip() for line in output.splitlines() if line.strip() and (keep is None or keep.search(line))]
        text = "\n".join([f"$ {command}", *lines])
        for real, shown in self.hidden.items():
            text = text.replace(real, shown)
        self.parts.append(f"\n```\n{text}\n```\n")
        print(text, flush=True)


def answer(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_until(what: str, seconds: float, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)


def install_packages() -> None:
    missing = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    if missing:
        apt = ["apt-get", "install", "--yes", "--no-install-recommends", "slurm-wlm-basic-plugins", *missing]
        subprocess.run(apt, check=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, stdout=subprocess.DEVNULL)


def copy_repository(folder: Path) -> None:
    """The files of the working tree, with this test's settings: the cluster's partitions, devices, and a longer pretraining."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    profile = folder / "workflow/profiles/slurm/config.yaml"
    text = profile.read_text(encoding="utf-8")
    for key, value in {"account": "coderl", "partition": "cpu", "gpu_partition": "gpu"}.items():
        text, count = re.subn(rf"^  {key}: null", f"  {key}: {value}", text, flags=re.MULTILINE)
        assert count == 1, key
    profile.write_text(text, encoding="utf-8")
    config = yaml.safe_load((folder / "config/config.yaml").read_text(encoding="utf-8"))
    config |= {"gpus": {"warm_start": 2, "train_repair": 2}, "nodes": {"train_repair": 2}}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    smoke = yaml.safe_load((folder / "config/runs/smoke.yaml").read_text(encoding="utf-8"))
    smoke["pretrain"]["phases"][0]["training"] |= {"steps": 200, "checkpoint_every": 20}
    (folder / "config/runs/smoke.yaml").write_text(yaml.safe_dump(smoke), encoding="utf-8")


def first_line(log: Path) -> str:
    return log.read_text(encoding="utf-8").splitlines()[0]


def scenario(folder: Path, transcript: Transcript) -> None:
    os.chdir(folder)
    run = [*RUN, "--", TARGET]
    transcript.show("sinfo", answer("sinfo"))
    profile, pattern = "workflow/profiles/slurm/config.yaml", "^  (account|partition|gpu_partition):"
    transcript.show(f"grep -E '{pattern}' {profile}", answer("grep", "-E", pattern, profile))
    transcript.show("grep -E '^(gpus|nodes|  )' config/config.yaml", answer("grep", "-E", "^(gpus|nodes|  )", "config/config.yaml"))

    transcript.say("The run; while it pretrains, its job is cancelled after the first checkpoint.")
    began = time.monotonic()
    with open("run.log", "w", encoding="utf-8") as log:
        snakemake = subprocess.Popen(run, stdout=log, stderr=subprocess.STDOUT)
        try:
            checkpoints = Path("work/smoke/pretrain/phase0.partial")

            def training() -> bool:
                assert snakemake.poll() is None, Path("run.log").read_text(encoding="utf-8")[-5000:]
                return any(checkpoints.glob("checkpoint-*/trainer_state.json"))

            wait_until("a first checkpoint of pretraining", 3600, training)
            queue = answer("squeue", "--noheader", "--format", "%i %P %T %k")
            (job,) = [line.split()[0] for line in queue.splitlines() if "rule_pretrain" in line]
            transcript.show("squeue --noheader --format '%i %P %T %k'", queue)
            last = max(int(each.name.rpartition("-")[2]) for each in checkpoints.glob("checkpoint-*"))
            transcript.show(f"scancel {job}", answer("scancel", job))
            code = snakemake.wait(timeout=3600)
        finally:
            if snakemake.poll() is None:
                snakemake.send_signal(signal.SIGTERM)
                time.sleep(10)
                snakemake.kill()
    output = Path("run.log").read_text(encoding="utf-8")
    transcript.show(" ".join(run), output, SHOWN)
    assert code == 0, output[-5000:]
    transcript.say(f"It ended after {time.monotonic() - began:.0f} s.")

    pretrain = Path("logs/smoke/pretrain/base.log")
    resumed = re.search(r"resuming from .*checkpoint-(\d+)", pretrain.read_text(encoding="utf-8"))
    assert resumed, "the second attempt of pretraining began anew"
    assert last <= int(resumed.group(1)) < 200
    transcript.show(f"grep 'resuming from' {pretrain}", resumed.group())
    for stage, name, start in (("warm_start", "actor", "+ torchrun --standalone"), ("train_repair", "repair", "+ srun --nodes 2")):
        line = first_line(Path(f"logs/smoke/{stage}/{name}.log"))
        assert line.startswith(start), line
        transcript.show(f"head -n 1 logs/smoke/{stage}/{name}.log | cut -c 1-200", line[:200])
        rows = pd.read_csv(f"results/smoke/models/{name}/training_log.csv")
        assert rows["step"].is_unique, "two processes wrote the log"

    judged = Path("logs/smoke/run_tests/reference/train/hidden/of-1/0.log")
    backend = answer("grep", "-o", "backend .*, active isolation layers:.*", str(judged))
    transcript.say("Without Docker on the node: each run_tests log says what isolates the programs.")
    transcript.show(f"grep -o 'backend .*, active isolation layers:.*' {judged}", backend)

    fields = "JobID,Comment%42,Partition,AllocTRES%62,State%22,Elapsed,TotalCPU"
    jobs = answer("sacct", "--allocations", "--parsable2", "--noheader", "--format", "JobID,Comment,Partition,AllocTRES,State,Account")
    transcript.show(f"sacct --allocations --format {fields}", answer("sacct", "--allocations", "--format", fields))
    rows = [line.split("|") for line in jobs.splitlines()]
    attempts = [row for row in rows if row[1].startswith("rule_pretrain")]
    assert [row[4].split()[0] for row in attempts] == ["CANCELLED", "COMPLETED"]
    assert ["mem=32000M" in attempts[0][3], "mem=64000M" in attempts[1][3]] == [True, True], "the retry asked for more memory"
    for row in rows:
        assert row[5] == "coderl"
        on_gpu = "gres/gpu=" in row[3]
        assert row[2] == ("gpu" if on_gpu else "cpu"), row
        wanted = 2 if re.match("rule_(warm_start|train_repair)", row[1]) else 1 if on_gpu else 0
        assert (f"gres/gpu={wanted}" in row[3]) or wanted == 0, row
    (repair,) = [row for row in rows if row[1].startswith("rule_train_repair")]
    assert "node=2" in repair[3]

    table = pd.read_csv(TARGET)
    assert set(table["run"]) == {"smoke"}
    transcript.show(f"head -n 3 {TARGET}", "\n".join(Path(TARGET).read_text(encoding="utf-8").splitlines()[:3]))

    transcript.say("Called again, it does nothing; a partition that does not exist is said before anything is submitted.")
    again = subprocess.run(run, check=True, capture_output=True, text=True)
    assert "Nothing to be done" in again.stdout + again.stderr
    transcript.show(" ".join(run), again.stdout + again.stderr, SHOWN)
    wrong = [*RUN, "--forcerun", "evaluate", "--default-resources", "slurm_partition=nosuch", "--", TARGET]
    refused = subprocess.run(wrong, check=False, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "no partition 'nosuch'; there are cpu, gpu" in refused.stdout + refused.stderr
    transcript.show(" ".join(wrong), refused.stdout + refused.stderr, SHOWN)


def by_dvc(transcript: Transcript) -> None:
    """A stage that DVC finds stale, its job sent to Slurm by the same command as anywhere else."""
    smoke = yaml.safe_load(Path("config/runs/smoke.yaml").read_text(encoding="utf-8"))
    Path("config/runs/smoke.yaml").write_text(yaml.safe_dump(smoke | {"report": {"example_programs": 2}}), encoding="utf-8")
    subprocess.run([sys.executable, "workflow/scripts/dvc_stages.py", "--runs", "smoke"], check=True)
    subprocess.run(["git", "init", "--quiet"], check=True)  # DVC asks for it
    transcript.say("The same from DVC, with a report of two example programs.")
    words = ["dvc", "repro", "--single-item", "report-smoke"]
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | BY_SLURM)
    transcript.show(" ".join(["SNAKEMAKE_PROFILE=slurm", *words]), done.stdout, SHOWN)
    assert done.returncode == 0, done.stdout[-5000:]
    assert len(re.findall("has been submitted with SLURM jobid", done.stdout)) == 1
    status = answer("dvc", "status", "report-smoke")
    assert "up to date" in status
    transcript.show("dvc status report-smoke", status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transcript", type=Path, help="Markdown file to write")
    parser.add_argument("--keep", action="store_true", help="leave the copy of the repository and the cluster's folder")
    arguments = parser.parse_args()
    began = time.monotonic()
    target = arguments.transcript and arguments.transcript.resolve()
    bin = Path(sys.executable).parent
    os.environ.update(PATH=os.pathsep.join([str(bin), *os.get_exec_path()]), PYTHONPATH="src")
    os.environ.pop("SNAKEMAKE_PROFILE", None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    install_packages()
    etc = Path("/etc/slurm")
    before = sorted(etc.iterdir()) if etc.exists() else None
    base = Path(tempfile.mkdtemp(prefix="coderl-slurm-"))
    base.chmod(0o755)  # munge and mariadb have users of their own
    os.environ |= {f"DVC_{each}_DIR": str(base / "dvc") for each in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")}
    folder, cluster = base / "repository", base / "cluster"
    hidden = {str(folder) + "/": "", str(folder): ".", str(cluster): "CLUSTER", str(bin): ".venv/bin", socket.gethostname(): "HOST"}
    transcript = Transcript(hidden)
    copy_repository(folder)
    try:
        subprocess.run([CLUSTER, "up", cluster], check=True)
        transcript.say(f"Two nodes with two GPUs each, up after {time.monotonic() - began:.0f} s.")
        scenario(folder, transcript)
        by_dvc(transcript)
    finally:
        os.chdir(ROOT)
        subprocess.run([CLUSTER, "down", cluster], check=True)
        if not arguments.keep:
            shutil.rmtree(base)
    assert (sorted(etc.iterdir()) if etc.exists() else None) == before, "/etc/slurm is not as it was"
    transcript.say(f"Cluster down; {time.monotonic() - began:.0f} s in all.")
    if target:
        head = "# The smoke run on a real Slurm\n\nMade by `make slurm-test`; what Snakemake prints is cut to the lines on jobs.\n"
        target.write_text(head + "".join(transcript.parts), encoding="utf-8")


if __name__ == "__main__":
    main()
