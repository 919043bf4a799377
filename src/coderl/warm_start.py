"""Stage `warm_start`: the actor, by cross entropy on (problem, solution) (spec 2)."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

from torch import Tensor

from coderl.config import LengthsConfig, PromptConfig, WarmStartConfig, section_json
from coderl.models import collate_pairs, load_actor, load_tokenizer
from coderl.objectives import IGNORED
from coderl.problems import Problem, read_problems
from coderl.problems.prompts import encode_program, encode_prompt
from coderl.records import DataError
from coderl.seeds import derived_seed
from coderl.training import first_process, model_folder, program_cross_entropy, train, write_log

logger = logging.getLogger(__name__)


class SolutionExamples:
    """(problem, program) pairs; with "per_problem" one program a problem and epoch, drawn anew (spec 2.4)."""

    def __init__(
        self,
        pairs: list[tuple[Problem, list[str]]],
        tokenizer: Any,
        prompt: PromptConfig,
        lengths: LengthsConfig,
        *,
        per_solution: bool,
        seed: int,
    ) -> None:
        self.pad, self.per_solution, self.seed = tokenizer.pad_token_id, per_solution, seed
        self.encoded = [
            (
                encode_prompt(tokenizer, problem, lengths.max_source_tokens, prompt.style),
                [encode_program(tokenizer, text, lengths.max_target_tokens) for text in programs],
            )
            for problem, programs in pairs
        ]

    def epoch(self, epoch: int) -> list[tuple[int, int]]:
        """(pair, program): all of them, or one per problem."""
        if self.per_solution:
            return [(i, j) for i, (_, programs) in enumerate(self.encoded) for j in range(len(programs))]
        rng = random.Random(derived_seed(self.seed, "solutions", epoch))
        return [(i, rng.randrange(len(programs))) for i, (_, programs) in enumerate(self.encoded)]

    def lengths(self, item: tuple[int, int]) -> tuple[int, int]:
        """Source and target tokens."""
        prompt, programs = self.encoded[item[0]]
        return len(prompt), len(programs[item[1]])

    def collate(self, items: list[tuple[int, int]]) -> dict[str, Tensor]:
        """prompt_ids, prompt_mask [B, S], program_ids [B, T], normaliser = target tokens of the step."""
        batch = collate_pairs([self.encoded[i][0] for i, _ in items], [self.encoded[i][1][j] for i, j in items], self.pad)
        batch["normaliser"] = (batch["program_ids"] != IGNORED).sum()
        return batch


def warm_start(*, config: WarmStartConfig, problems: Path, base_model: str, seed: int, output: Path, work: Path) -> None:
    """Fine-tune the base model on the reference solutions; writes a Hugging Face folder.

    Raises:
        DataError: no problem has a solution.
    """
    cap = config.max_solutions_per_problem
    pairs = [(problem, problem.solutions[:cap]) for problem in read_problems(problems) if problem.solutions]
    if not pairs:
        raise DataError(f"{problems}: no problem has a solution, so there is nothing to warm-start on; set with_solutions")
    logger.info("%d problems with %d solutions", len(pairs), sum(len(programs) for _, programs in pairs))
    tokenizer, model = load_tokenizer(base_model), load_actor(base_model)
    per_solution = config.sampling == "per_solution"
    examples = SolutionExamples(pairs, tokenizer, config.prompt, config.lengths, per_solution=per_solution, seed=seed)
    log = train(model, examples, program_cross_entropy, config.training, settings=section_json(config), seed=seed, work=work)
    if not first_process():
        return
    with model_folder(output, work) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_log(folder, log)
