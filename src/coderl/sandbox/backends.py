"""Which backend judges: what each needs, how it is started, and which one `auto` is on this host."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any, Literal

from coderl.sandbox import container
from coderl.sandbox.inside.parent import Parent, StartError
from coderl.sandbox.outcome import InfrastructureError, Limits
from coderl.sandbox.worker import Backend, IsolationError, Link, Worker

LOG = logging.getLogger(__name__)

BackendName = Literal["auto", "namespace", "docker", "apptainer"]

UNISOLATED = "CODERL_SANDBOX_UNISOLATED"
"""Environment variable that lets programs run without isolation (value 1), unless a backend other than this host's is asked for."""
_HINT = (
    "programs of a model are not run without isolation. Unprivileged user namespaces must be enabled: as root "
    "`sysctl -w user.max_user_namespaces=10000` (Debian: kernel.unprivileged_userns_clone=1; Ubuntu: "
    "kernel.apparmor_restrict_unprivileged_userns=0); in a container allow them (docker run --security-opt seccomp=unconfined). "
    f"Only for programs that you trust: {UNISOLATED}=1"
)
_IN_ALL = "no_new_privs; seccomp allow list; limits on CPU time, memory, processes, output, files"
_lock = threading.Lock()
_auto: list[Backend] = []
"""What "auto" is here, once it is known."""


def _on_host(settings: dict[str, Any], limits: Limits) -> Link:
    try:
        return Parent(settings)
    except StartError as error:
        if error.isolation:
            raise IsolationError(f"the sandbox cannot isolate programs on this host ({error}): {_HINT}") from None
        raise InfrastructureError(f"the sandbox worker did not start: {error}") from None


BACKENDS = {
    kind.name: kind
    for kind in (
        Backend(
            name="namespace",
            start=_on_host,
            layers="user, process, mount, network, IPC and host name namespaces; a process namespace per program; read-only root; "
            f"no capabilities; {_IN_ALL}",
            own_processes=True,
            build=True,
            numpy=True,
            other_processes=2,  # the launcher and the zygote count where only one user id can be mapped
        ),
        Backend(
            name="docker",
            start=container.start_docker,
            layers="a container without network, with a read-only root, of a user without capabilities, with limits on memory and "
            f"processes; in it {_IN_ALL}; signals and limits reach the program's own processes only",
            scratch=("/dev/shm", "/dev/mqueue"),
        ),
        Backend(
            name="apptainer",
            start=container.start_apptainer,
            layers="an Apptainer container without network, with a read-only root, of this user without capabilities; "
            f"in it {_IN_ALL}; signals and limits reach the program's own processes only",
            scratch=("/dev/shm", "/dev/mqueue", "/tmp", "/var/tmp"),
        ),
        Backend(
            name="unisolated",
            start=_on_host,
            layers="programs run as this user, beside this user's other processes and with this user's network. "
            f"Active: {_IN_ALL}; signals to the judge's processes are refused",
            folder="",
            box="",
            foreign=("/dev/shm",),  # semaphores of multiprocessing
            trusted=True,
            numpy=True,
        ),
        # What happens inside a container, without one: for the tests of a machine that has no engine.
        Backend(
            name="rehearsal",
            start=container.start_rehearsal,
            layers=f"namespaces around all programs; in them {_IN_ALL}",
            build=True,
            other_processes=5,
        ),
    )
}


def open_worker(name: str, limits: Limits) -> Worker:
    """A started worker.

    Args:
        name: of a backend; "auto" = namespace if this host allows it, else docker if an engine answers and has the image, else
            apptainer. The choice holds for this process.

    Raises:
        InfrastructureError: the backend, or with auto every one of them, cannot be had; the message says what to do.
    """
    if name != "auto":
        return Worker(limits, BACKENDS[name])
    with _lock:
        if not _auto:
            return _first(limits)
    return Worker(limits, BACKENDS[_auto[0].name])


def _first(limits: Limits) -> Worker:
    reasons: list[str] = []
    try:
        worker = Worker(limits, BACKENDS["namespace"])
        _auto.append(BACKENDS["namespace"])
        return worker
    except IsolationError as error:
        reasons.append(f"namespace: {error}")
    for name, refused in (("docker", container.docker_refused), ("apptainer", container.apptainer_refused)):
        reason = refused()
        if reason is None:
            LOG.info("sandbox: backend %s, because %s", name, "; ".join(reasons))
            _auto.append(BACKENDS[name])
            return Worker(limits, BACKENDS[name])
        reasons.append(f"{name}: {reason}")
    raise InfrastructureError("no backend of the sandbox can be had here:\n" + "\n".join(f"- {reason}" for reason in reasons))


def settled(name: str) -> str:
    """What "auto" has come to, once it has."""
    return _auto[0].name if name == "auto" and _auto else name


def settle(wanted: str, found: str) -> bool:
    """Take over what "auto" has come to in a judging process; returns whether that was not known."""
    with _lock:
        if wanted != "auto" or _auto:
            return False
        _auto.append(BACKENDS[found])
        return True


def resolve(backend: BackendName, unisolated: bool) -> str:
    """The name that the caller's wish, and the environment's, comes to."""
    if unisolated or (os.environ.get(UNISOLATED, "") == "1" and backend in ("auto", "namespace")):
        return "unisolated"
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is none of auto, namespace, docker, apptainer")
    return backend
