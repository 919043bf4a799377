"""System calls that Python 3.11 has no function for, and the seccomp filter, by ctypes. Linux on x86_64 and aarch64."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import stat
import struct

MACHINE = platform.machine()
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(MACHINE, -1)
_AUDIT_ARCHITECTURE = (0xC000003E, 0xC00000B7)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP = 0x10000000, 0x20000000, 0x40000000, 0x02000000
CLONE_NEWTIME = 0x00000080
CLONE_PARENT = 0x00008000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE, MS_REMOUNT = 1, 2, 4, 4096, 16384, 1 << 18, 32
MNT_DETACH = 2
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
# Landlock: what a rule may allow beneath a path.
MAY_EXECUTE, MAY_WRITE_FILE, MAY_READ_FILE, MAY_READ_DIR, MAY_REFER, MAY_TRUNCATE = 1, 2, 4, 8, 1 << 13, 1 << 14
MAY_CHANGE_DIR = sum(1 << bit for bit in range(4, 13))
"""Make and remove entries of every kind."""

_libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter's lock: between clone and the child's first byte code no other thread may run.
_syscall_with_lock = ctypes.PyDLL(None, use_errno=True).syscall
_syscall_with_lock.restype = ctypes.c_long
_syscall_with_lock.argtypes = [ctypes.c_long] * 6
_libc.syscall.restype = ctypes.c_long

# name: (x86_64, aarch64); -1 = the machine has no such call. Everything else is refused with EPERM: no sockets but pairs, no
# exec, ptrace, mounts, namespaces, keys, bpf, perf events, io_uring, System V memory, message queues, memory files, modules.
_ALLOWED = """
read 0 63;write 1 64;open 2 -1;close 3 57;stat 4 -1;fstat 5 80;lstat 6 -1;poll 7 -1;lseek 8 62;mmap 9 222;mprotect 10 226;
munmap 11 215;brk 12 214;rt_sigaction 13 134;rt_sigprocmask 14 135;rt_sigreturn 15 139;pread64 17 67;pwrite64 18 68;
readv 19 65;writev 20 66;access 21 -1;pipe 22 -1;select 23 -1;sched_yield 24 124;mremap 25 216;msync 26 227;mincore 27 232;
madvise 28 233;dup 32 23;dup2 33 -1;pause 34 -1;nanosleep 35 101;getitimer 36 102;alarm 37 -1;setitimer 38 103;getpid 39 172;
sendfile 40 71;sendto 44 206;recvfrom 45 207;sendmsg 46 211;recvmsg 47 212;shutdown 48 210;getsockname 51 204;
getpeername 52 205;setsockopt 54 208;getsockopt 55 209;fork 57 -1;vfork 58 -1;exit 60 93;wait4 61 260;uname 63 160;
fcntl 72 25;flock 73 32;fsync 74 82;fdatasync 75 83;truncate 76 45;ftruncate 77 46;getdents 78 -1;getcwd 79 17;chdir 80 49;
fchdir 81 50;rename 82 -1;mkdir 83 -1;rmdir 84 -1;creat 85 -1;link 86 -1;unlink 87 -1;symlink 88 -1;readlink 89 -1;
chmod 90 -1;fchmod 91 52;umask 95 166;gettimeofday 96 169;getrlimit 97 163;getrusage 98 165;sysinfo 99 179;times 100 153;
getuid 102 174;getgid 104 176;geteuid 107 175;getegid 108 177;setpgid 109 154;getppid 110 173;getpgrp 111 -1;setsid 112 157;
getgroups 115 158;setresuid 117 147;getresuid 118 148;setresgid 119 149;getresgid 120 150;getpgid 121 155;capget 125 90;
capset 126 91;getsid 124 156;rt_sigpending 127 136;rt_sigtimedwait 128 137;rt_sigsuspend 130 133;sigaltstack 131 132;
utime 132 -1;statfs 137 43;fstatfs 138 44;getpriority 140 141;sched_getparam 143 121;sched_getscheduler 145 120;
sched_get_priority_max 146 125;sched_get_priority_min 147 126;arch_prctl 158 -1;setrlimit 160 164;gettid 186 178;
time 201 -1;futex 202 98;sched_getaffinity 204 123;epoll_create 213 -1;getdents64 217 61;set_tid_address 218 96;
restart_syscall 219 128;fadvise64 221 223;clock_gettime 228 113;clock_getres 229 114;clock_nanosleep 230 115;
exit_group 231 94;epoll_wait 232 -1;epoll_ctl 233 21;utimes 235 -1;waitid 247 95;openat 257 56;mkdirat 258 34;
newfstatat 262 79;unlinkat 263 35;renameat 264 38;linkat 265 37;symlinkat 266 36;readlinkat 267 78;fchmodat 268 53;
faccessat 269 48;pselect6 270 72;ppoll 271 73;set_robust_list 273 99;get_robust_list 274 100;utimensat 280 88;
epoll_pwait 281 22;eventfd 284 -1;fallocate 285 47;eventfd2 290 19;epoll_create1 291 20;dup3 292 24;pipe2 293 59;
preadv 295 69;pwritev 296 70;prlimit64 302 261;getcpu 309 168;renameat2 316 276;getrandom 318 278;membarrier 324 283;
copy_file_range 326 285;pidfd_open 434 434;statx 332 291;rseq 334 293;close_range 436 436;faccessat2 439 439;futex_waitv 449 449
"""
_CLONE, _CLONE3, _SOCKETPAIR, _IOCTL, _PRCTL = (56, 220), (435, 435), (53, 199), (16, 29), (157, 167)
_KILL, _TKILL, _TGKILL = (62, 129), (200, 130), (234, 131)
_PRLIMIT, _FCNTL, _SETPGID, _SETSID = (302, 261), (72, 25), (109, 154), (112, 157)
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # on every machine
_SECCOMP_CALLS = {"mount_setattr": (442, 442), "pivot_root": (155, 41), "capset": (126, 91)}
_DEADLY = (4, 7, 8, 11)
# Terminal queries (isatty, size), FIONREAD, FIONBIO, close-on-exec: what Python's own file objects ask for.
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return _COLUMN >= 0


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags`; raises OSError."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def prctl(option: int, value: int) -> None:
    """prctl(option, value, 0, 0, 0); raises OSError."""
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)), "prctl")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2); raises OSError naming the target."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount on {target}")


def make_read_only(target: str) -> None:
    """Make a mount and all mounts below it read-only, nosuid; raises OSError (before Linux 5.12: ENOSYS)."""
    attributes = struct.pack("<QQQQ", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
    number = _SECCOMP_CALLS["mount_setattr"][_COLUMN]
    result = _libc.syscall(
        ctypes.c_long(number),
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    _check(result, f"making {target} read-only")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2); raises OSError."""
    _check(_libc.syscall(ctypes.c_long(_SECCOMP_CALLS["pivot_root"][_COLUMN]), os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


def unmount(target: str) -> None:
    """Detach a mount; raises OSError."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def clone(flags: int) -> int:
    """fork() with clone flags and without any of Python's or libc's fork hooks; returns 0 in the child.

    Safe in a process with one thread. The child keeps the parent's random state, so every program sees the same one.
    """
    number = (_CLONE[0], _CLONE[1])[_COLUMN]
    return _check(int(_syscall_with_lock(number, flags, 0, 0, 0, 0)), "clone")


_CAPABILITY_HEADER = struct.pack("<Ii", 0x20080522, 0)
_NO_CAPABILITIES = bytes(24)


def drop_capabilities() -> None:
    """Give up every capability of the calling thread; raises OSError."""
    _check(int(_libc.syscall(ctypes.c_long(_SECCOMP_CALLS["capset"][_COLUMN]), _CAPABILITY_HEADER, _NO_CAPABILITIES)), "capset")


FATAL_SIGNALS = (1, 3, 6, 10, 12, 14, 15, 24, 26, 27)
"""Signals that end a process which does not handle them: SIGHUP, QUIT, ABRT, USR1, USR2, ALRM, TERM, XCPU, VTALRM, PROF."""
_DIE = bytes.fromhex("57 b827000000 0f05 5e 83f801 740a 89c7 b83e000000 0f05 c3 8dbe80000000 b8e7000000 0f05")
"""getpid() == 1 ? exit_group(128 + signal) : kill(getpid(), signal), for x86_64."""
_handler: list[mmap.mmap] = []


def die_by_signals() -> None:
    """Let this process and what it forks die by signals although each is the first of a process namespace.

    The kernel shields such a process from signals that it does not handle. The handler installed here is none that Python knows of
    (`signal.getsignal` says SIG_DFL, as it should). Only on x86_64; elsewhere, or where no memory may be executable, a program
    that signals itself goes on.
    """
    if MACHINE != "x86_64":
        return
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return
    page[: len(_DIE)] = _DIE
    _handler.append(page)
    install = _libc.sysv_signal  # the handler is good for one signal, and the signal is not blocked in it
    install.restype = ctypes.c_void_p
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    for number in FATAL_SIGNALS:
        install(ctypes.c_int(number), ctypes.c_void_p(address))


_ALLOW, _REFUSE, _UNKNOWN, _PRETEND, _KILL_ALL = 0x7FFF0000, 0x00050001, 0x00050026, 0x00050000, 0x80000000
"""Answers of a filter: let through, EPERM, ENOSYS, 0 without doing anything, SIGSYS to the whole process."""


def _filter() -> bytes:
    """The seccomp program: an allow list with EPERM for the rest."""
    load, equal, greater, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, unknown, kill = _ALLOW, _REFUSE, _UNKNOWN, _KILL_ALL
    number, architecture, argument = 0, 4, (16, 24, 32)
    lines: list[tuple[int, int, int, int]] = []

    def add(code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        lines.append((code, if_true, if_false, value))

    add(load, architecture)
    add(equal, _AUDIT_ARCHITECTURE[_COLUMN], 1, 0)
    add(give, kill)
    add(load, number)
    if _COLUMN == 0:
        add(greater, 0x40000000, 0, 1)  # the x32 calls have the same numbers with this bit
        add(give, unknown)
    for entry in _ALLOWED.replace("\n", "").split(";"):
        here = int(entry.split()[1 + _COLUMN])
        if here >= 0:
            add(equal, here, 0, 1)
            add(give, allow)
    add(equal, _CLONE3[_COLUMN], 0, 1)  # its flags lie in memory, where a filter cannot read; libc falls back to clone
    add(give, unknown)
    # A new pid namespace needs a capability, which only the parent of the programs has; the others must not even be tried.
    namespaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWCGROUP
    add(equal, _CLONE[_COLUMN], 0, 4)
    add(load, argument[0])
    add(any_bit, namespaces, 0, 1)
    add(give, refuse)
    add(give, allow)
    add(equal, _SOCKETPAIR[_COLUMN], 0, 3)
    add(load, argument[0])
    add(equal, 1, 0, 1)  # AF_UNIX: asyncio wakes itself up through such a pair
    add(give, allow)
    add(load, number)
    add(equal, _IOCTL[_COLUMN], 0, 2 + 2 * len(_IOCTLS))
    add(load, argument[1])
    for request in _IOCTLS:
        add(equal, request, 0, 1)
        add(give, allow)
    add(give, refuse)
    # A program is process 1 of its namespace, which the kernel shields from its own signals: a program that kills itself has
    # to die all the same. (Other fatal signals have a handler for that; these cannot be handled so.)
    for call, signal_argument in ((_KILL, 1), (_TKILL, 1), (_TGKILL, 2)):
        add(equal, call[_COLUMN], 0, 7 + len(_DEADLY))
        add(load, argument[signal_argument])
        for left, number in reversed(list(enumerate(_DEADLY, 1))):
            add(equal, number, left, 0)
        add(equal, 9, 0, 4)
        add(load, argument[0])
        add(equal, 0, 1, 0)  # 0 = its own process group
        add(equal, 1, 0, 1)
        add(give, kill)
        add(give, allow)
    add(equal, _PRCTL[_COLUMN], 0, 3)
    add(load, argument[0])
    add(equal, 15, 0, 1)  # PR_SET_NAME
    add(give, allow)
    add(give, refuse)
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


_OWN_GROUP = 0x67726F75
"""Third argument of setpgid, which has two: the parent of programs means it. Not a secret, see contained.py."""


def own_group() -> None:
    """Lead a process group of one's own, also behind `install_shared_filter`; raises OSError."""
    _check(int(_syscall_with_lock(_SETPGID[_COLUMN], 0, 0, _OWN_GROUP, 0, 0)), "setpgid")


def _shared_filter(protected: list[int], group: int) -> bytes:
    """For programs that share process ids and user id with their parent: what would reach one of `protected`, or all, is refused.

    Signals and limits (prlimit) for these processes, signals for their process `group` and for everybody; signals by way of a
    file descriptor (F_SETOWN, F_SETSIG). New groups and sessions are pretended, so that the group holds all that a program forks.
    """
    load, equal, give = 0x20, 0x15, 0x06
    number, argument = 0, (16, 24, 32)
    lines: list[tuple[int, int, int, int]] = []

    def add(code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        lines.append((code, if_true, if_false, value))

    add(load, number)
    targets = sorted({*protected, -1 & 0xFFFFFFFF, -group & 0xFFFFFFFF})
    for call in (_KILL, _TKILL, _TGKILL, _PRLIMIT):
        add(equal, call[_COLUMN], 0, 2 + 2 * len(targets))
        add(load, argument[0])
        for target in targets:
            add(equal, target, 0, 1)
            add(give, _REFUSE)
        add(give, _ALLOW)
    add(equal, _FCNTL[_COLUMN], 0, 8)
    add(load, argument[1])
    for command in (8, 10, 15):  # F_SETOWN, F_SETSIG, F_SETOWN_EX
        add(equal, command, 0, 1)
        add(give, _REFUSE)
    add(give, _ALLOW)
    add(equal, _SETSID[_COLUMN], 0, 1)
    add(give, _PRETEND)
    add(equal, _SETPGID[_COLUMN], 0, 3)
    add(load, argument[2])
    add(equal, _OWN_GROUP, 1, 0)
    add(give, _PRETEND)
    add(give, _ALLOW)
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def install_filter() -> None:
    """No new privileges, then the system call filter, for this process and all that it forks; raises OSError."""
    _install(_filter())


def install_shared_filter(protected: list[int], group: int) -> None:
    """On top of the other filter, see `_shared_filter`; raises OSError."""
    _install(_shared_filter(protected, group))


def landlock_version() -> int:
    """What the kernel's Landlock can do; 0 = there is none, it is switched off, or a container's filter hides it."""
    return max(0, int(_libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def landlock(rules: list[tuple[str, int]], version: int) -> None:
    """Files, for this process and all that it forks: only what `rules` (path, rights beneath it) allow. Paths that are not there

    are passed over. From version 4 on no TCP at all, from version 6 on no signals to processes outside. Raises OSError.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    handled = (1 << 13) - 1 | (MAY_REFER if version >= 2 else 0) | (MAY_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("<QQQ", handled, 3, 3)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    _check(ruleset, "landlock")
    for path, rights in rules:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= MAY_EXECUTE | MAY_WRITE_FILE | MAY_READ_FILE | MAY_TRUNCATE
        rule = struct.pack("<Qi", rights & handled, place)
        _check(
            _libc.syscall(ctypes.c_long(_LANDLOCK_ADD), ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0)), f"landlock: {path}"
        )
        os.close(place)
    _check(_libc.syscall(ctypes.c_long(_LANDLOCK_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint(0)), "landlock")
    os.close(ruleset)


def _install(program: bytes) -> None:
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    holder = ctypes.create_string_buffer(header, len(header))
    _check(
        _libc.prctl(
            ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(2), ctypes.c_void_p(ctypes.addressof(holder)), ctypes.c_ulong(0), ctypes.c_ulong(0)
        ),
        "seccomp",
    )
