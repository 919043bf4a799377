"""The paper run with its sizes divided by a thousand, by the real Snakemake, with a random model in CodeT5-small's exact shape.

The configuration is made from config/runs/paper.yaml each time, so that a key that is added there is exercised here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from coderl.config import load_run, read_yaml

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT / "tests" / "unit"))
from model_stages import codet5, codet5_tokenizer  # noqa: E402

pytestmark = pytest.mark.slow

SOURCES = {"apps": "apps/apps_train_sample.jsonl", "mbpp": "mbpp/mbpp.jsonl", "humaneval": "humaneval/HumanEval.jsonl.gz"}
DIVISOR = 1000
LEAST: dict[str, int] = {"samples_per_problem": 2, "batch": 2, "steps": 2, "batch_size": 2, "shards": 1, "size": 5}
"""The smallest that a size may become: one program is no batch for critical sampling, and one step says nothing of the next."""
MOST_STEPS = 4
"""A CPU core takes seconds per step in this shape."""


def scaled(value: Any, model: str, key: str = "") -> Any:
    """A section of the run with every size divided, benchmarks read from the sample at hand, and `model` for models of the hub."""
    if isinstance(value, dict):
        section = {name: scaled(each, model, name) for name, each in value.items()}
        if "benchmark" in section:
            section |= {"source": str(DATA / SOURCES[section["benchmark"]]), "size": LEAST["size"]}
        if "steps" in section:
            section |= {"warmup_steps": 0, "micro_batch_size": 1, "log_every": 1}
        return section
    if key in ("pass_at", "n_at"):  # pairs or numbers of programs
        small = [max(1, each // DIVISOR) if isinstance(each, int) else [1, LEAST["samples_per_problem"]] for each in value]
        return [each for number, each in enumerate(small) if each not in small[:number]]
    if isinstance(value, list):
        return [scaled(each, model) for each in value]
    if key in LEAST:
        found = max(LEAST[key], value // DIVISOR)
        return min(found, MOST_STEPS) if key == "steps" else found
    return model if key == "base_model" else value


def test_a_thousandth_of_the_paper_run_ends_in_its_table(tmp_path: Path) -> None:
    if not DATA.exists():
        pytest.skip("the benchmarks are not beside the checkout")
    for name in ("config", "workflow", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "Snakefile", tmp_path)
    torch.manual_seed(0)
    codet5(layers=6, d_model=512, d_ff=2048, heads=8).save_pretrained(tmp_path / "codet5")
    codet5_tokenizer().save_pretrained(tmp_path / "codet5")

    run = scaled(read_yaml(ROOT / "config/runs/paper.yaml"), "codet5")
    run["warm_start"]["base_model"] = "codet5"
    for name in ("warm_start", "sample", "train_critic", "rl_finetune", "train_repair"):
        run[name]["lengths"] = {"max_source_tokens": 128, "max_target_tokens": 32}
    (tmp_path / "config/runs/paper1000.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    paper, small = load_run(ROOT / "config/runs/paper.yaml"), load_run(tmp_path / "config/runs/paper1000.yaml")
    assert small.rl_finetune.variants.keys() == paper.rl_finetune.variants.keys()
    assert small.run_tests.checker == paper.run_tests.checker

    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--show-failed-logs", "--config", "runs=[paper1000]", "--", "all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    table = pd.read_csv(tmp_path / "results/paper1000/apps_eval.csv")
    rows = table[(table["metric"] == "pass@1") & (table["difficulty"] == "all")].set_index("model")["value"]
    assert {"warm_start", "critical_sampling", *(f"rl_finetune/{name}" for name in paper.evaluate.policies)} <= set(rows.index)
    assert rows["empty_program"] == 0.0
    assert rows["reference_solutions"] > 50.0
    assert not rows.isna().any()
