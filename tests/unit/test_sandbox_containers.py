"""Containers from outside and inside: what they are told, which backend is chosen, what is left of them, what Landlock adds."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sandbox_programs import DOUBLE, OK
from test_sandbox_isolation import refuse_namespaces

from coderl.problems import InputOutputTests
from coderl.sandbox import InfrastructureError, Job, Limits, backends, close_workers, container, judge, judge_many, worker
from coderl.sandbox.inside import relay, syscalls
from coderl.sandbox.judge import _idle

QUICK = Limits(cpu_seconds=0.25, wall_seconds=4, memory_mb=128, max_file_mb=16)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    close_workers()
    yield
    close_workers()


# ------------------------------------------------------------------------------------------------------------ processes


def below(root: int) -> list[int]:
    """Living processes below `root`."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            state, parent = text[text.rindex(")") + 2 :].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    found = [root]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


DAEMONS = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setpgid(0, 0)
            while True: time.sleep(0.01)
        os._exit(0)
print(int(input()) * 2)
"""


FORKS = "import os\nfor _ in range(4): os.fork()\nwhile True: pass"
BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"


@pytest.mark.parametrize(
    ("backend", "program"),
    # No bomb without isolation: the limit on processes counts the whole user there, and root is not counted at all.
    [("rehearsal", DAEMONS), ("rehearsal", BOMB), ("unisolated", DAEMONS), ("unisolated", FORKS)],
    ids=["daemons", "bomb", "daemons without isolation", "forks without isolation"],
)
def test_no_process_survives_its_program(backend: Any, program: str) -> None:
    limits = Limits(cpu_seconds=0.25, wall_seconds=1, memory_mb=128)
    judge(OK, DOUBLE, limits, backend=backend)
    before = below(os.getpid())
    assert len(before) >= 3
    judge(program, DOUBLE, limits, backend=backend)
    assert below(os.getpid()) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_left_when_the_judge_of_a_container_is_killed(workers: int) -> None:
    judging = start_judging("rehearsal", workers)
    deadline = time.monotonic() + 20
    least = 9 if workers == 1 else 20  # relay, two launchers, zygote, compiler and the program's four; of two, a judging process
    while len(left := below(judging.pid)) < least and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(left) >= least, left
    judging.send_signal(signal.SIGKILL)
    judging.wait()
    while any(Path(f"/proc/{process}").exists() for process in left) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [process for process in left if Path(f"/proc/{process}").exists()] == []


def start_judging(backend: str, workers: int = 1) -> subprocess.Popen[bytes]:
    """Another process that judges a program which never ends, on each of its workers."""
    script = f"""
        import signal
        from coderl.problems import InputOutputTests
        from coderl.sandbox import Job, Limits, judge_many
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in its background ignores it
        print("start", flush=True)
        program = "import os\\nos.fork()\\nos.fork()\\nwhile True: pass"
        jobs = [Job(number, program, InputOutputTests("stdin", [""], [""])) for number in range({workers})]
        list(judge_many(jobs, Limits(cpu_seconds=60), workers={workers}, backend={backend!r}))
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(worker.__file__).parents[2]) + os.pathsep + os.environ.get("PYTHONPATH", "")}
    judging = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, env=environment)
    assert judging.stdout is not None
    judging.stdout.readline()
    judging.stdout.close()
    return judging


# ------------------------------------------------------------------------------------------------------------ choice


def test_the_backend_is_named_in_the_outcome_and_keeps_its_own_workers() -> None:
    assert judge(OK, DOUBLE, QUICK, backend="rehearsal").backend == "rehearsal"  # type: ignore[arg-type]
    assert judge(OK, DOUBLE, QUICK).backend == "namespace"
    assert judge(OK, DOUBLE, QUICK, backend="namespace").backend == "namespace"
    assert sorted(one.backend for one in _idle) == ["namespace", "rehearsal"]
    with pytest.raises(ValueError, match="none of auto"):
        judge(OK, DOUBLE, QUICK, backend="podman")  # type: ignore[arg-type]


