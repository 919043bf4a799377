"""Programs that use too much of something, or try to stay: time, memory, processes, files, the compiler's patience."""

# ruff: noqa: E501  (a program is one line)

from __future__ import annotations

from sandbox_programs import ASSERTS, CALLS, GUARDED, LISTS, OK, Case, broken, failed, passed

from coderl.problems import InputOutputTests

ONE = InputOutputTests("stdin", ["21\n"], ["42\n"])
ONE_CALL = InputOutputTests("call", [[21]], [42])

TIME = [
    broken(
        "sorts with a comparison that never ends",
        "class A:\n    def __lt__(s, o):\n        while True: pass\nsorted([A(), A()])",
        "timeoutexception",
        ONE,
    ),
    broken(
        "endless __repr__ of the answer's part",
        "class A(int):\n    def __repr__(s):\n        while True: pass\n    __str__ = __index__ = __int__ = __repr__\ndef f(x):\n    str(A(1))",
        "timeoutexception",
        ONE_CALL,
    ),
    passed(
        "endless __repr__ that nobody asks for",
        "class A(int):\n    def __repr__(s):\n        while True: pass\n    __str__ = __index__ = __int__ = __eq__ = __hash__ = __repr__\ndef f(x): return A(x * 2)",
        ONE_CALL,
    ),
    broken("endless generator made a list", "import itertools\nfor _ in itertools.cycle([0]): pass", "timeoutexception", ONE),
    broken(
        "endless recursion with the error swallowed", "def f():\n    try: f()\n    except RecursionError: f()\nf()", "timeoutexception", ONE
    ),
    broken(
        "catches BaseException around everything",
        "import time\nwhile True:\n    try:\n        for _ in iter(int, 1): pass\n    except BaseException: continue",
        "timeoutexception",
        ONE,
    ),
    broken(
        "alarm whose handler goes on",
        "import signal\nsignal.signal(signal.SIGALRM, lambda *a: signal.setitimer(signal.ITIMER_REAL, 0.001))\nsignal.setitimer(signal.ITIMER_REAL, 0.001)\nwhile True: pass",
        "timeoutexception",
        ONE,
    ),
    broken(
        "SIGXCPU handled, limit raised",
        "import signal, resource\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ntry: resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))\nexcept ValueError: pass\nwhile True: pass",
        "timeoutexception",
        ONE,
    ),
    broken("huge factorial", "import math\nmath.factorial(10**8)", "timeoutexception", ONE),
    broken("huge integer as text", "x = 7 ** 4000000\nstr(x)", "timeoutexception", ONE),
    broken("permutations counted in C", "import itertools\nsum(1 for _ in itertools.permutations(range(14)))", "timeoutexception", ONE),
    broken(
        "search in C",
        "'a' * 10**6 + 'b' in 'a' * 10**7\nimport re\nre.search('(.*)*x', 'y' * 40 + 'z' * 40)\nre.match('(x+x+)+y', 'x' * 64)",
        "timeoutexception",
        ONE,
    ),
    broken("hash collisions", "n = 2**61 - 1\n{i * n: 0 for i in range(200000)}", "timeoutexception", ONE),
    broken("comparison of deep lists", "a, b = [], []\nfor _ in range(30): a, b = [a, a], [b, b]\na == b", "timeoutexception", ONE),
    broken("waits for itself", "import threading\nthreading.Event().wait()", "timeoutexception", ONE),
    broken(
        "waits for a thread that never ends",
        "import threading, time\nt = threading.Thread(target=time.sleep, args=(10**6,))\nt.start()\nt.join()",
        "timeoutexception",
        ONE,
    ),
    broken(
        "thread that nobody joins",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(10**6,)).start()\n" + OK,
        "timeoutexception",
        ONE,
    ),
    broken("waits for a signal", "import signal\nsignal.pause()", "timeoutexception", ONE),
    broken("waits for a pipe", "import os\nr, w = os.pipe()\nos.read(r, 1)", "timeoutexception", ONE),
    broken(
        "waits for a lock on a file",
        "import fcntl, os\na = open('x', 'w')\nif os.fork() == 0:\n    b = open('x')\n    fcntl.flock(b, fcntl.LOCK_EX)\n    os.kill(os.getpid(), 19)\nimport time\ntime.sleep(0.2)\nfcntl.flock(a, fcntl.LOCK_EX)",
        "timeoutexception",
        ONE,
    ),
    broken(
        "waits for a child that stopped",
        "import os\np = os.fork()\nif p == 0: os.kill(os.getpid(), 19)\nos.waitpid(p, 0)",
        "timeoutexception",
        ONE,
    ),
    broken("busy waiting with sched_yield", "import os\nwhile True: os.sched_yield()", "timeoutexception", ONE),
    broken(
        "lets child processes compute for it",
        "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        t = time.process_time()\n        while time.process_time() < t + 0.6: pass\n        os._exit(0)\nfor _ in range(3): os.wait()\n"
        + OK,
        "timeoutexception",
        ONE,
    ),
    broken(
        "asyncio without an end",
        "import asyncio\nasync def f():\n    while True: await asyncio.sleep(0)\nasyncio.run(f())",
        "timeoutexception",
        ONE,
    ),
    broken(
        "endless exit callback in a call's process",
        "def f(x):\n    while True:\n        try: 1 / 0\n        except: pass\n        finally: continue",
        "timeoutexception",
        ONE_CALL,
    ),
    broken("endless check", "def f(x):\n    while True: pass", "timeoutexception", GUARDED),
    broken(
        "endless iteration over the answer",
        "class L(list):\n    pass\ndef f(n):\n    a = L()\n    a.append(a)\n    while a: n = a[0]",
        "timeoutexception",
        LISTS,
    ),
    broken("endless import", "open('endless.py', 'w').write('while True: pass')\nimport endless", "timeoutexception", ONE),
    broken("endless compilation at run time", "while True: compile('x = 1\\n' * 1000, 'x', 'exec')", "timeoutexception", ONE),
    failed("answer of exponential size", "def f(n):\n    a = 'x'\n    for _ in range(18): a = [a, a, a]\n    return a", LISTS),
    passed("sleeps for a moment", "import time\ntime.sleep(0.1)\n" + OK, ONE),
    passed("computes for half of its time", "import time\nwhile time.process_time() < 0.4: pass\n" + OK, ONE),
]

