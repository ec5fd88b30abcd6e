"""Specs from YAML files, of the short form (the key `basis`) or the general one (the key `layers`)."""

from os import PathLike, fspath
from pathlib import Path
from typing import Any

from tensorgraph.errors import SpecError
from tensorgraph.spec.documents import missing, required_keys, schema_of_any, validated
from tensorgraph.spec.general import AnySpec, GeneralSpec
from tensorgraph.spec.model import Spec
from tensorgraph.spec.yaml_source import Keys, Located, parse_yaml, read_text

_EXPECTED = f"{required_keys(Spec)}, or {required_keys(GeneralSpec).removeprefix('a mapping with the keys ')}"


def load_spec(path: str | PathLike[str]) -> AnySpec:
    """The spec in the YAML file at `path`. Raises SpecError, which names the file and the line of the first mistake."""
    file = fspath(path)
    return parse_spec(read_text(Path(file), file), file)


def parse_spec(text: str, file: str = "<string>") -> AnySpec:
    """The spec that the YAML `text` holds. Raises SpecError, which names `file` and the line of the first mistake."""
    source = parse_yaml(text, file, _EXPECTED)
    kind = _form(source, file)
    try:
        return validated(kind, source, file)
    except SpecError as error:
        if error.message == missing(Spec, ("basis",)):
            raise SpecError(file, error.line, f"{error.message}, or the key layers of a general spec") from None
        raise


def _form(source: Located, file: str) -> type[Spec] | type[GeneralSpec]:
    """The form of a document; without `basis` and `layers` the one whose own keys it has."""
    if {"basis", "layers"} <= source.value.keys():
        line = max(source.line(("basis",)), source.line(("layers",)))
        raise SpecError(file, line, "there are both `basis` and `layers`; allowed: basis and optionally network, "
                        "or species, radial, layers and readout")  # fmt: skip
    if "basis" in source.value:
        return Spec
    own = GeneralSpec.model_fields.keys() - Spec.model_fields.keys()
    return GeneralSpec if own & source.value.keys() else Spec


def line_of(path: str | PathLike[str], keys: Keys) -> int:
    """The line of the spec file at `path` on which the value at `keys` is given. Raises SpecError."""
    file = fspath(path)
    return parse_yaml(read_text(Path(file), file), file, _EXPECTED).line(keys)


def spec_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec of either form, for editors."""
    return schema_of_any((Spec, GeneralSpec), "A tensorgraph spec")
