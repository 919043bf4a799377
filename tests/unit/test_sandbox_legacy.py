"""The legacy checker end to end: every row of spec 4.5 with both verdicts, the pipeline of 4.2, published labels; and the prelude."""

# ruff: noqa: E501  (a program is one line)

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coderl.problems import AssertTests, InputOutputTests
from coderl.records import DataError
from coderl.sandbox import Job, Limits, judge, judge_many
from coderl.sandbox import worker as worker_module
from coderl.sandbox.judge import close_workers
from coderl.sandbox.legacy import cast_arguments, cast_expected, rewrite_call, rewrite_stdin, uses_numpy
from coderl.sandbox.worker import Worker

LIMITS = Limits(cpu_seconds=1, memory_mb=256)
SHORT = Limits(cpu_seconds=0.3, memory_mb=256)
P, F, R, C = "passed_test", "failed_test", "runtime_error", "compile_error"
DOUBLE = InputOutputTests("stdin", ["21\n", "4\n"], ["42\n", "8\n"])


@dataclass(frozen=True)
class Case:
    """A program with its outcome under both checkers."""

    what: str
    program: str
    legacy: str
    strict: str
    tests: InputOutputTests = DOUBLE


def prints(what: str, text: str, expected: str, legacy: str, strict: str) -> Case:
    return Case(what, f"import sys\nsys.stdout.write({text!r})", legacy, strict, InputOutputTests("stdin", [""], [expected]))


def returns(what: str, program: str, expected: Any, legacy: str, strict: str, *arguments: Any) -> Case:
    body = program if "def f" in program else f"def f(*a): return {program}"
    return Case(what, body, legacy, strict, InputOutputTests("call", [list(arguments)], [expected]))


SPEC_4_5 = [
    prints("order of tokens", "2 1\n", "1 2", P, F),
    prints("order of lines", "2\n1\n", "1\n2", P, F),
    prints("order of words", "NO YES\n", "YES NO", P, F),
    prints("a token too few", "1 2\n", "1 1 2", P, F),
    prints("tokens too many", "5 5 5\n", "5", P, F),
    prints("lines too many", "1\n1\n1\n", "1", P, F),
    prints("an integer that is one off", "1000001\n", "1000000", P, F),
    prints("an integer that is nine off", "1000009\n", "1000000", P, F),
    prints("a modulus that is wrong", "998244300\n", "998244353", P, F),
    prints("small against zero", "0.0004\n", "0.0", P, F),
    prints("three decimals", "0.3334\n", "0.3333", P, F),
    returns("an object that equals everything", "class A:\n    def __eq__(self, other): return True\ndef f(): return A()", 5, P, F),
    Case("nothing expected, nothing printed", "pass", P, P, InputOutputTests("stdin", [""], [""])),
    # The row "no tests count as passed" is test_no_tests_are_an_error below.
    Case("sys.stdin.buffer", "import sys\nprint(int(sys.stdin.buffer.readline()) * 2)", R, P),
    Case("sys.stdout.buffer", "import sys\nsys.stdout.buffer.write(b'%d' % (int(input()) * 2))", R, P),
    Case("os.read", "import os\nprint(int(os.read(0, 100) or 0) * 2)", F, P),
    Case("main guard", "def main():\n    print(int(input()) * 2)\nif __name__ == '__main__':\n    main()", F, P),
    Case("global", "n = 0\ndef f():\n    global n\n    n += 1\nf()\nprint(int(input()) * 2)", R, P),
    Case("exec", "exec('x = 2')\nprint(int(input()) * x)", R, P),
    Case("import * after the first statement", "x = 2\nfrom math import *\nprint(int(input()) * x)", C, P),
    Case("from __future__", "from __future__ import annotations\nprint(int(input()) * 2)", C, P),
    Case("right output, then an exception", "print(int(input()) * 2)\n1 / 0", R, R),
    # There the handler's exception is swallowed and the program goes on for ever, or its message is in the output.
    Case("a time-out that is swallowed", "try:\n    while True: pass\nexcept:\n    pass\nprint(int(input()) * 2)", R, R),
    Case("and again", "while True:\n    try:\n        while True: pass\n    except: pass", R, R),
    returns("a float", "0.1 + 0.2", 0.3, F, P),
    # Example tests of call-based problems are texts there; strict refuses such data (test_texts_are_no_arguments).
]


