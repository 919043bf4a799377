"""Write the reference part of config/README.md from the configuration models: every key, its default, what it means."""

from __future__ import annotations

import argparse
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coderl.config import RunConfig, WorkflowConfig

README = Path("config/README.md")
MARK = "<!-- made by `make schema` from src/coderl/config.py; not edited by hand -->\n"


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Configuration models inside a type such as `dict[str, PolicyVariant]` or `CorpusConfig | None`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from models_in(part)


def default(field: FieldInfo) -> str:
    """The default as YAML would have it; sections have their own table."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    text = json.dumps(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)
    return f"`{text}`" if len(text) < 80 else "see there" if isinstance(value, BaseModel) else "see the schema"


def choices(annotation: Any) -> str:
    """The words of a Literal, for keys that take one of a few."""
    if typing.get_origin(annotation) is not Literal:
        return ""
    return " or ".join(f"`{word}`" for word in typing.get_args(annotation)) + "."


def table(model: type[BaseModel]) -> str:
    """A model's keys as a Markdown table."""
    lines = [f"{(model.__doc__ or '').splitlines()[0]}\n", "| key | default | |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        inner = ", ".join(each.__name__ for each in models_in(field.annotation))
        parts = [choices(field.annotation), (field.description or "").replace("|", "\\|"), inner and f"→ {inner}"]
        lines.append(f"| `{name}` | {default(field)} | {' '.join(part for part in parts if part)} |")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """All tables: config.yaml, the run file, then each section in the order of its first use."""
    order: list[type[BaseModel]] = []

    def visit(model: type[BaseModel]) -> None:
        if model in order:
            return
        order.append(model)
        for field in model.model_fields.values():
            for inner in models_in(field.annotation):
                visit(inner)

    visit(WorkflowConfig)
    visit(RunConfig)
    titles: dict[type[BaseModel], str] = {WorkflowConfig: "config.yaml", RunConfig: "runs/&lt;run&gt;.yaml"}
    parts = [f"### {titles.get(model, model.__name__)}\n\n{table(model)}" for model in order]
    return "\n".join(parts)


def main() -> None:
    """Write the reference, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the file has drifted")
    arguments = parser.parse_args()
    present = README.read_text(encoding="utf-8")
    text = present.partition(MARK)[0] + MARK + "\n" + reference()
    if not arguments.check:
        README.write_text(text, encoding="utf-8")
    elif present != text:
        raise SystemExit(f"error: {README} has drifted from src/coderl/config.py; run `make schema`")


if __name__ == "__main__":
    main()
