"""Programs that try to pass without being right, to outlive or to break their judge, or to get out."""

# ruff: noqa: E501  (a program is one line)

from __future__ import annotations

from sandbox_programs import ASSERTS, CALLS, GUARDED, LISTS, OK, broken, failed, passed

from coderl.problems import AssertTests, InputOutputTests

SECRET = InputOutputTests("stdin", ["a", "b"], ["expected-secret-1", "expected-secret-2"])
SECRET_CALLS = InputOutputTests("call", [[1], [2]], ["expected-secret-1", "expected-secret-2"])
SECRET_ASSERTS = AssertTests(["assert f(1) == 'expected-secret-1'"])

EXITS = [
    failed("exits at once", "exit()"),
    failed("os._exit(0) at once", "import os\nos._exit(0)"),
    broken("exits at load", "import sys\nsys.exit(0)", "systemexit", CALLS),
    broken("os._exit at load", "import os\nos._exit(0)", "systemexit", CALLS),
    broken("exits in the call", "def f(x):\n    raise SystemExit(0)", "systemexit", CALLS),
    broken("os._exit in the call", "import os\ndef f(x):\n    os._exit(0)", "systemexit", CALLS),
    broken("os._exit in a later call", "import os\ndef f(x):\n    if x == 1000: os._exit(0)\n    return x * 2", "systemexit", CALLS),
    broken("exits in an assert", "def f(x):\n    exit(0)", "systemexit", ASSERTS),
    broken("exits in a check", "def f(x):\n    exit(0)", "systemexit", GUARDED),
    broken("os._exit in a check", "import os\ndef f(x):\n    os._exit(0)", "systemexit", GUARDED),
    broken("subclass of SystemExit", "class E(SystemExit):\n    code = 0\ndef f(x):\n    raise E", "systemexit", CALLS),
    broken("kills itself", "import os\n" + OK + "import sys\nsys.stdout.flush()\nos.kill(os.getpid(), 9)", "sigkill"),
    broken("kills its group", "import os\n" + OK + "import sys\nsys.stdout.flush()\nos.kill(0, 9)", "sigkill"),
    broken("aborts", "import os\nprint(int(input()) * 2, flush=True)\nos.abort()", None),
    broken("segmentation fault", "import ctypes\nctypes.string_at(0)", "sigsegv"),
    broken("stack overflow in C", "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)", None),
    passed(
        "kills everybody it can see",
        "import os\nn = int(input())\nfor s in (15, 9):\n    try: os.kill(-1, s)\n    except OSError: pass\nprint(n * 2)",
    ),
    broken("kills its parent", "import os\nn = int(input())\nos.kill(os.getppid(), 9)\nprint(n * 2)", "sigkill"),
]

