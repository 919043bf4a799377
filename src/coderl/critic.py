"""Stages `train_critic` and `score`: predict the outcome of a program without running it, and value each of its tokens.

The outcome critic (4 classes) weighs tokens in RL fine-tuning; the binary critic (passed or not) ranks programs and cuts
seeds in critical sampling (spec 5). Both are trained here on the same split: problems, never samples, are held out, because
a critic that has seen a problem's other programs knows half of the answer.
"""

from __future__ import annotations

import json
import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from coderl.config import ScoreConfig, TrainCriticConfig, section_json
from coderl.critic_metrics import Judgement, Metrics, critic_metrics
from coderl.judged import JudgedProgram, distinct_programs, judged_references, judged_samples
from coderl.models import CriticOutput, OutcomeCritic, collate_pairs, default_device, load_tokenizer
from coderl.objectives import critic_loss_sum, pair_loss_sum, passing_log_odds
from coderl.problems import Problem, read_problems
from coderl.problems.prompts import encode_program, encode_prompt, is_call_based
from coderl.records import OUTCOMES, DataError, Sample, atomic_path, read_samples
from coderl.seeds import derived_seed
from coderl.training import Loss, first_process, model_folder, train, write_log

logger = logging.getLogger(__name__)

CLASS_NAMES: dict[int, tuple[str, ...]] = {4: OUTCOMES, 2: ("not_passed", "passed_test")}
"""Names of the classes by index; the last is "passed" (spec 0.2, 5.4)."""

SINGLE_CLASS_SHARE = 0.1
"""Most of an epoch that comes from problems whose programs all passed or all failed (balance within_problem): they teach
which problems are hard, never which program is right. Ours."""

SIMILAR_PROBLEMS = 20
"""Nearest problems from which foreign_programs draws. Ours."""

_SCORED_AT_ONCE = 4096
"""Programs sorted by length together and written as one row group: bounds the memory of `score`."""


# --------------------------------------------------------------------------------------------------- examples


@dataclass(frozen=True)
class CriticExample:
    """One judged program, encoded; `label` indexes CLASS_NAMES."""

    prompt: list[int]
    program: list[int]
    label: int
    judged: JudgedProgram


def outcome_label(outcome: str, classes: int) -> int:
    """Index of the class of an outcome: 4 = the outcomes, 2 = passed against everything else (spec 5.4)."""
    return OUTCOMES.index(outcome) if classes == 4 else int(outcome == "passed_test")


def held_out_tasks(tasks: Sequence[str], share: float, seed: int) -> set[str]:
    """The problems kept for the metrics: the first `share` (at least one) in an order drawn from `seed`.

    Raises:
        DataError: fewer than two problems.
    """
    if len(tasks) < 2:
        raise DataError(f"{len(tasks)} problem(s) with judged programs: a critic needs at least two, one of them held out")
    ranked = sorted(set(tasks), key=lambda task: (derived_seed(seed, "held out", task), task))
    return set(ranked[: min(len(ranked) - 1, max(1, round(share * len(ranked))))])


