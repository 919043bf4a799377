"""The one prompt builder: the same strings for training, sampling, scoring and repair (spec 2.2, 2.3, 7.3).

CodeRL formatted a problem in one way to train and in another to generate, and lost the end of long prompts (with it
"ANSWER:") when cutting them to the limit. Here one canonical form is used everywhere; CodeRL's two forms can be chosen and are
pinned byte for byte by tests. A prompt that is too long loses words of the question, never its tail.

`tokenizer` is a Hugging Face fast tokenizer; this module imports none. Special tokens that are spelled out in a text, such as
the `<s>` of struck-out HTML, are read as plain characters: a literal `</s>` must not end a program.
"""

from __future__ import annotations

from typing import Any

from coderl.config import ConfigError
from coderl.problems.problem import Problem

HEAD = "\nQUESTION:\n"
ANSWER = "\nANSWER:\n"
STDIN_FORMAT = "\nUse Standard Input format"
CALL_FORMAT = "\nUse Call-Based format"
MAX_MESSAGE = 200
"""Characters of an error message in a repair prompt: a message can quote a whole input."""


def is_call_based(problem: Problem) -> bool:
    """Whether the program is called (function or asserts) rather than run on standard input."""
    kinds = {tests.kind for tests in (problem.hidden_tests, problem.example_tests) if tests is not None}
    return problem.entry_point is not None or bool(kinds & {"call", "assert"})


def _parts(problem: Problem, style: str) -> tuple[str, str, str]:
    """(question part, starter code part, format part): their concatenation is the prompt."""
    starter = problem.starter_code
    if style == "legacy_train":  # spec 2.2, datasets/apps_dataset.py: the format goes by the starter code
        form = (CALL_FORMAT if starter else STDIN_FORMAT) + "\n"
        return HEAD + problem.question, "\n" + starter + "\n", form + ANSWER
    if style == "canonical":
        call = is_call_based(problem)
    elif style == "legacy_generation":  # spec 2.2, generate.py: the format goes by fn_name, without tests by the starter code
        tested = problem.hidden_tests is not None or problem.example_tests is not None
        call = is_call_based(problem) if tested else bool(starter)
    else:
        raise ConfigError(f"prompt.style must be canonical, legacy_train or legacy_generation, found {style!r}")
    return HEAD + problem.question, "\n" + starter if starter else "", (CALL_FORMAT if call else STDIN_FORMAT) + ANSWER


def build_prompt(problem: Problem, style: str = "canonical") -> str:
    """The prompt as text, untruncated.

    Args:
        problem: the problem.
        style: "canonical" (equal to legacy_generation wherever CodeRL defines it), "legacy_train" or "legacy_generation".

    Raises:
        ConfigError: unknown style.
    """
    return "".join(_parts(problem, style))


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return ids


def _wrap(tokenizer: Any, ids: list[int]) -> list[int]:
    """`<s> ids </s>`, without those that the tokenizer lacks (many causal models have no start token)."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [*start, *ids, *end]


def _fit(tokenizer: Any, parts: list[str], max_tokens: int) -> list[int]:
    """The parts in at most `max_tokens` tokens: earlier parts lose their ends first, the last part is kept whole.

    A prompt that fits is encoded in one piece. Otherwise the parts are encoded one by one, so that the tokens that are kept
    are those of the part itself.
    """
    ids = _wrap(tokenizer, _encode(tokenizer, "".join(parts)))
    if len(ids) <= max_tokens:
        return ids
    pieces = [_encode(tokenizer, part) for part in parts]
    room = max_tokens - len(_wrap(tokenizer, []))
    kept: list[list[int]] = []
    for piece in reversed(pieces):
        if not kept and len(piece) > room:
            raise ConfigError(
                f"lengths.max_source_tokens is {max_tokens}, too few for the end of the prompt alone ({len(piece)} tokens); raise it"
            )
        piece = piece[:room]
        room -= len(piece)
        kept.insert(0, piece)
    return _wrap(tokenizer, [token for piece in kept for token in piece])


def encode_prompt(tokenizer: Any, problem: Problem, max_tokens: int, style: str = "canonical") -> list[int]:
    """Token ids of the prompt, `<s> ... </s>`, at most `max_tokens` of them.

    A long prompt is cut at the end of the question, then of the starter code; "Use ... format" and "ANSWER:" stay (spec 13).

    Raises:
        ConfigError: unknown style, or `max_tokens` is smaller than the tail alone.
    """
    return _fit(tokenizer, list(_parts(problem, style)), max_tokens)


def encode_program(tokenizer: Any, text: str, max_tokens: int) -> list[int]:
    """Token ids of a program, `<s> ... </s>`, cut at the right to `max_tokens` (spec 2.3).

    A program that is cut has no `</s>`: it did not end there.
    """
    return _wrap(tokenizer, _encode(tokenizer, text))[:max_tokens]


def line_span(tokenizer: Any, text: str, line: int, max_tokens: int) -> tuple[int, int] | None:
    """Places [start, end) in encode_program's tokens of those that touch line `line` (from 1); None where there are none."""
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        return None
    begin = sum(len(each) + 1 for each in lines[: line - 1])
    finish = begin + len(lines[line - 1])
    offsets = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)["offset_mapping"]
    shift = 0 if tokenizer.bos_token_id is None else 1
    places = [place + shift for place, (first, last) in enumerate(offsets) if first < finish and last > begin]
    places = [place for place in places if place < max_tokens]
    return (places[0], places[-1] + 1) if places else None


def _repair_parts(problem: Problem, program: str, outcome: str, error_class: str | None, error_message: str | None) -> list[str]:
    question, starter, form = _parts(problem, "canonical")
    form = form.removesuffix(ANSWER)
    subtype = error_class or {"failed_test": "failed unit tests", "passed_test": "passed unit tests"}.get(outcome, "")
    fields = [field for field in (outcome, subtype) if field]
    if error_message and error_message.strip():
        fields.append(error_message.strip().splitlines()[0][:MAX_MESSAGE])
    return [question, starter + form, "\nPROGRAM:\n" + program, "\nOUTCOME:\n" + "\n".join(fields) + ANSWER]


def build_repair_prompt(problem: Problem, program: str, outcome: str, error_class: str | None, error_message: str | None) -> str:
    """The repair model's input: problem, failed program, outcome, error subtype and, if given, the error message (spec 7.3).

    The template is ours (the paper gives none). A failed test has the subtype "failed unit tests", as in CodeRL's files.
    Of the message only the first line counts, up to 200 characters.
    """
    return "".join(_repair_parts(problem, program, outcome, error_class, error_message))


def encode_repair_prompt(
    tokenizer: Any, problem: Problem, program: str, outcome: str, error_class: str | None, error_message: str | None, max_tokens: int
) -> list[int]:
    """Token ids of the repair prompt, `<s> ... </s>`, at most `max_tokens` of them.

    The program and the error stay whole while the question is cut; only a program that does not fit by itself is cut too
    (the published re-implementation cut at the right and lost the program, spec 7.3).

    Raises:
        ConfigError: `max_tokens` is smaller than the error fields alone.
    """
    question, form, code, end = _repair_parts(problem, program, outcome, error_class, error_message)
    return _fit(tokenizer, [question, form, code, end], max_tokens)
