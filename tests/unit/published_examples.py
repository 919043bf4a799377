"""CodeRL's published rule for example tests, as spec 7.6 tells it, defects included: what ours is compared with."""

from __future__ import annotations

_HEADINGS = ("-example-", "-examples-", "-example -", "example:", *(f"-example {n}-" for n in range(1, 6)))
_NUMBERED = ("example 1:", "example 2:", "-example 3:", "example 4:", "example 5:")


def _side(line: str, word: str, in_section: bool) -> bool:
    """Whether the line marks an input (or output), in the spellings that the notebook knows."""
    marks = (f"-Sample {word}", f"-Example {word}", f"Sample {word}:", f"-Sample {word.lower()}")
    return (in_section and word in line) or any(mark in line for mark in marks)


def published_rule(question: str) -> list[tuple[str, str]] | None:
    """(input, output) texts that the published files would hold for a statement; None where the notebook gives up."""
    found: dict[str, list[str]] = {"Input": [], "Output": []}
    current = {"Input": "", "Output": ""}
    in_section, open_side = False, ""
    for line in question.splitlines(keepends=True):
        low = line.lower()
        if not line.strip():
            open_side = ""
        elif any(mark in low for mark in _HEADINGS + _NUMBERED):
            in_section = True
        elif "-note-" in low:
            in_section, open_side = False, ""
        else:
            for side, other in (("Input", "Output"), ("Output", "Input")):
                if _side(line, side, in_section):
                    open_side = side
                    if current[other]:
                        found[other].append(current[other])
                        current[other] = ""
                    word = side.lower()
                    if f"-sample {word}" not in low and f"-example {word}" not in low and f"{word}:" in low:
                        rest = low.replace("example", "").replace("sample", "").replace(f"{word}:", "")
                        current[side] = rest if rest.strip() else current[side]
                    break
            else:
                if open_side:
                    current[open_side] += line
    if current["Output"]:
        found["Output"].append(current["Output"])
        if open_side == "Output":
            open_side = ""
    if not found["Input"] or len(found["Input"]) != len(found["Output"]) or open_side:
        return None
    return list(zip(found["Input"], found["Output"], strict=True))
