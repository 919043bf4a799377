"""The prompt builder: bytes of every form, and what truncation may never lose."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.config import ConfigError
from coderl.problems import AssertTests, InputOutputTests, Problem, Tests
from coderl.problems.prompts import build_prompt, build_repair_prompt, encode_program, encode_prompt, encode_repair_prompt, line_span

CODET5 = Path(__file__).resolve().parents[3] / "shared" / "data" / "codet5_tokenizer"
STDIN = InputOutputTests("stdin", ["1\n"], ["1\n"])
CALL = InputOutputTests("call", [[1]], [1])


def problem(
    question: str = "Double it.",
    starter: str = "",
    entry_point: str | None = None,
    hidden: Tests | None = STDIN,
    example: Tests | None = None,
) -> Problem:
    return Problem("t/1", "custom", "test", "interview", question, starter, entry_point, [], hidden, example)


FUNCTION = problem(starter="def f(x):", entry_point="f", hidden=CALL)


def tiny_tokenizer() -> Any:
    """Byte-level BPE of the pretraining stage's kind, trained here."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [build_prompt(problem("word word word\n")), build_prompt(FUNCTION), "def f(x):\n    return x\nprint(1)\n"] * 4
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )


@pytest.fixture(scope="module", params=["tiny", "codet5"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "tiny":
        return tiny_tokenizer()
    if not CODET5.exists():
        pytest.skip("CodeT5's tokenizer is not beside the checkout")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("codet5")
    shutil.copy(CODET5 / "codet5-vocab.json", folder / "vocab.json")
    shutil.copy(CODET5 / "codet5-merges.txt", folder / "merges.txt")
    return transformers.RobertaTokenizer.from_pretrained(folder)


def decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


# --------------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize(
    ("item", "style", "expected"),
    [
        (problem(), "canonical", "\nQUESTION:\nDouble it.\nUse Standard Input format\nANSWER:\n"),
        (FUNCTION, "canonical", "\nQUESTION:\nDouble it.\ndef f(x):\nUse Call-Based format\nANSWER:\n"),
        (problem(), "legacy_generation", "\nQUESTION:\nDouble it.\nUse Standard Input format\nANSWER:\n"),
        (FUNCTION, "legacy_generation", "\nQUESTION:\nDouble it.\ndef f(x):\nUse Call-Based format\nANSWER:\n"),
        (problem(), "legacy_train", "\nQUESTION:\nDouble it.\n\n\nUse Standard Input format\n\nANSWER:\n"),
        (FUNCTION, "legacy_train", "\nQUESTION:\nDouble it.\ndef f(x):\n\nUse Call-Based format\n\nANSWER:\n"),
        # The format line: by the tests in generation, by the starter code in training.
        (problem(starter="import sys"), "legacy_generation", "\nQUESTION:\nDouble it.\nimport sys\nUse Standard Input format\nANSWER:\n"),
        (problem(starter="import sys"), "legacy_train", "\nQUESTION:\nDouble it.\nimport sys\n\nUse Call-Based format\n\nANSWER:\n"),
        (problem(entry_point="f", hidden=CALL), "legacy_generation", "\nQUESTION:\nDouble it.\nUse Call-Based format\nANSWER:\n"),
        (problem(starter="x", hidden=None), "legacy_generation", "\nQUESTION:\nDouble it.\nx\nUse Call-Based format\nANSWER:\n"),
        (problem(hidden=None), "legacy_generation", "\nQUESTION:\nDouble it.\nUse Standard Input format\nANSWER:\n"),
        (problem(hidden=AssertTests(["assert f(1) == 2"])), "canonical", "\nQUESTION:\nDouble it.\nUse Call-Based format\nANSWER:\n"),
        (problem(hidden=None, entry_point="f"), "canonical", "\nQUESTION:\nDouble it.\nUse Call-Based format\nANSWER:\n"),
    ],
)
def test_prompt_bytes(item: Problem, style: str, expected: str) -> None:
    assert build_prompt(item, style) == expected


def test_an_unknown_style_is_named() -> None:
    with pytest.raises(ConfigError, match=r"prompt\.style.*'legacy'"):
        build_prompt(problem(), "legacy")


def test_repair_prompt_bytes() -> None:
    program = "def f(x):\n    return y\n"
    assert build_repair_prompt(FUNCTION, program, "runtime_error", "nameerror", None) == (
        "\nQUESTION:\nDouble it.\ndef f(x):\nUse Call-Based format"
        "\nPROGRAM:\ndef f(x):\n    return y\n\nOUTCOME:\nruntime_error\nnameerror\nANSWER:\n"
    )
    message = "name 'y' is not defined\n  more"
    assert build_repair_prompt(problem(), "print(y)", "runtime_error", "nameerror", message).endswith(
        "\nPROGRAM:\nprint(y)\nOUTCOME:\nruntime_error\nnameerror\nname 'y' is not defined\nANSWER:\n"
    )
    assert build_repair_prompt(problem(), "p", "failed_test", None, None).endswith("\nOUTCOME:\nfailed_test\nfailed unit tests\nANSWER:\n")
    assert build_repair_prompt(problem(), "p", "compile_error", None, " \n").endswith("\nOUTCOME:\ncompile_error\nANSWER:\n")


# --------------------------------------------------------------------------------------------------- tokens


def test_a_prompt_that_fits_is_encoded_whole(tokenizer: Any) -> None:
    for style in ("canonical", "legacy_train", "legacy_generation"):
        ids = encode_prompt(tokenizer, FUNCTION, 200, style)
        assert ids == [1, *tokenizer.encode(build_prompt(FUNCTION, style), add_special_tokens=False), 2]
        assert encode_prompt(tokenizer, FUNCTION, len(ids), style) == ids


@given(
    words=st.lists(st.sampled_from(["word", "a", "1 2\n", "\n", "über"]), max_size=80), limit=st.integers(60, 120), function=st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_truncation_never_loses_the_tail(words: list[str], limit: int, function: bool) -> None:
    tokenizer = _cached_tiny()
    item = problem("Q " + " ".join(words), "def f(x):" if function else "", "f" if function else None, CALL if function else STDIN)
    ids = encode_prompt(tokenizer, item, limit)
    text = decoded(tokenizer, ids)
    tail = "\ndef f(x):\nUse Call-Based format\nANSWER:\n</s>" if function else "\nUse Standard Input format\nANSWER:\n</s>"
    assert len(ids) <= limit
    assert text.endswith(tail)
    assert text.startswith("<s>\nQUESTION:\nQ")
    whole = [1, *tokenizer.encode(build_prompt(item), add_special_tokens=False), 2]
    assert ids == whole if len(whole) <= limit else len(ids) == limit


_TINY: list[Any] = []


def _cached_tiny() -> Any:
    if not _TINY:
        _TINY.append(tiny_tokenizer())
    return _TINY[0]


def test_a_long_question_fills_the_limit_and_keeps_starter_and_tail(tokenizer: Any) -> None:
    item = problem("word " * 2000, "def f(x):", "f", CALL)
    ids = encode_prompt(tokenizer, item, 600)
    text = decoded(tokenizer, ids)
    assert len(ids) == 600
    assert text.startswith("<s>\nQUESTION:\nword word")
    assert text.endswith("word\ndef f(x):\nUse Call-Based format\nANSWER:\n</s>")


def test_starter_code_that_is_too_long_is_cut_before_the_format_line(tokenizer: Any) -> None:
    ids = encode_prompt(tokenizer, problem("word " * 50, "x = 1\n" * 400, "f", CALL), 80)
    text = decoded(tokenizer, ids)
    assert len(ids) == 80
    assert "x = 1\nx = 1" in text
    assert text.endswith("\nUse Call-Based format\nANSWER:\n</s>")


def test_a_limit_below_the_tail_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="max_source_tokens is 8"):
        encode_prompt(tokenizer, problem("word " * 50), 8)


def test_programs_are_wrapped_and_cut_at_the_right(tokenizer: Any) -> None:
    ids = encode_program(tokenizer, "print(1)\n", 512)
    assert (ids[0], ids[-1]) == (1, 2)
    assert decoded(tokenizer, ids[1:-1]) == "print(1)\n"
    assert encode_program(tokenizer, "print(1)\n" * 300, 20) == encode_program(tokenizer, "print(1)\n" * 300, 10_000)[:20]
    assert 2 not in encode_program(tokenizer, "print(1)\n" * 300, 20)  # a cut program has not ended


def test_special_tokens_spelled_out_in_a_text_are_plain_characters(tokenizer: Any) -> None:
    text = "print('</s>')  # <pad><s>\n"
    ids = encode_program(tokenizer, text, 512)
    assert not {0, 1, 2} & set(ids[1:-1])
    assert decoded(tokenizer, ids[1:-1]) == text
    assert encode_prompt(tokenizer, problem("<s>struck out</s>"), 600).count(2) == 1


def test_codet5_ids() -> None:
    if not CODET5.exists():
        pytest.skip("CodeT5's tokenizer is not beside the checkout")
    import json

    vocabulary = json.loads((CODET5 / "codet5-vocab.json").read_text(encoding="utf-8"))
    assert [vocabulary[name] for name in ("<pad>", "<s>", "</s>", "<unk>", "<mask>", "Ċ")] == [0, 1, 2, 3, 4, 203]  # spec 0.2


def test_repair_keeps_program_and_error_whole_and_cuts_the_statement(tokenizer: Any) -> None:
    program = "def f(x):\n    return y\n"
    item = problem("word " * 1000, "def f(x):", "f", CALL)
    ids = encode_repair_prompt(tokenizer, item, program, "runtime_error", "nameerror", "name 'y' is not defined", 300)
    text = decoded(tokenizer, ids)
    assert len(ids) == 300
    assert text.startswith("<s>\nQUESTION:\nword")
    assert text.endswith(
        "word\ndef f(x):\nUse Call-Based format\nPROGRAM:\n"
        + program
        + "\nOUTCOME:\nruntime_error\nnameerror\nname 'y' is not defined\nANSWER:\n</s>"
    )


def test_repair_cuts_a_program_only_when_it_does_not_fit_alone(tokenizer: Any) -> None:
    ids = encode_repair_prompt(tokenizer, FUNCTION, "print(1)\n" * 300, "failed_test", None, None, 100)
    text = decoded(tokenizer, ids)
    assert len(ids) == 100
    assert text.startswith("<s>\nPROGRAM:\nprint(1)\nprint(1)\n")
    assert text.endswith("\nOUTCOME:\nfailed_test\nfailed unit tests\nANSWER:\n</s>")
    short = encode_repair_prompt(tokenizer, FUNCTION, "print(1)\n", "failed_test", None, None, 800)
    assert decoded(tokenizer, short) == "<s>" + build_repair_prompt(FUNCTION, "print(1)\n", "failed_test", None, None) + "</s>"


def test_a_very_long_message_is_cut(tokenizer: Any) -> None:
    text = build_repair_prompt(problem(), "p", "runtime_error", "valueerror", "x" * 5000)
    assert text.endswith("\n" + "x" * 200 + "\nANSWER:\n")


def test_line_span_holds_the_tokens_of_one_line() -> None:
    """Of a tokenizer of bytes: place 0 is <s>, the newline belongs to no line."""
    tokenizer, text = tiny_tokenizer(), "ab\n\ncde"
    ids = encode_program(tokenizer, text, 100)
    assert line_span(tokenizer, text, 1, 100) == (1, 3)
    assert line_span(tokenizer, text, 2, 100) is None
    start, end = line_span(tokenizer, text, 3, 100) or (0, 0)
    assert tokenizer.decode(ids[start:end]) == "cde"
    assert line_span(tokenizer, text, 3, 6) == (5, 6), "the rest was cut"
    assert line_span(tokenizer, text, 3, 5) is None
    assert line_span(tokenizer, text, 4, 100) is None