MEMORY = [
    broken("list doubled", "x = [0]\nwhile True: x += x", "memoryerror", ONE),
    broken("text doubled", "x = 'xyz'\nwhile True: x += x", "memoryerror", ONE),
    broken("dict of big keys", "d = {}\nfor i in range(10**9): d[i] = [i] * 10000", "memoryerror", ONE),
    broken("nested frames", "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f([x] * 100000)\nf(0)", None, ONE),
    broken(
        "frames of generators", "def g(x):\n    yield from g([x] * 100000)\nimport sys\nsys.setrecursionlimit(10**7)\nnext(g(0))", None, ONE
    ),
    broken("io.BytesIO", "import io\nb = io.BytesIO()\nwhile True: b.write(b'x' * 1000000)", "memoryerror", ONE),
    broken("array", "from array import array\narray('q', [1]) * (1 << 28)", "memoryerror", ONE),
    broken(
        "swallows every MemoryError",
        "x = []\nwhile True:\n    try: x.append(b'x' * 10_000_000)\n    except MemoryError: break\nwhile True:\n    try: x.append([0] * 100)\n    except MemoryError: break\nx = None\n"
        + OK,
        "memoryerror",
        ONE,
    ),
    broken(
        "malloc by ctypes",
        "import ctypes\nl = ctypes.CDLL(None)\nl.malloc.restype = ctypes.c_void_p\nwhile True:\n    p = l.malloc(1 << 20)\n    if not p: raise MemoryError\n    ctypes.memset(p, 1, 1 << 20)",
        "memoryerror",
        ONE,
    ),
    broken(
        "shared anonymous memory",
        "import mmap\nx = []\nwhile True:\n    m = mmap.mmap(-1, 1 << 24)\n    m.write(b'x' * (1 << 24))\n    x.append(m)",
        None,
        ONE,
    ),
    broken(
        "memory in a thread",
        "import threading\nx = []\ndef f():\n    while True: x.append(bytearray(b'x') * 1000000)\nt = threading.Thread(target=f)\nt.start()\nt.join()\n"
        + OK,
        "memoryerror",
        ONE,
    ),
    broken(
        "decompression bomb",
        "import zlib\nd = zlib.compress(b'0' * 10**8)\nx = [zlib.decompress(d) for _ in range(99)]",
        "memoryerror",
        ONE,
    ),
    broken("format of great width", "'%0999999999d' % 1", "memoryerror", ONE),
    broken(
        "regular expression of great size",
        "import re\nre.compile('(?:' + 'a' * 1000 + '){1,1000}' * 1000)\nx = ['y' * 10**6 for _ in range(10**4)]",
        None,
        ONE,
    ),
    broken("big answer", "def f(n): return 'x' * 10**9", "memoryerror", ONE_CALL),
    broken(
        "many threads with big stacks",
        "import threading, time\nthreading.stack_size(1 << 28)\nfor _ in range(20): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        "runtimeerror",
        ONE,
    ),
    broken("product in memory", "import itertools\nlist(itertools.product(range(99), repeat=9))", "memoryerror", ONE),
    broken("power in memory", "x = 1 << (1 << 33)", "memoryerror", ONE),
    broken("memory error raised by hand", "raise MemoryError", "memoryerror", ONE),
    passed("half of what is allowed", "x = bytearray(b'x') * (40 << 20)\n" + OK, ONE),
]

