"""Names that a spec may hold where more can be added: families of bases, radial functions, readouts.

They stand here because specs are read before the stages that know what the names mean; those stages add to them
(``add_family``, ``add_radial``, ``add_readout``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Names:
    """The names that a key may hold, in the order in which they were added."""

    of: str
    known: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """One more. Raises ValueError for a name that is there, or that is no identifier."""
        if name in self or not name.isidentifier():
            raise ValueError(f"{name!r} is no new name of a {self.of}; there are {', '.join(self.known)}")
        self.known.append(name)

    def __contains__(self, name: object) -> bool:
        return name in self.known

    def check(self, value: str) -> str:
        """The value, where it is one of the names: for a validator."""
        if value not in self:
            raise PydanticCustomError("name", "is none")  # the loader shows the value and what is allowed
        return value

    def schema(self, schema: dict[str, object]) -> None:
        """Puts the names into the JSON Schema of the key."""
        schema["enum"] = list(self.known)

    def __str__(self) -> str:
        return "one of " + ", ".join(self.known) if len(self.known) > 1 else self.known[0]


SHORT_FAMILIES = Names("family", ["hiphop", "flexible", "independent", "connected", "linear"])
FAMILIES = Names("family", [*SHORT_FAMILIES.known, "products"])
GRADED = Names("family", ["linear", "products", "connected"])
"""Families that a degree may limit, and that may take a tensor from any channel."""
COVARIANT = Names("family", ["linear", "products"])
"""Families with outputs of ranks above 0."""
RADIAL_KINDS = Names("radial function", ["inverse_gaussian", "chebyshev", "bessel", "hypersphere"])
READOUTS = Names("readout", ["linear"])