class CriticExamples:
    """Judged programs as a source of training batches, balanced as configured (spec 5.3 leaves it open)."""

    def __init__(self, examples: Sequence[CriticExample], classes: int, balance: str, pad: int, seed: int) -> None:
        self.examples, self.classes, self.pad, self.seed = list(examples), classes, pad, seed
        counts = np.bincount([example.label for example in self.examples], minlength=classes)
        self.weights = [1.0] * classes
        if balance == "class_weights":
            raw = np.array([count**-0.5 if count else 0.0 for count in counts])
            self.weights = [float(w) for w in raw * counts.sum() / (raw * counts).sum()]  # mean weight of a program = 1
        self.by_problem: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for index, example in enumerate(self.examples):
            self.by_problem[example.judged.task_id][int(example.judged.passed)].append(index)
        mixed = sum(1 for failing, passing in self.by_problem.values() if failing and passing)
        self.within_problem = balance == "within_problem" and mixed > 0
        if balance == "within_problem" and not mixed:
            logger.warning("no problem has both a passing and a failing program: nothing to balance, the critic trains on all programs")

    def epoch(self, epoch: int) -> list[int]:
        """Indices of examples: all of them, or equal numbers of passing and failing programs of each problem, drawn anew.

        A problem with p passing and f failing programs gives min(p, f) of each. Of the problems with one class only, each
        gives at most one program, and all of them at most SINGLE_CLASS_SHARE of the epoch.
        """
        if not self.within_problem:
            return list(range(len(self.examples)))
        rng = random.Random(derived_seed(self.seed, "critic epoch", epoch))
        chosen: list[int] = []
        alone: list[int] = []
        for failing, passing in self.by_problem.values():
            count = min(len(failing), len(passing))
            chosen += rng.sample(failing, count) + rng.sample(passing, count)
            if count == 0:
                alone.append(rng.choice(failing or passing))
        room = int(len(chosen) * SINGLE_CLASS_SHARE / (1 - SINGLE_CLASS_SHARE))
        return chosen + rng.sample(alone, min(room, len(alone)))

    def lengths(self, item: int) -> tuple[int, int]:
        """Source and target tokens."""
        return len(self.examples[item].prompt), len(self.examples[item].program)

    def collate(self, items: list[int]) -> dict[str, Tensor]:
        """prompt_ids, prompt_mask [B, S], program_ids [B, T], labels, weights [B]; normaliser = sum of weights of the step.

        normaliser_programs and normaliser_passing_tokens (at least 1) count the step's programs and the tokens of those that passed.
        """
        rows = [self.examples[i] for i in items]
        batch = collate_pairs([row.prompt for row in rows], [row.program for row in rows], self.pad)
        weights = torch.tensor([self.weights[row.label] for row in rows])
        batch |= {
            "labels": torch.tensor([row.label for row in rows]),
            "weights": weights,
            "normaliser": weights.sum(),
            "normaliser_programs": torch.tensor(len(rows)),
            "normaliser_passing_tokens": self._passing_tokens(items),
        }
        return batch

    def _passing_tokens(self, indices: Sequence[int]) -> Tensor:
        rows = [self.examples[i] for i in indices]
        return torch.tensor(max(1, sum(len(row.program) for row in rows if row.label == self.classes - 1)))


class PairedExamples(CriticExamples):
    """As CriticExamples with balance within_problem, in pairs of a failing and a passing program of one problem.

    An item is (failing, passing), or (program,) of a problem with one class: whole pairs move through batches and their
    parts, so that the loss over pairs too does not depend on how a step is split.
    """

    def epoch(self, epoch: int) -> list[Any]:
        """Items, drawn anew; as many programs of each problem as in CriticExamples."""
        if not self.within_problem:
            return [(index,) for index in super().epoch(epoch)]
        rng = random.Random(derived_seed(self.seed, "critic epoch", epoch))
        pairs: list[tuple[int, ...]] = []
        alone: list[tuple[int, ...]] = []
        for failing, passing in self.by_problem.values():
            count = min(len(failing), len(passing))
            pairs += zip(rng.sample(failing, count), rng.sample(passing, count), strict=True)
            if count == 0:
                alone.append((rng.choice(failing or passing),))
        room = int(2 * len(pairs) * SINGLE_CLASS_SHARE / (1 - SINGLE_CLASS_SHARE))
        return pairs + rng.sample(alone, min(room, len(alone)))

    def lengths(self, item: Any) -> tuple[int, int]:
        """Source and target tokens of both programs as they stand in a batch: each padded to the longer one."""
        found = [CriticExamples.lengths(self, index) for index in item]
        return len(found) * max(source for source, _ in found), len(found) * max(target for _, target in found)

    def collate(self, items: list[Any]) -> dict[str, Tensor]:
        """As CriticExamples.collate with a second dimension of 2 behind the first: failing and passing program.

        `present` [P, 2] is False for the missing second one of a single, which repeats the first with weight 0;
        normaliser_pairs counts the pairs of the step.
        """
        flat = CriticExamples.collate(self, [index for item in items for index in (item[0], item[-1])])
        present = torch.tensor([[True, len(item) == 2] for item in items])
        batch = {key: tensor if key.startswith("normaliser") else tensor.unflatten(0, (-1, 2)) for key, tensor in flat.items()}
        batch["weights"] = batch["weights"] * present
        return batch | {
            "present": present,
            "normaliser": batch["weights"].sum(),
            "normaliser_programs": present.sum(),
            "normaliser_passing_tokens": self._passing_tokens([index for item in items for index in item]),
            "normaliser_pairs": present[:, 1].sum().clamp(min=1),
        }


