"""Specs from YAML files."""

from os import PathLike, fspath
from pathlib import Path
from typing import Any

from tensorgraph.spec.documents import json_schema, parse_document, required_keys
from tensorgraph.spec.model import Spec
from tensorgraph.spec.yaml_source import Keys, parse_yaml, read_text


def load_spec(path: str | PathLike[str]) -> Spec:
    """The spec in the YAML file at `path`. Raises SpecError, which names the file and the line of the first mistake."""
    file = fspath(path)
    return parse_spec(read_text(Path(file), file), file)


def parse_spec(text: str, file: str = "<string>") -> Spec:
    """The spec that the YAML `text` holds. Raises SpecError, which names `file` and the line of the first mistake."""
    return parse_document(Spec, text, file)


def line_of(path: str | PathLike[str], keys: Keys) -> int:
    """The line of the spec file at `path` on which the value at `keys` is given. Raises SpecError."""
    file = fspath(path)
    return parse_yaml(read_text(Path(file), file), file, required_keys(Spec)).line(keys)


def spec_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec, for editors."""
    return json_schema(Spec, "A tensorgraph spec")
