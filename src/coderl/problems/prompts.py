"""The one prompt builder: the same strings for training, sampling, scoring and repair (spec 2.2, 2.3, 7.3).

CodeRL formatted a problem in one way to train and in another to generate, and lost the end of long prompts (with it
"ANSWER:") when cutting them to the limit. Here one canonical form is used everywhere; CodeRL's two forms can be chosen and are
pinned byte for byte by tests. A prompt that is too long loses words of the question, never its tail.

An encoder-decoder reads prompt and program apart, both as `<s> ... </s>` (spec 2.3). In a causal model the program continues the
prompt: the prompt has no end token (and a start token only where the tokenizer itself puts one), the program no start token.
`models.load_tokenizer` notes which of the two a tokenizer is for (`continues_prompt`). For instruct models there is a third form,
"chat": the model's own chat template around the same statement, with the answer opened as a block of Python code.

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
CHAT_STDIN = "\n\nWrite a Python program that reads standard input and prints the answer. Reply with the code only."
CHAT_CALL = "\n\nWrite the Python function, with the imports that it needs. Reply with the code only."
CHAT_REPAIR = "\n\nThis program is wrong:\n"
CHAT_REPAIR_END = "\n\nWrite the corrected program. Reply with the code only."
CHAT_OPENING = "```python\n"
"""What a chat answer starts with, so that all that follows is code; sampling stops at the closing fence (`decoding.stop`)."""
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
    elif style == "chat":
        call = is_call_based(problem)
        return problem.question, "\n\n" + starter if starter else "", CHAT_CALL if call else CHAT_STDIN
    elif style == "legacy_generation":  # spec 2.2, generate.py: the format goes by fn_name, without tests by the starter code
        tested = problem.hidden_tests is not None or problem.example_tests is not None
        call = is_call_based(problem) if tested else bool(starter)
    else:
        raise ConfigError(f"prompt.style must be canonical, chat, legacy_train or legacy_generation, found {style!r}")
    return HEAD + problem.question, "\n" + starter if starter else "", (CALL_FORMAT if call else STDIN_FORMAT) + ANSWER


def build_prompt(problem: Problem, style: str = "canonical") -> str:
    """The prompt as text, untruncated; of "chat" what the user says, without the template around it.

    Args:
        problem: the problem.
        style: "canonical" (equal to legacy_generation wherever CodeRL defines it), "chat", "legacy_train" or "legacy_generation".

    Raises:
        ConfigError: unknown style.
    """
    return "".join(_parts(problem, style))


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return ids


def continues_prompt(tokenizer: Any) -> bool:
    """Whether programs continue the prompt (causal models) or are read apart from it (encoder-decoders)."""
    return bool(getattr(tokenizer, "continues_prompt", False))


def _around_prompt(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Special tokens before and after a prompt: `<s>` and `</s>`; of a causal model only a start token that its tokenizer adds."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if continues_prompt(tokenizer):
        return [token for token in tokenizer("")["input_ids"] if token == start][:1], []
    return [] if start is None else [start], [] if end is None else [end]


def _fit(tokenizer: Any, parts: list[str], max_tokens: int) -> list[int]:
    """The parts in at most `max_tokens` tokens: earlier parts lose their ends first, the last part is kept whole.

    A prompt that fits is encoded in one piece. Otherwise the parts are encoded one by one, so that the tokens that are kept
    are those of the part itself.
    """
    before, after = _around_prompt(tokenizer)
    ids = [*before, *_encode(tokenizer, "".join(parts)), *after]
    if len(ids) <= max_tokens:
        return ids
    return _cut(before, [_encode(tokenizer, part) for part in parts], after, max_tokens)


def _cut(before: list[int], pieces: list[list[int]], after: list[int], max_tokens: int) -> list[int]:
    """`before`, the pieces and `after` in `max_tokens` tokens; earlier pieces lose their ends first, the last one none."""
    room = max_tokens - len(before) - len(after)
    kept: list[list[int]] = []
    for piece in reversed(pieces):
        if not kept and len(piece) > room:
            raise ConfigError(
                f"lengths.max_source_tokens is {max_tokens}, too few for the end of the prompt alone "
                f"({len(piece) + len(before) + len(after)} tokens); raise it"
            )
        piece = piece[:room]
        room -= len(piece)
        kept.insert(0, piece)
    return [*before, *(token for piece in kept for token in piece), *after]


def _fit_chat(tokenizer: Any, parts: list[str], max_tokens: int) -> list[int]:
    """The parts as one user message inside the tokenizer's chat template, and the opening of the answer; cut as by `_fit`.

    The template's own text may hold special tokens, the parts may not. They are encoded one by one, also where all fits.

    Raises:
        ConfigError: the tokenizer has no chat template, or `max_tokens` is too small for template and last part.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError("prompt.style is chat, but the model's tokenizer has no chat template; use an instruct model or style canonical")
    place = "\ue000"  # a private character, which no template contains
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": place}], tokenize=False, add_generation_prompt=True)
    head, found, tail = rendered.partition(place)
    if not found:
        raise ConfigError("prompt.style is chat, but the tokenizer's chat template drops what the user says; use style canonical")
    before: list[int] = tokenizer.encode(head, add_special_tokens=False)
    after: list[int] = tokenizer.encode(tail + CHAT_OPENING, add_special_tokens=False)
    end = [] if continues_prompt(tokenizer) or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return _cut(before, [_encode(tokenizer, part) for part in parts], [*after, *end], max_tokens)


