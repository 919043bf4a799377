"""Programs with the outcome that they must get and why: attacks, and legal things that weak judges fail.

Standard-input programs are judged on the tests DOUBLE (print twice the number); the others name their kind.
"""

# ruff: noqa: E501  (a program is one line)

from __future__ import annotations

from dataclasses import dataclass

from coderl.problems import AssertTests, InputOutputTests, Tests

DOUBLE = InputOutputTests("stdin", ["21\n", "4\n", "1000\n"], ["42\n", "8\n", "2000\n"])
CALLS = InputOutputTests("call", [[21], [4], [1000]], [42, 8, 2000])
LISTS = InputOutputTests("call", [[2], [3]], [[0, 1], [0, 1, 2]])
ASSERTS = AssertTests(["assert f(21) == 42", "assert f(4) == 8"])
GUARDED = AssertTests(["check(f)"], "def check(candidate):\n    assert candidate(21) == 42\n    assert candidate(4) == 8")


@dataclass(frozen=True)
class Case:
    name: str
    program: str
    outcome: str
    error_class: str | None = None
    tests: Tests = DOUBLE


def passed(name: str, program: str, tests: Tests = DOUBLE) -> Case:
    return Case(name, program, "passed_test", None, tests)


def failed(name: str, program: str, tests: Tests = DOUBLE) -> Case:
    return Case(name, program, "failed_test", None, tests)


def broken(name: str, program: str, error_class: str | None, tests: Tests = DOUBLE) -> Case:
    return Case(name, program, "runtime_error", error_class, tests)


OK = "print(int(input()) * 2)\n"

