"""Records of provenance: what they hold, where they lie, what does not see them, and the chain that is read from them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coderl import cli, lineage
from coderl.provenance import PACKAGES
from coderl.records import DataError
from coderl.sampling.stage import content_hash

ROOT = Path(__file__).parents[2]


def record(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lineage.record_path(file).read_text(encoding="utf-8"))
    return found


def verb(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    assert ended.value.code == 0


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    verb("provenance", *words)
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outcomes of reference solutions, made by the real verbs from a problem file that nobody made."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("data").mkdir()
        row = {"task_id": "a", "question": "Double it.", "hidden_tests": {"kind": "stdin", "inputs": ["1"], "outputs": ["2"]}}
        Path("data/raw.jsonl").write_text(json.dumps({**row, "solutions": ["print(int(input()) * 2)"]}))
        verb("problems", "--config", PROBLEMS, "--output", "results/r/problems/train.parquet")
        for shard in (0, 1):
            judge(f"results/r/outcomes/of-2/{shard}.jsonl.gz")
    return folder


PROBLEMS = json.dumps({"benchmark": "jsonl", "source": "data/raw.jsonl", "split": "train"})


def judge(output: str, *words: str) -> None:
    problems = "results/r/problems/train.parquet"
    verb("run-tests", "--problems", problems, "--samples", "reference", "--suite", "hidden", *words, "--output", output)


@pytest.fixture
def made(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template, in which the test runs."""
    folder = tmp_path / "made"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    return folder


def test_a_record_says_how_a_file_was_made(made: Path) -> None:
    found = record(made / "results/r/problems/train.parquet")
    assert found["stage"] == "problems"
    assert found["command"].startswith('coderl problems --config \'{"benchmark"')
    assert found["command"].endswith("--output results/r/problems/train.parquet")
    assert found["inputs"] == [{"path": "data/raw.jsonl", "sha256": lineage.content_sha256(made / "data/raw.jsonl"), "recorded": False}], (
        "a file that is named inside the configuration"
    )
    assert found["outputs"][0]["sha256"] == lineage.content_sha256(made / "results/r/problems/train.parquet")
    assert re.fullmatch("[0-9a-f]{40}", found["commit"])
    assert isinstance(found["dirty"], bool)
    assert set(found["versions"]) <= set(PACKAGES)
    assert found["hardware"]["cores"] >= 1
    assert found["wall_seconds"] > 0
    assert found["gpu_hours"] == 0
    later = record(made / "results/r/outcomes/of-2/1.jsonl.gz")
    assert later["inputs"] == [{"path": "results/r/problems/train.parquet", "sha256": found["outputs"][0]["sha256"], "recorded": True}]
    assert later["cpu_seconds"] > 0
    assert later["config_hash"] == record(made / "results/r/outcomes/of-2/0.jsonl.gz")["config_hash"]


