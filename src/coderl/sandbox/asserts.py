"""Assert statements taken apart, so that what a program computes is compared where the program is not.

`assert f(1, 2) == [3]` becomes the call `f(1, 2)`, evaluated beside the program, and the expression `_value_0 == [3]`, evaluated
elsewhere over the value that came back. Only names of the built-ins, of imported modules and of the set-up code's imports and
constants may be left in the second part. A `check(f)` call, where check is a function of nothing but asserts, is taken apart like
the asserts in it. What cannot be taken apart (loops, comprehensions over the program's names, helpers of the tests) is run by
inside/replay.py, or, as a last resort, beside the program, guarded (docs/outcomes.md says what that covers).
"""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from coderl.sandbox.inside import codec

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
    answer: list[Any] | None = field(default=None, compare=False)
    """With `is_equality`: what the values come back as if they are spelled just like `expected`; other spellings may be equal too."""


@dataclass(frozen=True)
class Plan:
    """A test in parts: one assert, or all asserts of the functions that it calls."""

    splits: tuple[Split, ...]
    entries: tuple[str, ...] = ()
    """Expressions of the program that the calls know as `_entry_0`, `_entry_1`, ...: what a check function is given."""
    checks: frozenset[str] = frozenset()
    """Functions of the set-up code that the program's process does not need for it."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is evaluated beside the program, in order."""
        return tuple(text for part in self.splits for text in part.calls)


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
        if isinstance(node, ast.Attribute | ast.Subscript) and _root(node) not in self.known and _calls(node):
            # A part of what the program returned is for the program's process to take: `f(1)[0]`, `Point(1, 2).x`.
            self.calls.append(ast.unparse(node))
            return ast.copy_location(ast.Name(id=f"_value_{len(self.calls) - 1}", ctx=ast.Load()), node)
        if isinstance(node, ast.Name) and node.id not in self.known:
            # A variable of the program or of the set-up code: its value comes back like that of a call.
            self.calls.append(node.id)
            return ast.copy_location(ast.Name(id=f"_value_{len(self.calls) - 1}", ctx=ast.Load()), node)
        return self.generic_visit(node)


def _calls(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def _root(node: ast.AST) -> str | None:
    """The name that a call starts from; None if it starts from a literal, which is known."""
    while True:
        if isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        else:
            return node.id if isinstance(node, ast.Name) else "print" if isinstance(node, ast.Constant) else None


@dataclass(frozen=True)
class Setup:
    """What the set-up code of a problem defines at its top level."""

    imported: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    constants: frozenset[str] = frozenset()
    """Names assigned to expressions of known names: they mean the same without the program."""


_PARSE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError)


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source.strip())
    except _PARSE_ERRORS:
        return None


def _loaded(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}


def _bound(node: ast.AST) -> set[str]:
    """Every name that is bound anywhere in the code, in whatever scope."""
    found: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
            found.add(part.id)
        elif isinstance(part, ast.arg):
            found.add(part.arg)
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(part.name)
        elif isinstance(part, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in part.names}
        elif isinstance(part, ast.ExceptHandler) and part.name:
            found.add(part.name)
    return found


_KNOWN = frozenset(dir(builtins)) | frozenset(_MODULES)


@lru_cache(maxsize=4096)
def read_setup(setup: str) -> Setup:
    """Names that the set-up code binds."""
    imported: set[str] = set()
    functions: set[str] = set()
    constants: set[str] = set()
    tree = _parse(setup)
    for node in tree.body if tree else ():
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef):
            functions.add(node.name)
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if len(names) == len(node.targets) and _loaded(node.value) - _bound(node.value) <= _KNOWN | imported | constants:
                constants |= names
            else:
                constants -= names
    return Setup(frozenset(imported), frozenset(functions), frozenset(constants))


def _plain_split(statement: str, test: ast.expr, known: frozenset[str], helpers: frozenset[str]) -> Split | None:
    """The parts of `f(...) == literal`, the form of nearly all asserts of MBPP, four times as fast; None for other forms."""
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return None
    call, right = test.left, test.comparators[0]
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and statement.isascii() and test.end_lineno == 1):
        return None
    name = call.func.id
    if (name in known and name not in _MODULES) or name in helpers:
        return None
    try:
        expected = ast.literal_eval(right)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    text = statement[call.col_offset : call.end_col_offset]
    return _equality((text,), f"_value_0 == {statement[right.col_offset : right.end_col_offset]}", expected)


def _equality(calls: tuple[str, ...], expression: str, expected: Any) -> Split:
    form = codec.plain(expected)
    return Split(calls, expression, expected, True, None if holds(form, "o") else [form])


def holds(form: Any, tag: str) -> bool:
    """Whether a part of a value is of a library type ("x"), which may equal built-in values, or an object ("o")."""
    if isinstance(form, dict):
        return tag in form or any(holds(part, tag) for part in form.values())
    return isinstance(form, list) and any(holds(part, tag) for part in form)


def _split(test: ast.expr, known: frozenset[str], helpers: frozenset[str]) -> Split | None:
    extract = _Extract(known, helpers)
    rest = extract.visit(test)
    if extract.failed:
        return None
    expression = ast.unparse(ast.fix_missing_locations(rest))
    single = isinstance(rest, ast.Compare) and len(rest.ops) == 1 and isinstance(rest.ops[0], ast.Eq) and len(extract.calls) == 1
    if single and isinstance(rest.left, ast.Name):
        try:
            return _equality(tuple(extract.calls), expression, ast.literal_eval(rest.comparators[0]))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
    return Split(tuple(extract.calls), expression)


@lru_cache(maxsize=4096)
def split(statement: str, setup: str = "", entry_point: str | None = None) -> Split | None:
    """Take one assert statement apart; None if it cannot be."""
    found = plan(statement, setup, entry_point)
    return found.splits[0] if found is not None and len(found.splits) == 1 and not found.entries else None