LEGAL = [
    passed("plain", OK),
    passed("sys.stdin", "import sys\nfor line in sys.stdin:\n    print(int(line) * 2)"),
    passed("stdin.buffer", "import sys\nsys.stdout.buffer.write(b'%d' % (int(sys.stdin.buffer.readline()) * 2))"),
    passed("open(0)", "print(int(open(0).read()) * 2)"),
    passed("open(0) twice", "a = open(0)\nb = open(0)\nprint(int(a.read()) * 2)"),
    passed("/dev/stdin", "print(int(open('/dev/stdin').read()) * 2)"),
    passed("/dev/stdout", "open('/dev/stdout', 'w').write(str(int(input()) * 2))"),
    passed("os.read", "import os\nos.write(1, str(int(os.read(0, 99)) * 2).encode())"),
    passed("fileinput", "import fileinput\nfor line in fileinput.input():\n    print(int(line) * 2)"),
    passed("main guard", "def main():\n    print(int(input()) * 2)\nif __name__ == '__main__':\n    main()"),
    passed("main module", "import __main__\nx = 2\nprint(int(input()) * __main__.x)"),
    passed("global", "n = 0\ndef f():\n    global n\n    n = int(input())\nf()\nprint(n * 2)"),
    passed("exec", "exec('x = int(input())')\nprint(x * 2)"),
    passed("class comprehension", "class A:\n    n = int(input())\n    m = [i for i in range(3)]\nprint(A.n * 2)"),
    passed("future", "from __future__ import annotations\ndef f(x: Undefined) -> int: return x * 2\nprint(f(int(input())))"),
    passed("late star import", "n = int(input())\nfrom math import *\nprint(floor(n * 2))"),
    passed("no final newline", "print(int(input()) * 2, end='')"),
    passed("text at column 0", 'n = int(input())\ns = """\nabc\n"""\nif 1:\n    t = """\nx"""\nprint(n * 2)'),
    passed("tabs and CRLF", "def f():\r\n\treturn int(input())\r\nprint(f() * 2)\r\n"),
    passed("byte order mark", "\ufeff" + OK),
    passed("coding cookie", "# -*- coding: latin-1 -*-\ns = 'é'\nassert len(s) == 1\n" + OK),
    passed("exit()", OK + "exit()"),
    passed("exit(0)", OK + "exit(0)\nprint('no')"),
    passed("quit()", OK + "quit()"),
    passed("sys.exit", "import sys\n" + OK + "sys.exit()"),
    passed("SystemExit", OK + "raise SystemExit"),
    passed("os._exit(0)", "import os\nprint(int(input()) * 2, flush=True)\nos._exit(0)"),
    passed(
        "thread joined at exit",
        "import threading, time\ndef f():\n    time.sleep(0.01)\n    print(int(input()) * 2)\nthreading.Thread(target=f).start()",
    ),
    passed("daemon thread", "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n" + OK),
    passed(
        "executor", "from concurrent.futures import ThreadPoolExecutor as P\np = P(2)\nprint(p.submit(lambda: int(input()) * 2).result())"
    ),
    passed("atexit", "import atexit\nn = int(input())\natexit.register(lambda: print(n * 2))"),
    passed("unclosed file on 1", "f = open(1, 'w')\nf.write(str(int(input()) * 2))"),
    passed("output left in a cycle", "class A: pass\na = A()\na.a = a\na.f = open(1, 'w')\na.f.write(str(int(input()) * 2))\na.f.flush()"),
    passed(
        "fast output idiom",
        "import sys, io, os\nclass W(io.IOBase):\n    def __init__(s): s.b = io.BytesIO(); s.writable = lambda: True; s.write = s.b.write\n    def flush(s): os.write(1, s.b.getvalue()); s.b.seek(0); s.b.truncate(0)\nsys.stdout = io.TextIOWrapper(W(), write_through=True)\n"
        + OK,
    ),
    passed("closed stdout", "import sys\n" + OK + "sys.stdout.flush()\nsys.stdout.close()"),
    passed("replaced stdin", "import sys, io\nsys.stdin = io.StringIO(sys.stdin.read())\n" + OK),
    passed("closes its descriptors", "import os\nprint(int(input()) * 2, flush=True)\nos.closerange(0, 200)"),
    passed(
        "state left behind",
        "import sys\nif hasattr(sys, 'seen'):\n    print('again')\nelse:\n    sys.seen = 1\n    print(int(input()) * 2)",
    ),
    passed("patched builtins, for itself", "import builtins\nold = print\nbuiltins.print = lambda *a: old(*a)\n" + OK),
    passed("patched len", "import builtins\nn = int(input())\nprint(n * 2)\nbuiltins.len = builtins.isinstance = builtins.type = None"),
    passed(
        "recursion",
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\nassert f(100000) == 100000\n" + OK,
    ),
    passed(
        "recursion in a thread",
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(512 * 1024 * 1024)\ndef g(n):\n    return 0 if n == 0 else 1 + max(map(g, [n - 1]))\ndef f():\n    assert g(20000) == 20000\n    print(int(input()) * 2)\nt = threading.Thread(target=f)\nt.start()\nt.join()",
    ),
    passed("big integer", "n = int(input())\nassert len(str(7 ** 60000)) > 50000\nprint(n * 2)"),
    passed(
        "temporary file",
        "import tempfile\nwith tempfile.TemporaryFile('w+') as f:\n    f.write(input())\n    f.seek(0)\n    print(int(f.read()) * 2)",
    ),
    passed("own file", "open('a.txt', 'w').write(input())\nprint(int(open('a.txt').read()) * 2)"),
    passed("fork", "import os\nn = int(input())\nif os.fork() == 0:\n    print(n * 2, flush=True)\n    os._exit(0)\nos.wait()"),
    passed(
        "multiprocessing",
        "from multiprocessing import Pool\ndef f(n): return n * 2\nif __name__ == '__main__':\n    with Pool(2) as p:\n        print(p.map(f, [int(input())])[0])",
    ),
    passed("asyncio", "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    print(int(input()) * 2)\nasyncio.run(f())"),
    passed("dataclass", "from dataclasses import dataclass\n@dataclass\nclass A:\n    n: int\nprint(A(int(input())).n * 2)"),
    passed("alarm", "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\nsignal.alarm(1)\n" + OK),
    passed("error in a thread", "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()\n" + OK),
    passed("warnings", "s = '\\d'\nimport warnings\nwarnings.warn('x')\n" + OK),
    passed("stderr", "import sys\nprint('x' * 100000, file=sys.stderr)\n" + OK),
    passed("many modules", "import json, hashlib, decimal, fractions, statistics, datetime, sqlite3, zlib, ssl, ctypes, unittest\n" + OK),
    passed("10 MB of output", "n = int(input())\nprint(n * 2)\nprint('\\n' * 9_000_000)"),
    passed("function", "def f(x):\n    return x * 2", CALLS),
    passed("class Solution", "class Solution:\n    def f(self, x):\n        return x * 2", CALLS),
    passed("script that is also a module", "def f(x):\n    return x * 2\nif __name__ == '__main__':\n    print(f(int(input())))", CALLS),
    passed("function that prints", "def f(x):\n    print('debug')\n    return x * 2", CALLS),
    passed("tuple", "def f(n):\n    return tuple(range(n))", LISTS),
    passed("integer subclass", "class I(int):\n    pass\ndef f(x):\n    return I(x * 2)", CALLS),
    passed("float that is whole", "def f(x):\n    return x * 2.0", CALLS),
    passed("assert", "def f(x):\n    return x * 2", ASSERTS),
    passed("check function", "def f(x):\n    return x * 2", GUARDED),
    passed(
        "set-up after program",
        "class Node:\n    def __init__(self, v): self.v = v\ndef f(n): return n.v",
        AssertTests(["assert f(root) == 3"], "root = Node(3)"),
    ),
    passed(
        "module on the right",
        "def f(x): return x * 2",
        AssertTests(["assert f(2) == math.floor(4.5)", "assert abs(f(2) - 4.0) < 1e-9", "assert not f(0)", "assert f(1) in (1, 2)"]),
    ),
    passed("function named like a builtin", "def sum(a, b):\n    return a + b", AssertTests(["assert sum(1, 2) == 3"])),
    passed("call in a comprehension", "def f(x): return x * 2", AssertTests(["assert [f(i) for i in range(3)] == [0, 2, 4]"])),
]

