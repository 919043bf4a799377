"""Configuration: clear errors, runs that extend others, and the files that are generated from the models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from coderl.config import (
    STAGES,
    ConfigError,
    CorpusConfig,
    RunConfig,
    SampleConfig,
    TrainingConfig,
    WarmStartConfig,
    WorkflowConfig,
    load_run,
    load_section,
    read_yaml,
    run_schema,
    section_json,
    validate,
)

ROOT = Path(__file__).parents[2]
RUNS = sorted((ROOT / "config" / "runs").glob("*.yaml"))


def with_change(**changes: Any) -> dict[str, Any]:
    return {**load_run(ROOT / "config/runs/mini.yaml").model_dump(mode="json"), **changes}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_file_loads_and_fits_the_schema(path: Path) -> None:
    load_run(path)
    jsonschema.validate(read_yaml(path), run_schema(), cls=jsonschema.Draft202012Validator)


def test_a_misspelt_key_names_the_file_and_the_nearest_key() -> None:
    data = with_change()
    data["warm_start"]["training"]["learning_rat"] = 1.0
    with pytest.raises(ConfigError, match=r"mini\.yaml: unknown key 'warm_start\.training\.learning_rat'; did you mean 'learning_rate'\?"):
        validate(RunConfig, data, "mini.yaml")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, run_schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("section", "path", "key", "near"),
    [
        ("pretrain", ("phases", 0, "training"), "stepps", "steps"),
        ("rl_finetune", ("variants", "rl"), "loses", "losses"),
        ("problems", ("train",), "sizes", "size"),
    ],
)
def test_the_nearest_key_is_found_in_lists_and_mappings_too(section: str, path: tuple[Any, ...], key: str, near: str) -> None:
    data = with_change()
    node = data[section]
    for step in path:
        node = node[step]
    node[key] = 1
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        validate(RunConfig, data, "a run")


def test_a_missing_key_and_a_wrong_value_are_named() -> None:
    data = with_change()
    del data["warm_start"]["training"]["steps"]
    data["sample"]["sets"]["train"]["samples_per_problem"] = 0
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, data, "a run")
    assert "key 'warm_start.training.steps' is missing" in str(caught.value)
    assert "key 'sample.sets.train.samples_per_problem': Input should be greater than or equal to 1 (got 0)" in str(caught.value)


@pytest.mark.parametrize("sizes", [{}, {"batch_size": 1, "batch_tokens": 1}])
def test_a_training_has_one_batch_size(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="exactly one of batch_size and batch_tokens"):
        validate(TrainingConfig, {"steps": 1, **sizes}, "training")


def test_a_run_that_extends_another_changes_only_what_it_states() -> None:
    mini, smoke = load_run(ROOT / "config/runs/mini.yaml"), load_run(ROOT / "config/runs/smoke.yaml")
    assert smoke.problems["train"].size != mini.problems["train"].size
    assert smoke.problems["test"].difficulty_shares == mini.problems["test"].difficulty_shares
    assert smoke.warm_start.training.learning_rate == mini.warm_start.training.learning_rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluate": {"problem_set": "dev"}}, "evaluate.problem_set needs 'dev', which sample.sets does not have; there are train, test"),
        ({"evaluate": {"policies": ["rll"]}}, "evaluate.policies needs 'rll', which rl_finetune.variants does not have; there are rl, ce"),
        ({"critical_sample": {"policy": "rll"}}, "critical_sample.policy needs 'rll'"),
        ({"sample": {"sets": {"tset": {}}}}, "sample.sets needs 'tset', which problems does not have; there are train, test"),
        ({"pretrain": None}, "pretrain is null, so key 'warm_start.base_model' must name a model"),
        ({"corpus": None}, "pretrain needs the section 'corpus', which is null"),
    ],
)
def test_sections_have_to_fit_together(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "mini.yaml").write_text((ROOT / "config/runs/mini.yaml").read_text(encoding="utf-8"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"extends": "mini", **change}))
    with pytest.raises(ConfigError) as caught:
        load_run(tmp_path / "mine.yaml")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300, "the message does not repeat the whole file"


def test_extending_in_a_circle_or_from_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    with pytest.raises(ConfigError, match="circle: a -> b -> a"):
        load_run(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("extends: nowhere\n")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file; files there: a, b, c"):
        load_run(tmp_path / "c.yaml")


@pytest.mark.parametrize(("text", "message"), [("a: [", "not valid YAML"), ("- 1", "expected a mapping")])
def test_a_file_that_is_no_mapping_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_run(tmp_path / "x.yaml")


def test_a_section_comes_from_json_or_from_a_run_file() -> None:
    mini = ROOT / "config/runs/mini.yaml"
    from_file = load_section(WarmStartConfig, str(mini), "warm_start")
    assert load_section(WarmStartConfig, section_json(from_file), "warm_start") == from_file
    with pytest.raises(ConfigError, match="--config: not valid JSON"):
        load_section(WarmStartConfig, "{", "warm_start")
    with pytest.raises(ConfigError, match=r"--config \(sample\): unknown key 'set'; did you mean 'sets'"):
        load_section(SampleConfig, '{"set": {}}', "sample")


def test_a_null_section_is_an_error_where_its_stage_runs(tmp_path: Path) -> None:
    base_model = {"warm_start": {**with_change()["warm_start"], "base_model": "a-model"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(with_change(corpus=None, pretrain=None, **base_model)))
    with pytest.raises(ConfigError, match="section 'corpus' is null"):
        load_section(CorpusConfig, str(tmp_path / "x.yaml"), "corpus")


def test_section_json_does_not_depend_on_the_order_of_keys() -> None:
    data = with_change()["warm_start"]
    reverse = json.loads(json.dumps(dict(reversed(data.items()))))
    assert section_json(validate(WarmStartConfig, data, "")) == section_json(validate(WarmStartConfig, reverse, ""))


def test_active_runs_may_be_one_name_and_threads_name_stages() -> None:
    assert validate(WorkflowConfig, {"runs": "smoke"}, "").runs == ["smoke"]
    with pytest.raises(ConfigError, match="no stage 'pretrian'; did you mean 'pretrain'"):
        validate(WorkflowConfig, {"threads": {"pretrian": 2}}, "")
    with pytest.raises(ConfigError, match="at least 1 thread"):
        validate(WorkflowConfig, {"threads": {"pretrain": 0}}, "")
    with pytest.raises(ConfigError, match="did you mean 'runs'"):
        validate(WorkflowConfig, {"run": ["mini"]}, "config.yaml")


def test_the_stages_are_the_sections() -> None:
    assert STAGES[0] == "problems"
    assert STAGES[-1] == "report"
    assert len(STAGES) == 13


def test_the_schema_and_the_reference_are_up_to_date() -> None:
    text = (ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == json.loads(json.dumps(run_schema())), "run `make schema`"
    script = ROOT / "workflow/scripts/config_reference.py"
    done = subprocess.run([sys.executable, str(script), "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
