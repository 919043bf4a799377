"""Containers as backends: a stream to the relay inside (inside/relay.py), and the engines that start one.

A container lives as long as its worker. It ends when its standard input does, and the engine keeps that open only while this
process lives: nothing has to be cleaned up after kill -9.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Protocol

from coderl.sandbox.inside import relay
from coderl.sandbox.inside.parent import MAX_ANSWERS, START_SECONDS, Exchange, Left, WorkerDiedError
from coderl.sandbox.inside.zygote import REPLY
from coderl.sandbox.outcome import InfrastructureError, Limits

DOCKER_IMAGE = "CODERL_DOCKER_IMAGE"
"""Environment variable: name of the image, if it is not `coderl-sandbox`."""
APPTAINER_IMAGE = "CODERL_APPTAINER_IMAGE"
"""Environment variable: path of the image, if it is not workflow/containers/sandbox.sif below the current folder."""

LABEL = "coderl.sandbox"
"""Of every container: the process that started it."""
_HOME = "/opt/coderl"
_JUDGE = "/judge"
_DOORSTEP = "coderl-sandbox-"
_PYTHON = [
    "-s",
    "-S",
    "-P",
    "-B",
    "-X",
    "utf8",
    "-c",
    "import sys; sys.path.insert(0, sys.argv.pop()); from inside.relay import main; main()",
]
RELAY = ["python3", *_PYTHON, _HOME]
_NOBODY = 65534
_ROOM_MB = 1536
"""Memory of a container beyond a program's limit: 1 GB of reserved stacks as everywhere, its own processes, files in memory."""
_OWN_PROCESSES = 5
"""Relay, launcher, zygote, compiler, and one that is being cleaned up."""
_BUILD = (
    "in the project's folder: docker build -t {image} -f workflow/containers/Dockerfile src/coderl/sandbox "
    "(without access to a registry: bash workflow/containers/make_base.sh, and --build-arg BASE_IMAGE=coderl-sandbox-base)"
)


class Stream(Protocol):
    """Standard input and output of a relay."""

    def write(self, data: bytes, deadline: float) -> None:
        """All of `data`; raises OSError."""

    def read(self, deadline: float) -> bytes:
        """Some bytes of standard output; empty at its end; raises OSError, TimeoutError after `deadline` (monotonic)."""

    def settings(self) -> dict[str, Any]:
        """What the relay is told beside the parent's settings."""

    def direct(self, passed: bool) -> Exchange | None:
        """The descriptors, if the relay says that it passed them on; raises OSError."""

    def said(self) -> str:
        """The end of standard error."""

    def kill(self) -> None:
        """From another thread: make `read` return."""

    def close(self) -> None:
        """End the container."""


