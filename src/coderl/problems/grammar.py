"""The words of the procedural benchmark: operations on lists of integers, each with its meaning, phrasings and code.

Transforms turn a list into a list; outputs turn the last list into what is printed or returned. Every operation has the
same number of phrasings (`ProceduralConfig.phrasings` takes the first so many of them) and two ways to be written in
Python. The set is the one with which a small model was shown to learn (docs/log.md); a larger first grammar was not.

In the texts, `{v}` is the name of the list, `{c}` the constant, `{verb}` Print or Return.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

CONSTANTS = range(2, 10)
"""Values that the constant of an operation can take."""

PHRASINGS = 3
"""Phrasings that every operation has."""

VARIABLES: tuple[str, ...] = ("a", "nums")
READ_LINES: tuple[str, ...] = ("{v} = list(map(int, input().split()))", "{v} = [int(x) for x in input().split()]")
STDIN_INTROS: tuple[str, ...] = ("Read a list of integers.", "Read a sequence of numbers.", "You are given integers on one line.")
CALL_INTROS: tuple[str, ...] = (
    "Write a function that takes a list of integers.",
    "Define a function of a sequence of numbers.",
    "You are given integers as an argument.",
)
CONNECTIVES: tuple[str, ...] = ("Then", "Next,", "After that,")


@dataclass(frozen=True)
class Transform:
    """List to list. `code` holds two variants, each a tuple of lines; the constant is ignored where `constant` is False."""

    name: str
    apply: Callable[[list[int], int], list[int]]
    phrases: tuple[str, str, str]
    code: tuple[tuple[str, ...], tuple[str, ...]]
    constant: bool = False


@dataclass(frozen=True)
class Output:
    """Last list to the answer. `expressions` are two variants; `printed` replaces them where a list is printed."""

    name: str
    apply: Callable[[list[int]], list[int] | int]
    phrases: tuple[str, str, str]
    expressions: tuple[str, str]
    printed: tuple[str, str] | None = None


def _each(expression: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (f"{{v}} = [{expression} for x in {{v}}]",), (f"{{v}} = list(map(lambda x: {expression}, {{v}}))",)


def _keep(condition: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (f"{{v}} = [x for x in {{v}} if {condition}]",), (f"{{v}} = list(filter(lambda x: {condition}, {{v}}))",)


TRANSFORMS: dict[str, Transform] = {
    transform.name: transform
    for transform in (
        Transform(
            "even",
            lambda a, c: [x for x in a if x % 2 == 0],
            ("keep only the even numbers", "remove all odd numbers", "discard every value that is not divisible by two"),
            _keep("x % 2 == 0"),
        ),
        Transform(
            "pos",
            lambda a, c: [x for x in a if x > 0],
            ("keep only the positive numbers", "remove everything that is zero or negative", "discard every value that is not positive"),
            _keep("x > 0"),
        ),
        Transform(
            "gt",
            lambda a, c: [x for x in a if x > c],
            (
                "keep only the numbers greater than {c}",
                "remove everything that is at most {c}",
                "discard every value that does not exceed {c}",
            ),
            _keep("x > {c}"),
            constant=True,
        ),
        Transform(
            "mul",
            lambda a, c: [x * c for x in a],
            ("multiply every number by {c}", "scale each element by a factor of {c}", "replace all values by {c} times their value"),
            _each("x * {c}"),
            constant=True,
        ),
        Transform(
            "add",
            lambda a, c: [x + c for x in a],
            ("add {c} to every number", "increase each element by {c}", "raise all values by {c}"),
            _each("x + {c}"),
            constant=True,
        ),
        Transform(
            "mod",
            lambda a, c: [x % c for x in a],
            ("take every number modulo {c}", "replace each element by its remainder after division by {c}", "reduce all values modulo {c}"),
            _each("x % {c}"),
            constant=True,
        ),
        Transform(
            "square",
            lambda a, c: [x * x for x in a],
            ("square every number", "multiply each element by itself", "raise all values to the second power"),
            (("{v} = [x * x for x in {v}]",), ("{v} = [x ** 2 for x in {v}]",)),
        ),
        Transform(
            "negate",
            lambda a, c: [-x for x in a],
            ("negate every number", "flip the sign of each element", "replace all values by their opposites"),
            _each("-x"),
        ),
        Transform(
            "abs",
            lambda a, c: [abs(x) for x in a],
            ("take the absolute value of every number", "drop the sign of each element", "replace all values by their magnitudes"),
            (("{v} = [abs(x) for x in {v}]",), ("{v} = list(map(abs, {v}))",)),
        ),
        Transform(
            "reverse",
            lambda a, c: a[::-1],
            ("reverse the list", "write the sequence backwards", "put the values in the opposite order"),
            (("{v} = {v}[::-1]",), ("{v}.reverse()",)),
        ),
        Transform(
            "asc",
            lambda a, c: sorted(a),
            ("sort the list in ascending order", "arrange the elements from smallest to largest", "put the values in increasing order"),
            (("{v} = sorted({v})",), ("{v}.sort()",)),
        ),
        Transform(
            "desc",
            lambda a, c: sorted(a, reverse=True),
            ("sort the list in descending order", "arrange the elements from largest to smallest", "put the values in decreasing order"),
            (("{v} = sorted({v}, reverse=True)",), ("{v}.sort(reverse=True)",)),
        ),
        Transform(
            "unique",
            lambda a, c: list(dict.fromkeys(a)),
            (
                "remove duplicates, keeping first occurrences",
                "keep each value only the first time it appears",
                "discard every repeated value",
            ),
            (("{v} = list(dict.fromkeys({v}))",), ("{v} = [x for i, x in enumerate({v}) if x not in {v}[:i]]",)),
        ),
        Transform(
            "drop_first",
            lambda a, c: a[1:],
            ("drop the first element", "remove the number at the beginning", "discard the leading value"),
            (("{v} = {v}[1:]",), ("{v}.pop(0)",)),
        ),
        Transform(
            "drop_last",
            lambda a, c: a[:-1],
            ("drop the last element", "remove the number at the end", "discard the final value"),
            (("{v} = {v}[:-1]",), ("{v}.pop()",)),
        ),
        Transform(
            "prefix_sums",
            lambda a, c: list(accumulate(a)),
            ("replace the list by its prefix sums", "replace each element by the running total", "turn the values into cumulative sums"),
            (("{v} = [sum({v}[:i + 1]) for i in range(len({v}))]",), ("for i in range(1, len({v})):", "    {v}[i] += {v}[i - 1]")),
        ),
    )
}
"""The 16 transforms by name."""

OUTPUTS: dict[str, Output] = {
    output.name: output
    for output in (
        Output(
            "list",
            lambda a: a,
            ("{verb} the resulting list", "{verb} the final sequence", "{verb} all values that are left"),
            ("{v}", "list({v})"),
            printed=("print(*{v})", 'print(" ".join(map(str, {v})))'),
        ),
        Output(
            "sum",
            lambda a: sum(a),
            ("{verb} the sum of the numbers", "{verb} the total of all elements", "{verb} what the values add up to"),
            ("sum({v})", "sum(x for x in {v})"),
        ),
        Output(
            "max",
            lambda a: max(a),
            ("{verb} the largest number", "{verb} the maximum", "{verb} the greatest value"),
            ("max({v})", "sorted({v})[-1]"),
        ),
        Output(
            "min",
            lambda a: min(a),
            ("{verb} the smallest number", "{verb} the minimum", "{verb} the least value"),
            ("min({v})", "sorted({v})[0]"),
        ),
        Output(
            "len",
            lambda a: len(a),
            ("{verb} how many numbers there are", "{verb} the count of elements", "{verb} the number of values"),
            ("len({v})", "sum(1 for x in {v})"),
        ),
        Output(
            "last",
            lambda a: a[-1],
            ("{verb} the last number", "{verb} the element at the end", "{verb} the final value"),
            ("{v}[-1]", "{v}[len({v}) - 1]"),
        ),
    )
}
"""The 6 output operations by name."""
