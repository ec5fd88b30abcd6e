"""YAML files as validated values, with every mistake told as `FILE:LINE: what is wrong; allowed: what is allowed`.

A document is described by a `SpecModel` whose fields carry `Allowed` notes; sections are fields that are such models
themselves. Specs and the configs of training are documents.
"""

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails

from tensorgraph.errors import SpecError
from tensorgraph.spec.elements import SYMBOLS
from tensorgraph.spec.model import Allowed, SpecModel
from tensorgraph.spec.yaml_source import Located, parse_yaml

_MAX_SHOWN = 40
Document = TypeVar("Document", bound=SpecModel)


def parse_document(kind: type[Document], text: str, file: str) -> Document:
    """The document of this kind in the YAML `text`. Raises SpecError: `file` and the line of the first mistake."""
    return validated(kind, parse_yaml(text, file, required_keys(kind)), file)


def validated(kind: type[Document], source: Located, file: str, within: str = "") -> Document:
    """The document of this kind that a mapping with its lines is.

    `within` is put before the keys that an error names, such as `spec.` for a document that is part of another one.
    Raises SpecError: `file` and the line of the first mistake.
    """
    try:
        document = kind.model_validate(dict(source.value))
    except ValidationError as error:
        line, message = _first_problem(error, source, kind, within)
        raise SpecError(file, line, message) from None
    for keys in _empty(source.value):  # else it would silently mean "no such key"
        section = _section(kind, keys[:-1])
        if section is not None:
            allowed = _allowed(section, keys[-1])
            raise SpecError(file, source.line(tuple(keys)), f"`{within}{'.'.join(keys)}` is empty; allowed: {allowed}")
    return document


def dotted_keys(kind: type[SpecModel]) -> list[str]:
    """Every key that a document of the kind may have, with those of its sections: `network.sensitivity.cutoff`."""
    found: list[str] = []
    for key in kind.model_fields:
        section = _section(kind, [key])
        found += [key, *(f"{key}.{inner}" for inner in (dotted_keys(section) if section else ()))]
    return found


def required_keys(kind: type[SpecModel]) -> str:
    """What every document of the kind is, in the words that an error message ends with."""
    names = [name for name, field in kind.model_fields.items() if field.is_required()]
    return f"a mapping with the keys {' and '.join(names)}"


def json_schema(kind: type[SpecModel], title: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of documents of the kind, for editors.

    What a key may hold stands as its description where it has none. A key is absent or has a value: null is refused.
    """
    schema = kind.model_json_schema(schema_generator=_Schema)
    _describe(kind, schema, schema.get("$defs", {}))
    for keys in (schema, *schema.get("$defs", {}).values()):
        for key in keys.get("properties", {}).values():
            _refuse_null(key)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


class _Schema(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        """A default as a file would give it; pydantic's own way warns of values that a validator made."""
        return json.loads(json.dumps(dft.model_dump(exclude_none=True) if isinstance(dft, SpecModel) else dft))


def _describe(kind: type[SpecModel], schema: dict[str, Any], sections: dict[str, Any]) -> None:
    for key in kind.model_fields:
        schema["properties"][key].setdefault("description", _allowed(kind, key))
        if section := _section(kind, [key]):
            _describe(section, sections[section.__name__], sections)


def _refuse_null(key: dict[str, Any]) -> None:
    kinds = [one for one in key.get("anyOf", []) if one != {"type": "null"}]
    if len(kinds) < len(key.get("anyOf", [])):
        key.pop("anyOf")
        key.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})
    if key.get("default", ...) is None:
        del key["default"]


def _empty(value: Mapping[str, Any]) -> Iterator[list[str]]:
    """The paths of all keys without a value."""
    for key, inner in value.items():
        if inner is None:
            yield [key]
        elif isinstance(inner, Mapping):
            yield from ([key, *rest] for rest in _empty(inner))


def _first_problem(error: ValidationError, source: Located, kind: type[SpecModel], within: str) -> tuple[int, str]:
    """The first problem by line. A missing key counts only where no unknown key may be its misspelling."""
    details = error.errors(include_url=False)
    misspelt = {item["loc"][:-1] for item in details if item["type"] == "extra_forbidden"}
    wanted = [item for item in details if item["type"] != "missing" or item["loc"][:-1] not in misspelt]
    problems = [(_line(item, source), _message(item, kind, within)) for item in wanted]
    return min(problems, key=lambda problem: problem[0])


def _line(item: ErrorDetails, source: Located) -> int:
    """The line of a problem: a validator may point to an element, or to the sibling that conflicts with a default."""
    keys, hints = item["loc"], item.get("ctx", {})
    sibling = (*keys[:-1], hints.get("sibling", ""))
    if keys not in source.lines and sibling in source.lines:
        return source.line(sibling)
    return source.line((*keys, hints["element"]) if "element" in hints else keys)


def _message(item: ErrorDetails, kind: type[SpecModel], within: str) -> str:
    keys = [key for key in item["loc"] if isinstance(key, str)]
    section = _section(kind, keys[:-1])
    assert section is not None, f"{item['loc']} is in no section"
    key, name = keys[-1], within + ".".join(keys)
    if item["type"] == "extra_forbidden":
        known = list(section.model_fields)
        return f"unknown key {_shown(key)}{suggestion(key, known)}; allowed: {', '.join(known)}"
    if item["type"] == "missing":
        return f"the key `{name}` is missing; allowed: {_allowed(section, key)}"
    wrong = item["msg"] if item["type"] == "spec_value" else f"is {_shown(item['input'])}"
    if item["type"] == "spec_value" and isinstance(item["input"], str):
        wrong += suggestion(item["input"].capitalize(), SYMBOLS if key == "species" else ())
    if len(keys) < len(item["loc"]):
        name += f"[{item['loc'][-1]}]"
    return f"`{name}` {wrong}; allowed: {_allowed(section, key)}"


def _section(kind: type[SpecModel], keys: list[str]) -> type[SpecModel] | None:
    """The model of the section at `keys`, or None where something else stands there."""
    section: type[SpecModel] | None = kind
    for key in keys:
        annotation = section.model_fields[key].annotation if section and key in section.model_fields else None
        kinds = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        section = next((one for one in kinds if issubclass(one, SpecModel)), None)
    return section


def _allowed(section: type[SpecModel], key: str) -> str:
    return next(note.text for note in section.model_fields[key].metadata if isinstance(note, Allowed))


def suggestion(word: str, known: tuple[str, ...] | list[str]) -> str:
    """The known word that was probably meant, in the words of an error message; nothing where none is close."""
    close = get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _shown(value: Any) -> str:
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