@pytest.mark.parametrize("case", SPEC_4_5, ids=lambda case: case.what)
def test_known_wrong_verdicts(case: Case) -> None:
    limits = SHORT if "while True" in case.program else LIMITS
    assert judge(case.program, case.tests, limits, checker="legacy", entry_point="f").outcome == case.legacy
    assert judge(case.program, case.tests, limits, entry_point="f").outcome == case.strict


def test_no_tests_are_an_error() -> None:
    for checker in ("legacy", "strict"):
        with pytest.raises(DataError, match="zero tests"):
            judge("print(1)", InputOutputTests("stdin", [], []), LIMITS, checker=checker)


def test_texts_are_no_arguments() -> None:
    tests = InputOutputTests("call", ["12"], [5])
    assert judge("def f(x): return 5", tests, LIMITS, checker="legacy", entry_point="f").outcome == R
    with pytest.raises(DataError, match="list of arguments"):
        judge("def f(x): return 5", tests, LIMITS, entry_point="f")


# Labels of the official file for these, got by running it (Python 3.11, a stand-in for pyext); where it loses the program, ours.
SCRIPTS = [
    ("names bound while loading read the test", "from sys import stdin\nprint(int(stdin.readline()) * 2)", P),
    (
        "lines come without their ends there",
        "from sys import stdin\nprint(repr(stdin.readline())[-1:] and int(stdin.readlines()[0]) * 2)",
        P,
    ),
    ("and then StopIteration", "from sys import stdin\nprint(int(stdin.readline()) * 2)\nstdin.readline()\nstdin.readline()", R),
    ("but not by iteration", "from sys import stdin\nfor line in stdin: print(int(line) * 2)", F),
    ("nor by the buffer", "from sys import stdin\nprint(int(stdin.buffer.readline() or 0) * 2)", F),
    ("inserted names", "print(int(stdin.read()) * 2)", P),
    ("sys.stdin is looked up late", "import sys\nfor line in sys.stdin: print(int(line) * 2)", P),
    ("an output bound while loading is lost", "from sys import stdout\nstdout.write(str(int(input()) * 2))", F),
    ("so is the inserted one", "stdout.write(str(int(input()) * 2))", F),
    ("sys.stdout is captured", "sys.stdout.write(str(int(input()) * 2))", P),
    ("an output of one's own is lost", "import io\nsys.stdout = io.StringIO()\nprint(int(input()) * 2)", F),
    ("closing the output", "print(int(input()) * 2)\nsys.stdout.close()", R),
    ("closing the input", "print(int(input()) * 2)\nsys.stdin.close()", P),
    ("open gives the input", "with open('input.txt') as file: print(int(file.readline()) * 2)", P),
    ("open(0) too", "print(int(open(0).read()) * 2)", P),
    ("opening again begins again, for all handles", "first = open(0)\nfirst.readline()\nopen(1)\nprint(int(first.readline()) * 2)", P),
    (
        "lines of a mock end, and then are empty",
        "file = open(0)\nlines = [file.readline() for _ in range(3)]\nprint(int(lines[0]) * 2 if lines[1:] == ['', ''] else 0)",
        P,
    ),
    (
        "what a mock has besides",
        "file = open('x', 'w')\nfile.write('1')\nprint(int(input()) * 2 if file.closed and file.buffer.name else 0)",
        P,
    ),
    ("file 1 is not captured", "import os\nos.write(1, b'42')", F),
    ("leaving is normal", "print(int(input()) * 2)\nexit(3)", P),
    ("leaving by an exception of another kind loses the program there", "print(int(input()) * 2)\nraise KeyboardInterrupt", R),
    ("closing every descriptor", "import os\nos.closerange(0, 99)\nprint(int(input()) * 2)", P),
    ("killing the process too", "import os\nprint(int(input()) * 2)\nos._exit(0)", R),
    ("a return at the top", "print(int(input()) * 2)\nreturn\n1 / 0", P),
    ("the empty program", "", C),
    ("a program of imports has no code()", "import sys", C),
    ("a comment is no body", "# nothing", C),
    ("a failing import at the top", "import nothere\nprint(int(input()) * 2)", C),
    ("a failing import later", "x = 1\nimport nothere\nprint(int(input()) * 2)", R),
    ("a failing name", "print(nothere)", R),
    ("missing imports are hidden", "print(gcd(int(input()) * 2, 0), *Counter())", P),
    ("fractions", "print(fractions.Fraction(int(input())) * 2)", P),
    ("state stays in modules", "math.calls = getattr(math, 'calls', 0) + 1\nprint(int(input()) * (3 - math.calls))", F),
    ("strings of several lines get tabs", "s = '''\n'''\nprint(int(input()) * (len(s) + (s == '\\n')))", P),
    ("a byte order mark", "\ufeffprint(int(input()) * 2)", C),
    ("a generator is not run", "print(int(input()) * 2)\nyield 1", F),
    ("class bodies see no locals", "n = 2\nclass A:\n    m = [n for _ in range(1)]\nprint(int(input()) * A.m[0])", P),
    ("long integers", "print(int(input()) * 2 if 10 ** 5000 > 1 and len(str(10 ** 5000)) else 0)", P),
]


