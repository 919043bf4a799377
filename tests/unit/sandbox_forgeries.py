"""Programs that know no answer and claim one: forged channels, lying objects, patched judges, stolen expectations."""

# ruff: noqa: E501  (a program is one line)

from __future__ import annotations

from sandbox_programs import ASSERTS, CALLS, GUARDED, LISTS, Case, broken, failed, passed

from coderl.problems import AssertTests, InputOutputTests

FLOAT = AssertTests(["assert abs(f(1) - 3.25) < 1e-6"])
METHOD = AssertTests(["check(Solution().f)"], "def check(candidate):\n    assert candidate(x = 21) == 42\n    assert candidate(x = 4) == 8")
LOOP = AssertTests(["check(f)"], "def check(candidate):\n    for i in range(50):\n        assert candidate(i) == i * 37 % 11, 'secret'")
SECRET_CHECK = AssertTests(
    ["check(f)"], "def check(candidate):\n    assert candidate(1) == 'expected-secret-1'\n    assert candidate(2) == 'expected-secret-2'"
)
SECRET_LOOP = AssertTests(
    ["check(f)"], "def check(candidate):\n    for n in '12':\n        assert candidate(int(n)) == 'expected-secret-' + n"
)
SECRET_SETUP = AssertTests(
    ["assert f(1) == answer", "assert sorted([f(1), f(2)]) == answers"],
    "answer = 'expected-secret-1'\nanswers = ['expected-secret-1', 'expected-secret-2']",
)
SECRET_CALLS = InputOutputTests("call", [[1], [2]], ["expected-secret-1", "expected-secret-2"])
SECRET = InputOutputTests("stdin", ["a", "b"], ["expected-secret-1", "expected-secret-2"])
FIND = "'-'.join(['expected', 'secret'])"  # so that the program's own text is not what it finds
LIAR = "class A:\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\n    def __hash__(s): return 0\n    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__\n    def __bool__(s): return True\n    def __sub__(s, o): return s\n    __add__ = __radd__ = __rsub__ = __mul__ = __mod__ = __sub__\n    def __abs__(s): return s\n    def __getitem__(s, i): return s\n    def __len__(s): return 1\n    def __iter__(s): return iter([s])\n    def __call__(s, *a, **k): return s\n    def __getattr__(s, n): return s\n    def __float__(s): return 3.25\n    def __int__(s): return 42\n    def __index__(s): return 42\n"

