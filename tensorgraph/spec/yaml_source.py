"""Plain YAML with a line number for every value.

Supported: one document of nested mappings, sequences and scalars in the YAML 1.2 core schema, so that `No` is text.
Refused: several documents, directives, anchors, aliases, tags, duplicate keys and deep nesting. A spec needs none of
them, and each lets a short file mean something long or surprising.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from tensorgraph.errors import SpecError

MAX_BYTES = 2**20
MAX_DEPTH = 8
_MAX_NUMBER_CHARS = 100  # longer digits stay text: no range contains them, and Python limits their conversion
_CONSTANTS = {text: value for word, value in (("null", None), ("true", True), ("false", False))
              for text in (word, word.capitalize(), word.upper())} | {"": None, "~": None}  # fmt: skip
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Located:
    """The value of a document and, for the path of keys to each of its parts, the line on which that part is given."""

    value: Mapping[str, Any]
    lines: Mapping[Keys, int]

    def line(self, keys: Keys) -> int:
        """The line of the part at `keys`, or of the innermost part that holds it where it is not given."""
        while keys not in self.lines:
            keys = keys[:-1]
        return self.lines[keys]


def read_text(path: Path, file: str) -> str:
    """The text of a regular file of at most `MAX_BYTES` in UTF-8. Raises SpecError."""
    try:
        if path.is_dir():
            raise SpecError(file, 1, "this is a directory; allowed: a YAML file")
        if path.exists() and not path.is_file():
            raise SpecError(file, 1, "this is no regular file; allowed: a YAML file")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(file, 1, "there is no such file; allowed: the path of a YAML file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(file, 1, f"cannot be read ({reason}); allowed: the path of a YAML file") from None
    if len(data) > MAX_BYTES:
        raise SpecError(file, 1, f"the file is too large; allowed: at most {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(file, line, f"byte 0x{data[error.start]:02x} is not UTF-8; allowed: UTF-8 text") from None


def parse_yaml(text: str, file: str, expected: str) -> Located:
    """The one mapping that `text` holds. Raises SpecError, with the line of the first construct that is not allowed.

    `expected` says in an error message what a file without a mapping should hold.
    """
    text = text.removeprefix("\ufeff")
    try:
        return _Reader(YAML(typ="safe", pure=True).parse(text), file, expected).document()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SpecError(file, line, f"this is not YAML ({error.problem or error.context}); allowed: YAML 1.2") from None
    except YAMLError as error:  # a character that YAML does not allow: the reader gives its position, not its line
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise SpecError(file, line, "there is a character that YAML does not allow; allowed: printable text") from None
    except (ValueError, OverflowError):  # an escape such as "\UFFFFFFFF", which the scanner hands to chr() unchecked
        raise SpecError(file, 1, "an escaped character is out of range; allowed: Unicode characters") from None


def plain_value(text: str) -> str | int | float | bool | None:
    """The value of a plain (unquoted) scalar in the YAML 1.2 core schema."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) > _MAX_NUMBER_CHARS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "", 1) if text[-1].isalpha() else text)
    return text


class _Reader:
    """Reads values off a stream of YAML events; it stops at the first event that is not allowed."""

    def __init__(self, events: Iterator[Any], file: str, expected: str) -> None:
        self.events = events
        self.file = file
        self.expected = expected
        self.lines: dict[Keys, int] = {}

    def document(self) -> Located:
        next(self.events)  # the start of the stream
        start = next(self.events)
        if isinstance(start, StreamEndEvent):
            raise SpecError(self.file, 1, f"the file is empty; allowed: {self.expected}")
        self._check_directives(start)
        first = next(self.events)
        if isinstance(first, ScalarEvent) and not first.value:
            self._refuse(first, f"the document is empty; allowed: {self.expected}")
        if not isinstance(first, MappingStartEvent):
            self._refuse(first, f"the document is no mapping; allowed: {self.expected}")
        value = self._value(first, ())
        next(self.events)  # the end of the document
        after = next(self.events)
        if not isinstance(after, StreamEndEvent):
            self._refuse(after, "a second document starts here; allowed: one document")
        return Located(value, MappingProxyType(self.lines))

    def _check_directives(self, start: DocumentStartEvent) -> None:
        if start.version or start.tags:
            self._refuse(start, "there is a YAML directive; allowed: a document without directives")

    def _value(self, event: Any, keys: Keys) -> Any:
        self._check_plain(event, keys)
        self.lines.setdefault(keys, event.start_mark.line + 1)
        if isinstance(event, MappingStartEvent):
            return self._mapping(keys)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(keys)
        return plain_value(event.value) if event.style is None else event.value

    def _mapping(self, keys: Keys) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            key = self._key(event)
            if key in result:
                first = self.lines[(*keys, key)]
                self._refuse(event, f"the key {key!r} is given again after line {first}; allowed: each key once")
            self.lines[(*keys, key)] = event.start_mark.line + 1  # a value is found at its key
            result[key] = self._value(next(self.events), (*keys, key))
        return result

    def _key(self, event: Any) -> str:
        self._check_plain(event, ())
        if not isinstance(event, ScalarEvent):
            self._refuse(event, "a key is a mapping or a sequence; allowed: keys that are words")
        return str(event.value)

    def _sequence(self, keys: Keys) -> tuple[Any, ...]:
        result: list[Any] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            result.append(self._value(event, (*keys, len(result))))
        return tuple(result)

    def _check_plain(self, event: Any, keys: Keys) -> None:
        if isinstance(event, AliasEvent) or event.anchor is not None:
            self._refuse(event, "there is an anchor or an alias; allowed: every value written out")
        if event.ctag is not None:
            self._refuse(event, "there is a tag; allowed: values without tags")
        if len(keys) > MAX_DEPTH:
            self._refuse(event, f"the values are nested too deeply; allowed: at most {MAX_DEPTH} levels")

    def _refuse(self, event: Any, message: str) -> NoReturn:
        raise SpecError(self.file, event.start_mark.line + 1, message)
