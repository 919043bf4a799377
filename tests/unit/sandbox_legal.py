"""Legal programs that weak judges fail: everything here works from a shell, and is right."""

# ruff: noqa: E501  (a program is one line)

from __future__ import annotations

from sandbox_programs import CALLS, OK, Case, broken, failed, passed

from coderl.problems import AssertTests, InputOutputTests


def echo(*pairs: tuple[str, str]) -> InputOutputTests:
    return InputOutputTests("stdin", [given for given, _ in pairs], [expected for _, expected in pairs])


CRLF = echo(("21\r\n4\r\n", "42\r\n8\r\n"), ("1\r\n2", "2\n4"))
NO_END = echo(("1 2 3", "6"), ("4", "4\n\n"))
EMPTY = echo(("", ""), ("\n", "  \n"))
TEXT = echo(("naïve 日本 🎉\n", "NAÏVE 日本 🎉"), ("ß\n", "SS"))
LINES = echo(("a\n\nb\n", "3"), ("\n\n\n", "3"), ("x", "1"))
CONTROL = echo(("a\x1ab\n", "3"), ("\x00\x0c\x1a\n", "3"))
BIG = InputOutputTests("stdin", ["1\n" * 200_000, "2 " * 300_000], ["200000", "600000"])
VALUES = {
    "big": InputOutputTests("call", [[200_000], [3]], [list(range(200_000)), [0, 1, 2]]),
    "grid": InputOutputTests("call", [[300]], [[list(range(300)) for _ in range(300)]]),
    "integer": InputOutputTests("call", [[50_000]], [10**50_000]),
    "float": InputOutputTests("call", [[1, 3]], [0.3333333]),
    "text": InputOutputTests("call", [["naïve 🎉"]], ["🎉 evïan"]),
    "dict": InputOutputTests("call", [["aab"]], [{"a": 2, "b": 1}]),
    "none": InputOutputTests("call", [[0]], [None]),
    "nested": InputOutputTests("call", [[80]], [eval("[" * 80 + "]" * 80)]),
}


def check(*lines: str) -> AssertTests:
    return AssertTests(["check(f)"], "def check(candidate):\n" + "".join(f"    {line}\n" for line in lines))


READING = [
    passed("carriage returns", "while True:\n    try: print(int(input()) * 2)\n    except EOFError: break", CRLF),
    passed("carriage returns, bytes", "import sys\nprint(*(int(x) * 2 for x in sys.stdin.buffer.read().split()), sep='\\n')", CRLF),
    passed("no newline at the end of input", "import sys\nprint(sum(map(int, sys.stdin.readline().split())))", NO_END),
    passed("empty input", "import sys\nassert sys.stdin.read().strip() == ''", EMPTY),
    passed("end of file, iterated", "import sys\nprint(end=''.join(sys.stdin).strip())", EMPTY),
    passed("unicode", "print(input().upper())", TEXT),
    passed("unicode, decoded by hand", "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read().decode().upper().encode())", TEXT),
    passed(
        "unicode, reconfigured",
        "import sys\nsys.stdin.reconfigure(encoding='utf-8')\nsys.stdout.reconfigure(encoding='utf-8', errors='strict')\nprint(input().upper())",
        TEXT,
    ),
    passed("empty lines", "import sys\nprint(len(sys.stdin.readlines()))", LINES),
    passed("empty lines, counted by readline", "import sys\nn = 0\nwhile sys.stdin.readline(): n += 1\nprint(n)", LINES),
    passed("iter with a sentinel", "import sys\nprint(len(list(iter(sys.stdin.readline, ''))))", LINES),
    passed("Ctrl-Z and NUL are characters", "print(len(input()))", CONTROL),
    passed("big input, line by line", "import sys\nprint(sum(int(x) for line in sys.stdin for x in line.split()))", BIG),
    passed(
        "big input, os.read",
        "import os\nd = b''\nwhile True:\n    c = os.read(0, 1 << 16)\n    if not c: break\n    d += c\nprint(sum(map(int, d.split())))",
        BIG,
    ),
    passed(
        "big input, mmap",
        "import mmap, os\nm = mmap.mmap(0, os.fstat(0).st_size, prot=mmap.PROT_READ)\nprint(sum(map(int, m[:].split())))",
        BIG,
    ),
    passed(
        "big input, fast reader",
        "import os, io, sys\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\nprint(sum(int(x) for line in iter(input, b'') for x in line.split()))",
        BIG,
    ),
    passed("input that is a name of the program", "import sys\ninput = sys.stdin.readline\nprint(int(input()) * 2)"),
    passed("sys.__stdin__", "import sys\nprint(int(sys.__stdin__.readline()) * 2)"),
    passed("standard input twice, rewound", "import sys\nsys.stdin.read()\nsys.stdin.seek(0)\n" + OK),
    passed("standard input closed afterwards", "import sys\nn = int(input())\nsys.stdin.close()\nprint(n * 2)"),
    passed("codecs reader", "import codecs, sys\nprint(int(codecs.getreader('utf-8')(sys.stdin.buffer).readline()) * 2)"),
    passed("fileinput with a dash", "import fileinput\nfor line in fileinput.input('-'): print(int(line) * 2)"),
    passed("csv", "import csv, sys\nfor row in csv.reader(sys.stdin): print(int(row[0]) * 2)"),
    passed("peek", "import sys\nassert sys.stdin.buffer.peek(1)[:1].isdigit()\n" + OK),
    passed("select", "import select, sys\nassert select.select([sys.stdin], [], [], 1)[0]\n" + OK),
    passed("pathlib on /dev/stdin", "from pathlib import Path\nprint(int(Path('/dev/stdin').read_text()) * 2)"),
    passed("is no terminal", "import sys, os\nassert not sys.stdin.isatty() and not os.isatty(1)\n" + OK),
    passed("more input than is read", "print(int(open(0).readline()) * 2)"),
]

