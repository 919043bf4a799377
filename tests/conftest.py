"""What all tests share: hypothesis tries the same examples every time, so that a run that was green stays so.

HYPOTHESIS_PROFILE=search tries new ones.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("search", max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