def encode_prompt(tokenizer: Any, problem: Problem, max_tokens: int, style: str = "canonical") -> list[int]:
    """Token ids of the prompt, at most `max_tokens` of them: `<s> ... </s>`, or as a causal model reads it.

    A long prompt is cut at the end of the question, then of the starter code; "Use ... format" and "ANSWER:" stay (spec 13).

    Raises:
        ConfigError: unknown style, no chat template, or `max_tokens` is smaller than the tail alone.
    """
    fit = _fit_chat if style == "chat" else _fit
    return fit(tokenizer, list(_parts(problem, style)), max_tokens)


def encode_program(tokenizer: Any, text: str, max_tokens: int) -> list[int]:
    """Token ids of a program, `<s> ... </s>`, for a causal model without the `<s>`; cut at the right to `max_tokens` (spec 2.3).

    A program that is cut has no `</s>`: it did not end there.
    """
    start = [] if continues_prompt(tokenizer) or tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [*start, *_encode(tokenizer, text), *end][:max_tokens]


def line_span(tokenizer: Any, text: str, line: int, max_tokens: int) -> tuple[int, int] | None:
    """Places [start, end) in encode_program's tokens of those that touch line `line` (from 1); None where there are none."""
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        return None
    begin = sum(len(each) + 1 for each in lines[: line - 1])
    finish = begin + len(lines[line - 1])
    offsets = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)["offset_mapping"]
    shift = 0 if continues_prompt(tokenizer) or tokenizer.bos_token_id is None else 1
    places = [place + shift for place, (first, last) in enumerate(offsets) if first < finish and last > begin]
    places = [place for place in places if place < max_tokens]
    return (places[0], places[-1] + 1) if places else None


def _repair_parts(
    problem: Problem, program: str, outcome: str, error_class: str | None, error_message: str | None, style: str = "canonical"
) -> list[str]:
    question, starter, form = _parts(problem, "chat" if style == "chat" else "canonical")
    form = form.removesuffix(ANSWER)
    subtype = error_class or {"failed_test": "failed unit tests", "passed_test": "passed unit tests"}.get(outcome, "")
    fields = [field for field in (outcome, subtype) if field]
    if error_message and error_message.strip():
        fields.append(error_message.strip().splitlines()[0][:MAX_MESSAGE])
    if style == "chat":
        said = "\n\nIt was run: " + ", ".join(fields) + "."
        return [question, starter, CHAT_REPAIR + program, said + CHAT_REPAIR_END]
    return [question, starter + form, "\nPROGRAM:\n" + program, "\nOUTCOME:\n" + "\n".join(fields) + ANSWER]


def build_repair_prompt(problem: Problem, program: str, outcome: str, error_class: str | None, error_message: str | None) -> str:
    """The repair model's input: problem, failed program, outcome, error subtype and, if given, the error message (spec 7.3).

    The template is ours (the paper gives none). A failed test has the subtype "failed unit tests", as in CodeRL's files.
    Of the message only the first line counts, up to 200 characters.
    """
    return "".join(_repair_parts(problem, program, outcome, error_class, error_message))


def encode_repair_prompt(
    tokenizer: Any,
    problem: Problem,
    program: str,
    outcome: str,
    error_class: str | None,
    error_message: str | None,
    max_tokens: int,
    style: str = "canonical",
) -> list[int]:
    """Token ids of the repair prompt, at most `max_tokens` of them; style "chat", or for all others the canonical form.

    The program and the error stay whole while the question is cut; only a program that does not fit by itself is cut too
    (the published re-implementation cut at the right and lost the program, spec 7.3).

    Raises:
        ConfigError: `max_tokens` is smaller than the error fields alone.
    """
    question, form, code, end = _repair_parts(problem, program, outcome, error_class, error_message, style)
    fit = _fit_chat if style == "chat" else _fit
    return fit(tokenizer, [question, form, code, end], max_tokens)