@pytest.mark.parametrize(("program", "outcome"), [case[1:] for case in SCRIPTS], ids=[case[0] for case in SCRIPTS])
def test_scripts(program: str, outcome: str) -> None:
    assert judge(program, DOUBLE, LIMITS, checker="legacy").outcome == outcome


CALLS: list[tuple[str, str, list[Any], list[Any], str]] = [
    ("a tuple", "def f(x): return (x, x)", [[1]], [[1, 1]], P),
    ("the first element of what is expected", "def f(x): return x", [[1]], [[1, 2]], P),
    ("tuples one level down", "def f(x): return [(x, x)]", [[1]], [[[1, 1]]], F),
    ("two levels down", "def f(x): return [(x, x)]", [[1]], [[[[1, 1]]]], P),
    ("any sequence of tuples", "def f(x): return deque([(x, x)])", [[1]], [[[[1, 1]]]], P),
    ("bool is int", "def f(x): return True", [[1]], [1], P),
    ("the claim of equality inside", "class A:\n    def __eq__(self, other): return True\ndef f(x): return [A(), 1]", [[1]], [[7, 1]], P),
    ("a comparison that raises", "class A:\n    def __eq__(self, other): return self.v == other.v\ndef f(x): return A()", [[1]], [1], R),
    ("Solution", "class Solution:\n    def f(self, x): return x", [[1]], [1], P),
    (
        "one instance for all tests",
        "class Solution:\n    n = 0\n    def f(self, x):\n        self.n += 1\n        return self.n",
        [[1], [1]],
        [1, 2],
        P,
    ),
    ("Solution only in a comment", "# class Solution\ndef f(x): return x", [[1]], [1], C),
    ("a function beside Solution is not seen", "class Solution: pass\ndef f(x): return x", [[1]], [1], C),
    ("a constructor that fails", "class Solution:\n    def __init__(self): 1 / 0\n    def f(self, x): return x", [[1]], [1], C),
    ("no such function", "def g(x): return x", [[1]], [1], C),
    ("a function of the prelude", "", [[4, 6]], [2], C),
    ("any error while loading", "def f(x): return x\n1 / 0", [[1]], [1], C),
    ("a name error while loading", "def f(x): return x\nnothere", [[1]], [1], C),
    ("a time-out while loading", "def f(x): return x\nwhile True: pass", [[1]], [1], C),
    ("leaving while loading", "def f(x): return x\nexit()", [[1]], [1], C),
    ("leaving in a call", "def f(x): exit()", [[1]], [1], R),
    ("a return at the top", "def f(x): return x\nreturn", [[1]], [1], C),
    ("an error after a wrong answer decides", "def f(x): return 0 if x == 1 else 1 / 0", [[1], [2]], [1, 2], R),
    ("wrong, then right", "def f(x): return 2", [[1], [2]], [1, 2], F),
    ("keys are made integers", "def f(x): return {k + 0: v for k, v in x.items()}", [[{"1": 2}]], [{"1": 2}], P),
    ("and the other arguments dropped", "def f(x, y=7): return y", [[{"1": 2}, 3]], [7], P),
    ("but not where they are words", "def f(x, y): return y", [[{"a": 2}, 3]], [3], P),
    ("and of what is expected only the first dict is left", "def f(x): return [{1: 2}]", [[1]], [[{"1": 2}, {"3": 4}]], P),
    ("a set is no list", "def f(x): return {1}", [[1]], [[1]], F),
    ("a Fraction", "def f(x): return fractions.Fraction(3)", [[1]], [3], P),
    ("input is empty", "def f(x): return input()", [[1]], [1], R),
    ("output does not matter", "def f(x):\n    print(x)\n    return x", [[1]], [1], P),
    ("its name is no main", "def f(x): return __name__", [[1]], ["builtins"], P),
    ("nan", "def f(x): return float('nan')", [[1]], [float("nan")], F),
    (
        "a bare except does not stop the clock",
        "def f(x):\n    while True:\n        try:\n            while True: pass\n        except: pass",
        [[1]],
        [1],
        R,
    ),
]


