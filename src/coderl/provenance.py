"""Where a result comes from: the commit, the configuration, the packages, and the source files that decide it."""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from coderl.config import RunConfig, load_run, section_json

PACKAGES: tuple[str, ...] = ("numpy", "pandas", "pyarrow", "scipy", "tokenizers", "torch", "transformers")
"""Packages whose version can move a number; read from their metadata, so that none of them is imported."""


def config_hash(config: BaseModel) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a section's JSON."""
    return _text_hash(section_json(config))


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


RUN_FILES = Path("config/runs")
"""Where the run that a base model belongs to is looked up, in the working directory."""


def run_hash(config: RunConfig, runs: Path = RUN_FILES) -> str:
    """Like config_hash, over all that decides a run's numbers except its seeds: runs of one design share it.

    Left out: `seed`, `procedural.seed` (another draw of the same benchmark), `description`, and what computes nothing of the run's
    own: `report` and `evaluate.over_seeds`. A `base_model` of another run, results/<run>/models/<name>, counts as the run_hash of that
    run and the name, where `runs` has its file: runs that each start from the base model of their seed share the hash, too.

    Raises:
        ConfigError: the file of such a run is wrong.
    """
    return _run_hash(config, runs, ())


def _run_hash(config: RunConfig, runs: Path, behind: tuple[str, ...]) -> str:
    """`behind`: the runs whose hash is being worked out, so that runs that name one another come to an end."""

    def resolved(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: resolved(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [resolved(inner) for inner in value]
        found = re.fullmatch(r"results/([^/]+)/models/(.+)", value) if key == "base_model" and isinstance(value, str) else None
        if found is None or found[1] in behind or not (runs / f"{found[1]}.yaml").is_file():
            return value
        return f"{_run_hash(load_run(runs / f'{found[1]}.yaml'), runs, (*behind, found[1]))}/{found[2]}"

    left_out: Any = {"seed": True, "description": True, "report": True, "procedural": {"seed"}, "evaluate": {"over_seeds"}}
    decisive = resolved(config.model_dump(mode="json", exclude=left_out))
    return _text_hash(json.dumps(decisive, sort_keys=True))


def commit(folder: Path = Path(__file__).parent) -> tuple[str | None, bool]:
    """(commit, dirty) of the git repository that tracks the code in `folder`; (None, False) when none does.

    Dirty: some file of the folder differs from the commit or is not in it. Data and settings elsewhere in the repository do
    not count; the configuration has a hash of its own.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    # A virtual environment inside somebody's repository is not tracked by it.
    if head is None or not git("ls-files", "."):
        return None, False
    return head, bool(git("status", "--porcelain", "--", "."))


def commit_label(folder: Path = Path(__file__).parent) -> str:
    """For tables: 12 digits of the commit, "-dirty" after it where the code differs from it, "" outside a repository."""
    head, dirty = commit(folder)
    return "" if head is None else head[:12] + ("-dirty" if dirty else "")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Installed versions by package, without importing any; packages that are missing are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance(seed: int | None = None) -> dict[str, Any]:
    """What made a result, as far as it is the same for every verb: coderl, commit, dirty, seed, python, platform, versions.

    The rest (command, inputs, hardware, times) is in the record that lineage.py writes around every verb.
    """
    head, dirty = commit()
    return {
        "commit": head,
        "dirty": dirty,
        "seed": seed,
        "coderl": versions(["coderl"]).get("coderl"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
    }


# --------------------------------------------------------------------------------------------------- source files of a stage


RUN_ELSEWHERE: tuple[str, ...] = ("coderl.sandbox.inside",)
"""Packages that another interpreter imports, which no import statement shows: they belong to the package they lie in."""


def code_files(stage: str, source: Path) -> list[Path]:
    """The source files that decide what a stage computes: everything that its verb in cli.py imports, directly or not.

    Imports inside functions count, those under `if TYPE_CHECKING:` do not. A package's __init__ runs when one of its modules
    is imported, so it is in the list with all that it imports, and so are the package's data files. cli.py itself is not: it
    only parses flags, and the rule's command line, which the workflow records too, says which.

    Args:
        stage: name of a function in cli.py, e.g. "train_critic".
        source: folder that contains the package `coderl`.

    Returns:
        Sorted paths that start with `source`.

    Raises:
        ValueError: cli.py has no such function, or it imports nothing of the package.
    """
    for node in _parsed(source / "coderl" / "cli.py").body:
        if isinstance(node, ast.FunctionDef) and node.name == stage:
            found = _imported(node, "coderl.cli", source)
            break
    else:
        raise ValueError(f"{source / 'coderl' / 'cli.py'}: no function {stage!r}, so its source files cannot be listed")
    if not found:
        raise ValueError(f"{source / 'coderl' / 'cli.py'}: function {stage!r} imports nothing of coderl, so it is no stage")
    closed: set[str] = set()
    open_modules = set(found)
    while open_modules:
        module = open_modules.pop()
        closed.add(module)
        open_modules |= _module_imports(module, source) - closed
    files: set[Path] = set()
    for module in closed:
        path = _module_path(module, source)
        assert path is not None
        files.add(path)
        if path.name == "__init__.py":
            files.update(each for each in path.parent.iterdir() if each.is_file() and each.suffix not in (".py", ".typed", ".so"))
    for module in RUN_ELSEWHERE:
        if module.rpartition(".")[0] in closed:
            files.update(source.joinpath(*module.split(".")).glob("*.py"))
    return sorted(files)


def _module_path(module: str, source: Path) -> Path | None:
    base = source.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def _module_imports(module: str, source: Path) -> frozenset[str]:
    path = _module_path(module, source)
    assert path is not None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(_imported(_parsed(path), f"{package}.__init__", source))


def _statements(node: ast.AST) -> list[ast.AST]:
    """Those below a statement or module, and its handlers and cases. Expressions, which import nothing, are most of a tree; every start
    of Snakemake walks all of them."""
    return [each for block in ("body", "orelse", "finalbody", "handlers", "cases") for each in getattr(node, block, ())]


def _imported(tree: ast.AST, module: str, source: Path) -> set[str]:
    """Modules of the package that some import statement below `tree`, a part of `module`, runs; with their packages."""
    top = module.split(".")[0]
    names: set[str] = set()
    nodes = _statements(tree)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes.extend(node.orelse)
            continue
        nodes.extend(_statements(node))
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base] if base else parents)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    found: set[str] = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == top:
            ancestors = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
            found.update(each for each in ancestors if _module_path(each, source) is not None)
    return found
