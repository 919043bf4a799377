"""The imports that APPS solutions assume to be there (spec 4.2): the checker of APPS and CodeRL puts them before every program.

Each piece is a code object of its own, compiled in the parent and executed in the program's namespace before the program: line
numbers of errors stay those of the program, and a program may still begin with `from __future__ import`. What is slow to import
is a piece of its own, which the judge asks for only where a program writes its name.
"""

from __future__ import annotations

import builtins
from typing import Any

globals()["__builtins__"] = dict(builtins.__dict__)

SOURCES: dict[str, str] = {
    "common": """\
import sys
import time
import itertools
from itertools import accumulate, product, permutations, combinations
import collections
from collections import Counter, OrderedDict, deque, defaultdict, ChainMap
from functools import lru_cache
import math
from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2
from typing import List, Tuple
import random
import heapq
from heapq import *
""",
    "fractions": "import fractions\n",
    "numpy": "import numpy as np\n",
}

_codes = {name: compile(source, "prelude.py", "exec", dont_inherit=True) for name, source in SOURCES.items()}


def run(pieces: list[str], space: dict[str, Any]) -> None:
    """Execute `pieces` (names in SOURCES) in `space`, which has its `__builtins__`."""
    for name in pieces:
        exec(_codes[name], space)
