"""The walls: namespaces, a minimal read-only file system, limits, no capabilities. Entered once, by the parent of all programs.

What a program sees afterwards: Python's library and the system's shared libraries (read-only), a few harmless devices, an
empty writable directory, and nothing else: no /proc, no /sys, no home, no network but an idle loopback, no other process.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from . import syscalls

BOX = "/box"
FILES = "/io"
PACKAGES = "/packages"
PROGRAM_ID = 1000
"""User and group of the programs inside, where the host lets us map a second one."""

NAMESPACES = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
)
_SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
_DEVICES = ("null", "zero", "full", "random", "urandom")
IO_NAMES = ("job", "in", "out", "answers")


class JailError(Exception):
    """A wall that this host does not let us build; the message names it."""


def _covered(path: str, bound: list[str]) -> bool:
    return any(path == other or path.startswith(other.rstrip("/") + "/") for other in bound)


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    syscalls.mount(source, target, None, syscalls.MS_BIND | syscalls.MS_REC)


def _build_root(library: list[str], settings: dict[str, Any]) -> None:
    # /proc is always there and nothing that we bind lies under it: the one place where a new root can be put together.
    root = "/proc"
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("tmpfs", root, "tmpfs", syscalls.MS_NOSUID, "mode=755,size=1m")
    bound: list[str] = []
    for path in (*_SYSTEM_LIBRARIES, *library):
        if not os.path.exists(path) or _covered(path, bound):
            continue
        link = os.readlink(path) if os.path.islink(path) else ""
        if link and not link.startswith("/") and ".." not in link:
            os.symlink(link, root + path)
        else:
            source = os.path.realpath(path)
            _bind(source, root + path)
            syscalls.make_read_only(root + path)
        bound.append(path)
    for packages in ("/usr/lib/python3/dist-packages", *(os.path.join(path, "site-packages") for path in library)):
        if os.path.isdir(root + packages):
            # Installed packages are no part of the program's world, even where the library's folder holds them.
            syscalls.mount(
                "tmpfs", root + packages, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_RDONLY, "mode=755,size=4k"
            )
    for path in settings["packages"]:  # but for those that the judge asks for
        target = f"{root}{PACKAGES}/{os.path.basename(path)}"
        _bind(path, target)
        syscalls.make_read_only(target)
    for name in _DEVICES:
        if os.path.exists("/dev/" + name):
            _bind("/dev/" + name, f"{root}/dev/{name}")
    os.makedirs(root + FILES)
    syscalls.mount("tmpfs", root + FILES, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755,size=2g,nr_inodes=64")
    for name in IO_NAMES:
        path = f"{root}{FILES}/{name}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.chmod(path, 0o600 if name == "job" else 0o666)
        # A mount of its own stays writable when the folder around it becomes read-only: no program can replace or remove it.
        syscalls.mount(path, path, None, syscalls.MS_BIND)
    attributes = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("none", root + FILES, None, attributes)
    os.makedirs(root + BOX)
    size = int(settings["max_file_mb"])
    options = f"mode=777,size={size}m,nr_inodes={settings['max_files']}"
    syscalls.mount("tmpfs", root + BOX, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    for link in ("/tmp", "/dev/shm"):
        if not os.path.exists(root + link):  # Python's library may be installed below it
            os.symlink(BOX, root + link)
    os.symlink(f"{FILES}/in", root + "/dev/stdin")
    os.symlink(f"{FILES}/out", root + "/dev/stdout")
    os.symlink("/dev/null", root + "/dev/stderr")
    os.makedirs(root + "/old")
    os.chdir(root)
    syscalls.pivot_root(".", "./old")
    os.chdir("/")
    syscalls.unmount("/old")
    os.rmdir("/old")
    syscalls.mount("none", "/", None, syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | syscalls.MS_NOSUID)


def _library() -> list[str]:
    return [os.path.join(sys.base_prefix, "lib"), *(path for path in sys.path if os.path.isabs(path))]


def rules(settings: dict[str, Any], folder: str, box: str) -> list[tuple[str, int]]:
    """For Landlock: read and execute beneath the libraries; change what lies beneath the box; write the exchange files."""
    read = syscalls.MAY_EXECUTE | syscalls.MAY_READ_FILE | syscalls.MAY_READ_DIR
    write = syscalls.MAY_READ_FILE | syscalls.MAY_WRITE_FILE | syscalls.MAY_TRUNCATE
    change = read | write | syscalls.MAY_CHANGE_DIR | syscalls.MAY_REFER
    return [
        *((path, read) for path in (*_SYSTEM_LIBRARIES, *_library())),
        *((f"/dev/{name}", syscalls.MAY_READ_FILE) for name in _DEVICES if name != "null"),
        *((path, write) for path in ("/dev/null", f"{folder}/in", f"{folder}/out", f"{folder}/answers")),
        *((path, change) for path in (box, *settings["scratch"], *settings["foreign"])),
        # Of a root of our own the names are no secret.
        *([("/", syscalls.MAY_READ_DIR)] if folder == FILES else []),
    ]


def enter(settings: dict[str, Any], ask_for_ids: Callable[[], int]) -> int:
    """Leave every namespace and move into the read-only root; returns the user id of programs inside.

    `ask_for_ids` has the judge outside write the user and group maps and returns how many ids it could map (2: programs run
    under an id of their own; 1: they share that of the parent, without its capabilities).

    Raises:
        JailError: naming the wall that could not be built.
    """
    library = _library()
    try:
        syscalls.unshare(NAMESPACES)
    except OSError as error:
        raise JailError(f"user namespace: {error.strerror}") from None
    program_id = PROGRAM_ID if ask_for_ids() == 2 else 0
    try:
        _build_root(library, settings)
    except OSError as error:
        raise JailError(f"read-only root: {error}") from None
    if program_id:
        os.setgroups([])
    return program_id


def memory_in_use() -> int:
    """Address space of this process in MB: what the interpreter itself takes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize() >> 20


def limit(settings: dict[str, Any], base: int) -> None:
    """Set the limits that every program inherits. Call it inside the user namespace: the number of processes is counted there.

    The address space gets room beyond `memory_mb`: threads reserve big stacks that they never touch. What was really used is
    read from the kernel at the end and compared with `memory_mb` outside. Processes: `other_processes` is what counts along: the
    launcher and the zygote where only one user id can be mapped, everything that the user runs where there is no namespace.
    """
    wanted = {
        resource.RLIMIT_AS: (base + settings["memory_mb"] + settings["stack_room_mb"]) << 20,
        resource.RLIMIT_FSIZE: max(settings["max_file_mb"], settings["max_output_mb"] + 5) << 20,
        resource.RLIMIT_NPROC: settings["max_processes"] + settings["other_processes"],
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_STACK: 120 << 20,
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # Programs for deep recursion raise the soft limit of the stack "to infinity"; the address space bounds it all the same.
        resource.setrlimit(kind, (value, hard if kind == resource.RLIMIT_STACK else value))
