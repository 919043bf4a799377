"""The command line: quick, one verb per stage, flags with several values, and errors in one message."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import Mock

import pytest
import typer
from typer.testing import CliRunner

from coderl import cli
from coderl.config import STAGES
from coderl.problems import read_problems

ROOT = Path(__file__).parents[2]


def coderl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coderl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment})


def test_help_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys, time\nfrom coderl.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "loaded = [name for name in ('torch', 'transformers', 'pandas', 'numpy', 'pydantic') if name in sys.modules]\n"
        "print(loaded, time.process_time(), file=sys.stderr)\n"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        loaded, _, used = done.stderr.rpartition("] ")
        assert loaded == "[", f"imported for the help: {loaded}]"
        seconds.append(float(used))
    assert "critical-sample" in done.stdout
    assert min(seconds) < 0.5


def test_every_stage_is_a_verb_and_a_function_of_its_name() -> None:
    verbs = {command.name or command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands if command.callback}
    assert verbs == {stage.replace("_", "-") for stage in STAGES} | {
        "collect",
        "convert",
        "tables",
        "figure",
        "problems-report",
        "import-programs",
        "export-programs",
        "show",
        "schema",
        "provenance",
        "plan",
    }
    assert all(callable(getattr(cli, stage)) for stage in STAGES)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--many", "a", "b", "c", "--one", "x"], (["a", "b", "c"], "x")),
        (["--many", "a", "--many", "b", "--one", "x"], (["a", "b"], "x")),
        (["--one", "x", "--many", "a", "b", "--many", "c", "d"], (["a", "b", "c", "d"], "x")),
        (["--many=a", "--many", "b", "c", "--one=x"], (["a", "b", "c"], "x")),
        (["--many", "--one", "x"], ([], "x")),
    ],
)
def test_a_repeatable_flag_takes_several_values(words: list[str], expected: tuple[list[str], str]) -> None:
    seen = []
    app = typer.Typer()

    @app.command(cls=cli.Stage)
    def verb(one: Annotated[str, typer.Option()], many: Annotated[list[str] | None, typer.Option()] = None) -> None:
        seen.append((many or [], one))

    assert CliRunner().invoke(app, words).exit_code == 0
    assert seen == [expected]


def test_a_value_too_many_for_a_single_flag_is_an_error() -> None:
    done = coderl("problems", "--output", "a", "b")
    assert done.returncode == 2
    assert "unexpected extra argument" in done.stderr


def test_problems_from_flags_and_from_a_run_file_are_the_same(tmp_path: Path) -> None:
    section = json.dumps({"benchmark": "procedural", "size": 6})
    first = coderl("problems", "--config", section, "--procedural-config", '{"seed": 1}', "--output", str(tmp_path / "a.jsonl"))
    assert first.returncode == 0, first.stderr
    run = str(ROOT / "config/runs/mini.yaml")
    words = [
        "problems",
        "--config",
        run,
        "--set",
        "train",
        "--size",
        "6",
        "--procedural-config",
        run,
        "--output",
        str(tmp_path / "b.jsonl"),
    ]
    second = coderl(*words)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert len(read_problems(tmp_path / "a.jsonl")) == 6
    assert second.stderr.splitlines()[0] == "+ coderl " + " ".join(words), "the first line of a log can be pasted"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["problems", "--config", "{", "--output", "x"], "--config: not valid JSON"),
        (["problems", "--config", '{"sizes": 3}', "--output", "x"], "unknown key 'sizes'; did you mean 'size'"),
        (["problems", "--config", "config/runs/mini.yaml", "--set", "tset", "--output", "x"], "problems has no set 'tset'"),
        (["problems", "--benchmark", "jsonl", "--source", "nowhere.jsonl", "--output", "x"], "nowhere.jsonl: no such file"),
        (["show", "nowhere.csv"], "nowhere.csv: no such file"),
        (["provenance", "nowhere.csv"], "nowhere.csv: no such file"),
        (["provenance", "README.md"], "no record says how it was made"),
        (["plan", "--run", "nowhere"], "config/runs/nowhere.yaml: no such file; files there: "),
        (["plan", "--run", "mini", "--gpu", "abacus"], "--gpu abacus: not known; there are a100"),
        (["run-tests", "--problems", "nowhere.parquet", "--samples", "reference", "--suite", "hidden", "--output", "x"], "nowhere.parquet"),
    ],
)
def test_bad_input_is_one_message_without_a_traceback(words: list[str], message: str) -> None:
    done = coderl(*words, CODERL_DEBUG="")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert not (ROOT / "x").exists()


PROBLEM = {"task_id": "a", "question": "q", "hidden_tests": {"kind": "stdin", "inputs": ["1"], "outputs": ["1"]}}


@pytest.mark.parametrize(
    ("problem", "sample", "output", "message"),
    [
        ({"question": "\ud800"}, {}, "o.jsonl", "p.jsonl: row 1: field 'question': holds half of a surrogate pair"),
        (
            {"hidden_tests": {"kind": "assert", "asserts": ["assert 1"], "setup": 5}},
            {},
            "o.jsonl",
            "p.jsonl: row 1: field 'hidden_tests': 'setup'",
        ),
        ({"entry_point": ""}, {}, "o.jsonl", "p.jsonl: row 1: field 'entry_point'"),
        ({}, {"n_tokens": "abc"}, "o.jsonl", "s.jsonl: row 1: 'n_tokens' must be an integer"),
        ({}, {"kind": "banana"}, "o.jsonl", "s.jsonl: row 1: 'kind' must be one of"),
        ({}, {}, "o.csv", "o.csv: unknown suffix"),
    ],
)
def test_bad_rows_are_one_message_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], problem: dict[str, object], sample: dict[str, object], output: str, message: str
) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(PROBLEM | problem))
    (tmp_path / "s.jsonl").write_text(json.dumps({"task_id": "a", "solution": "print(1)"} | sample))
    words = ["run-tests", "--problems", str(tmp_path / "p.jsonl"), "--samples", str(tmp_path / "s.jsonl"), "--suite", "hidden"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--output", str(tmp_path / output)])
    assert ended.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "s.jsonl"]


def test_the_help_says_which_benchmarks_can_be_read() -> None:
    help_text = coderl("problems", "--help").stdout
    assert all(name in help_text for name in ("procedural", "apps", "mbpp", "humaneval", "leetcode", "jsonl"))


def test_debug_shows_the_traceback() -> None:
    for done in (coderl("--debug", "show", "nowhere.csv"), coderl("show", "nowhere.csv", CODERL_DEBUG="1")):
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "DataError" in done.stderr


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("coderl.evaluation.show", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["show", "table.csv"])


def test_a_full_disk_says_so_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    command = f'mount -t tmpfs -o size=64k tmpfs "$0" && "{sys.executable}" -m coderl problems --size 3000 --output "$0/p.parquet"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{command}; code=$?; ls -A "$0"; exit $code', str(tmp_path)]
    try:
        done = subprocess.run(inside, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not here, to make a small disk")
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no small disk can be made here: {done.stderr}")
    assert done.returncode == 1
    assert "Make room and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    ],
)
def test_a_full_disk_is_known_by_any_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    monkeypatch.setattr(cli, "app", Mock(side_effect=error))
    with pytest.raises(SystemExit):
        cli.main(["show", "results/apps_eval.csv"])
    assert "Make room" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "given"), [(["reference"], "reference"), (["empty"], "empty"), (["a", "b"], [Path("a"), Path("b")])])
def test_run_tests_knows_reference_and_empty_from_files(monkeypatch: pytest.MonkeyPatch, words: list[str], given: object) -> None:
    seen = {}
    monkeypatch.setattr("coderl.sandbox.stage.run_tests", lambda **arguments: seen.update(arguments))
    with pytest.raises(SystemExit) as ended:
        cli.main(["run-tests", "--problems", "p", "--samples", *words, "--suite", "hidden", "--output", "o"])
    assert ended.value.code == 0
    assert seen["samples"] == given


def test_flags_of_run_tests_win_over_its_section(tmp_path: Path) -> None:
    row = {"task_id": "a", "question": "Double it.", "hidden_tests": {"kind": "stdin", "inputs": ["1"], "outputs": ["2"]}}
    (tmp_path / "problems.jsonl").write_text(json.dumps(row))
    (tmp_path / "samples.jsonl").write_text(json.dumps({"task_id": "a", "completion": "print(int(input()) * 2)"}))
    words = ["run-tests", "--suite", "hidden", "--config", '{"cpu_seconds": 3}', "--time-policy", "exact", "--cpu-seconds", "0.75"]
    for name in ("problems", "samples"):
        words += [f"--{name}", str(tmp_path / f"{name}.jsonl")]
    done = coderl(*words, "--output", str(tmp_path / "outcomes.jsonl"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "outcomes.jsonl").read_text())
    assert (found["outcome"], found["cpu_limit"], found["checker"]) == ("passed_test", 0.75, "strict")
    refused = coderl(*words, "--memory-mb", "1", "--output", str(tmp_path / "outcomes.jsonl"))
    assert refused.returncode != 0
    assert "memory_mb" in refused.stderr


@pytest.mark.parametrize(
    ("words", "backend"), [([], "auto"), (["--backend", "docker"], "docker"), (["--config", '{"backend": "apptainer"}'], "apptainer")]
)
def test_run_tests_takes_a_backend(monkeypatch: pytest.MonkeyPatch, words: list[str], backend: str) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("coderl.sandbox.stage.run_tests", lambda **arguments: seen.update(arguments))
    with pytest.raises(SystemExit):
        cli.main(["run-tests", "--problems", "p", "--samples", "reference", "--suite", "hidden", "--output", "o", *words])
    assert seen["config"].backend == backend


def test_the_version_and_the_schema() -> None:
    assert coderl("--version").stdout == "coderl 0.1.0\n"
    assert coderl("schema").stdout == (ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"), "run `make schema`"
