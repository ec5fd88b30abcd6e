"""YAML files as validated values, with every mistake told as `FILE:LINE: what is wrong; allowed: what is allowed`.

A document is described by a `SpecModel` whose fields carry `Allowed` notes; sections are fields that are such models
themselves, or lists of them. Specs and the configs of training are documents.

A validator that finds a conflict between keys says in the context of its error where it is: `at`, the keys below the
value that it validates; `element`, the index in it whose line counts; `sibling`, the key whose line counts where the
wrong one is not given.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails

from tensorgraph.errors import SpecError
from tensorgraph.spec.base import Allowed, SpecModel
from tensorgraph.spec.elements import SYMBOLS
from tensorgraph.spec.yaml_source import Keys, Located, parse_yaml

_MAX_SHOWN = 40
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
Document = TypeVar("Document", bound=SpecModel)


def parse_document(kind: type[Document], text: str, file: str) -> Document:
    """The document of this kind in the YAML `text`. Raises SpecError: `file` and the line of the first mistake."""
    return validated(kind, parse_yaml(text, file, required_keys(kind)), file)


def validated(kind: type[Document], source: Located, file: str, within: str = "") -> Document:
    """The document of this kind that a mapping with its lines is.

    `within` is put before the keys that an error names, such as `spec.` for a document that is part of another one.
    Raises SpecError: `file` and the line of the first mistake.
    """
    problems = _empty_keys(source, kind, within)
    try:
        document = kind.model_validate(dict(source.value))
    except ValidationError as error:
        problems += _problems(error, source, kind, within)
    if problems:
        raise SpecError(file, *min(problems, key=lambda problem: problem[0]))
    return document


def dotted_keys(kind: type[SpecModel]) -> list[str]:
    """Every key that a document of the kind may have, with those of its sections: `network.sensitivity.cutoff`.

    Of a list of sections it is the list alone.
    """
    found: list[str] = []
    for key, field in kind.model_fields.items():
        section = None if get_origin(field.annotation) is tuple else _section(kind, (key,))
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
    return {"$schema": _DIALECT, **schema, "title": title}


def schema_of_any(kinds: Sequence[type[SpecModel]], title: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of documents of any of several kinds."""
    sections: dict[str, Any] = {}
    for kind in kinds:
        schema = json_schema(kind, kind.__name__)
        del schema["$schema"]
        found = {**schema.pop("$defs", {}), kind.__name__: schema}
        assert all(sections.get(name, section) == section for name, section in found.items()), "one name, two sections"
        sections |= found
    alternatives = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds]
    return {"$schema": _DIALECT, "title": title, "anyOf": alternatives, "$defs": sections}


class _Schema(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        """A default as a file would give it; pydantic's own way warns of values that a validator made."""
        return json.loads(json.dumps(dft.model_dump(exclude_none=True) if isinstance(dft, SpecModel) else dft))


def _describe(kind: type[SpecModel], schema: dict[str, Any], sections: dict[str, Any]) -> None:
    for key in kind.model_fields:
        schema["properties"][key].setdefault("description", _allowed(kind, key))
        if section := _section(kind, (key,)):
            _describe(section, sections[section.__name__], sections)


def _refuse_null(key: dict[str, Any]) -> None:
    kinds = [one for one in key.get("anyOf", []) if one != {"type": "null"}]
    if len(kinds) < len(key.get("anyOf", [])):
        key.pop("anyOf")
        key.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})
    if key.get("default", ...) is None:
        del key["default"]


def _empty_keys(source: Located, kind: type[SpecModel], within: str) -> list[tuple[int, str]]:
    """Keys without a value, with their lines: each would silently mean "no such key"."""
    found = []
    for keys in _empty(source.value):
        section, key = _section(kind, keys[:-1]), str(keys[-1])
        if section is not None and key in section.model_fields:
            message = f"`{within}{_named(keys)}` is empty; allowed: {_allowed(section, key)}"
            found.append((source.line(keys), message))
    return found


def _empty(value: Any) -> Iterator[Keys]:
    """The paths of all keys without a value, those in lists of mappings included."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from [(key,)] if inner is None else ((key, *rest) for rest in _empty(inner))
    elif isinstance(value, tuple | list):
        for index, inner in enumerate(value):
            yield from ((index, *rest) for rest in _empty(inner))


def _problems(error: ValidationError, source: Located, kind: type[SpecModel], within: str) -> list[tuple[int, str]]:
    """Problems with their lines. A missing key counts only where no unknown key may be its misspelling.

    Nor does it count that a list is too short once its wrong elements are left out, as pydantic reports it.
    """
    details = error.errors(include_url=False)
    misspelt = {item["loc"][:-1] for item in details if item["type"] == "extra_forbidden"}
    wanted = [item for item in details if item["type"] != "missing" or item["loc"][:-1] not in misspelt]
    wanted = [item for item in wanted if item["type"] != "too_short" or not item["input"]]
    return [(_line(item, source), _message(item, kind, within)) for item in wanted]


def _line(item: ErrorDetails, source: Located) -> int:
    """The line of a problem: a validator may point to an element, or to the sibling that conflicts with a default."""
    keys, hints = _place(item), item.get("ctx", {})
    sibling = (*keys[:-1], hints.get("sibling", ""))
    if keys not in source.lines and sibling in source.lines:
        return source.line(sibling)
    return source.line((*keys, hints["element"]) if "element" in hints else keys)


def _message(item: ErrorDetails, kind: type[SpecModel], within: str) -> str:
    place = _place(item)
    keys = [key for key in place if isinstance(key, str)]
    section = _section(kind, keys[:-1])
    assert section is not None, f"{place} is in no section"
    key, name = keys[-1], within + _named(place)
    if item["type"] == "extra_forbidden":
        known = list(section.model_fields)
        return f"unknown key {_shown(key)}{suggestion(key, known)}; allowed: {', '.join(known)}"
    if item["type"] == "missing":
        return missing(kind, place, within)
    wrong = item["msg"] if item["type"] == "spec_value" else f"is {_shown(item['input'])}"
    if item["type"] == "spec_value" and isinstance(item["input"], str):
        wrong += suggestion(item["input"].capitalize(), SYMBOLS if key == "species" else ())
    elif item["type"] == "too_long":
        wrong = f"has {len(item['input'])} elements"
    return f"`{name}` {wrong}; allowed: {_allowed(section, key)}"


def missing(kind: type[SpecModel], keys: Keys, within: str = "") -> str:
    """The message of a document of the kind that lacks the key at `keys`."""
    section = _section(kind, keys[:-1])
    assert section is not None, f"{keys} is in no section"
    return f"the key `{within}{_named(keys)}` is missing; allowed: {_allowed(section, str(keys[-1]))}"


def _place(item: ErrorDetails) -> Keys:
    """The keys of what is wrong, which a validator of several keys points to."""
    return (*item["loc"], *item.get("ctx", {}).get("at", ()))


def _named(keys: Keys) -> str:
    """Keys as an author would write them: `layers[0].density.max_rank`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _section(kind: type[SpecModel], keys: Sequence[str | int]) -> type[SpecModel] | None:
    """The model of the section at `keys`, None where something else stands there; a list has that of its elements."""
    section: type[SpecModel] | None = kind
    for key in (key for key in keys if isinstance(key, str)):
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
