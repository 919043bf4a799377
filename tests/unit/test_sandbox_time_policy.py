"""Time policy: who gets which limit, what is checked with the full one, and that an outcome depends on its program alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from test_sandbox_stage import RIGHT, problem

from coderl.config import RunTestsConfig
from coderl.problems import InputOutputTests
from coderl.records import Sample
from coderl.sandbox import Job, Outcome, aggregate
from coderl.sandbox.outcome import TestResult
from coderl.sandbox.stage import judge_samples
from coderl.sandbox.time_policy import Key, judge_adaptively, judge_exactly

CONFIG = RunTestsConfig(cpu_seconds=4, short_cpu_seconds=0.5, reference_factor=10, exact_checks=1)
TESTS = InputOutputTests("stdin", ["1"], ["2"])


class Clock:
    """A judge of programs that say how many seconds they need ("3.5 wrong"); keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def __call__(self, jobs: Iterable[Job], limit: float) -> Iterator[tuple[Key, Outcome]]:
        for job in jobs:
            assert isinstance(job.program, str)
            self.asked.append((job.program, limit))
            needs, _, answer = job.program.partition(" ")
            if float(needs) > limit:
                result = TestResult(False, "timeoutexception", "CPU time limit reached")
            else:
                result = TestResult(answer != "wrong")
            yield job.id, aggregate([result], 1, cpu_seconds=min(float(needs), limit))  # type: ignore[misc]


def jobs(*programs: tuple[str, str]) -> dict[Key, Job]:
    return {(task_id, text): Job((task_id, text), text, TESTS) for task_id, text in programs}


def test_exact_gives_everybody_the_limit() -> None:
    judge = Clock()
    found = judge_exactly(jobs(("a", "3"), ("a", "5")), CONFIG, judge)
    assert {key[1]: (judged.outcome.outcome, judged.cpu_limit) for key, judged in found.items()} == {
        "3": ("passed_test", 4),
        "5": ("runtime_error", 4),
    }


def test_who_ends_in_time_is_judged_once_and_references_are_not_touched() -> None:
    judge = Clock()
    found = judge_adaptively(jobs(("a", "0.1"), ("a", "0.2 wrong")), {"a": problem("a", solutions=["0.01"])}, CONFIG, judge)
    assert [judged.outcome.outcome for judged in found.values()] == ["passed_test", "failed_test"]
    assert judge.asked == [("0.1", 0.5), ("0.2 wrong", 0.5)]


def test_a_slow_reference_gives_its_problem_more_time() -> None:
    judge = Clock()
    table = {"quick": problem("quick", solutions=["0.001"]), "slow": problem("slow", solutions=["0.001", "0.15"])}
    found = judge_adaptively(jobs(("quick", "99"), ("slow", "1.4"), ("slow", "99")), table, CONFIG, judge)
    # 10 times 0.15 s is 1.5 s, rounded up to 2.
    assert {key: judged.cpu_limit for key, judged in found.items()} == {("quick", "99"): 0.5, ("slow", "1.4"): 2, ("slow", "99"): 2}
    assert found["slow", "1.4"].outcome.outcome == "passed_test"
    assert sorted(str(judged.changed) for judged in found.values()) == ["False", "None", "None"]
    assert sum(limit == 4 and program == "99" for program, limit in judge.asked) == 1


def test_without_a_passing_reference_the_limit_is_the_configured_one() -> None:
    judge = Clock()
    table = {"none": problem("none", solutions=[]), "wrong": problem("wrong", solutions=["0.001 wrong"])}
    found = judge_adaptively(jobs(("none", "3.9"), ("wrong", "3.9")), table, CONFIG, judge)
    assert [(judged.outcome.outcome, judged.cpu_limit, judged.changed) for judged in found.values()] == [("passed_test", 4, None)] * 2


def test_a_check_says_what_more_time_would_change_and_changes_nothing() -> None:
    table = {"a": problem("a", solutions=["0.001"])}
    programs = jobs(("a", "3"), ("a", "2"), ("a", "9"))
    found = judge_adaptively(programs, table, CONFIG.model_copy(update={"exact_checks": 3}), Clock())
    assert {judged.outcome.outcome for judged in found.values()} == {"runtime_error"}
    assert {key[1]: judged.changed for key, judged in found.items()} == {"3": True, "2": True, "9": False}
    # However the programs are cut into jobs, the outcomes are the same.
    for key, job in programs.items():
        alone = judge_adaptively({key: job}, table, CONFIG, Clock())
        assert alone[key].outcome == found[key].outcome


def test_checks_are_spread_over_problems() -> None:
    table = {name: problem(name, solutions=["0.001"]) for name in "abc"}
    programs = [(name, str(90 + number)) for name in "abc" for number in range(3)]
    found = judge_adaptively(jobs(*programs), table, CONFIG.model_copy(update={"exact_checks": 4}), Clock())
    checked = [key[0] for key, judged in found.items() if judged.changed is not None]
    assert len(checked) == 4
    assert set(checked) == set("abc")


def test_with_real_programs() -> None:
    config = RunTestsConfig(cpu_seconds=1.5, short_cpu_seconds=0.2, exact_checks=2)
    busy = "import time\nwhile time.process_time() < 0.8: pass\n" + RIGHT
    samples = [Sample("a", 0, RIGHT), Sample("a", 1, busy), Sample("a", 2, "while True: pass"), Sample("b", 0, busy)]
    table = [problem("a"), problem("b", solutions=[])]
    rows = judge_samples(table, samples, config, "hidden")
    assert [(row.outcome, row.cpu_limit, row.limit_changed_outcome) for row in rows] == [
        ("passed_test", 0.2, None),
        ("runtime_error", 0.2, True),
        ("runtime_error", 0.2, False),
        ("passed_test", 1.5, None),
    ]
    exact = judge_samples(table, samples, config.model_copy(update={"time_policy": "exact"}), "hidden")
    assert [row.outcome for row in exact] == ["passed_test", "passed_test", "runtime_error", "passed_test"]
    # What steers generation does not look at the references.
    assert {row.cpu_limit for row in judge_samples(table, samples, config, "example")} == {1.5}
