"""The choices of critical sampling (spec 7.2, 7.3, 12), and its rounds with tiny random models."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import save_tiny, tiny_t5, tiny_tokenizer

from coderl import critical_sampling
from coderl.config import (
    CriticalSampleConfig,
    DecodingConfig,
    LengthsConfig,
    PromptConfig,
    RunTestsConfig,
    SampleSetConfig,
    TrainCriticConfig,
)
from coderl.critical_sampling import choose_repair_candidates, choose_seed, critical_sample, share_budget
from coderl.models import OutcomeCritic
from coderl.problems import InputOutputTests, Problem, write_problems
from coderl.problems.prompts import encode_program, encode_prompt
from coderl.records import DataError, OutcomeRow, Sample, read_samples
from coderl.sampling import Request, sample

END = 2
CONFIG = CriticalSampleConfig()


def probabilities(passed: list[float]) -> np.ndarray:
    return np.array([[1 - p, p] for p in passed], dtype=np.float32)


def seed_of(passed: list[float], tokens: list[int] | None = None, **changes: Any) -> list[int]:
    tokens = tokens or [1, *range(10, 10 + len(passed) - 2), END]
    return choose_seed(tokens, probabilities(passed), CONFIG.model_copy(update=changes), np.random.default_rng(0), end_token=END)


# --------------------------------------------------------------------------------------------------- choose_seed


def test_the_seed_ends_at_the_greatest_value() -> None:
    assert seed_of([0.6, 0.7, 0.9, 0.8, 0.7]) == [1, 10, 11]


def test_the_latest_of_equal_values() -> None:
    assert seed_of([0.6, 0.9, 0.7, 0.9, 0.8, 0.7]) == [1, 10, 11, 12]


def test_the_end_token_is_never_in_the_seed() -> None:
    assert seed_of([0.6, 0.7, 0.8, 1.0]) == [1, 10, 11]
    assert seed_of([0.6, 0.7, 0.8, 0.9], tokens=[1, 10, 11, 12]) == [1, 10, 11, 12], "a program that was cut has no end token"


def test_cut_at_the_earliest_bad_token() -> None:
    passed = [0.6, 0.7, 0.4, 0.8, 0.3, 0.9, 0.1]
    assert seed_of(passed) == [1, 10]
    assert seed_of(passed, drop_bad_token=False) == [1, 10, 11]


def test_bad_tokens_behind_the_greatest_value_do_not_matter() -> None:
    assert seed_of([0.6, 0.9, 0.4, 0.3, 0.2]) == [1, 10]


def test_even_odds_are_not_bad() -> None:
    assert seed_of([0.5, 0.5, 0.6, 0.1]) == [1, 10, 11]


def test_minimum_length() -> None:
    assert seed_of([0.4, 0.9, 0.8, 0.7]) == [1], "the start token is left"
    assert seed_of([0.4, 0.9, 0.8, 0.7], min_seed_tokens=2) == [1, 10]
    assert seed_of([0.9, 0.4, 0.3, 0.7], min_seed_tokens=50) == [1, 10, 11], "but never the end token"


def test_sampled_seed_ends_follow_the_values() -> None:
    """seed_mode sample: position t with probability q_t / sum q."""
    passed = [0.6, 0.9, 0.5, 0.7, 0.8]
    config = CONFIG.model_copy(update={"seed_mode": "sample"})
    rng = np.random.default_rng(1)
    tokens = [1, 10, 11, 12, END]
    lengths = Counter(len(choose_seed(tokens, probabilities(passed), config, rng, end_token=END)) for _ in range(4000))
    for length in range(1, 5):
        assert lengths[length] / 4000 == pytest.approx(passed[length - 1] / sum(passed[:4]), abs=0.04)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30),
    st.booleans(),
    st.sampled_from(["argmax", "sample"]),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_properties_of_seeds(passed: list[float], ended: bool, mode: str, minimum: int, random: int) -> None:
    tokens = [1, *range(10, 9 + len(passed))]
    if ended:
        tokens[-1] = END
    config = CONFIG.model_copy(update={"seed_mode": mode, "min_seed_tokens": minimum})
    table = probabilities(passed)
    seed = choose_seed(tokens, table, config, np.random.default_rng(random), end_token=END)
    assert seed == tokens[: len(seed)]
    assert seed
    assert END not in seed
    assert not any(failed > good for failed, good in table[minimum : len(seed)]), "no token with p(failed) > p(passed)"


def test_values_must_match_the_tokens() -> None:
    with pytest.raises(ValueError, match="shape"):
        choose_seed([1, 2, 3], probabilities([0.5, 0.5]), CONFIG, np.random.default_rng(0), end_token=END)


# --------------------------------------------------------------------------------------------------- shares and candidates


def test_shares_of_the_budget() -> None:
    assert share_budget(20, [0.1, 0.9, 0.5]) == [6, 7, 7]
    assert share_budget(20, [0.5]) == [20]
    assert share_budget(2, [0.1, 0.9, 0.5, 0.9]) == [0, 1, 0, 1]
    assert share_budget(3, [0.5, 0.5]) == [2, 1]
    assert share_budget(5, []) == []


@given(st.integers(1, 300), st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_properties_of_shares(budget: int, values: list[float]) -> None:
    shares = share_budget(budget, values)
    assert sum(shares) == budget
    assert max(shares) - min(shares) <= 1
    assert all(shares[a] >= shares[b] for a in range(len(values)) for b in range(len(values)) if values[a] > values[b])


def test_repair_candidates_are_the_best_distinct_programs() -> None:
    programs, values = ["a", "b", "a", "c", "d"], [0.5, 0.9, 0.5, 0.9, 0.1]
    assert choose_repair_candidates(programs, values, 1) == [1]
    assert choose_repair_candidates(programs, values, 3) == [1, 3, 0]
    assert choose_repair_candidates(programs, values, 9) == [1, 3, 0, 4]


# --------------------------------------------------------------------------------------------------- the rounds

N, M = 6, 2
LENGTHS = LengthsConfig(max_source_tokens=120, max_target_tokens=14)
REPAIR_LENGTHS = LengthsConfig(max_source_tokens=200, max_target_tokens=12)
DECODING = DecodingConfig(temperature=1.0, top_p=1.0)


def make_problem(number: int, examples: bool = True) -> Problem:
    tests = InputOutputTests("stdin", [f"{number}\n"], ["example"])
    return Problem(
        task_id=f"p/{number}", benchmark="custom", split="test", difficulty="introductory", question=f"Say {number}.", starter_code="",
        entry_point=None, solutions=[], hidden_tests=None, example_tests=tests if examples else None,
    )  # fmt: skip


class Judge:
    """Stands for the sandbox; `rule` says which (text, problem's number) passes. Refuses anything but example tests."""

    def __init__(self) -> None:
        self.rule: Any = lambda text, number: False
        self.calls: list[list[str]] = []

    def __call__(self, problems: list[Problem], samples: list[Sample], config: RunTestsConfig, *, suite: str) -> list[OutcomeRow]:
        assert suite == "example"
        numbers = {problem.task_id: int(problem.task_id[2:]) for problem in problems if problem.example_tests is not None}
        self.calls.append([row.solution for row in samples])
        rows = []
        for row in samples:
            passed = self.rule(row.solution, numbers[row.task_id])
            outcome = OutcomeRow(
                row.task_id, row.sample_id, "example", "passed_test" if passed else "runtime_error", int(passed), 1, None if passed else 0,
                None if passed else "nameerror", "name 'x' is not defined", None, 0.0, 0.0, "strict", "fake",
            )  # fmt: skip
            rows.append(outcome)
        return rows


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    fake = Judge()
    monkeypatch.setattr(critical_sampling, "judge_samples", fake)
    return fake


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Request]]]:
    """Calls of `generate` in the later rounds: model's name and requests."""
    calls: list[tuple[str, list[Request]]] = []
    real = critical_sampling.generate

    def noted(model: Any, tokenizer: Any, requests: list[Request], **options: Any) -> Any:
        calls.append((Path(model.name_or_path).name, list(requests)))
        return real(model, tokenizer, requests, **options)

    monkeypatch.setattr(critical_sampling, "generate", noted)
    return calls


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Policy, binary critic and repair model with different random weights, whose programs often end early."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    found = {}
    for number, name in enumerate(("policy", "repair_model")):
        found[name] = save_tiny(folder / name, tiny_t5(seed=number))
    config = TrainCriticConfig(lengths=LENGTHS, training={"steps": 1, "batch_size": 1})
    save_tiny(folder / "backbone", tiny_t5(seed=7))
    critic = OutcomeCritic.from_backbone(folder / "backbone", 2, config)
    with torch.no_grad():
        critic.head.weight.mul_(3)  # type: ignore[operator, union-attr]
        critic.head.bias.copy_(torch.tensor([0.0, 1.0]))  # type: ignore[operator, union-attr]
    critic.save(folder / "critic")
    tiny_tokenizer().save_pretrained(folder / "critic")
    return {**found, "critic": folder / "critic"}


