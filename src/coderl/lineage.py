"""Records of how each output was made, and the chain of records from a result back to the raw inputs.

Every verb that writes something leaves one record: `provenance.json` in a model folder, `<file>.provenance.json` beside a file.
A record holds what differs from run to run (times, hardware, commit), so it is never inside what another stage reads, and
hashes of folders leave it out (docs/decisions/0003). The record of a table also holds the records of everything that the
table was made from: tables travel further than the files behind them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from coderl.provenance import code_files, provenance
from coderl.records import PROVENANCE_FILE, DataError, atomic_path

LOG = logging.getLogger(__name__)

SUFFIX = ".provenance.json"
FORMAT = 1

NAMES_OF_FILES: frozenset[str] = frozenset({"base_model", "samples", "source", "programs", "models", "others", "over_seeds"})
"""Flags that are text and may name files: a folder or hub id, `reference`, or JSON with paths in it."""
KEYS_OF_FILES: frozenset[str] = frozenset({"base_model", "path", "source", "sources"})
"""Keys of configuration sections that may name files or folders."""
NEVER_READ: frozenset[str] = frozenset({"work"})

Record = dict[str, Any]


# --------------------------------------------------------------------------------------------------- content


def _content(path: Path) -> list[tuple[str, Path]]:
    """(name, file) of what a file or folder is: hidden files and records are no part of it."""
    if not path.is_dir():
        return [("", path)]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and name != PROVENANCE_FILE and not name.endswith(SUFFIX):
                file = Path(folder, name)
                found.append((file.relative_to(path).as_posix(), file))
    return sorted(found)


def content_sha256(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the sorted names and SHA-256 of its files.

    Raises:
        FileNotFoundError: no such file or folder.
    """
    if not path.is_dir():
        with open(path, "rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    digest = hashlib.sha256()
    for name, file in _content(path):
        digest.update(f"{name}\0{content_sha256(file)}\n".encode())
    return digest.hexdigest()


def _stamp(path: Path) -> str:
    """Sizes and modification times of the content: equal ones spare reading it again."""
    facts = []
    for name, file in _content(path):
        status = file.stat()
        facts.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n")
    return hashlib.sha256("".join(facts).encode()).hexdigest()[:16]


def record_path(output: Path) -> Path:
    """Where the record of an output is: in a folder, beside a file."""
    return output / PROVENANCE_FILE if output.is_dir() else output.with_name(output.name + SUFFIX)


def _read(path: Path) -> Record | None:
    """The record in a file; None where there is none, or (with a warning) none that can be read: no stage stops for that."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        LOG.warning("%s: not a record of provenance (%s), left out", path, error)
        return None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        LOG.warning("%s: not a record of provenance in form %d, left out", path, FORMAT)
        return None
    return record


def _known_sha256(path: Path) -> str:
    """content_sha256, taken from the record beside it where sizes and times say that nothing was written since."""
    record = _read(record_path(path))
    for output in record["outputs"] if record else []:
        if Path(output["path"]).name == path.name and output["stamp"] == _stamp(path):
            return str(output["sha256"])
    return content_sha256(path)


# --------------------------------------------------------------------------------------------------- what a verb read


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of every text in JSON data; items of a list have the list's key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, key)
    elif isinstance(value, str):
        yield key, value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text.lstrip()[:1] in ("{", "[") else text
    except ValueError:
        return text


def named_files(flags: Mapping[str, Any], written: Iterable[str]) -> tuple[list[Path], list[str]]:
    """What the flags of a verb name for reading: (files and folders that exist, models on the hub), each once, in order.

    Args:
        flags: values by parameter name; Path flags, and text flags and configuration keys that may hold a path, count.
        written: parameters that name outputs.
    """
    files: dict[Path, None] = {}
    hub: dict[str, None] = {}
    for flag, value in flags.items():
        if flag in written or flag in NEVER_READ or value is None:
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, Path):
                candidates = [str(each)]
            elif not isinstance(each, str):
                continue
            elif flag in NAMES_OF_FILES:
                data = _parsed(each)
                candidates = [text for _, text in _texts(data)]
                if flag == "programs" and isinstance(data, str) and Path(each).is_file():  # the JSON in a file
                    candidates += [text for _, text in _texts(_parsed(Path(each).read_text(encoding="utf-8")))]
            else:
                data = _parsed(each)
                candidates = [each] if isinstance(data, str) else [text for key, text in _texts(data) if key in KEYS_OF_FILES]
                if isinstance(data, str) and not flag.endswith("config"):
                    continue  # a word, such as the name of a run; a configuration may be a run file
            for text in candidates:
                if text and Path(text).exists():
                    files[_whole(Path(text))] = None
                elif flag == "base_model":
                    hub[text] = None
    return list(files), list(hub)


def _whole(path: Path) -> Path:
    """The model folder in place of a file of it, such as its metrics.json."""
    return path.parent if (path.parent / PROVENANCE_FILE).exists() else path


def _hub_revision(name: str) -> str | None:
    """Commit of a hub model in the local cache, as `hf download` and from_pretrained keep it; None where there is none."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    try:
        return (cache / f"models--{name.replace('/', '--')}" / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


# --------------------------------------------------------------------------------------------------- writing a record


def hardware() -> dict[str, Any]:
    """CPU, cores that this process may use, memory and GPUs. Torch is asked only where the stage has loaded it."""

    def first(file: str, key: str) -> str:
        try:
            lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")

    torch = sys.modules.get("torch")
    gpus: list[str] = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    memory = first("/proc/meminfo", "MemTotal").split()
    return {
        "cpu": first("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(int(memory[0]) / 2**20, 1) if memory else None,
        "gpus": gpus,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def _gpu_count(found: Mapping[str, Any]) -> int:
    """GPUs that the job holds: those of this node that it sees, or one per process of a larger job."""
    return max(len(found["gpus"]), found["processes"]) if found["gpus"] else 0


@contextmanager
def recording(
    stage: str, words: list[str], flags: Mapping[str, Any], written: tuple[str, ...], sections: Mapping[str, BaseModel], *, whole: bool
) -> Iterator[None]:
    """Around a verb: hashes its inputs before, and writes its record when it has ended well.

    Wall and CPU time are those of this process and its children; a killed attempt before it is not in them. With several
    processes (torchrun) the first one writes. What it hashed before and nobody touched since is not read again.

    Args:
        stage: name of the verb's function, e.g. "train_critic".
        words: its command line after the verb, for the command.
        flags: parsed values by parameter name.
        written: parameters that name outputs; the record goes to the first one.
        sections: filled by the verb with the sections it used, by name; hashed.
        whole: also put in the records of everything upstream.
    """
    outputs = [flags[name] for name in written if flags.get(name) is not None]
    if not outputs or os.environ.get("RANK", "0") != "0":
        yield
        return
    started = datetime.now(UTC)
    wall, cpu = time.monotonic(), sum(os.times()[:4])
    files, hub = named_files(flags, written)
    made = provenance(seed=flags.get("seed"))
    made["command"] = shlex.join(["coderl", stage.replace("_", "-"), *words])
    base = None if outputs[0].is_absolute() else Path.cwd()
    inputs: list[Record] = [{"path": _written_path(path, base), "sha256": _known_sha256(path)} for path in files]
    for entry, path in zip(inputs, files, strict=True):
        entry["recorded"] = record_path(path).exists()
    inputs += [{"hub": name, "revision": _hub_revision(name)} for name in hub]
    code = hashlib.sha256()
    for path in code_files(stage, Path(__file__).parents[1]):
        code.update(f"{path.relative_to(Path(__file__).parents[1]).as_posix()}\0{content_sha256(path)}\n".encode())
    chain = list(_ancestors(inputs, base)) if whole else None
    yield
    outputs = [path for path in outputs if path.exists()]
    if not outputs:
        return
    if made["seed"] is None:
        made["seed"] = getattr(sections.get("procedural"), "seed", None)  # problems are drawn with a seed of their own
    found = hardware()
    seconds = time.monotonic() - wall
    configuration = {name: section.model_dump(mode="json") for name, section in sorted(sections.items())}
    record = {
        "format": FORMAT,
        "stage": stage,
        "outputs": [{"path": _written_path(path, base), "sha256": content_sha256(path), "stamp": _stamp(path)} for path in outputs],
        **made,
        "code_sha256": code.hexdigest(),
        "config_hash": hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:12] if configuration else None,
        "run_config_hash": flags.get("config_hash") or None,
        "inputs": inputs,
        "hardware": found,
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": round(seconds, 3),
        "cpu_seconds": round(sum(os.times()[:4]) - cpu, 3),
        "gpu_hours": round(seconds / 3600 * _gpu_count(found), 6),
    }
    if chain is not None:
        record["chain"] = chain
    with atomic_path(record_path(outputs[0])) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _written_path(path: Path, base: Path | None) -> str:
    """As a record names a path: relative to `base` where it is below it, absolute otherwise; so that a folder of results can move."""
    absolute = Path(os.path.abspath(path))
    return absolute.relative_to(base).as_posix() if base is not None and absolute.is_relative_to(base) else absolute.as_posix()


# --------------------------------------------------------------------------------------------------- the chain


@dataclass
class Node:
    """One file or folder of a chain.

    state: "" = its content is what the record says; "CHANGED"; "GONE"; "NO RECORD"; "raw input"; "hub model".
    """

    path: str
    sha256: str | None
    state: str
    record: Record | None
    inputs: list[Node] = field(default_factory=list)


class _Library:
    """Finds records by (path, content): beside the files, and inside the records of tables."""

    def __init__(self, base: Path | None) -> None:
        self.base = base
        self.known: dict[tuple[str, str], Record] = {}
        self.others: dict[str, Record] = {}  # by path alone: of content that may be no longer there
        self.read_files: set[Path] = set()
        self.hashes: dict[str, str | None] = {}

    def actual(self, path: str) -> Path:
        return Path(path) if self.base is None else self.base / path

    def add(self, record: Record) -> None:
        for output in record["outputs"]:
            self.known.setdefault((output["path"], output["sha256"]), record)
            self.others.setdefault(output["path"], record)
        for inner in record.get("chain", []):
            self.add(inner)

    def _load(self, file: Path) -> None:
        if file not in self.read_files:
            self.read_files.add(file)
            if record := _read(file):
                self.add(record)

    def find(self, path: str, sha256: str | None) -> Record | None:
        """The record of this content; else some record of that path; None where there is none."""
        actual = self.actual(path)
        self._load(record_path(actual))
        if path not in self.others:
            for file in sorted(actual.parent.glob(f"*{SUFFIX}")):  # the record of several outputs lies beside the first
                self._load(file)
        return self.known.get((path, sha256 or "")) or self.others.get(path)

    def current(self, path: str) -> str | None:
        """SHA-256 of what is there now; None where nothing is."""
        if path not in self.hashes:
            try:
                self.hashes[path] = content_sha256(self.actual(path))
            except FileNotFoundError:
                self.hashes[path] = None
        return self.hashes[path]


def _ancestors(inputs: list[Record], base: Path | None) -> Iterator[Record]:
    """The records of all inputs and of their inputs, each once and without their own chains."""
    library = _Library(base)
    seen: set[int] = set()
    open_inputs = list(inputs)
    while open_inputs:
        entry = open_inputs.pop()
        record = library.find(entry["path"], entry["sha256"]) if "path" in entry else None
        if record is not None and id(record) not in seen:
            seen.add(id(record))
            yield {key: value for key, value in record.items() if key != "chain"}
            open_inputs += record["inputs"]


def _locate(target: Path) -> tuple[Record, str, Path | None]:
    """(record, path as the record names it, base of its relative paths) of a file or folder.

    A record beside the target comes first, then one that holds it in its chain, in the folders above.
    """
    target = Path(os.path.abspath(target))
    places = [record_path(target), target.parent / PROVENANCE_FILE]
    for folder in list(target.parents)[:8]:
        places += sorted(folder.glob(f"*{SUFFIX}"))
    for place in places:
        record = _read(place)
        for each in [record, *record.get("chain", [])] if record else []:
            for output in each["outputs"]:
                named = Path(output["path"])
                parts = len(named.parts)
                if named.is_absolute() and named in (target, target.parent):
                    return each, output["path"], None
                for whole in (target, target.parent) if not named.is_absolute() else ():
                    if whole.parts[-parts:] == named.parts and (whole == target or (whole / PROVENANCE_FILE).exists()):
                        return each, output["path"], Path(*whole.parts[:-parts])
        if record and place == places[0]:  # moved or renamed, with its record
            return record, target.as_posix(), Path.cwd()
    raise DataError(
        f"{target}: no record says how it was made: there is no {record_path(target).name} for it, and no table in the folders above "
        "names it. Raw inputs have none; the output of a stage gets one when the stage runs again"
    )


def chain(target: Path, *, verify: bool = True) -> Node:
    """The target with everything it was made from, down to the raw inputs.

    Args:
        target: output of a stage: a file, a model folder, a file of one, or the record of one of these.
        verify: hash every file and compare; False = believe the records.

    Raises:
        DataError: nothing is there, or it has no record.
    """
    if target.name.endswith(SUFFIX):
        target = target.with_name(target.name.removesuffix(SUFFIX))
    elif target.name == PROVENANCE_FILE:
        target = target.parent
    if not target.exists():
        raise DataError(f"{target}: no such file or folder")
    record, path, base = _locate(target)
    library = _Library(base)
    library.add(record)
    for folder in list(Path(os.path.abspath(target)).parents)[:8]:
        for file in folder.glob(f"*{SUFFIX}"):
            if (other := _read(file)) and other.get("chain"):
                library.add(other)
    found: dict[tuple[str, str | None], Node] = {}

    def node(path: str, sha256: str | None, recorded: bool) -> Node:
        if (path, sha256) in found:
            return found[path, sha256]
        record = library.find(path, sha256)
        here = library.actual(path)
        state = ""
        if not here.exists():
            state = "GONE"
        elif record is None:
            state = "NO RECORD" if recorded else "raw input"
        if here.exists() and verify and library.current(path) != sha256:
            state = "CHANGED"
        found[path, sha256] = made = Node(path, sha256, state, record)
        if record is not None:
            made.inputs = list(inputs(record))
        return made

    def inputs(record: Record) -> Iterator[Node]:
        top = Path(record["outputs"][0]["path"]).parts[0]
        for entry in record["inputs"]:
            if "hub" in entry:
                yield Node(entry["hub"], entry["revision"], "hub model", None)
            else:
                yield node(entry["path"], entry["sha256"], entry["recorded"] or Path(entry["path"]).parts[0] == top != "/")

    own = next((output["sha256"] for output in record["outputs"] if output["path"] == path), record["outputs"][0]["sha256"])
    if (path, own) not in library.known:  # renamed: it is what its record calls otherwise
        library.known[path, own] = record
        library.others[path] = record
    return node(path, own, True)


def totals(root: Node) -> dict[str, float]:
    """Records, wall time (s), CPU time (s) and GPU-hours of a chain, every record once; files that do not agree with theirs."""
    records = {id(node.record): node.record for node in _walk(root) if node.record is not None}
    states = [node.state for node in _walk(root)]
    return {
        "records": len(records),
        "wall_seconds": round(sum(record["wall_seconds"] for record in records.values()), 3),
        "cpu_seconds": round(sum(record["cpu_seconds"] for record in records.values()), 3),
        "gpu_hours": round(sum(record["gpu_hours"] for record in records.values()), 6),
        **{key: states.count(state) for key, state in (("changed", "CHANGED"), ("gone", "GONE"), ("without_record", "NO RECORD"))},
    }


def _walk(root: Node) -> list[Node]:
    """Every node once, the root first."""
    seen: dict[int, Node] = {}
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen[id(node)] = node
            stack += reversed(node.inputs)
    return list(seen.values())


def as_json(root: Node) -> dict[str, Any]:
    """The chain for machines: the nodes, the target first, with their records (whose `inputs` are the edges), and totals."""
    nodes = [
        {
            "path": node.path,
            "sha256": node.sha256,
            "state": node.state or "ok",
            "record": {key: value for key, value in (node.record or {}).items() if key != "chain"} or None,
        }
        for node in _walk(root)
    ]
    return {"target": root.path, "nodes": nodes, "totals": totals(root)}


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, for a reader."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"


def as_text(root: Node) -> str:
    """The chain as a tree. Shards of one stage share a line, and what was printed before is not printed again."""
    lines: list[str] = []
    printed: set[int] = set()  # nodes, and the records of those with one: a record's other outputs have the same inputs

    def groups(nodes: list[Node]) -> list[list[Node]]:
        found: dict[tuple[str, ...], list[Node]] = {}
        for each in nodes:
            stage = each.record["stage"] if each.record else each.state
            numbered = Path(each.path).name.partition(".")[0].isdigit()
            found.setdefault((Path(each.path).parent.as_posix(), stage) if numbered else (each.path, stage), []).append(each)
        return list(found.values())

    def show(group: list[Node], first: str, rest: str) -> None:
        seen = all(id(node) in printed for node in group)
        told = all(id(node.record) in printed for node in group)
        lines.append(first + _line(group, seen))
        if seen or told:
            return
        printed.update(id(part) for node in group for part in (node, node.record) if part is not None)
        children = groups(list({id(child): child for node in group for child in node.inputs}.values()))
        for index, child in enumerate(children):
            last = index == len(children) - 1
            show(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))

    show([root], "", "")
    sums = totals(root)
    lines.append(
        f"\n{sums['records']:.0f} records: wall time {duration(sums['wall_seconds'])}, CPU time {duration(sums['cpu_seconds'])}, "
        f"{sums['gpu_hours']:.2f} GPU-hours"
    )
    for key, meaning in (
        ("changed", "CHANGED: not the content that was recorded"),
        ("gone", "GONE: no longer there"),
        ("without_record", "NO RECORD: an output of a stage without its record"),
    ):
        if sums[key]:
            lines.append(f"{sums[key]:.0f} {meaning}")
    return "\n".join(lines)


def _line(group: list[Node], seen: bool) -> str:
    node = group[0]
    name = node.path if len(group) == 1 else f"{Path(node.path).parent}/ ({len(group)} files)"
    flags = sorted({each.state for each in group} - {""})
    parts = [name]
    for flag in flags:
        marked = [each for each in group if each.state == flag]
        parts.append(flag if len(marked) == len(group) else f"{flag}: {', '.join(Path(each.path).name for each in marked)}")
    if seen:
        return "  ".join([*parts, "(above)"])
    if node.record:
        record = node.record
        commit = (record["commit"] or "none")[:12] + ("-dirty" if record["dirty"] else "")
        seconds = sum(record["wall_seconds"] for record in {id(each.record): each.record for each in group if each.record}.values())
        parts += [
            record["stage"],
            f"commit {commit}",
            f"config {record['config_hash'] or '-'}",
            f"seed {'-' if record['seed'] is None else record['seed']}",
        ]
        parts.append(duration(seconds))
    if len(group) == 1 and node.sha256:
        parts.append(f"{'revision' if node.state == 'hub model' else 'sha256'} {node.sha256[:12]}")
    return "  ".join(parts)
