"""Programs that leave early, in ways of every kind: none of them is an answer, and none is worse than it would be from a shell."""

# ruff: noqa: E501  (a program is one line)

from __future__ import annotations

from sandbox_programs import ASSERTS, CALLS, GUARDED, OK, broken, failed, passed

# The first line of a program that has printed the right answer, and made sure that it is out.
OUT = "import os, sys, signal\nprint(int(input()) * 2, flush=True)\n"

LEAVES_WELL = [
    # Status 0 after the right output is what a shell calls success, whoever raised it.
    passed("exit in a function", "def main():\n    print(int(input()) * 2)\n    exit()\n    print('no')\nmain()"),
    passed("exit(None)", OK + "exit(None)"),
    passed("exit status that is 0 modulo 256", "import sys\n" + OK + "sys.exit(256)"),
    passed("exit(False) is exit(0)", "import sys\n" + OK + "sys.exit(False)"),
    passed("SystemExit in a generator", "def g():\n    print(int(input()) * 2)\n    raise SystemExit\n    yield\nnext(g())\nprint('no')"),
    passed("SystemExit in a sort key", OK + "def key(x): raise SystemExit\nsorted([2, 1], key=key)\nprint('no')"),
    passed("SystemExit in __eq__", OK + "class A:\n    def __eq__(s, o): raise SystemExit\nA() == 1\nprint('no')"),
    passed("SystemExit in __hash__", OK + "class A:\n    def __hash__(s): raise SystemExit\n{A()}\nprint('no')"),
    passed(
        "SystemExit in a with block",
        OK + "class C:\n    def __enter__(s): pass\n    def __exit__(s, *a): pass\nwith C():\n    raise SystemExit\nprint('no')",
    ),
    passed("SystemExit caught", "try:\n    raise SystemExit(3)\nexcept SystemExit:\n    pass\n" + OK),
    passed(
        "SystemExit in a thread ends that thread",
        "import threading, sys\nt = threading.Thread(target=sys.exit, args=(3,))\nt.start()\nt.join()\n" + OK,
    ),
    passed("SystemExit in a destructor is ignored", "class A:\n    def __del__(s): raise SystemExit(3)\na = A()\ndel a\n" + OK),
    passed("exception in an exit callback", "import atexit\natexit.register(lambda: 1 / 0)\n" + OK),
    passed(
        "exit callbacks in reverse order",
        "import atexit\nn = int(input())\natexit.register(lambda: print(n))\natexit.register(lambda: print(2, end=' * '))\natexit.register(lambda: print(n * 2))\natexit._clear()\nprint(n * 2)",
    ),
    passed("output of an exit callback after exit", "import atexit\nn = int(input())\natexit.register(print, n * 2)\nexit(0)"),
    passed(
        "output of a destructor at exit",
        "class A:\n    def __init__(s, n): s.n = n\n    def __del__(s): print(s.n * 2)\na = A(int(input()))",
    ),
    passed("finally block that prints", "import sys\ntry:\n    n = int(input())\n    sys.exit()\nfinally:\n    print(n * 2)"),
    passed("os._exit after flush", "import os, sys\nsys.stdout.write('%d' % (int(input()) * 2))\nsys.stdout.flush()\nos._exit(0)"),
    passed(
        "os._exit in a thread",
        "import os, threading, time\nprint(int(input()) * 2, flush=True)\nthreading.Thread(target=lambda: os._exit(0)).start()\ntime.sleep(1)\nprint('no')",
    ),
    passed("exit in a child process is its own", OUT + "if os.fork() == 0:\n    os._exit(3)\nos.wait()"),
    passed("closes everything at the end", OUT + "os.closerange(0, 256)"),
    passed(
        "reads to the end of input",
        "n = None\nwhile True:\n    try:\n        n = int(input())\n    except EOFError:\n        break\nprint(n * 2)",
    ),
    passed(
        "handles its own signal",
        "import signal, os\nn = []\nsignal.signal(signal.SIGUSR1, lambda *a: n.append(int(input())))\nos.kill(os.getpid(), signal.SIGUSR1)\nprint(n[0] * 2)",
    ),
    passed(
        "terminates a child process",
        "import os, signal, time\nn = int(input())\np = os.fork()\nif p == 0:\n    time.sleep(60)\nos.kill(p, signal.SIGTERM)\nassert os.WTERMSIG(os.wait()[1]) == 15\nprint(n * 2)",
    ),
    passed(
        "ignores SIGTERM", "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.kill(os.getpid(), signal.SIGTERM)\n" + OK
    ),
    passed(
        "alarm that interrupts a loop",
        "import signal\nclass T(Exception): pass\ndef stop(*a): raise T\nsignal.signal(signal.SIGALRM, stop)\ntry:\n    signal.setitimer(signal.ITIMER_REAL, 0.02)\n    while True: sum([1])\nexcept T: pass\n"
        + OK,
    ),
    passed("alarm that has not rung at the end", OK + "import signal\nsignal.alarm(1)"),
]

