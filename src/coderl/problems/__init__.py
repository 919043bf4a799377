"""Problems: their one form, the benchmarks they come from, and the prompts made of them."""

from coderl.problems.problem import (
    AssertTests,
    InputOutputTests,
    Problem,
    Tests,
    problem_from_row,
    problem_to_row,
    read_problems,
    write_problems,
)

__all__ = [
    "AssertTests",
    "InputOutputTests",
    "Problem",
    "Tests",
    "problem_from_row",
    "problem_to_row",
    "read_problems",
    "write_problems",
]
