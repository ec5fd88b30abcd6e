"""Arrays over named index spaces, and products of them in index notation.

``T["pm"] * S["pn"]`` is the product of the elements ``T[p,m] S[p,n]``. Four letters stand for spaces whose size is
known only when a network runs, and for the maps between them: ``p`` is a pair of atoms, ``i`` its central atom (or any
atom where there is no pair), ``j`` the neighbour of the pair, ``s`` the structure of atom i. Every other letter is an
index of a fixed extent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True)
class Space:
    """What an index counts: ``size`` is None where it is known only when a network runs."""

    name: str
    size: int | None = None

    @property
    def extent(self) -> int:
        """The size, where it is fixed. Raises ValueError where it is not."""
        if self.size is None:
            raise ValueError(f"how many of {self.name} there are is known only when a network runs")
        return self.size

    def __str__(self) -> str:
        return self.name if self.size is None else f"{self.name}:{self.size}"


PAIR, ATOM, STRUCTURE = Space("pair"), Space("atom"), Space("structure")

RUNNING = {"p": PAIR, "i": ATOM, "j": ATOM, "s": STRUCTURE}
"""The letters of spaces whose size is known only when a network runs."""


@dataclass(frozen=True)
class Array:
    """A named array; its axes count the elements of these spaces. ``symbol`` is what stands for it in equations."""

    name: str
    spaces: tuple[Space, ...]
    symbol: str = field(default="", compare=False)

    def __getitem__(self, letters: str) -> Factor:
        return Factor(self, letters)

    def __str__(self) -> str:
        return f"{self.name}[{', '.join(map(str, self.spaces))}]"


@dataclass(frozen=True)
class Factor:
    """The elements of an array, one letter for each of its axes.

    Raises:
        ValueError: another number of letters than axes, a letter twice, or a letter of another space than the axis.
    """

    array: Array
    letters: str

    def __post_init__(self) -> None:
        if len(self.letters) != len(self.array.spaces) or len(set(self.letters)) != len(self.letters):
            raise ValueError(f"{self.array} needs {len(self.array.spaces)} different letters, not {self.letters!r}")
        for letter, space in zip(self.letters, self.array.spaces, strict=True):
            wanted = RUNNING.get(letter)
            if (wanted is None and space.size is None) or wanted not in (None, space):
                raise ValueError(f"{letter} is no index of {space}, in {self}")

    def __mul__(self, other: Factor | Term) -> Term:
        return Term((self,)) * other

    def __str__(self) -> str:
        shown = (f"{letter}(p)" if letter == "j" else letter for letter in self.letters)
        symbol = self.array.symbol or self.array.name
        return f"{symbol}[{','.join(shown)}]" if self.letters else symbol


@dataclass(frozen=True)
class Term:
    """A product of elements, times a number."""

    factors: tuple[Factor, ...]
    coefficient: Fraction = Fraction(1)

    def __mul__(self, other: Factor | Term) -> Term:
        more = other if isinstance(other, Term) else Term((other,))
        return Term((*self.factors, *more.factors), self.coefficient * more.coefficient)

    @property
    def letters(self) -> tuple[str, ...]:
        """Every letter once, in the order in which they are met."""
        return tuple(dict.fromkeys(letter for factor in self.factors for letter in factor.letters))

    def __str__(self) -> str:
        number = "" if self.coefficient == 1 else f"{self.coefficient} "
        return number + " ".join(map(str, self.factors))
