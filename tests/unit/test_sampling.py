"""Sampling against transformers' own generate and logits processors, and the stage under shards, kills and stale work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tiny_models import save_tiny, tiny_llama, tiny_t5, tiny_tokenizer
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from coderl.config import ConfigError, DecodingConfig, LengthsConfig, PromptConfig, SampleSetConfig
from coderl.models import collate_pairs, program_logits
from coderl.problems import Problem, write_problems
from coderl.records import DataError, Sample, read_samples
from coderl.sampling import Generated, Request, generate, generation, sample, stage

END = 2
PROMPTS = [[1, 10, 20, 30, 2], [1, 40, 2], [1, 5, 6, 7, 8, 9, 100, 2], [1, 250, 3, 2]]
GREEDY = DecodingConfig(temperature=0)
PLAIN = DecodingConfig(temperature=1.0, top_p=1.0)


def lively(model: Any, end_logit: float) -> Any:
    """The model with a sharper distribution that depends on the context, and an end token of about the given logit."""
    head = torch.nn.Linear(model.lm_head.in_features, model.lm_head.out_features)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * (2.0 if model.config.model_type == "t5" else 0.8))
        head.bias.zero_()
        head.weight[END] = 0
        head.bias[END] = end_logit
    model.lm_head = head
    return model.eval()


def t5(end_logit: float = 3.0) -> Any:
    model = tiny_t5()
    model.config.tie_word_embeddings = False
    return lively(model, end_logit)


def llama(end_logit: float = 7.0) -> Any:
    return lively(tiny_llama(tied=False), end_logit)


def gpt2(end_logit: float = 7.0) -> Any:
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END}
    return lively(GPT2LMHeadModel(GPT2Config(vocab_size=261, n_positions=48, n_embd=16, n_layer=1, n_head=2, **ids)), end_logit)


def bart(end_logit: float = 7.0) -> Any:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=261, max_position_embeddings=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, d_model=16, dropout=0.0,
        pad_token_id=0, bos_token_id=1, eos_token_id=END,
        decoder_start_token_id=0, forced_eos_token_id=None, init_std=0.5,
    )  # fmt: skip
    return lively(BartForConditionalGeneration(config), end_logit)


MODELS = {"t5": t5, "bart": bart, "llama": llama, "gpt2": gpt2}


def draw(model: Any, requests: list[Request], decoding: DecodingConfig = PLAIN, limit: int = 24) -> list[Generated]:
    return generate(model, tiny_tokenizer(), requests, decoding=decoding, max_target_tokens=limit)


def transformers_greedy(model: Any, prompt: list[int], prefix: list[int], limit: int) -> list[int]:
    """The program that transformers' generate gives for one prompt alone, up to and with the end token."""
    options = {"do_sample": False, "max_new_tokens": limit - len(prefix), "eos_token_id": END, "pad_token_id": 0}
    if model.config.is_encoder_decoder:
        rows = model.generate(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0, *prefix]]), **options)
        return rows[0].tolist()[1:]
    ids = torch.tensor([[*prompt, *prefix]])
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)[0].tolist()[len(prompt) :]


# --------------------------------------------------------------------------------------------------- generate


@pytest.mark.parametrize("kind", MODELS)
def test_greedy_is_transformers_greedy(kind: str) -> None:
    model = MODELS[kind]()
    programs = draw(model, [Request(prompt, [7]) for prompt in PROMPTS], GREEDY)
    expected = [transformers_greedy(model, prompt, [], 24) for prompt in PROMPTS]
    assert [program.tokens for program in programs] == expected
    assert len({tuple(tokens) for tokens in expected}) > 1, "the models must depend on the prompt for this test to say anything"