LIARS = [
    failed("an object that agrees to everything, call", LIAR + "def f(x): return A()", CALLS),
    failed("an object that agrees to everything, assert", LIAR + "def f(x): return A()", ASSERTS),
    failed("an object that agrees to everything, difference", LIAR + "def f(x): return A()", FLOAT),
    failed("an object that agrees to everything, check", LIAR + "def f(x): return A()", GUARDED),
    failed("an object that agrees to everything, method", LIAR + "class Solution:\n    def f(s, x): return A()", METHOD),
    failed("an object that agrees to everything, loop", LIAR + "def f(x): return A()", LOOP),
    failed("an object instead of the function", LIAR + "f = A()", LOOP),
    failed("an object instead of the class", LIAR + "Solution = A()", METHOD),
    failed("a list of objects that agree", LIAR + "def f(n): return [A()] * n", LISTS),
    failed(
        "a dict that agrees",
        "class D(dict):\n    def __eq__(s, o): return True\ndef f(x): return D()",
        AssertTests(["assert f(1) == {'a': 1}"]),
    ),
    failed(
        "a text that agrees",
        "class S(str):\n    def __eq__(s, o): return True\n    __hash__ = str.__hash__\ndef f(x): return S('no')",
        SECRET_CALLS,
    ),
    failed(
        "a float that agrees",
        "class F(float):\n    def __sub__(s, o): return 0.0\n    def __eq__(s, o): return True\ndef f(x): return F(7)",
        FLOAT,
    ),
    failed("a tuple that agrees", "class T(tuple):\n    def __eq__(s, o): return True\ndef f(n): return T([1])", LISTS),
    failed(
        "a set that agrees",
        "class T(set):\n    def __eq__(s, o): return True\ndef f(n): return T([1])",
        AssertTests(["assert f(1) == {1, 2}", "assert f(2) == set([3])"]),
    ),
    failed("a bool that is 42", "def f(x): return True", CALLS),
    failed(
        "a named tuple with other rules",
        "from collections import namedtuple\nclass T(namedtuple('T', 'a')):\n    def __eq__(s, o): return True\ndef f(n): return T(5)",
        LISTS,
    ),
    failed("an enumeration member", "import enum\nclass E(enum.IntEnum):\n    A = 41\ndef f(x): return E.A", CALLS),
    failed("unittest.mock.ANY", "from unittest.mock import ANY\ndef f(x): return ANY", CALLS),
    failed("unittest.mock.ANY, assert", "from unittest.mock import ANY\ndef f(x): return ANY", ASSERTS),
    failed("unittest.mock.ANY, loop", "from unittest.mock import ANY\ndef f(x): return ANY", LOOP),
    failed("a MagicMock instead of the function", "from unittest.mock import MagicMock, ANY\nf = MagicMock(return_value=ANY)", GUARDED),
    failed("an exception instead of an answer, as a value", "def f(x): return AssertionError", GUARDED),
    failed("a float in disguise for an integer", "def f(x): return float('nan')", CALLS),
    failed("the name of a type", "class int: pass\ndef f(x): return int()", CALLS),
    failed("a tagged value that looks like the channel's own", "def f(x): return {'i': '2a'}", CALLS),
    failed("a string that looks like the channel's own", 'def f(x): return \'{"i": "2a"}\\n[0,42,null]\\n\'', CALLS),
    failed(
        "a property instead of a method", "class Solution:\n    f = property(lambda s: 42)\n", AssertTests(["assert Solution().f == 43"])
    ),
    failed(
        "changes its arguments into the answer",
        "def f(a): a[:] = []\n",
        AssertTests(["check(f)"], "def check(c):\n    for n in (1, 2):\n        a = [n]\n        assert c(a) == [n], a"),
    ),
]