def paired_objective(pairwise_weight: float, generation_weight: float = 0.0) -> Loss:
    """critic_objective on PairedExamples plus `pairwise_weight` times the mean pair_loss of the step's pairs; logs ranked_right."""

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        present = batch["present"]
        rows = {key: batch[key].flatten(0, 1)[present.flatten()] for key in ("prompt_ids", "prompt_mask", "program_ids")}
        output = model(rows["prompt_ids"], rows["prompt_mask"], rows["program_ids"], prefixes=False)
        found, labels, weights = output.logits, batch["labels"][present], batch["weights"][present]
        ce = critic_loss_sum(found, labels, weights) / batch["normaliser"]
        odds = torch.zeros(present.shape, device=found.device).masked_scatter(present, passing_log_odds(found))
        pairs = odds[present[:, 1]]
        ranking = pair_loss_sum(pairs[:, 1], pairs[:, 0]) / batch["normaliser_pairs"]
        metrics = {
            "accuracy": (found.argmax(-1) == labels).sum() / batch["normaliser_programs"],
            "ranked_right": (pairs[:, 1] > pairs[:, 0]).sum() / batch["normaliser_pairs"],
        }
        whole = ce + pairwise_weight * ranking
        if generation_weight:
            metrics["loss_generation"] = generation_loss(output, labels, batch["normaliser_passing_tokens"])
            whole = whole + generation_weight * metrics["loss_generation"]
        return whole, metrics

    return loss


def generation_loss(output: CriticOutput, labels: Tensor, passing_tokens: Tensor) -> Tensor:
    """Cross entropy of the programs that passed, under the critic's own language model (ours): a part of the mean over the step's tokens.

    A critic that is only asked for outcomes learns from a few thousand programs what a head can; the likelihood that it reads
    learns from every token of theirs what right programs look like (docs/log.md).

    Args:
        output: of a critic with `likelihood`, for B programs.
        labels: [B]; the last class is "passed".
        passing_tokens: of the whole step.
    """
    assert output.log_likelihoods is not None
    return -output.log_likelihoods[labels == output.logits.shape[-1] - 1].sum() / passing_tokens


def foreign_programs(
    programs: Sequence[JudgedProgram], questions: Mapping[str, str], call_based: Mapping[str, bool], count: int, seed: int
) -> list[JudgedProgram]:
    """Programs that pass one problem, as failing programs of problems whose statements are most like it (ours).

    For each problem up to `count` programs, drawn from those that pass one of its SIMILAR_PROBLEMS nearest ones by the words
    that their statements share (Jaccard) and are called in the same way. Programs whose text passes this problem as well are left out.

    Args:
        programs: judged, of the problems to train on.
        questions: statement by task_id.
        call_based: whether the problem asks for a function, by task_id.
        count: per problem.
        seed: of the draw.
    """
    passing: dict[str, list[JudgedProgram]] = defaultdict(list)
    for program in programs:
        if program.passed:
            passing[program.task_id].append(program)
    words = {task: frozenset(question.lower().split()) for task, question in questions.items()}
    found = []
    for task in dict.fromkeys(program.task_id for program in programs):
        rng = random.Random(derived_seed(seed, "foreign", task))
        others = [other for other in passing if other != task and call_based[other] == call_based[task]]
        near = sorted(others, key=lambda other: -len(words[task] & words[other]) / max(1, len(words[task] | words[other])))
        own = {program.text for program in passing[task]} if task in passing else set()
        candidates = [program for other in near[:SIMILAR_PROBLEMS] for program in passing[other] if program.text not in own]
        for program in rng.sample(candidates, min(count, len(candidates))):
            outcome = replace(program.outcome, task_id=task, outcome="failed_test", n_passed=0, first_failed_test=0)
            found.append(JudgedProgram(task, program.text, outcome, None))
    return found