def test_auto_takes_the_first_that_the_host_allows(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(backends, "_auto", [])
    refuse_namespaces(monkeypatch)
    monkeypatch.setattr(container, "docker_refused", lambda: "no engine answers: start it")
    monkeypatch.setattr(container, "apptainer_refused", lambda: "install Apptainer")
    with pytest.raises(InfrastructureError) as error:
        judge(OK, DOUBLE, QUICK)
    for part in ("- namespace: ", "max_user_namespaces", "- docker: no engine answers", "- apptainer: install Apptainer"):
        assert part in str(error.value)

    # With an image for Apptainer, that is the choice: here played by a rehearsal, whose relay is the same.
    monkeypatch.undo()
    monkeypatch.setattr(backends, "_auto", [])
    monkeypatch.setattr(container, "docker_refused", lambda: "no engine answers")
    monkeypatch.setattr(container, "apptainer_refused", lambda: None)
    monkeypatch.setattr(worker, "announced", set())
    monkeypatch.setitem(backends.BACKENDS, "apptainer", backends.BACKENDS["rehearsal"])

    def refused(settings: dict[str, Any], limits: Limits) -> Any:
        raise backends.IsolationError("no namespaces")

    monkeypatch.setitem(backends.BACKENDS, "namespace", replace(backends.BACKENDS["namespace"], start=refused))
    with caplog.at_level(logging.INFO, "coderl.sandbox"):
        assert judge(OK, DOUBLE, QUICK).backend == "rehearsal"
        assert judge(OK, DOUBLE, QUICK).backend == "rehearsal"
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "sandbox: backend apptainer, because namespace: no namespaces",
        "sandbox: backend rehearsal, active isolation layers: namespa",
    ]


def test_what_is_missing_is_said() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "docker", None)
        with pytest.raises(InfrastructureError, match=r"pip install 'coderl\[docker\]'"):
            judge(OK, DOUBLE, QUICK, backend="docker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container.shutil, "which", lambda name: None)
        with pytest.raises(InfrastructureError, match="install Apptainer"):
            judge(OK, DOUBLE, QUICK, backend="apptainer")
        patch.setattr(container.shutil, "which", lambda name: "/usr/bin/" + name)
        patch.setenv(container.APPTAINER_IMAGE, "/not/there.sif")
        with pytest.raises(InfrastructureError, match=r"apptainer build /not/there\.sif workflow/containers/sandbox\.def"):
            judge(OK, DOUBLE, QUICK, backend="apptainer")


def test_an_image_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "sources", lambda: "something else")
    with pytest.raises(InfrastructureError, match="built from other sources"):
        judge(OK, DOUBLE, QUICK, backend="rehearsal")  # type: ignore[arg-type]