PATCHES = [
    failed(
        "patches json",
        "import json, json.encoder\njson.dumps = json.JSONEncoder.encode = json.encoder.c_make_encoder = lambda *a, **k: '42'\ndef f(x): return 1",
        CALLS,
    ),
    failed(
        "patches marshal and pickle",
        "import marshal, pickle\nmarshal.loads = marshal.dumps = pickle.dumps = lambda *a: b'42'\ndef f(x): return 1",
        CALLS,
    ),
    failed(
        "patches os.write",
        "import os\nw = os.write\nos.write = os.writev = os.pwrite = lambda fd, data: w(fd, b'[0,42,null]\\n')\ndef f(x): return 1",
        CALLS,
    ),
    failed(
        "patches the codec in place",
        "import gc, types\ndef f(x): return 1\nfor o in gc.get_objects():\n    if isinstance(o, types.FunctionType) and o.__name__ in ('plain', '_plain', '_many'): o.__code__ = (lambda value, *a: 42).__code__",
        ASSERTS,
    ),
    broken(
        "patches the equality of integers in C",
        "import ctypes\ndef f(x):\n    t = ctypes.cast(id(int), ctypes.POINTER(ctypes.c_void_p))\n    u = ctypes.cast(id(object), ctypes.POINTER(ctypes.c_void_p))\n    t[25] = u[25]\n    return 1",
        "typeerror",
        GUARDED,
    ),
    failed(
        "rewrites an integer in memory",
        "import ctypes\ndef f(x):\n    ctypes.memmove(id(42) + 24, id(1) + 24, 4)\n    ctypes.memmove(id(8) + 24, id(1) + 24, 4)\n    return 1",
        GUARDED,
    ),
    failed(
        "rewrites True and False in memory", "import ctypes\nctypes.memmove(id(False) + 24, id(True) + 24, 4)\ndef f(x): return 1", GUARDED
    ),
    failed(
        "patches the frame's builtins",
        "import sys\nfor k in ('len', 'type', 'isinstance', 'set', 'map', 'all'):\n    sys._getframe(1).f_builtins[k] = lambda *a: 42\ndef f(x): return 1",
        CALLS,
    ),
    failed(
        "replaces the builtins module",
        "import sys, types\nsys.modules['builtins'] = types.ModuleType('builtins')\ndef f(x): return 1",
        CALLS,
    ),
    failed("empties sys.modules", "import sys\nsys.modules.clear()\ndef f(x): return 1", CALLS),
    failed("patches __import__", "import builtins\nbuiltins.__import__ = lambda *a, **k: None\ndef f(x): return 1", ASSERTS),
    failed(
        "patches the module's own namespace",
        "def f(x): return 1\nclass M(dict):\n    def __getitem__(s, k): return lambda *a: 42\nimport sys\nsys.modules['__main__'] = sys.modules['solution'] = M()",
        CALLS,
    ),
    failed(
        "checks replaced by monkey patch of exec",
        "import builtins\nreal = builtins.exec\nbuiltins.exec = lambda code, space=None, *a: None\nbuiltins.compile = lambda *a, **k: (lambda: None).__code__\ndef f(x): return 1",
        GUARDED,
    ),
    failed(
        "check that cannot be redefined from a call",
        "def f(x):\n    import sys\n    g = sys._getframe(1).f_globals\n    g['check'] = lambda c: None\n    return 1",
        AssertTests(["check(f)", "check(f)"], "def check(candidate):\n    assert candidate(21) == 42"),
    ),
    failed(
        "makes AssertionError a warning",
        "import builtins\nclass Quiet(Exception):\n    pass\nbuiltins.AssertionError = Quiet\nbuiltins.Exception = BaseException\ndef f(x): return 1",
        LOOP,
    ),
    failed(
        "trace function that changes local variables",
        "import sys\ndef t(frame, event, arg):\n    if 'answer' in frame.f_locals: frame.f_locals['answer'] = 42\n    return t\nsys.settrace(t)\nf0 = sys._getframe()\nwhile f0: f0.f_trace = t; f0 = f0.f_back\ndef f(x): return 1",
        CALLS,
    ),
    failed(
        "ctypes into the harness's local variables",
        "import sys, ctypes\ndef f(x):\n    fr = sys._getframe(1)\n    fr.f_locals.update(answer=42, error=None)\n    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(fr), 0)\n    return 1",
        CALLS,
    ),
    failed(
        "code of the harness replaced",
        "import sys\nfr = sys._getframe(1)\ng = fr.f_globals\nfor n, v in list(g.items()):\n    if hasattr(v, '__code__') and n.startswith('run_'): v.__code__ = (lambda child, code, job: None).__code__\ndef f(x): return 1",
        CALLS,
    ),
    failed(
        "audit hook that forbids the tests",
        "import sys\ndef hook(event, args):\n    if event in ('compile', 'exec'): raise RuntimeError\nsys.addaudithook(hook)\ndef f(x): return 1",
        CALLS,
    ),
    failed(
        "patched comparison of the operator module",
        "import operator, math\noperator.eq = math.isclose = lambda *a: True\ndef f(x): return 1",
        AssertTests(["assert math.isclose(f(1), 2)", "assert operator.eq(f(1), 2)"]),
    ),
    failed(
        "patched helper of the tests' own import",
        "import math\nmath.floor = math.fabs = lambda x: 0\ndef f(x): return 7.5",
        AssertTests(["assert math.fabs(f(1) - 2) < 1e-6"], "import math"),
    ),
    failed(
        "patched random",
        "import random\nrandom.randint = lambda a, b: 0\ndef f(x): return 0",
        AssertTests(
            ["check(f)"],
            "def check(c):\n    import random\n    for _ in range(20):\n        n = random.randint(1, 9)\n        assert c(n) == n",
        ),
    ),
    failed("function that knows it is tested first", "n = 0\ndef f(x):\n    global n\n    n += 1\n    return 42 if n == 1 else 7", ASSERTS),
]