WRITING = [
    passed(
        "write returns the number of characters",
        "import sys\nn = int(input())\nassert sys.stdout.write('') == 0 and sys.stdout.write('  ') == 2\nprint(n * 2)",
    ),
    passed("print to a second file on 1", "import os\nn = int(input())\nwith os.fdopen(os.dup(1), 'w') as f: print(n * 2, file=f)"),
    passed("print with file=None", "print(int(input()) * 2, file=None)"),
    passed("standard output is None", "import sys\nn = int(input())\nprint(n * 2)\nsys.stdout.flush()\nsys.stdout = None\nprint('x')"),
    passed(
        "redirected",
        "import contextlib, io\nb = io.StringIO()\nwith contextlib.redirect_stdout(b): print(int(input()) * 2)\nprint(b.getvalue(), end='')",
    ),
    passed("unbuffered", "import os, sys\nsys.stdout = os.fdopen(1, 'wb', 0)\nsys.stdout.write(b'%d' % (int(input()) * 2))"),
    passed("line ends of Windows", "import sys\nsys.stdout.reconfigure(newline='\\r\\n')\n" + OK),
    passed("output in pieces", "import sys\nfor c in str(int(input()) * 2): sys.stdout.write(c)"),
    passed(
        "bytes and text in order",
        "import sys\nn = int(input())\nsys.stdout.write(' ')\nsys.stdout.flush()\nsys.stdout.buffer.write(b'%d\\n' % (n * 2))",
    ),
    passed("standard error closed", "import sys\nsys.stderr.close()\n" + OK),
    passed("standard error in between", "import sys\nprint('debug', file=sys.stderr)\nsys.stderr.write('x')\n" + OK),
    passed("logging", "import logging\nlogging.basicConfig(level=logging.DEBUG)\nlogging.info('x')\n" + OK),
    passed("pprint", "from pprint import pprint\npprint(int(input()) * 2)"),
    passed("colours of the terminal", "import os\nos.system('clear')\n" + OK),
    passed("9 MB in one line", "n = int(input())\nprint(n * 2, ' ' * 9_000_000)"),
    passed("integer of 50,000 digits", "n = int(input())\nprint(str(10 ** 50000)[:1] and n * 2)\nassert int('9' * 50000) > 0"),
    passed(
        "prints an integer of 20,000 digits",
        "n = int(input())\nprint(10 ** 20000 * n)",
        InputOutputTests("stdin", ["7"], ["7" + "0" * 20000]),
    ),
    passed(
        "floats as Python writes them",
        "x = float(input())\nprint(x, x / 3, 1e22, -0.0, sep='\\n')",
        echo(("0.1", "0.1\n0.03333333333333333\n1e+22\n-0.0"), ("3", "3.0\n1.0\n1e22\n0.0")),
    ),
]

