"""repair.py: which failed program is paired with which correct one, and the stage."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from tiny_models import save_tiny, tiny_t5, tiny_tokenizer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from coderl.config import TrainingConfig, TrainRepairConfig
from coderl.judged import JudgedProgram
from coderl.problems import InputOutputTests, Problem, write_problems
from coderl.problems.prompts import encode_program, encode_repair_prompt
from coderl.records import DataError, OutcomeRow, Sample, write_outcomes, write_samples
from coderl.repair import RepairExamples, nearest_program, repair_pairs, train_repair
from coderl.training import read_log

torch.set_num_threads(1)


def config(**changes: Any) -> TrainRepairConfig:
    training = TrainingConfig(steps=changes.pop("steps", 2), batch_size=4, learning_rate=1e-2, log_every=1)
    return TrainRepairConfig(training=training, lengths={"max_source_tokens": 96, "max_target_tokens": 32}, **changes)


def outcome_row(task_id: str, sample_id: int, outcome: str, error: str | None = None, message: str | None = None) -> OutcomeRow:
    passed = outcome == "passed_test"
    return OutcomeRow(task_id, sample_id, "hidden", outcome, int(passed), 1, None, error, message, None, 0.0, 1.0, "strict", "process")  # type: ignore[arg-type]


def sampled(task_id: str, sample_id: int, text: str, outcome: str, error: str | None = None, message: str | None = None) -> JudgedProgram:
    return JudgedProgram(task_id, text, outcome_row(task_id, sample_id, outcome, error, message), Sample(task_id, sample_id, text))


def reference(task_id: str, number: int, text: str, outcome: str = "passed_test") -> JudgedProgram:
    return JudgedProgram(task_id, text, outcome_row(task_id, number, outcome), None)


def toy_problem(task_id: str, solutions: list[str] | None = None) -> Problem:
    tests = InputOutputTests("stdin", ["1"], ["1"])
    return Problem(task_id, "toy", "train", "introductory", f"Question {task_id}", "", None, solutions or [], tests, None)


SAMPLES = [
    sampled("a", 0, "print(sum(x))", "failed_test"),
    sampled("a", 1, "print(min(x))", "passed_test"),
    sampled("a", 2, "print(sum(x))", "failed_test"),  # the text of sample 0 again
    sampled("a", 3, "import q", "runtime_error", "importerror", "No module named 'q'"),
    sampled("b", 0, "x = (", "compile_error", "syntaxerror"),  # no program of b is correct
]
REFERENCES = [reference("a", 0, "import r"), reference("a", 1, "import qq", "failed_test"), reference("c", 0, "pass")]


def as_texts(pairs: Any) -> list[tuple[str, list[str]]]:
    return [(pair.failed.text, pair.targets) for pair in pairs]


@given(st.text("ab()\n", max_size=12), st.lists(st.text("ab()\n", max_size=12), min_size=1, max_size=6))
def test_nearest_is_the_first_of_the_least_edit_distance(program: str, candidates: list[str]) -> None:
    least = min(Levenshtein.distance(program, candidate) for candidate in candidates)
    assert nearest_program(program, candidates) == next(c for c in candidates if Levenshtein.distance(program, c) == least)


def test_pairs_take_the_nearest_correct_program_of_the_same_problem(caplog: pytest.LogCaptureFixture) -> None:
    """Not the nearer reference that fails its tests, not a passing input, each text once, nothing for b."""
    with caplog.at_level(logging.INFO):
        pairs = repair_pairs(SAMPLES, REFERENCES, config())
    assert as_texts(pairs) == [("print(sum(x))", ["print(min(x))"]), ("import q", ["import r"])]
    assert "3 distinct failed programs (compile_error 1, failed_test 1, runtime_error 1); 1 of them" in caplog.text


def test_targets_references_leaves_passing_samples_out() -> None:
    pairs = repair_pairs(SAMPLES, REFERENCES, config(targets="references"))
    assert as_texts(pairs) == [("print(sum(x))", ["import r"]), ("import q", ["import r"])]


def examples_of(pairing: str, seed: int = 0, **changes: Any) -> RepairExamples:
    chosen = config(pairing=pairing, **changes)
    pairs = repair_pairs(SAMPLES, REFERENCES, chosen)
    table = [toy_problem(task) for task in "abc"]
    return RepairExamples(
        pairs, table, tiny_tokenizer(), chosen.lengths, include_message=chosen.include_message, draw_one=pairing == "random", seed=seed
    )


def test_pairing_all_gives_every_pair_and_random_one_target_drawn_anew_each_epoch() -> None:
    assert examples_of("all").epoch(0) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert examples_of("nearest").epoch(0) == [(0, 0), (1, 0)]
    examples = examples_of("random")
    epochs = [examples.epoch(k) for k in range(30)]
    assert epochs == [examples_of("random").epoch(k) for k in range(30)]
    assert all([i for i, _ in epoch] == [0, 1] for epoch in epochs)
    assert {j for epoch in epochs for _, j in epoch} == {0, 1}


@pytest.mark.parametrize("include_message", [False, True])
def test_input_holds_problem_program_outcome_and_error(include_message: bool) -> None:
    examples = examples_of("nearest", include_message=include_message)
    tokenizer = tiny_tokenizer()
    message = "No module named 'q'" if include_message else None
    prompt = encode_repair_prompt(tokenizer, toy_problem("a"), "import q", "runtime_error", "importerror", message, 96)
    batch = examples.collate([(0, 0), (1, 0)])
    size = int(batch["prompt_mask"][1].sum())
    assert batch["prompt_ids"][1, :size].tolist() == prompt
    target = encode_program(tokenizer, "import r", 32)
    assert batch["program_ids"][1].tolist() == target + [-100] * (batch["program_ids"].shape[1] - len(target))
    assert batch["normaliser"].item() == sum(len(encode_program(tokenizer, text, 32)) for text in ("print(min(x))", "import r"))
    assert examples.lengths((1, 0)) == (len(prompt), len(target))


def test_no_pair_at_all_is_an_error_with_the_next_step() -> None:
    with pytest.raises(DataError, match="draw more samples"):
        repair_pairs([sampled("b", 0, "x = (", "compile_error")], [reference("a", 0, "pass")], config())


def stage_arguments(folder: Path, rows: dict[str, list[tuple[str, str]]], solutions: dict[str, list[str]]) -> dict[str, Any]:
    write_problems(folder / "problems.parquet", [toy_problem(task, solutions.get(task)) for task in rows])
    pairs = [(task, i, text, outcome) for task, programs in rows.items() for i, (text, outcome) in enumerate(programs)]
    write_samples(folder / "samples.jsonl.gz", [Sample(task, i, text) for task, i, text, _ in pairs])
    write_outcomes(folder / "outcomes.jsonl.gz", [outcome_row(task, i, outcome) for task, i, _, outcome in pairs])
    references = [outcome_row(task, i, "passed_test") for task, texts in solutions.items() for i in range(len(texts))]
    write_outcomes(folder / "reference.jsonl.gz", references)
    return {
        "problems": folder / "problems.parquet",
        "samples": [folder / "samples.jsonl.gz"],
        "outcomes": [folder / "outcomes.jsonl.gz"],
        "reference_outcomes": [folder / "reference.jsonl.gz"],
        "base_model": str(save_tiny(folder / "actor", tiny_t5())),
        "seed": 1,
        "work": folder / "work",
    }


def test_stage_trains_a_model_that_plain_transformers_opens(tmp_path: Path) -> None:
    rows = {f"t{k}": [("ab", "failed_test"), ("ba", "runtime_error")] for k in range(3)}
    arguments = stage_arguments(tmp_path, rows, {task: ["aa"] for task in rows})
    train_repair(config=config(steps=30), **arguments, output=tmp_path / "repair")
    log = read_log(tmp_path / "repair")
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert not (tmp_path / "work").exists()
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "repair")
    assert AutoTokenizer.from_pretrained(tmp_path / "repair").pad_token_id == 0
    train_repair(config=config(steps=30), **arguments, output=tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "repair" / "model.safetensors").read_bytes()


def test_a_sample_without_outcome_leaves_nothing_behind(tmp_path: Path) -> None:
    arguments = stage_arguments(tmp_path, {"t": [("ab", "failed_test")]}, {"t": ["aa"]})
    write_outcomes(tmp_path / "outcomes.jsonl.gz", [])
    with pytest.raises(DataError, match=r"no outcome for 't', sample 0"):
        train_repair(config=config(), **arguments, output=tmp_path / "repair")
    assert not list(tmp_path.glob("*repair*"))