THIEVES = [
    failed(
        "constants of the calling check",
        "import sys\ndef f(x):\n    fr = sys._getframe(1)\n    while fr:\n        for c in fr.f_code.co_consts:\n            if isinstance(c, str) and c.startswith("
        + FIND
        + "): return c[:-1] + str(x)\n        fr = fr.f_back",
        SECRET_CHECK,
    ),
    failed(
        "constants of a loop in a check",
        "import sys\ndef f(x):\n    fr = sys._getframe(1)\n    while fr:\n        for c in fr.f_code.co_consts:\n            if isinstance(c, str) and c.startswith("
        + FIND
        + "): return c + str(x)\n        fr = fr.f_back",
        SECRET_LOOP,
    ),
    failed(
        "code of the check by its name",
        "def f(x):\n    try: return [c for c in check.__code__.co_consts if isinstance(c, str)][x - 1]\n    except NameError: return 'no'",
        SECRET_CHECK,
    ),
    failed(
        "variables of the set-up code",
        "def f(x):\n    try: return answers[x - 1]\n    except NameError: return globals().get('answer', 'no')",
        SECRET_SETUP,
    ),
    failed(
        "every object that the collector knows",
        "import gc\ndef f(x):\n    seen = []\n    for o in gc.get_objects():\n        for v in gc.get_referents(o):\n            if isinstance(v, str) and "
        + FIND
        + " in v: seen.append(v)\n    return sorted(seen)[0] if seen else None",
        SECRET_CHECK,
    ),
    failed(
        "all code objects",
        "import gc, types\ndef f(x):\n    for o in gc.get_objects():\n        c = getattr(o, '__code__', None)\n        if isinstance(c, types.CodeType):\n            for v in c.co_consts:\n                if isinstance(v, str) and "
        + FIND
        + " in v: return v",
        SECRET_LOOP,
    ),
    failed(
        "the job in the calling frames",
        "import sys\ndef f(x):\n    fr = sys._getframe()\n    while fr:\n        for v in fr.f_locals.values():\n            r = repr(v)\n            i = r.find("
        + FIND
        + ")\n            if i >= 0: return r[i:i + 17]\n        fr = fr.f_back",
        SECRET_CALLS,
    ),
    failed(
        "the job in the calling frames, assert",
        "import sys\ndef f(x):\n    fr = sys._getframe()\n    while fr:\n        for v in [*fr.f_locals.values(), *fr.f_globals.values()]:\n            try: r = repr(v)\n            except Exception: continue\n            i = r.find("
        + FIND
        + ")\n            if i >= 0: return r[i:i + 17]\n        fr = fr.f_back",
        AssertTests(["assert f(1) == 'expected-secret-1'"]),
    ),
    failed(
        "line cache and source of the tests",
        "import linecache, inspect, sys\ndef f(x):\n    try: return inspect.getsource(sys._getframe(1))\n    except Exception: return str(linecache.cache)",
        SECRET_CHECK,
    ),
    failed(
        "module of the test harness",
        "import sys\ndef f(x):\n    for m in list(sys.modules.values()):\n        i = repr(getattr(m, '__dict__', '')).find("
        + FIND
        + ")\n        if i >= 0: return repr(m.__dict__)[i:i + 17]",
        SECRET_CHECK,
    ),
    failed(
        "memory files",
        "import os\nout = ''\nfor p in ('/proc/self/mem', '/proc/self/maps', '/proc/1/environ', '/proc/self/cmdline', '/dev/shm', '/sys'):\n    try: out += open(p).read()\n    except OSError: pass\nprint(out)",
        SECRET,
    ),
    failed(
        "bytes left in uninitialised memory",
        "import ctypes\nfor n in (64, 512, 4096, 65536):\n    p = ctypes.pythonapi.PyMem_RawMalloc\n    p.restype = ctypes.c_void_p\n    d = ctypes.string_at(p(n), n)\n    i = d.find("
        + FIND
        + ".encode())\n    if i >= 0: print(d[i:i + 17].decode()); break",
        SECRET,
    ),
    failed(
        "an inherited socket",
        "import socket, os\nfor fd in range(3, 64):\n    try:\n        s = socket.socket(fileno=fd)\n        s.setblocking(False)\n        print(s.recv(1 << 16))\n    except OSError: pass",
        SECRET,
    ),
    failed(
        "asks the judge through an inherited socket",
        "import os, struct\nfor fd in range(3, 256):\n    try: os.write(fd, struct.pack('<iBBddQ', 0, 0, 0, 0.0, 0.0, 0))\n    except OSError: pass\nprint(0)",
        SECRET,
    ),
    failed("the output of earlier tests", "import os\nprint(open('/io/out').read() + open('/io/answers').read())", SECRET),
]