LANGUAGE = [
    passed("form feed and vertical space", "import sys\n\x0c\ndef f():\n    return int(input())\n\x0cprint(f() * 2)"),
    passed("tabs", "def f(n):\n\tif n:\n\t\treturn n * 2\nprint(f(int(input())))"),
    passed("continued lines", "n = \\\n    int(input())\nprint(n \\\n * 2)"),
    passed("no newline at the end of source", "print(int(input()) * 2)#"),
    passed("only carriage returns", "n = int(input())\rprint(n * 2)\r"),
    passed("coding line of Latin-1, in UTF-8", "# -*- coding: utf-8 -*-\ns = 'é'\n" + OK),
    passed("coding line that nobody knows, in a text that is text", "# -*- coding: undefined-codec -*-\n" + OK),
    passed("names in unicode", "número = int(input())\nprint(número * 2)"),
    passed("walrus, match, f-string", "match [n := int(input())]:\n    case [int(x)]: print(f'{x * 2}')"),
    passed("doc string and future import", "'''doc'''\nfrom __future__ import annotations, division\nassert __doc__ == 'doc'\n" + OK),
    passed(
        "main module's names",
        "import sys\nassert __name__ == '__main__' and sys.modules['__main__'].__dict__ is globals() and __package__ is None and __spec__ is None\n"
        + OK,
    ),
    passed("arguments", "import sys\nassert len(sys.argv) == 1 and sys.argv[0].endswith('.py')\n" + OK),
    passed("argument parser", "import argparse\nargparse.ArgumentParser().parse_args()\n" + OK),
    passed("its own file", "import os\nassert 'print(' in open(__file__).read() and os.path.exists(os.path.abspath(__file__))\n" + OK),
    passed(
        "its own source",
        "import inspect\ndef double(n):\n    return n * 2\nassert 'n * 2' in inspect.getsource(double)\nprint(double(int(input())))",
    ),
    passed(
        "its own traceback", "import traceback\ntry: 1 / 0\nexcept ZeroDivisionError: assert 'try: 1 / 0' in traceback.format_exc()\n" + OK
    ),
    passed("module in its own folder", "open('helper.py', 'w').write('x = 2')\nimport helper\nprint(int(input()) * helper.x)"),
    passed(
        "current folder",
        "import os\nassert os.listdir('.') == [] or os.listdir('.') == ['solution.py']\nos.mkdir('d')\nos.chdir('d')\n" + OK,
        InputOutputTests("stdin", ["21"], ["42"]),
    ),
    passed(
        "pickles its own class",
        "import pickle\nclass A:\n    def __init__(s, n): s.n = n\nprint(pickle.loads(pickle.dumps(A(int(input())))).n * 2)",
    ),
    passed(
        "dataclass, enumeration, protocol",
        "from dataclasses import dataclass, field\nfrom enum import Enum, auto\nfrom typing import Protocol, TypedDict, NamedTuple, Generic, TypeVar\nclass E(Enum):\n    A = auto()\n@dataclass(order=True, slots=True)\nclass P:\n    n: int\n    e: E = field(default=E.A, compare=False)\nclass T(NamedTuple):\n    n: int\nprint(T(P(int(input())).n).n * 2)",
    ),
    passed("type hints read at run time", "import typing\nclass A:\n    x: 'int'\nassert typing.get_type_hints(A) == {'x': int}\n" + OK),
    passed(
        "metaclass and descriptors",
        "class M(type):\n    def __call__(c, *a):\n        return super().__call__(*a)\nclass A(metaclass=M):\n    n = property(lambda s: int(input()))\nprint(A().n * 2)",
    ),
    passed(
        "decimal and fraction",
        "from decimal import Decimal\nfrom fractions import Fraction\nn = Decimal(input())\nprint(int(Fraction(n) * 2))",
    ),
    passed("class body that prints", "class A:\n    print(int(input()) * 2)"),
    passed(
        "nested functions and nonlocal",
        "def f():\n    n = 0\n    def g():\n        nonlocal n\n        n = int(input())\n    g()\n    return n\nprint(f() * 2)",
    ),
    passed("exec with a namespace", "d = {}\nexec('def f(n): return n * 2', d)\nprint(d['f'](int(input())))"),
    passed("eval of the input", "print(eval(input()) * 2)"),
    passed(
        "generator that is not exhausted", "def g():\n    try:\n        while True: yield 1\n    finally: pass\nx = g()\nnext(x)\n" + OK
    ),
    passed("generator with a finally that prints", "def g(n):\n    try: yield\n    finally: print(n * 2)\nx = g(int(input()))\nnext(x)"),
    passed(
        "reference cycles with destructors", "class A:\n    def __del__(s): s.a = None\nfor _ in range(1000):\n    a = A(); a.a = a\n" + OK
    ),
    passed("keys that are no names", "globals()[1] = globals()[None] = 2\nglobals()[(1,)] = open\n" + OK),
    passed("objects that have no class", "class A:\n    __class__ = property(lambda s: 1 / 0)\na = A()\n" + OK),
    passed("a destructor that changes the module", "class A:\n    def __del__(s): globals().clear()\na = A()\nb = A()\n" + OK),
    passed("a destructor that raises", "class A:\n    def __del__(s): 1 / 0\na = A()\n" + OK),
    passed(
        "recursion in a destructor",
        "class N:\n    def __init__(s, n): s.n = n\n    def __del__(s): s.n = None\nx = None\nfor _ in range(20000): x = N(x)\n" + OK,
    ),
    passed("deep data", "x = None\nfor _ in range(100000): x = (x,)\n" + OK),
    passed(
        "deep recursion, with a bigger stack",
        "import sys, resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 28, resource.RLIM_INFINITY))\nsys.setrecursionlimit(1 << 20)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nassert f(50000) == 50000\n"
        + OK,
    ),
    passed("recursion limit lowered", "import sys\nsys.setrecursionlimit(60)\n" + OK),
    passed(
        "caches",
        "from functools import lru_cache, cache\n@cache\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)\nfor i in range(400): f(i)\n"
        + OK,
    ),
    passed("memory view and array", "from array import array\na = array('q', [int(input())])\nprint(memoryview(a)[0] * 2)"),
    passed("set order is any order", "print(sum({int(input()), 0}) * 2)"),
    passed("random with a seed", "import random\nrandom.seed(7)\nx = random.random()\nrandom.seed(7)\nassert x == random.random()\n" + OK),
    passed(
        "secrets and uuid",
        "import secrets, uuid\nassert secrets.token_hex(4) != secrets.token_hex(4) and uuid.uuid4() != uuid.uuid4()\n" + OK,
    ),
    passed(
        "clock",
        "import time, datetime\na = time.perf_counter()\ntime.sleep(0.01)\nassert time.perf_counter() - a >= 0.01 and datetime.datetime.now().year >= 2024\n"
        + OK,
    ),
    passed("locale", "import locale\nlocale.setlocale(locale.LC_ALL, '')\n" + OK),
    passed(
        "database in memory and in a file",
        "import sqlite3\nfor name in (':memory:', 'x.db'):\n    c = sqlite3.connect(name)\n    c.execute('create table if not exists t (n)')\n    c.execute('insert into t values (1)')\n    c.commit()\n    c.close()\n"
        + OK,
    ),
    passed(
        "compression",
        "import zlib, bz2, lzma, gzip\nassert all(m.decompress(m.compress(b'x' * 99)) == b'x' * 99 for m in (zlib, bz2, lzma, gzip))\n"
        + OK,
    ),
    passed(
        "unit tests of its own",
        "import unittest\nclass T(unittest.TestCase):\n    def test(s): s.assertEqual(1, 1)\nunittest.main(exit=False, argv=['x'])\n" + OK,
    ),
    passed(
        "doctest",
        "import doctest\ndef f(n):\n    '''\n    >>> f(2)\n    4\n    '''\n    return n * 2\nassert doctest.testmod().failed == 0\nprint(f(int(input())))",
    ),
    passed(
        "warnings as errors, caught",
        "import warnings\nwarnings.simplefilter('error')\ntry: warnings.warn('x')\nexcept UserWarning: pass\n" + OK,
    ),
    passed("audit hooks and tracing", "import sys\nsys.addaudithook(lambda *a: None)\nsys.settrace(lambda *a: None)\n" + OK),
    passed("garbage collector off", "import gc\ngc.disable()\ngc.freeze()\n" + OK),
    passed("patched print", "import builtins\nold = print\nbuiltins.print = lambda *a, **k: old(*a, **k, flush=True)\n" + OK),
    broken("numpy is not there, and says so", "import numpy as np\n" + OK, "modulenotfounderror"),
    failed("quotes around the answer", "print(repr(str(int(input()) * 2)))"),
]

