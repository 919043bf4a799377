"""The stage `report`: one self-contained HTML page per run, with its table, curves and programs one can look at."""

from coderl.report.stage import report

__all__ = ["report"]
