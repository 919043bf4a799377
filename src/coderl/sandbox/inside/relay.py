"""Process 1 of a container: starts the parent of programs beside itself and carries its messages over standard input and output.

    judge outside  --frames over standard input-->  relay  --as on the host (parent.py)-->  zygote  --clone-->  child = one program
                   <--frames over standard output--

A frame is its kind, its length and its body:

    s  settings as JSON           -> h  what is active, as JSON   or  x  why it did not start, as JSON
    c  UTF-8 source               -> c  the compiler's reply, empty if it died
    r  seconds, request, job      -> r  reply, answers, size and beginning of the output   or  d  why the worker died
    o  start and end              -> o  that part of the output
    k  a reply                    -> k  the same, with self-kills told apart

Where the judge offers a socket in a folder of the container (settings: direct), the relay passes it the descriptors of sockets and files
instead, and only k is still asked: what the judge reads and writes then goes through no third process.

The end of standard input is the end of the judge: the relay leaves, and the kernel ends everything that the container holds.
Programs cannot reach the relay: it is not dumpable, and signals to it are refused (contained.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import struct
from pathlib import Path
from typing import Any, NoReturn

from . import contained
from .parent import START_SECONDS, Parent, StartError, WorkerDiedError
from .zygote import REPLY

HEADER = struct.Struct("<cQ")
RUN = struct.Struct("<dI")
"""Seconds, length of the request."""
LEFT = struct.Struct("<IQQ")
"""Lengths of reply and answers, size of the output."""
SPAN = struct.Struct("<QQ")
AT_ONCE = 64 << 10
"""So much of the output comes with the reply; the rest is asked for if the judge wants it."""
MAX_FRAME = 256 << 20
_OUT_OF_MEMORY_COUNTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def sources() -> str:
    """Digest of this package: judge and container must have the same one."""
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".py", ".c")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _read(size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _receive() -> tuple[bytes, bytes]:
    kind, size = HEADER.unpack(_read(HEADER.size))
    return kind, _read(size)


def _send(kind: bytes, *parts: bytes) -> None:
    data = b"".join((HEADER.pack(kind, sum(map(len, parts))), *parts))
    try:
        written = os.write(1, data)
        while written < len(data):
            written += os.write(1, data[written:])
    except OSError:
        os._exit(0)


def _out_of_memory_kills() -> int | None:
    """How often the kernel killed a process of this container for lack of memory; None where that cannot be read."""
    for path in _OUT_OF_MEMORY_COUNTS:
        try:
            lines = Path(path).read_text().split("\n")
        except OSError:
            continue
        for line in lines:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


class Relay:
    """One parent of programs and the judge's messages to it."""

    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        self.kills = _out_of_memory_kills()
        assert parent.control is not None
        self.waiting = select.poll()
        self.waiting.register(0, select.POLLIN | select.POLLHUP)
        self.waiting.register(parent.control.fileno(), select.POLLIN | select.POLLHUP)

    def run(self, body: bytes) -> None:
        """One child."""
        seconds, length = RUN.unpack_from(body)
        start = RUN.size + length
        self.parent.begin(body[start:], body[RUN.size : start])
        if any(file == 0 for file, _ in self.waiting.poll(seconds * 1000)):
            os._exit(0)  # the judge says nothing while a program runs: it is gone
        left = self.parent.finish(1.0)
        reply = self.told_apart(left.reply)
        head = self.parent.output(0, min(left.output_size, AT_ONCE))
        _send(b"r", LEFT.pack(len(reply), len(left.answers), left.output_size), reply, left.answers, head)

    def told_apart(self, reply: bytes) -> bytes:
        """A program that killed itself, and not the kernel for lack of memory, is reported as it is elsewhere: by SIGSYS."""
        status, cause, *rest = REPLY.unpack(reply)
        if status != signal.SIGKILL or cause or self.kills is None:
            return reply
        before, self.kills = self.kills, _out_of_memory_kills()
        return reply if before != self.kills else REPLY.pack(signal.SIGSYS, cause, *rest)

    def serve(self) -> NoReturn:
        """The judge's frames, one after the other, until it leaves."""
        while True:
            kind, body = _receive()
            try:
                if kind == b"r":
                    self.run(body)
                elif kind == b"c":
                    _send(b"c", self.parent.compile(body[8:], *struct.unpack_from("<d", body)))
                elif kind == b"k":
                    _send(b"k", self.told_apart(body))
                elif kind == b"o":
                    _send(b"o", self.parent.output(*SPAN.unpack(body)))
            except WorkerDiedError as error:
                _send(b"d", f"{error}\n{self.parent.said()}".rstrip().encode())


def _pass_on(parent: Parent, path: str, word: str) -> bool:
    """Give the judge at the socket `path` the descriptors; False where it cannot be reached."""
    assert parent.control is not None
    assert parent.compiler is not None
    try:
        with socket.socket(socket.AF_UNIX) as judge:
            judge.settimeout(START_SECONDS)
            judge.connect(path)
            socket.send_fds(judge, [word.encode()], [parent.control.fileno(), parent.compiler.fileno(), *parent.files])
    except OSError:
        return False
    return True


def main() -> NoReturn:
    """Serve the judge at the other end of standard input and output."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    contained.hide()
    _, body = _receive()
    settings: dict[str, Any] = json.loads(body)
    try:
        parent = Parent(settings)
    except (StartError, OSError) as error:
        _send(b"x", json.dumps([str(error), getattr(error, "isolation", False)]).encode())
        os._exit(0)
    direct = "direct" in settings and _pass_on(parent, *settings["direct"])
    _send(b"h", json.dumps({**parent.layers, "sources": sources(), "direct": direct}).encode())
    Relay(parent).serve()
