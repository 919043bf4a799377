"""Evaluation: pass@k and n@k with intervals, every decoding beside its equal budget, and the tables on disk and in the terminal."""

from coderl.evaluation.estimators import bootstrap_intervals, bootstrap_over_seeds, n_at_k, pass_at_k
from coderl.evaluation.programs import ProgramFiles, Programs, parse_program_files, read_programs, row_name
from coderl.evaluation.show import show
from coderl.evaluation.stage import config_of_set, evaluate
from coderl.evaluation.tables import collect, collect_differences, read_table

__all__ = [
    "ProgramFiles",
    "Programs",
    "bootstrap_intervals",
    "bootstrap_over_seeds",
    "collect",
    "collect_differences",
    "config_of_set",
    "evaluate",
    "n_at_k",
    "parse_program_files",
    "pass_at_k",
    "read_programs",
    "read_table",
    "row_name",
    "show",
]