@pytest.mark.parametrize(("program", "inputs", "outputs", "outcome"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS])
def test_calls(program: str, inputs: list[Any], outputs: list[Any], outcome: str) -> None:
    limits = SHORT if "while True" in program else LIMITS
    assert judge(program, InputOutputTests("call", inputs, outputs), limits, checker="legacy", entry_point="f").outcome == outcome


def test_a_script_stops_at_its_first_failure_and_a_call_at_its_first_error() -> None:
    script = InputOutputTests("stdin", ["1", "2", "3"], ["1", "2", "3"])
    found = judge("n = int(input())\nif n == 3: 1 / 0\nprint(n if n == 1 else 0)", script, LIMITS, checker="legacy")
    assert (found.outcome, found.n_passed, found.first_failed_test, found.n_tests) == (F, 1, 1, 3)
    calls = InputOutputTests("call", [[1], [2], [3], [4]], [1, 2, 3, 4])
    program = "def f(n):\n    if n == 3: 1 / 0\n    return n if n != 1 else 0"
    for stop in (False, True):  # its own rule holds
        found = judge(program, calls, LIMITS, checker="legacy", entry_point="f", stop_at_first_failure=stop)
        assert (found.outcome, found.n_passed, found.first_failed_test, found.error_class) == (R, 1, 0, "zerodivisionerror")


def test_a_script_goes_on_where_the_original_lost_all_programs() -> None:
    # Spec 4.6: UnboundLocalError of outputs.append(output_float), after the cascade had said True.
    tests = InputOutputTests("stdin", ["", ""], ["a\nb", "c"])
    found = judge("print('a\\n\\nb')", tests, LIMITS, checker="legacy")
    assert (found.outcome, found.n_passed) == (F, 1)


@pytest.mark.parametrize(
    ("program", "tests", "line"),
    [
        ("n = 1\nn / 0", DOUBLE, 2),
        ("import sys\nimport math\n\nn = int(input())\n1 / 0", DOUBLE, 5),
        ("import sys\nimport nothere", DOUBLE, 2),
        ("import sys\nx = 1\nprint((x)", DOUBLE, 3),
        ("def f(x):\n    return 1 / 0", InputOutputTests("call", [[1]], [1]), 2),
        ("def f(x):\nreturn 1", InputOutputTests("call", [[1]], [1]), 2),
    ],
)
def test_lines_of_errors_are_the_programs_own(program: str, tests: InputOutputTests, line: int) -> None:
    assert judge(program, tests, LIMITS, checker="legacy", entry_point="f").error_line == line


