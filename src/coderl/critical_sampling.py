"""Stage `critical_sample`: programs that pass the example tests are refined, where none pass the best ones are repaired (spec 7).

The algorithm was never released; each choice that the paper leaves open is a key of CriticalSampleConfig, with the defaults
of spec 7.2 and 7.4. Per problem, with N programs in every round:

    round 0  sample   N programs of the policy, the same ones as the stage `sample` draws
             resample only with `rounds`: while fewer than `enough` programs pass, N more, the next ones of the stage `sample`
    round 1  repair   only if none of them passes the example tests: the M failed programs that the critic rates best, N / M each
    round 2  refine   N continuations of prefixes of the passing programs (of round 0 or 1), cut where the critic says

Every program is kept with its kind, round and parent. What the algorithm returns for a problem (S') is its last round that
exists. The example tests decide, hidden tests are never touched. It costs up to 3 N programs: compare at equal budget.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from coderl.config import CriticalSampleConfig, LengthsConfig, PromptConfig, RunTestsConfig
from coderl.critic import Values, score_programs
from coderl.models import OutcomeCritic, default_device, load_actor, load_tokenizer
from coderl.problems import Problem, read_problems
from coderl.problems.prompts import continues_prompt, encode_program, encode_prompt, encode_repair_prompt
from coderl.records import DataError, OutcomeRow, Sample, SampleKind
from coderl.sampling import Generated, Request, generate
from coderl.sampling.stage import content_hash, draw_samples, problem_batches, run_batches, to_sample
from coderl.sandbox.stage import judge_samples
from coderl.seeds import derived_seed

LOG = logging.getLogger(__name__)

PASSED = 1
"""Index of the class "passed" of the binary critic (spec 5.4)."""


# --------------------------------------------------------------------------------------------------- the choices


def choose_seed(
    tokens: Sequence[int],
    probabilities: NDArray[np.floating[Any]],
    config: CriticalSampleConfig,
    rng: np.random.Generator,
    *,
    end_token: int,
    opened: bool = True,
) -> list[int]:
    """The prefix of a passing program that refinement continues (spec 7.2, Eq 11).

    It ends at the token after which p(passed) is greatest (the latest of several; seed_mode "sample" draws the token with
    probability proportional to it), but before the first token with p(failed) > p(passed). A minimum length wins over that,
    so that the seed can be as short as `<s>` alone, which is plain sampling. The end token is never in it. Programs of causal
    models open with no token: their minimum is one less, and their seed can be empty.

    Args:
        tokens: T tokens of the program, `<s>` first if it is `opened`, as the critic read them.
        probabilities: [T, 2], (failed, passed) after each token.
        config: seed_mode, drop_bad_token, min_seed_tokens.
        rng: used by seed_mode "sample" alone.
        end_token: id of `</s>`.
        opened: whether programs open with a start token.

    Raises:
        ValueError: shapes that do not match, or no token that can be in a seed although programs are opened.
    """
    if probabilities.shape != (len(tokens), 2):
        raise ValueError(f"expected probabilities of shape ({len(tokens)}, 2), got {probabilities.shape}")
    least = config.min_seed_tokens - (0 if opened else 1)
    usable = len(tokens) - 1 if len(tokens) > (1 if opened else 0) and tokens[-1] == end_token else len(tokens)
    if usable < 1:
        if not opened:
            return []
        raise ValueError("a program needs at least one token that is not the end token")
    failed, passed = np.asarray(probabilities[:usable], dtype=np.float64).T
    if config.seed_mode == "argmax":
        last = usable - 1 - int(passed[::-1].argmax())
    else:
        last = int(rng.choice(usable, p=passed / passed.sum())) if passed.sum() > 0 else usable - 1
    length = last + 1
    bad = np.flatnonzero(failed[:length] > passed[:length])
    if len(bad):
        length = int(bad[0]) + (0 if config.drop_bad_token else 1)
    return list(tokens[: min(max(length, least), usable)])


def share_budget(budget: int, values: Sequence[float]) -> list[int]:
    """How many programs each of several seeds or candidates gets: budget / len(values), the remainder to the highest-valued.

    With more candidates than budget the `budget` best get one each. Of equal values the earlier comes first. The shares sum
    to `budget` (spec 12) unless there are no candidates.
    """
    if not values:
        return []
    each, remainder = divmod(budget, len(values))
    shares = [each] * len(values)
    for index in sorted(range(len(values)), key=lambda i: (-values[i], i))[:remainder]:
        shares[index] += 1
    return shares


def choose_repair_candidates(programs: Sequence[str], values: Sequence[float], count: int) -> list[int]:
    """Indices of the `count` distinct failed programs with the highest p(passed), best first (spec 7.3, Eq 12).

    Of equal programs the first stands for all; of equal values the earlier comes first. Fewer if there are fewer.
    """
    chosen: list[int] = []
    seen: set[str] = set()
    for index in sorted(range(len(programs)), key=lambda i: (-values[i], i)):
        if len(chosen) < count and programs[index] not in seen:
            seen.add(programs[index])
            chosen.append(index)
    return chosen


# --------------------------------------------------------------------------------------------------- the rounds


@dataclass
class _Group:
    """One problem's current programs S and, where it has example tests, their outcomes by sample_id."""

    problem: Problem
    programs: list[Sample]
    outcomes: dict[int, OutcomeRow] = field(default_factory=dict)

    def passing(self) -> list[Sample]:
        return [row for row in self.programs if self.outcomes[row.sample_id].outcome == "passed_test"]


