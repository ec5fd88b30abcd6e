"""Specs from YAML files, with every mistake told as `FILE:LINE: what is wrong; allowed: what is allowed`."""

from difflib import get_close_matches
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tensorgraph.errors import SpecError
from tensorgraph.spec.elements import SYMBOLS
from tensorgraph.spec.model import Allowed, BasisSpec, NetworkSpec, SensitivitySpec, Spec, SpecModel
from tensorgraph.spec.yaml_source import Keys, Located, parse_yaml, read_text

_SECTIONS: dict[str, type[SpecModel]] = {"basis": BasisSpec, "network": NetworkSpec, "sensitivity": SensitivitySpec}
_MAX_SHOWN = 40


def load_spec(path: str | PathLike[str]) -> Spec:
    """The spec in the YAML file at `path`. Raises SpecError, which names the file and the line of the first mistake."""
    file = fspath(path)
    return parse_spec(read_text(Path(file), file), file)


def parse_spec(text: str, file: str = "<string>") -> Spec:
    """The spec that the YAML `text` holds. Raises SpecError, which names `file` and the line of the first mistake."""
    source = parse_yaml(text, file)
    if "network" in source.value and source.value["network"] is None:  # else it would silently mean "no network"
        message = f"`network` is empty; allowed: {_allowed(Spec, 'network')}"
        raise SpecError(file, source.line(("network",)), message)
    try:
        return Spec.model_validate(dict(source.value))
    except ValidationError as error:
        line, message = _first_problem(error, source)
        raise SpecError(file, line, message) from None


def line_of(path: str | PathLike[str], keys: Keys) -> int:
    """The line of the spec file at `path` on which the value at `keys` is given. Raises SpecError."""
    file = fspath(path)
    return parse_yaml(read_text(Path(file), file), file).line(keys)


def spec_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec, for editors."""
    schema = Spec.model_json_schema()
    network = schema["properties"]["network"]  # absent or a mapping: in a file, null is refused
    network["$ref"] = network.pop("anyOf")[0]["$ref"]
    del network["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A tensorgraph spec"}


def _first_problem(error: ValidationError, source: Located) -> tuple[int, str]:
    """The first problem by line. A missing key counts only where no unknown key may be its misspelling."""
    details = error.errors(include_url=False)
    misspelt = {item["loc"][:-1] for item in details if item["type"] == "extra_forbidden"}
    wanted = [item for item in details if item["type"] != "missing" or item["loc"][:-1] not in misspelt]
    problems = [(_line(item, source), _message(item)) for item in wanted]
    return min(problems, key=lambda problem: problem[0])


def _line(item: ErrorDetails, source: Located) -> int:
    """The line of a problem: a validator may point to an element, or to the sibling that conflicts with a default."""
    keys, hints = item["loc"], item.get("ctx", {})
    sibling = (*keys[:-1], hints.get("sibling", ""))
    if keys not in source.lines and sibling in source.lines:
        return source.line(sibling)
    return source.line((*keys, hints["element"]) if "element" in hints else keys)


def _message(item: ErrorDetails) -> str:
    keys = [key for key in item["loc"] if isinstance(key, str)]
    section = _SECTIONS[keys[-2]] if len(keys) > 1 else Spec
    key, name = keys[-1], ".".join(keys)
    if item["type"] == "extra_forbidden":
        known = list(section.model_fields)
        return f"unknown key {_shown(key)}{_suggestion(key, known)}; allowed: {', '.join(known)}"
    if item["type"] == "missing":
        return f"the key `{name}` is missing; allowed: {_allowed(section, key)}"
    wrong = item["msg"] if item["type"] == "spec_value" else f"is {_shown(item['input'])}"
    if item["type"] == "spec_value" and isinstance(item["input"], str):
        wrong += _suggestion(item["input"].capitalize(), SYMBOLS if key == "species" else ())
    if len(keys) < len(item["loc"]):
        name += f"[{item['loc'][-1]}]"
    return f"`{name}` {wrong}; allowed: {_allowed(section, key)}"


def _allowed(section: type[SpecModel], key: str) -> str:
    return next(note.text for note in section.model_fields[key].metadata if isinstance(note, Allowed))


def _suggestion(word: str, known: tuple[str, ...] | list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _shown(value: object) -> str:
    """A value of a YAML document as its author would know it, cut short."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case tuple():
            return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