STACKS = [
    broken("recursion in C: repr", "x = []\nfor _ in range(200000): x = [x]\nimport sys\nsys.setrecursionlimit(10**9)\nrepr(x)", None, ONE),
    broken("recursion in C: pickle", "import pickle, sys\nx = []\nfor _ in range(10000): x = [x]\npickle.dumps(x)", "recursionerror", ONE),
    broken("recursion in C: comparison", "a, b = [], []\nfor _ in range(10000): a, b = [a], [b]\na == b", "recursionerror", ONE),
    broken("recursion in C: json", "import json\njson.loads('[' * 100000)", "recursionerror", ONE),
    broken("recursion of __getattr__", "class A:\n    def __getattr__(s, n): return getattr(s, n)\nA().x", "recursionerror", ONE),
    broken("recursion of __repr__", "class A:\n    def __repr__(s): return repr(s)\nprint(A())", "recursionerror", ONE),
    broken(
        "recursion limit of a billion",
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __add__(s, o): return s + o\nA() + 1",
        None,
        ONE,
    ),
    broken(
        "threads with small stacks",
        "import threading, sys\nsys.setrecursionlimit(10**8)\nthreading.stack_size(1 << 16)\ndef f(n): return max([f(n)])\nt = threading.Thread(target=lambda: list(map(f, [1])))\nt.start()\nt.join()\n1 / 0",
        None,
        ONE,
    ),
    broken("parser at run time", "eval('(' * 10000 + ')' * 10000)", None, ONE),
    broken("expression at run time", "eval('-' * 200000 + '1')", None, ONE),
    passed("deep answer is no crash", "def f(x):\n    a = 1\n    for _ in range(10**5): a = [a]\n    return x * 2", ONE_CALL),
    failed(
        "answer nested deeper than any expected one", "def f(x):\n    a = 1\n    for _ in range(10**5): a = [a]\n    return a", ONE_CALL
    ),
    failed("answer nested in dicts and tuples", "def f(x):\n    a = 1\n    for _ in range(5000): a = {0: (a,)}\n    return a", ONE_CALL),
]

