"""The procedural benchmark: list-of-integers problems with statements, tests and solutions, drawn from a seed.

A problem is a pipeline of transforms and one output (coderl.problems.grammar), told in words and with examples, solved in
several ways, and decided by hidden tests. What the draw guarantees:

- Problem `index` of a split depends on the configuration, split, index and difficulty alone, never on how many are drawn.
- Compositions (names of the operations in order, output included) are divided by a hash: `test` has only held-out ones,
  `train`, `validation` and the pretraining files only the others. Constants, wording and form do not count, so the same
  composition with another constant cannot be on both sides. Different compositions can still mean the same
  (`asc, reverse` and `desc`): the division is of names, not of meanings.
- `train` and `validation` share compositions but no pipeline: a pipeline with its constants is in one of the two.
- No step is idle: taking out any run of neighbouring steps changes the answer of some test.

Pretraining files use the phrases of the statements in their comments, so they hold text-to-code pairs for the compositions
of the training side; a claim about "problems with references" counts problems in statement form only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from coderl.config import ConfigError, Difficulty, ProceduralConfig
from coderl.problems.grammar import (
    CALL_INTROS,
    CONNECTIVES,
    CONSTANTS,
    OUTPUTS,
    PHRASINGS,
    READ_LINES,
    STDIN_INTROS,
    TRANSFORMS,
    VARIABLES,
)
from coderl.problems.problem import InputOutputTests, Problem
from coderl.records import DataError
from coderl.seeds import derived_seed

ENTRY_POINT = "solve"
VALUES = range(-9, 21)
"""Integers of the tests; both signs, so that no transform is idle on most inputs."""
LARGEST_VALUE = 2**31 - 1
"""Pipelines that leave 32 bits on a test are rejected: statements of real problems say so, and texts stay short."""
VALIDATION_SHARE = 0.1
"""Share of the pipelines of the training side that are reserved for `validation`."""
CORPUS_SHARES: tuple[tuple[Difficulty, float], ...] = (("introductory", 0.25), ("interview", 0.4), ("competition", 0.35))
"""Difficulties of pretraining files; longer ones hold more operations, and there are few different short ones."""
MAX_DRAWS = 5000
"""Rejected pipelines before the draw gives up: thousands of times more than a usable configuration needs."""


@dataclass(frozen=True)
class Pipeline:
    """Transforms as (name, constant or 0) and the name of the output."""

    steps: tuple[tuple[str, int], ...]
    output: str

    @property
    def composition(self) -> tuple[str, ...]:
        """The names alone, output last: what the division into training and test side goes by."""
        return (*(name for name, _ in self.steps), self.output)

    def run(self, numbers: list[int]) -> list[int] | int | None:
        """The answer; None where a list on the way is empty or a value leaves 32 bits."""
        values = numbers
        for name, constant in self.steps:
            values = TRANSFORMS[name].apply(values, constant)
            if not values:
                return None
        if max(values) > LARGEST_VALUE or min(values) < -LARGEST_VALUE:
            return None
        answer = OUTPUTS[self.output].apply(values)
        return None if isinstance(answer, int) and abs(answer) > LARGEST_VALUE else answer

    def shortened(self) -> Iterator[Pipeline]:
        """The pipelines without one run of neighbouring steps."""
        for first in range(len(self.steps)):
            for end in range(first + 1, len(self.steps) + 1):
                yield Pipeline(self.steps[:first] + self.steps[end:], self.output)


@dataclass(frozen=True)
class GeneratedProblem:
    """A problem with the pipeline that it was made from."""

    problem: Problem
    pipeline: Pipeline


def degenerate(pipeline: Pipeline, inputs: list[list[int]], answers: list[list[int] | int]) -> bool:
    """Whether the tests miss something: fewer than 3 distinct answers, or a run of steps that changes none of them."""
    if len({str(answer) for answer in answers}) < min(3, len(answers)):
        return True
    return any(
        all(shorter.run(numbers) == answer for numbers, answer in zip(inputs, answers, strict=True)) for shorter in pipeline.shortened()
    )


def difficulty_order(shares: Mapping[Difficulty, float], size: int) -> list[Difficulty]:
    """Difficulties of problems 0 to size-1: every prefix follows the shares to within one problem.

    Raises:
        ConfigError: no share is positive.
    """
    wanted = {name: share for name, share in shares.items() if share > 0}
    if not wanted:
        raise ConfigError("key 'difficulty_shares': give at least one difficulty a share above 0")
    total = sum(wanted.values())
    counts = dict.fromkeys(wanted, 0)
    order: list[Difficulty] = []
    for index in range(size):
        name = max(wanted, key=lambda name: wanted[name] / total * (index + 1) - counts[name])
        counts[name] += 1
        order.append(name)
    return order


class ProceduralBenchmark:
    """The benchmark that one configuration describes.

    Raises:
        ConfigError: an unknown operation, more phrasings than there are, or a depth that one transform alone cannot reach.
    """

    def __init__(self, config: ProceduralConfig) -> None:
        self.config = config
        self._transforms = _names("transforms", config.transforms, list(TRANSFORMS))
        self._outputs = _names("outputs", config.outputs, list(OUTPUTS))
        if config.phrasings > PHRASINGS:
            raise ConfigError(f"procedural: key 'phrasings': the grammar has {PHRASINGS} per operation, {config.phrasings} are asked for")
        for difficulty, depths in config.depths.items():
            if max(depths) > 1 and len(self._transforms) < 2:
                raise ConfigError(f"procedural: key 'depths.{difficulty}': depth {max(depths)} needs at least two transforms")
        self._held_out = lru_cache(maxsize=100_000)(self._hash_held_out)
        self._useful = lru_cache(maxsize=100_000)(self._hash_useful)

    # ------------------------------------------------------------------------------------------- divisions

    def held_out(self, composition: tuple[str, ...]) -> bool:
        """Whether a composition belongs to the test side."""
        return self._held_out(composition)

    def _hash_held_out(self, composition: tuple[str, ...]) -> bool:
        return derived_seed(self.config.seed, "composition", *composition) < self.config.held_out_share * 2**63

    def split_of(self, pipeline: Pipeline) -> str:
        """The one split ("train", "validation" or "test") that may use a pipeline."""
        if self.held_out(pipeline.composition):
            return "test"
        names = [f"{name} {constant}" for name, constant in pipeline.steps]
        reserved = derived_seed(self.config.seed, "pipeline", *names, pipeline.output) < VALIDATION_SHARE * 2**63
        return "validation" if reserved else "train"

    # ------------------------------------------------------------------------------------------- problems

    def problems(self, split: str, size: int, shares: Mapping[Difficulty, float]) -> Iterator[GeneratedProblem]:
        """Problems 0 to size-1 of a split, difficulties in the given shares (see difficulty_order)."""
        for index, difficulty in enumerate(difficulty_order(shares, size)):
            yield self.problem(split, index, difficulty)

    def problem(self, split: str, index: int, difficulty: Difficulty) -> GeneratedProblem:
        """One problem, the same whenever it is asked for.

        Raises:
            ConfigError: unknown split or difficulty.
            DataError: the configured operations allow no such problem.
        """
        if split not in ("train", "validation", "test"):
            raise ConfigError(f"procedural: split must be train, validation or test, found {split!r}")
        rng = Random(derived_seed(self.config.seed, "problem", split, index, difficulty))
        for _ in range(MAX_DRAWS):
            pipeline = self._draw(rng, difficulty)
            if self.split_of(pipeline) != split or not self._useful(pipeline):
                continue
            tests = self._draw_tests(pipeline, rng)
            if tests is not None:
                return GeneratedProblem(self._tell(pipeline, tests, rng, f"procedural/{split}/{index:05d}", split, difficulty), pipeline)
        raise DataError(
            f"procedural benchmark: no {difficulty} problem for split {split!r} in {MAX_DRAWS} draws; "
            "configure more transforms, outputs or depths, or another held_out_share"
        )

    def _draw(self, rng: Random, difficulty: Difficulty) -> Pipeline:
        depths = self.config.depths.get(difficulty)
        if not depths:
            raise ConfigError(
                f"procedural: key 'depths' says nothing about difficulty {difficulty!r}; it has {', '.join(self.config.depths)}"
            )
        depth = rng.choice(depths)
        if depth <= len(self._transforms):
            names = rng.sample(self._transforms, depth)
        else:  # deeper than there are transforms: repeats are needed, but never side by side
            names = [rng.choice(self._transforms)]
            while len(names) < depth:
                names.append(rng.choice([name for name in self._transforms if name != names[-1]]))
        steps = tuple((name, rng.choice(CONSTANTS) if TRANSFORMS[name].constant else 0) for name in names)
        return Pipeline(steps, rng.choice(self._outputs))

    def _hash_useful(self, pipeline: Pipeline) -> bool:
        """Whether no step is idle on fixed inputs: a cheap test that spares most draws of tests, and the only one for files."""
        answered = [(numbers, answer) for numbers in _probes(len(pipeline.steps)) if (answer := pipeline.run(numbers)) is not None]
        return len(answered) >= 3 and not degenerate(pipeline, [numbers for numbers, _ in answered], [answer for _, answer in answered])

    def _draw_tests(self, pipeline: Pipeline, rng: Random) -> tuple[list[list[int]], list[list[int] | int]] | None:
        """Inputs and answers, example tests first; None where the pipeline allows no tests that show all its steps."""
        longer = max(0, len(pipeline.steps) - 3)  # room for more filters
        inputs: list[list[int]] = []
        answers: list[list[int] | int] = []
        wanted = self.config.example_tests + self.config.hidden_tests
        for _ in range(20 * wanted):
            example = len(inputs) < self.config.example_tests
            # The lengths of the two suites do not overlap, so no hidden test is printed in the statement.
            numbers = _numbers(rng, (rng.randint(3, 4) if example else rng.randint(5, 9)) + longer * (1 if example else 2))
            answer = pipeline.run(numbers)
            if answer is None or numbers in inputs:
                continue
            inputs.append(numbers)
            answers.append(answer)
            if len(inputs) == wanted:
                # The hidden tests decide, so they have to show every step without the help of the examples.
                shown = self.config.example_tests
                return None if degenerate(pipeline, inputs[shown:], answers[shown:]) else (inputs, answers)
        return None

    def _tell(
        self,
        pipeline: Pipeline,
        tests: tuple[list[list[int]], list[list[int] | int]],
        rng: Random,
        task_id: str,
        split: str,
        difficulty: str,
    ) -> Problem:
        """The problem in words and code."""
        inputs, answers = tests
        call = rng.random() < self.config.call_based_share
        shown = self.config.example_tests
        text = [f"{rng.choice(CALL_INTROS if call else STDIN_INTROS)} {self._sentences(pipeline, call, rng)}"]
        for numbers, answer in zip(inputs[:shown], answers[:shown], strict=True):
            text += ["Input", str(numbers) if call else _line(numbers), "Output", str(answer) if call else _line(answer)]
        # The starter code names the argument, so all references of a call-based problem use that name.
        names = (rng.choice(VARIABLES),) if call else VARIABLES
        if call:
            suite = InputOutputTests("call", [[numbers] for numbers in inputs], list(answers))
        else:
            suite = InputOutputTests("stdin", [_line(numbers) + "\n" for numbers in inputs], [_line(answer) + "\n" for answer in answers])
        return Problem(
            task_id=task_id,
            benchmark="procedural",
            split=split,
            difficulty=difficulty,
            question="\n".join(text),
            starter_code=f"def {ENTRY_POINT}({names[0]}):" if call else "",
            entry_point=ENTRY_POINT if call else None,
            solutions=_solutions(pipeline, call, names, self.config.solutions, rng),
            hidden_tests=InputOutputTests(suite.kind, suite.inputs[shown:], suite.outputs[shown:]),
            example_tests=InputOutputTests(suite.kind, suite.inputs[:shown], suite.outputs[:shown]),
        )

    def _phrases(self, pipeline: Pipeline, call: bool, rng: Random) -> list[str]:
        """One phrase per step and one for the output, without capitals or full stops."""
        limit = self.config.phrasings
        phrases = [rng.choice(TRANSFORMS[name].phrases[:limit]).format(c=constant) for name, constant in pipeline.steps]
        return [*phrases, rng.choice(OUTPUTS[pipeline.output].phrases[:limit]).format(verb="return" if call else "print")]

    def _sentences(self, pipeline: Pipeline, call: bool, rng: Random) -> str:
        """The task in sentences: "Negate every number. Then reverse the list. Print the sum of the numbers."."""
        first, *others, output = self._phrases(pipeline, call, rng)
        sentences = [_capital(first), *(f"{rng.choice(CONNECTIVES)} {phrase}" for phrase in others), _capital(output)]
        return " ".join(f"{sentence}." for sentence in sentences)

    # ------------------------------------------------------------------------------------------- pretraining files

    def corpus_file(self, index: int) -> str:
        """Pretraining file `index`: a program of the training side, never a statement, never an example.

        20 % with a comment above each step, 70 % with the task in sentences on top, 10 % without any words.
        """
        return self.corpus_file_and_pipeline(index)[0]

    def corpus_file_and_pipeline(self, index: int) -> tuple[str, Pipeline]:
        """A pretraining file with its pipeline, which is never a held-out composition."""
        rng = Random(derived_seed(self.config.seed, "corpus", index))
        levels = [(name, weight) for name, weight in CORPUS_SHARES if name in self.config.depths]
        difficulty = rng.choices([name for name, _ in levels], [weight for _, weight in levels])[0]
        for _ in range(MAX_DRAWS):
            pipeline = self._draw(rng, difficulty)
            if not self.held_out(pipeline.composition) and self._useful(pipeline):
                break
        else:
            raise DataError(f"procedural corpus: no {difficulty} file in {MAX_DRAWS} draws; configure more transforms, outputs or depths")
        call = rng.random() < self.config.call_based_share
        name = rng.choice(VARIABLES)
        size = _variants(pipeline, call)
        parts = _program(pipeline, call, name, rng.randrange(size))
        form = rng.random()
        if form < 0.2:
            phrases = self._phrases(pipeline, call, rng)
            opening = rng.choice(("read the list", "read the numbers"))
            comments = [None, *phrases] if call else [opening, *phrases]
            parts = [[f"# {comment}", *part] if comment else part for comment, part in zip(comments, parts, strict=True)]
        elif form < 0.9:
            sentences = self._sentences(pipeline, call, rng)
            if rng.random() < 0.5:
                parts = [[f"# {sentences}"], *parts] if not call else [[f"# {sentences}", *parts[0]], *parts[1:]]
            else:
                parts = [*parts[:1], [f'"""{sentences}"""'], *parts[1:]] if call else [[f'"""{sentences}"""'], *parts]
        return _join(parts, call) + "\n", pipeline


# --------------------------------------------------------------------------------------------------- texts


def _capital(phrase: str) -> str:
    return phrase[0].upper() + phrase[1:]


def _line(values: list[int] | int) -> str:
    return " ".join(map(str, values)) if isinstance(values, list) else str(values)


def _numbers(rng: Random, length: int) -> list[int]:
    """Random integers; about one in six repeats an earlier one, so that duplicates occur in short lists too."""
    numbers: list[int] = []
    for _ in range(length):
        numbers.append(rng.choice(numbers) if numbers and rng.random() < 1 / 6 else rng.choice(VALUES))
    return numbers


@lru_cache(maxsize=16)
def _probes(depth: int) -> list[list[int]]:
    rng = Random(depth)
    return [_numbers(rng, 7 + depth) for _ in range(8)]


# --------------------------------------------------------------------------------------------------- code


def _variants(pipeline: Pipeline, call: bool) -> int:
    """How many ways the grammar writes a pipeline with a given variable name."""
    total = 2 if call else 2 * len(READ_LINES)
    for name, _ in pipeline.steps:
        total *= len(TRANSFORMS[name].code)
    return total


def _program(pipeline: Pipeline, call: bool, variable: str, number: int) -> list[list[str]]:
    """Way `number` to write a pipeline, in parts: the opening, one part per step, the answer. Bodies are not indented."""
    parts: list[list[str]] = []
    if call:
        parts.append([f"def {ENTRY_POINT}({variable}):"])
    else:
        number, way = divmod(number, len(READ_LINES))
        parts.append([READ_LINES[way].format(v=variable)])
    for name, constant in pipeline.steps:
        code = TRANSFORMS[name].code
        number, way = divmod(number, len(code))
        parts.append([line.format(v=variable, c=constant) for line in code[way]])
    output = OUTPUTS[pipeline.output]
    expression = output.expressions[number].format(v=variable)
    if call:
        parts.append([f"return {expression}"])
    else:
        parts.append([output.printed[number].format(v=variable) if output.printed else f"print({expression})"])
    return parts


def _join(parts: list[list[str]], call: bool) -> str:
    """The program text; everything after a function's opening is indented by four blanks."""
    if not call:
        return "\n".join(line for part in parts for line in part)
    return "\n".join([*parts[0], *("    " + line for part in parts[1:] for line in part)])


def _solutions(pipeline: Pipeline, call: bool, names: tuple[str, ...], wanted: int, rng: Random) -> list[str]:
    """`wanted` different programs, or all that the grammar can write when these are fewer (at least 4)."""
    ways = _variants(pipeline, call)
    numbers = rng.sample(range(ways * len(names)), min(wanted, ways * len(names)))
    return [_join(_program(pipeline, call, names[number % len(names)], number // len(names)), call) for number in numbers]


def _names(key: str, wanted: list[str] | None, known: list[str]) -> list[str]:
    """The configured names in the grammar's order."""
    if wanted is None:
        return known
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"procedural: key '{key}': unknown name {name!r}; did you mean {near!r}? Names: {', '.join(known)}")
    return [name for name in known if name in wanted]