LIES = [
    failed(
        "equal to everything",
        "class A:\n    def __eq__(self, o): return True\n    def __hash__(self): return 42\ndef f(x): return A()",
        CALLS,
    ),
    failed("equal to everything, in an assert", "class A:\n    def __eq__(self, o): return True\ndef f(x): return A()", ASSERTS),
    failed("equal to everything, in a check", "class A:\n    def __eq__(self, o): return True\ndef f(x): return A()", GUARDED),
    failed("integer equal to everything", "class A(int):\n    def __eq__(self, o): return True\ndef f(x): return A(1)", CALLS),
    failed(
        "integer equal to everything, in a check", "class A(int):\n    def __eq__(self, o): return True\ndef f(x): return A(1)", GUARDED
    ),
    failed(
        "list that iterates otherwise",
        "class L(list):\n    def __iter__(self): return iter(range(3))\n    def __eq__(self, o): return True\ndef f(n): return L()",
        LISTS,
    ),
    failed(
        "lies about its class",
        "class A:\n    __class__ = property(lambda s: int)\n    def __eq__(self, o): return True\ndef f(x): return A()",
        CALLS,
    ),
    failed(
        "metaclass",
        "class M(type):\n    __mro__ = property(lambda c: (int, object))\nclass A(metaclass=M):\n    def __eq__(self, o): return True\ndef f(x): return A()",
        CALLS,
    ),
    failed(
        "patched builtins",
        "import builtins\nbuiltins.all = builtins.any = lambda *a: True\nbuiltins.isinstance = lambda *a: True\nbuiltins.len = lambda x: 2\ndef f(x): return 1",
        CALLS,
    ),
    failed(
        "patched json",
        "import json\njson.dumps = lambda *a, **k: '[0,42,null]'\njson.JSONEncoder.encode = lambda *a: '[0,42,null]'\ndef f(x): return 1",
        CALLS,
    ),
    failed(
        "own AssertionError",
        "import builtins\nclass AssertionError(Exception): pass\nbuiltins.AssertionError = AssertionError\ndef f(x): return 1",
        GUARDED,
    ),
    failed("replaces the check", "def check(candidate): pass\ndef f(x): return 1", GUARDED),
    failed(
        "patched builtins in a check",
        "import builtins\nbuiltins.abs = lambda x: 0\ndef f(x): return 1",
        AssertTests(["check(f)"], "def check(c):\n    assert abs(c(1) - 5) < 1e-6"),
    ),
    failed(
        "patched abs in an assert",
        "import builtins\nbuiltins.abs = lambda x: 0\ndef abs(x): return 0\ndef f(x): return 1",
        AssertTests(["assert abs(f(1) - 5) < 1e-6"]),
    ),
    failed("optimises asserts away", "import sys, ast\n__debug__\ndef f(x): return 1", ASSERTS),
    failed(
        "patched compile and eval",
        "import builtins\nbuiltins.compile = builtins.eval = builtins.exec = lambda *a, **k: 42\ndef f(x): return 1",
        ASSERTS,
    ),
    failed(
        "harness functions replaced",
        "import sys\nf = lambda x: 1\ng = sys._getframe(1).f_globals\nfor k in list(g):\n    if callable(g[k]) and k in ('entry', 'called', 'describe'): g[k] = lambda *a: (lambda *b: 1)",
        CALLS,
    ),
]

THEFT = [
    failed(
        "walks the frames",
        "import sys\nf = sys._getframe()\nout = 'none'\nwhile f:\n    for v in [*f.f_locals.values(), *f.f_globals.values()]:\n        if 'expected-secret' in repr(v) and v is not None and 'import sys' not in repr(v): out = 'expected-secret-1'\n    f = f.f_back\nprint(out)",
        SECRET,
    ),
    failed(
        "walks the garbage collector",
        "import gc\nprint(next((o for o in gc.get_objects() if isinstance(o, (list, dict, tuple)) and any(isinstance(x, str) and x.startswith('-'.join(['expected', 'secret'])) for x in (o.values() if isinstance(o, dict) else o))), ['none']))",
        SECRET,
    ),
    failed(
        "walks the garbage collector, call",
        "import gc\ndef f(x):\n    for o in gc.get_objects():\n        if isinstance(o, (list, tuple)):\n            for v in o:\n                if isinstance(v, str) and v.startswith('-'.join(['expected', 'secret'])): return v\n",
        SECRET_CALLS,
    ),
    failed(
        "reads its descriptors",
        "import os\nfor fd in range(3, 256):\n    try:\n        os.lseek(fd, 0, 0)\n        d = os.read(fd, 1 << 20)\n        i = d.find(b'-'.join([b'expected', b'secret']))\n        if i >= 0: print(d[i:i + 17].decode()); break\n    except OSError: pass",
        SECRET,
    ),
    failed(
        "reads the exchange files",
        "import os\nfor n in os.listdir('/io'):\n    try:\n        d = open('/io/' + n, 'rb').read()\n        i = d.find(b'-'.join([b'expected', b'secret']))\n        if i >= 0: print(d[i:i + 17].decode()); break\n    except OSError: pass",
        SECRET,
    ),
    failed(
        "reads the whole file system",
        "import os\nfor folder, below, names in os.walk('/'):\n    if folder.startswith(('/usr', '/lib', '/dev')) or 'python3' in folder: below.clear(); continue\n    for n in names:\n        try:\n            if b'-'.join([b'expected', b'secret']) in open(os.path.join(folder, n), 'rb').read(1 << 20): print('expected-secret-1')\n        except OSError: pass",
        SECRET,
    ),
    failed(
        "environment and arguments",
        "import os, sys\nprint(*[v for v in [*os.environ.values(), *sys.argv, *sys.orig_argv] if v.startswith('-'.join(['expected', 'secret']))])",
        SECRET,
    ),
    failed(
        "assert source",
        "import gc\ndef f(x):\n    for o in gc.get_objects():\n        if isinstance(o, (list, tuple, dict)):\n            for v in (o.values() if isinstance(o, dict) else o):\n                if isinstance(v, str) and '-'.join(['expected', 'secret']) in v: return v[v.index('expected-'):][:17]",
        SECRET_ASSERTS,
    ),
    broken("reads the parent's memory", "import os\nopen('/proc/%d/mem' % os.getppid(), 'rb')", "filenotfounderror"),
    failed("ptrace", "import ctypes\nprint(ctypes.CDLL(None).ptrace(16, 1, 0, 0))"),
    failed("process_vm_readv", "import ctypes\nprint(ctypes.CDLL(None).syscall(310, 1, 0, 0, 0, 0, 0))"),
]