def test_rewriting() -> None:
    found = rewrite_stdin("import a\nfrom b import c\nx = 1\nimport d\n")
    head = "stdin = sys.stdin\nstdout = sys.stdout\ndef code():\n"
    assert found.text == "import sys\nimport a\nfrom b import c\n" + head + "\tx = 1\n\timport d\n\t\n"
    assert [found.line(number) for number in range(1, 11)] == [None, 1, 2, None, None, None, 3, 4, 5, 6]
    assert rewrite_stdin(" import a").text.endswith("def code():\n\t import a\n")
    assert rewrite_stdin("import a").text == "import sys\nimport a\n"
    assert rewrite_call("x\ny").text == "import sys\nx\ny"
    assert rewrite_call("x\ny").line(3) == 2


def test_casting() -> None:
    assert cast_arguments([{"1": 2}, 3]) == [{1: 2}]
    assert cast_arguments([{"a": 2}, 3]) == [{"a": 2}, 3]
    assert cast_arguments("12") == ["1", "2"]
    assert cast_expected({"1": {"2": 3}}) == [{1: {"2": 3}}]
    assert cast_expected([{"1": 2}, 5]) == [{1: 2}]
    assert cast_expected([[{"1": 2}]]) == [[{"1": 2}]]


def test_output_limit_and_much_legal_output() -> None:
    tests = InputOutputTests("stdin", ["1", "2", "3"], ["x" * 5_000_000] * 3)
    assert judge("print('x' * 5000000)", tests, LIMITS, checker="legacy").outcome == P
    found = judge("print('x' * 5000000)", tests, Limits(cpu_seconds=1, max_output_mb=2), checker="legacy")
    assert (found.outcome, found.error_class) == (R, "outputlimitexceeded")


LOOKS_FOR_QWZX = """
import gc
def found():
    mark = bytes([113, 119, 122, 120])
    kinds = (str, list, dict, tuple, bytes)
    return any(type(o) in kinds and (mark.decode() in repr(o)) for o in gc.get_objects())
"""


def test_expected_outputs_stay_outside() -> None:
    tests = InputOutputTests("call", [[1], [1]], [False, "qwzx"])
    found = judge(LOOKS_FOR_QWZX + "def f(x): return found()", tests, LIMITS, checker="legacy", entry_point="f")
    assert (found.outcome, found.n_passed) == (F, 1)


# ------------------------------------------------------------------------------------------------ published labels

APPS = Path(__file__).parents[3] / "shared" / "data" / "apps" / "folders"
needs_apps = pytest.mark.skipif(not APPS.exists(), reason="the shared APPS folders are not there")
RESULT = {-2: C, -1: R, False: F, True: P}


@needs_apps
@pytest.mark.parametrize("folder", ["0001", "2404"])
def test_labels_that_coderl_published(folder: str) -> None:
    data = json.loads((APPS / folder / "input_output.json").read_text())
    name = data.get("fn_name")
    tests = InputOutputTests("call" if name else "stdin", data["inputs"], data["outputs"])
    published = json.loads((APPS / folder / "gen_solutions.json").read_text())
    jobs = [Job(number, row["code"], tests, name) for number, row in enumerate(published)]
    for (_, found), row in zip(judge_many(jobs, Limits(cpu_seconds=4), checker="legacy"), published, strict=True):
        label = next(outcome for result, outcome in RESULT.items() if result is row["result"] or (result < 0 and result == row["result"]))
        assert (found.outcome, found.error_class) == (label, row["error_type"] if label in (C, R) else None)


@needs_apps
@pytest.mark.parametrize("folder", ["0001"])
def test_the_wrapped_source_that_coderl_published(folder: str) -> None:
    (row,) = json.loads((APPS / folder / "baseline_solutions.json").read_text())
    _, begin, body = row["code"].partition("stdin = sys.stdin\nstdout = sys.stdout\ndef code():\n")
    program = "\n".join(line.removeprefix("\t") for line in body.split("\n"))[:-1]
    assert rewrite_stdin(program).text == "import sys\n" + begin + body


