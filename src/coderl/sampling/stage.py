"""The stage `sample`: programs for a problem set, in shards, resumable.

Batches are made from the whole problem list before they are dealt out to the shards, and a finished batch is kept in the
work folder under a name that says what it was made from. So neither the number of shards nor a resume changes a program,
and nothing that another model or configuration left behind is used.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tqdm import tqdm
from transformers import PreTrainedModel

from coderl.config import ConfigError, DecodingConfig, LengthsConfig, PromptConfig, SampleSetConfig, section_json
from coderl.models import default_device, load_actor, load_tokenizer
from coderl.problems import Problem, read_problems
from coderl.problems.prompts import encode_prompt
from coderl.records import PROVENANCE_FILE, DataError, Sample, SampleKind, check_suffix, read_samples, write_samples
from coderl.sampling.generation import Generated, Request, generate
from coderl.seeds import derived_seed

LOG = logging.getLogger(__name__)


def problem_batches(problems: Sequence[Problem], size: int) -> list[list[Problem]]:
    """Problems in file order, `size` to a batch (the last may be smaller)."""
    return [list(problems[start : start + size]) for start in range(0, len(problems), size)]


def content_hash(*parts: Path | BaseModel | str | int) -> str:
    """Hash over settings and over the bytes of files, or of all files of folders (names included; no records of provenance)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            inside = sorted(path for path in part.rglob("*") if path.is_file() and path.name != PROVENANCE_FILE)
            for path in inside if part.is_dir() else [part]:
                digest.update(f"\x1e{path.relative_to(part) if part.is_dir() else ''}\x1f".encode())
                with open(path, "rb") as content:
                    while block := content.read(1 << 20):
                        digest.update(block)
        else:
            digest.update(f"\x1e{section_json(part) if isinstance(part, BaseModel) else part}".encode())
    return digest.hexdigest()


def run_batches(
    batches: Sequence[list[Problem]],
    *,
    shard: int,
    shards: int,
    draw: Callable[[list[Problem]], list[Sample]],
    output: Path,
    work: Path | None,
    key: str,
    name: str,
) -> list[Sample]:
    """Draw the batches of one shard, or take them from `work`, and write them all to `output`.

    Args:
        batches: of the whole problem list; the shard's are batches[shard::shards].
        shard: from 0.
        shards: how many.
        draw: gives the samples of a batch of problems, in their final order.
        output: .jsonl or .jsonl.gz, written at the end.
        work: folder for finished batches, emptied of this shard's at the end; None = a killed run starts anew.
        key: content_hash of all that decides the samples.
        name: of the stage and file, for the progress bar.

    Returns:
        All samples written.

    Raises:
        ConfigError: no such shard, or nothing in it.
        DataError: an output whose suffix is unknown.
    """
    if not 0 <= shard < shards:
        raise ConfigError(f"--shard {shard}: there are {shards} shards, numbered from 0 to {shards - 1}")
    check_suffix(output)  # now, not after hours of sampling
    numbers = range(shard, len(batches), shards)
    if not numbers:
        raise ConfigError(f"{shards} shards, but only {len(batches)} batches of problems: lower `shards` or `batch_problems`")
    samples: list[Sample] = []
    finished: list[Path] = []
    drawn = tokens = 0
    start = time.perf_counter()
    for place, number in enumerate(tqdm(numbers, desc=name, unit="batch", disable=None)):
        path = work / f"{key[:24]}-{number:06d}.jsonl.gz" if work is not None else None
        rows = _finished_batch(path)
        if rows is None:
            rows = draw(batches[number])
            drawn += len(rows)
            tokens += sum(row.n_tokens or 0 for row in rows)
            if path is not None:
                write_samples(path, rows)
            seconds = time.perf_counter() - start
            LOG.info("%s: batch %d of %d, %d programs, %.1f s", name, place + 1, len(numbers), drawn, seconds)
        samples.extend(rows)
        if path is not None:
            finished.append(path)
    write_samples(output, samples)
    for path in finished:
        path.unlink(missing_ok=True)
    seconds = max(time.perf_counter() - start, 1e-9)
    LOG.info(
        "%s: %d programs (%d taken from a killed run), %d new tokens, %.1f programs/s, %.0f tokens/s",
        name, len(samples), len(samples) - drawn, tokens, drawn / seconds, tokens / seconds,
    )  # fmt: skip
    return samples