FORGERY = [
    failed(
        "writes answers, stdin",
        "import os\nfor fd in range(3, 256):\n    try: os.write(fd, b'[0,0,null]\\n[1,0,null]\\n[2,0,null]\\n[\"end\"]\\n')\n    except OSError: pass\nos._exit(0)",
    ),
    failed(
        "writes answers, call",
        'import os\nfor fd in range(3, 256):\n    try: os.write(fd, b\'["loaded",null]\\n[0,true,null]\\n[1,true,null]\\n[2,true,null]\\n["end"]\\n\')\n    except OSError: pass\nos._exit(0)',
        CALLS,
    ),
    failed(
        "writes answers, assert",
        'import os\nfor fd in range(3, 256):\n    try: os.write(fd, b\'["loaded",null]\\n[0,[true],null]\\n[1,true,null]\\n["end"]\\n\')\n    except OSError: pass\nos._exit(0)',
        ASSERTS,
    ),
    failed(
        "writes answers, check",
        'import os\nfor fd in range(3, 256):\n    try: os.write(fd, b\'["loaded",null]\\n[0,true,null]\\n["end"]\\n\')\n    except OSError: pass\nos._exit(0)',
        GUARDED,
    ),
    failed("deep JSON", "open('/io/answers', 'a').write('[' * 1000000 + '\\n')\nprint(0)"),
    failed("huge numbers", "open('/io/answers', 'a').write('[0,' + '9' * 1000000 + ',null]\\n[0,-5,null]\\n[0,1e999,null]\\n')\nprint(0)"),
    failed("not text", "open('/io/answers', 'ab').write(bytes(range(256)) * 100)\nprint(0)"),
    broken("removes all answers", "import os\ndef f(x):\n    os.truncate('/io/answers', 0)\n    return 1", "systemexit", CALLS),
    failed("removes all answers, stdin", "import os\nos.truncate('/io/answers', 0)\nprint(0)"),
    failed("changes the job", "import os\ntry: open('/io/job', 'wb').write(b'x' * 1000)\nexcept OSError: pass\nprint(0)"),
    failed(
        "makes its files unreadable",
        "import os\nfor n in ('job', 'in', 'out', 'answers'):\n    try: os.chmod('/io/' + n, 0)\n    except OSError: pass\nprint(0)",
    ),
    failed(
        "locks its files",
        "import os, fcntl\nfor n in ('in', 'out', 'answers'):\n    fcntl.lockf(open('/io/' + n, 'r+'), fcntl.LOCK_EX)\nprint(0)",
    ),
    failed("moves its output to another test", "import os\nn = int(input())\nos.write(1, b'42\\n8\\n2000\\n' if n == 21 else b'')"),
    failed("patched time", "import time\ntime.process_time = time.monotonic = lambda: float('nan')\nprint(0)"),
]

