"""Sampling of programs: `generate` draws one batch, `sample` is the stage that draws a shard of a problem set."""

from coderl.sampling.generation import Generated, Request, generate
from coderl.sampling.stage import sample

__all__ = ["Generated", "Request", "generate", "sample"]