def run(models: dict[str, Path], folder: Path, problems: list[Problem], **changes: Any) -> list[Sample]:
    config = CriticalSampleConfig(
        **{"batch": N, "repair_candidates": M, "batch_problems": 3, "decoding": DECODING, "repair_decoding": DECODING, **changes}
    )
    write_problems(folder / "test.parquet", problems)
    outputs = [folder / f"{shard}.jsonl.gz" for shard in range(config.shards)]
    for shard, output in enumerate(outputs):
        critical_sample(
            config=config, prompt=PromptConfig(), lengths=LENGTHS, repair_lengths=REPAIR_LENGTHS, run_tests=RunTestsConfig(),
            problems=folder / "test.parquet", shard=shard, seed=3, output=output, **models,
        )  # fmt: skip
    return read_samples(outputs)


def first_round(models: dict[str, Path], folder: Path, count: int = N) -> list[Sample]:
    config = SampleSetConfig(samples_per_problem=count, batch_problems=3, decoding=DECODING)
    sample(
        config=config, prompt=PromptConfig(), lengths=LENGTHS, model=models["policy"], problems=folder / "test.parquet", shard=0, seed=3,
        output=folder / "plain.jsonl.gz",
    )  # fmt: skip
    return read_samples(folder / "plain.jsonl.gz")