TIME = [
    broken("loop", "while True: pass", "timeoutexception"),
    broken("loop with bare except", "while True:\n    try:\n        while True: pass\n    except: pass", "timeoutexception"),
    broken("loop on a later test", "n = int(input())\nwhile n == 1000: pass\nprint(n * 2)", "timeoutexception"),
    broken("loop in C", "sum(range(10**12))", "timeoutexception"),
    broken("regular expression", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "timeoutexception"),
    broken("big power", "x = 3 ** (10 ** 9)", "timeoutexception"),
    broken(
        "ignores signals",
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        "timeoutexception",
    ),
    broken("sleeps", "import time\ntime.sleep(1000)", "timeoutexception"),
    broken("stops itself", "import os, signal, time\nos.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(1000)", "timeoutexception"),
    broken("waits for a lock", "import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()", "timeoutexception"),
    broken(
        "endless thread", "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()\n" + OK, "timeoutexception"
    ),
    broken("loop in a destructor", "class A:\n    def __del__(self):\n        while True: pass\na = A()\n" + OK, "timeoutexception"),
    broken("loop in an exit callback", "import atexit\natexit.register(lambda: [0 for _ in iter(int, 1)])\n" + OK, "timeoutexception"),
    broken("loop in a child", "import os\nif os.fork() == 0:\n    while True: pass\nos.wait()", "timeoutexception"),
    broken(
        "loop in an error message", "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", "timeoutexception"
    ),
    broken("loop in the call", "def f(x):\n    while True: pass", "timeoutexception", CALLS),
    broken("loop at load", "while True: pass", "timeoutexception", CALLS),
    broken(
        "resets its clock",
        "import gc, mmap, struct, time\nwhile True:\n    for o in gc.get_objects() + [v for d in gc.get_objects() if type(d) is dict for v in list(d.values()) if type(v) is mmap.mmap]:\n        if type(o) is mmap.mmap:\n            o[:16] = struct.pack('<dd', time.process_time(), time.monotonic())",
        "timeoutexception",
    ),
    failed("value of exponential size", "def f(n):\n    a = []\n    for _ in range(60): a = [a, a]\n    return a", LISTS),
]

MEMORY = [
    broken("one shot", "x = bytearray(10 ** 10)", "memoryerror"),
    broken("growth", "x = []\nwhile True: x.append('x' * 1000000)", "memoryerror"),
    broken(
        "growth, swallowed",
        "x = []\ntry:\n    while True: x.append(bytearray(b'x') * 1000000)\nexcept MemoryError: pass\ndel x\n" + OK,
        "memoryerror",
    ),
    broken("repeated list", "x = [0] * (10 ** 10)", "memoryerror"),
    broken("above the limit for a moment", "x = b'x' * (300 << 20)\ndel x\n" + OK, "memoryerror"),
    broken("mapping", "import mmap\nm = mmap.mmap(-1, 400 << 20)\nfor i in range(0, len(m), 4096): m[i] = 1\n" + OK, "memoryerror"),
    broken("big integer", "x = 1 << (1 << 40)", None),
    broken("recursion on data", "def f(x): return f(x * 2)\nf('xxxxxxxxxxxxxxxx')", None),
    broken("in a call", "def f(n): return [0] * (10 ** 10)", "memoryerror", CALLS),
    broken("memory file", "import os\nfd = os.memfd_create('x')", "permissionerror"),
    broken(
        "System V memory",
        "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\nassert l.shmget(0, 4096, 0o1600) < 0 and ctypes.get_errno() == 1\n1 / 0",
        "zerodivisionerror",
    ),
]