def test_a_dead_container_is_replaced() -> None:
    judge(OK, DOUBLE, QUICK, backend="rehearsal")  # type: ignore[arg-type]
    for process in below(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    assert judge(OK, DOUBLE, QUICK, backend="rehearsal").outcome == "passed_test"  # type: ignore[arg-type]


def test_output_that_does_not_fit_into_a_reply() -> None:
    size = 3 * relay.AT_ONCE + 7
    tests = InputOutputTests("stdin", ["a", "b"], ["a" * size, "b" * size])
    found = judge(f"print(input() * {size})", tests, QUICK, backend="rehearsal")  # type: ignore[arg-type]
    assert found.outcome == "passed_test"
    assert judge("print('x' * 100000)", tests, QUICK, backend="rehearsal").outcome == "failed_test"  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ commands


def test_what_apptainer_is_told() -> None:
    command = container.apptainer_command("apptainer", Path("x.sif"))
    assert command[:3] == ["apptainer", "--silent", "exec"]
    assert {"--containall", "--cleanenv", "--no-home", "--no-privs", "--net", "--network=none", "--scratch=/box", "--scratch=/io"} <= set(
        command
    )
    assert command[command.index("x.sif") + 1 :] == container.RELAY
    assert not [part for part in command if part.startswith(("--bind", "-B/", "--writable", "--fakeroot"))]


def test_what_docker_is_told() -> None:
    told = container.docker_host_config(Limits(memory_mb=100, max_processes=7, max_file_mb=9))
    assert told["network_mode"] == "none"
    assert told["read_only"] is True
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert told["pids_limit"] == 12
    assert told["mem_limit"] == told["memswap_limit"] == (100 + 1536) << 20
    assert set(told["tmpfs"]) == {"/box", "/io"}
    assert "size=9m" in told["tmpfs"]["/box"]
    assert told["auto_remove"] is True
    assert told["mounts"] == []
    assert container.docker_host_config(Limits(), "/x")["mounts"] == [
        {"Type": "bind", "Source": "/x", "Target": "/judge", "ReadOnly": True}
    ]
    assert not {"binds", "privileged", "cap_add", "devices", "pid_mode", "userns_mode"} & set(told)


# ------------------------------------------------------------------------------------------------------------ Landlock

needs_landlock = pytest.mark.skipif(not syscalls.landlock_version(), reason="this kernel has no Landlock")

FILES = """
import os
seen = []
for name, how in [(os.__file__, "r"), (os.__file__, "r+"), ("/etc/hostname", "r"), ("/proc/self/status", "r"), ("own", "w"), ("own", "r"),
                  ("/dev/null", "r+"), ("/dev/zero", "r"), ("/dev/zero", "r+"), (FOLDER + "/job", "r"), (FOLDER + "/x", "w")]:
    try:
        open(name, how).close()
        seen.append("yes")
    except OSError as error:
        seen.append(error.strerror)
os.makedirs("a/b")
os.rename("own", "a/b/own")
os.link("a/b/own", "c")
os.symlink("/etc/hostname", "d")
seen += [open("c").read(), os.path.exists("d")]
raise ValueError(repr(seen))
"""


@needs_landlock
def test_landlock_is_active() -> None:
    # Without isolation there is no other wall around files: what is refused, Landlock refuses.
    program = "FOLDER = __import__('os').path.dirname(__import__('os').getcwd())\n" + FILES
    found = judge(program, InputOutputTests("stdin", [""], [""]), QUICK, unisolated=True)
    no = "Permission denied"
    assert found.error_message is not None
    assert eval(found.error_message) == ["yes", no, no, no, "yes", "yes", "yes", "yes", no, no, no, "", True]


def test_without_landlock_the_other_walls_stand(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(backends.BACKENDS, "namespace", replace(backends.BACKENDS["namespace"], landlock=False))
    monkeypatch.setattr(worker, "announced", set())
    with caplog.at_level(logging.INFO, "coderl.sandbox"):
        assert judge(OK, DOUBLE, QUICK, backend="namespace").outcome == "passed_test"
    assert "NOT active: Landlock" in caplog.text
    assert judge("open('/etc/hostname')", DOUBLE, QUICK, backend="namespace").error_class == "filenotfounderror"
    assert judge("open('/io/x', 'w')", DOUBLE, QUICK, backend="namespace").error_class == "oserror"


# -------------------------------------------------------------------------------------------------------------- Docker


def containers() -> list[str]:
    import docker

    client = docker.from_env()
    try:
        return [found["Id"] for found in client.api.containers(all=True, filters={"label": container.LABEL})]
    finally:
        client.close()


def gone(seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while containers():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.docker
def test_containers_are_gone_after_success_and_after_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(OK, DOUBLE, QUICK, backend="docker").outcome == "passed_test"
    assert len(containers()) == 1
    close_workers()
    assert gone()
    monkeypatch.setattr(relay, "sources", lambda: "something else")
    with pytest.raises(InfrastructureError, match="build its image again"):
        judge(OK, DOUBLE, QUICK, backend="docker")
    assert gone()


@pytest.mark.docker
def test_several_workers_have_a_container_each() -> None:
    jobs = [Job(number, OK if number % 3 else "while True: pass", DOUBLE) for number in range(12)]
    found = [outcome.outcome for _, outcome in judge_many(jobs, QUICK, workers=2, backend="docker")]
    assert found == ["passed_test" if number % 3 else "runtime_error" for number in range(12)]
    assert len(containers()) == 2
    close_workers()
    assert containers() == []


@pytest.mark.docker
def test_a_container_that_is_killed_is_replaced() -> None:
    import docker

    judge(OK, DOUBLE, QUICK, backend="docker")
    client = docker.from_env()
    (first,) = containers()
    client.api.kill(first)
    client.close()
    assert judge(OK, DOUBLE, QUICK, backend="docker").outcome == "passed_test"
    assert containers() != [first]
    close_workers()
    assert gone()


@pytest.mark.docker
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda ending: ending.name)
def test_containers_are_gone_when_the_judge_is_ended(ending: signal.Signals, workers: int) -> None:
    judging = start_judging("docker", workers)
    try:
        deadline = time.monotonic() + 60
        while len(containers()) < workers and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        assert len(containers()) == workers
        judging.send_signal(ending)
        assert judging.wait(60) != 0
        assert gone()
    finally:
        judging.kill()  # else its containers would fail the next tests too
        judging.wait()


@pytest.mark.docker
def test_containers_that_were_never_started_are_removed() -> None:
    import docker

    ended = subprocess.Popen(["true"])
    ended.wait()
    client = docker.from_env()
    label = {container.LABEL: f"{container.socket.gethostname()}/{ended.pid}"}
    client.api.create_container(container.docker_image(), container.RELAY, labels=label)
    client.close()
    assert len(containers()) == 1
    judge(OK, DOUBLE, QUICK, backend="docker")
    assert len(containers()) == 1
    close_workers()
    assert gone()


@pytest.mark.docker
def test_what_the_engine_made_of_it() -> None:
    import docker

    judge(OK, DOUBLE, QUICK, backend="docker")
    client = docker.from_env()
    (identity,) = containers()
    made = client.api.inspect_container(identity)
    host, config = made["HostConfig"], made["Config"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"], host["AutoRemove"]) == ("none", True, ["ALL"], True)
    assert (host["PidsLimit"], host["Memory"], host["Binds"], host["Privileged"]) == (21, (128 + 1536) << 20, None, False)
    assert (config["User"], config["StdinOnce"]) == ("65534:65534", True)
    assert [(mount["Destination"], mount["RW"]) for mount in made["Mounts"]] == [("/judge", False)]
    assert not Path(made["Mounts"][0]["Source"]).exists()  # it has served
    status = Path(f"/proc/{made['State']['Pid']}/status").read_text()
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    client.close()


@pytest.mark.docker
@pytest.mark.parametrize("hidden", [True, False], ids=["an engine elsewhere", "an engine that does not see our files"])
def test_where_descriptors_cannot_be_passed_the_stream_carries_everything(hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(container.Doorstep):
        def __init__(self) -> None:
            if hidden:
                raise OSError("path too long")
            super().__init__()
            container.shutil.rmtree(self.folder)

    monkeypatch.setattr(container, "Doorstep", Unreachable)
    judge(OK, DOUBLE, QUICK, backend="docker")
    (worker_,) = _idle
    assert isinstance(worker_._link, container.StreamLink)
    assert worker_._link._direct is None
    size = 3 * relay.AT_ONCE + 7
    tests = InputOutputTests("stdin", ["a", "b"], ["a" * size, "b" * size])
    for program, outcome, error in (
        (f"print(input() * {size})", "passed_test", None),
        ("print('x' * 100000)", "failed_test", None),
        ("while True: pass", "runtime_error", "timeoutexception"),
        ("print(", "compile_error", "syntaxerror"),
        ("import os\nos.kill(os.getpid(), 9)", "runtime_error", "sigkill"),
        ("x = bytearray(10 ** 10)", "runtime_error", "memoryerror"),
    ):
        found = judge(program, tests, QUICK, backend="docker")
        assert (found.outcome, found.error_class) == (outcome, error)


@pytest.mark.docker
@pytest.mark.parametrize("landlock", [True, False], ids=["Landlock", "no Landlock"])
def test_nothing_is_left_for_the_next_program(landlock: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.BACKENDS, "docker", replace(backends.BACKENDS["docker"], landlock=landlock))
    look = "import os\nseen = {os.path.join(folder, name) for folder, _, names in os.walk('/') for name in names if name == 'left'}\n"
    look += "for folder in ('/', '/box', '/io', '/tmp', '/dev', '/dev/shm', '/dev/mqueue', '/judge', '/run', '/var/tmp', '/opt/coderl'):\n"
    look += "    if os.path.lexists(folder + '/left'): seen.add(folder + '/left')\n"
    leave = "    try: os.close(os.open(folder + '/left', os.O_CREAT | os.O_WRONLY))\n    except OSError as error: pass\n"
    leave += "    if os.path.lexists(folder + '/left'): seen.add(folder + '/left')\n"
    tests = InputOutputTests("stdin", [""], ["[]"])
    found = judge(look + leave + "assert not seen, seen", tests, QUICK, backend="docker")
    assert found.error_message is not None
    assert "/box/left" in found.error_message
    assert ("/io/left" in found.error_message) == (not landlock or not syscalls.landlock_version())
    assert judge(look + "print(sorted(seen))", tests, QUICK, backend="docker").outcome == "passed_test"


@pytest.mark.docker
def test_several_processes_cannot_take_the_memory_of_the_host() -> None:
    program = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        data = bytearray(900 << 20)
        for place in range(0, len(data), 4096): data[place] = 1
        time.sleep(3)
        os._exit(0)
for _ in range(3): os.wait()
"""
    limits = Limits(cpu_seconds=5, wall_seconds=40, memory_mb=128)
    found = judge(program, DOUBLE, limits, backend="docker")
    assert (found.outcome, found.error_class) == ("runtime_error", "memoryerror")
    assert found.cpu_seconds < 10  # not the wall limit: the kernel ended two of them
    assert judge(OK, DOUBLE, limits, backend="docker").outcome == "passed_test"


@pytest.mark.docker
def test_an_engine_or_an_image_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(container.DOCKER_IMAGE, "coderl-sandbox-that-is-not-there")
    with pytest.raises(InfrastructureError, match="docker build -t coderl-sandbox-that-is-not-there -f workflow/containers/Dockerfile"):
        judge(OK, DOUBLE, QUICK, backend="docker")
    monkeypatch.setenv("DOCKER_HOST", "unix:///not/there")
    with pytest.raises(InfrastructureError, match="no Docker engine answers"):
        judge(OK, DOUBLE, QUICK, backend="docker")
    assert container.docker_refused() is not None


@pytest.mark.docker
def test_auto_falls_back_to_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_auto", [])
    refuse_namespaces(monkeypatch)
    assert judge(OK, DOUBLE, QUICK).backend == "docker"