def rows_of(samples: list[Sample], number: int, kind: str) -> list[Sample]:
    return [row for row in samples if row.task_id == f"p/{number}" and row.kind == kind]


def passes_some(text: str, number: int) -> bool:
    """About a third of the programs of even problems, none of the others."""
    return number % 2 == 0 and sum(text.encode()) % 3 == 0


def test_first_round_is_that_of_plain_sampling(models: dict[str, Path], tmp_path: Path, judge: Judge) -> None:
    judge.rule = passes_some
    samples = run(models, tmp_path, [make_problem(number) for number in range(5)])
    assert [row for row in samples if row.kind == "sample"] == first_round(models, tmp_path)


def test_refined_programs(models: dict[str, Path], tmp_path: Path, judge: Judge, generated: list[tuple[str, list[Request]]]) -> None:
    judge.rule = passes_some
    samples = run(models, tmp_path, [make_problem(0), make_problem(2)])
    assert [name for name, _ in generated] == ["policy"], "nothing to repair, and one call for all problems"
    for number in (0, 2):
        drawn, refined = rows_of(samples, number, "sample"), rows_of(samples, number, "refine")
        passing = [row for row in drawn if passes_some(row.solution, number)]
        assert 0 < len(passing) < N, "this test needs a draw with both outcomes"
        assert [row.sample_id for row in refined] == list(range(N, 2 * N)), "|S'| = N"
        assert {row.round for row in refined} == {2}
        shares = Counter(row.parent for row in refined)
        assert set(shares) == {row.sample_id for row in passing}
        assert max(shares.values()) - min(shares.values()) <= 1
    tokenizer = tiny_tokenizer()
    by_id = {(row.task_id, row.sample_id): row for row in samples}
    refined = [row for row in samples if row.kind == "refine"]
    prefixes = [prefix for request in generated[0][1] for prefix in request.prefixes or []]
    for row, prefix in zip(refined, prefixes, strict=True):
        parent = by_id[row.task_id, row.parent]  # type: ignore[index]
        whole = encode_program(tokenizer, parent.solution, 100)
        assert prefix == whole[: len(prefix)]
        assert 1 <= len(prefix) < len(whole)
        assert row.solution.startswith(tokenizer.decode(prefix, skip_special_tokens=True).rstrip("�"))
        assert row.n_tokens is not None
        assert row.n_tokens <= LENGTHS.max_target_tokens - len(prefix)
    assert len({len(prefix) for prefix in prefixes}) > 1, "this test needs seeds of several lengths"