def _finished_batch(path: Path | None) -> list[Sample] | None:
    """The samples of a finished batch; None = to be drawn."""
    if path is None or not path.exists():
        return None
    try:
        return read_samples(path)
    except (DataError, TypeError) as error:  # a damaged disk, or a file that somebody edited
        LOG.warning("%s: cannot be read (%s), drawn again", path, error)
        return None


def draw_samples(
    model: PreTrainedModel,
    tokenizer: Any,
    problems: Sequence[Problem],
    *,
    sample_ids: Sequence[int],
    greedy: bool,
    decoding: DecodingConfig,
    prompt: PromptConfig,
    lengths: LengthsConfig,
    seed: int,
) -> list[Sample]:
    """Plain samples of one batch of problems, and with `greedy` one greedy program more, numbered after them."""
    requests = []
    for problem in problems:
        ids = encode_prompt(tokenizer, problem, lengths.max_source_tokens, prompt.style)
        seeds: list[int | None] = [derived_seed(seed, "sample", problem.task_id, sample_id) for sample_id in sample_ids]
        requests.append(Request(ids, [*seeds, None] if greedy else seeds))
    programs = iter(generate(model, tokenizer, requests, decoding=decoding, max_target_tokens=lengths.max_target_tokens))
    samples = []
    for problem in problems:
        for sample_id in sample_ids:
            samples.append(to_sample(next(programs), problem.task_id, sample_id, "sample"))
        if greedy:
            samples.append(to_sample(next(programs), problem.task_id, max(sample_ids, default=-1) + 1, "greedy"))
    return samples


def to_sample(program: Generated, task_id: str, sample_id: int, kind: SampleKind, round: int = 0, parent: int | None = None) -> Sample:
    """The row of a program. log_likelihood is rounded to 4 decimals; float32 sums hold no more."""
    return Sample(
        task_id=task_id,
        sample_id=sample_id,
        solution=program.text,
        kind=kind,
        round=round,
        parent=parent,
        log_likelihood=float(f"{program.log_likelihood:.4f}"),
        n_tokens=program.n_tokens,
        finished=program.finished,
    )


def sample(
    *,
    config: SampleSetConfig,
    prompt: PromptConfig,
    lengths: LengthsConfig,
    model: Path,
    problems: Path,
    shard: int,
    seed: int,
    output: Path,
    work: Path | None = None,
    precision: str = "fp32",
) -> None:
    """Draw programs for shard `shard` of the problems (spec 3), sorted by problem and sample_id.

    The greedy program, if asked for, has sample_id = samples_per_problem and kind "greedy".

    Raises:
        ConfigError: no such shard.
        DataError: a bad problem file or model folder.
    """
    everything = read_problems(problems)
    actor, tokenizer = load_actor(model, precision), load_tokenizer(model)
    actor.to(default_device())

    count = config.samples_per_problem
    at_once = config.batch_programs or count

    def draw(batch: list[Problem]) -> list[Sample]:
        drawn: list[Sample] = []
        for start in range(0, count, at_once):
            drawn += draw_samples(
                actor,
                tokenizer,
                batch,
                sample_ids=range(start, min(start + at_once, count)),
                greedy=config.greedy and start + at_once >= count,
                decoding=config.decoding,
                prompt=prompt,
                lengths=lengths,
                seed=seed,
            )
        order = {problem.task_id: place for place, problem in enumerate(batch)}
        return sorted(drawn, key=lambda sample: (order[sample.task_id], sample.sample_id))

    settings = config.model_copy(update={"shards": 1})
    run_batches(
        problem_batches(everything, config.batch_problems),
        shard=shard,
        shards=config.shards,
        draw=draw,
        output=output,
        work=work,
        key=content_hash("sample", settings, prompt, lengths, precision, seed, model, problems),
        name=f"sample {problems.stem}",
    )