@dataclass(frozen=True)
class CriticalSampler:
    """The three models and everything else that the rounds need; `draw` runs them for a batch of problems at once."""

    policy: PreTrainedModel
    tokenizer: Any
    critic: OutcomeCritic
    critic_tokenizer: Any
    repair_model: PreTrainedModel
    repair_tokenizer: Any
    config: CriticalSampleConfig
    prompt: PromptConfig
    lengths: LengthsConfig
    repair_prompt: PromptConfig
    repair_lengths: LengthsConfig
    include_message: bool
    run_tests: RunTestsConfig
    seed: int

    def draw(self, problems: list[Problem]) -> list[Sample]:
        """All programs of all rounds, by problem and sample_id; a model is called once per round, not per problem.

        Each of config.batches batches of N programs is an algorithm of its own (spec 7.4). Their first rounds come first in
        the numbering, so that these sample_ids are those of the stage `sample`.
        """
        size = self.config.batch
        rows: dict[str, list[Sample]] = {problem.task_id: [] for problem in problems}
        batches: list[list[_Group]] = []
        for batch in range(self.config.batches):
            drawn = self._first_round(problems, range(batch * size, (batch + 1) * size))
            batches.append(
                [_Group(problem, part) for problem, part in zip(problems, drawn, strict=True) if problem.example_tests is not None]
            )
            for problem, part in zip(problems, drawn, strict=True):
                rows[problem.task_id].extend(part)
        for groups in batches:
            self._judge(groups)
            for number in range(1, self.config.rounds + 1):
                self._resample([group for group in groups if len(group.passing()) < self.config.enough], number, rows)
            if self.config.repair_candidates:
                self._repair([group for group in groups if not group.passing()], rows)
            if self.config.refine:
                self._refine([group for group in groups if group.passing()], rows)
        return [row for problem in problems for row in rows[problem.task_id]]

    def _first_round(self, problems: list[Problem], sample_ids: range) -> list[list[Sample]]:
        drawn = draw_samples(
            self.policy,
            self.tokenizer,
            problems,
            sample_ids=sample_ids,
            greedy=False,
            decoding=self.config.decoding,
            prompt=self.prompt,
            lengths=self.lengths,
            seed=self.seed,
        )
        return [drawn[start : start + len(sample_ids)] for start in range(0, len(drawn), len(sample_ids))]

    def _resample(self, groups: list[_Group], number: int, rows: dict[str, list[Sample]]) -> None:
        """N more programs of the policy for each group, added to its programs and judged: budget goes where nothing is solved yet."""
        if not groups:
            return
        size = self.config.batch
        requests = []
        for group in groups:
            # Of several batches the first rounds come first in the numbering, then every further program in its own turn.
            first = len(rows[group.problem.task_id])
            seeds = [derived_seed(self.seed, "sample", group.problem.task_id, sample_id) for sample_id in range(first, first + size)]
            requests.append(Request(encode_prompt(self.tokenizer, group.problem, self.lengths.max_source_tokens, self.prompt.style), seeds))
        programs = iter(
            generate(self.policy, self.tokenizer, requests, decoding=self.config.decoding, max_target_tokens=self.lengths.max_target_tokens)
        )
        for group in groups:
            task_id = group.problem.task_id
            first = len(rows[task_id])
            parent = group.programs[0].sample_id  # tells which batch it belongs to
            drawn = [to_sample(next(programs), task_id, first + place, "resample", number, parent) for place in range(size)]
            rows[task_id].extend(drawn)
            group.programs = group.programs + drawn
        self._judge(groups)

    def _judge(self, groups: list[_Group]) -> None:
        """Run the example tests on the programs that have no outcome yet."""
        programs = [row for group in groups for row in group.programs if row.sample_id not in group.outcomes]
        if not programs:
            return
        outcomes = iter(judge_samples([group.problem for group in groups], programs, self.run_tests, suite="example"))
        for group in groups:
            group.outcomes |= {row.sample_id: next(outcomes) for row in group.programs if row.sample_id not in group.outcomes}

    def _values(self, groups: list[_Group], programs: list[list[Sample]]) -> list[list[tuple[list[int], Values]]]:
        """The critic's tokens and values of some programs of each group, computed once per distinct program."""
        settings = self.critic.settings
        # One token must be left for the continuation; for the critic's verdict on a cut program this makes no difference.
        limit = min(settings.max_target_tokens, self.lengths.max_target_tokens - 1)
        prompts: list[list[int]] = []
        texts: dict[tuple[str, str], int] = {}
        encoded: list[list[int]] = []
        for group, rows in zip(groups, programs, strict=True):
            prompt = encode_prompt(self.critic_tokenizer, group.problem, settings.max_source_tokens, settings.prompt_style)
            for row in rows:
                if texts.setdefault((row.task_id, row.solution), len(texts)) == len(encoded):
                    prompts.append(prompt)
                    encoded.append(encode_program(self.critic_tokenizer, row.solution, limit))
        values = score_programs(self.critic, self.critic_tokenizer, prompts, encoded)
        places = [[texts[row.task_id, row.solution] for row in rows] for rows in programs]
        return [[(encoded[place], values[place]) for place in row] for row in places]

    def _random_seeds(self, problem: Problem, kind: str, sample_ids: range) -> list[int]:
        return [derived_seed(self.seed, "critical_sample", kind, problem.task_id, sample_id) for sample_id in sample_ids]

    def _repair(self, groups: list[_Group], rows: dict[str, list[Sample]]) -> None:
        """Round 1 for groups of which no program passes: their programs become the repaired ones, judged."""
        if not groups:
            return
        requests: list[Request] = []
        origins: list[tuple[Sample, int]] = []
        for group, scored in zip(groups, self._values(groups, [group.programs for group in groups]), strict=True):
            values = [float(value.pooled[PASSED]) for _, value in scored]
            chosen = choose_repair_candidates([row.solution for row in group.programs], values, self.config.repair_candidates)
            next_id = len(rows[group.problem.task_id])
            for index, share in zip(chosen, share_budget(self.config.batch, [values[i] for i in chosen]), strict=True):
                sample_ids = range(next_id, next_id + share)
                next_id += share
                origins.extend((group.programs[index], sample_id) for sample_id in sample_ids)
                prompt = self._repair_prompt(group, group.programs[index])
                requests.append(Request(prompt, self._random_seeds(group.problem, "repair", sample_ids)))
        programs = generate(
            self.repair_model,
            self.repair_tokenizer,
            requests,
            decoding=self.config.repair_decoding,
            max_target_tokens=self.repair_lengths.max_target_tokens,
        )
        repaired = _rows_of(programs, origins, "repair", 1)
        for group in groups:
            group.programs = repaired[group.problem.task_id]
            rows[group.problem.task_id].extend(group.programs)
        self._judge(groups)

    def _repair_prompt(self, group: _Group, program: Sample) -> list[int]:
        outcome = group.outcomes[program.sample_id]
        message = outcome.error_message if self.include_message else None
        return encode_repair_prompt(
            self.repair_tokenizer,
            group.problem,
            program.solution,
            outcome.outcome,
            outcome.error_class,
            message,
            self.repair_lengths.max_source_tokens,
            self.repair_prompt.style,
        )

    def _refine(self, groups: list[_Group], rows: dict[str, list[Sample]]) -> None:
        """Round 2 for groups with passing programs."""
        if not groups:
            return
        requests: list[Request] = []
        origins: list[tuple[Sample, int]] = []
        passing = [group.passing() for group in groups]
        for group, parents, scored in zip(groups, passing, self._values(groups, passing), strict=True):
            seeds: list[list[int]] = []
            values: list[float] = []
            for parent, (tokens, value) in zip(parents, scored, strict=True):
                probabilities = value.probabilities if self.config.seed_values == "token" else value.prefix_probabilities
                rng = np.random.default_rng(derived_seed(self.seed, "critical_sample", "seed", parent.task_id, parent.sample_id))
                opened = not continues_prompt(self.critic_tokenizer) and self.critic_tokenizer.bos_token_id is not None
                end = self.critic_tokenizer.eos_token_id
                seeds.append(choose_seed(tokens, probabilities, self.config, rng, end_token=end, opened=opened))
                values.append(float(probabilities[len(seeds[-1]) - 1, PASSED]) if seeds[-1] else 0.0)
            shares = share_budget(self.config.batch, values)
            chosen = [place for place, share in enumerate(shares) for _ in range(share)]
            first_id = len(rows[group.problem.task_id])
            sample_ids = range(first_id, first_id + len(chosen))
            origins.extend(zip((parents[place] for place in chosen), sample_ids, strict=True))
            prompt = encode_prompt(self.tokenizer, group.problem, self.lengths.max_source_tokens, self.prompt.style)
            requests.append(Request(prompt, self._random_seeds(group.problem, "refine", sample_ids), [seeds[place] for place in chosen]))
        programs = generate(
            self.policy, self.tokenizer, requests, decoding=self.config.decoding, max_target_tokens=self.lengths.max_target_tokens
        )
        for task_id, refined in _rows_of(programs, origins, "refine", 2).items():
            rows[task_id].extend(refined)


