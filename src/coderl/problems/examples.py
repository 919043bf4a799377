"""Example tests from statements (spec 7.6): what a problem's text itself shows of input and output.

Written anew, without the defects of CodeRL's notebook: text keeps its case, blank lines inside an example stay, explanations are not
part of an output, and `Input: nums = [1,2], k = 3` becomes arguments in the order of the function's parameters. It reads text only,
so it serves every split. What was compared with CodeRL's published files is in docs/example_tests.md.
"""

from __future__ import annotations

import ast
import doctest
import re
import warnings
from dataclasses import dataclass
from typing import Any

from coderl.problems.problem import AssertTests, InputOutputTests, Tests

_RULER = re.compile(r"^\s*-{3,}\s*(?P<title>.*?)\s*:?\s*-{3,}\s*$")
"""APPS' headings: `-----Example-----`."""
_SECTION = re.compile(r"(sample|example)s?( (test|case|test case|testcase)s?)?[ -]*#?\d*:?$", re.IGNORECASE)
_MARK = re.compile(
    r"^\s*(?:(?:sample|example)s?\s+)?(?P<side>input|output)s?(?:\s*(?:#|no\.?)?\s*\d+)?\s*(?P<colon>[:：])?\s*(?P<rest>.*)$", re.IGNORECASE
)
_SAMPLE_SIDE = re.compile(r"(sample|example)s?\s+(?P<side>input|output)s?(\s+for\s+.*)?([ -]*#?\d*)$", re.IGNORECASE)
_END = re.compile(r"^\s*(explanation|note|constraints?|follow[ -]?up|scoring|subtasks?)s?\b[^:]{0,30}(:|$)", re.IGNORECASE)


@dataclass
class _Block:
    """The text of one side of one example; `closed_by_blank`: a blank line ends it, because prose may follow."""

    side: str
    lines: list[str]
    closed_by_blank: bool

    @property
    def text(self) -> str:
        lines = list(self.lines)
        while lines and not lines[-1].strip():
            lines.pop()
        while lines and not lines[0].strip():
            lines.pop(0)
        return "\n".join(lines)


def _blocks(question: str) -> list[_Block]:
    """Input and output texts in the order of the statement."""
    blocks: list[_Block] = []
    current: _Block | None = None
    inside = False  # in a section of examples, where a bare `Input` is a mark and not the heading of the input format

    def start(side: str, rest: str, closed_by_blank: bool) -> _Block:
        block = _Block(side, [rest] if rest.strip() else [], closed_by_blank)
        blocks.append(block)
        return block

    for line in question.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        ruler = _RULER.match(line)
        if ruler:
            title = ruler["title"]
            both = _SAMPLE_SIDE.fullmatch(title)
            if both:  # AtCoder, CodeChef, Kattis: a heading per side, and prose may follow an output
                inside, current = True, start(both["side"].lower(), "", True)
            else:
                inside, current = bool(_SECTION.fullmatch(title)), None
            continue
        words = line.strip().strip("*_# ")
        if _SECTION.fullmatch(words):
            inside, current = True, None
            continue
        mark = _MARK.match(line)
        if mark and (mark["colon"] or not mark["rest"].strip()):
            named = re.match(r"^\s*(sample|example)", line, re.IGNORECASE) is not None
            if inside or named:
                inside = True
                current = start(mark["side"].lower(), mark["rest"], bool(mark["colon"]))
                continue
        if current is None:
            continue
        prose_may_follow = current.closed_by_blank and current.side == "output" and bool(current.text)
        if _END.match(line) or (prose_may_follow and not line.strip()):
            current = None
        else:
            current.lines.append(line)
    return blocks


def raw_examples(question: str) -> list[tuple[str, str]]:
    """(input, output) as they are written, for every input that an output follows."""
    pairs: list[tuple[str, str]] = []
    pending: str | None = None
    for block in _blocks(question):
        if block.side == "input":
            pending = block.text
        elif pending is not None:
            if block.text:
                pairs.append((pending, block.text))
            pending = None
    return pairs


