"""Stage `rl_finetune`: policies from the actor, by the policy gradient with token values of spec 6.

With `rounds: 1` it is what CodeRL published: offline, over samples drawn once from the warm-started actor, with returns and
values computed before. More rounds sample, judge and score again with the last policy. As published there is no ratio, no clipping, no
KL term and no entropy term (spec 6.3); what later work added is an option of the variant (spec 10: RLTF, GRPO, PPO).
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coderl.config import PolicyVariant, RlFinetuneConfig, RunTestsConfig, SampleSetConfig, section_json
from coderl.critic import read_values, score_samples
from coderl.models import OutcomeCritic, collate_pairs, load_actor, load_tokenizer, program_logits
from coderl.objectives import (
    IGNORED,
    cross_entropy_sum,
    distance_values,
    kl_sum,
    policy_loss_sum,
    relative_returns,
    token_log_probabilities,
)
from coderl.problems import Problem, read_problems
from coderl.problems.prompts import encode_program, encode_prompt, line_span
from coderl.records import OUTCOMES, DataError, OutcomeRow, Sample, read_outcomes, read_samples
from coderl.sampling.stage import draw_samples, problem_batches
from coderl.sandbox.stage import judge_samples
from coderl.seeds import derived_seed
from coderl.training import first_process, from_first_process, model_folder, train, write_log

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experience:
    """One sampled program, ready for the loss: `returns` as the gradient takes it, `values` one per token of `program`.

    `fine` is the weight of RLTF's fine-grained feedback on each token, `old` its log p under the policy that drew it; both are
    empty where the variant does not use them.
    """

    prompt: list[int]
    program: list[int]
    returns: float
    values: list[float]
    fine: list[float] = field(default_factory=list)
    old: list[float] = field(default_factory=list)


FINE_RETURN = -0.3
"""R_f of spec 10.2."""
IGNORED_ERRORS = ("indentationerror", "taberror")
"""Spec 10.2: no fine-grained feedback on them; nor on a string that does not end."""
GLOBAL_ERRORS = ("timeoutexception", "recursionerror", "memoryerror", "outputlimitexceeded")
"""Spec 10.2: the whole program is at fault; ours: memory and output too."""


def fine_weights(row: OutcomeRow, length: int, span: tuple[int, int] | None) -> list[float]:
    """Weights of RLTF's fine-grained feedback for a program of `length` tokens (spec 10.2); [] where there is none.

    T / (E - S) on the tokens S..E of the line where the error arose, 0 elsewhere; 1 everywhere for errors that no one line
    makes: time, recursion, a source that ends too early.

    Args:
        row: outcome of the program.
        length: T.
        span: tokens of the line `row.error_line`; None = not known.
    """
    message = row.error_message or ""
    if row.error_class is None or row.error_class in IGNORED_ERRORS or "triple-quoted" in message:
        return []
    if row.error_class in GLOBAL_ERRORS or "unexpected EOF" in message or "was never closed" in message:
        return [1.0] * length
    if span is None:
        return []
    start, end = span
    return [length / (end - start) if start <= place < end else 0.0 for place in range(length)]


def make_experience(
    variant: PolicyVariant,
    rewards: dict[str, float],
    samples: list[Sample],
    outcomes: dict[tuple[str, int], OutcomeRow],
    token_values: Mapping[tuple[str, int], NDArray[np.float32]],
    encode: Callable[[Sample], tuple[list[int], list[int]]],
    span: Callable[[Sample, int], tuple[int, int] | None] | None = None,
) -> list[Experience]:
    """The programs of the policy's half of a step.

    A relative return of 0 contributes exactly nothing (spec 6.2), and such programs are left out where the loss is a mean over
    programs (`program_mean`, ours). The paper's sum and the official code's mean keep them: there they count in the
    denominator, and as many correct programs stand beside them.

    Args:
        variant: which returns, values and losses.
        rewards: return of each outcome.
        samples: of all problems; the greedy program of a problem is its baseline.
        outcomes: on the hidden tests; a sample without one is left out.
        token_values: probabilities [T, C] of the outcomes after each token, by (task_id, sample_id); read for values "critic".
        encode: prompt and program ids of a sample.
        span: places of the tokens of a line of a sample's program; read for fine-grained feedback alone.

    Raises:
        DataError: greedy-relative returns without greedy programs, or values that do not fit the program's tokens.
    """
    groups: dict[str, list[Sample]] = defaultdict(list)
    baselines: dict[str, float] = {}
    for sample in samples:
        row = outcomes.get((sample.task_id, sample.sample_id))
        if row is None:
            continue
        if sample.kind == "greedy":
            baselines[sample.task_id] = _return(variant, rewards, row)
        else:
            groups[sample.task_id].append(sample)
    experience = []
    for task_id, group in groups.items():
        rows = [outcomes[task_id, sample.sample_id] for sample in group]
        raw = [_return(variant, rewards, row) for row in rows]
        if variant.losses == "ce_on_samples":
            relative = [1.0] * len(raw)
        elif variant.returns == "greedy_relative" and task_id not in baselines:
            raise DataError(f"problem {task_id!r} has no greedy program for the baseline; set `greedy: true` in the sample section")
        else:
            relative = relative_returns(raw, baselines.get(task_id), variant.returns)
        for sample, row, value in zip(group, rows, relative, strict=True):
            prompt, program = encode(sample)
            fine: list[float] = []
            if variant.fine_weight and variant.losses in ("rl", "ce+rl") and row.error_class is not None:
                where = span(sample, row.error_line) if span is not None and row.error_line is not None else None
                fine = fine_weights(row, len(program), where)
            if value == 0.0 and variant.token_reduction == "program_mean" and not fine:
                continue
            if variant.values == "none" or variant.losses == "ce_on_samples":
                values = [1.0] * len(program)
            elif variant.values == "distance":
                values = distance_values(len(program))
            else:
                if (task_id, sample.sample_id) not in token_values:
                    raise DataError(f"no values of {task_id!r}, sample {sample.sample_id}; run `coderl score` on these samples")
                found = token_values[task_id, sample.sample_id]
                if len(found) != len(program):
                    raise DataError(
                        f"values of {task_id!r}, sample {sample.sample_id}: {len(found)} tokens, but the program has {len(program)}; "
                        "were they made with another tokenizer or max_target_tokens? Run `coderl score` again"
                    )
                values = [float(v) for v in found[:, OUTCOMES.index(row.outcome)]]
            experience.append(Experience(prompt, program, value, values, fine))
    return experience


def _return(variant: PolicyVariant, rewards: dict[str, float], row: OutcomeRow) -> float:
    """r of a program: of its outcome, or with RLTF's adaptive feedback between r(failed) and r(passed) (spec 10.2)."""
    if variant.failed_return == "share_of_tests" and row.outcome == "failed_test":
        return rewards["failed_test"] + (rewards["passed_test"] - rewards["failed_test"]) * row.n_passed / row.n_tests
    return rewards[row.outcome]


