"""What a run will cost, before anything is submitted: jobs, GPU-hours, CPU-hours, storage and the longest chain, per stage.

Which jobs there are follows from the configuration alone (tests compare them with Snakemake's own plan). How long they take
follows from the shapes of the models and of constants (constants.py), each with its source; most constants of GPUs are estimates,
so read a plan as "within a factor of two or three" until a benchmark of your cluster replaces them.
"""

from coderl.planning.cluster import Cluster, elapsed, key_of, longest_chain, outlook
from coderl.planning.constants import DEVICES, ENGINE_CLUSTER, ENGINE_LOCAL, FACTS, START, constants
from coderl.planning.jobs import Group, decoding_seconds, groups, training_seconds
from coderl.planning.plan import Plan, as_json, as_text, constants_text, make_plan
from coderl.planning.shapes import HUB_SHAPES, Shape, shape_of

__all__ = [
    "DEVICES",
    "ENGINE_CLUSTER",
    "ENGINE_LOCAL",
    "FACTS",
    "HUB_SHAPES",
    "START",
    "Cluster",
    "Group",
    "Plan",
    "Shape",
    "as_json",
    "as_text",
    "constants",
    "constants_text",
    "decoding_seconds",
    "elapsed",
    "groups",
    "key_of",
    "longest_chain",
    "make_plan",
    "outlook",
    "shape_of",
    "training_seconds",
]
