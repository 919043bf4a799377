"""Which programs count for which decoding, and what they cost; programs read from files with gaps are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_run import fake_problems, outcome_row, write_programs

from coderl.config import ConfigError
from coderl.evaluation import ProgramFiles, Programs, parse_program_files, read_programs, row_name
from coderl.evaluation.measurements import final_set, measure_critical, measure_equal_budget, measure_given, measure_plain
from coderl.problems import Problem
from coderl.records import DataError, OutcomeRow, Sample, write_outcomes, write_samples

# One program: (kind, parent, tokens, passes the example tests, passes the hidden tests)
Made = tuple[str, int | None, int | None, bool, bool]


def make(folder: Path, pools: list[list[Made]], problems: list[Problem] | None = None, name: str = "actor") -> Programs:
    """Programs given as tuples, written to files and read back."""
    problems = problems or fake_problems(len(pools))
    samples, hidden, example = [], [], []
    for problem, pool in zip(problems, pools, strict=True):
        for i, (kind, parent, tokens, passes, right) in enumerate(pool):
            samples.append(Sample(problem.task_id, i, "pass", kind, 0, parent, n_tokens=tokens))  # type: ignore[arg-type]
            hidden.append(outcome_row(problem.task_id, i, "hidden", "passed_test" if right else "failed_test"))
            if problem.example_tests is not None:
                example.append(outcome_row(problem.task_id, i, "example", "passed_test" if passes else "runtime_error", 2))
    return read_programs(name, write_programs(folder, samples, hidden, example), problems)


def plain(*flags: tuple[bool, bool], tokens: int | None = 10) -> list[Made]:
    return [("sample", None, tokens, passes, right) for passes, right in flags]


YES, LUCKY, NO = (True, True), (True, False), (False, False)


def test_a_fixture_with_known_outcomes_gives_exactly_one_half(tmp_path: Path) -> None:
    programs = make(tmp_path, [plain(YES, NO), plain(YES, YES), plain(NO, NO)])
    values = {m.metric: m for m in measure_plain("warm_start", programs, [1, 2], [(1, 2)])}
    assert values["pass@1"].values.mean() == 0.5
    assert values["pass@2"].values.tolist() == [1.0, 1.0, 0.0]
    assert values["hidden_passed_test"].values.tolist() == [0.5, 1.0, 0.0]
    assert values["hidden_failed_test"].values.tolist() == [0.5, 0.0, 1.0]
    assert values["example_runtime_error"].values.tolist() == [0.5, 0.0, 1.0]
    assert values["hidden_tests_passed"].values.tolist() == [0.5, 1.0, 0.0]


def test_both_verdicts_on_the_programs_that_have_both(tmp_path: Path) -> None:
    pairs = [("passed_test", "passed_test"), ("failed_test", "passed_test"), ("runtime_error", "compile_error"), ("passed_test", None)]
    problems = fake_problems(3)
    samples = [Sample(problem.task_id, i, "pass") for problem in problems for i in range(4)]
    rows = [
        OutcomeRow(**{**outcome_row(problem.task_id, i, "hidden", ours).__dict__, "legacy_outcome": theirs if number < 2 else None})  # type: ignore[arg-type]
        for number, problem in enumerate(problems)
        for i, (ours, theirs) in enumerate(pairs)
    ]
    programs = read_programs("actor", write_programs(tmp_path, samples, rows, []), problems)
    found = {m.metric: m for m in measure_plain("m", programs, [1], [])}
    for metric, value in (("checker_disagreement", 2 / 3), ("legacy_pass@1", 2 / 3), ("strict_pass@1", 1 / 3)):
        assert found[metric].values[:2].tolist() == [value, value]
        assert np.isnan(found[metric].values[2])
        assert found[metric].programs.tolist() == [3, 3, 0]
    assert "checker_disagreement" not in {m.metric for m in measure_given("r", make(tmp_path / "old", [plain(YES)], name="reference"))}


def test_n_at_k_uses_the_first_k_programs_and_flags_what_is_filled(tmp_path: Path) -> None:
    programs = make(tmp_path, [plain(NO, LUCKY, YES), plain(NO, YES, YES), plain(YES, NO, NO)])
    (measured,) = [m for m in measure_plain("m", programs, [], [(1, 2)]) if m.metric == "1@2"]
    assert measured.values.tolist() == [0.0, 1.0, 1.0]
    assert measured.programs.tolist() == [2, 2, 2]
    assert measured.filled is not None
    assert measured.filled.tolist() == [False, False, False]
    (measured,) = [m for m in measure_plain("m", programs, [], [(2, 3)]) if m.metric == "2@3"]
    assert measured.filled is not None
    assert measured.filled.tolist() == [False, False, True]
    assert measured.values.tolist() == [1.0, 1.0, 1.0]


def test_a_problem_without_examples_is_drawn_at_random_and_flagged(tmp_path: Path) -> None:
    problems = fake_problems(2, without_examples=1)
    programs = make(tmp_path, [plain(NO, YES), plain(YES, NO)], problems)
    (measured,) = [m for m in measure_plain("m", programs, [], [(1, 2)]) if m.metric == "1@2"]
    assert measured.values.tolist() == [1.0, 0.5]
    assert measured.filled is not None
    assert measured.filled.tolist() == [False, True]


def test_greedy_programs_count_for_themselves_only(tmp_path: Path) -> None:
    pool: list[Made] = [*plain(NO, NO), ("greedy", None, 10, True, True)]
    measured = {(m.decoding, m.metric): m.values.tolist() for m in measure_plain("m", make(tmp_path, [pool]), [1], [])}
    assert measured["all", "pass@1"] == [0.0]
    assert measured["greedy", "pass@1"] == [1.0]


def test_k_above_the_samples_is_refused(tmp_path: Path) -> None:
    programs = make(tmp_path, [plain(YES, NO)])
    with pytest.raises(DataError, match="pass@5 needs at least 5"):
        measure_plain("m", programs, [5], [])
    with pytest.raises(DataError, match="pass@9 needs at least 9"):
        measure_plain("m", programs, [1], [(1, 9)])


def critical_pool(tmp_path: Path) -> Programs:
    """Refined without repair; repaired and refined; repaired in vain; no examples, first round only."""
    pools: list[list[Made]] = [
        [*plain(YES, NO), ("refine", 0, 5, True, True), ("refine", 0, 5, True, False)],
        [
            *plain(NO, NO),
            ("repair", 0, 10, False, False),
            ("repair", 1, 10, True, True),
            ("refine", 3, 5, True, True),
            ("refine", 3, 5, False, False),
        ],
        [*plain(NO, NO), ("repair", 0, 10, False, True), ("repair", 0, 10, False, False)],
        plain(YES, NO),
    ]
    return make(tmp_path, pools, fake_problems(4, without_examples=1), "critical")


def test_the_final_set_is_the_last_round_there_is(tmp_path: Path) -> None:
    programs = critical_pool(tmp_path)
    final = [programs.sample_id[final_set(programs, 2) & (programs.problem == p)].tolist() for p in range(4)]
    assert final == [[2, 3], [4, 5], [2, 3], [0, 1]]


def test_batches_have_their_own_final_sets(tmp_path: Path) -> None:
    """Batch 0 refines program 0; batch 1 (first-round programs 3 and 4) only repairs."""
    pool: list[Made] = [*plain(YES, NO), ("refine", 0, 5, True, True), *plain(NO, NO), ("repair", 4, 9, False, False)]
    programs = make(tmp_path, [pool], name="critical")
    assert programs.sample_id[final_set(programs, 2)].tolist() == [2, 5]
    assert programs.sample_id[final_set(programs, 4)].tolist() == [2]


def test_critical_sampling_counts_every_program_it_drew(tmp_path: Path) -> None:
    measured = {(m.decoding, m.metric): m for m in measure_critical("critical_sampling", critical_pool(tmp_path), [1, 3], [(1, 2)], 2)}
    assert measured["final_set", "pass@1"].values.tolist() == [0.5, 0.5, 0.5, 0.5]
    assert measured["final_set", "pass@1"].programs.tolist() == [4, 6, 4, 2]
    assert measured["final_set", "pass@1"].tokens.tolist() == [30, 50, 40, 20]
    assert np.isnan(measured["final_set", "pass@3"].values).all()
    assert "fewer than 3" in measured["final_set", "pass@3"].note
    # P and S' that pass the examples: {0, 2, 3} of which 0 and 2 are right; {3, 4}; none, so S' at random; none either.
    assert measured["filtered", "1@budget"].values == pytest.approx([2 / 3, 1.0, 0.5, 0.5])
    assert measured["filtered", "1@2"].values == pytest.approx([2 / 3, 1.0, 0.5, 0.5])
    assert measured["filtered", "1@2"].programs.tolist() == [4, 6, 4, 2]
    assert "paper" in measured["filtered", "1@2"].note
    assert measured["filtered", "pass@budget"].values.tolist() == [1, 1, 1, 1]


def test_equal_budgets_are_cut_per_problem(tmp_path: Path) -> None:
    critical = critical_pool(tmp_path / "critical")  # programs 4, 6, 4, 2; tokens 30, 50, 40, 20
    pools = [plain(NO, NO, NO, YES, YES, tokens=10)] * 3 + [plain(NO, NO, YES, YES, YES, tokens=10)]
    sampled = make(tmp_path / "plain", pools, fake_problems(4, without_examples=1))
    measured = {(m.decoding, m.metric): m for m in measure_equal_budget("rl_finetune/rl", sampled, critical, [(1, 2), (1, 4)])}
    assert measured["filtered_first_round", "1@budget"].programs.tolist() == [2, 2, 2, 2]
    assert measured["filtered_first_round", "1@budget"].values.tolist() == [0, 0, 0, 0]
    assert measured["filtered_first_round", "1@budget"].note == ""
    assert measured["filtered_equal_programs", "1@budget"].programs.tolist() == [4, 5, 4, 2]
    assert measured["filtered_equal_programs", "1@budget"].values.tolist() == [1, 1, 1, 0]
    assert measured["filtered_equal_programs", "1@budget"].note == "plain samples end before the budget on 1 of 4 problems"
    assert measured["filtered_equal_tokens", "1@budget"].tokens.tolist() == [30, 50, 40, 20]
    assert measured["filtered_equal_tokens", "1@budget"].note == ""
    assert measured["filtered_equal_tokens", "pass@budget"].values.tolist() == [0, 1, 1, 0]


def test_the_program_that_crosses_the_token_budget_counts(tmp_path: Path) -> None:
    critical = make(tmp_path / "critical", [[*plain(NO, tokens=10), ("repair", 0, 5, False, False)]], name="critical")
    sampled = make(tmp_path / "plain", [plain(NO, YES, YES, tokens=8)])
    measured = {(m.decoding, m.metric): m for m in measure_equal_budget("m", sampled, critical, [(1, 2)])}
    assert measured["filtered_equal_tokens", "1@budget"].programs.tolist() == [2]
    assert measured["filtered_equal_tokens", "1@budget"].tokens.tolist() == [16]


def test_unknown_token_counts_leave_out_the_token_budget(tmp_path: Path) -> None:
    critical = make(tmp_path / "critical", [plain(NO, NO)], name="critical")
    sampled = make(tmp_path / "plain", [plain(NO, YES, tokens=None)])
    assert {m.decoding for m in measure_equal_budget("m", sampled, critical, [(1, 2)])} == {
        "filtered_first_round",
        "filtered_equal_programs",
    }


def test_equal_total_gives_every_problem_as_many_programs_whatever_critical_sampling_spent_there(tmp_path: Path) -> None:
    later: list[Made] = [("resample", 0, 10, False, False)] * 5
    critical = make(tmp_path / "critical", [plain(YES), [*plain(NO), *later]], name="critical")  # 10 + 60 tokens
    sampled = make(tmp_path / "plain", [plain(NO, NO, NO, YES, YES), plain(NO, NO, NO, YES, YES)])
    measured = {(m.decoding, m.metric): m for m in measure_equal_budget("m", sampled, critical, [(1, 1)])}
    assert measured["filtered_equal_total", "1@budget"].programs.tolist() == [4, 4], "4 + 4 programs are the fewest of 70 tokens"
    assert measured["filtered_equal_total", "1@budget"].values.tolist() == [1, 1]
    assert measured["filtered_equal_programs", "1@budget"].programs.tolist() == [1, 5]


def test_resampled_programs_are_part_of_the_final_set(tmp_path: Path) -> None:
    pools: list[list[Made]] = [
        [*plain(NO, NO), ("resample", 0, 5, True, True), ("resample", 0, 5, False, False)],
        [*plain(NO, NO), ("resample", 0, 5, False, False), ("repair", 2, 5, True, True), ("refine", 3, 5, True, True)],
    ]
    programs = make(tmp_path, pools, name="critical")
    assert [programs.sample_id[final_set(programs, 2) & (programs.problem == p)].tolist() for p in range(2)] == [[0, 1, 2, 3], [4]]


def test_by_agreement_the_largest_group_is_submitted(tmp_path: Path) -> None:
    """Problem 0: two that agree and are right against one before them; 1: none passes, so chance decides; 2: unknown behaviours."""
    problems = fake_problems(3)
    pools = [plain(LUCKY, YES, YES, NO), plain(NO, NO), plain(LUCKY, YES)]
    names = [["x", "y", "y", None], [None, None], [None, None]]
    samples, hidden, example = [], [], []
    for problem, pool, mine in zip(problems, pools, names, strict=True):
        for i, ((_, _, _, passes, right), behaviour) in enumerate(zip(pool, mine, strict=True)):
            samples.append(Sample(problem.task_id, i, "pass"))
            hidden.append(outcome_row(problem.task_id, i, "hidden", "passed_test" if right else "failed_test"))
            row = outcome_row(problem.task_id, i, "example", "passed_test" if passes else "runtime_error", 2)
            example.append(replace(row, behaviour=behaviour))
    programs = read_programs("actor", write_programs(tmp_path, samples, hidden, example), problems)
    found = {(m.decoding, m.metric): m.values.tolist() for m in measure_plain("m", programs, [1], [(1, 2), (2, 2)])}
    assert found["filtered", "1@2"] == [0.5, 0.0, 0.5]
    assert found["filtered_agreement", "1@2"] == [0.0, 0.0, 0.0], "of equal groups the first"
    assert found["filtered_agreement", "2@2"] == [1.0, 0.0, 1.0]
    wide = read_programs("actor", write_programs(tmp_path, samples[:4], hidden[:4], example[:4]), problems[:1])
    found = {(m.decoding, m.metric): m.values.tolist() for m in measure_plain("m", wide, [1], [(1, 4)])}
    assert found["filtered", "1@4"] == [pytest.approx(2 / 3)]
    assert found["filtered_agreement", "1@4"] == [1.0]
    assert not [m for m in measure_plain("m", make(tmp_path / "old", [plain(YES, NO)]), [1], [(1, 2)]) if "agreement" in m.decoding]


def test_problems_without_reference_solutions_are_left_out_of_the_oracle(tmp_path: Path) -> None:
    problems = fake_problems(2)
    files = write_programs(tmp_path, [], [outcome_row(problems[0].task_id, i, "hidden", "passed_test") for i in range(2)], [])
    values = measure_given("reference_solutions", read_programs("reference", files, problems))[0].values
    assert values[0] == 1.0
    assert np.isnan(values[1])


# ------------------------------------------------------------------------------------------------ bad input


def two_files(folder: Path, hidden: list[OutcomeRow]) -> ProgramFiles:
    write_samples(folder / "s.jsonl", [Sample("test/0000", 0, "pass"), Sample("test/0001", 0, "pass")])
    write_outcomes(folder / "h.jsonl", hidden)
    return ProgramFiles(samples=[folder / "s.jsonl"], hidden=[folder / "h.jsonl"])


def good(task: str, **changes: object) -> OutcomeRow:
    return OutcomeRow(**{**outcome_row(task, 0, "hidden", "passed_test").__dict__, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ([good("test/0000")], r"1 programs have no outcome on the hidden tests, the first is task_id 'test/0001', sample_id 0"),
        ([good("test/0000"), good("test/0001", n_tests=0, n_passed=0)], r"h\.jsonl: task_id 'test/0001', sample_id 0: zero executed tests"),
        (
            [good("test/0000"), good("test/0001"), good("test/0001", sample_id=4)],
            r"h\.jsonl: outcome of .* sample_id 4, but actor has no such program",
        ),
        ([good("test/0000"), good("test/0001", suite="example")], r"outcomes on the example tests, given as outcomes on the hidden"),
    ],
)
def test_gaps_between_programs_and_outcomes_are_errors(tmp_path: Path, hidden: list[OutcomeRow], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_programs("actor", two_files(tmp_path, hidden), fake_problems(2))


def test_a_missing_shard_and_a_foreign_problem_are_errors(tmp_path: Path) -> None:
    files = two_files(tmp_path, [good("test/0000"), good("test/0001")])
    with pytest.raises(DataError, match=r"actor: 1 of 3 problems have no programs, the first is 'test/0002'; a shard is missing"):
        read_programs("actor", files, fake_problems(3))
    with pytest.raises(DataError, match=r"s\.jsonl: task_id 'test/0001' is not among the evaluated problems"):
        read_programs("actor", files, fake_problems(1))
    doubled = files.model_copy(update={"samples": files.samples * 2})
    with pytest.raises(DataError, match="already in another file"):
        read_programs("actor", doubled, fake_problems(2))
    write_outcomes(tmp_path / "again.jsonl", [good("test/0001", outcome="failed_test", n_passed=0)])
    contradicted = files.model_copy(update={"hidden": [*files.hidden, tmp_path / "again.jsonl"]})
    with pytest.raises(DataError, match=r"again\.jsonl: task_id 'test/0001', sample_id 0 has an outcome .* already, in .*h\.jsonl"):
        read_programs("actor", contradicted, fake_problems(2))


def test_the_programs_flag_is_read_strictly(tmp_path: Path) -> None:
    good_json = json.dumps({"actor": {"samples": ["a"], "hidden": ["b"], "example": []}, "empty": {"hidden": ["c"]}})
    parsed = parse_program_files(good_json)
    assert parsed["actor"].samples == [Path("a")]
    assert parsed["empty"].samples == []
    (tmp_path / "p.json").write_text(good_json)
    assert parse_program_files(str(tmp_path / "p.json")) == parsed
    for text, message in [
        ("{nonsense", "--programs: not valid JSON"),
        ("no/such.json", "neither a JSON object nor a file"),
        ('{"actor": {"samples": ["a"]}}', "actor: key 'hidden' is missing"),
        ('{"actor": {"sample": ["a"], "hidden": ["b"]}}', "did you mean 'samples'"),
        ('{"actor": {"hidden": ["b"]}}', "'samples' is empty"),
        ('{"empty": {"hidden": []}}', "'hidden' is empty"),
        ('{"actr": {"samples": ["a"], "hidden": ["b"]}}', "unknown model 'actr'; valid names: actor, critical"),
    ]:
        with pytest.raises(ConfigError, match=message):
            parse_program_files(text)


def test_row_names() -> None:
    assert [row_name(n) for n in ("actor", "policy/rl", "critical", "reference", "empty")] == [
        "warm_start",
        "rl_finetune/rl",
        "critical_sampling",
        "reference_solutions",
        "empty_program",
    ]
