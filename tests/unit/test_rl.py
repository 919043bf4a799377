"""RL fine-tuning: what carries a gradient, how a step is put together, and that it moves the policy the right way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import save_tiny, tiny_t5

from coderl.config import PolicyVariant, RlFinetuneConfig, TrainingConfig
from coderl.models import program_logits
from coderl.objectives import cross_entropy_sum, token_log_probabilities
from coderl.problems import Problem, write_problems
from coderl.records import DataError, OutcomeRow, Sample, write_outcomes, write_samples
from coderl.rl import (
    Experience,
    PolicyExamples,
    correct_programs,
    fine_weights,
    make_experience,
    policy_objective,
    rl_finetune,
    statistics,
    with_old_probabilities,
)
from coderl.training import train

REWARDS = {"compile_error": -1.0, "runtime_error": -0.6, "failed_test": -0.3, "passed_test": 1.0}


def variant(**changes: Any) -> PolicyVariant:
    training = TrainingConfig(steps=30, batch_size=4, learning_rate=1e-2, log_every=10)
    return PolicyVariant(**({"training": training, "values": "none"} | changes))


def outcome(task: str, number: int, name: str) -> OutcomeRow:
    return OutcomeRow(task, number, "hidden", name, 0, 1, None, None, None, None, 0.0, 0.0, "strict", "namespace")  # type: ignore[arg-type]


def group(task: str, outcomes: list[str], greedy: str | None) -> tuple[list[Sample], dict[tuple[str, int], OutcomeRow]]:
    samples = [Sample(task, i, f"program {i}") for i in range(len(outcomes))]
    rows = {(task, i): outcome(task, i, name) for i, name in enumerate(outcomes)}
    if greedy is not None:
        samples.append(Sample(task, len(outcomes), "greedy", kind="greedy"))
        rows[task, len(outcomes)] = outcome(task, len(outcomes), greedy)
    return samples, rows


def encode(sample: Sample) -> tuple[list[int], list[int]]:
    return [1, 5, 2], [1, 6 + sample.sample_id, 2]


def test_only_programs_unlike_the_greedy_one_carry_a_gradient() -> None:
    samples, rows = group("a", ["passed_test", "failed_test", "compile_error"], "failed_test")
    found = make_experience(variant(), REWARDS, samples, rows, {}, encode)
    assert [(e.program[1], e.returns) for e in found] == [(6, 1.3), (8, pytest.approx(-0.7))]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_as_published_programs_like_the_greedy_one_stay_in_the_denominator(reduction: str) -> None:
    samples, rows = group("a", ["passed_test", "failed_test", "failed_test"], "failed_test")
    found = make_experience(variant(token_reduction=reduction), REWARDS, samples, rows, {}, encode)
    assert [e.returns for e in found] == [1.3, 0.0, 0.0]


def test_statistics_are_of_all_samples() -> None:
    samples, rows = group("a", ["passed_test", "failed_test", "failed_test", "compile_error"], "failed_test")
    assert statistics(REWARDS, samples, rows) == {
        "mean_return": pytest.approx((1 - 0.3 - 0.3 - 1) / 4),
        "share_compile_error": 0.25,
        "share_runtime_error": 0.0,
        "share_failed_test": 0.5,
        "share_passed_test": 0.25,
    }
    assert statistics(REWARDS, samples, {}) == {}


def test_greedy_returns_need_a_greedy_program() -> None:
    samples, rows = group("a", ["passed_test"], None)
    with pytest.raises(DataError, match="no greedy program"):
        make_experience(variant(), REWARDS, samples, rows, {}, encode)
    assert make_experience(variant(returns="absolute"), REWARDS, samples, rows, {}, encode)[0].returns == 1.0


def test_values_are_the_probability_of_the_true_outcome() -> None:
    samples, rows = group("a", ["runtime_error"], "passed_test")
    table = np.arange(12, dtype=np.float32).reshape(3, 4) / 12
    found = make_experience(variant(values="critic"), REWARDS, samples, rows, {("a", 0): table}, encode)
    assert found[0].values == pytest.approx(table[:, 1].tolist())
    with pytest.raises(DataError, match="no values of 'a', sample 0"):
        make_experience(variant(values="critic"), REWARDS, samples, rows, {}, encode)
    with pytest.raises(DataError, match="2 tokens, but the program has 3"):
        make_experience(variant(values="critic"), REWARDS, samples, rows, {("a", 0): table[:2]}, encode)


def test_samples_as_if_correct() -> None:
    samples, rows = group("a", ["runtime_error", "failed_test"], "failed_test")
    found = make_experience(variant(losses="ce_on_samples"), REWARDS, samples, rows, {}, encode)
    assert [e.returns for e in found] == [1.0, 1.0]


def test_correct_programs_are_references_or_own_passing_samples() -> None:
    def problem(task: str, solutions: list[str]) -> Problem:
        return Problem(task, "b", "train", "introductory", "q", "", None, solutions, None, None)

    samples, rows = group("a", ["passed_test", "failed_test", "passed_test"], None)
    more, more_rows = group("b", ["passed_test"], None)
    problems = [problem("a", []), problem("b", ["reference"])]
    found = correct_programs(problems, samples + more, rows | more_rows, True)
    assert found == {"a": ["program 0", "program 2"], "b": ["reference"]}
    assert correct_programs(problems, samples + more, rows | more_rows, False) == {"b": ["reference"]}


def examples(chosen: PolicyVariant) -> PolicyExamples:
    experience = [
        Experience([1, 5, 2], [1, 6, 7, 2], 1.3, [0.5, 0.6, 0.7, 0.8]),
        Experience([1, 5, 9, 2], [1, 8, 2], -1.3, [0.2, 0.3, 0.4]),
    ]
    return PolicyExamples(chosen, experience, [([1, 5, 2], [[1, 10, 11, 12, 2], [1, 10, 2]])], 0, 1)


def test_half_of_the_items_are_of_each_kind() -> None:
    items = examples(variant()).epoch(0)
    assert sum(i < 0 for i, _ in items) == sum(i >= 0 for i, _ in items) == 2
    assert all(i < 0 for i, _ in examples(variant(losses="rl")).epoch(0))
    assert all(i >= 0 for i, _ in examples(variant(losses="ce")).epoch(0))


@pytest.mark.parametrize("reduction", ["sum", "mean", "program_mean"])
def test_step_is_the_closed_form_however_it_is_split(reduction: str) -> None:
    chosen = variant(token_reduction=reduction, negative_returns="unbounded", rl_weight=0.7)
    source, model = examples(chosen), tiny_t5()
    batch = source.collate([(-1, 0), (-1, 1), (0, 0)])
    loss, metrics = policy_objective(chosen)(model, batch)
    logits = program_logits(model, batch["prompt_ids"], batch["prompt_mask"], batch["program_ids"])
    log_p = token_log_probabilities(logits, batch["program_ids"])
    weights = [1.3 * torch.tensor([0.5, 0.6, 0.7, 0.8]), -1.3 * torch.tensor([0.2, 0.3, 0.4])]
    terms = [-(weight * log_p[row, : len(weight)]) for row, weight in enumerate(weights)]
    rl = {
        "sum": sum(t.sum() for t in terms) / 2,
        "mean": sum(t.sum() for t in terms) / 7,
        "program_mean": sum(t.mean() for t in terms) / 2,
    }[reduction]
    ce = -log_p[2].sum() / 5
    assert loss.item() == pytest.approx((ce + 0.7 * rl).item(), rel=1e-5)
    assert metrics["mean_relative_return"].item() == pytest.approx(0.0)
    assert metrics["mean_value"].item() == pytest.approx((2.6 + 0.9) / 7)
    parts = [{k: v if k.startswith("normaliser") else v[i : i + 1] for k, v in batch.items()} for i in range(3)]
    assert sum(policy_objective(chosen)(model, part)[0].item() for part in parts) == pytest.approx(loss.item(), rel=1e-5)


def test_training_raises_what_passed_and_lowers_what_failed(tmp_path: Any) -> None:
    chosen = variant(losses="rl")
    source, model = examples(chosen), tiny_t5()
    batch = source.collate([(-1, 0), (-1, 1)])

    def log_p() -> list[float]:
        with torch.no_grad():
            logits = program_logits(model, batch["prompt_ids"], batch["prompt_mask"], batch["program_ids"])
        return [-cross_entropy_sum(logits[i : i + 1], batch["program_ids"][i : i + 1]).item() for i in range(2)]

    before = log_p()
    log = train(model, source, policy_objective(chosen), chosen.training, settings="", seed=1, work=tmp_path)
    after = log_p()
    assert after[0] > before[0]
    assert after[0] - after[1] > before[0] - before[1]
    assert {"loss_rl", "loss_ce", "mean_relative_return", "mean_value", "grad_norm"} <= set(log[-1])


def failing(name: str, line: int | None = None, message: str | None = None) -> OutcomeRow:
    return OutcomeRow("a", 0, "hidden", "runtime_error", 0, 1, 0, name, message, line, 0.0, 0.0, "strict", "namespace")


def test_fine_grained_feedback_is_on_the_line_of_the_error() -> None:
    """Spec 10.2: T / (E - S) on the line, everything for errors of no line, nothing for ignored ones."""
    assert fine_weights(failing("nameerror", 2), 8, (3, 5)) == [0, 0, 0, 4.0, 4.0, 0, 0, 0]
    assert fine_weights(failing("timeoutexception"), 3, None) == [1.0] * 3
    assert fine_weights(failing("syntaxerror", 1, "'(' was never closed"), 2, (0, 1)) == [1.0, 1.0]
    assert fine_weights(failing("indentationerror", 1), 3, (0, 1)) == []
    assert fine_weights(failing("syntaxerror", 1, "unterminated triple-quoted string literal"), 3, (0, 1)) == []
    assert fine_weights(failing("nameerror"), 3, None) == []
    assert fine_weights(outcome("a", 0, "failed_test"), 3, None) == []


def test_fine_grained_feedback_keeps_programs_without_a_relative_return_and_adds_its_loss() -> None:
    samples = [Sample("a", 0, "x"), Sample("a", 1, "y", kind="greedy")]
    rows = {("a", 0): failing("nameerror", 2), ("a", 1): outcome("a", 1, "runtime_error")}
    chosen = variant(fine_weight=0.5, losses="rl", negative_returns="unbounded")
    (found,) = make_experience(chosen, REWARDS, samples, rows, {}, encode, lambda sample, line: (1, 2))
    assert (found.returns, found.fine) == (0.0, [0.0, 3.0, 0.0])
    assert make_experience(variant(losses="rl"), REWARDS, samples, rows, {}, encode) == []
    source, model = PolicyExamples(chosen, [found], [], 0, 1), tiny_t5()
    batch = source.collate([(-1, 0)])
    loss, metrics = policy_objective(chosen)(model, batch)
    log_p = token_log_probabilities(
        program_logits(model, batch["prompt_ids"], batch["prompt_mask"], batch["program_ids"]), batch["program_ids"]
    )
    assert loss.item() == pytest.approx(0.5 * (0.3 * 3.0 * log_p[0, 1] / 3).item(), rel=1e-5)
    assert metrics["loss_fine"].item() == pytest.approx(2 * loss.item(), rel=1e-5)


def test_adaptive_feedback_is_between_failed_and_passed() -> None:
    samples = [Sample("a", i, "x") for i in range(2)]
    rows = {("a", i): OutcomeRow("a", i, "hidden", name, passed, 4, None, None, None, None, 0.0, 0.0, "strict", "n") for i, name, passed in
            ((0, "failed_test", 1), (1, "passed_test", 4))}  # fmt: skip
    found = make_experience(variant(returns="absolute", failed_return="share_of_tests"), REWARDS, samples, rows, {}, encode)
    assert [e.returns for e in found] == [pytest.approx(-0.3 + 1.3 / 4), 1.0]


def test_old_probabilities_are_those_of_the_model_and_give_ratio_one_and_no_kl() -> None:
    chosen = variant(losses="rl", clip=0.2, kl_weight=0.1, negative_returns="unbounded")
    plain = variant(losses="rl", negative_returns="unbounded")
    model = tiny_t5()
    known = with_old_probabilities(model, examples(chosen).experience, 0, batch_tokens=1)
    assert [len(e.old) for e in known] == [4, 3]
    batch = PolicyExamples(chosen, known, [], 0, 1).collate([(-1, 0), (-1, 1)])
    loss, metrics = policy_objective(chosen)(model, batch)
    assert metrics["kl"].item() == pytest.approx(0.0, abs=1e-6)
    whole = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    loss, _ = policy_objective(plain)(model, {key: value for key, value in batch.items() if key != "old"})
    torch.testing.assert_close(whole, torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))


def test_as_published_is_one_word_and_what_is_given_beside_it_wins() -> None:
    training = TrainingConfig(steps=1, batch_size=1)
    published = PolicyVariant(recipe="published", training=training)
    assert (published.returns, published.values, published.token_reduction) == ("greedy_relative", "critic", "mean")
    assert (published.negative_returns, published.ce_on_passing_samples, published.rounds) == ("unbounded", False, 1)
    assert PolicyVariant(recipe="published", values="none", training=training).values == "none"
    with pytest.raises(ValueError, match="negative_returns: unbounded"):
        PolicyVariant(clip=0.2, training=training)


def stage_arguments(folder: Path) -> dict[str, Any]:
    """Files of a problem with one reference and two samples of one outcome, no greedy program, no values."""
    samples, rows = group("a", ["failed_test", "failed_test"], greedy=None)
    write_problems(folder / "p.jsonl", [Problem("a", "custom", "train", "introductory", "q", "", None, ["aa"], None, None)])
    write_samples(folder / "s.jsonl", samples)
    write_outcomes(folder / "o.jsonl", rows.values())
    files = {"problems": folder / "p.jsonl", "samples": [folder / "s.jsonl"], "outcomes": [folder / "o.jsonl"], "values": None}
    return {**files, "actor": save_tiny(folder / "actor", tiny_t5()), "seed": 1, "output": folder / "policy", "work": folder / "work"}


def stage_config(**changes: Any) -> RlFinetuneConfig:
    training = {"steps": 1, "batch_size": 1, "learning_rate": 1e-2}
    lengths = {"max_source_tokens": 128, "max_target_tokens": 16}
    return RlFinetuneConfig(lengths=lengths, variants={"mine": {"training": training, **changes}})  # type: ignore[arg-type]


def test_cross_entropy_alone_needs_neither_greedy_programs_nor_values(tmp_path: Path) -> None:
    rl_finetune(config=stage_config(losses="ce"), variant="mine", **stage_arguments(tmp_path))
    assert (tmp_path / "policy" / "model.safetensors").exists()


def test_no_program_with_a_gradient_is_an_error_and_leaves_no_policy(tmp_path: Path) -> None:
    config = stage_config(losses="rl", values="none", returns="leave_one_out")  # equal returns: every difference is 0
    with pytest.raises(DataError, match="nothing to train on"):
        rl_finetune(config=config, variant="mine", **stage_arguments(tmp_path))
    assert not list(tmp_path.glob("*policy*"))
