"""The second name of an output: what an engine deletes is still there, as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_workflow import copy_workflow

from coderl.records import atomic_path, keep


def write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def test_an_output_has_a_second_name_without_space_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("results/table.csv"), "1")
    assert not Path("work").exists(), "nobody has asked for it"
    monkeypatch.setenv("CODERL_KEEP", "work/keep")
    for text in ("2", "3"):
        write(Path("results/table.csv"), text)
        Path("results/model").mkdir(exist_ok=True)
        write(Path("results/model/weights"), text)
        keep(Path("results/model"))
        assert Path("work/keep/results/table.csv").samefile("results/table.csv")
        assert Path("work/keep/results/model/weights").samefile("results/model/weights")
    write(Path("work/mini/sample/0.jsonl"), "")
    write(tmp_path / "elsewhere.csv", "")
    shutil.rmtree("results")
    kept = sorted(path.relative_to("work/keep").as_posix() for path in Path("work/keep").rglob("*") if path.is_file())
    assert kept == ["results/model/weights", "results/table.csv"]
    assert Path("work/keep/results/table.csv").read_text() == "3"


def test_without_links_it_is_a_copy_with_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODERL_KEEP", "work/keep")
    monkeypatch.setattr(os, "link", no_links)
    write(Path("results/table.csv"), "1")
    assert Path("work/keep/results/table.csv").read_text() == "1"
    assert Path("work/keep/results/table.csv").stat().st_mtime_ns == Path("results/table.csv").stat().st_mtime_ns


def test_for_dvc_alone_the_workflow_puts_back_the_outputs_of_the_stage(tmp_path: Path) -> None:
    copy = copy_workflow(tmp_path)
    model, table = "results/mini/models/actor", "results/mini/values/train.parquet"
    stages = {"warm_start-mini": {"outs": [model, f"{model}.sha256"]}, "score-mini": {"outs": [table]}}
    (copy / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    for name in (f"{model}/weights", f"{model}.sha256", table, f"{model}/.weights.1.partial"):
        (copy / "work/keep" / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / "work/keep" / name).write_text(name)
    os.utime(copy / "work/keep" / model, (1000, 1000))

    def plan(**environment: str) -> set[str]:
        kept = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
        command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--config", "runs=[mini]", "--", model]
        subprocess.run(command, cwd=copy, env={**kept, **environment}, capture_output=True, check=True)
        return {path.relative_to(copy).as_posix() for path in (copy / "results").rglob("*") if path.is_file()}

    assert plan() == set(), "who deletes a result and calls snakemake wants it made again"
    assert plan(DVC_STAGE="warm_start-mini") == {f"{model}/weights", f"{model}.sha256"}
    assert (copy / model).stat().st_mtime == 1000