def _rows_of(
    programs: Sequence[Generated], origins: Sequence[tuple[Sample, int]], kind: SampleKind, number: int
) -> dict[str, list[Sample]]:
    """Rows by task_id of programs that come from (parent, own sample_id), in the same order."""
    rows: dict[str, list[Sample]] = {}
    for program, (parent, sample_id) in zip(programs, origins, strict=True):
        row = to_sample(program, parent.task_id, sample_id, kind, round=number, parent=parent.sample_id)
        rows.setdefault(parent.task_id, []).append(row)
    return rows


# --------------------------------------------------------------------------------------------------- the stage


def critical_sample(
    *,
    config: CriticalSampleConfig,
    prompt: PromptConfig,
    lengths: LengthsConfig,
    repair_lengths: LengthsConfig,
    run_tests: RunTestsConfig,
    policy: Path,
    critic: Path,
    repair_model: Path,
    problems: Path,
    shard: int,
    seed: int,
    output: Path,
    work: Path | None = None,
    include_message: bool = False,
    repair_prompt: PromptConfig | None = None,
    precision: str = "fp32",
) -> None:
    """Critical sampling for shard `shard` of the problems; rows sorted by problem and sample_id.

    Args:
        config: of the stage.
        prompt: form of the policy's prompts.
        lengths: of the policy's prompts and programs.
        repair_lengths: of the repair model's.
        run_tests: limits and checker for the example tests.
        policy: model folder.
        critic: folder of the binary critic, which knows its own prompt form and lengths.
        repair_model: model folder.
        problems: problem file; its hidden tests are not used and may be missing.
        shard: from 0; the batches are those of the stage `sample` with as many batch_problems.
        seed: of the run.
        output: .jsonl.gz to write.
        work: folder for finished batches, from which a killed run continues; None = it starts anew.
        include_message: whether the repair model was trained to read the error message (train_repair.include_message).
        repair_prompt: form of the repair model's prompts; None = the canonical one.
        precision: of the weights of policy and repair model.

    Raises:
        ConfigError: no such shard.
        DataError: a bad problem file or model folder, a critic with other than two classes, or one whose tokens are not
            the policy's.
    """
    everything = read_problems(problems)
    device = default_device()
    repair_prompt = repair_prompt or PromptConfig()
    judge = OutcomeCritic.load(critic)
    if judge.settings.classes != 2:
        raise DataError(f"{critic}: a critic of {judge.settings.classes} classes; critical sampling needs `train-critic --classes 2`")
    sampler = CriticalSampler(
        policy=load_actor(policy, precision).to(device),
        tokenizer=load_tokenizer(policy),
        critic=judge.to(device),
        critic_tokenizer=load_tokenizer(critic),
        repair_model=load_actor(repair_model, precision).to(device),
        repair_tokenizer=load_tokenizer(repair_model),
        config=config,
        prompt=prompt,
        lengths=lengths,
        repair_prompt=repair_prompt,
        repair_lengths=repair_lengths,
        include_message=include_message,
        run_tests=run_tests,
        seed=seed,
    )
    if config.refine and sampler.critic_tokenizer.get_vocab() != sampler.tokenizer.get_vocab():
        raise DataError(
            f"{critic}: its tokenizer is not that of {policy}; seeds are tokens that both must read, so train it from the same base"
        )
    samples = run_batches(
        problem_batches(everything, config.batch_problems),
        shard=shard,
        shards=config.shards,
        draw=sampler.draw,
        output=output,
        work=work,
        key=content_hash(
            "critical_sample", config.model_copy(update={"shards": 1}), prompt, lengths, repair_lengths,
            run_tests.model_copy(update={"workers": 1}), include_message, repair_prompt, precision, seed,
            policy, critic, repair_model, problems,
        ),
        name=f"critical_sample {problems.stem}",
    )  # fmt: skip
    log_budget(samples, config)


def log_budget(samples: Sequence[Sample], config: CriticalSampleConfig) -> None:
    """Log programs and newly generated tokens of each round, and the problems that it reached."""
    everywhere = {row.task_id for row in samples}
    reached = {kind: {row.task_id for row in samples if row.kind == kind} for kind in ("sample", "resample", "repair", "refine")}
    for kind, tasks in reached.items():
        rows = [row for row in samples if row.kind == kind]
        LOG.info(
            "%s: %d programs, %d tokens, %d of %d problems",
            kind,
            len(rows),
            sum(r.n_tokens or 0 for r in rows),
            len(tasks),
            len(everywhere),
        )
    if config.refine:
        LOG.info(
            "%d problems were repaired without success, %d have neither round (no example tests, or no repair)",
            len(reached["repair"] - reached["refine"]), len(everywhere - reached["repair"] - reached["refine"]),
        )  # fmt: skip