SIDE_BY_SIDE = [
    passed(
        "threads with a queue",
        "import threading, queue\nq = queue.Queue()\nt = threading.Thread(target=lambda: q.put(int(input()) * 2))\nt.start()\nprint(q.get(timeout=5))\nt.join()",
    ),
    passed("timer", "import threading\nn = int(input())\nthreading.Timer(0.01, print, (n * 2,)).start()"),
    passed(
        "thread pool, mapped",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as p: print(sum(p.map(int, [input()] * 2)))",
    ),
    passed(
        "thread pool never shut down",
        "from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(2)\np.submit(lambda: print(int(input()) * 2))",
    ),
    passed(
        "process pool",
        "from concurrent.futures import ProcessPoolExecutor\ndef f(n): return n * 2\nif __name__ == '__main__':\n    with ProcessPoolExecutor(2) as p: print(list(p.map(f, [int(input())]))[0])",
    ),
    passed(
        "process with a queue",
        "import multiprocessing as m\ndef f(q, n): q.put(n * 2)\nif __name__ == '__main__':\n    q = m.Queue()\n    p = m.Process(target=f, args=(q, int(input())))\n    p.start()\n    print(q.get())\n    p.join()",
    ),
    passed(
        "process that is terminated",
        "import multiprocessing as m, time\np = m.Process(target=time.sleep, args=(60,))\np.start()\np.terminate()\np.join()\nassert p.exitcode == -15\n"
        + OK,
    ),
    passed(
        "pipe between two processes",
        "import os\nr, w = os.pipe()\nn = int(input())\nif os.fork() == 0:\n    os.write(w, b'%d' % (n * 2))\n    os._exit(0)\nos.wait()\nprint(os.read(r, 99).decode())",
    ),
    passed(
        "shared value",
        "import multiprocessing as m\nv = m.Value('i', 0)\ndef f(n): v.value = n * 2\np = m.Process(target=f, args=(int(input()),))\np.start()\np.join()\nprint(v.value)",
    ),
    passed(
        "asyncio with threads",
        "import asyncio\nasync def main():\n    a, b = await asyncio.gather(asyncio.to_thread(int, input()), asyncio.sleep(0.01, 2))\n    print(a * b)\nasyncio.run(main())",
    ),
    passed(
        "asyncio time-out",
        "import asyncio\nasync def main():\n    try: await asyncio.wait_for(asyncio.sleep(60), 0.01)\n    except asyncio.TimeoutError: print(int(input()) * 2)\nasyncio.run(main())",
    ),
    passed(
        "event loop never closed",
        "import asyncio\nl = asyncio.new_event_loop()\nasync def f(): return int(input()) * 2\nprint(l.run_until_complete(f()))",
    ),
    passed("socket pair", "import socket\na, b = socket.socketpair()\na.sendall(input().encode())\na.close()\nprint(int(b.recv(99)) * 2)"),
    passed("subprocess refused, caught", "import subprocess\ntry: subprocess.run(['true'])\nexcept OSError: pass\n" + OK),
    passed(
        "semaphores and barriers",
        "import threading\nb = threading.Barrier(2)\ndef f():\n    b.wait()\nt = threading.Thread(target=f)\nt.start()\nb.wait()\nt.join()\n"
        + OK,
    ),
    passed(
        "local data of threads",
        "import threading, contextvars\nd = threading.local()\nd.n = int(input())\nc = contextvars.ContextVar('c', default=2)\nprint(d.n * c.get())",
    ),
]

