"""Write the tables of docs/results.md from results/mini/tables, between their markers; the conclusions around them are written by hand.

`make ablations` makes the tables and calls this. The check does nothing for a table that is not here: results are not in the repository.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from coderl.evaluation.seed_tables import as_markdown, read_seed_table

PAGE = Path("docs/results.md")
TABLES = Path("results/mini/tables")
PICTURE = Path("docs/figure8.svg")
VALUES = "per_problem.parquet"
UNKNOWN = "a commit that is not known"
BLOCK = re.compile(r"(<!-- begin (\w+) -->\n)(.*?)(<!-- end \2 -->)", re.DOTALL)


def record(output: Path) -> dict[str, Any]:
    """The record of provenance beside a file; empty where there is none."""
    path = output.with_name(f"{output.name}.provenance.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def commit(made: dict[str, Any]) -> str:
    """Of the code that wrote a record."""
    return f"commit {made['commit'][:12]}{'-dirty' if made['dirty'] else ''}" if made.get("commit") else UNKNOWN


def block(name: str) -> str | None:
    """What stands between the markers of a table; None where it has not been made here."""
    table = TABLES / f"{name}.csv"
    if not table.exists():
        return None
    rows = read_seed_table(table)
    made = record(table)
    evaluated = {run: dict.fromkeys([UNKNOWN]) for row in rows for run in row["runs"].split()}
    for each in made.get("inputs", []):
        values = Path(each.get("path", ""))
        if values.name.endswith(VALUES):
            # An evaluation's record is beside the first file that it wrote.
            sheet = values.with_name(f"{values.name.removesuffix(VALUES) or 'apps_'}eval.csv")
            evaluated.setdefault(sheet.parent.name, {}).pop(UNKNOWN, None)
            evaluated[sheet.parent.name][commit(record(sheet))] = None
    by: dict[str, list[str]] = {}
    for run, commits in evaluated.items():
        by.setdefault(" and ".join(commits), []).append(run)
    runs = "; ".join(f"{', '.join(names)} (evaluated by {commits})" for commits, names in by.items())
    picture = f"![Shares of the four outcomes before and after RL, on example and on hidden tests]({PICTURE.name})\n\n"
    return f"{picture if name == PICTURE.stem else ''}{as_markdown(rows)}\nRuns: {runs}. Table made by {commit(made)}.\n"


def page(text: str) -> str:
    """The page with every table that is here; the others stay as they are."""

    def filled(found: re.Match[str]) -> str:
        content = block(found[2])
        return found[0] if content is None else f"{found[1]}{content}{found[4]}"

    return BLOCK.sub(filled, text)


def main() -> None:
    """Write the page, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the page has drifted from the tables that are here")
    arguments = parser.parse_args()
    present = PAGE.read_text(encoding="utf-8")
    text = page(present)
    if not arguments.check:
        PAGE.write_text(text, encoding="utf-8")
        if (TABLES / PICTURE.name).exists():
            shutil.copyfile(TABLES / PICTURE.name, PICTURE)
    elif present != text:
        sys.stdout.writelines(difflib.unified_diff(present.splitlines(True), text.splitlines(True), str(PAGE), "from the tables"))
        raise SystemExit(
            f"error: {PAGE} has drifted from {TABLES}; run `python workflow/scripts/results_page.py`, and read its conclusions again"
        )


if __name__ == "__main__":
    main()
