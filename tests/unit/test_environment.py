"""pyproject.toml, constraints.txt, environment.yml and Makefile say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
CONSTRAINTS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def extras_in(text: str) -> set[str]:
    found = re.search(r"-e '?\.\[([a-z,]+)\]", text)
    assert found, text
    return set(found.group(1).split(","))


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)])
def test_every_dependency_is_pinned_within_its_range(line: str) -> None:
    wanted = Requirement(line)
    pins = [pin for pin in CONSTRAINTS if normal(pin.name) == normal(wanted.name)]
    assert pins, f"{wanted.name} is missing in constraints.txt; run `make constraints`"
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert wanted.specifier.contains(Version(specifier.version))


def test_constraints_name_versions_only() -> None:
    assert all(pin.url is None for pin in CONSTRAINTS)
    assert not re.search(r"https?:|file:|--(find-links|index|extra)", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert "torch==2.13.0" in [f"{pin.name}{pin.specifier}" for pin in CONSTRAINTS], "+cpu builds of this version satisfy it"


def test_conda_users_get_what_make_install_gives() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert conda == ["python =3.11", "pip"]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains("3.11")
    constraint, package = pip["pip"]
    assert constraint == "-c constraints.txt"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-c constraints.txt -e" in makefile
    assert extras_in(package) == extras_in(makefile)
    assert extras_in(package) <= set(EXTRAS)


def test_every_command_of_make_check_is_installed_by_make_install() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    tools = set(re.findall(r"\$\(BIN\)/([a-z-]+)", makefile)) - {"python", "coderl"}
    packages = {"lint-imports": "import-linter"}
    wanted = {packages.get(tool, tool) for tool in tools}
    installed = {normal(Requirement(line).name) for name in extras_in(makefile) for line in EXTRAS[name]}
    assert wanted <= installed
    assert {"ruff", "mypy", "snakefmt", "snakemake", "pytest", "codespell"} <= wanted


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert script.splitlines()[-1] == "make test"
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    assert re.search(r"^make test\b", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