LEAVES_BADLY = [
    # The right output does not make up for the way it ends: from a shell the status is not 0.
    broken("exit status true", "import sys\n" + OK + "sys.exit(True)", "systemexit"),
    broken("exit status -1", "import sys\n" + OK + "sys.exit(-1)", "systemexit"),
    broken("exit with a list", "import sys\n" + OK + "sys.exit([])", "systemexit"),
    broken("exit with a float", "import sys\n" + OK + "sys.exit(0.0)", "systemexit"),
    broken("os._exit(70), the harness's own status", OUT + "os._exit(70)", "systemexit"),
    broken("os._exit(255)", OUT + "os._exit(255)", "systemexit"),
    broken("subclass of SystemExit with a status", "class E(SystemExit): pass\n" + OK + "raise E(2)", "systemexit"),
    broken("SystemExit whose status raises", "class E(SystemExit):\n    code = property(lambda s: 1 / 0)\n" + OK + "raise E", None),
    broken("terminates itself", OUT + "os.kill(os.getpid(), signal.SIGTERM)\nprint('still here')", "sigterm"),
    broken("terminates itself, quietly", OUT + "os.kill(os.getpid(), signal.SIGTERM)", "sigterm"),
    broken("hangs up", OUT + "os.kill(0, signal.SIGHUP)", "sighup"),
    broken("raise_signal", OUT + "signal.raise_signal(signal.SIGUSR2)", "sigusr2"),
    broken("pthread_kill", "import threading\n" + OUT + "signal.pthread_kill(threading.get_ident(), signal.SIGQUIT)", "sigquit"),
    broken("interrupts itself", OUT + "os.kill(os.getpid(), signal.SIGINT)\nsum(range(1000))", "keyboardinterrupt"),
    broken("interrupt_main", OUT + "import _thread\n_thread.interrupt_main()\nsum(range(1000))", "keyboardinterrupt"),
    broken("segmentation fault by signal", OUT + "os.kill(os.getpid(), signal.SIGSEGV)", None),
    broken("abort by signal", OUT + "os.kill(os.getpid(), signal.SIGABRT)", "sigabrt"),
    broken("floating point exception by signal", OUT + "os.kill(1, signal.SIGFPE)", None),
    broken("alarm that nobody handles", OUT + "signal.setitimer(signal.ITIMER_REAL, 0.01)\nimport time\ntime.sleep(5)", "sigalrm"),
    broken("profiling timer", OUT + "signal.setitimer(signal.ITIMER_PROF, 0.01)\nwhile True: pass", "sigprof"),
    broken(
        "kills itself from another process",
        OUT + "import time\nme = os.getpid()\nif os.fork() == 0:\n    os.kill(me, signal.SIGTERM)\n    os._exit(0)\ntime.sleep(5)",
        "sigterm",
    ),
    broken("null pointer call", OUT + "import ctypes\nctypes.CFUNCTYPE(None)(0)()", "sigsegv"),
    broken("breaks the interpreter's memory", OUT + "import ctypes\nctypes.memset(id(int) & ~4095, 0, 1 << 16)\nint('1')", None),
    broken("code object that crashes", OUT + "def f(): pass\nf.__code__ = f.__code__.replace(co_code=b'\\x64\\xff' * 8)\nf()", None),
    broken("error in the last line", OUT + "raise Exception", "exception"),
    broken("exception group", OUT + "raise ExceptionGroup('many', [ValueError(1)])", "exceptiongroup"),
    broken("exception without a text", OUT + "class E(Exception):\n    def __str__(s): raise s\nraise E", "e"),
    broken("exception that lies about its class", OUT + "class E(Exception):\n    __class__ = SystemExit\n    code = 0\nraise E", None),
    broken("generator exit", OUT + "raise GeneratorExit", "generatorexit"),
    broken("name that is no text", OUT + "raise type('\\ud800\\n[0', (Exception,), {})('\\ud800\\0')", None),
    broken("flush of standard output fails", "import sys, os\nsys.stdout.write('42')\nos.close(1)", "oserror"),
    broken("stdout closed below", OUT + "os.close(1)\nprint('x', flush=True)", "oserror"),
    broken("closed by hand", OUT + "sys.stdout.close()\nprint('x')", "valueerror"),
]

