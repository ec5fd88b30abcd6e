"""The degree of a graph: a linear form in what a vertex is, summed over its vertices and bounded.

The form is text such as `2 + 4n + l`. It is read by hand into three integers; nothing of it is evaluated as code.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from tensorgraph.spec.base import Allowed, SpecModel, refused

MAX_COEFFICIENT = 64
_TERM = re.compile(r"([0-9]+)?([nl])?")
_PATTERN = r"^ *([0-9]+|[0-9]*[nl])( *\+ *([0-9]+|[0-9]*[nl]))* *$"
"""For editors: what `LinearForm.parse` takes, but for limits and repeated terms."""


@dataclass(frozen=True)
class LinearForm:
    """`constant + per_channel · n + per_rank · l` of a vertex with the radial channel n and the rank l."""

    constant: int = 0
    per_channel: int = 0
    per_rank: int = 0

    @classmethod
    def parse(cls, text: str) -> "LinearForm":
        """The form that `text` is. Raises PydanticCustomError, which says what is wrong with it."""
        found: dict[str, int] = {}
        for term in (term.strip(" ") for term in text.split("+")):
            match = _TERM.fullmatch(term)
            if match is None or not term:
                raise refused(f"is {text!r}, of which {term!r} is no term")
            digits, symbol = match[1], match[2] or ""
            if symbol in found:
                raise refused(f"is {text!r}, with {f'{symbol} twice' if symbol else 'two constants'}")
            if (coefficient := int(digits or 1)) > MAX_COEFFICIENT:
                raise refused(f"is {text!r}, of which {coefficient} is above {MAX_COEFFICIENT}")
            found[symbol] = coefficient
        if not any(found.values()):
            raise refused(f"is {text!r}, which limits nothing")
        return cls(found.get("", 0), found.get("n", 0), found.get("l", 0))

    def __str__(self) -> str:
        """The one text of all that mean the same form, such as `2 + 4n + l`."""
        terms = [str(self.constant)] if self.constant else []
        for coefficient, symbol in ((self.per_channel, "n"), (self.per_rank, "l")):
            if coefficient:
                terms.append(f"{coefficient}{symbol}" if coefficient > 1 else symbol)
        return " + ".join(terms)


def _text(value: object) -> object:
    return str(value) if type(value) is int else value  # a constant alone is a number in YAML


def _canonical(text: str) -> str:
    return str(LinearForm.parse(text))


class DegreeSpec(SpecModel):
    """Which graphs have the right size: those whose vertices have degrees that add up to what is wanted."""

    limit: Annotated[
        int | None,
        Allowed("an integer from 1 to 100, at least the constant of the form; no key limit with the key exactly"),
        Field(ge=1, le=100, title="Limit", description="The largest degree of a graph: the sum over its vertices."),
    ] = None
    exactly: Annotated[
        int | None,
        Allowed("an integer from 1 to 100, at least the constant of the form; no key exactly with the key limit"),
        Field(ge=1, le=100, title="Exactly", description="The degree that every graph has."),
    ] = None
    of: Annotated[
        str,
        Allowed(
            "text such as 2 + 4n + l: a sum of a constant, a multiple of n (the radial channel, from 0) and one of l "
            f"(the rank), each at most once, with integers from 0 to {MAX_COEFFICIENT} that are not all 0"
        ),
        Field(max_length=64, title="Of", description="The degree of a vertex: a linear form in n and l."),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "pattern": _PATTERN, "maxLength": 64},
                    {"type": "integer", "minimum": 1, "maximum": MAX_COEFFICIENT},
                ]
            }
        ),
        BeforeValidator(_text),
        AfterValidator(_canonical),
    ]

    @model_validator(mode="after")
    def _lets_a_vertex_in(self) -> "DegreeSpec":
        if self.limit is None and self.exactly is None:
            raise refused("is missing, and exactly is too", "limit")
        if self.limit is not None and self.exactly is not None:
            raise refused(f"is {self.exactly}, beside limit, which is {self.limit}", "exactly", sibling="limit")
        if self.bound < self.constant:
            key = "limit" if self.exactly is None else "exactly"
            raise refused(f"is {self.bound}, and no vertex has a degree below {self.constant}", key)
        return self

    @property
    def bound(self) -> int:
        """The largest degree of a graph."""
        return self.limit or self.exactly or 0

    @property
    def constant(self) -> int:
        """What every vertex counts."""
        return LinearForm.parse(self.of).constant

    @property
    def per_channel(self) -> int:
        """The coefficient of the radial channel n, which is counted from 0."""
        return LinearForm.parse(self.of).per_channel

    @property
    def per_rank(self) -> int:
        """The coefficient of the rank l."""
        return LinearForm.parse(self.of).per_rank