def test_seeds_obey_the_critic(
    models: dict[str, Path], tmp_path: Path, judge: Judge, generated: list[tuple[str, list[Request]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[tuple[list[int], np.ndarray]] = []
    real = critical_sampling.score_programs

    def noted(critic: Any, tokenizer: Any, prompts: Any, programs: Any) -> Any:
        values = real(critic, tokenizer, prompts, programs)
        scored.extend((ids, value.probabilities) for ids, value in zip(programs, values, strict=True))
        return values

    monkeypatch.setattr(critical_sampling, "score_programs", noted)
    judge.rule = lambda text, number: True
    run(models, tmp_path, [make_problem(0)])
    assert len(scored) == len({tuple(ids) for ids, _ in scored})
    (_, (request,)) = generated[0]
    for prefix in request.prefixes or []:
        tables = [values for ids, values in scored if ids[: len(prefix)] == prefix]
        assert any(not (values[1 : len(prefix), 0] > values[1 : len(prefix), 1]).any() for values in tables)


def test_repair_when_none_passes(models: dict[str, Path], tmp_path: Path, judge: Judge, generated: list[tuple[str, list[Request]]]) -> None:
    """Repair runs once, on the top M by the critic, N / M programs each; here no repaired program passes either."""
    problems = [make_problem(1), make_problem(3)]
    samples = run(models, tmp_path, problems)
    assert [name for name, _ in generated] == ["repair_model"]
    assert len(judge.calls) == 2
    critic, tokenizer = OutcomeCritic.load(models["critic"]), tiny_tokenizer()
    for number, problem in zip((1, 3), problems, strict=True):
        drawn, repaired = rows_of(samples, number, "sample"), rows_of(samples, number, "repair")
        assert not rows_of(samples, number, "refine")
        assert [row.sample_id for row in repaired] == list(range(N, 2 * N))
        assert {row.round for row in repaired} == {1}
        prompt = encode_prompt(tokenizer, problem, LENGTHS.max_source_tokens)
        programs = [encode_program(tokenizer, row.solution, LENGTHS.max_target_tokens - 1) for row in drawn]
        pooled = [value.pooled[1] for value in critical_sampling.score_programs(critic, tokenizer, [prompt] * N, programs)]
        best = sorted(range(N), key=lambda i: -pooled[i])[:M]
        assert Counter(row.parent for row in repaired) == dict.fromkeys(best, N // M)
    prompts = [tokenizer.decode(request.prompt) for request in generated[0][1]]
    assert all("runtime_error" in text and "nameerror" in text and "not defined" not in text for text in prompts)


def test_further_rounds_are_the_next_plain_samples_and_only_for_problems_without_enough(
    models: dict[str, Path], tmp_path: Path, judge: Judge
) -> None:
    judge.rule = passes_some
    samples = run(models, tmp_path, [make_problem(0), make_problem(1)], rounds=2, refine=False, repair_candidates=0)
    plain = first_round(models, tmp_path, 3 * N)
    assert not rows_of(samples, 0, "resample"), "its first round has a passing program"
    later = rows_of(samples, 1, "resample")
    assert [row.solution for row in later] == [row.solution for row in plain if row.task_id == "p/1"][N:]
    assert [row.sample_id for row in later] == list(range(N, 3 * N))
    assert [row.round for row in later] == [1] * N + [2] * N
    assert {row.parent for row in later} == {0}
    assert sum(map(len, judge.calls)) == 4 * N, "every program is judged once"
    most = run(models, tmp_path, [make_problem(0)], rounds=1, enough=N + 1, refine=False, repair_candidates=0)
    assert len(rows_of(most, 0, "resample")) == N


def test_repaired_programs_that_pass_are_refined(models: dict[str, Path], tmp_path: Path, judge: Judge) -> None:
    judge.rule = lambda text, number: len(judge.calls) == 2 and sum(text.encode()) % 2 == 0
    samples = run(models, tmp_path, [make_problem(1)])
    repaired, refined = rows_of(samples, 1, "repair"), rows_of(samples, 1, "refine")
    assert [row.sample_id for row in samples] == list(range(3 * N))
    assert len(repaired) == len(refined) == N
    parents = {row.parent for row in refined}
    assert parents == {row.sample_id for row in repaired if sum(row.solution.encode()) % 2 == 0}


def test_problems_in_different_states_share_the_calls(
    models: dict[str, Path], tmp_path: Path, judge: Judge, generated: list[tuple[str, list[Request]]]
) -> None:
    judge.rule = lambda text, number: number == 0 or (number == 1 and len(judge.calls) == 2)
    samples = run(models, tmp_path, [make_problem(0), make_problem(1), make_problem(2, examples=False)])
    assert [name for name, _ in generated] == ["repair_model", "policy"]
    assert Counter((row.task_id, row.kind) for row in samples) == {
        ("p/0", "sample"): N, ("p/0", "refine"): N,
        ("p/1", "sample"): N, ("p/1", "repair"): N, ("p/1", "refine"): N,
        ("p/2", "sample"): N,
    }  # fmt: skip
    assert [(row.task_id, row.sample_id) for row in samples] == sorted((row.task_id, row.sample_id) for row in samples)


def test_problems_without_examples_keep_the_first_round(models: dict[str, Path], tmp_path: Path, judge: Judge) -> None:
    samples = run(models, tmp_path, [make_problem(0, examples=False), make_problem(1, examples=False)])
    assert samples == first_round(models, tmp_path)
    assert not judge.calls


def test_rounds_can_be_switched_off(models: dict[str, Path], tmp_path: Path, judge: Judge) -> None:
    judge.rule = lambda text, number: number == 0
    problems = [make_problem(0), make_problem(1)]
    assert {row.kind for row in run(models, tmp_path, problems, refine=False)} == {"sample", "repair"}
    assert {row.kind for row in run(models, tmp_path, problems, repair_candidates=0)} == {"sample", "refine"}


def test_several_batches(models: dict[str, Path], tmp_path: Path, judge: Judge) -> None:
    """Each batch of N is refined or repaired by itself; the first rounds together are the plain samples 0 .. 2 N - 1."""
    judge.rule = passes_some
    samples = run(models, tmp_path, [make_problem(0), make_problem(1)], batches=2)
    plain = first_round(models, tmp_path, 2 * N)
    texts = {(row.task_id, row.sample_id): row.solution for row in plain}
    assert {(row.task_id, row.sample_id): row.solution for row in samples if row.kind == "sample"} == texts
    assert len(rows_of(samples, 0, "refine")) == len(rows_of(samples, 1, "repair")) == 2 * N
    for first, kind, number in ((2 * N, "refine", 0), (2 * N, "repair", 1)):
        rows = rows_of(samples, number, kind)
        assert [row.sample_id for row in rows] == list(range(first, first + 2 * N))
        assert all(row.parent is not None and row.parent // N == place // N for place, row in enumerate(rows))


def test_shards_and_a_second_run_change_nothing(models: dict[str, Path], tmp_path: Path, judge: Judge) -> None:
    judge.rule = passes_some
    problems = [make_problem(number) for number in range(7)]
    once = run(models, tmp_path, problems)
    assert run(models, tmp_path, problems) == once
    sharded = run(models, tmp_path, problems, shards=2)
    assert sorted(sharded, key=lambda row: (row.task_id, row.sample_id)) == once


def test_seed_values_and_modes_are_used(models: dict[str, Path], tmp_path: Path, judge: Judge) -> None:
    judge.rule = lambda text, number: True
    runs = [
        [row.solution for row in run(models, tmp_path, [make_problem(0)], **changes) if row.kind == "refine"]
        for changes in ({}, {"seed_mode": "sample"}, {"seed_values": "prefix"}, {"min_seed_tokens": 6})
    ]
    assert len({tuple(texts) for texts in runs}) == 4


def test_bad_models(models: dict[str, Path], tmp_path: Path, judge: Judge) -> None:
    config = TrainCriticConfig(lengths=LENGTHS, training={"steps": 1, "batch_size": 1})
    OutcomeCritic.from_backbone(models["policy"], 4, config).save(tmp_path / "four")
    with pytest.raises(DataError, match="4 classes"):
        run({**models, "critic": tmp_path / "four"}, tmp_path, [make_problem(0)])
    with pytest.raises(DataError, match="no such model folder"):
        run({**models, "policy": tmp_path / "nothing"}, tmp_path, [make_problem(0)])
    assert not list(tmp_path.glob("*.gz"))


def test_with_the_real_sandbox(models: dict[str, Path], tmp_path: Path) -> None:
    """A policy that writes the characters 1, 3, ( and line ends: some programs are valid and print nothing, as they should."""
    policy = tiny_t5(seed=5)
    tokenizer = tiny_tokenizer()
    policy.config.tie_word_embeddings = False
    head = torch.nn.Linear(16, 261, bias=False)
    letters = [tokenizer.convert_tokens_to_ids(token) for token in ("1", "3", "(", "Ċ")]
    with torch.no_grad():
        head.weight.zero_()
        rows = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)) * 10
        for row, (first, second) in zip(rows, ((letters[0], letters[1]), (letters[2], letters[3]), (END, letters[3])), strict=True):
            head.weight[first] += row
            head.weight[second] -= row
    policy.lm_head = head
    save_tiny(tmp_path / "policy", policy)
    problems = [
        Problem(
            task_id=f"p/{number}", benchmark="custom", split="test", difficulty="introductory", question=f"Be silent {number}.",
            starter_code="", entry_point=None, solutions=[], hidden_tests=None,
            example_tests=InputOutputTests("stdin", ["1\n"], [expected]),
        )
        for number, expected in enumerate(("", "something"))
    ]  # fmt: skip
    samples = run({**models, "policy": tmp_path / "policy"}, tmp_path, problems, batch=12)
    assert len(rows_of(samples, 0, "refine")) == 12
    for row in rows_of(samples, 0, "refine"):
        (parent,) = (other for other in samples if (other.task_id, other.sample_id) == (row.task_id, row.parent))
        compile(parent.solution, "parent", "exec")
    assert len(rows_of(samples, 1, "repair")) == 12
    assert not rows_of(samples, 1, "refine")
