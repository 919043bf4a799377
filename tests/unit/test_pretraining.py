"""Masked spans, next tokens, packing and the tokenizer (spec 1.2 to 1.4, 12)."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from coderl import pretraining
from coderl.config import ArchitectureConfig, LengthsConfig, PretrainConfig, PretrainPhase, TokenizerConfig, TrainingConfig
from coderl.pretraining import PretrainingExamples, comment_ends, make_windows, mask_spans, pretrain, split_at_pivot, train_tokenizer
from coderl.records import DataError
from coderl.training import train

SENTINELS = list(range(1000, 1100))
CODE = ["def add(a, b):\n    return a + b\n", "for i in range(10):\n    print(i * 27)\n", "x = input()\nprint(x[::-1])\n"] * 20


def unmask(source: list[int], target: list[int]) -> list[int]:
    """Put the spans of the target back in the place of their sentinels."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in SENTINELS:
            spans[token] = []
            last = token
        else:
            spans[last].append(token)
    out: list[int] = []
    for token in source:
        out += spans.pop(token) if token in SENTINELS else [token]
    assert not spans
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 200))
def test_spans_go_back_to_their_places(seed: int, length: int) -> None:
    rng = random.Random(seed)
    tokens = [rng.randrange(5, 500) for _ in range(length)]
    words = sorted(rng.randrange(length) for _ in range(length))
    source, target = mask_spans(tokens, words, SENTINELS, rate=0.15, max_span=5, rng=rng)
    assert unmask(source, target) == tokens
    order = [token for token in target if token in SENTINELS]
    assert order == SENTINELS[: len(order)]
    assert [token for token in source if token in SENTINELS] == order
    for left, right in pairwise(source):
        assert not (left in SENTINELS and right in SENTINELS), "two spans touch"


@pytest.mark.parametrize("size", [400, 80, 40])
def test_share_and_length_of_spans(size: int) -> None:
    """15 % of the tokens, spans uniform on 1..5 words: mean 3, at most 5, in long windows and in short ones; words of two tokens."""
    rng = random.Random(1)
    masked, lengths = 0, []
    repeats = 120_000 // size
    for _ in range(repeats):
        tokens = list(range(5, 5 + size))
        _, target = mask_spans(tokens, [i // 2 for i in range(size)], SENTINELS, rate=0.15, max_span=5, rng=rng)
        length = 0
        for token in [*target, SENTINELS[0]]:
            if token in SENTINELS:
                lengths += [length] if length else []
                length = 0
            else:
                length += 1
                masked += 1
    # The shortest windows hold one span at least, of 6 tokens on average: exactly 15 %.
    assert masked / (repeats * size) == pytest.approx(0.15, abs=0.005)
    assert sum(lengths) / len(lengths) / 2 == pytest.approx(3.0, abs=0.1)
    assert max(lengths) == 10
    assert min(lengths) == 2


def test_whole_words_are_masked() -> None:
    words = [0, 0, 0, 1, 1, 2, 3, 3, 4, 4]
    for seed in range(50):
        source, _ = mask_spans(list(range(10, 20)), words, SENTINELS, rate=0.15, max_span=2, rng=random.Random(seed))
        kept = {words[token - 10] for token in source if token < 100}
        assert [token for token in source if token < 100] == [10 + i for i, word in enumerate(words) if word in kept]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 300))
def test_pivot_stays_between_a_tenth_and_nine_tenths(seed: int, length: int) -> None:
    tokens = list(range(length))
    source, target = split_at_pivot(tokens, [], bounds=(0.1, 0.9), at_line_end=0.0, rng=random.Random(seed))
    assert source + target == tokens
    assert source
    assert target
    if length >= 10:
        assert 0.1 * length <= len(source) <= 0.9 * length