COMPILING = [
    Case("ten thousand nested parentheses", "x = " + "(" * 10000 + "1" + ")" * 10000, "compile_error", None, ONE),
    Case("nested blocks", "".join(" " * i + "if 1:\n" for i in range(150)) + " " * 150 + "pass", "compile_error", None, ONE),
    Case("nested functions", "".join(" " * i + "def f():\n" for i in range(120)) + " " * 120 + "pass", "compile_error", None, ONE),
    Case("nested lists", "x = " + "[" * 5000 + "]" * 5000, "compile_error", None, ONE),
    Case("chain of powers", "x = " + "**".join(["2"] * 30000), "compile_error", None, ONE),
    Case("chain of attributes", "x = a" + ".a" * 50000, "compile_error", None, ONE),
    Case("unfinished text of 200 kB", "x = '''" + "a" * 200_000, "compile_error", "syntaxerror", ONE),
    Case("byte order mark in the middle", "x = 1\n\ufeffprint(1)", "compile_error", "syntaxerror", ONE),
    Case("invisible character", "print\u200b(1)", "compile_error", "syntaxerror", ONE),
    Case("curly quotes", "print(“1”)", "compile_error", "syntaxerror", ONE),
    Case("tabs mixed with spaces", "if 1:\n        x = 1\n\ty = 2", "compile_error", "taberror", ONE),
    Case("form feed that resets the indentation", "if 1:\n    x = 1\n  \x0c  y = 1\n   z = 1", "compile_error", None, ONE),
    Case("NUL byte in a comment", "# \0\n" + OK, "compile_error", "syntaxerror", ONE),
    Case("future import too late", "x = 1\nfrom __future__ import annotations", "compile_error", "syntaxerror", ONE),
    Case("await outside a function", "await x", "compile_error", "syntaxerror", ONE),
    Case("assignment to a call", "f() = 1", "compile_error", "syntaxerror", ONE),
    Case("duplicate argument", "def f(x, x): return 1", "compile_error", "syntaxerror", ONE_CALL),
    Case("markdown around the program", "```python\n" + OK + "```", "compile_error", "syntaxerror", ONE),
    Case("prose instead of a program", "Here is the solution: print twice the number.", "compile_error", "syntaxerror", ONE),
    Case("cut in the middle", "def f(x):\n    return x * (2 +", "compile_error", "syntaxerror", ASSERTS),
    Case("nothing but a half line", "def", "compile_error", "syntaxerror", CALLS),
    Case("starred import in a function", "def f():\n    from math import *", "compile_error", "syntaxerror", ONE),
    Case("too many nested f-strings", "x = f'{f'{1}'}'", "compile_error", "syntaxerror", ONE),
    Case("backslash at the end", OK + "x = 1 \\", "compile_error", "syntaxerror", ONE),
    passed(
        "constants that folding must not unfold",
        "n = int(input())\nif n < 0:\n    x = (((((1,) * 4000,) * 4000,) * 4000,) * 4000)\n    y = 'a' * 4096 * 4096 * 4096 * 64\n    z = 1 << 10**9\nprint(n * 2)",
        ONE,
    ),
    passed("literal of 90,000 digits", "x = " + "9" * 90_000 + "\n" + OK, ONE),
    passed("thirty thousand lines", OK + "x = 1\n" * 30_000, ONE),
    passed("one line of 300 kB", OK + "x = [" + "1," * 150_000 + "]", ONE),
    passed("text of 10 MB", OK + "x = '" + "é" * 5_000_000 + "'", ONE),
    passed("ten thousand functions", "".join(f"def f{i}(x): return x * {i}\n" for i in range(10000)) + "print(f2(int(input())))", ONE),
    passed("elif chain", "n = int(input())\nif n == -1: pass\n" + "".join(f"elif n == {i}: print({2 * i})\n" for i in range(1000)), ONE),
    passed("long sum", "print(int(input())" + " + 0" * 900 + " + 21)", ONE),
    passed("long comparison", "assert " + " < ".join(map(str, range(3000))) + "\n" + OK, ONE),
]

