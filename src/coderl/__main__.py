"""`python -m coderl` is `coderl`; torchrun starts the package in this way."""

from coderl.cli import main

main()
