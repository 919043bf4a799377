"""critic.py, critic_metrics.py and judged.py: the data, the balance, the metrics and both stages of the critic."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import classification_report, roc_auc_score
from tiny_models import save_tiny, tiny_t5, tiny_tokenizer
from transformers import AutoModelForSeq2SeqLM

from coderl.config import ScoreConfig, TrainCriticConfig, TrainingConfig
from coderl.critic import (
    SINGLE_CLASS_SHARE,
    CriticExample,
    CriticExamples,
    PairedExamples,
    critic_objective,
    foreign_programs,
    held_out_tasks,
    outcome_label,
    paired_objective,
    read_values,
    score,
    score_programs,
    score_samples,
    train_critic,
)
from coderl.critic_metrics import Judgement, auc, class_metrics, critic_metrics, expected_calibration_error, within_problem_aucs
from coderl.judged import JudgedProgram, distinct_programs, judged_references, judged_samples
from coderl.models import CriticSettings, OutcomeCritic, collate_pairs
from coderl.problems import InputOutputTests, Problem, read_problems, write_problems
from coderl.problems.prompts import encode_program, encode_prompt
from coderl.records import OUTCOMES, DataError, OutcomeRow, Sample, read_samples, write_outcomes, write_samples
from coderl.training import program_cross_entropy, read_log

torch.set_num_threads(1)

NAMES = ("not_passed", "passed_test")
TESTS = InputOutputTests("stdin", ["1"], ["1"])


def problem(task_id: str, solutions: list[str] | None = None, tests: InputOutputTests | None = TESTS) -> Problem:
    return Problem(task_id, "toy", "train", "introductory", f"Question {task_id}", "", None, solutions or [], tests, None)


def outcome_row(task_id: str, sample_id: int, outcome: str, suite: str = "hidden") -> OutcomeRow:
    passed = outcome == "passed_test"
    return OutcomeRow(task_id, sample_id, suite, outcome, int(passed), 1, None, None, None, None, 0.0, 1.0, "strict", "process")  # type: ignore[arg-type]


def judged(task_id: str, number: int, outcome: str, text: str | None = None, reference: bool = False) -> JudgedProgram:
    text = text if text is not None else f"p{number}"
    sample = None if reference else Sample(task_id, number, text, log_likelihood=-1.0, n_tokens=3)
    return JudgedProgram(task_id, text, outcome_row(task_id, number, outcome), sample)


def config(**changes: Any) -> TrainCriticConfig:
    training = TrainingConfig(steps=changes.pop("steps", 2), batch_size=4, learning_rate=1e-2, log_every=1)
    return TrainCriticConfig(training=training, lengths={"max_source_tokens": 48, "max_target_tokens": 24}, **changes)


# ------------------------------------------------------------------------------------------- metrics


def test_within_problem_auc_of_a_hand_computed_case() -> None:
    """a: 2 passing x 2 failing, 3 of 4 pairs right; b: one tie; c has one class and does not count. Over all it differs."""
    tasks = ["a", "b", "a", "c", "a", "b", "a"]
    scores = [0.9, 0.5, 0.3, 0.99, 0.4, 0.5, 0.1]
    passed = [True, True, True, True, False, False, False]
    assert within_problem_aucs(tasks, scores, passed) == [0.75, 0.5]
    rows = [
        Judgement(task, int(flag), np.array([1 - value, value], np.float32), math.log(value), 2, False)
        for task, value, flag in zip(tasks, scores, passed, strict=True)
    ]
    found = critic_metrics(rows, NAMES, seed=0)
    assert found["auc_within_problem"] == pytest.approx(0.625)
    assert found["auc_within_problem_log_likelihood"] == pytest.approx(0.625)
    assert found["auc_within_problem_n_problems"] == 2
    assert (found["auc_within_problem_low"], found["auc_within_problem_high"]) == (0.5, 0.75)
    assert found["auc"] == pytest.approx(roc_auc_score(passed, scores))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
def test_auc_equals_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    scores, positive = [row[0] / 7 for row in rows], [row[1] for row in rows]
    if len(set(positive)) < 2:
        assert auc(scores, positive) is None
    else:
        assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_class_metrics_equal_those_of_scikit_learn() -> None:
    rng = random.Random(0)
    labels = [rng.choice([0, 1, 3]) for _ in range(60)]  # class 2 does not occur
    predictions = [label if rng.random() < 0.6 else rng.choice([0, 1, 3]) for label in labels]
    found = class_metrics(labels, predictions, OUTCOMES)
    report = classification_report(labels, predictions, labels=[0, 1, 2, 3], target_names=OUTCOMES, output_dict=True, zero_division=0)
    for name in ("compile_error", "runtime_error", "passed_test"):
        assert found[f"precision_{name}"] == pytest.approx(report[name]["precision"])
        assert found[f"recall_{name}"] == pytest.approx(report[name]["recall"])
        assert found[f"f1_{name}"] == pytest.approx(report[name]["f1-score"])
        assert found[f"support_{name}"] == report[name]["support"]
    assert (found["precision_failed_test"], found["recall_failed_test"], found["f1_failed_test"]) == (None, None, None)
    assert found["balanced_accuracy"] == pytest.approx(np.mean([report[n]["recall"] for n in OUTCOMES if report[n]["support"]]))
    assert found["majority_baseline"] == max(Counter(labels).values()) / 60


def test_calibration_error_of_a_hand_computed_case() -> None:
    """Bin 0.9: confidence 0.95, accuracy 0.5; bin 0.6: confidence 0.65, accuracy 1. (2 * 0.45 + 1 * 0.35) / 3."""
    probabilities = np.array([[0.05, 0.95], [0.05, 0.95], [0.65, 0.35]])
    assert expected_calibration_error(probabilities, [1, 0, 0]) == pytest.approx((2 * 0.45 + 0.35) / 3)
    assert expected_calibration_error(np.array([[0.0, 1.0]]), [1]) == 0.0


def test_references_count_only_in_the_metrics_that_say_so() -> None:
    """A reference with a perfect score must not lift the numbers of the sampled programs."""
    rows = [
        Judgement("a", 1, np.array([0.8, 0.2], np.float32), -9.0, 3, False),
        Judgement("a", 0, np.array([0.6, 0.4], np.float32), -2.0, 3, False),
        Judgement("a", 1, np.array([0.0, 1.0], np.float32), None, None, True),
    ]
    found = critic_metrics(rows, NAMES, seed=0)
    assert (found["auc"], found["auc_within_problem"], found["support_passed_test"]) == (0.0, 0.0, 1)
    assert (found["auc_with_references"], found["auc_within_problem_with_references"]) == (0.5, 0.5)
    assert (found["n_samples"], found["n_references"]) == (2, 1)


def test_mean_log_likelihood_divides_by_the_length() -> None:
    """The passing program is the likelier one in sum, the failing one per token; a sample without it does not count."""
    rows = [
        Judgement("a", 1, np.array([0.5, 0.5], np.float32), -2.0, 2, False),
        Judgement("a", 0, np.array([0.5, 0.5], np.float32), -3.0, 6, False),
        Judgement("a", 0, np.array([0.5, 0.5], np.float32), None, None, False),
    ]
    found = critic_metrics(rows, NAMES, seed=0)
    assert (found["auc_within_problem_log_likelihood"], found["auc_log_likelihood"]) == (1.0, 1.0)
    assert (found["auc_within_problem_mean_log_likelihood"], found["auc_mean_log_likelihood"]) == (0.0, 0.0)


def test_no_problem_with_both_classes_is_unknown_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    rows = [Judgement(task, label, np.array([0.5, 0.5], np.float32), None, None, False) for task, label in (("a", 1), ("b", 0))]
    found = critic_metrics(rows, NAMES, seed=0)
    assert found["auc_within_problem"] is None
    assert found["auc_within_problem_low"] is None
    assert found["auc_within_problem_n_problems"] == 0
    assert "no held-out problem has both" in caplog.text
    assert critic_metrics([], NAMES, seed=0)["accuracy"] is None


# ------------------------------------------------------------------------------------------- data


def test_label_of_the_binary_critic_is_passed_against_everything_else() -> None:
    assert [outcome_label(name, 4) for name in OUTCOMES] == [0, 1, 2, 3]
    assert [outcome_label(name, 2) for name in OUTCOMES] == [0, 0, 0, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 5))
def test_split_holds_out_a_share_of_the_problems_whatever_their_order(count: int, share: float, seed: int) -> None:
    tasks = [f"t{i}" for i in range(count)]
    chosen = held_out_tasks(tasks, share, seed)
    assert 1 <= len(chosen) <= count - 1
    assert abs(len(chosen) - share * count) <= 1
    assert held_out_tasks(tasks[::-1], share, seed) == chosen


def test_split_needs_two_problems() -> None:
    with pytest.raises(DataError, match="at least two"):
        held_out_tasks(["t"], 0.1, 0)


def encoded(programs: list[JudgedProgram], classes: int = 4) -> list[CriticExample]:
    return [CriticExample([1, 2], [1, 2], outcome_label(p.outcome.outcome, classes), p) for p in programs]


def within_problem_programs() -> list[JudgedProgram]:
    rows = [judged("mixed", i, "passed_test" if i < 2 else "failed_test") for i in range(7)]
    rows += [judged("lucky", i, "runtime_error" if i == 0 else "passed_test") for i in range(6)]
    for k in range(10):
        rows += [judged(f"hard{k}", i, "failed_test") for i in range(5)]
    return rows


def test_within_problem_balance_is_exact_in_every_epoch_and_caps_problems_of_one_class() -> None:
    programs = within_problem_programs()
    examples = CriticExamples(encoded(programs), 4, "within_problem", 0, seed=3)
    for epoch in range(20):
        drawn = [programs[i] for i in examples.epoch(epoch)]
        assert len({(p.task_id, p.text) for p in drawn}) == len(drawn)
        for task, each in (("mixed", 2), ("lucky", 1)):
            assert Counter(p.passed for p in drawn if p.task_id == task) == {True: each, False: each}
        single = [p.task_id for p in drawn if p.task_id.startswith("hard")]
        assert len(single) <= SINGLE_CLASS_SHARE * len(drawn)
        assert len(set(single)) == len(single)
    assert examples.epoch(1) == examples.epoch(1)
    seen = {programs[i].text for epoch in range(20) for i in examples.epoch(epoch) if programs[i].task_id == "mixed"}
    assert seen == {f"p{i}" for i in range(7)}  # over the epochs, every failing program has its turn


def test_without_a_mixed_problem_the_balance_falls_back_to_all_programs(caplog: pytest.LogCaptureFixture) -> None:
    examples = CriticExamples(encoded([judged("a", 0, "passed_test"), judged("b", 0, "failed_test")]), 4, "within_problem", 0, seed=0)
    assert examples.epoch(0) == [0, 1]
    assert "nothing to balance" in caplog.text


def test_class_weights_are_inverse_square_roots_with_mean_one() -> None:
    programs = [judged("a", i, "failed_test" if i < 16 else "passed_test") for i in range(20)]
    examples = CriticExamples(encoded(programs), 4, "class_weights", 0, seed=0)
    weights = examples.weights
    assert weights[0] == weights[1] == 0.0
    assert weights[3] / weights[2] == pytest.approx(math.sqrt(16 / 4))
    assert (16 * weights[2] + 4 * weights[3]) / 20 == pytest.approx(1.0)
    assert CriticExamples(encoded(programs), 4, "none", 0, seed=0).weights == [1.0] * 4
    batch = examples.collate([0, 19])
    assert batch["normaliser"].item() == pytest.approx(weights[2] + weights[3])
    assert batch["labels"].tolist() == [2, 3]


def test_loss_is_the_weighted_mean_and_micro_batches_sum_to_the_step() -> None:
    torch.manual_seed(0)
    critic = OutcomeCritic(tiny_t5(), CriticSettings.from_config(config(), 4)).eval()
    programs = [judged("a", i, OUTCOMES[i % 4] if i else "failed_test") for i in range(5)]
    rows = [
        CriticExample([1, 7 + i, 2], [1, 9, 9 + i, 2][: 3 + i % 2], outcome_label(p.outcome.outcome, 4), p) for i, p in enumerate(programs)
    ]
    batch = CriticExamples(rows, 4, "class_weights", 0, seed=0).collate(list(range(5)))
    whole, metrics = critic_objective(critic, batch)
    logits = critic(batch["prompt_ids"], batch["prompt_mask"], batch["program_ids"]).logits
    picked = -logits.log_softmax(-1)[torch.arange(5), batch["labels"]]
    assert whole.item() == pytest.approx(((picked * batch["weights"]).sum() / batch["weights"].sum()).item(), rel=1e-5)
    parts = [{k: v if k.startswith("normaliser") else v[part::2] for k, v in batch.items()} for part in range(2)]
    assert sum(critic_objective(critic, part)[0].item() for part in parts) == pytest.approx(whole.item(), rel=1e-5)
    assert metrics["accuracy"].item() == pytest.approx((logits.argmax(-1) == batch["labels"]).float().mean().item())


def test_pairs_are_a_failing_and_a_passing_program_of_one_problem() -> None:
    programs = within_problem_programs()
    paired = PairedExamples(encoded(programs), 4, "within_problem", 0, seed=3)
    single = CriticExamples(encoded(programs), 4, "within_problem", 0, seed=3)
    for epoch in range(5):
        items = paired.epoch(epoch)
        for item in items:
            drawn = [programs[i] for i in item]
            assert len({p.task_id for p in drawn}) == 1
            assert [p.passed for p in drawn] == ([False, True] if len(item) == 2 else [drawn[0].passed])
        assert sum(map(len, items)) == len(single.epoch(epoch))
        assert sum(len(item) == 2 for item in items) == 3
    assert paired.lengths(paired.epoch(0)[0]) == (4, 4)
    long = CriticExample([1, 2, 3], [1, 5, 6, 7, 2], 3, programs[1])
    assert PairedExamples([encoded(programs)[0], long], 4, "none", 0, seed=3).lengths((0, 1)) == (6, 10), (
        "both are padded to the longer one"
    )
    assert PairedExamples(encoded([judged("a", 0, "passed_test")]), 4, "within_problem", 0, seed=3).epoch(0) == [(0,)]


def test_paired_loss_is_the_closed_form_however_it_is_split() -> None:
    torch.manual_seed(0)
    critic = OutcomeCritic(tiny_t5(), CriticSettings.from_config(config(), 4)).eval()
    programs = [judged("a", i, "passed_test" if i % 2 else OUTCOMES[i % 3]) for i in range(5)]
    rows = [
        CriticExample([1, 7 + i, 2], [1, 9, 9 + i, 2][: 3 + i % 2], outcome_label(p.outcome.outcome, 4), p) for i, p in enumerate(programs)
    ]
    batch = PairedExamples(rows, 4, "within_problem", 0, seed=0).collate([(0, 1), (2, 3), (4,)])
    whole, metrics = paired_objective(0.7)(critic, batch)
    pairs = collate_pairs([row.prompt for row in rows], [row.program for row in rows], 0)
    logits = critic(**pairs).logits
    labels = torch.tensor([row.label for row in rows])
    ce = torch.nn.functional.cross_entropy(logits, labels)
    odds = logits[:, 3] - logits[:, :3].logsumexp(-1)
    ranking = -torch.nn.functional.logsigmoid(odds[[1, 3]] - odds[[0, 2]]).mean()
    assert whole.item() == pytest.approx((ce + 0.7 * ranking).item(), rel=1e-5)
    assert metrics["ranked_right"].item() == pytest.approx((odds[[1, 3]] > odds[[0, 2]]).float().mean().item())
    assert metrics["accuracy"].item() == pytest.approx((logits.argmax(-1) == labels).float().mean().item())
    parts = [{k: v if k.startswith("normaliser") else v[part::2] for k, v in batch.items()} for part in range(2)]
    assert sum(paired_objective(0.7)(critic, part)[0].item() for part in parts) == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize("paired", [True, False])
def test_generation_loss_is_the_cross_entropy_of_passing_programs_however_it_is_split(paired: bool) -> None:
    torch.manual_seed(0)
    critic = OutcomeCritic(tiny_t5(), CriticSettings.from_config(config(likelihood=True), 4)).eval()
    programs = [judged("a", i, "passed_test" if i % 2 else OUTCOMES[i % 3]) for i in range(5)]
    rows = [
        CriticExample([1, 7 + i, 2], [1, 9, 9 + i, 2][: 3 + i % 2], outcome_label(p.outcome.outcome, 4), p) for i, p in enumerate(programs)
    ]
    if paired:
        batch = PairedExamples(rows, 4, "within_problem", 0, seed=0).collate([(0, 1), (2, 3), (4,)])
        without, with_it = paired_objective(0.7), paired_objective(0.7, 3.0)
    else:
        batch = CriticExamples(rows, 4, "none", 0, seed=0).collate(list(range(5)))
        without, with_it = critic_objective, partial(critic_objective, generation_weight=3.0)
    passing = collate_pairs([rows[i].prompt for i in (1, 3)], [rows[i].program for i in (1, 3)], 0)
    expected = program_cross_entropy(critic.backbone, {**passing, "normaliser": torch.tensor(sum(len(rows[i].program) for i in (1, 3)))})[0]
    whole, metrics = with_it(critic, batch)
    assert metrics["loss_generation"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert whole.item() == pytest.approx(without(critic, batch)[0].item() + 3.0 * expected.item(), rel=1e-5)
    parts = [{k: v if k.startswith("normaliser") else v[part::2] for k, v in batch.items()} for part in range(2)]
    assert sum(with_it(critic, part)[0].item() for part in parts) == pytest.approx(whole.item(), rel=1e-5)


def test_a_step_without_a_passing_program_has_no_generation_loss() -> None:
    torch.manual_seed(0)
    critic = OutcomeCritic(tiny_t5(), CriticSettings.from_config(config(likelihood=True), 2)).eval()
    batch = CriticExamples(encoded([judged("a", 0, "failed_test")], 2), 2, "none", 0, seed=0).collate([0])
    assert critic_objective(critic, batch, 1.0)[1]["loss_generation"].item() == 0.0


def test_foreign_programs_pass_a_problem_of_a_similar_statement_and_fail_here() -> None:
    programs = [
        judged("a", 0, "passed_test", "one"),
        judged("a", 1, "failed_test", "wrong"),
        judged("b", 0, "passed_test", "one"),  # passes here too: no foreign program
        judged("b", 1, "passed_test", "two"),
        judged("c", 0, "failed_test", "bad"),
        judged("f", 0, "passed_test", "def"),
    ]
    questions = {"a": "sort the list", "b": "sort the list twice", "c": "sum it", "f": "sort the list"}
    kinds = {"a": False, "b": False, "c": False, "f": True}
    found = foreign_programs(programs, questions, kinds, 5, seed=1)
    assert [(p.task_id, p.text, p.outcome.outcome, p.passed) for p in found if p.task_id == "a"] == [("a", "two", "failed_test", False)]
    assert {p.text for p in found if p.task_id == "c"} == {"one", "two"}
    assert not [p for p in found if p.task_id == "f"], "it alone asks for a function"
    assert {(p.outcome.task_id, p.sample) for p in found if p.task_id == "c"} == {("c", None)}
    assert len([p for p in foreign_programs(programs, questions, kinds, 1, seed=1) if p.task_id == "c"]) == 1


def test_options_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="needs balance: within_problem"):
        config(pairwise_weight=1.0, balance="none")
    with pytest.raises(ValueError, match="alignment: code"):
        config(likelihood=True, alignment="code")
    with pytest.raises(ValueError, match="needs likelihood: true"):
        config(generation_weight=1.0)


def test_equal_texts_of_a_problem_count_once() -> None:
    rows = [judged("a", 0, "failed_test", "x"), judged("a", 1, "failed_test", "x"), judged("b", 0, "failed_test", "x")]
    assert [(p.task_id, p.outcome.sample_id) for p in distinct_programs(rows)] == [("a", 0), ("b", 0)]


def write_toy(folder: Path, rows: dict[str, list[tuple[str, str]]], solutions: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """Files of a toy problem set: rows = task_id -> [(program, outcome)]; every solution passes. Returns stage arguments."""
    solutions = solutions or {}
    table = [problem(task, solutions.get(task)) for task in rows]
    write_problems(folder / "problems.parquet", table)
    samples = [
        Sample(task, i, text, log_likelihood=-float(i), n_tokens=3)
        for task, programs in rows.items()
        for i, (text, _) in enumerate(programs)
    ]
    outcomes = [outcome_row(task, i, outcome) for task, programs in rows.items() for i, (_, outcome) in enumerate(programs)]
    for shard in range(2):
        write_samples(folder / f"samples{shard}.jsonl.gz", samples[shard::2])
        write_outcomes(folder / f"outcomes{shard}.jsonl.gz", outcomes[shard::2])
    write_outcomes(
        folder / "reference.jsonl.gz", [outcome_row(t, i, "passed_test") for t, texts in solutions.items() for i in range(len(texts))]
    )
    return {
        "problems": folder / "problems.parquet",
        "samples": [folder / f"samples{shard}.jsonl.gz" for shard in range(2)],
        "outcomes": [folder / f"outcomes{shard}.jsonl.gz" for shard in range(2)],
        "reference_outcomes": [folder / "reference.jsonl.gz"],
    }


def test_programs_are_joined_in_one_order_whatever_the_shards(tmp_path: Path) -> None:
    files = write_toy(tmp_path, {"b": [("x", "failed_test"), ("y", "passed_test"), ("z", "runtime_error")], "a": [("w", "compile_error")]})
    table = read_problems(files["problems"])
    for paths in (files["samples"], files["samples"][::-1]):
        programs = judged_samples(table, paths, files["outcomes"])
        assert [(p.task_id, p.text, p.outcome.outcome) for p in programs] == [
            ("b", "x", "failed_test"),
            ("b", "y", "passed_test"),
            ("b", "z", "runtime_error"),
            ("a", "w", "compile_error"),
        ]


def test_rows_that_do_not_fit_together_are_errors(tmp_path: Path) -> None:
    files = write_toy(tmp_path, {"a": [("x", "failed_test"), ("y", "passed_test")]}, {"a": ["r"]})
    table = read_problems(files["problems"])
    with pytest.raises(DataError, match=r"no outcome for 'a', sample 1.*run-tests"):
        judged_samples(table, files["samples"], files["outcomes"][:1])
    with pytest.raises(DataError, match="not among the problems"):
        judged_samples([problem("other")], files["samples"], files["outcomes"])
    write_outcomes(tmp_path / "example.jsonl", [outcome_row("a", 0, "failed_test", "example")])
    with pytest.raises(DataError, match="of the example tests"):
        judged_samples(table, files["samples"], [tmp_path / "example.jsonl"])
    with pytest.raises(DataError, match="no outcome for reference solution 1"):
        judged_references([problem("a", ["r", "s"])], files["reference_outcomes"])
    with pytest.raises(DataError, match="no reference solution"):
        judged_references([problem("a", [])], files["reference_outcomes"])
    untested = problem("a", ["r", "s"], tests=None)  # cannot be judged: left out, no error
    assert [p.text for p in judged_references([untested], files["reference_outcomes"])] == ["r"]


# ------------------------------------------------------------------------------------------- scoring


def test_values_do_not_depend_on_batching_and_are_in_the_order_given() -> None:
    torch.manual_seed(0)
    critic = OutcomeCritic(tiny_t5(), CriticSettings.from_config(config(), 4)).train()
    rng = random.Random(0)
    prompts = [[1, *(rng.randrange(5, 200) for _ in range(rng.randrange(1, 9))), 2] for _ in range(12)]
    programs = [[1, *(rng.randrange(5, 200) for _ in range(rng.randrange(1, 9))), 2] for _ in range(12)]
    together = score_programs(critic, tiny_tokenizer(), prompts, programs)
    assert critic.training
    for i, small in enumerate(score_programs(critic, tiny_tokenizer(), prompts, programs, batch_tokens=1)):
        assert small.probabilities.shape == (len(programs[i]), 4)
        assert small.probabilities.dtype == np.float32
        np.testing.assert_allclose(small.probabilities, together[i].probabilities, atol=1e-5)
        np.testing.assert_allclose(small.prefix_probabilities, together[i].prefix_probabilities, atol=1e-5)
        np.testing.assert_allclose(small.prefix_probabilities[-1], small.pooled, atol=1e-5)
        expected = critic.eval()(**collate_pairs([prompts[i]], [programs[i]], 0)).token_logits[0].softmax(-1)
        np.testing.assert_allclose(small.probabilities, expected.detach().numpy(), atol=1e-5)
    assert score_programs(critic, tiny_tokenizer(), [], []) == []


def test_score_writes_the_tokens_of_every_sample_as_float16(tmp_path: Path) -> None:
    files = write_toy(tmp_path, {f"t{k}": [(f"p{i}" * (i + 1), "failed_test") for i in range(3)] for k in range(2)})
    critic = OutcomeCritic(tiny_t5(), CriticSettings.from_config(config(), 4)).eval()
    critic.save(tmp_path / "critic")
    tiny_tokenizer().save_pretrained(tmp_path / "critic")
    arguments = {"config": ScoreConfig(), "critic": tmp_path / "critic", "problems": files["problems"]}
    score(**arguments, samples=files["samples"], output=tmp_path / "values.parquet")
    table = pq.read_table(tmp_path / "values.parquet")
    assert table.column_names == ["task_id", "sample_id", "n_classes", "probabilities", "pooled"]
    assert str(table.schema.field("probabilities").type.value_type) == "halffloat"
    assert [len(row) for row in table["pooled"].to_pylist()] == [4] * 6
    values = read_values(tmp_path / "values.parquet")
    problems, samples = read_problems(files["problems"]), read_samples(files["samples"])
    memory = score_samples(critic, tiny_tokenizer(), problems, samples)
    assert len(values) == 6
    for sample in samples:
        key = (sample.task_id, sample.sample_id)
        prompt = encode_prompt(tiny_tokenizer(), problems[int(sample.task_id[1])], 48, "canonical")
        program = encode_program(tiny_tokenizer(), sample.solution, 24)
        expected = score_programs(critic, tiny_tokenizer(), [prompt], [program])[0].probabilities
        assert values[key].shape == (len(program), 4)
        np.testing.assert_allclose(values[key], expected, atol=1e-3)
        np.testing.assert_allclose(memory[key], expected, atol=1e-5)
    before = (tmp_path / "values.parquet").read_bytes()
    score(**arguments, samples=files["samples"][::-1], output=tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == before


def test_score_and_read_values_name_bad_input(tmp_path: Path) -> None:
    files = write_toy(tmp_path, {"a": [("x", "failed_test")]})
    with pytest.raises(DataError, match="no such model folder"):
        score(
            config=ScoreConfig(),
            critic=tmp_path / "none",
            problems=files["problems"],
            samples=files["samples"],
            output=tmp_path / "v.parquet",
        )
    critic = OutcomeCritic(tiny_t5(), CriticSettings.from_config(config(), 4)).eval()
    critic.save(tmp_path / "critic")
    tiny_tokenizer().save_pretrained(tmp_path / "critic")
    write_problems(tmp_path / "other.parquet", [problem("b")])
    with pytest.raises(DataError, match="'a', which is not among"):
        score(
            config=ScoreConfig(),
            critic=tmp_path / "critic",
            problems=tmp_path / "other.parquet",
            samples=files["samples"],
            output=tmp_path / "v.parquet",
        )
    assert not list(tmp_path.glob("*v.parquet*"))
    with pytest.raises(DataError, match="coderl score"):
        read_values(tmp_path / "v.parquet")
    with pytest.raises(DataError, match="no column 'sample_id'"):
        read_values(files["problems"])
    columns = {"task_id": ["a"] * 4000, "sample_id": range(4000), "n_classes": [2] * 4000, "probabilities": [[0.5, 0.5]] * 4000}
    pq.write_table(pa.table({**columns, "pooled": columns["probabilities"]}), tmp_path / "d.parquet", compression="zstd")
    whole = (tmp_path / "d.parquet").read_bytes()
    (tmp_path / "d.parquet").write_bytes(whole[:50] + bytes(b ^ 255 for b in whole[50:6000]) + whole[6000:])
    with pytest.raises(DataError, match=r"d\.parquet: damaged .*run `coderl score` again"):
        read_values(tmp_path / "d.parquet")


# ------------------------------------------------------------------------------------------- the stage


def separable_rows(count: int) -> dict[str, list[tuple[str, str]]]:
    """Programs that pass hold the letter y, programs that fail the letter n; the problem says nothing."""
    rng = random.Random(0)
    rows = {}
    for k in range(count):
        programs = []
        for i in range(4):
            letters = [rng.choice("abcd") for _ in range(4)]
            letters[rng.randrange(4)] = "y" if i % 2 else "n"
            programs.append(("".join(letters) + str(i), "passed_test" if i % 2 else "failed_test"))
        rows[f"t{k}"] = programs
    return rows


@pytest.mark.parametrize("classes", [4, 2])
def test_a_tiny_critic_learns_a_separable_set_and_generalises_to_held_out_problems(classes: int, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "actor", tiny_t5())
    files = write_toy(tmp_path, separable_rows(12), {"t0": ["yyyy"]})
    train_critic(
        config=config(steps=80, validation_share=0.25),
        classes=classes,
        **files,
        base_model=str(base),
        seed=1,
        output=tmp_path / "critic",
        work=tmp_path / "work",
    )
    metrics = json.loads((tmp_path / "critic" / "metrics.json").read_text())
    assert metrics["auc_within_problem"] == 1.0
    assert metrics["accuracy"] > 0.9
    assert metrics["auc_within_problem_n_problems"] == 3
    assert metrics["auc_within_problem_log_likelihood"] == 0.25  # 0, -1, -2, -3 with the odd ones passing
    assert all(value is None or isinstance(value, int | float) for value in metrics.values())
    log = read_log(tmp_path / "critic")
    assert log[-1]["loss"] < 0.3 < log[0]["loss"]
    assert 0 <= log[-1]["accuracy"] <= 1
    assert not (tmp_path / "work").exists()
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "critic")
    assert OutcomeCritic.load(tmp_path / "critic").settings.classes == classes


def test_the_same_seed_gives_the_same_bytes_also_from_other_shards(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "actor", tiny_t5())
    files = write_toy(tmp_path, separable_rows(4))
    found = []
    for k, change in enumerate(({}, {"samples": files["samples"][::-1]})):
        output = tmp_path / f"critic{k}"
        train_critic(
            config=config(steps=3), classes=4, **(files | change), base_model=str(base), seed=1, output=output, work=tmp_path / f"work{k}"
        )
        found.append([(output / name).read_bytes() for name in ("model.safetensors", "critic_head.safetensors", "metrics.json")])
    assert found[0] == found[1]


def test_a_killed_training_resumes_and_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The critic is no PreTrainedModel, so that its checkpoints take a path of their own through the Trainer."""
    import coderl.critic as module

    files = write_toy(tmp_path, separable_rows(6))
    base = save_tiny(tmp_path / "actor", tiny_t5())
    training = TrainingConfig(steps=6, batch_size=4, learning_rate=1e-2, checkpoint_every=2, log_every=1)
    settings_ = config().model_copy(update={"training": training})
    arguments = {"config": settings_, "classes": 4, **files, "base_model": str(base), "seed": 1}
    train_critic(**arguments, output=tmp_path / "whole", work=tmp_path / "work_whole")
    calls = 0

    def killed(model: Any, batch: Any, generation_weight: float) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return critic_objective(model, batch, generation_weight)

    monkeypatch.setattr(module, "critic_objective", killed)
    with pytest.raises(KeyboardInterrupt):
        train_critic(**arguments, output=tmp_path / "resumed", work=tmp_path / "work")
    assert not (tmp_path / "resumed").exists()
    train_critic(**arguments, output=tmp_path / "resumed", work=tmp_path / "work")
    assert calls == 6 + 2  # steps 5 and 6 after the checkpoint of step 4
    for name in ("model.safetensors", "critic_head.safetensors", "metrics.json", "training_log.csv"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_training_never_sees_a_held_out_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import coderl.critic as module

    seen: dict[str, set[str]] = {}

    def spy_train(model: Any, examples: CriticExamples, *_: Any, **__: Any) -> list[dict[str, float]]:
        seen["training"] = {example.judged.task_id for example in examples.examples}
        return []

    def spy_evaluate(critic: Any, tokenizer: Any, examples: list[CriticExample], seed: int) -> dict[str, float]:
        seen["held out"] = {example.judged.task_id for example in examples}
        return {}

    monkeypatch.setattr(module, "train", spy_train)
    monkeypatch.setattr(module, "evaluate_critic", spy_evaluate)
    files = write_toy(tmp_path, separable_rows(10), {"t1": ["yyyy"], "t2": ["yyyy"]})
    base = save_tiny(tmp_path / "actor", tiny_t5())
    splits = []
    for classes in (4, 2):
        train_critic(
            config=config(validation_share=0.3),
            classes=classes,
            **files,
            base_model=str(base),
            seed=1,
            output=tmp_path / "c",
            work=tmp_path / "w",
        )
        assert len(seen["held out"]) == 3
        assert not seen["training"] & seen["held out"]
        assert len(seen["training"] | seen["held out"]) == 10
        splits.append(seen["held out"])
    assert splits[0] == splits[1]


def test_a_failing_reference_is_no_passed_test_example_and_texts_are_distinct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import coderl.critic as module

    labels: dict[str, int] = {}
    texts: list[tuple[str, str]] = []

    def spy(model: Any, examples: CriticExamples, *_: Any, **__: Any) -> list[dict[str, float]]:
        texts.extend((e.judged.task_id, e.judged.text) for e in examples.examples)
        labels.update({e.judged.text: e.label for e in examples.examples if e.judged.sample is None})
        return []

    monkeypatch.setattr(module, "train", spy)
    monkeypatch.setattr(module, "held_out_tasks", lambda tasks, share, seed: {"t9"})
    rows = separable_rows(10)
    rows["t0"].append(rows["t0"][0])  # a sample that is there twice
    files = write_toy(tmp_path, rows, {"t1": ["good", "bad"]})
    write_outcomes(files["reference_outcomes"][0], [outcome_row("t1", 0, "passed_test"), outcome_row("t1", 1, "runtime_error")])
    base = save_tiny(tmp_path / "actor", tiny_t5())
    arguments = {"classes": 4, "base_model": str(base), "seed": 1, "output": tmp_path / "c", "work": tmp_path / "w"}
    train_critic(config=config(), **files, **arguments)
    assert labels == {"good": 3, "bad": 1}
    assert len(texts) == len(set(texts)) == 9 * 4 + 2
    labels.clear()
    train_critic(config=config(include_references=False), **files, **arguments)
    assert labels == {}


def test_a_missing_base_model_leaves_nothing_behind(tmp_path: Path) -> None:
    files = write_toy(tmp_path, separable_rows(3))
    with pytest.raises(DataError, match="no such model folder"):
        train_critic(
            config=config(),
            classes=4,
            **files,
            base_model=str(tmp_path / "none"),
            seed=1,
            output=tmp_path / "critic",
            work=tmp_path / "work",
        )
    assert not list(tmp_path.glob("*critic*"))
