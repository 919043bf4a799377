"""Pretraining data: sources of Python files, filters, and the stage that writes them."""

from coderl.corpus.stage import make_corpus

__all__ = ["make_corpus"]