@pytest.mark.parametrize("kind", MODELS)
def test_prefixes_are_kept_and_continued(kind: str) -> None:
    """Prefixes of lengths on both sides of the steps at which rows enter, in one batch."""
    model = MODELS[kind](-1.0)
    prefixes = [[1], [1, 50, 60], list(range(30, 38)), list(range(20, 37)), [], list(range(100, 123))]
    requests = [Request(prompt, [None] * len(prefixes), prefixes) for prompt in PROMPTS[:3]]
    programs = draw(model, requests, PLAIN, 24)
    for number, program in enumerate(programs):
        prompt, prefix = PROMPTS[number // len(prefixes)], prefixes[number % len(prefixes)]
        assert program.tokens == transformers_greedy(model, prompt, prefix, 24)
        assert program.tokens[: len(prefix)] == prefix
        assert program.n_tokens == len(program.tokens) - len(prefix)


def test_end_token_and_length_limit() -> None:
    programs = draw(t5(), [Request(PROMPTS[0], range(200))], PLAIN, 24)
    assert {program.finished for program in programs} == {True, False}
    for program in programs:
        assert program.finished == (program.tokens[-1] == END)
        assert END not in program.tokens[:-1]
        assert len(program.tokens) <= 24
        assert program.finished or len(program.tokens) == 24


def test_first_token_that_is_start_and_end_in_one() -> None:
    """Many causal models have one token for both: programs open with it, and the next one ends them."""
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token
    model = llama(end_logit=1000.0)
    (program,) = generate(model, tokenizer, [Request(PROMPTS[0], [None])], decoding=PLAIN, max_target_tokens=10)
    assert (program.tokens, program.finished) == ([END, END], True)
    assert draw(model, [Request(PROMPTS[0], [None])])[0].tokens == [END]


def test_a_prefix_as_long_as_the_limit_comes_back() -> None:
    programs = draw(t5(), [Request(PROMPTS[0], [1, 2], [[1] * 24, [1] * 23])], PLAIN, 24)
    assert programs[0] == Generated([1] * 24, "", 0.0, 0, False)
    assert programs[1].n_tokens == 1


@pytest.mark.parametrize("kind", MODELS)
def test_programs_depend_on_their_seed_alone(kind: str) -> None:
    model = MODELS[kind]()
    together = draw(model, [Request(prompt, range(10)) for prompt in PROMPTS])
    assert len({tuple(program.tokens) for program in together}) > 20
    for place, program in enumerate(together):
        if place % 7 == 0:
            alone = draw(model, [Request(PROMPTS[place // 10], [place % 10])])[0]
            assert alone.tokens == program.tokens
            assert alone.log_likelihood == pytest.approx(program.log_likelihood, abs=1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_dropping_rows_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[kind]()
    requests = [Request(prompt, range(12), [[1] * (n % 5) for n in range(12)]) for prompt in PROMPTS]
    results = []
    for every, below in ((1, 1.1), (1000, 0.0), (4, 0.7)):
        monkeypatch.setattr(generation, "_DROP_EVERY", every)
        monkeypatch.setattr(generation, "_DROP_BELOW", below)
        results.append(draw(model, requests))
    assert len({len(program.tokens) for program in results[0]}) > 3
    for other in results[1:]:
        assert [program.tokens for program in other] == [program.tokens for program in results[0]]
        assert [p.log_likelihood for p in other] == pytest.approx([p.log_likelihood for p in results[0]], abs=1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_log_likelihood_is_that_of_teacher_forcing(kind: str) -> None:
    """Temperature 1 and the whole vocabulary whatever was drawn from; end token in, prefix out."""
    model = MODELS[kind]()
    requests = [Request(prompt, range(6), [[1] * (n % 3) for n in range(6)]) for prompt in PROMPTS]
    programs = draw(model, requests, DecodingConfig(temperature=0.6, top_p=0.9, top_k=20))
    batch = collate_pairs([PROMPTS[n // 6] for n in range(len(programs))], [program.tokens for program in programs], 0)
    with torch.no_grad():
        scores = program_logits(model, **batch).log_softmax(-1)
    for row, program in enumerate(programs):
        known, length = len(program.tokens) - program.n_tokens, len(program.tokens)
        expected = sum(float(scores[row, t, program.tokens[t]]) for t in range(known, length))
        assert program.log_likelihood == pytest.approx(expected, abs=1e-3)


def test_the_model_samples_without_dropout_and_stays_in_training() -> None:
    model = t5()
    expected = draw(model, [Request(PROMPTS[0], range(5))])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    model.train()
    assert draw(model, [Request(PROMPTS[0], range(5))]) == expected
    assert model.training


def test_greedy_rows_beside_sampled_ones() -> None:
    model = t5()
    mixed = draw(model, [Request(PROMPTS[0], [3, None, 4])], PLAIN)
    assert mixed[1].tokens == draw(model, [Request(PROMPTS[0], [0])], GREEDY)[0].tokens
    assert [mixed[0].tokens, mixed[2].tokens] == [program.tokens for program in draw(model, [Request(PROMPTS[0], [3, 4])], PLAIN)]


def test_first_token_has_the_softmax_distribution() -> None:
    model = t5()
    logits = program_logits(model, torch.tensor([PROMPTS[0]]), torch.ones(1, 5, dtype=torch.long), torch.tensor([[1]]))[0, 0]
    probabilities = (logits.detach().double() / 1.5).softmax(-1).numpy()
    count = 6000
    programs = draw(model, [Request(PROMPTS[0], range(count))], DecodingConfig(temperature=1.5, top_p=1.0), limit=1)
    observed = np.bincount([program.tokens[0] for program in programs], minlength=261)
    common = probabilities * count >= 5
    rest = ~common
    expected = np.append(probabilities[common], probabilities[rest].sum()) * count
    assert common.sum() > 20
    assert chisquare(np.append(observed[common], observed[rest].sum()), expected).pvalue > 1e-3


def test_text_is_decoded_without_clean_up() -> None:
    """Hugging Face's clean-up would delete the blanks before . ? ! , and inside n't (spec 3)."""
    tokenizer = tiny_tokenizer()
    tokenizer.clean_up_tokenization_spaces = True
    text = "print(' a . b , c ! d ? do n't  'm ')\n\n\tx\n"
    prefix = [1, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    model = t5(end_logit=1000.0)
    (program,) = generate(model, tokenizer, [Request(PROMPTS[0], [0], [prefix])], decoding=PLAIN, max_target_tokens=80)
    assert program.tokens == [*prefix, END]
    assert program.text == text


def test_requests_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        draw(t5(), [Request([], [1])])
    with pytest.raises(ValueError, match="2 seeds but 1 prefixes"):
        draw(t5(), [Request(PROMPTS[0], [1, 2], [[1]])])
    with pytest.raises(DataError, match="need 53 positions, the model has 48"):
        draw(gpt2(), [Request(PROMPTS[0], [1])], limit=48)
    assert draw(t5(), []) == []


# --------------------------------------------------------------------------------------------------- one token


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.6, 0, 0.95), (1.3, 0, 0.5), (0.8, 50, 1.0), (0.6, 50, 0.95), (1.0, 5, 0.3), (1.0, 0, 0.01), (1.0, 1000, 0.9)],
)
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_token_distribution_is_that_of_transformers_processors(temperature: float, top_k: int, top_p: float, spread: float) -> None:
    """A fine grid of uniform numbers must hit every token in proportion to its probability. Vocabulary 700: a flat
    distribution's nucleus lies beyond the first tokens that are looked at."""
    logits = torch.randn(1, 700, generator=torch.Generator().manual_seed(1)) * spread
    scores: Any = TemperatureLogitsWarper(temperature)(None, logits) if temperature != 1 else logits
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    expected = scores.softmax(-1)[0].numpy()
    count = 5000
    grid = (torch.arange(count) + 0.5) / count
    tokens = generation.draw_tokens(logits.expand(count, -1), grid, DecodingConfig(temperature=temperature, top_k=top_k, top_p=top_p))
    observed = np.bincount(tokens.numpy(), minlength=700) / count
    assert set(np.flatnonzero(observed)) <= set(np.flatnonzero(expected))
    np.testing.assert_allclose(observed, expected, atol=2.5 / count)


def test_uniform_numbers_at_the_edges() -> None:
    """0 gives the first token that has weight, the largest float below 1 the last one; never a token of weight 0."""
    largest = np.nextafter(np.float32(1), np.float32(0))
    uniform = torch.tensor([0.0, float(largest)])
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]]).expand(2, -1)
    for decoding in (PLAIN, DecodingConfig(temperature=1, top_p=0.99), DecodingConfig(temperature=1, top_p=1, top_k=2)):
        assert sorted(generation.draw_tokens(logits, uniform, decoding).tolist()) == [1, 2]


def test_uniform_numbers_are_one_stream_per_seed() -> None:
    stream = generation.uniform_numbers(2**63 - 1, 100)
    np.testing.assert_array_equal(generation.uniform_numbers(2**63 - 1, 37), stream[:37])
    assert not np.array_equal(generation.uniform_numbers(5, 100), stream)
    assert stream.dtype == np.float32
    assert stream.min() >= 0
    assert stream.max() < 1


# --------------------------------------------------------------------------------------------------- the stage


def make_problem(number: int) -> Problem:
    return Problem(
        task_id=f"p/{number}", benchmark="custom", split="test", difficulty="introductory", question=f"Add {number}.", starter_code="",
        entry_point=None, solutions=[], hidden_tests=None, example_tests=None,
    )  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    problems = tmp_path / "test.parquet"
    write_problems(problems, [make_problem(number) for number in range(7)])
    return {
        "prompt": PromptConfig(),
        "lengths": LengthsConfig(max_source_tokens=100, max_target_tokens=12),
        "model": save_tiny(tmp_path / "actor", tiny_t5()),
        "problems": problems,
        "seed": 3,
    }


def settings(**changes: Any) -> SampleSetConfig:
    return SampleSetConfig(**{"samples_per_problem": 3, "greedy": True, "batch_problems": 2, "decoding": PLAIN, **changes})


def draw_shards(inputs: dict[str, Any], folder: Path, config: SampleSetConfig, **more: Any) -> list[Path]:
    outputs = [folder / f"{shard}.jsonl.gz" for shard in range(config.shards)]
    for shard, output in enumerate(outputs):
        sample(config=config, shard=shard, output=output, **inputs, **more)
    return outputs


def test_rows_of_the_stage(inputs: dict[str, Any], tmp_path: Path) -> None:
    (output,) = draw_shards(inputs, tmp_path / "of-1", settings())
    samples = read_samples(output)
    assert [(row.task_id, row.sample_id) for row in samples] == [(f"p/{n}", i) for n in range(7) for i in range(4)]
    assert [row.kind for row in samples[:4]] == ["sample", "sample", "sample", "greedy"]
    assert all(row.round == 0 and row.parent is None and row.n_tokens and row.log_likelihood < 0 for row in samples)  # type: ignore[operator]


def test_shards_do_not_change_programs(inputs: dict[str, Any], tmp_path: Path) -> None:
    whole: list[Sample] | None = None
    for shards in (1, 2, 3):
        outputs = draw_shards(inputs, tmp_path / f"of-{shards}", settings(shards=shards))
        samples = sorted(read_samples(outputs), key=lambda row: (row.task_id, row.sample_id))
        whole = whole or samples
        assert samples == whole


@pytest.mark.parametrize("at_once", [1, 2, 3, 9])
def test_programs_drawn_a_few_at_a_time_are_the_same_ones(inputs: dict[str, Any], tmp_path: Path, at_once: int) -> None:
    """A program hangs on its own seed, so only memory hangs on how many are drawn together."""
    (whole,) = draw_shards(inputs, tmp_path / "whole", settings())
    (parts,) = draw_shards(inputs, tmp_path / "parts", settings(batch_programs=at_once))
    kept = [[(row.task_id, row.sample_id, row.kind, row.solution) for row in read_samples(path)] for path in (whole, parts)]
    assert kept[0] == kept[1]


def test_a_shard_without_a_batch_is_an_error(inputs: dict[str, Any], tmp_path: Path) -> None:
    outputs = draw_shards(inputs, tmp_path / "four", settings(shards=4))
    assert [len(read_samples(output)) for output in outputs] == [8, 8, 8, 4]
    with pytest.raises(ConfigError, match="5 shards, but only 4 batches"):
        draw_shards(inputs, tmp_path, settings(shards=5))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per batch that is drawn; the third one of a test is killed."""
    counted: list[int] = []
    real = stage.generate

    def killed_once(*arguments: Any, **options: Any) -> list[Generated]:
        counted.append(1)
        if len(counted) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(stage, "generate", killed_once)
    return counted


def test_killed_sampling_continues_and_ends_with_the_same_bytes(inputs: dict[str, Any], tmp_path: Path, calls: list[int]) -> None:
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        draw_shards(inputs, tmp_path / "killed", settings(), work=work)
    assert not (tmp_path / "killed" / "0.jsonl.gz").exists()
    (output,) = draw_shards(inputs, tmp_path / "killed", settings(), work=work)
    assert len(calls) == 3 + 2, "the two finished batches must not be drawn again"
    assert not list(work.iterdir()), "finished batches are removed once the shard is written"
    (expected,) = draw_shards(inputs, tmp_path / "straight", settings())
    assert output.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("change", ["seed", "config", "lengths", "model", "problems", "damage"])
def test_stale_or_damaged_work_is_not_used(inputs: dict[str, Any], tmp_path: Path, calls: list[int], change: str) -> None:
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        draw_shards(inputs, tmp_path, settings(), work=work)
    assert len(list(work.iterdir())) == 2
    config = settings()
    if change == "seed":
        inputs["seed"] = 4
    elif change == "config":
        config = settings(decoding=DecodingConfig(temperature=0.9))
    elif change == "lengths":
        inputs["lengths"] = LengthsConfig(max_source_tokens=100, max_target_tokens=13)
    elif change == "model":
        save_tiny(tmp_path / "actor", tiny_t5(seed=1))
    elif change == "problems":
        write_problems(inputs["problems"], [make_problem(number + 1) for number in range(7)])
    else:
        for path in work.iterdir():
            path.write_bytes(path.read_bytes()[:-20])
    (output,) = draw_shards(inputs, tmp_path / "resumed", config, work=work)
    (expected,) = draw_shards(inputs, tmp_path / "straight", config)
    assert output.read_bytes() == expected.read_bytes()
    assert len(calls) == 3 + 4 + 4


def test_bad_input_of_the_stage(inputs: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--shard 2: there are 2 shards"):
        sample(config=settings(shards=2), shard=2, output=tmp_path / "x.jsonl.gz", **inputs)
    with pytest.raises(DataError, match="no such model folder"):
        sample(config=settings(), shard=0, output=tmp_path / "x.jsonl.gz", **{**inputs, "model": tmp_path / "nothing"})
    with pytest.raises(DataError, match="no such file"):
        sample(config=settings(), shard=0, output=tmp_path / "x.jsonl.gz", **{**inputs, "problems": tmp_path / "nothing.parquet"})
    assert not list(tmp_path.glob("*.gz"))
