"""Assert statements taken apart, so that what a program computes is compared where the program is not.

`assert f(1, 2) == [3]` becomes the call `f(1, 2)`, evaluated beside the program, and the expression `_value_0 == [3]`, evaluated
elsewhere over the value that came back. Only names of the built-ins, of imported modules and of the set-up code's imports may
be left in the second part; where more is left (a name of the program in a comprehension, a `check(candidate)` call whose
assertions sit inside a function), the statement runs beside the program, guarded (docs/outcomes.md says what that covers).
"""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_MODULES = ("math", "cmath", "sys", "re", "collections", "itertools", "functools", "operator", "heapq", "string", "datetime", "random")
COMMON_IMPORTS = "import " + ", ".join(_MODULES)
_KNOWN = frozenset(dir(builtins)) | frozenset(_MODULES)
_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Split:
    """An assert statement in two parts."""

    calls: tuple[str, ...]
    """Expressions to evaluate beside the program."""
    expression: str
    """What must be true of their values `_value_0`, `_value_1`, ..."""
    expected: Any = None
    is_equality: bool = False
    """The whole expression is `_value_0 == expected`, with `expected` a literal: no evaluation needed."""


class _Extract(ast.NodeTransformer):
    """Replaces the outermost calls of unknown names by placeholders."""

    def __init__(self, known: frozenset[str], helpers: frozenset[str]) -> None:
        self.known = known
        self.helpers = helpers
        self.calls: list[str] = []
        self.failed = False

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, _SCOPES):
            names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
            bound = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
            bound |= {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
            self.failed |= bool(names - bound - self.known)
            return node
        if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
            self.failed = True
            return node
        if isinstance(node, ast.Call) and _root(node) in self.helpers:
            # The verdict of a helper of the tests is one bit, which is no proof of anything: better guarded than believed.
            self.failed = True
            return node
        is_module = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MODULES
        if isinstance(node, ast.Call) and (is_module or _root(node) not in self.known):
            self.calls.append(ast.unparse(node))
            return ast.copy_location(ast.Name(id=f"_value_{len(self.calls) - 1}", ctx=ast.Load()), node)
        if isinstance(node, ast.Name) and node.id not in self.known:
            # A variable of the program or of the set-up code: its value comes back like that of a call.
            self.calls.append(node.id)
            return ast.copy_location(ast.Name(id=f"_value_{len(self.calls) - 1}", ctx=ast.Load()), node)
        return self.generic_visit(node)


def _root(node: ast.AST) -> str | None:
    """The name that a call starts from; None if it starts from a literal, which is known."""
    while True:
        if isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        else:
            return node.id if isinstance(node, ast.Name) else "print" if isinstance(node, ast.Constant) else None


@lru_cache(maxsize=4096)
def setup_names(setup: str) -> tuple[frozenset[str], frozenset[str]]:
    """Names that the import statements of the set-up code bind, and names of the functions that it defines."""
    try:
        tree = ast.parse(setup)
    except (SyntaxError, ValueError):
        return frozenset(), frozenset()
    imported: set[str] = set()
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef):
            defined.add(node.name)
    return frozenset(imported), frozenset(defined)


def _plain_split(statement: str, test: ast.expr, imported: frozenset[str], helpers: frozenset[str]) -> Split | None:
    """The parts of `f(...) == literal`, the form of nearly all asserts of MBPP, four times as fast; None for other forms."""
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return None
    call, right = test.left, test.comparators[0]
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and statement.isascii() and test.end_lineno == 1):
        return None
    name = call.func.id
    if (name in _KNOWN and name not in _MODULES) or name in imported or name in helpers:
        return None
    try:
        expected = ast.literal_eval(right)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    text = statement[call.col_offset : call.end_col_offset]
    return Split((text,), f"_value_0 == {statement[right.col_offset : right.end_col_offset]}", expected, True)


@lru_cache(maxsize=4096)
def split(statement: str, setup: str = "") -> Split | None:
    """Take one assert statement apart; None if it cannot be."""
    try:
        body = ast.parse(statement.strip()).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        return None
    test = body[0].test
    imported, helpers = setup_names(setup)
    plain = _plain_split(statement.strip(), test, imported, helpers)
    if plain is not None:
        return plain
    extract = _Extract(_KNOWN | imported, helpers)
    rest = extract.visit(test)
    if extract.failed or not extract.calls:
        return None
    expression = ast.unparse(ast.fix_missing_locations(rest))
    single = isinstance(rest, ast.Compare) and len(rest.ops) == 1 and isinstance(rest.ops[0], ast.Eq) and len(extract.calls) == 1
    if single and isinstance(rest.left, ast.Name):
        try:
            return Split(tuple(extract.calls), expression, ast.literal_eval(rest.comparators[0]), True)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
    return Split(tuple(extract.calls), expression)
