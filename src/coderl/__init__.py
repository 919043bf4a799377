"""CodeRL (Le et al., NeurIPS 2022) as a workflow: from raw code to a table whose every number can be traced.

Importing this package pulls in neither torch nor transformers; the stages live in modules of their own.
"""

__version__ = "0.1.0"