@torch.no_grad()
def with_old_probabilities(model: nn.Module, experience: Sequence[Experience], pad: int, batch_tokens: int = 16384) -> list[Experience]:
    """The experience with log p of its tokens under `model`: what a ratio or a KL term compares with."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    order = sorted(range(len(experience)), key=lambda i: len(experience[i].prompt) + len(experience[i].program))
    found = list(experience)
    while order:
        longest = len(experience[order[-1]].prompt) + len(experience[order[-1]].program)
        rows = order[-max(1, batch_tokens // longest) :]
        del order[-len(rows) :]
        pairs = collate_pairs([experience[i].prompt for i in rows], [experience[i].program for i in rows], pad)
        batch = {key: tensor.to(device) for key, tensor in pairs.items()}
        log_p = token_log_probabilities(program_logits(model, **batch), batch["program_ids"]).cpu()
        for row, i in enumerate(rows):
            found[i] = replace(experience[i], old=log_p[row, : len(experience[i].program)].tolist())
    model.train(was_training)
    return found


def statistics(rewards: dict[str, float], samples: list[Sample], outcomes: dict[tuple[str, int], OutcomeRow]) -> dict[str, float]:
    """mean_return and share_<outcome> over all judged samples of a round, those without a gradient too (without the greedy ones)."""
    found: list[str] = [outcomes[key].outcome for s in samples if s.kind != "greedy" and (key := (s.task_id, s.sample_id)) in outcomes]
    if not found:
        return {}
    shares = {name: found.count(name) / len(found) for name in OUTCOMES}
    return {"mean_return": sum(rewards[name] * share for name, share in shares.items())} | {
        f"share_{name}": share for name, share in shares.items()
    }


class PolicyExamples:
    """Half cross entropy on correct programs, half policy gradient on samples (spec 6.3), or one of the two."""

    def __init__(
        self, variant: PolicyVariant, experience: list[Experience], pairs: list[tuple[list[int], list[list[int]]]], pad: int, seed: int
    ) -> None:
        self.variant, self.pad, self.seed = variant, pad, seed
        self.experience = experience if variant.losses != "ce" else []
        self.pairs = pairs if variant.losses != "rl" else []

    def epoch(self, epoch: int) -> list[tuple[int, int]]:
        """(-1, i) for sample i, (i, j) for program j of problem i; as many of the second as of the first."""
        rng = random.Random(derived_seed(self.seed, "policy", epoch))
        items = [(-1, i) for i in range(len(self.experience))]
        count = len(items) if self.experience else sum(len(programs) for _, programs in self.pairs)
        if self.pairs:
            order: list[int] = []
            while len(order) < count:
                order += rng.sample(range(len(self.pairs)), len(self.pairs))
            items += [(i, rng.randrange(len(self.pairs[i][1]))) for i in order[:count]]
        return items

    def lengths(self, item: tuple[int, int]) -> tuple[int, int]:
        """Source and target tokens."""
        if item[0] < 0:
            return len(self.experience[item[1]].prompt), len(self.experience[item[1]].program)
        prompt, programs = self.pairs[item[0]]
        return len(prompt), len(programs[item[1]])

    def collate(self, items: list[tuple[int, int]]) -> dict[str, Tensor]:
        """One step of both kinds of rows.

        prompt_ids, prompt_mask [B, S]; program_ids, values [B, T], and where the variant needs them fine, old [B, T]; from_policy,
        returns, token_scale [B];
        normaliser_ce = tokens, normaliser_rl = programs or tokens of the step.
        """
        rows = [self.experience[j] if i < 0 else Experience(self.pairs[i][0], self.pairs[i][1][j], 0.0, []) for i, j in items]
        batch = collate_pairs([row.prompt for row in rows], [row.program for row in rows], self.pad)
        values, fine, old = (torch.zeros(batch["program_ids"].shape) for _ in range(3))
        for k, row in enumerate(rows):
            values[k, : len(row.values)] = torch.tensor(row.values)
            fine[k, : len(row.fine)] = torch.tensor(row.fine)
            old[k, : len(row.old)] = torch.tensor(row.old)
        lengths = (batch["program_ids"] != IGNORED).sum(1)
        from_policy = torch.tensor([i < 0 for i, _ in items])
        per_program = self.variant.token_reduction == "program_mean"
        in_tokens = self.variant.token_reduction == "mean"
        batch |= {
            "values": values,
            "from_policy": from_policy,
            "returns": torch.tensor([row.returns for row in rows]),
            "token_scale": 1 / lengths if per_program else torch.ones(len(rows)),
            "normaliser_ce": lengths[~from_policy].sum().clamp(min=1),
            "normaliser_rl": (lengths[from_policy].sum() if in_tokens else from_policy.sum()).clamp(min=1),
            "normaliser_programs": from_policy.sum().clamp(min=1),
            "normaliser_policy_tokens": lengths[from_policy].sum().clamp(min=1),
        }
        if self.variant.fine_weight:
            batch["fine"] = fine
        if self.variant.clip is not None or self.variant.kl_weight:
            batch["old"] = old
        return batch


def policy_objective(variant: PolicyVariant) -> Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]:
    """L_ce + rl_weight * L_rl, and fine_weight * L_fine and kl_weight * KL where asked for, of one micro-batch of PolicyExamples.

    Logged, as means over the sampled programs of the steps: loss_ce, loss_rl, mean_relative_return and mean_value (the critic's
    weight per token).
    """

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        labels, sampled = batch["program_ids"], batch["from_policy"]
        logits = program_logits(model, batch["prompt_ids"], batch["prompt_mask"], labels)
        ce = cross_entropy_sum(logits, labels.masked_fill(sampled[:, None], IGNORED)) / batch["normaliser_ce"]
        drawn = labels.masked_fill(~sampled[:, None], IGNORED)
        rl = policy_loss_sum(
            logits,
            drawn,
            batch["values"],
            batch["returns"],
            negative_returns=variant.negative_returns,
            negative_weight=variant.negative_weight,
            token_scale=batch["token_scale"],
            old=batch.get("old"),
            clip=variant.clip,
        )
        rl = rl / batch["normaliser_rl"]
        programs = batch["normaliser_programs"]
        metrics = {
            "loss_ce": ce,
            "loss_rl": rl,
            "mean_relative_return": batch["returns"].sum() / programs,
            "mean_value": batch["values"].sum() / batch["normaliser_policy_tokens"],
        }
        total = ce + variant.rl_weight * rl
        if variant.fine_weight:
            fine = policy_loss_sum(
                logits,
                drawn,
                batch["fine"],
                torch.full_like(batch["returns"], FINE_RETURN),
                negative_returns=variant.negative_returns,
                negative_weight=variant.negative_weight,
                token_scale=batch["token_scale"],
            )
            metrics["loss_fine"] = fine / batch["normaliser_rl"]
            total = total + variant.fine_weight * metrics["loss_fine"]
        if variant.kl_weight:
            metrics["kl"] = kl_sum(logits, drawn, batch["old"], batch["token_scale"]) / batch["normaliser_rl"]
            total = total + variant.kl_weight * metrics["kl"]
        return total, metrics

    return loss


def correct_programs(
    problems: list[Problem], samples: list[Sample], outcomes: dict[tuple[str, int], OutcomeRow], with_samples: bool
) -> dict[str, list[str]]:
    """Programs for the cross entropy, by task: reference solutions, or the distinct passing samples where there are none."""
    programs = {problem.task_id: list(problem.solutions) for problem in problems if problem.solutions}
    if not with_samples:
        return programs
    own: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        row = outcomes.get((sample.task_id, sample.sample_id))
        passed = row is not None and row.outcome == "passed_test"
        if passed and sample.task_id not in programs and sample.solution not in own[sample.task_id]:
            own[sample.task_id].append(sample.solution)
    return programs | {task: found for task, found in own.items() if found}


def rl_finetune(
    *,
    config: RlFinetuneConfig,
    variant: str,
    actor: Path,
    problems: Path,
    samples: list[Path],
    outcomes: list[Path],
    values: Path | None,
    critic: Path | None = None,
    sampling: SampleSetConfig | None = None,
    run_tests: RunTestsConfig | None = None,
    seed: int,
    output: Path,
    work: Path,
) -> None:
    """Fine-tune the actor to the policy `variant`; writes a Hugging Face folder.

    Args:
        config: all variants; one is trained.
        variant: its name.
        actor: folder of the warm-started actor.
        problems: train problems.
        samples: the actor's programs for them, greedy ones included.
        outcomes: theirs on the hidden tests.
        values: of the samples, by the score stage; None unless the variant's values are "critic".
        critic: folder of the 4-class critic, for rounds > 1 with values "critic".
        sampling: how later rounds sample; rounds > 1 only.
        run_tests: how later rounds judge; rounds > 1 only.
        seed: of order and sampling.
        output: folder to write.
        work: folder for checkpoints, removed at the end.

    Raises:
        DataError: unknown variant, missing baselines or values.
    """
    if variant not in config.variants:
        raise DataError(f"rl_finetune has no variant {variant!r}; variants are {', '.join(config.variants)}")
    chosen = config.variants[variant]
    needs_values = chosen.values == "critic" and chosen.losses in ("rl", "ce+rl")
    if needs_values and values is None:
        raise DataError(f"variant {variant!r} takes its values from the critic: give --values (made by `coderl score`)")
    if chosen.rounds > 1 and (sampling is None or run_tests is None or (needs_values and critic is None)):
        raise DataError(f"variant {variant!r} has {chosen.rounds} rounds: give --sample-config, --run-tests-config and --critic")
    tokenizer, model = load_tokenizer(actor), load_actor(actor)
    table = read_problems(problems)
    prompts = {p.task_id: encode_prompt(tokenizer, p, config.lengths.max_source_tokens, config.prompt.style) for p in table}

    def encode(sample: Sample) -> tuple[list[int], list[int]]:
        if sample.task_id not in prompts:
            raise DataError(f"samples hold task_id {sample.task_id!r}, which is not in {problems}")
        return prompts[sample.task_id], encode_program(tokenizer, sample.solution, config.lengths.max_target_tokens)

    def span(sample: Sample, line: int) -> tuple[int, int] | None:
        return line_span(tokenizer, sample.solution, line, config.lengths.max_target_tokens)

    drawn, judged = read_samples(samples), read_outcomes(outcomes)
    found: Mapping[tuple[str, int], NDArray[np.float32]] = read_values(values) if needs_values and values else {}

    def again(number: int) -> tuple[list[Sample], dict[tuple[str, int], OutcomeRow], Mapping[tuple[str, int], NDArray[np.float32]]]:
        """Programs of the policy so far, their outcomes and values."""
        assert sampling is not None
        assert run_tests is not None
        drawn = [
            sample
            for batch in problem_batches(table, sampling.batch_problems)
            for sample in draw_samples(
                model,
                tokenizer,
                batch,
                sample_ids=range(sampling.samples_per_problem),
                greedy=sampling.greedy,
                decoding=sampling.decoding,
                prompt=config.prompt,
                lengths=config.lengths,
                seed=derived_seed(seed, "round", number),
            )
        ]
        judged = {(row.task_id, row.sample_id): row for row in judge_samples(table, drawn, run_tests, suite="hidden")}
        if not needs_values:
            return drawn, judged, {}
        assert critic is not None
        return drawn, judged, score_samples(OutcomeCritic.load(critic), tokenizer, table, drawn)

    log: list[dict[str, float]] = []
    correct: dict[str, list[str]] = {}
    for number in range(chosen.rounds):
        folder = work / f"round{number}"
        if number > 0:
            drawn, judged, found = from_first_process(partial(again, number))
        for task, texts in correct_programs(table, drawn, judged, chosen.ce_on_passing_samples).items():
            # What passed in an earlier round is as correct as before.
            correct[task] = list(dict.fromkeys([*correct.get(task, []), *texts]))
        pairs = [
            (prompts[task], [encode_program(tokenizer, text, config.lengths.max_target_tokens) for text in texts])
            for task, texts in correct.items()
        ]
        rewards = {str(name): value for name, value in config.rewards.items()}
        experience = make_experience(chosen, rewards, drawn, judged, found, encode, span) if chosen.losses != "ce" else []
        if chosen.clip is not None or chosen.kl_weight:
            experience = with_old_probabilities(model, experience, tokenizer.pad_token_id)
        logger.info("round %d: %d programs, %d problems with correct programs", number, len(experience), len(pairs))
        examples = PolicyExamples(chosen, experience, pairs, tokenizer.pad_token_id, derived_seed(seed, "round", number))
        rows = train(
            model,
            examples,
            policy_objective(chosen),
            chosen.training,
            settings=section_json(config.model_copy(update={"variants": {variant: chosen}})),
            seed=derived_seed(seed, "rl", number),
            work=folder,
        )
        seen = statistics(rewards, drawn, judged)
        log += [{**row, **seen, "round": float(number)} for row in rows]
    if not first_process():
        return
    with model_folder(output, work) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_log(folder, log)