def critic_objective(model: nn.Module, batch: dict[str, Tensor], generation_weight: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    """-log p(outcome | program, problem) (spec 5.3, Eq 9), weighted mean over the programs of the step; logs the accuracy."""
    output = model(batch["prompt_ids"], batch["prompt_mask"], batch["program_ids"], prefixes=False)
    loss = critic_loss_sum(output.logits, batch["labels"], batch["weights"]) / batch["normaliser"]
    metrics = {"accuracy": (output.logits.argmax(-1) == batch["labels"]).sum() / batch["normaliser_programs"]}
    if generation_weight:
        metrics["loss_generation"] = generation_loss(output, batch["labels"], batch["normaliser_passing_tokens"])
        loss = loss + generation_weight * metrics["loss_generation"]
    return loss, metrics


# --------------------------------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Values:
    """The critic on one program of T tokens (those of encode_program), C classes.

    probabilities [T, C]: softmax of the head at each token (spec 5.5, 6.1). prefix_probabilities [T, C]: of the classifier
    applied to tokens 1..t. pooled [C]: of the whole program, equal to the last prefix. All float32.
    """

    probabilities: NDArray[np.float32]
    prefix_probabilities: NDArray[np.float32]
    pooled: NDArray[np.float32]


@torch.no_grad()
def score_programs(
    critic: OutcomeCritic, tokenizer: Any, prompts: Sequence[list[int]], programs: Sequence[list[int]], batch_tokens: int = 16384
) -> list[Values]:
    """Values of programs, in the order given; computed in batches of similar length, on the critic's device.

    Args:
        critic: put in evaluation mode for the call.
        tokenizer: only its pad token is used.
        prompts: one per program, of encode_prompt.
        programs: of encode_program.
        batch_tokens: padded prompt + program tokens per forward pass.
    """
    device = next(critic.parameters()).device
    was_training = critic.training
    critic.eval()
    order = sorted(range(len(programs)), key=lambda i: (len(programs[i]) + len(prompts[i]), len(programs[i])))
    values: list[Values | None] = [None] * len(programs)
    start = 0
    while start < len(order):
        end, width, length = start, 0, 0
        while end < len(order):
            width, length = max(width, len(prompts[order[end]])), max(length, len(programs[order[end]]))
            if end > start and (width + length) * (end + 1 - start) > batch_tokens:
                break
            end += 1
        rows = order[start:end]
        batch = collate_pairs([prompts[i] for i in rows], [programs[i] for i in rows], tokenizer.pad_token_id)
        output = critic(**{key: tensor.to(device) for key, tensor in batch.items()})
        tokens, prefixes, pooled = (
            logits.float().softmax(-1).cpu().numpy() for logits in (output.token_logits, output.prefix_logits, output.logits)
        )
        for row, i in enumerate(rows):
            size = len(programs[i])
            values[i] = Values(tokens[row, :size].copy(), prefixes[row, :size].copy(), pooled[row].copy())
        start = end
    critic.train(was_training)
    return [value for value in values if value is not None]


def _encoded_prompts(critic: OutcomeCritic, tokenizer: Any, problems: Sequence[Problem], tasks: set[str]) -> dict[str, list[int]]:
    """Prompts of the problems named in `tasks`, as this critic was trained on them."""
    settings = critic.settings
    return {
        problem.task_id: encode_prompt(tokenizer, problem, settings.max_source_tokens, settings.prompt_style)
        for problem in problems
        if problem.task_id in tasks
    }


def _scored(
    critic: OutcomeCritic, tokenizer: Any, problems: Sequence[Problem], samples: Sequence[Sample], batch_tokens: int
) -> Iterator[list[tuple[Sample, Values]]]:
    """Samples with their values in bounded pieces, in the order of (problem, sample_id)."""
    order = {problem.task_id: i for i, problem in enumerate(problems)}
    for sample in samples:
        if sample.task_id not in order:
            raise DataError(f"a sample has task_id {sample.task_id!r}, which is not among the problems; both must be of the same set")
    ordered = sorted(samples, key=lambda s: (order[s.task_id], s.sample_id))
    prompts = _encoded_prompts(critic, tokenizer, problems, {sample.task_id for sample in samples})
    for start in range(0, len(ordered), _SCORED_AT_ONCE):
        piece = ordered[start : start + _SCORED_AT_ONCE]
        programs = [encode_program(tokenizer, sample.solution, critic.settings.max_target_tokens) for sample in piece]
        values = score_programs(critic, tokenizer, [prompts[sample.task_id] for sample in piece], programs, batch_tokens)
        yield list(zip(piece, values, strict=True))


def score_samples(
    critic: OutcomeCritic, tokenizer: Any, problems: Sequence[Problem], samples: Sequence[Sample], batch_tokens: int = 16384
) -> dict[tuple[str, int], NDArray[np.float32]]:
    """Token probabilities [T, C] of samples by (task_id, sample_id): what `score` writes and read_values reads, in memory.

    Raises:
        DataError: a sample of an unknown problem.
    """
    critic.to(default_device())
    found: dict[tuple[str, int], NDArray[np.float32]] = {}
    for piece in _scored(critic, tokenizer, problems, samples, batch_tokens):
        found |= {(sample.task_id, sample.sample_id): values.probabilities for sample, values in piece}
    return found


_VALUES_SCHEMA = pa.schema(
    [
        ("task_id", pa.string()),
        ("sample_id", pa.int64()),
        ("n_classes", pa.int32()),
        ("probabilities", pa.list_(pa.float16())),
        ("pooled", pa.list_(pa.float32())),
    ]
)


def score(*, config: ScoreConfig, critic: Path, problems: Path, samples: list[Path], output: Path) -> None:
    """Write the token values of sampled programs: spec 5.5's file as parquet, probabilities instead of logits.

    Columns: task_id, sample_id, n_classes, probabilities (float16, the T x C values row by row), pooled (float32, C). The
    prompt's form and the lengths are those the critic was trained with (its critic.json).

    Raises:
        DataError: no critic in the folder, no samples, or samples of other problems.
    """
    tokenizer, model, table = load_tokenizer(critic), OutcomeCritic.load(critic), read_problems(problems)
    rows = read_samples(samples)
    if not rows:
        raise DataError(f"{', '.join(map(str, samples))}: no samples to score; make them with `coderl sample`")
    model.to(default_device())
    with (
        atomic_path(output) as temporary,
        pq.ParquetWriter(temporary, _VALUES_SCHEMA, compression="zstd") as writer,
        tqdm(total=len(rows), desc="score", unit="program", disable=None) as bar,
    ):
        done = 0
        for piece in _scored(model, tokenizer, table, rows, config.batch_tokens):
            columns = [
                pa.array([sample.task_id for sample, _ in piece], pa.string()),
                pa.array([sample.sample_id for sample, _ in piece], pa.int64()),
                pa.array([model.settings.classes] * len(piece), pa.int32()),
                _lists([values.probabilities.astype(np.float16).ravel() for _, values in piece], pa.float16()),
                _lists([values.pooled for _, values in piece], pa.float32()),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=_VALUES_SCHEMA))
            done += len(piece)
            bar.update(len(piece))
            logger.info("scored %d of %d programs", done, len(rows))


