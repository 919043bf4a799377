"""Seconds and bytes for a reader."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """For a reader."""
    for length, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Bytes for a reader."""
    for length, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= length:
            return f"{count / length:.1f} {name}"
    return f"{count / 1e3:.0f} kB"