CROWDS = [
    broken(
        "fork bomb from many threads",
        "import os, threading\ndef f():\n    while True:\n        try: os.fork()\n        except OSError: pass\nfor _ in range(4): threading.Thread(target=f).start()\nf()",
        "timeoutexception",
        ONE,
    ),
    broken("raw thread bomb", "import _thread, time\nwhile True: _thread.start_new_thread(time.sleep, (60,))", "runtimeerror", ONE),
    broken(
        "vfork bomb by ctypes", "import ctypes\nl = ctypes.PyDLL(None)\nwhile True:\n    if l.fork() < 0: raise OSError", "oserror", ONE
    ),
    broken(
        "process pool bomb",
        "import multiprocessing as m\nx = [m.Process(target=lambda: __import__('time').sleep(60), daemon=True) for _ in range(100)]\nfor p in x: p.start()",
        "blockingioerror",
        ONE,
    ),
    passed(
        "children that outlive it",
        "import os, time\nn = int(input())\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(600)\nprint(n * 2)",
        ONE,
    ),
    passed("zombies", "import os\nn = int(input())\nfor _ in range(8):\n    if os.fork() == 0: os._exit(0)\nprint(n * 2)", ONE),
    passed(
        "child that ignores everything",
        "import os, signal, time\nn = int(input())\nif os.fork() == 0:\n    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n    while True: time.sleep(1)\nprint(n * 2)",
        ONE,
    ),
    passed(
        "daemon process of multiprocessing",
        "import multiprocessing as m, time\nm.Process(target=time.sleep, args=(600,), daemon=True).start()\n" + OK,
        ONE,
    ),
    passed("child that closes the input", "import os\nif os.fork() == 0:\n    os.close(0)\n    os._exit(0)\nos.wait()\n" + OK, ONE),
    broken("writes for ever without a newline", "import sys\nwhile True: sys.stdout.write('x' * 65536)", "outputlimitexceeded", ONE),
    broken(
        "writes for ever by os.write",
        "import os\nwhile True:\n    try: os.write(1, b'x' * 65536)\n    except OSError: break",
        "outputlimitexceeded",
        ONE,
    ),
    broken("output through a hole", "import os\nos.write(1, b'42')\nos.ftruncate(1, 12 << 20)", "outputlimitexceeded", ONE),
    broken(
        "files until the folder is full",
        "import os\ni = 0\nwhile True:\n    with open(str(i), 'wb') as f: f.write(b'x' * 1000000)\n    i += 1",
        "oserror",
        ONE,
    ),
    broken("folders until none are left", "import os\nfor i in range(10**6): os.mkdir(str(i))", "oserror", ONE),
    broken("links until none are left", "import os\nfor i in range(10**6): os.symlink('x', str(i))", "oserror", ONE),
    broken("pipes until none are left", "import os\nwhile True: os.pipe()", "oserror", ONE),
    broken("duplicates until none are left", "import os\nwhile True: os.dup(1)", "oserror", ONE),
    passed(
        "names that are hard to remove",
        "import os\nn = int(input())\nfor name in (b'\\xff\\xfe', b'-rf *', b'a\\nb', b' ', b'\\\\', b'x' * 255): open(name, 'w').close()\nos.symlink('/', 'root')\nos.symlink('.', 'loop')\nos.link('x' * 255, 'hard')\nprint(n * 2)",
        ONE,
    ),
    passed(
        "folder without permissions in a folder",
        "import os\nn = int(input())\nos.makedirs('a/b/c')\nopen('a/b/c/f', 'w').close()\nfor d in ('a/b/c', 'a/b', 'a'): os.chmod(d, 0)\nprint(n * 2)",
        ONE,
    ),
    passed(
        "open files in removed folders",
        "import os\nn = int(input())\nos.mkdir('d')\nos.chdir('d')\nf = open('f', 'w')\nos.unlink('f')\nos.rmdir('../d')\nprint(n * 2)",
        ONE,
    ),
    passed("10 MB of its own files", "open('x', 'wb').write(b'x' * 10_000_000)\n" + OK, ONE),
    broken(
        "paths longer than a path may be",
        "import os\nfor i in range(1900):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\n1 / 0",
        None,
        ONE,
    ),
]