CHANNELS = [
    failed(
        "answers in every open file, then ends",
        'import os\nfor fd in range(3, 256):\n    try: os.write(fd, b\'["loaded",null]\\n["step",42,null,[]]\\n["step",41,null,[]]\\n[0,2,null]\\n["end"]\\n\')\n    except OSError: pass\nos._exit(0)',
        GUARDED,
    ),
    failed(
        "steps of a replayed test",
        "import os\nopen('/io/answers', 'a').write('[\"loaded\",null]\\n')\nfor _ in range(100): open('/io/answers', 'a').write('[\"step\",true,null,null]\\n')\nopen('/io/answers', 'a').write('[0,true,null]\\n[\"end\"]\\n')\nos._exit(0)",
        LOOP,
    ),
    failed(
        "steps with changes that are none",
        'import os\nopen(\'/io/answers\', \'a\').write(\'["loaded",null]\\n["step",1,null,[[99,1],["x",{}],7]]\\n["step",1,[1,2],9]\\n[0,1,null]\\n\')\nos._exit(0)',
        LOOP,
    ),
    broken(
        "verdicts instead of answers",
        'import os\nopen(\'/io/answers\', \'a\').write(\'["loaded",null]\\n[0,["verdict",true,null],null]\\n["verdict",true,null]\\n["end"]\\n\')\nos._exit(0)',
        "systemexit",
        LOOP,
    ),
    failed("the end before the beginning", "open('/io/answers', 'a').write('[\"end\"]\\n[\"fresh\"]\\n')\nprint(1)"),
    failed("fresh children without an end", "open('/io/answers', 'a').write('[0,0,null]\\n[\"fresh\"]\\n')\nprint(1)"),
    failed("answers out of order", "open('/io/answers', 'a').write('[2,0,null]\\n[1,0,null]\\n[0,0,null]\\n')\nprint(1)"),
    failed(
        "negative and huge offsets",
        "open('/io/answers', 'a').write('[0,-1,null]\\n[1,99999999999999999999,null]\\n[2,1e400,null]\\n')\nprint(1)",
    ),
    failed(
        "error rows of the wrong form", "open('/io/answers', 'a').write('[0,0,[]]\\n[1,0,[1,2,3]]\\n[2,0,{}]\\n')\nimport os\nos._exit(0)"
    ),
    failed(
        "not JSON, not UTF-8, not ASCII",
        "open('/io/answers', 'ab').write(b'\\xff\\xfe[0\\n{\\n\\\"\\n[0,NaN,null]\\n[true,0,null]\\n[0.0,0,null]\\n')\nprint(1)",
    ),
    failed("a million rows", "open('/io/answers', 'a').write('[]\\n' * 1000000)\nprint(1)"),
    failed(
        "claims not to compile",
        "import os\nos.truncate('/io/answers', 0)\nopen('/io/answers', 'a').write('[\"refused\",\"syntaxerror\",\"x\",1]\\n')\nos._exit(0)",
    ),
    broken(
        "claims not to compile, and is too long for the compiler",
        "import os\nos.truncate('/io/answers', 0)\nopen('/io/answers', 'a').write('[\"refused\",\"syntaxerror\",\"x\",1]\\n')\nos._exit(0)\n"
        + "#" * 200_000,
        "systemexit",
        CALLS,
    ),
    broken("pretends that the judge has failed", "import os\nos.truncate('/io/answers', 0)\nos._exit(70)\n" + "#" * 200_000, "systemexit"),
    failed("writes the input of the next test", "import os\nif input() == '21':\n    open('/io/in', 'w').write('21\\n')\nprint(42)"),
    failed(
        "standard output swapped with the answers",
        "import os\nfor fd in range(3, 64):\n    try: os.dup2(fd, 1)\n    except OSError: pass\nprint('[0,0,null]', flush=True)",
    ),
    failed(
        "answers swapped with standard output",
        "import os\nfor fd in range(3, 64):\n    try: os.fstat(fd); os.dup2(1, fd)\n    except OSError: pass\nprint(1)",
    ),
    failed(
        "sendfile from input to answers",
        "import os\ni = os.open('/io/in', os.O_RDONLY)\no = os.open('/io/answers', os.O_WRONLY)\ntry: os.sendfile(o, i, 0, 99)\nexcept OSError: pass\nprint(1)",
    ),
    failed("standard input written back to standard output", "import os\nos.dup2(0, 1)\nprint(1)"),
    failed("seeks standard output back", "import os, sys\nprint(1, flush=True)\nos.lseek(1, 0, 0)\nos.truncate(1, 0)\nprint(2)"),
    broken(
        "forked copy answers, original hangs",
        "import os, time\ndef f(x):\n    if os.fork(): time.sleep(100)\n    return 42",
        "timeoutexception",
        CALLS,
    ),
    failed("two copies answer", "import os\ndef f(x):\n    os.fork()\n    return 42 if os.getpid() > 1 else 41", CALLS),
    failed(
        "thread that writes answers later",
        "import threading, time\ndef g():\n    while True:\n        open('/io/answers', 'a').write('[0,42,null]\\n[1,8,null]\\n')\n        time.sleep(0.001)\nthreading.Thread(target=g, daemon=True).start()\ndef f(x): return 1",
        AssertTests(["assert f(1) == 2"]),
    ),
    failed(
        "raw thread that prints into the next test",
        "import _thread, time\nn = int(input())\ndef g():\n    time.sleep(0.01)\n    print(n)\n_thread.start_new_thread(g, ())\nprint(1)",
    ),
    failed(
        "closes the harness's file and opens another one there",
        "import os\nfor fd in range(3, 32):\n    try: os.close(fd)\n    except OSError: pass\nfor _ in range(30): os.open('x', os.O_CREAT | os.O_RDWR)\nprint(1)",
    ),
    broken("forbids writing", "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\nprint(1)", None),
    broken(
        "forbids opening", "import resource, os\nresource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\nos.closerange(3, 64)\nprint(1)", None
    ),
    failed("forbids memory", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))\nprint(1)"),
]

HONEST = [
    # The same tests, answered honestly, so that the attacks above do not fail for another reason.
    passed("honest method", "class Solution:\n    def f(s, x): return x * 2", METHOD),
    passed("honest loop", "def f(x): return x * 37 % 11", LOOP),
    passed("honest difference", "def f(x): return 3.25", FLOAT),
    passed("honest secret", "def f(x): return f'expected-secret-{x}'", SECRET_CHECK),
    passed("honest secret in a loop", "def f(x): return f'expected-secret-{x}'", SECRET_LOOP),
    passed("honest secret of the set-up code", "def f(x): return f'expected-secret-{x}'", SECRET_SETUP),
    passed(
        "honest child process",
        "import os\ndef f(x):\n    p = os.fork()\n    if p == 0: os._exit(0)\n    os.waitpid(p, 0)\n    return x * 2",
        CALLS,
    ),
]

CASES: list[Case] = LIARS + PATCHES + THIEVES + CHANNELS + HONEST