def test_pivot_is_uniform_and_reaches_both_ends() -> None:
    counts = [0] * 101
    for seed in range(20_000):
        source, _ = split_at_pivot(list(range(100)), [], bounds=(0.1, 0.9), at_line_end=0.0, rng=random.Random(seed))
        counts[len(source)] += 1
    assert min(counts[10:91]) > 150
    assert sum(counts[:10]) == sum(counts[91:]) == 0


def test_pivot_at_line_ends() -> None:
    for seed in range(50):
        source, _ = split_at_pivot(list(range(100)), [5, 40, 60, 95], bounds=(0.1, 0.9), at_line_end=1.0, rng=random.Random(seed))
        assert len(source) in (40, 60)


SCRIPT = """# First words
# go on.
import re
x = "# none"


def f(a):
    '''Second words,

    go on.'''
    return a  # none
"""


def test_comments_end_where_code_begins() -> None:
    assert [SCRIPT[:end].rstrip().split()[-1] + SCRIPT[end:].split()[0] for end in comment_ends(SCRIPT)] == ["on.import", "on.'''return"]
    assert comment_ends("x = 1\n# the end\n") == []
    text = 'DOC = """a\n"""\nx = 1\ndef g():\n    """Say so."""\n    return x\n'
    assert [text[:end].splitlines()[-1].strip() for end in comment_ends(text)] == ['"""Say so."""'], "no other string is a docstring"
    assert comment_ends("#!/usr/bin/env python\n# Copyright of nobody\nimport os\n") == []


def test_pivot_after_comments_cuts_words_from_their_code() -> None:
    tokenizer = train_tokenizer(iter([*CODE, SCRIPT]), TokenizerConfig(vocabulary_size=400, min_frequency=2, sentinels=10))
    (window,) = make_windows([SCRIPT], tokenizer, 400, False)
    cut = config().model_copy(update={"pivot_after_comment": 1.0, "lengths": LengthsConfig(max_source_tokens=200, max_target_tokens=200)})
    examples = PretrainingExamples({"ntp": [window]}, tokenizer, cut.phases[1], cut, 1)
    heads = set()
    for seed in range(20):
        source, target = examples.pair(("ntp", 0, seed))
        assert examples.lengths(("ntp", 0, seed)) == (len(source), len(target))
        head, tail = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (source, target))
        assert head + tail == SCRIPT
        heads.add((head.split()[-1], tail.split()[0]))
    assert heads == {("on.", "import"), ("on.'''", "return")}
    assert split_at_pivot(range(100), [], (), bounds=(0.5, 0.5), at_line_end=0.0, after_comment=1.0, rng=random.Random(1))[1][0] == 50


def test_tokenizer_has_codet5s_ids_and_keeps_text() -> None:
    tokenizer = train_tokenizer(iter(CODE), TokenizerConfig(vocabulary_size=400, min_frequency=2, sentinels=100))
    assert tokenizer.convert_tokens_to_ids(["<pad>", "<s>", "</s>", "<unk>", "<mask>"]) == [0, 1, 2, 3, 4]
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == len(tokenizer) - 1
    assert tokenizer.convert_tokens_to_ids("<extra_id_99>") == len(tokenizer) - 100
    text = "print( 'it s' , 27 ) . \n\tétrange ☃"
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (1, 2)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_packing_joins_short_files_and_cuts_long_ones() -> None:
    tokenizer = train_tokenizer(iter(CODE), TokenizerConfig(vocabulary_size=400, min_frequency=2, sentinels=10))
    texts = [*CODE, "x = 1\n" * 200]
    apart, packed = make_windows(texts, tokenizer, 50, False), make_windows(texts, tokenizer, 50, True)
    assert max(len(window.tokens) for window in [*apart, *packed]) <= 50
    assert len(packed) < len(apart)
    assert all(len(window.tokens) == len(window.words) for window in packed)
    content = [token for window in packed for token in window.tokens if token != tokenizer.eos_token_id]
    assert content == [token for window in apart for token in window.tokens]


