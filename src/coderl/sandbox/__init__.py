"""The one door to untrusted code: programs of a model run here and nowhere else.

    from coderl.problems import InputOutputTests
    from coderl.sandbox import Limits, judge

    judge("print(int(input()) * 2)", InputOutputTests("stdin", ["21"], ["42"]), Limits(cpu_seconds=1)).outcome

Programs run in a child of a jailed parent (inside/), which never learns what is expected; the verdict is made out here.
"""

from coderl.sandbox.judge import close_workers, judge, judge_many, observe_many
from coderl.sandbox.observing import behaviour_of, made_inputs
from coderl.sandbox.outcome import InfrastructureError, Job, Limits, Outcome, TestResult, aggregate

__all__ = [
    "InfrastructureError",
    "Job",
    "Limits",
    "Outcome",
    "TestResult",
    "aggregate",
    "behaviour_of",
    "close_workers",
    "judge",
    "judge_many",
    "made_inputs",
    "observe_many",
]
