"""Licences of corpus files: names, the allow-list, and what a file's header says (spec 1.1)."""

from __future__ import annotations

import re

ALIASES: dict[str, str] = {
    "apache-2": "apache-2.0",
    "apache2": "apache-2.0",
    "apache2.0": "apache-2.0",
    "apache": "apache-2.0",
    "apache-license-2.0": "apache-2.0",
    "apache-software-license": "apache-2.0",
    "mit-license": "mit",
    "expat": "mit",
    "bsd-3": "bsd-3-clause",
    "bsd3": "bsd-3-clause",
    "new-bsd": "bsd-3-clause",
    "bsd-new": "bsd-3-clause",
    "modified-bsd": "bsd-3-clause",
    "bsd-2": "bsd-2-clause",
    "bsd2": "bsd-2-clause",
    "simplified-bsd": "bsd-2-clause",
    "freebsd": "bsd-2-clause",
    "cc0": "cc0-1.0",
    "cc-0": "cc0-1.0",
    "the-unlicense": "unlicense",
    "isc-license": "isc",
    "psf": "psf-2.0",
    "psfl": "psf-2.0",
}
COPYLEFT = re.compile(r"\b(gnu\s+(lesser\s+|affero\s+|library\s+)?general\s+public\s+licen[cs]e|[la]?gplv?[23]?)\b", re.IGNORECASE)
PROPRIETARY = re.compile(
    r"proprietary\s+and\s+confidential|confidential\s+and\s+proprietary|strictly\s+prohibited|trade\s+secret"
    r"|non-?commercial\s+(use|purposes)|may\s+not\s+be\s+(copied|reproduced|redistributed)",
    re.IGNORECASE,
)
SPDX = re.compile(r"SPDX-License-Identifier:\s*([^\n]+)", re.IGNORECASE)
HEADER_LINES = 40


def license_name(text: str) -> str:
    """A licence's SPDX id in lower case: "Apache-2", "apache 2.0" and "Apache-2.0" are the same."""
    name = re.sub(r"[\s_]+", "-", text.strip().lower())
    return ALIASES.get(name, name)


def license_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Whether an SPDX expression can be met by allowed licences: all of an AND (or a list), any of an OR, AND before OR.

    A single name may contain blanks ("Apache License 2.0"). A malformed expression is not allowed.
    """
    words = [word.strip() for word in re.split(r"([(),]|\band\b|\bor\b)", expression, flags=re.IGNORECASE) if word.strip()]

    def any_of() -> bool:
        met = all_of()
        while words and words[0].lower() == "or":
            words.pop(0)
            met = all_of() or met
        return met

    def all_of() -> bool:
        met = one()
        while words and words[0].lower() in ("and", ","):
            words.pop(0)
            met = one() and met
        return met

    def one() -> bool:
        word = words.pop(0) if words else ""
        if word != "(":
            return license_name(word) in allowed
        met = any_of()
        return bool(words) and words.pop(0) == ")" and met

    met = any_of()
    return met and not words


def header_contradicts(text: str, allowed: frozenset[str]) -> bool:
    """Whether the first lines of a file name a licence outside the allow-list, whatever its licence column says."""
    header = "\n".join(text.split("\n", HEADER_LINES)[:HEADER_LINES])
    stated = [re.sub(r"\s*(\*/|-->|\"\"\"|''')\s*$", "", match).strip() for match in SPDX.findall(header)]
    if stated:
        return not all(license_allowed(expression, allowed) for expression in stated)
    if not any("gpl" in name for name in allowed) and COPYLEFT.search(header):
        return True
    return PROPRIETARY.search(header) is not None