# ------------------------------------------------------------------------------------------------ prelude and numpy


def test_prelude_for_strict() -> None:
    program = "print(gcd(int(input()) * 2, 0) + len(heapq.nsmallest(0, [])) + fractions.Fraction(0) + fabs(0) * 0)"
    tests = InputOutputTests("stdin", ["21"], ["42.0"])
    assert judge(program, tests, LIMITS).error_class == "nameerror"
    assert judge(program, tests, LIMITS, prelude="apps").outcome == P
    future = "from __future__ import annotations\ndef f(x: Nothing) -> List[int]: return sqrt(x)\nprint(int(f(1764)))\nprint(1 / 0)"
    found = judge(future, InputOutputTests("stdin", [""], ["42"]), LIMITS, prelude="apps")
    assert (found.outcome, found.error_class, found.error_line) == (R, "zerodivisionerror", 4)
    calls = InputOutputTests("call", [[[1, 2]]], [3])
    assert judge("def f(x: List[int]): return sum(accumulate(x)) - 1", calls, LIMITS, prelude="apps", entry_point="f").outcome == P
    asserts = AssertTests(["assert f(6) == 2", "assert abs(f(6) - 2) < 1e-9", "check(f)"], "def check(f):\n    assert f(8) == 4")
    assert judge("def f(x): return gcd(x, 4)", asserts, LIMITS, prelude="apps").outcome == P
    # The program itself stays untouched: it is the main module with a real standard input.
    main = "import sys\nif __name__ == '__main__': print(int(sys.stdin.buffer.read()) * 2)"
    assert judge(main, DOUBLE, LIMITS, prelude="apps").outcome == P


def test_numpy_is_there_for_programs_that_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    real = Worker._start

    def counted(self: Worker) -> None:
        started.append(self.numpy)
        real(self)

    monkeypatch.setattr(Worker, "_start", counted)
    limits = Limits(cpu_seconds=3, memory_mb=300)
    uses = "import numpy as np\nfrom numpy.linalg import det\nprint(int(np.array([int(input())]).sum() * 2 * round(det(np.eye(3)))))"
    assert judge(uses, DOUBLE, limits).error_class == "modulenotfounderror"
    assert judge("print(int(input()) * 2)", DOUBLE, limits, checker="legacy").outcome == P
    assert started == [False]  # "input" is no mention of np
    for checker in ("strict", "legacy"):
        assert judge(uses, DOUBLE, limits, checker=checker, prelude="apps").outcome == P
        assert judge("print(np.array([int(input())]).sum() * 2)", DOUBLE, limits, checker=checker, prelude="apps").outcome == P
    assert started == [False, True]
    program = "def f(x): return np.int64(x) * 2"
    calls = InputOutputTests("call", [[21]], [42])
    assert judge(program, calls, limits, checker="legacy", entry_point="f").outcome == P
    assert judge(program, calls, limits, prelude="apps", entry_point="f").outcome == P
    # The official checker asks an array for its truth, which it has not.
    arrays = InputOutputTests("call", [[1]], [[1, 1]])
    assert judge("def f(x): return np.array([x, x])", arrays, limits, checker="legacy", entry_point="f").outcome == R
    assert judge("def f(x): return np.array([x, x])", arrays, limits, prelude="apps", entry_point="f").outcome == F
    # Behind the same walls, the same every time, and its memory is not the program's.
    walls = "import os\nx = np.random.rand()\ntry:\n    open(np.__file__, 'w')\nexcept OSError: print(int(input()) * 2)\nassert not os.path.exists('/proc/self') and x < 1 and sorted(os.listdir('/packages'))[0] == 'numpy'"
    found = judge(walls, DOUBLE, limits, prelude="apps")
    assert (found.outcome, found.memory_mb < 20) == (P, True)
    random = {
        judge("raise ValueError(np.random.rand(3).tolist())", DOUBLE, Limits(cpu_seconds=s), prelude="apps").error_message for s in (1, 2)
    }
    assert len(random) == 1
    close_workers()


