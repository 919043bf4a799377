"""Seeds for every use, derived from one: independent streams that do not depend on order, shards or process."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the use called `names`, e.g. derived_seed(1, "sample", task_id, sample_id)."""
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
