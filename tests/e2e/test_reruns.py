"""What reruns: exactly the jobs that depend on an edited module or section, nothing for a touched file.

Snakemake really decides, on a workspace whose results are stand-ins that it was told to take as made.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]

JOBS = """
import json, sys
sys.path.insert(0, "workflow/scripts")
import dvc_stages
print(json.dumps([[job.rule.name, [str(path) for path in job.input], [str(path) for path in job.output], str(job.benchmark)]
                  for job in dvc_stages.jobs(["smoke"])]))
"""


def run(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def snakemake(folder: Path, *words: str) -> str:
    return run(folder, "-m", "snakemake", "--cores", "1", *words, "--config", "runs=[smoke]", "--", "all")


def planned(folder: Path) -> Counter[str]:
    """Rules and how many of their jobs `snakemake -n` wants to run."""
    table = snakemake(folder, "-n").partition("Job stats:")[2].partition("total")[0]
    rows = re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)
    return Counter({rule: int(count) for rule, count in rows if rule != "all"})


def downstream(jobs: list[list[Any]], start: str) -> Counter[str]:
    """The jobs of rule `start` and all that read, directly or not, what they make."""
    stale = [job for job in jobs if job[0] == start]
    reached = list(stale)
    while stale:
        made = {path for job in stale for path in job[2]}
        stale = [job for job in jobs if job not in reached and made & set(job[1])]
        reached += stale
    return Counter(job[0] for job in reached)


def stand_ins(folder: Path) -> list[list[Any]]:
    """A workspace in `folder` in which everything seems made; returns its jobs: rule, inputs, outputs, benchmark."""
    for name in ("config", "workflow", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "Snakefile", folder)
    jobs: list[list[Any]] = json.loads(run(folder, "-c", JOBS).splitlines()[-1])
    for _, _, outputs, benchmark in jobs:
        for path in [*outputs, benchmark]:
            target = folder / path
            if Path(path).suffix:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(path)
            else:
                target.mkdir(parents=True, exist_ok=True)
    snakemake(folder, "--touch", "--forceall")
    return jobs


def test_an_edit_reruns_what_depends_on_it_and_a_touch_nothing(tmp_path: Path) -> None:
    jobs = stand_ins(tmp_path)
    for path in (tmp_path / "src").rglob("*.py"):
        os.utime(path)  # would rerun everything, were time stamps what counts
    settings = tmp_path / "config/config.yaml"
    devices = settings.read_text(encoding="utf-8").replace(
        "gpus: {}\nnodes: {}", "gpus: {pretrain: 4, rl_finetune: 2}\nnodes: {pretrain: 2}"
    )
    assert "pretrain: 4" in devices
    settings.write_text(devices, encoding="utf-8")  # devices move no number
    module = tmp_path / "src/coderl/repair.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(text + "\n# edited\n", encoding="utf-8")
    repaired = downstream(jobs, "train_repair")
    assert planned(tmp_path) == repaired
    assert repaired["critical_sample"]
    assert not repaired["rl_finetune"]
    module.write_text(text, encoding="utf-8")

    file = tmp_path / "config/runs/smoke.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({**config, "report": {"example_programs": 1}, "description": "other words"}), encoding="utf-8")
    assert planned(tmp_path) == Counter(report=1)