def _lists(arrays: Sequence[NDArray[Any]], kind: pa.DataType) -> pa.ListArray:
    """A list column from numpy arrays, without a Python object per number."""
    offsets = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(arrays), kind))


def _batches(file: pq.ParquetFile, path: Path) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(columns=["task_id", "sample_id", "n_classes", "probabilities"])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split()):.200}); run `coderl score` again") from None


def read_values(path: Path) -> dict[tuple[str, int], NDArray[np.float32]]:
    """Token probabilities [T, C] of a file of `score`, by (task_id, sample_id).

    Raises:
        DataError: missing file, or not one that `score` wrote.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; make it with `coderl score`")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a parquet file ({error}); run `coderl score` again") from None
    missing = [name for name in _VALUES_SCHEMA.names if name not in file.schema_arrow.names]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; token values are made by `coderl score`")
    found: dict[tuple[str, int], NDArray[np.float32]] = {}
    for batch in _batches(file, path):
        tasks, ids, classes = (batch.column(name).to_pylist() for name in ("task_id", "sample_id", "n_classes"))
        lists = batch.column("probabilities")
        offsets, flat = lists.offsets.to_numpy(), lists.values.to_numpy().astype(np.float32)
        for row, key in enumerate(zip(tasks, ids, strict=True)):
            numbers = flat[offsets[row] : offsets[row + 1]]
            if classes[row] < 2 or len(numbers) % classes[row]:
                raise DataError(
                    f"{path}: values of {key[0]!r}, sample {key[1]}: {len(numbers)} numbers are no rows of {classes[row]} classes"
                )
            found[key] = numbers.reshape(-1, classes[row])
    return found


# --------------------------------------------------------------------------------------------------- the stage


def evaluate_critic(critic: OutcomeCritic, tokenizer: Any, examples: Sequence[CriticExample], seed: int) -> Metrics:
    """Metrics of a critic on held-out examples (see critic_metrics)."""
    values = score_programs(critic, tokenizer, [example.prompt for example in examples], [example.program for example in examples])
    judgements = [
        Judgement(
            task_id=example.judged.task_id,
            label=example.label,
            probabilities=value.pooled,
            log_likelihood=example.judged.sample.log_likelihood if example.judged.sample else None,
            n_tokens=example.judged.sample.n_tokens if example.judged.sample else None,
            is_reference=example.judged.sample is None,
        )
        for example, value in zip(examples, values, strict=True)
    ]
    return critic_metrics(judgements, CLASS_NAMES[critic.settings.classes], seed)


def train_critic(
    *,
    config: TrainCriticConfig,
    classes: int,
    problems: Path,
    samples: list[Path],
    outcomes: list[Path],
    reference_outcomes: list[Path],
    base_model: str,
    seed: int,
    output: Path,
    work: Path,
) -> None:
    """Train a critic on sampled programs and reference solutions; writes its folder with training_log.csv and metrics.json.

    Programs equal in text count once per problem. A reference solution takes the outcome that its execution gave: it is a
    PassedTest example only if it passed (spec 13).

    Args:
        config: of the stage.
        classes: 4 = outcome critic, 2 = binary critic (spec 5.4).
        problems: train problems.
        samples: the actor's programs for them.
        outcomes: theirs on the hidden tests.
        reference_outcomes: those of the reference solutions; not read unless config.include_references.
        base_model: folder or hub id of the language model to start from.
        seed: of split, order and head.
        output: folder to write.
        work: folder for checkpoints, removed at the end.

    Raises:
        DataError: rows that do not fit together, or nothing to train on.
    """
    if classes not in CLASS_NAMES:
        raise DataError(f"a critic has 4 classes (outcomes) or 2 (passed or not), not {classes}")
    table = read_problems(problems)
    judged = judged_samples(table, samples, outcomes)
    if config.include_references:
        judged += judged_references(table, reference_outcomes)
    programs = distinct_programs(judged)
    held_out = held_out_tasks(list(dict.fromkeys(program.task_id for program in programs)), config.validation_share, seed)
    tokenizer = load_tokenizer(base_model)
    critic = OutcomeCritic.from_backbone(base_model, classes, config, derived_seed(seed, "critic head", classes))
    prompts = _encoded_prompts(critic, tokenizer, table, {program.task_id for program in programs})

    def encoded(these: Sequence[JudgedProgram]) -> list[CriticExample]:
        return [
            CriticExample(
                prompts[program.task_id],
                encode_program(tokenizer, program.text, config.lengths.max_target_tokens),
                outcome_label(program.outcome.outcome, classes),
                program,
            )
            for program in these
        ]

    learnt = [program for program in programs if program.task_id not in held_out]
    if config.foreign_programs:
        known = {problem.task_id: problem for problem in table if problem.task_id not in held_out}
        learnt += foreign_programs(
            learnt,
            {task: problem.question for task, problem in known.items()},
            {task: is_call_based(problem) for task, problem in known.items()},
            config.foreign_programs,
            derived_seed(seed, "foreign programs"),
        )
    training = encoded(learnt)
    validation = encoded([program for program in programs if program.task_id in held_out])
    counts = {name: sum(example.label == k for example in training) for k, name in enumerate(CLASS_NAMES[classes])}
    logger.info("%d distinct of %d programs; training on %s; %d held-out problems", len(programs), len(judged), counts, len(held_out))
    if sum(count > 0 for count in counts.values()) < 2:
        logger.warning("all training programs are of one class: this critic can only learn to say so")
    kind = PairedExamples if config.pairwise_weight else CriticExamples
    examples = kind(training, classes, config.balance, tokenizer.pad_token_id, derived_seed(seed, "critic examples"))
    generation = config.generation_weight
    objective: Loss = (
        paired_objective(config.pairwise_weight, generation)
        if config.pairwise_weight
        else partial(critic_objective, generation_weight=generation)
    )
    settings, draws = section_json(config), derived_seed(seed, "critic", classes)
    log = train(critic, examples, objective, config.training, settings=settings, seed=draws, work=work)
    if not first_process():
        return
    metrics = evaluate_critic(critic, tokenizer, validation, seed)
    metrics |= {f"n_training_{name}": count for name, count in counts.items()}
    for name, value in metrics.items():
        logger.info("held-out %s: %s", name, "unknown" if value is None else f"{value:.4g}")
    with model_folder(output, work) as folder:
        critic.save(folder)
        tokenizer.save_pretrained(folder)
        write_log(folder, log)
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