class _Rename(ast.NodeTransformer):
    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def visit_Name(self, node: ast.Name) -> Any:
        return ast.copy_location(ast.Name(id=self.new, ctx=node.ctx), node) if node.id == self.old else node


def _only_asserts(function: ast.FunctionDef) -> str | None:
    """The one parameter of a function that asserts and does nothing else."""
    given = function.args
    plain = not (given.vararg or given.kwarg or given.kwonlyargs or given.posonlyargs or given.defaults or function.decorator_list)
    if not plain or len(given.args) != 1 or not all(_idle(node) or isinstance(node, ast.Assert) for node in function.body):
        return None
    return given.args[0].arg


def _idle(node: ast.stmt) -> bool:
    """A statement that does nothing."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Name))


@lru_cache(maxsize=4096)
def plan(statement: str, setup: str = "", entry_point: str | None = None, shared: frozenset[str] = frozenset()) -> Plan | None:
    """Take a test apart: an assert statement, several of them, or a call of a function that consists of asserts; None if it cannot be.

    Args:
        statement: the test; it may define the functions that it calls.
        setup: the set-up code of the problem.
        entry_point: name of the function under test, which may be that of a built-in function.
        shared: constants of the set-up code that are handed to the program.
    """
    tree = _parse(statement)
    if tree is None:
        return None
    names = read_setup(setup)
    known = (_KNOWN | names.imported | (names.constants - shared)) - {entry_point}
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Assert):
        plain = _plain_split(statement.strip(), tree.body[0].test, known, names.functions)
        if plain is not None:
            return Plan((plain,))
    before = _parse(setup)
    functions = {node.name: node for node in (before.body if before else []) if isinstance(node, ast.FunctionDef)}
    splits: list[Split] = []
    entries: list[str] = []
    checks: set[str] = set()

    def take(test: ast.expr) -> bool:
        found = _split(test, known, frozenset(functions))
        if found is None:
            return False
        if not (isinstance(test, ast.Constant) and test.value):
            splits.append(found)
        return True

    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = node
        elif isinstance(node, ast.Assert):
            if not take(node.test):
                return None
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            call = node.value
            function = functions.get(call.func.id)  # type: ignore[attr-defined]
            parameter = _only_asserts(function) if function else None
            if function is None or parameter is None or len(call.args) != 1 or call.keywords or isinstance(call.args[0], ast.Starred):
                return None
            if _loaded(call.args[0]) & set(functions):
                return None
            name = f"_entry_{len(entries)}"
            entries.append(ast.unparse(call.args[0]))
            checks.add(function.name)
            body = ast.parse(ast.unparse(function)).body[0]
            assert isinstance(body, ast.FunctionDef)
            for inner in body.body:
                # A scope that shadows the parameter is none of ours to rename.
                if isinstance(inner, ast.Assert) and (parameter in _bound(inner) or not take(_Rename(parameter, name).visit(inner.test))):
                    return None
        elif not (_idle(node) or (isinstance(node, ast.Assign) and not _loaded(node.value))):
            return None
    no_calls = all(not part.calls for part in splits)
    if not splits or (no_calls and not entries):
        return None
    texts = [text for part in splits for text in part.calls]
    if any(name in _loaded(ast.parse(text, mode="eval")) for text in [*texts, *entries] for name in checks):
        return None
    return Plan(tuple(splits), tuple(entries), frozenset(checks))


@lru_cache(maxsize=4096)
def foreign_names(statement: str, setup: str, entry_point: str | None) -> tuple[str, ...] | None:
    """Names that a test and its set-up code have from the program; None where the code cannot be read."""
    tree, before = _parse(statement), _parse(setup)
    if tree is None or before is None:
        return None
    bound = set().union(*(_bound(node) for node in (tree, before)))
    loaded = _loaded(tree) | _loaded(before)
    return tuple(sorted(loaded - bound - (_KNOWN - {entry_point})))


@lru_cache(maxsize=4096)
def _names_in(text: str) -> frozenset[str]:
    tree = _parse(text)
    return frozenset(_loaded(tree)) if tree else frozenset()


def shared_constants(texts: tuple[str, ...], setup: str) -> frozenset[str]:
    """Constants of the set-up code that the calls hand to the program."""
    constants = read_setup(setup).constants
    return constants & frozenset().union(*map(_names_in, texts)) if constants else constants


@lru_cache(maxsize=4096)
def setup_beside_program(setup: str, checks: frozenset[str], texts: tuple[str, ...], replayed: tuple[str, ...]) -> str:
    """The set-up code as far as the program's process needs it: without test functions and without values that only tests look at.

    Args:
        setup: the whole of it.
        checks: functions that were taken apart.
        texts: what is evaluated beside the program.
        replayed: tests that run elsewhere, with what they call.
    """
    tree = _parse(setup)
    if tree is None or not (checks or replayed or read_setup(setup).constants):
        return setup
    wanted = frozenset().union(*map(_names_in, texts))
    elsewhere = (frozenset().union(*map(_names_in, replayed)) | checks) - wanted
    kept = []
    for node in tree.body:
        tests = (
            isinstance(node, ast.FunctionDef) and node.name not in wanted and any(isinstance(part, ast.Assert) for part in ast.walk(node))
        )
        if not (tests or (isinstance(node, ast.FunctionDef) and node.name in elsewhere)):
            kept.append(node)
    needed = wanted.union(*map(_loaded, kept))
    return ast.unparse(ast.Module([node for node in kept if not _unneeded(node, needed)], []))


def _unneeded(node: ast.stmt, needed: frozenset[str]) -> bool:
    return isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) and target.id not in needed for target in node.targets)
