"""Verb `figure`: figure 8 as a picture that stands alone, in light and dark."""

from __future__ import annotations

import json
import re
from pathlib import Path

from coderl.config import DIFFICULTIES
from coderl.evaluation.seed_tables import read_seed_table
from coderl.records import OUTCOMES, DataError, atomic_path
from coderl.report.charts import stacked

STYLE = Path(__file__).with_name("style.css")


def draw(*, table: Path, output: Path) -> None:
    """Write an SVG with one panel for example tests and one for hidden tests; per level a bar before and one after RL.

    Raises:
        DataError: the table is not figure 8's.
    """
    rows = read_seed_table(table)
    if {row["table"] for row in rows} != {"figure8"}:
        raise DataError(f"{table}: is no figure8.csv; make it with `coderl tables --table figure8`")
    panels: dict[str, dict[str, list[float]]] = {}
    shares = {(row["labels"], row["difficulty"], row["metric"]): float(row["value"] or 0) for row in rows}
    levels = [level for level in (*DIFFICULTIES, "all") if any(row["difficulty"] == level for row in rows)]
    for labels in dict.fromkeys(row["labels"] for row in rows):
        suite, when = json.loads(labels)
        for level in levels:
            panels.setdefault(f"{suite} tests", {})[f"{level}, {when}"] = [shares[labels, level, name] for name in OUTCOMES]
    ordered = {
        title: {bar: bars[bar] for level in levels for bar in bars if bar.startswith(f"{level}, ")} for title, bars in panels.items()
    }
    svg = stacked(ordered, [name.replace("_", " ") for name in OUTCOMES], "Outcomes before and after RL", "figure8")
    # The page's colours, which a picture alone has to bring along.
    variables = "".join(
        re.findall(r"^(?::root \{.*?^\}|@media \(prefers-color-scheme: dark\) \{.*?^\})", STYLE.read_text(), re.DOTALL | re.MULTILINE)
    )
    style = f"<style>{variables} svg {{ background: var(--paper); }}</style>"
    svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) if "xmlns=" not in svg.partition(">")[0] else svg
    head, mark, rest = svg.partition(">")
    with atomic_path(output) as temporary:
        temporary.write_text(f"{head}{mark}{style}{rest}\n", encoding="utf-8")
