"""The smoke run from start to end, by the real Snakemake: every rule, every model trained, the tables and the page."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def snakemake(folder: Path, *words: str, targets: tuple[str, ...] = ("all",)) -> str:
    command = [sys.executable, "-m", "snakemake", "--show-failed-logs", *words, "--config", "runs=[smoke]", "--", *targets]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout + done.stderr


def fresh(folder: Path) -> Path:
    for name in ("config", "workflow", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "Snakefile", folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fresh(tmp_path_factory.mktemp("smoke"))
    snakemake(folder, "--cores", "all")
    return folder


def test_the_table_has_every_model_between_its_bounds(finished: Path) -> None:
    table = pd.read_csv(finished / "results/apps_eval.csv")
    assert set(table["run"]) == {"smoke"}
    one = table[(table["metric"] == "pass@1") & (table["difficulty"] == "all")].drop_duplicates("model").set_index("model")["value"]
    assert one["reference_solutions"] == 100.0
    assert one["empty_program"] == 0.0
    assert {"warm_start", "rl_finetune/rl", "rl_finetune/ce", "critical_sampling", "critical_sampling/refine"} <= set(one.index)
    assert len(pd.read_csv(finished / "results/differences.csv"))
    page = (finished / "results/smoke/report.html").read_text(encoding="utf-8")
    assert "critical_sampling" in page
    assert not list((finished / "work").rglob("*.safetensors")), "checkpoints are gone when a stage has ended"


def test_further_sets_and_the_papers_tables(finished: Path) -> None:
    table = pd.read_csv(finished / "results/smoke/dev_eval.csv")
    assert set(table["problem_set"]) == {"dev"}
    assert set(table["model"]) == {"reference_solutions", "empty_program", "warm_start", "rl_finetune/ce"}
    programs = table[(table["model"] == "warm_start") & (table["metric"] == "pass@3")]["programs_per_problem"]
    assert set(programs) == {3}, "two batches of programs are as many as one"
    tables = {path.name for path in (finished / "results/smoke/tables").iterdir()}
    assert {f"table{name}.{form}" for name in ("1a", "1b", "2", "3", "4", "5") for form in ("csv", "md")} <= tables


def test_a_second_call_does_nothing(finished: Path) -> None:
    assert "Nothing to be done" in snakemake(finished, "--cores", "all")


def test_logs_begin_with_a_command_that_runs_again(finished: Path) -> None:
    log = finished / "logs/smoke/run_tests/reference/test/example/of-1/0.log"
    command = log.read_text(encoding="utf-8").splitlines()[0].removeprefix("+ ")
    output = finished / "results/smoke/outcomes/reference/test/example/of-1/0.jsonl.gz"
    before = output.stat().st_mtime_ns
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    subprocess.run(["bash", "-c", command], cwd=finished, check=True, capture_output=True, env={"PATH": path})
    assert output.stat().st_mtime_ns > before


@pytest.mark.parametrize("name", ["pretrain/base", "warm_start/actor", "train_critic/critic", "train_repair/repair", "rl_finetune/ce"])
def test_two_processes_train_the_same_model(finished: Path, tmp_path: Path, name: str) -> None:
    """Every trained stage, its own command under torchrun on two CPU processes: the weights of the one-process run."""
    words = shlex.split((finished / f"logs/smoke/{name}.log").read_text(encoding="utf-8").splitlines()[0].removeprefix("+ "))
    before = finished / words[words.index("--output") + 1]
    for flag in ("--output", "--work"):
        words[words.index(flag) + 1] = str(tmp_path / flag.strip("-"))
    path = os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
    command = ["workflow/scripts/launch.sh", "2", "1", *words]
    done = subprocess.run(command, cwd=finished, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stderr[-5000:]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["output", "output.sha256"], "one process wrote, and left nothing behind"
    weights, again = load_file(before / "model.safetensors"), load_file(tmp_path / "output/model.safetensors")
    for key, tensor in weights.items():
        torch.testing.assert_close(again[key], tensor, rtol=1e-3, atol=1e-4)
    log, log_again = pd.read_csv(before / "training_log.csv"), pd.read_csv(tmp_path / "output/training_log.csv")
    pd.testing.assert_frame_equal(log, log_again, rtol=1e-2, atol=1e-3)


def test_policies_open_as_ordinary_models(finished: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = finished / "results/smoke/models/policy/rl"
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    words = model.generate(**tokenizer("QUESTION:\nANSWER:\n", return_tensors="pt"), max_new_tokens=8)
    assert words.shape[0] == 1


def test_other_test_problems_change_no_model(finished: Path, tmp_path: Path) -> None:
    """Nothing of the test set reaches training, tuning, selection or a critic: with other test problems every weight is the same byte."""
    again = fresh(tmp_path / "again")
    run = again / "config/runs/smoke.yaml"
    text = run.read_text(encoding="utf-8").replace(
        "  test: {size: 12}\n", "  test: {size: 9, difficulty_shares: {introductory: 0.0, interview: 0.0}}\n"
    )
    run.write_text(text, encoding="utf-8")
    models = ["base", "actor", "critic", "binary_critic", "repair", "policy/rl", "policy/published", "policy/ce"]
    snakemake(
        again, "--cores", "all", targets=("results/smoke/problems/test.parquet", *(f"results/smoke/models/{name}" for name in models))
    )
    tasks = [set(pd.read_parquet(folder / "results/smoke/problems/test.parquet")["question"]) for folder in (finished, again)]
    assert not tasks[0] >= tasks[1]
    for name in models:
        weights = f"results/smoke/models/{name}/model.safetensors"
        assert (finished / weights).read_bytes() == (again / weights).read_bytes(), name


def test_the_same_seed_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    again = fresh(tmp_path / "again")
    snakemake(again, "--cores", "1")
    for name in (
        "results/apps_eval.csv",
        "results/differences.csv",
        "results/smoke/metrics.json",
        "results/smoke/models/policy/rl/model.safetensors",
    ):
        assert (finished / name).read_bytes() == (again / name).read_bytes(), name
