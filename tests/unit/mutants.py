"""Broken copies of MBPP's reference solutions, and the verdict that a plain fork without any judge gives them.

As a program (`python mutants.py < tests.jsonl`) it prints one verdict per line of {"code", "setup", "asserts"}: the independent
reference that the judge is compared with. It has no walls, so only feed it programs that are harmless by construction.
"""

from __future__ import annotations

import ast
import json
import os
import random
import resource
import sys
from collections.abc import Iterator
from typing import Any

CPU_SECONDS = 2


class _Mutate(ast.NodeTransformer):
    """Changes the n-th place of the tree that can be changed in this way."""

    def __init__(self, kind: str, place: int) -> None:
        self.kind, self.left = kind, place
        self.done = False

    def _here(self) -> bool:
        self.left -= 1
        self.done |= self.left == -1
        return self.left == -1

    def visit(self, node: ast.AST) -> Any:
        self.generic_visit(node)
        swap: dict[type, type] = {
            ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Div: ast.Mult,
            ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.In: ast.NotIn,  # codespell:ignore notin
            ast.And: ast.Or, ast.Or: ast.And, ast.BitXor: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.Pow: ast.Mult,
        }  # fmt: skip
        if self.kind == "operator" and isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in swap and self._here():
            node.op = swap[type(node.op)]()
        elif self.kind == "comparison" and isinstance(node, ast.Compare) and type(node.ops[0]) in swap and self._here():
            node.ops[0] = swap[type(node.ops[0])]()
        elif self.kind == "constant" and isinstance(node, ast.Constant) and type(node.value) is int and self._here():
            node.value += 1 if node.value % 2 else -1
        elif self.kind == "name" and isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and self._here():
            node.id += "_undefined"
        elif self.kind == "return" and isinstance(node, ast.Return) and node.value is not None and self._here():
            node.value = ast.Constant(None)
        elif self.kind == "negate" and isinstance(node, ast.If | ast.While) and self._here():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        elif self.kind == "drop" and isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.If | ast.For) and self._here():
            return ast.Pass()
        elif self.kind == "argument" and isinstance(node, ast.Call) and node.args and self._here():
            node.args.pop()
        return node


KINDS = ("operator", "comparison", "constant", "name", "return", "negate", "drop", "argument", "syntax", "value")


def mutants(code: str, seed: int, wanted: int) -> Iterator[str]:
    """Up to `wanted` different broken copies; the same ones for the same seed."""
    draw = random.Random(seed)
    seen = {code}
    for _ in range(wanted * 6):
        if len(seen) > wanted:
            return
        kind = draw.choice(KINDS)
        if kind == "syntax":
            lines = code.splitlines()
            line = draw.randrange(len(lines))
            text = "\n".join([*lines[:line], lines[line].replace(":", "", 1).replace("(", "", 1), *lines[line + 1 :]])
        elif kind == "value":
            text = code.replace(
                "return ", draw.choice(["return str", "return [", "return -", "return not ", "yield ", "raise ", "return 1 or "]), 1
            )
            text = text.replace("return str", "return str(0) or ").replace("return [", "return [0] and ")
        else:
            change = _Mutate(kind, draw.randrange(8))
            tree = change.visit(ast.parse(code))
            if not change.done:
                continue
            text = ast.unparse(ast.fix_missing_locations(tree))
        if text not in seen:
            seen.add(text)
            yield text


def _verdict(code: str, setup: str, asserts: list[str]) -> str:
    try:
        program = compile(code, "program", "exec")
    except Exception:
        return "compile_error"
    space: dict[str, Any] = {"__name__": "program"}
    try:
        exec(program, space)
        exec(setup, space)
    except BaseException:
        return "runtime_error"
    found = "passed_test"
    for statement in asserts:
        (node,) = ast.parse(statement).body
        assert isinstance(node, ast.Assert)
        try:
            held = bool(eval(compile(ast.Expression(node.test), "test", "eval"), space))
        except BaseException:
            return "runtime_error"
        if not held:
            found = "failed_test"
    return found


def plain_verdict(code: str, setup: str, asserts: list[str]) -> str:
    """What a fork and `assert` say."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            null = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(null, standard)
            os.write(write_end, _verdict(code, setup, asserts).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    said = os.read(read_end, 100).decode()
    os.close(read_end)
    os.waitpid(child, 0)
    return said or "runtime_error"  # time-out, memory, crash


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    sys.set_int_max_str_digits(0)
    for given in sys.stdin:
        row = json.loads(given)
        print(plain_verdict(row["code"], row["setup"], row["asserts"]), flush=True)
