"""The shape of the package: imports point down, torch stays where it is, and nothing is a grab bag."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        (None, "", ""),
        ("records.py", "import torch", "Torch and transformers"),
        ("records.py", "from coderl import evaluation", "Imports point down"),
        ("evaluation/paper.py", "def late():\n    import transformers", "Torch and transformers"),
        ("rl.py", "import snakemake", "The package knows no workflow engine"),
    ],
)
def test_imports_keep_their_contract(tmp_path: Path, file: str | None, line: str, broken: str) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    if file is not None:
        with open(tmp_path / "src" / "coderl" / file, "a", encoding="utf-8") as out:
            out.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert (done.returncode == 0) == (file is None), done.stdout
    if file is not None:
        assert any(broken in each and "BROKEN" in each for each in done.stdout.splitlines()), done.stdout


def test_importing_the_package_loads_nothing_big() -> None:
    code = "import sys, coderl; print([name for name in ('torch', 'transformers', 'pandas', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_module_says_what_it_is_and_none_is_a_grab_bag() -> None:
    for path in (ROOT / "src" / "coderl").rglob("*.py"):
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
        assert path.read_text(encoding="utf-8").startswith('"""'), f"{path}: the first line says what the module is"