def test_the_configuration_hash_is_that_of_what_was_used(made: Path) -> None:
    for name, words in (("b", ["--config", '{"cpu_seconds": 3.0}']), ("c", ["--cpu-seconds", "3"]), ("d", ["--cpu-seconds", "2"])):
        judge(f"{name}.jsonl", *words)
    hashes = [record(made / f"{name}.jsonl")["config_hash"] for name in "bcd"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_failed_verb_leaves_no_record(made: Path) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run-tests", "--problems", "gone.parquet", "--samples", "reference", "--suite", "hidden", "--output", "x.jsonl"])
    with lineage.recording("run_tests", [], {"output": Path("x.jsonl")}, ("output",), {}, whole=False):
        pass  # wrote nothing
    assert not list(made.glob("x.jsonl*"))


def test_the_chain_goes_back_to_the_raw_inputs(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "results/r/outcomes/of-2/0.jsonl.gz").splitlines()
    assert [re.split(r"  +", line.lstrip("└─ "))[0] for line in text[:3]] == [
        "results/r/outcomes/of-2/0.jsonl.gz",
        "results/r/problems/train.parquet",
        "data/raw.jsonl",
    ]
    assert "raw input" in text[2]
    assert "CHANGED" not in "".join(text)
    assert text[4].startswith("2 records: wall time ")
    found = json.loads(printed(capsys, "results/r/outcomes/of-2/0.jsonl.gz", "--json"))
    assert [node["state"] for node in found["nodes"]] == ["ok", "ok", "raw input"]
    walls = [node["record"]["wall_seconds"] for node in found["nodes"] if node["record"]]
    assert found["totals"]["wall_seconds"] == pytest.approx(sum(walls))
    assert found["totals"]["records"] == 2


def test_the_chain_is_read_from_any_folder(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    moved = made.with_name("moved")
    made.rename(moved)
    monkeypatch.chdir(ROOT)
    assert "data/raw.jsonl  raw input" in printed(capsys, str(moved / "results/r/outcomes/of-2/0.jsonl.gz"))


def test_what_no_longer_agrees_is_marked(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = "results/r/outcomes/of-2/0.jsonl.gz"
    os.utime("data/raw.jsonl")
    assert "CHANGED" not in printed(capsys, target), "a touched file has its content still"
    Path("data/raw.jsonl").write_text("{}")
    text = printed(capsys, target)
    assert "data/raw.jsonl  CHANGED" in text
    assert "1 CHANGED" in text
    assert "CHANGED" not in printed(capsys, target, "--no-verify")
    Path("data/raw.jsonl").unlink()
    assert "data/raw.jsonl  GONE" in printed(capsys, target)
    lineage.record_path(Path("results/r/problems/train.parquet")).unlink()
    text = printed(capsys, target)
    assert "results/r/problems/train.parquet  NO RECORD" in text
    assert "raw.jsonl" not in text
    lineage.record_path(Path(target)).unlink()
    with pytest.raises(DataError, match="no record says how it was made"):
        lineage.chain(Path(target))


def test_a_result_of_older_inputs_is_marked(made: Path) -> None:
    """The problems were made anew, the outcomes were not: the record beside the problems is that of other content."""
    raw = Path("data/raw.jsonl")
    raw.write_text(raw.read_text().replace("Double", "Triple"))
    verb("problems", "--config", PROBLEMS, "--output", "results/r/problems/train.parquet")
    root = lineage.chain(Path("results/r/outcomes/of-2/0.jsonl.gz"))
    assert [node.state for node in lineage._walk(root)] == ["", "CHANGED", "raw input"]
    assert lineage.chain(Path("results/r/problems/train.parquet")).state == ""


def example_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "metrics.json").write_text("{}")


def write_model(folder: Path, data: Path) -> None:
    """As a training verb does, whose stages need minutes: the context around it, with a folder as the output."""
    flags = {"problems": data, "output": folder, "work": Path("work"), "seed": 7, "base_model": "Some/model"}
    with lineage.recording("warm_start", ["--seed", "7"], flags, ("output",), {}, whole=False):
        example_model(folder)


def test_the_record_of_a_model_is_in_its_folder_and_no_part_of_it(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("results/r/models/actor")
    write_model(folder, Path("results/r/problems/train.parquet"))
    found = record(made / folder)
    assert lineage.record_path(folder) == folder / "provenance.json"
    assert found["seed"] == 7
    assert found["inputs"][1] == {"hub": "Some/model", "revision": None}
    bare = made / "bare"
    example_model(bare)
    (bare / ".snakemake_timestamp").touch()
    assert lineage.content_sha256(bare) == found["outputs"][0]["sha256"]
    (bare / ".snakemake_timestamp").unlink()
    assert content_hash(bare) == content_hash(folder), "nor do resumed samples depend on it"
    assert printed(capsys, str(folder)) == printed(capsys, str(folder / "metrics.json")) == printed(capsys, str(folder / "provenance.json"))
    shutil.copytree(folder, made / "elsewhere/copied")
    assert "problems/train.parquet" in printed(capsys, "elsewhere/copied"), "a folder that was copied has its record"
    files, hub = lineage.named_files({"critic_metrics": folder / "metrics.json"}, ())
    assert (files, hub) == ([folder], []), "a file of a model stands for the model"


def test_a_big_input_is_not_hashed_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("results/r/models/actor")
    write_model(folder, Path("results/r/problems/train.parquet"))
    known = lineage.content_sha256(folder)
    with monkeypatch.context() as patch:
        patch.setattr(lineage, "content_sha256", lambda path: pytest.fail(f"{path} was read"))
        assert lineage._known_sha256(folder) == known
    (folder / "model.safetensors").write_bytes(b"other!!")
    assert lineage._known_sha256(folder) == lineage.content_sha256(folder) != known


def test_a_damaged_record_stops_no_stage(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    problems = Path("results/r/problems/train.parquet")
    for text in ("{", "[]", '{"format": 99}'):
        lineage.record_path(problems).write_text(text)
        judge("again.jsonl")
        assert record(Path("again.jsonl"))["inputs"][0]["sha256"] == lineage.content_sha256(problems)
        assert lineage.chain(Path("again.jsonl")).inputs[0].state == "NO RECORD"
        assert "train.parquet.provenance.json: not a record of provenance" in caplog.text
        caplog.clear()


def test_programs_named_in_a_file_are_inputs(made: Path) -> None:
    shard = Path("results/r/outcomes/of-2/0.jsonl.gz")
    Path("programs.json").write_text(json.dumps({"actor": {"samples": ["gone.jsonl"], "hidden": [str(shard)]}}))
    assert lineage.named_files({"programs": "programs.json"}, ()) == ([Path("programs.json"), shard], [])


def test_one_process_of_several_writes(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    write_model(Path("model"), Path("results/r/problems/train.parquet"))
    assert not Path("model/provenance.json").exists()


def test_gpu_hours_are_gpus_times_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cuda:
        is_available = staticmethod(lambda: True)
        device_count = staticmethod(lambda: 2)
        get_device_name = staticmethod(lambda index: f"card {index}")

    monkeypatch.setitem(sys.modules, "torch", type("torch", (), {"cuda": Cuda}))
    monkeypatch.setenv("WORLD_SIZE", "8")
    found = lineage.hardware()
    assert found["gpus"] == ["card 0", "card 1"]
    assert lineage._gpu_count(found) == 8, "four nodes of two, one process per GPU"
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert lineage._gpu_count(lineage.hardware()) == 2


def test_the_record_of_a_table_holds_the_chain(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, table = Path("results/r/models/actor"), Path("results/r/apps_eval.csv")
    write_model(folder, Path("results/r/problems/train.parquet"))
    programs = {"actor": {"hidden": [f"results/r/outcomes/of-2/{shard}.jsonl.gz" for shard in (0, 1)]}}
    flags = {"programs": json.dumps(programs), "critic_metrics": folder / "metrics.json", "output": table, "config_hash": "abc"}
    with lineage.recording("evaluate", [], flags, ("output",), {}, whole=True):
        table.write_text("model,value\n")
    before = printed(capsys, str(table))
    assert "results/r/outcomes/of-2/ (2 files)" in before
    assert record(table)["run_config_hash"] == "abc"
    stages = sorted(each["stage"] for each in record(table)["chain"])
    assert stages == ["problems", "run_tests", "run_tests", "warm_start"]
    for lost in [
        *Path("results/r/outcomes").rglob(f"*{lineage.SUFFIX}"),
        folder / "provenance.json",
        *Path("results/r/problems").glob("*.json"),
    ]:
        lost.unlink()
    assert printed(capsys, str(table)) == before, "as after `dvc pull`, which brings no other records"
    assert "warm_start" in printed(capsys, str(folder)), "and the model is found in the table's record"


def test_dvc_ignores_the_records_inside_its_outputs(tmp_path: Path) -> None:
    outputs = {
        "results/mini/models/actor/provenance.json": True,
        "results/mini/models/policy/rl/provenance.json": True,
        "results/mini/samples/policy/rl/test/of-2/0.jsonl.gz.provenance.json": True,
        "results/mini/outcomes/actor/train/hidden/of-2/1.jsonl.gz.provenance.json": True,
        "results/mini/apps_eval.csv.provenance.json": False,
        "results/apps_eval.csv.provenance.json": False,
        "results/mini/models/actor/model.safetensors": False,
        "results/mini/samples/actor/test/of-2/0.jsonl.gz": False,
    }
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "check-ignore", *outputs], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == {path for path, ignored in outputs.items() if ignored}


def test_every_output_of_a_verb_is_one_of_its_parameters() -> None:
    for command in cli.app.registered_commands:
        assert command.callback is not None
        name = command.callback.__name__
        parameters = set(command.callback.__annotations__)
        if command.cls is cli.Stage:
            assert set(cli.WRITTEN.get(name, ("output",))) <= parameters
            text = (ROOT / "src/coderl/cli.py").read_text(encoding="utf-8").partition(f"def {name}(")[2].partition('"""')[0]
            written = set(re.findall(r'^    (\w+): Annotated\[Path, typer.Option\(help="\w+ to write', text, re.MULTILINE))
            assert written <= set(cli.WRITTEN.get(name, ("output",)))


def test_printing_a_chain_imports_no_torch(made: Path) -> None:
    code = (
        "import sys\nfrom coderl.cli import main\n"
        "try:\n    main(['provenance', 'results/r/outcomes/of-2/0.jsonl.gz'])\nexcept SystemExit as ended:\n    assert ended.code == 0\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