def test_without_numpy_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_numpy_folders", list)
    limits = Limits(cpu_seconds=3, memory_mb=299)
    assert judge("print(np.sum([int(input())]) * 2)", DOUBLE, limits, checker="legacy").error_class == "nameerror"
    assert judge("import numpy\nprint(int(input()) * 2)", DOUBLE, limits, prelude="apps").error_class == "modulenotfounderror"
    assert [uses_numpy(text) for text in ("input()", "np.sum", "import numpy", "inp", "_np")] == [False, True, True, False, False]


# ------------------------------------------------------------------------------------------------ special judges

SUM = "def accepts(input, output, expected):\n    parts = output.split()\n    return len(parts) == 2 and sum(map(int, parts)) == int(input)"


def special(source: str, **fields: Any) -> InputOutputTests:
    return InputOutputTests(**{"kind": "stdin", "inputs": ["10\n", "3\n"], "outputs": ["1 9", "1 2"], "special_judge": source, **fields})


def test_a_special_judge_decides() -> None:
    right, wrong = "n = int(input())\nprint(n - 5, 5)", "n = int(input())\nprint(n - 5, 4 if n == 3 else 5)"
    assert judge(right, special(SUM), LIMITS).outcome == P
    found = judge(wrong, special(SUM), LIMITS)
    assert (found.outcome, found.first_failed_test, found.cpu_seconds < 1) == (F, 1, True)
    assert judge("print(input()[9])", special(SUM), LIMITS).outcome == R
    assert (
        judge(
            "print(1, 2)", special("def accepts(input, output, expected):\n    return output.split() == expected.split()"), LIMITS
        ).n_passed
        == 1
    )
    # The official checker knows no such thing.
    assert judge(right, special(SUM), LIMITS, checker="legacy").outcome == F


def test_a_special_judge_of_calls_gets_values() -> None:
    source = "def accepts(input, output, expected):\n    return isinstance(output, tuple) and sorted(output) == sorted(input[0]) and expected is None"
    tests = special(source, kind="call", inputs=[[[2, 1]], [[3]]], outputs=[None, None])
    assert judge("def f(x): return tuple(x)", tests, LIMITS, entry_point="f").outcome == P
    assert judge("def f(x): return x", tests, LIMITS, entry_point="f").outcome == F
    liar = "class A(tuple):\n    def __eq__(self, other): return True\n    def __iter__(self): return iter([1, 2])\ndef f(x): return A([5])"
    assert judge(liar, tests, LIMITS, entry_point="f").outcome == F
    assert judge("def f(x): return object()", tests, LIMITS, entry_point="f").outcome == F


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def accepts(input, output, expected):\n    return int(output) > 0", "valueerror.*line 2"),
        ("def accepts(input, output, expected):\n    return 1", "must return True or False"),
        ("def accepts(input, output, expected):\n    while True: pass", "timeoutexception"),
        ("def accepts(input, output, expected):\n    raise SystemExit", "systemexit"),
        ("import os\ndef accepts(input, output, expected):\n    os._exit(0)", "without an answer"),
        ("1 / 0\ndef accepts(input, output, expected):\n    return True", "zerodivisionerror"),
        ("import socket\ndef accepts(input, output, expected):\n    socket.socket()", "permissionerror"),
    ],
)
def test_a_wrong_special_judge_is_an_error_of_the_problem(source: str, message: str) -> None:
    jobs = [Job(("mine/7", "print('a b')"), "print('a b')", special(source))]
    with pytest.raises(DataError, match=f"^mine/7: the special judge failed on test 0: .*{message}"):
        list(judge_many(jobs, Limits(cpu_seconds=0.5)))


def test_the_special_judge_is_not_beside_the_program() -> None:
    source = "def accepts(input, output, expected):\n    return output.strip() == 'False' and len('qwzx') == 4"
    assert judge(LOOKS_FOR_QWZX + "print(found())", special(source), LIMITS).outcome == P
    assert judge("mark = ['qwzx']" + LOOKS_FOR_QWZX + "print(found())", special(source), LIMITS).outcome == F  # it does find things
