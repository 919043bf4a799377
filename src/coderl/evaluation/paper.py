"""The paper's numbers, in percent: facts from spec section 8, for the rows of our table that mean the same.

A value stands beside ours only on the benchmark it was measured on. How the paper decoded differs from row to row
(its tables 2 and 3 use beam search), so each value carries its source.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LEVELS: tuple[str, ...] = ("introductory", "interview", "competition", "all")


@dataclass(frozen=True)
class PaperValue:
    """One number of the paper with where it stands."""

    benchmark: str
    model: str
    decoding: str
    metric: str
    difficulty: str
    value: float
    source: str


_BEAM = "beam search"
# (model, decoding, metric) -> (introductory/interview/competition/all, source); CodeT5 770M on APPS.
_APPS: dict[tuple[str, str, str], tuple[str, str]] = {
    ("warm_start", "all", "pass@1"): ("6.60/1.03/0.30/2.00", f"Table 3, {_BEAM}"),
    ("warm_start", "all", "pass@5"): ("8.80/1.67/0.70/2.90", f"Table 3, {_BEAM}"),
    ("rl_finetune/ce", "all", "pass@1"): ("4.60/0.93/0.10/1.50", f"Table 3, CE, {_BEAM}"),
    ("rl_finetune/ce", "all", "pass@5"): ("7.00/1.37/0.20/2.26", f"Table 3, CE, {_BEAM}"),
    ("rl_finetune/ce_on_samples", "all", "pass@1"): ("5.10/1.10/0.40/1.76", f"Table 3, CE with samples as correct, {_BEAM}"),
    ("rl_finetune/ce_on_samples", "all", "pass@5"): ("8.30/1.43/0.70/2.66", f"Table 3, CE with samples as correct, {_BEAM}"),
    ("rl_finetune/rl_only", "all", "pass@1"): ("5.00/0.90/0.50/1.64", f"Table 3, RL only, {_BEAM}"),
    ("rl_finetune/rl_only", "all", "pass@5"): ("7.60/1.53/0.60/2.56", f"Table 3, RL only, {_BEAM}"),
    ("rl_finetune/no_values", "all", "pass@1"): ("4.60/1.10/0.20/1.62", f"Table 2 A, {_BEAM}"),
    ("rl_finetune/no_values", "all", "pass@5"): ("7.10/1.57/0.40/2.44", f"Table 2 A, {_BEAM}"),
    ("rl_finetune/no_baseline", "all", "pass@1"): ("4.00/0.87/0.20/1.36", f"Table 2 B, {_BEAM}"),
    ("rl_finetune/no_baseline", "all", "pass@5"): ("5.60/1.30/0.20/1.94", f"Table 2 B, {_BEAM}"),
    ("rl_finetune/distance", "all", "pass@1"): ("4.90/1.03/0.20/1.64", f"Table 2 C, {_BEAM}"),
    ("rl_finetune/distance", "all", "pass@5"): ("7.80/1.60/0.30/2.58", f"Table 2 C, {_BEAM}"),
    ("rl_finetune/rl", "all", "pass@1"): ("6.20/1.50/0.30/2.20", f"Table 2 D, {_BEAM}"),
    ("rl_finetune/rl", "all", "pass@5"): ("9.39/1.90/0.42/3.10", f"Table 2 D, {_BEAM}"),
    ("rl_finetune/rl", "all", "pass@200"): ("26.79/8.73/7.60/12.12", "Table 4, no critic sampling"),
    ("rl_finetune/rl", "all", "pass@1000"): ("35.30/13.33/13.60/17.78", "Table 4, no critic sampling"),
    ("rl_finetune/rl", "filtered", "1@1000"): ("16.27/6.00/4.27/7.71", "Table 4, no critic sampling"),
    ("critical_sampling", "final_set", "pass@1"): ("7.08/1.86/0.75/2.69", "Table 1a"),
    ("critical_sampling", "final_set", "pass@5"): ("16.37/4.95/2.84/6.81", "Table 1a"),
    ("critical_sampling", "final_set", "pass@200"): ("29.80/10.43/10.80/14.38", "Table 4, M=1"),
    ("critical_sampling", "final_set", "pass@1000"): ("40.00/15.67/17.90/20.98", "Table 4, M=1"),
    ("critical_sampling", "filtered", "1@1000"): ("17.17/6.78/4.88/8.48", "Table 4, M=1"),
    ("critical_sampling", "filtered", "5@1000"): ("25.61/9.53/8.91/12.62", "Table 1b"),
    ("warm_start", "all", "example_compile_error"): ("3.2/4.2/5.8/4.3", "Fig. 8"),
    ("warm_start", "all", "example_runtime_error"): ("26.2/29.9/38.7/30.7", "Fig. 8"),
    ("warm_start", "all", "example_failed_test"): ("57.2/61.3/52.6/58.9", "Fig. 8"),
    ("warm_start", "all", "example_passed_test"): ("12.7/3.8/2.5/5.3", "Fig. 8"),
    ("warm_start", "all", "hidden_compile_error"): ("3.5/4.5/5.9/4.5", "Fig. 8"),
    ("warm_start", "all", "hidden_runtime_error"): ("27.0/30.2/38.5/31.1", "Fig. 8"),
    ("warm_start", "all", "hidden_failed_test"): ("64.1/64.1/55.1/62.0", "Fig. 8"),
    ("warm_start", "all", "hidden_passed_test"): ("4.9/0.9/0.1/1.5", "Fig. 8"),
    ("rl_finetune/rl", "all", "example_compile_error"): ("3.4/2.7/3.1/2.9", "Fig. 8"),
    ("rl_finetune/rl", "all", "example_runtime_error"): ("26.2/33.0/41.8/33.3", "Fig. 8"),
    ("rl_finetune/rl", "all", "example_failed_test"): ("46.7/53.0/45.7/50.6", "Fig. 8"),
    ("rl_finetune/rl", "all", "example_passed_test"): ("23.5/10.8/9.2/13.0", "Fig. 8"),
    ("rl_finetune/rl", "all", "hidden_compile_error"): ("3.7/2.9/3.1/3.1", "Fig. 8"),
    ("rl_finetune/rl", "all", "hidden_runtime_error"): ("27.4/33.5/42.5/34.0", "Fig. 8"),
    ("rl_finetune/rl", "all", "hidden_failed_test"): ("60.6/60.6/53.3/59.2", "Fig. 8"),
    ("rl_finetune/rl", "all", "hidden_passed_test"): ("7.6/2.1/0.7/3.0", "Fig. 8"),
}
# MBPP, zero-shot from APPS (spec 8.8); one level only.
_MBPP: dict[tuple[str, str, str], float] = {
    ("warm_start", "all", "pass@80"): 60.2,
    ("warm_start", "all", "pass@1000"): 78.4,
    ("rl_finetune/rl", "all", "pass@80"): 63.0,
    ("rl_finetune/rl", "all", "pass@1000"): 81.8,
}


def paper_values() -> Iterator[PaperValue]:
    """All values, in the order of the spec's tables."""
    for (model, decoding, metric), (values, source) in _APPS.items():
        for difficulty, value in zip(LEVELS, values.split("/"), strict=True):
            yield PaperValue("apps", model, decoding, metric, difficulty, float(value), source)
    for (model, decoding, metric), number in _MBPP.items():
        yield PaperValue("mbpp", model, decoding, metric, "all", number, "spec 8.8, zero-shot")


def paper_value(benchmark: str, model: str, decoding: str, metric: str, difficulty: str) -> PaperValue | None:
    """The paper's value for one cell of our table, None where the paper has none."""
    return _INDEX.get((benchmark, model, decoding, metric, difficulty))


_INDEX = {(v.benchmark, v.model, v.decoding, v.metric, v.difficulty): v for v in paper_values()}