RETURNED = [
    passed("list of 200,000 numbers", "def f(n): return list(range(n))", VALUES["big"]),
    passed("grid of 90,000 numbers", "def f(n): return [list(range(n)) for _ in range(n)]", VALUES["grid"]),
    passed("integer of 50,000 digits, returned", "def f(n): return 10 ** n", VALUES["integer"]),
    passed("float within the tolerance", "def f(a, b): return a / b", VALUES["float"]),
    passed("text with characters of all planes", "def f(s): return s[::-1]", VALUES["text"]),
    passed("counter", "from collections import Counter\ndef f(s): return Counter(s)", VALUES["dict"]),
    passed(
        "default dict",
        "from collections import defaultdict\ndef f(s):\n    d = defaultdict(int)\n    for c in s: d[c] += 1\n    return d",
        VALUES["dict"],
    ),
    passed("nothing", "def f(x): pass", VALUES["none"]),
    passed("nested to depth 80", "def f(n):\n    a = []\n    for _ in range(n - 1): a = [a]\n    return a", VALUES["nested"]),
    passed("a lambda", "f = lambda x: x * 2", CALLS),
    passed("a partial function", "from functools import partial\nfrom operator import mul\nf = partial(mul, 2)", CALLS),
    passed("an object that can be called", "class F:\n    def __call__(s, x): return x * 2\nf = F()", CALLS),
    passed(
        "a decorated function",
        "from functools import wraps, lru_cache\ndef d(g):\n    @wraps(g)\n    def h(*a): return g(*a)\n    return h\n@d\n@lru_cache\ndef f(x): return x * 2",
        CALLS,
    ),
    passed("a static method", "class Solution:\n    @staticmethod\n    def f(x): return x * 2", CALLS),
    passed("a method that an import hides", "from heapq import merge as f\nclass Solution:\n    def f(s, x): return x * 2", CALLS),
    passed("a function beside a Solution", "def f(x): return x * 2\nclass Solution:\n    def f(s, x): return 0", CALLS),
    passed("an inherited method", "class B:\n    def f(s, x): return x * 2\nclass Solution(B): pass", CALLS),
    passed("a generator made a list", "def f(x): return sum(y for y in [x, x])", CALLS),
    passed("a function that keeps state", "seen = {}\ndef f(x): return seen.setdefault(x, x * 2)", CALLS),
    passed(
        "decimal and fraction in asserts",
        "from decimal import Decimal\nfrom fractions import Fraction\ndef f(x): return Decimal(x) if x > 1 else Fraction(1, 2)",
        AssertTests(
            ["assert f(2) == 2", "assert f(1) == 0.5", "assert f(3) == Decimal('3')", "assert float(f(1)) == 0.5"],
            "from decimal import Decimal",
        ),
    ),
    passed(
        "deque, range, dates in asserts",
        "from collections import deque\nimport datetime\ndef f(x): return {1: deque([1]), 2: range(3), 3: datetime.date(2024, 1, 2)}[x]",
        AssertTests(
            [
                "assert f(1) == deque([1])",
                "assert f(2) == range(3)",
                "assert f(3) == datetime.date(2024, 1, 2)",
                "assert list(f(2)) == [0, 1, 2]",
                "assert f(3).year == 2024",
            ],
            "from collections import deque\nimport datetime",
        ),
    ),
    passed(
        "keys of a dict in asserts", "def f(x): return {1: 2}.keys()", AssertTests(["assert set(f(1)) == {1}", "assert list(f(1)) == [1]"])
    ),
    passed(
        "map and generator in asserts",
        "def f(x): return map(str, range(x))\ndef g(x): yield from range(x)",
        AssertTests(["assert list(f(2)) == ['0', '1']", "assert sum(g(3)) == 3", "assert next(g(1)) == 0"]),
    ),
    passed(
        "own class in asserts",
        "class P:\n    def __init__(s, x): s.x = x\n    def twice(s): return s.x * 2\n    def __len__(s): return s.x",
        AssertTests(
            [
                "assert P(3).x == 3",
                "assert P(3).twice() == 6",
                "assert len(P(4)) == 4",
                "p = P(5)\nassert p.x == 5\np.x = 7\nassert p.twice() == 14",
            ]
        ),
    ),
]

