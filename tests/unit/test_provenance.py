"""Provenance: hashes that say what they should, the commit of the code, and the source files of each stage."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grimp
import pytest

from coderl.config import STAGES, ProceduralConfig, load_run
from coderl.provenance import RUN_ELSEWHERE, code_files, commit, commit_label, config_hash, provenance, run_hash, versions

ROOT = Path(__file__).parents[2]
MINI = load_run(ROOT / "config/runs/mini.yaml")

ENTRY = {
    "problems": "coderl.problems.sets",
    "corpus": "coderl.corpus",
    "pretrain": "coderl.pretraining",
    "warm_start": "coderl.warm_start",
    "sample": "coderl.sampling",
    "run_tests": "coderl.sandbox.stage",
    "train_critic": "coderl.critic",
    "score": "coderl.critic",
    "train_repair": "coderl.repair",
    "rl_finetune": "coderl.rl",
    "critical_sample": "coderl.critical_sampling",
    "evaluate": "coderl.evaluation",
    "report": "coderl.report",
}


def test_a_hash_changes_with_a_value_and_not_with_its_spelling() -> None:
    assert config_hash(ProceduralConfig()) == config_hash(ProceduralConfig(phrasings=2))
    assert config_hash(ProceduralConfig()) != config_hash(ProceduralConfig(phrasings=3))
    assert len(config_hash(ProceduralConfig())) == 12


def test_runs_that_differ_in_the_seed_only_share_a_hash() -> None:
    other_seed = MINI.model_copy(update={"seed": 77, "procedural": MINI.procedural.model_copy(update={"seed": 78})})
    assert run_hash(other_seed) == run_hash(MINI)
    assert run_hash(MINI.model_copy(update={"description": "x"})) == run_hash(MINI)
    assert run_hash(MINI.model_copy(update={"procedural": MINI.procedural.model_copy(update={"phrasings": 1})})) != run_hash(MINI)
    assert run_hash(MINI.model_copy(update={"pretrain": None})) != run_hash(MINI)


def test_a_base_model_of_another_run_counts_by_the_hash_of_that_run(tmp_path: Path) -> None:
    """So that runs which each start from the base model of their seed are pooled."""

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")

    def found(base: str) -> str:
        config = MINI.model_copy(update={"warm_start": MINI.warm_start.model_copy(update={"base_model": base})})
        return run_hash(config, tmp_path)

    smoke = (ROOT / "config/runs/smoke.yaml").read_text(encoding="utf-8")
    write("mini", (ROOT / "config/runs/mini.yaml").read_text(encoding="utf-8"))
    write("smoke", smoke)
    write("two", "extends: mini\nseed: 2\nprocedural: {seed: 2}\n")
    write("circle", "extends: mini\nwarm_start: {base_model: results/round/models/actor}\n")
    write("round", "extends: mini\nwarm_start: {base_model: results/circle/models/actor}\n")
    assert found("results/mini/models/base") == found("results/two/models/base")
    assert found("results/mini/models/base") != found("results/two/models/actor")
    assert found("results/mini/models/base") != found("results/smoke/models/base")
    assert found("results/gone/models/base") != found("results/lost/models/base"), "without its file, by its name"
    assert found("results/circle/models/actor")
    seeds = [load_run(ROOT / f"config/runs/mini-ablations{seed}.yaml") for seed in ("", "-seed2", "-seed3")]
    assert len({run_hash(each, ROOT / "config/runs") for each in seeds}) == 1


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_commit_and_dirty_are_those_of_the_code(tmp_path: Path) -> None:
    code = tmp_path / "package"
    code.mkdir()
    assert commit(code) == (None, False)
    assert commit_label(code) == ""
    (code / "a.py").write_text("1")
    git(tmp_path, "init", "-q")
    assert commit(code) == (None, False), "no commit yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit(code) == (head, False)
    (tmp_path / "elsewhere.txt").write_text("not code")
    assert commit(code) == (head, False)
    (code / "b.py").write_text("2")
    assert commit(code) == (head, True)
    assert commit_label(code) == head[:12] + "-dirty"
    installed = tmp_path / "venv"
    installed.mkdir()
    assert commit(installed) == (None, False), "a folder that the repository does not track has no commit"


def test_provenance_names_what_can_move_a_number() -> None:
    made = provenance(seed=3)
    assert made["seed"] == 3
    assert made["versions"]["numpy"]
    assert set(made) == {"commit", "dirty", "seed", "coderl", "python", "platform", "versions"}
    assert "no-such-package" not in versions(["no-such-package"])


def test_code_files_follow_imports_wherever_they_stand(tmp_path: Path) -> None:
    files = {
        "cli.py": "import os\ndef stage():\n    from coderl.entry import run\n    run()\ndef help_only():\n    import os\n",
        "__init__.py": "",
        "entry.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from coderl import typed\n"
        "def run():\n    from coderl.deep.inner import value\n",
        "typed.py": "",
        "deep/__init__.py": "from . import beside\n",
        "deep/beside.py": "import coderl.last\n",
        "deep/inner.py": "value = 1\n",
        "deep/style.css": "",
        "last.py": "",
        "unused.py": "from coderl import entry\n",
    }
    for name, text in files.items():
        path = tmp_path / "coderl" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    found = [path.relative_to(tmp_path / "coderl").as_posix() for path in code_files("stage", tmp_path)]
    assert found == ["__init__.py", "deep/__init__.py", "deep/beside.py", "deep/inner.py", "deep/style.css", "entry.py", "last.py"]
    with pytest.raises(ValueError, match="no function 'other'"):
        code_files("other", tmp_path)
    with pytest.raises(ValueError, match="imports nothing of coderl"):
        code_files("help_only", tmp_path)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("coderl", exclude_type_checking_imports=True, cache_dir=None)


@pytest.mark.parametrize("stage", STAGES)
def test_code_files_agree_with_the_import_graph(stage: str, graph: grimp.ImportGraph) -> None:
    """The graph is made by another library, from the entry modules listed above."""
    module = ENTRY[stage]
    wanted = {module, *graph.find_upstream_modules(module)}
    listed = {path.relative_to(ROOT / "src").as_posix() for path in code_files(stage, ROOT / "src")}
    for name in wanted:
        base = name.replace(".", "/")
        assert {f"{base}.py", f"{base}/__init__.py"} & listed, f"{stage} imports {name}"
    assert "coderl/cli.py" not in listed
    # Nothing beyond: a file is imported, or is data or code of another interpreter that lies in an imported package; provenance
    # and problem rows come with what the verb itself imports.
    own = {"coderl.config", "coderl.provenance", "coderl.evaluation"}
    allowed = wanted | own | {upstream for name in own for upstream in graph.find_upstream_modules(name)}
    for path in listed:
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        elsewhere = any(name.startswith(package) and package.rpartition(".")[0] in allowed for package in RUN_ELSEWHERE)
        assert name in allowed or elsewhere or not path.endswith(".py") or path.endswith("__init__.py"), f"{stage} does not import {name}"