class StreamLink:
    """A parent of programs at the other end of a stream. Raises InfrastructureError."""

    def __init__(self, stream: Stream, settings: dict[str, Any], what: str) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._head = b""
        self._direct: Exchange | None = None
        self.layers: dict[str, Any] = {}
        try:
            kind, body = self._ask(b"s", json.dumps({**settings, **stream.settings()}).encode(), START_SECONDS)
            if kind == b"x":
                raise InfrastructureError(f"{what}: {json.loads(body)[0]}")
            self.layers = json.loads(body)
            self._direct = stream.direct(bool(self.layers.get("direct")))
        except (WorkerDiedError, ValueError, OSError) as error:
            self.close()
            raise InfrastructureError(f"{what} did not start: {error}") from None
        except BaseException:
            self.close()
            raise
        if self.layers.get("sources") != relay.sources():
            self.close()
            raise InfrastructureError(f"{what} was built from other sources than this judge: build its image again (docs/outcomes.md)")

    def _ask(self, kind: bytes, body: bytes, seconds: float) -> tuple[bytes, bytes]:
        deadline = time.monotonic() + seconds
        try:
            self._stream.write(relay.HEADER.pack(kind, len(body)) + body, deadline)
            answer, size = relay.HEADER.unpack(self._read(relay.HEADER.size, deadline))
            if size > relay.MAX_FRAME:
                raise WorkerDiedError("its answer is no answer")
            return answer, self._read(size, deadline)
        except OSError as error:
            raise WorkerDiedError(f"no answer: {error}\n{self._stream.said()}".rstrip()) from None

    def _read(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            part = self._stream.read(deadline)
            if not part:
                raise WorkerDiedError(f"it ended\n{self._stream.said()}".rstrip())
            self._buffer += part
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def compile(self, source: bytes, seconds: float) -> bytes:
        """The compiler's reply; empty when it died."""
        if self._direct is not None:
            return self._direct.compile(source, seconds)
        try:
            return self._ask(b"c", struct.pack("<d", seconds) + source, seconds + START_SECONDS)[1]
        except WorkerDiedError:
            return b""

    def run(self, job: bytes, request: bytes, seconds: float) -> Left:
        """Run one child; raises WorkerDiedError."""
        if self._direct is not None:
            left = self._direct.run(job, request, seconds)
            status, cause, *_ = REPLY.unpack(left.reply)
            asked = status == signal.SIGKILL and cause == 0
            return left._replace(reply=self._ask(b"k", left.reply, START_SECONDS)[1]) if asked else left
        kind, body = self._ask(b"r", relay.RUN.pack(seconds, len(request)) + request + job, seconds + START_SECONDS)
        if kind != b"r" or len(body) < relay.LEFT.size:
            raise WorkerDiedError(body[:4000].decode("utf-8", "replace"))
        replied, answered, size = relay.LEFT.unpack_from(body)
        reply, start = body[relay.LEFT.size :][:replied], relay.LEFT.size + replied
        if len(reply) != REPLY.size or answered > MAX_ANSWERS:
            raise WorkerDiedError("its answer is no answer")
        self._head = body[start + answered :]
        return Left(reply, body[start : start + answered], size)

    def output(self, start: int, end: int) -> bytes:
        """Standard output of the last child; raises WorkerDiedError."""
        if self._direct is not None:
            return self._direct.output(start, end)
        if end <= len(self._head):
            return self._head[start:end] if end > start else b""
        return self._ask(b"o", relay.SPAN.pack(start, end), START_SECONDS)[1]

    def said(self) -> str:
        """What the container wrote to standard error."""
        return self._stream.said()

    def kill(self) -> None:
        """From another thread: end it now."""
        self._stream.kill()

    def close(self) -> None:
        """End the container."""
        if self._direct is not None:
            self._direct.close()
        self._stream.close()


# ------------------------------------------------------------------------------------------------------------ processes


class ProcessStream:
    """A relay that is a child of this process, in front of whatever starts its container."""

    def __init__(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        self._errors = open(os.memfd_create("errors"), "w+b")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the judge, which then ends this
            )
        except OSError as error:
            raise InfrastructureError(f"cannot start {command[0]}: {error}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)

    def write(self, data: bytes, deadline: float) -> None:
        """All of `data`."""
        view = memoryview(data)
        while view:
            self._wait(self._input, select.POLLOUT, deadline)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._input, view[: 1 << 16]) :]

    def read(self, deadline: float) -> bytes:
        """Some bytes."""
        self._wait(self._output, select.POLLIN, deadline)
        return os.read(self._output, 1 << 20)

    def settings(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def direct(self, passed: bool) -> Exchange | None:
        """Its own pipes are as good."""
        return None

    def _wait(self, file: int, event: int, deadline: float) -> None:
        waiting = select.poll()
        waiting.register(file, event)
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("time out")

    def said(self) -> str:
        """The end of standard error."""
        self._errors.seek(0)
        return self._errors.read()[-2000:].decode("utf-8", "replace").strip()

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def close(self) -> None:
        """Closing its standard input ends it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def start_rehearsal(settings: dict[str, Any], limits: Limits) -> StreamLink:
    """The relay as a plain process on this host; its parent of programs builds namespaces in the place of a container."""
    command = [sys.executable, *_PYTHON, str(Path(relay.__file__).parents[1])]
    library = {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}
    return StreamLink(ProcessStream(command, library), settings, "the rehearsal of a container")


# ------------------------------------------------------------------------------------------------------------ Apptainer


def apptainer_image() -> Path:
    """Where the image is expected."""
    return Path(os.environ.get(APPTAINER_IMAGE) or "workflow/containers/sandbox.sif")


def apptainer_command(program: str, image: Path) -> list[str]:
    """The whole command; standard input and output are the relay's."""
    return [
        program,
        "--silent",
        "exec",
        "--containall",  # own file systems for /tmp, /dev and home, own process and IPC namespaces, no environment of ours
        "--cleanenv",
        "--no-home",
        "--no-privs",
        "--net",
        "--network=none",
        "--scratch=/io",
        "--scratch=/box",
        "--pwd=/",
        str(image),
        *RELAY,
    ]


def _apptainer_program() -> str | None:
    return shutil.which("apptainer") or shutil.which("singularity")


def apptainer_refused() -> str | None:
    """Why the Apptainer backend cannot be had here, and what to do; None if it can."""
    if _apptainer_program() is None:
        return "there is no command apptainer or singularity: install Apptainer, or load its module"
    image = apptainer_image()
    if not image.exists():
        return (
            f"there is no image {image}: apptainer build {image} workflow/containers/sandbox.def in the project's folder, "
            f"or name another one in {APPTAINER_IMAGE}"
        )
    return None


def start_apptainer(settings: dict[str, Any], limits: Limits) -> StreamLink:
    """A container of Apptainer; raises InfrastructureError."""
    refused = apptainer_refused()
    program = _apptainer_program()
    if refused is not None or program is None:
        raise InfrastructureError(f"backend apptainer: {refused}")
    return StreamLink(ProcessStream(apptainer_command(program, apptainer_image())), settings, "the Apptainer container")


# --------------------------------------------------------------------------------------------------------------- Docker


def docker_image() -> str:
    """Name of the image."""
    return os.environ.get(DOCKER_IMAGE) or "coderl-sandbox"


def docker_host_config(limits: Limits, folder: str | None = None) -> dict[str, Any]:
    """Arguments of docker.APIClient.create_host_config; `folder` holds the judge's socket, read-only in the container."""
    files = f"rw,noexec,nosuid,nodev,uid={_NOBODY},gid={_NOBODY},mode=0700"
    memory = (limits.memory_mb + _ROOM_MB) << 20
    return {
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": limits.max_processes + _OWN_PROCESSES,
        "mem_limit": memory,
        "memswap_limit": memory,
        "shm_size": limits.max_file_mb << 20,
        "tmpfs": {
            "/box": f"{files},size={limits.max_file_mb}m,nr_inodes=2048",
            "/io": f"{files},size=1g,nr_inodes=64",
        },
        "auto_remove": True,
        "init": False,
        "log_config": {"type": "none", "config": {}},
        "mounts": [{"Type": "bind", "Source": folder, "Target": _JUDGE, "ReadOnly": True}] if folder else [],
    }


class Doorstep:
    """A socket where the relay of a container on this machine can leave descriptors; closed when they are there.

    Where the container cannot reach it (an engine elsewhere or in a virtual machine, a policy of the host), everything goes through
    the engine's stream: the same verdicts, at half as much again per program.
    """

    def __init__(self) -> None:
        self._outer = tempfile.mkdtemp(prefix=f"{_DOORSTEP}{os.getpid()}-")  # only we can enter it, the container enters below
        self.folder = os.path.join(self._outer, "judge")
        self.word = secrets.token_hex(16)
        os.mkdir(self.folder)
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.bind(os.path.join(self.folder, "socket"))
            os.chmod(self.folder, 0o755)
            os.chmod(os.path.join(self.folder, "socket"), 0o666)
            self._socket.listen()
        except BaseException:
            self.close()
            raise

    def take(self) -> Exchange:
        """What the relay left, after it said so; raises OSError."""
        self._socket.settimeout(START_SECONDS)
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(START_SECONDS)
            word, files, _flags, _address = socket.recv_fds(connection, 64, 5)
        if word.decode("ascii", "replace") != self.word or len(files) != 5:
            for file in files:
                os.close(file)
            raise OSError("what came over its socket is not what was expected")
        control, compiler = (socket.socket(fileno=file) for file in files[:2])
        return Exchange(control, compiler, files[2:])

    def close(self) -> None:
        """Remove it."""
        self._socket.close()
        shutil.rmtree(self._outer, ignore_errors=True)


def _docker() -> Any:
    """A client; raises InfrastructureError with what to do."""
    try:
        import docker
    except ImportError:
        raise InfrastructureError("the Docker SDK is not installed: pip install 'coderl[docker]' (or pip install docker)") from None
    client = None
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        if client is not None:
            client.close()
        raise InfrastructureError(
            f"no Docker engine answers ({error}): start it (sudo systemctl start docker), be in the group docker, or set DOCKER_HOST"
        ) from None
    return client


def docker_refused() -> str | None:
    """Why the Docker backend cannot be had here, and what to do; None if it can."""
    try:
        client = _docker()
        try:
            _need_image(client)
        finally:
            client.close()
    except InfrastructureError as error:
        return str(error)
    return None


def _need_image(client: Any) -> None:
    import docker

    image = docker_image()
    try:
        client.api.inspect_image(image)
    except docker.errors.ImageNotFound:
        raise InfrastructureError(
            f"Docker has no image {image}: {_BUILD.format(image=image)}; or name another one in {DOCKER_IMAGE}"
        ) from None


class DockerStream:
    """A new container of Docker, attached before it starts; raises InfrastructureError."""

    def __init__(self, limits: Limits) -> None:
        self._client = _docker()
        self._name = f"coderl-sandbox-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._socket: Any = None
        self._pending = bytearray()
        self._errors = b""
        self._ended = False
        self._doorstep: Doorstep | None = None
        import docker

        try:
            _need_image(self._client)
            _remove_never_started(self._client)
            api = self._client.api
            if api.base_url == "http+docker://localhost":  # by a socket: an engine on this machine, most likely
                with contextlib.suppress(OSError):  # a path that is too long for a socket
                    self._doorstep = Doorstep()
            try:
                self._create(limits)
            except docker.errors.APIError:  # an engine that does not see this folder
                if self._doorstep is None:
                    raise
                self._doorstep.close()
                self._doorstep = None
                self._create(limits)
            stream = api.attach_socket(self._name, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            self._response = stream
            self._socket = getattr(stream, "_sock", stream)
            api.start(self._name)
        except (docker.errors.DockerException, OSError) as error:
            self.close()
            raise InfrastructureError(f"backend docker: {error}") from None
        except BaseException:
            self.close()
            raise

    def _create(self, limits: Limits) -> None:
        api = self._client.api
        folder = self._doorstep.folder if self._doorstep is not None else None
        api.create_container(
            docker_image(),
            RELAY,
            name=self._name,
            stdin_open=True,  # and stdin_once, by the SDK: the container's input ends with this process's connection
            user=f"{_NOBODY}:{_NOBODY}",
            working_dir="/",
            labels={LABEL: f"{socket.gethostname()}/{os.getpid()}"},
            host_config=api.create_host_config(**docker_host_config(limits, folder)),
        )

    def settings(self) -> dict[str, Any]:
        """Where to leave descriptors."""
        return {} if self._doorstep is None else {"direct": [f"{_JUDGE}/socket", self._doorstep.word]}

    def direct(self, passed: bool) -> Exchange | None:
        """The descriptors."""
        if self._doorstep is None:
            return None
        try:
            return self._doorstep.take() if passed else None
        finally:
            self._doorstep.close()

    def write(self, data: bytes, deadline: float) -> None:
        """All of `data`."""
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        self._socket.sendall(data)

    def read(self, deadline: float) -> bytes:
        """Some bytes of standard output."""
        while True:
            # The engine's own frames: 1 = output, 2 = errors; three zeros; length.
            if len(self._pending) >= 8:
                kind, size = self._pending[0], int.from_bytes(self._pending[4:8], "big")
                if len(self._pending) >= 8 + size:
                    part = bytes(self._pending[8 : 8 + size])
                    del self._pending[: 8 + size]
                    if kind == 1:
                        return part
                    self._errors = (self._errors + part)[-2000:]
                    continue
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            received = self._socket.recv(1 << 18)
            if not received:
                return b""
            self._pending += received

    def said(self) -> str:
        """The end of standard error."""
        return self._errors.decode("utf-8", "replace").strip()

    def kill(self) -> None:
        """Make `read` return; with the connection the container's input ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the container and see that it is removed."""
        if self._ended:
            return
        self._ended = True
        import docker

        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                self._socket.close()
        with contextlib.suppress(docker.errors.DockerException, OSError):
            self._client.api.remove_container(self._name, force=True, v=True)
        self._client.close()
        if self._doorstep is not None:
            self._doorstep.close()


def _remove_never_started(client: Any) -> None:
    """Containers and sockets of a judge that was killed after it had made them and before the container had started."""
    host = f"{socket.gethostname()}/"
    for folder in Path(tempfile.gettempdir()).glob(f"{_DOORSTEP}*-*"):
        if not Path("/proc", folder.name.removeprefix(_DOORSTEP).split("-")[0]).exists():
            shutil.rmtree(folder, ignore_errors=True)
    for found in client.api.containers(all=True, filters={"label": LABEL, "status": "created"}):
        owner = found["Labels"].get(LABEL, "")
        if owner.startswith(host) and not Path("/proc", owner.removeprefix(host)).exists():
            with contextlib.suppress(Exception):
                client.api.remove_container(found["Id"], force=True)


def start_docker(settings: dict[str, Any], limits: Limits) -> StreamLink:
    """A container of Docker; raises InfrastructureError."""
    return StreamLink(DockerStream(limits), settings, "the Docker container")
