"""The kinds of vertices: which tensor a vertex is, by rank and colour, or what role it plays beside the tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["tensor", "probe", "epsilon"]

RANK_LETTERS = "svqth"
"""Letters of ranks 0 to 4, as in the literature: scalar, vector, quadrupole, (rank) three, hexadecapole."""


@dataclass(frozen=True, order=True)
class Kind:
    """What a vertex stands for.

    Attributes:
        rank: of the symmetric traceless tensor; for ``epsilon`` the number of its antisymmetric indices.
        colour: which of several tensors of one rank: a radial channel, a species, a source.
        role: a ``tensor``; a ``probe``, the tensor by which an output of a rank above 0 is the derivative; or
            ``epsilon``, the antisymmetric tensor of the space, which makes pseudo-scalars.
    """

    rank: int
    colour: int = 0
    role: Role = "tensor"

    def __post_init__(self) -> None:
        if self.rank < 0 or self.colour < 0:
            raise ValueError(f"a tensor of rank {self.rank} and colour {self.colour} does not exist")

    @property
    def letter(self) -> str:
        """How the tensor is written: its rank's letter and, from the second one on, its colour; probes in capitals."""
        if self.role == "epsilon":
            return "e"
        letter = RANK_LETTERS[self.rank] if self.rank < len(RANK_LETTERS) else f"r{self.rank}"
        if self.role == "probe":
            letter = letter.upper()
        return letter if not self.colour else f"{letter}{'c' if self.rank >= len(RANK_LETTERS) else ''}{self.colour}"

    @property
    def key(self) -> str:
        """The rank, and the colour where there is one: ``2`` or ``2.1``; how records name tensors."""
        return f"{self.rank}.{self.colour}" if self.colour else str(self.rank)

    def __repr__(self) -> str:
        """A plain tensor as its rank, which every function that takes kinds understands."""
        if self.role == "tensor" and not self.colour:
            return str(self.rank)
        return f"Kind(rank={self.rank}, colour={self.colour}, role={self.role!r})"

    def __str__(self) -> str:
        return self.letter


def as_kinds(kinds: Iterable[Kind | int]) -> tuple[Kind, ...]:
    """Kinds, a bare rank standing for the tensor of that rank and colour 0."""
    return tuple(kind if isinstance(kind, Kind) else Kind(kind) for kind in kinds)