PROCESSES = [
    broken("fork bomb", "import os\nwhile True: os.fork()", "blockingioerror"),
    broken("fork bomb, swallowed", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", "timeoutexception"),
    broken(
        "thread bomb",
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        "runtimeerror",
    ),
    passed(
        "orphan that holds the output",
        "import os, time\nn = int(input())\nif os.fork() == 0:\n    time.sleep(60)\n    os._exit(0)\nprint(n * 2)",
    ),
    passed(
        "daemon",
        "import os, time\nn = int(input())\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while True: time.sleep(1)\n    os._exit(0)\nos.wait()\nprint(n * 2)",
    ),
    broken("shell", "import os, subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'])", None),
    broken("exec", "import os\nos.execv('/usr/bin/python3', ['python3'])", None),
    failed("os.system", "import os\nprint(os.system('echo hello'))"),
]

FLOODS = [
    broken("output", "while True: print('x' * 100000)", None),
    broken("more output than allowed", "print('x' * 12_000_000)", "outputlimitexceeded"),
    passed("error output", "import sys\nfor _ in range(100): print('x' * 1000000, file=sys.stderr)\n" + OK),
    broken("output of a call", "def f(x):\n    while True: print('x' * 1000000)", "oserror", CALLS),
    broken("one file", "f = open('a', 'wb')\nwhile True: f.write(b'x' * 1000000)", "oserror"),
    broken("many files", "i = 0\nwhile True:\n    open(str(i), 'w').close()\n    i += 1", "oserror"),
    broken("descriptors", "x = []\nwhile True: x.append(open('/dev/null'))", "oserror"),
    passed("deep folders", "import os\nn = int(input())\nfor i in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\nprint(n * 2)"),
    passed(
        "stubborn folders",
        "import os\nn = int(input())\nif not os.path.exists('d'):\n    os.makedirs('d/e')\n    open('d/e/f', 'w').close()\n    os.chmod('d/e', 0)\n    os.chmod('d', 0)\n    try: os.chmod('.', 0)\n    except OSError: pass\nprint(n * 2)",
    ),
]

ESCAPES = [
    broken("socket", "import socket\nsocket.socket()", "permissionerror"),
    broken("unix socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/x')", "permissionerror"),
    broken("netlink", "import socket\nsocket.socket(16, 3, 0)", "permissionerror"),
    broken("download", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1/')", "urlerror"),
    failed("unshare", "import ctypes\nprint(ctypes.CDLL(None).unshare(0x10000000))"),
    failed("clone into a user namespace", "import ctypes\nprint(ctypes.CDLL(None).syscall(56, 0x10000011, 0, 0, 0, 0))"),
    failed("clone into a process namespace", "import ctypes\nprint(ctypes.CDLL(None).syscall(56, 0x20000011, 0, 0, 0, 0))"),
    failed("mount", "import ctypes\nprint(ctypes.CDLL(None).mount(b'none', b'/box', b'tmpfs', 0, None))"),
    failed("chroot", "import os\ntry: os.chroot('.')\nexcept OSError: print('no')"),
    failed("becomes root", "import os\ntry:\n    os.setresuid(0, 0, 0)\n    open('/usr/lib/x', 'w')\nexcept OSError: print('no')"),
    failed("32-bit calls", "import ctypes\nprint(ctypes.CDLL(None).syscall(0x40000000 + 41, 1, 1, 0))"),
    broken("writes to the library", "import os\nopen(os.path.dirname(os.__file__) + '/x.py', 'w')", None),
    broken("writes outside", "open('/x', 'w')", "oserror"),
    broken("home of the host", "open('/etc/passwd')", "filenotfounderror"),
    broken("replaces an exchange file", "import os\nos.rename('/io/out', '/io/x')", "oserror"),
    broken("device", "import os\nos.mknod('x', 0o20600, os.makedev(1, 1))", "permissionerror"),
    broken("links out", "import os\nos.symlink('/proc/1/root', 'r')\nos.listdir('r')", "filenotfounderror"),
    failed("sees other processes", "import os\nprint(os.getpid(), os.path.exists('/proc/self'))"),
    failed(
        "installed packages",
        "import os, sys\nprint(*[p for p in sys.path if os.path.isdir(p + '/site-packages') and os.listdir(p + '/site-packages')])",
    ),
]

ATTACKS = EXITS + LIES + THEFT + FORGERY + TIME + MEMORY + PROCESSES + FLOODS + ESCAPES