NO_ANSWER = [
    # An early end at a call or an assert answers nothing, however the program leaves.
    broken("exit in __init__", "class Solution:\n    def __init__(s): exit(0)\n    def f(s, x): return x * 2", "systemexit", CALLS),
    broken("exit in __getattr__", "class Solution:\n    def __getattr__(s, n): raise SystemExit(0)", "systemexit", CALLS),
    broken("exit in __call__", "class F:\n    def __call__(s, x): raise SystemExit(0)\nf = F()", "systemexit", CALLS),
    broken("exit in a default argument", "import os\ndef f(x, y=os._exit(0)): return x * 2", "systemexit", CALLS),
    broken("exit at import of the module's last line", "def f(x): return x * 2\nimport sys\nsys.exit()", "systemexit", CALLS),
    broken("exit at load, assert", "def f(x): return x * 2\nraise SystemExit(0)", "systemexit", ASSERTS),
    broken("exit at load, check", "def f(x): return x * 2\nimport os\nos._exit(0)", "systemexit", GUARDED),
    broken(
        "exit by thread in a call",
        "import os, threading, time\ndef f(x):\n    threading.Thread(target=os._exit, args=(0,)).start()\n    time.sleep(5)",
        "systemexit",
        CALLS,
    ),
    broken(
        "exit in __iter__ of the answer",
        "class L(list):\n    def __iter__(s): raise SystemExit(0)\ndef f(x):\n    raise SystemExit(L())",
        "systemexit",
        CALLS,
    ),
    broken(
        "exit by signal handler",
        "import os, signal, time\ndef f(x):\n    signal.signal(signal.SIGALRM, lambda *a: os._exit(0))\n    signal.setitimer(signal.ITIMER_REAL, 0.01)\n    time.sleep(5)",
        "systemexit",
        CALLS,
    ),
    broken(
        "exit by trace function",
        "import sys, os\ndef t(frame, event, arg): os._exit(0)\ndef f(x):\n    sys.settrace(t)\n    g()\ndef g(): pass",
        "systemexit",
        CALLS,
    ),
    broken(
        "exit by profile function when the call returns",
        "import sys, os\ndef t(frame, event, arg):\n    if event == 'c_call': os._exit(0)\ndef f(x):\n    sys.setprofile(t)\n    return x * 3",
        "systemexit",
        CALLS,
    ),
    broken(
        "exit by audit hook",
        "import sys, os\ndef f(x):\n    sys.addaudithook(lambda *a: os._exit(0))\n    open('x', 'w')",
        "systemexit",
        CALLS,
    ),
    broken(
        "exit by exception hook",
        "import sys, os\nsys.excepthook = sys.unraisablehook = lambda *a: os._exit(0)\ndef f(x): raise ValueError",
        "valueerror",
        CALLS,
    ),
    broken(
        "exit in a destructor",
        "import os\nclass A:\n    def __del__(s): os._exit(0)\ndef f(x):\n    A()\n    return x * 2",
        "systemexit",
        CALLS,
    ),
    broken(
        "exit when the module is cleared",
        "import os, sys\nclass A:\n    def __del__(s): os._exit(3)\na = A()\n" + OK + "sys.stdout.flush()",
        "systemexit",
    ),
    broken(
        "exit in a weak reference's callback",
        "import os, weakref\nclass A: pass\ndef f(x):\n    a = A()\n    r = weakref.ref(a, lambda r: os._exit(0))\n    del a",
        "systemexit",
        CALLS,
    ),
    broken(
        "exit in a garbage callback",
        "import gc, os\ndef f(x):\n    gc.callbacks.append(lambda *a: os._exit(0))\n    gc.collect()\n    return x * 2",
        "systemexit",
        CALLS,
    ),
    broken("exit by ctypes", "import ctypes\ndef f(x): ctypes.CDLL(None)._exit(0)", "systemexit", CALLS),
    broken("exit by libc", "import ctypes\ndef f(x): ctypes.CDLL(None).exit(0)", "systemexit", CALLS),
    broken("exit by a system call", "import ctypes\ndef f(x): ctypes.CDLL(None).syscall(231, 0)", None, CALLS),
    broken("recursion to the end", "def f(x): return f(x + 1)", "recursionerror", CALLS),
    broken("exit in a check after the first assert", "def f(x):\n    if x == 4: exit(0)\n    return 42", "systemexit", GUARDED),
    failed("exit in a check after a wrong answer", "def f(x):\n    if x == 4: exit(0)\n    return 41", GUARDED),
    failed("prints the right answer, then os._exit", "import os\ndef f(x):\n    print(x * 2)", CALLS),
    broken("quits through the debugger", "import bdb\ndef f(x): raise bdb.BdbQuit", "bdbquit", CALLS),
    broken("stops an iteration", "def f(x): raise StopIteration(x * 2)", "stopiteration", CALLS),
    failed("leaves a stdin test after the first line", "print(42)\nexit()"),
    failed("returns NotImplemented", "def f(x): return NotImplemented", CALLS),
    failed("coroutine instead of an answer", "async def f(x): return x * 2", CALLS),
]

CASES = LEAVES_WELL + LEAVES_BADLY + NO_ANSWER