def config() -> PretrainConfig:
    training = TrainingConfig(steps=60, batch_tokens=400, learning_rate=1e-2, log_every=20)
    return PretrainConfig(
        architecture=ArchitectureConfig(d_model=16, d_ff=32, heads=2, d_kv=8, encoder_layers=1, decoder_layers=1),
        tokenizer=TokenizerConfig(vocabulary_size=320, min_frequency=2, sentinels=10),
        lengths=LengthsConfig(max_source_tokens=64, max_target_tokens=64),
        phases=[
            PretrainPhase(objectives={"msp": 1.0}, training=training),
            PretrainPhase(objectives={"msp": 0.4, "ntp": 0.6}, training=training),
        ],
    )


def test_stage_learns_and_opens_with_plain_transformers(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": CODE}), corpus)
    pretrain(config=config(), corpus=corpus, problems=None, seed=1, output=tmp_path / "base", work=tmp_path / "work")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert model.config.decoder_start_token_id == 0
    log = (tmp_path / "base" / "training_log.csv").read_text().splitlines()
    losses = [float(row.split(",")[log[0].split(",").index("loss")]) for row in log[1:]]
    assert losses[2] < losses[0] - 0.5
    assert not (tmp_path / "work").exists()
    again = tmp_path / "again"
    pretrain(config=config(), corpus=corpus, problems=None, seed=1, output=again, work=tmp_path / "work")
    other = AutoModelForSeq2SeqLM.from_pretrained(again)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert (again / "tokenizer.json").read_bytes() == (tmp_path / "base" / "tokenizer.json").read_bytes()
    assert len(tokenizer) <= model.config.vocab_size <= 320


def test_a_finished_phase_of_another_run_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": CODE}), corpus)
    arguments: dict[str, Any] = {"config": config(), "corpus": corpus, "problems": None}
    pretrain(**arguments, seed=2, output=tmp_path / "other", work=tmp_path / "elsewhere")
    pretrain(**arguments, seed=1, output=tmp_path / "first", work=tmp_path / "elsewhere")

    class Killed(Exception):
        pass

    def second_phase_dies(*given: Any, settings: str, seed: int, work: Path) -> Any:
        if work.name.startswith("phase1"):
            raise Killed
        return train(*given, settings=settings, seed=seed, work=work)

    def killed(seed: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(pretraining, "train", second_phase_dies)
            with pytest.raises(Killed):
                pretrain(**arguments, seed=seed, output=tmp_path / "resumed", work=tmp_path / "work")

    def weights(folder: str) -> torch.Tensor:
        model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / folder)
        return torch.cat([p.flatten() for p in model.parameters()])

    killed(seed=2)
    assert (tmp_path / "work" / "phase0").exists()
    pretrain(**arguments, seed=1, output=tmp_path / "resumed", work=tmp_path / "work")
    assert torch.equal(weights("resumed"), weights("first"))
    killed(seed=2)
    pretrain(**arguments, seed=2, output=tmp_path / "resumed", work=tmp_path / "work")
    assert torch.equal(weights("resumed"), weights("other"))


def test_only_what_is_whole_has_an_end() -> None:
    tokenizer = train_tokenizer(iter(CODE), TokenizerConfig(vocabulary_size=320, min_frequency=2, sentinels=10))
    long = CODE[0] * 20
    windows = make_windows([long, CODE[0]], tokenizer, 100, False)
    assert [window.ends for window in windows[-2:]] == [True, True]
    assert not any(window.ends for window in windows[:-2])
    examples = PretrainingExamples({"ntp": windows}, tokenizer, config().phases[1], config(), 1)
    for index, window in enumerate(windows):
        _, target = examples.pair(("ntp", index, 7))
        assert (target[-1] == tokenizer.eos_token_id) == (window.ends and len(target) < 64)


def test_an_empty_corpus_is_an_error(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), corpus)
    with pytest.raises(DataError, match="corpus is empty"):
        pretrain(config=config(), corpus=corpus, problems=None, seed=1, output=tmp_path / "base", work=tmp_path / "work")
    assert not (tmp_path / "base").exists()