CHECKS = [
    passed("check with a loop", "def f(x): return x + 1", check("for i in range(300):", "    assert candidate(i) == i + 1")),
    passed(
        "check with variables", "def f(a): return sorted(a)", check("a = [3, 1]", "b = candidate(a)", "assert b == [1, 3] and a == [3, 1]")
    ),
    passed(
        "check of a function that sorts in place",
        "def f(a): a.sort()",
        check("a = [3, 1]", "assert candidate(a) is None", "assert a == [1, 3]"),
    ),
    failed(
        "check of a function that does not sort in place",
        "def f(a): return sorted(a)",
        check("a = [3, 1]", "candidate(a)", "assert a == [1, 3]"),
    ),
    passed(
        "check that expects an exception",
        "def f(x):\n    if x < 0: raise ValueError('negative')\n    return x",
        check(
            "try:",
            "    candidate(-1)",
            "    assert False",
            "except ValueError as e:",
            "    assert 'negative' in str(e)",
            "assert candidate(2) == 2",
        ),
    ),
    failed(
        "check whose exception does not come",
        "def f(x): return x",
        check("try:", "    candidate(-1)", "    assert False", "except ValueError:", "    pass"),
    ),
    passed(
        "check that feeds results back",
        "def f(x): return x // 2 if x % 2 == 0 else 3 * x + 1",
        check("n, steps = 7, 0", "while n != 1:", "    n, steps = candidate(n), steps + 1", "assert steps == 16"),
    ),
    passed("check with a function for the program", "def f(g, x): return g(g(x))", check("assert candidate(lambda y: y + 1, 3) == 5")),
    failed(
        "check with a function, wrong",
        "def f(g, x): return g(x)",
        check("for i in range(3):", "    assert candidate(lambda y: y + i + 1, 3) == 5 + i"),
    ),
    passed(
        "check of an object's methods",
        "class Stack:\n    def __init__(s): s.a = []\n    def push(s, x): s.a.append(x)\n    def pop(s): return s.a.pop()",
        AssertTests(
            ["check(Stack)"],
            "def check(candidate):\n    s = candidate()\n    for i in range(3): s.push(i)\n    assert [s.pop() for _ in range(3)] == [2, 1, 0]\n    assert s.a == []",
        ),
    ),
    failed(
        "check of an object's methods, wrong",
        "class Stack:\n    def __init__(s): s.a = []\n    def push(s, x): s.a.append(x)\n    def pop(s): return s.a.pop(0)",
        AssertTests(
            ["check(Stack)"],
            "def check(candidate):\n    s = candidate()\n    for i in range(3): s.push(i)\n    assert [s.pop() for _ in range(3)] == [2, 1, 0]",
        ),
    ),
    passed(
        "check with a generator",
        "def f(n): yield from range(n)",
        check("assert list(candidate(3)) == [0, 1, 2]", "assert [x for x in candidate(2)] == [0, 1]"),
    ),
    passed(
        "check of a closure", "def f(n): return lambda x: x + n", check("g = candidate(2)", "assert g(3) == 5 and candidate(1)(1) == 2")
    ),
    passed(
        "check with another function of the program",
        "def encode(s): return s[::-1]\ndef f(s): return s[::-1]",
        check(
            "import random",
            "for _ in range(30):",
            "    s = ''.join(random.choice('ab') for _ in range(5))",
            "    assert candidate(encode(s)) == s",
        ),
    ),
    passed(
        "check with a helper of its own",
        "def f(x): return x * 1.0000000001",
        AssertTests(
            ["check(f)"],
            "def close(a, b): return abs(a - b) < 1e-6\n\ndef check(candidate):\n    assert close(candidate(2), 2)\n    assert close(candidate(3), 3)",
        ),
    ),
    passed(
        "check defined in the test itself",
        "def f(x): return x * 2",
        AssertTests(["def check(candidate):\n    assert candidate(1) == 2\n\ncheck(f)"]),
    ),
    passed("several asserts in one test", "def f(x): return x * 2", AssertTests(["assert f(1) == 2\nassert f(2) == 4; assert f(3) == 6"])),
    passed(
        "METADATA and a doc string",
        "def f(x): return x * 2",
        AssertTests(
            ["check(f)"],
            "METADATA = {'author': 'x', 'dataset': 'test'}\n\n\ndef check(candidate):\n    '''doc'''\n    print\n    assert True, 'fine'\n    assert candidate(1) == 2, 'message'\n",
        ),
    ),
    failed("constant assert that is false", "def f(x): return x * 2", check("assert candidate(1) == 2", "assert False, 'never right'")),
    broken("check of a function that is not there", "def g(x): return x", "nameerror", check("assert candidate(1) == 1")),
    broken("check that meets None", "def f(x): pass", "typeerror", check("assert candidate(1) + 1 == 2")),
    broken(
        "error in the third call",
        "def f(x): return 6 // (2 - x) if x else 3",
        "zerodivisionerror",
        check("assert candidate(0) == 3", "assert candidate(1) == 6", "assert candidate(2) == 0"),
    ),
    failed(
        "wrong in the first call, error in the third",
        "def f(x): return 6 // (2 - x) if x else 4",
        check("assert candidate(0) == 3", "assert candidate(1) == 6", "assert candidate(2) == 0"),
    ),
    failed(
        "wrong in the first call, endless in the third",
        "def f(x):\n    while x == 2: pass\n    return 7",
        check("assert candidate(0) == 3", "assert candidate(2) == 0"),
    ),
    passed(
        "keyword arguments, one Solution",
        "class Solution:\n    n = 0\n    def f(s, x, k=1):\n        s.n += 1\n        return [x * k, s.n]",
        AssertTests(
            ["check(Solution().f)"],
            "def check(candidate):\n    assert candidate(x = 2) == [2, 1]\n    assert candidate(x = 2, k = 3) == [6, 2]",
        ),
    ),
    passed(
        "entry point named like a builtin",
        "def f(*a): return 1\ndef sum(a, b): return a + b",
        AssertTests(["check(sum)"], "def check(candidate):\n    assert candidate(1, 2) == 3"),
    ),
    passed(
        "asserts with all and any",
        "def f(n): return [n, n + 1]",
        AssertTests(
            [
                "assert all(x > 0 for x in f(1))",
                "assert any(x == 2 for x in f(1)) and len(f(3)) == 2",
                "assert [y * 2 for y in f(2)] == [4, 6]",
                "assert not any(f(i) == [] for i in range(3))",
            ]
        ),
    ),
    failed("asserts with all, wrong", "def f(n): return [n, -n]", AssertTests(["assert all(x > 0 for x in f(1))"])),
    passed(
        "asserts with types",
        "def f(n): return [str(n)]",
        AssertTests(["assert isinstance(f(1), list)", "assert type(f(1)[0]) is str", "assert f(1) != ['2'] and '1' in f(1)"]),
    ),
    passed(
        "tree of the program's own class",
        "class Node:\n    def __init__(s, v, n=None): s.v, s.n = v, n\ndef f(head):\n    new = None\n    while head: new, head = Node(head.v, new), head.n\n    return new",
        AssertTests(
            ["check(f)"],
            "def build(*vs):\n    h = None\n    for v in reversed(vs): h = Node(v, h)\n    return h\n\ndef values(h):\n    out = []\n    while h:\n        out.append(h.v)\n        h = h.n\n    return out\n\ndef check(candidate):\n    assert values(candidate(build(1, 2, 3))) == [3, 2, 1]\n    assert values(candidate(None)) == []",
        ),
    ),
]

CASES: list[Case] = READING + WRITING + LANGUAGE + SIDE_BY_SIDE + RETURNED + CHECKS
