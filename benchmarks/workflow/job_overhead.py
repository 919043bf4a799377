"""What Snakemake adds to a job: wall and CPU time of jobs that do nothing, beside a call with nothing to do.

python benchmarks/workflow/job_overhead.py [--jobs 20] [--slurm [--arrays]]   (--slurm: on a machine that can submit)
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RULES = """
rule all:
    input: [f"made/{number}" for number in range(int(config["jobs"]))]
rule nothing:
    output: "made/{number}"
    resources: mem_mb=500, runtime=5
    shell: "true > {output}"
"""
LOCAL = ["--cores", str(os.cpu_count())]
SLURM = ["--executor", "slurm", "--jobs", "100", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"]


def measured(folder: Path, jobs: int, words: list[str]) -> tuple[float, float]:
    """(wall, CPU of this machine's children) in seconds of one call."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", *words, "--config", f"jobs={jobs}"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--slurm", action="store_true")
    parser.add_argument("--arrays", action="store_true", help="submit the jobs as one array")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "Snakefile").write_text(RULES, encoding="utf-8")
        words = [*(SLURM if arguments.slurm else LOCAL), *(["--slurm-array-jobs", "nothing"] if arguments.arrays else [])]
        measured(folder, 1, words)
        idle_wall, idle_cpu = measured(folder, 1, words)
        wall, cpu = measured(folder, 1 + arguments.jobs, words)
    print(f"nothing to do: {idle_wall:.2f} s, {idle_cpu:.2f} s CPU")
    print(f"per job of {arguments.jobs}: {(wall - idle_wall) / arguments.jobs:.2f} s, {(cpu - idle_cpu) / arguments.jobs:.2f} s CPU here")
    if arguments.slurm:
        fields = ["sacct", "--noheader", "--parsable2", "--format", "ElapsedRaw,TotalCPU,JobIDRaw"]  # with --allocations no CPU time
        rows = [line.split("|") for line in subprocess.run(fields, check=True, capture_output=True, text=True).stdout.splitlines()]
        rows = [row for row in rows if "." not in row[2]][-arguments.jobs :]  # without the jobs' steps, which the job sums up
        spent = [sum(float(part) * 60**power for power, part in enumerate(reversed(row[1].split(":")))) for row in rows]
        print(f"in the job: {sum(int(row[0]) for row in rows) / len(rows):.1f} s, {sum(spent) / len(spent):.2f} s CPU")


if __name__ == "__main__":
    main()