def extract_examples(question: str, entry_point: str | None = None, starter_code: str = "") -> Tests | None:
    """The example tests of a statement, null if it shows none that can be used.

    Args:
        question: the statement.
        entry_point: name of the function for call-based problems; null for standard input.
        starter_code: where the function's parameters are read, for the order of arguments.

    Call-based examples whose values are no literals (pictures, bit strings with leading zeros, nodes of lists and trees) are left out.
    """
    pairs = raw_examples(question)
    if entry_point is None:
        kept = [(given, wanted) for given, wanted in pairs if given]
        if not kept:
            return None
        return InputOutputTests("stdin", [given + "\n" for given, _ in kept], [wanted + "\n" for _, wanted in kept])
    parameters = _parameters(starter_code, entry_point)
    if parameters is not None and re.search(r"\b(ListNode|TreeNode|Node|NestedInteger)\b", _code_only(starter_code)):
        return None
    inputs, outputs = [], []
    for given, wanted in pairs:
        arguments, value = _arguments(given, parameters), _value(wanted)
        if arguments is not None and value is not None:
            inputs.append(arguments)
            outputs.append(value[0])
    return InputOutputTests("call", inputs, outputs) if inputs else None


def _code_only(source: str) -> str:
    return "\n".join(line.partition("#")[0] for line in source.splitlines())


def _parameters(starter_code: str, entry_point: str) -> list[str] | None:
    """Names of the function's parameters without self; null where the starter code does not say."""
    found = re.search(rf"def\s+{re.escape(entry_point)}\s*\(", _code_only(starter_code))
    if not found:
        return None
    rest = _code_only(starter_code)[found.start() :]
    for end in [match.end() for match in re.finditer(r"\n|$", rest)]:  # the signature may have several lines
        try:
            body = ast.parse(rest[:end].rstrip().rstrip(":") + ":\n pass").body[0]
        except (SyntaxError, ValueError):
            continue
        if isinstance(body, ast.FunctionDef):
            return [argument.arg for argument in body.args.args if argument.arg != "self"]
    return None


_WORDS = {"true": True, "false": False, "null": None, "none": None}


class _Words(ast.NodeTransformer):
    """JSON's words as Python's, in whatever case."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(_WORDS[node.id.lower()]), node) if node.id.lower() in _WORDS else node


def _parsed(text: str) -> ast.expr | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree: ast.expr = _Words().visit(ast.parse(text.strip(), mode="eval").body)
            return tree
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _plain(node: ast.expr) -> tuple[Any] | None:
    """(value,) of a literal that JSON can hold; null otherwise."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return (value,) if _is_json(value) else None


def _is_json(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, bool | int | float | str)


def _value(text: str) -> tuple[Any] | None:
    """The value of an output: all of the text, or its first line (what follows may be prose)."""
    for candidate in (text, text.split("\n")[0]):
        node = _parsed(candidate.strip().rstrip(".;"))
        value = None if node is None else _plain(node)
        if value is not None:
            return value
    return None


def _arguments(text: str, parameters: list[str] | None) -> list[Any] | None:
    """`nums = [1,2], k = 3` or `[1,2], 3` as a list of arguments in the order of the parameters; null if it is neither."""
    for candidate in (text, ", ".join(line.strip().rstrip(",") for line in text.split("\n") if line.strip())):
        call = _parsed(f"f({candidate.strip().rstrip('.;,')})")
        if not isinstance(call, ast.Call) or (call.args and call.keywords):
            continue
        values = [_plain(node) for node in [*call.args, *(keyword.value for keyword in call.keywords)]]
        plain = [value[0] for value in values if value is not None]
        if plain and len(plain) == len(values):
            break
    else:
        return None
    if parameters is None:
        return plain
    if len(plain) != len(parameters):
        return None
    names = [str(keyword.arg).lower() for keyword in call.keywords]
    wanted = [name.lower() for name in parameters]
    if names and sorted(names) == sorted(wanted):
        return [plain[names.index(name)] for name in wanted]
    return plain  # statements and signatures do not always agree on names, yet on the order


def extract_doctests(prompt: str, entry_point: str) -> Tests | None:
    """HumanEval: the `>>> f(x)` examples of the docstring whose answers are literals, as asserts."""
    asserts = []
    try:
        functions = {node.name: node for node in ast.parse(prompt).body if isinstance(node, ast.FunctionDef)}
        examples = doctest.DocTestParser().get_examples(ast.get_docstring(functions[entry_point]) or "")
    except (SyntaxError, ValueError, KeyError):
        return None
    for example in examples:
        call, value = _parsed(example.source), _parsed(example.want)
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != entry_point or value is None:
            continue
        try:
            ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
        asserts.append(f"assert {example.source.strip()} == {example.want.strip()}")
    return AssertTests(asserts) if asserts else None
