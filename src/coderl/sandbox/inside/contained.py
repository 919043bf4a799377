"""Walls between programs and their parent where both share one user and one process namespace.

That is so inside a container, which is the wall around all of them but cannot be divided without rights that it does not give;
and without isolation. No program may hurt its parent, the compiler or whoever started them, and none may outlive its judging:

- Signals and limits reach the program itself and what it forked (syscalls.install_shared_filter; Landlock where it has scopes).
- The others are not dumpable: their memory, descriptors and environment are closed to a program although it is the same user.
- A program leads a process group that nothing it forks can leave: new groups and sessions are pretended. At its end the whole
  group is killed at once (a fork either sees the signal or comes before it) and reaped. The parent is the reaper of orphans and
  has no other child, so it knows when somebody got out of the group after all: then this worker is not used again.
- Exchange files belong to the same user: a program that makes one unreadable is set right, one that replaces it or leaves something
  beside it (possible without Landlock) ends the worker.
"""

from __future__ import annotations

import os
import signal

from . import jail, syscalls


class SharedWalls:
    """State that the parent of programs keeps about them."""

    def __init__(self, folder: str, landlock: int) -> None:
        self.folder = folder
        self.names = None if landlock else sorted(os.listdir(folder))
        self.paths = [f"{folder}/{name}" for name in jail.IO_NAMES]
        self.kept = [_identity(path) for path in self.paths]
        self.escaped = False

    def become_program(self) -> None:
        """In the child, before the program."""
        syscalls.own_group()
        syscalls.drop_capabilities()

    def end(self, group: int) -> None:
        """Kill and reap what a program forked, after the program itself has been reaped."""
        kill_group(group)
        if not _reap(-group):
            # Every member of the group had a parent in it or us, and there is no parent left: the group is empty.
            self.escaped = self.escaped or _reap(-1, os.WNOHANG)

    def restore(self) -> bool:
        """Make the exchange files as they were; False when this worker must not be used again."""
        if self.escaped or (self.names is not None and sorted(os.listdir(self.folder)) != self.names):
            return False
        for path, kept in zip(self.paths, self.kept, strict=True):
            now = _identity(path)
            if now != kept:
                if now[:2] != kept[:2]:
                    return False
                os.chmod(path, kept[2])
        return True


def _identity(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return (0, 0, 0)
    return found.st_dev, found.st_ino, found.st_mode & 0o7777


def _reap(which: int, options: int = 0) -> bool:
    """Wait for all children that `which` names; True when (with WNOHANG) some are left that have not ended."""
    while True:
        try:
            ended, _ = os.waitpid(which, options)
        except ChildProcessError:
            return False
        if not ended:
            return True


def kill_group(group: int) -> None:
    """End the program and all that it forked."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def hide() -> None:
    """For a process that programs must not look into: no memory, no descriptors, no environment under /proc."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Whoever loses its parent below this process becomes its child."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


def end_children() -> None:
    """Kill and reap every child and adopted orphan of this process."""
    try:
        while True:
            with open(f"/proc/self/task/{os.getpid()}/children") as children:
                left = [int(child) for child in children.read().split()]
            if not left:
                return
            for child in left:
                kill_group(os.getpgid(child) if os.getpgid(child) != os.getpgrp() else child)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
    except OSError:  # no /proc, where the process namespace ends them
        return


def rehearse(program_id: int) -> None:
    """Inside walls that jail.enter built: give everything to the user of the programs and become it, as in a container."""
    if program_id:
        for path in (jail.BOX, *(f"{jail.FILES}/{name}" for name in jail.IO_NAMES)):
            os.chown(path, program_id, program_id)
        os.setresgid(program_id, program_id, program_id)
        os.setresuid(program_id, program_id, program_id)
    else:
        syscalls.drop_capabilities()
    os.setpgid(0, 0)