WALLS = [
    # (attack, error): what is refused is refused with an error that a program can catch, and nothing else happens.
    broken("TCP", "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)", None, ONE),
    broken("UDP", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "permissionerror", ONE),
    broken("IPv6", "import socket\nsocket.socket(socket.AF_INET6)", "permissionerror", ONE),
    broken("raw packets", "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)", None, ONE),
    broken("virtual machine sockets", "import socket\nsocket.socket(40, 1)", "permissionerror", ONE),
    broken("name service", "import socket\nsocket.getaddrinfo('example.org', 80)", None, ONE),
    broken("web server", "import http.server\nhttp.server.HTTPServer(('', 0), None)", "permissionerror", ONE),
    broken("asyncio subprocess", "import asyncio\nasyncio.run(asyncio.create_subprocess_shell('true'))", None, ONE),
    failed(
        "spawn",
        "import multiprocessing as m\nif __name__ == '__main__':\n    m.set_start_method('spawn')\n    m.Process(target=print).start()",
        ONE,
    ),
    broken("posix_spawn", "import os\nos.posix_spawn('/bin/sh', ['sh'], {})", None, ONE),
    broken(
        "fexecve of a file of its own",
        "import os\nopen('x', 'w').write('#!/bin/sh\\necho 42\\n')\nos.chmod('x', 0o755)\nos.execv('./x', ['x'])",
        "permissionerror",
        ONE,
    ),
    broken("pseudo terminal", "import pty\npty.openpty()", None, ONE),
    broken(
        "keyring",
        "import ctypes\nassert ctypes.CDLL(None, use_errno=True).syscall(248, b'user', b'x', b'y', 1, -1) >= 0",
        "assertionerror",
        ONE,
    ),
    broken("bpf", "import ctypes\nassert ctypes.CDLL(None).syscall(321, 0, 0, 0) >= 0", "assertionerror", ONE),
    broken("io_uring", "import ctypes\nassert ctypes.CDLL(None).syscall(425, 8, 0) >= 0", "assertionerror", ONE),
    broken("userfaultfd", "import ctypes\nassert ctypes.CDLL(None).syscall(323, 0) >= 0", "assertionerror", ONE),
    broken("perf events", "import ctypes\nassert ctypes.CDLL(None).syscall(298, 0, 0, -1, -1, 0) >= 0", "assertionerror", ONE),
    broken("kernel modules", "import ctypes\nassert ctypes.CDLL(None).syscall(313, 0, b'', 0) >= 0", "assertionerror", ONE),
    broken("reboot", "import ctypes\nassert ctypes.CDLL(None).reboot(0x1234567) >= 0", "assertionerror", ONE),
    broken("clock of the machine", "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)", "permissionerror", ONE),
    broken("host name", "import socket\nsocket.sethostname('x')", "permissionerror", ONE),
    broken("setns", "import ctypes\nassert ctypes.CDLL(None).setns(0, 0) >= 0", "assertionerror", ONE),
    broken(
        "clone3 into namespaces",
        "import ctypes\nassert ctypes.CDLL(None).syscall(435, ctypes.create_string_buffer(88), 88) >= 0",
        "assertionerror",
        ONE,
    ),
    broken("pivot_root", "import ctypes\nassert ctypes.CDLL(None).syscall(155, b'/box', b'/box') >= 0", "assertionerror", ONE),
    broken("open_tree", "import ctypes\nassert ctypes.CDLL(None).syscall(428, -100, b'/', 1) >= 0", "assertionerror", ONE),
    broken(
        "handles of files",
        "import ctypes\nassert ctypes.CDLL(None).syscall(304, 0, ctypes.create_string_buffer(128), 0) >= 0",
        "assertionerror",
        ONE,
    ),
    broken("personality", "import ctypes\nassert ctypes.CDLL(None).personality(0x40000) >= 0", "assertionerror", ONE),
    broken("dumpable again", "import ctypes\nassert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0", "assertionerror", ONE),
    broken("terminal input", "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')", "permissionerror", ONE),
    broken("priority", "import os\nos.nice(-5)", None, ONE),
    broken("real time", "import os\nos.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", "permissionerror", ONE),
    broken("limits of another process", "import resource\nresource.prlimit(2, resource.RLIMIT_CPU)", None, ONE),
    broken("more processes than allowed", "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (10**5, 10**5))", "valueerror", ONE),
    broken("more memory than allowed", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 60, 1 << 60))", "valueerror", ONE),
    broken("set-uid file", "import os, stat\nopen('x', 'w').close()\nos.chown('x', 0, 0)\nos.chmod('x', 0o4755)\n1 / 0", None, ONE),
    broken("hard link out of the box", "import os\nos.link(os.__file__, 'x')", None, ONE),
    broken("job file read", "open('/io/job').read()", "permissionerror", ONE),
    broken("library replaced in place", "import os\nos.truncate(os.__file__, 0)", None, ONE),
    broken("root directory", "import os\nos.mkdir('/new')", None, ONE),
    broken("devices", "open('/dev/mem')", None, ONE),
    broken("terminal", "open('/dev/tty')", None, ONE),
    passed("harmless devices", "assert open('/dev/null').read() == '' and len(open('/dev/urandom', 'rb').read(4)) == 4\n" + OK, ONE),
    passed("clone with the vfork flags falls back", "import subprocess\ntry: subprocess.Popen('true')\nexcept OSError: pass\n" + OK, ONE),
]

SHORT = {"threads with small stacks", "recursion in C: repr"}
"""Cases that end in one of several errors, the time-out among them."""
CASES: list[Case] = TIME + MEMORY + STACKS + COMPILING + CROWDS + WALLS
