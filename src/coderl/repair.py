"""Stage `train_repair`: a model that turns a failed program into a correct one (spec 7.3).

Input: the problem, the failed program, its outcome and error class (and message, as an option). Output: a correct program of
the same problem. A failed program of a problem that has no correct one can teach nothing and is left out, with a count in
the log: with reference solutions for few problems that would be most of them, so that passing samples are targets too.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein
from torch import Tensor

from coderl.config import LengthsConfig, TrainRepairConfig, section_json
from coderl.judged import JudgedProgram, distinct_programs, judged_references, judged_samples
from coderl.models import collate_pairs, load_actor, load_tokenizer
from coderl.objectives import IGNORED
from coderl.problems import Problem, read_problems
from coderl.problems.prompts import encode_program, encode_repair_prompt
from coderl.records import DataError
from coderl.seeds import derived_seed
from coderl.training import first_process, model_folder, program_cross_entropy, train, write_log

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RepairPair:
    """A failed program and the correct programs it may become; with pairing "nearest" there is one."""

    failed: JudgedProgram
    targets: list[str]


def nearest_program(program: str, candidates: Sequence[str]) -> str:
    """The candidate with the least Levenshtein distance in characters; the first of several.

    Raises:
        ValueError: no candidates.
    """
    if not candidates:
        raise ValueError("no candidates")
    best, least = candidates[0], Levenshtein.distance(program, candidates[0])
    for candidate in candidates[1:]:
        distance = Levenshtein.distance(program, candidate, score_cutoff=least)  # stops early: least + 1 means "not nearer"
        if distance < least:
            best, least = candidate, distance
    return best


def repair_pairs(samples: Sequence[JudgedProgram], references: Sequence[JudgedProgram], config: TrainRepairConfig) -> list[RepairPair]:
    """Pairs of distinct failed samples and correct programs of the same problem.

    Correct are the reference solutions whose execution passed and, with targets "references_and_passing", the distinct
    samples that passed. Samples that passed are never inputs (spec 7.3).

    Raises:
        DataError: no pair at all.
    """
    correct: dict[str, list[str]] = {}
    sources = [*references, *(samples if config.targets == "references_and_passing" else [])]
    for program in distinct_programs(program for program in sources if program.passed):
        correct.setdefault(program.task_id, []).append(program.text)
    failed = distinct_programs(program for program in samples if not program.passed)
    pairs = []
    for program in failed:
        targets = correct.get(program.task_id, [])
        if targets:
            pairs.append(RepairPair(program, [nearest_program(program.text, targets)] if config.pairing == "nearest" else targets))
    logger.info(
        "%d distinct failed programs (%s); %d of them are of problems without a correct program and are left out; %d problems have one",
        len(failed),
        ", ".join(f"{name} {count}" for name, count in sorted(Counter(p.outcome.outcome for p in failed).items())),
        len(failed) - len(pairs),
        len(correct),
    )
    if not pairs:
        raise DataError(
            "no pair of a failed and a correct program of the same problem: draw more samples, give problems with reference "
            "solutions, or set targets: references_and_passing"
        )
    return pairs


class RepairExamples:
    """Repair pairs as a source of training batches."""

    def __init__(
        self,
        pairs: Sequence[RepairPair],
        problems: Sequence[Problem],
        tokenizer: Any,
        lengths: LengthsConfig,
        *,
        include_message: bool,
        draw_one: bool,
        seed: int,
        style: str = "canonical",
    ) -> None:
        """draw_one: one target per pair and epoch, drawn anew; otherwise every target of every pair in every epoch."""
        table = {problem.task_id: problem for problem in problems}
        self.pad, self.draw_one, self.seed = tokenizer.pad_token_id, draw_one, seed
        encoded: dict[str, list[int]] = {}  # programs are the target of many failed ones
        self.pairs: list[tuple[list[int], list[list[int]]]] = []
        for pair in pairs:
            row = pair.failed.outcome
            message = row.error_message if include_message else None
            prompt = encode_repair_prompt(
                tokenizer, table[row.task_id], pair.failed.text, row.outcome, row.error_class, message, lengths.max_source_tokens, style
            )
            for text in pair.targets:
                if text not in encoded:
                    encoded[text] = encode_program(tokenizer, text, lengths.max_target_tokens)
            self.pairs.append((prompt, [encoded[text] for text in pair.targets]))

    def epoch(self, epoch: int) -> list[tuple[int, int]]:
        """(pair, target)."""
        if not self.draw_one:
            return [(i, j) for i, (_, targets) in enumerate(self.pairs) for j in range(len(targets))]
        rng = random.Random(derived_seed(self.seed, "repair targets", epoch))
        return [(i, rng.randrange(len(targets))) for i, (_, targets) in enumerate(self.pairs)]

    def lengths(self, item: tuple[int, int]) -> tuple[int, int]:
        """Source and target tokens."""
        prompt, targets = self.pairs[item[0]]
        return len(prompt), len(targets[item[1]])

    def collate(self, items: list[tuple[int, int]]) -> dict[str, Tensor]:
        """prompt_ids, prompt_mask [B, S], program_ids [B, T], normaliser = target tokens of the step."""
        batch = collate_pairs([self.pairs[i][0] for i, _ in items], [self.pairs[i][1][j] for i, j in items], self.pad)
        batch["normaliser"] = (batch["program_ids"] != IGNORED).sum()
        return batch


def train_repair(
    *,
    config: TrainRepairConfig,
    problems: Path,
    samples: list[Path],
    outcomes: list[Path],
    reference_outcomes: list[Path],
    base_model: str,
    seed: int,
    output: Path,
    work: Path,
) -> None:
    """Train the repair model: -sum_t log p(w_t | w_<t, D, W_fail, u, c) (spec 7.3, Eq 13); writes a Hugging Face folder.

    Args:
        config: of the stage.
        problems: train problems.
        samples: the actor's programs for them.
        outcomes: theirs on the hidden tests.
        reference_outcomes: those of the reference solutions.
        base_model: folder or hub id of the language model to start from.
        seed: of order and random pairing.
        output: folder to write.
        work: folder for checkpoints, removed at the end.

    Raises:
        DataError: rows that do not fit together, or no pair of a failed and a correct program.
    """
    table = read_problems(problems)
    pairs = repair_pairs(judged_samples(table, samples, outcomes), judged_references(table, reference_outcomes), config)
    tokenizer, model = load_tokenizer(base_model), load_actor(base_model)
    examples = RepairExamples(
        pairs,
        table,
        tokenizer,
        config.lengths,
        include_message=config.include_message,
        draw_one=config.pairing == "random",
        seed=derived_seed(seed, "repair"),
        style=config.prompt.style,
    )
    log = train(model, examples, program_cross_entropy, config.training, settings=section_json(config), seed=seed, work=work)
    if not first_process():
        return
    with model_folder(output, work) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_log(folder, log)