PLAIN_ERRORS = [
    failed("wrong", "print(int(input()) * 3)"),
    failed("empty program", ""),
    failed("white space", " \n\n\t\n"),
    failed("comment", "# print(42)"),
    failed("wrong on the last test", "n = int(input())\nprint(n * 2 if n < 100 else 0)"),
    failed("extra output", OK + "print('done')"),
    failed("prompt", "print(int(input('n: ')) * 2)"),
    broken("NameError", "n = int(input())\nprint(m)", "nameerror"),
    broken("own class", "class MyError(Exception): pass\nraise MyError('x')", "myerror"),
    broken("error after the right output", OK + "1 / 0", "zerodivisionerror"),
    broken("error on a later test", "n = int(input())\nassert n < 100\nprint(n * 2)", "assertionerror"),
    broken("exit status", OK + "exit(1)", "systemexit"),
    broken("exit text", OK + "raise SystemExit('bad')", "systemexit"),
    broken("os._exit(1)", "import os\nprint(int(input()) * 2, flush=True)\nos._exit(1)", "systemexit"),
    broken("end of file", "input()\ninput()", "eoferror"),
    broken("recursion", "def f(): return f()\nf()", "recursionerror"),
    broken("keyboard interrupt", "raise KeyboardInterrupt", "keyboardinterrupt"),
    broken("import", "import numpy_is_not_here", "modulenotfounderror"),
    broken(
        "flush fails",
        "import sys\nclass S:\n    def write(self, s): pass\n    def flush(self): raise ValueError('flush')\nsys.stdout = S()",
        "valueerror",
    ),
    Case("syntax", "print(1", "compile_error", "syntaxerror"),
    Case("indentation", "if 1:\nprint(1)", "compile_error", "indentationerror"),
    Case("python 2", "print 1", "compile_error", "syntaxerror"),
    Case("top-level return", "return 1", "compile_error", "syntaxerror"),
    Case("NUL byte", OK + "\0", "compile_error", "syntaxerror"),
    Case("lone surrogate", "x = '\ud800'\n" + OK, "compile_error", "unicodeencodeerror"),
    Case("nesting", "(" * 500 + ")" * 500, "compile_error", "syntaxerror"),
    Case("deep expression", "x = " + "-" * 100000 + "1", "compile_error", None),
    broken("missing function", "def g(x): return x", "attributeerror", CALLS),
    broken("missing method", "class Solution:\n    def g(self, x): return x", "attributeerror", CALLS),
    broken("missing name in an assert", "def g(x): return x", "nameerror", ASSERTS),
    broken("error at load", "def f(x): return x * 2\n1 / 0", "zerodivisionerror", CALLS),
    broken("wrong arguments", "def f(): return 42", "typeerror", CALLS),
    failed("returns nothing", "def f(x):\n    print(x * 2)", CALLS),
    failed("generator", "def f(n):\n    yield from range(n)", LISTS),
    failed("set", "def f(n):\n    return set(range(n))", LISTS),
    failed("endless value", "def f(n):\n    a = []\n    a.append(a)\n    return a", LISTS),
    failed("wrong assert", "def f(x): return x", ASSERTS),
    failed("wrong check", "def f(x): return x", GUARDED),
    broken("error in a check", "def f(x): assert False", "assertionerror", GUARDED),
    failed("list is no tuple in an assert", "def f(x): return [x]", AssertTests(["assert f(1) == (1,)"])),
]
