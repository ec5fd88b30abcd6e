"""The numbers of a layer: weights, drawn or set in the beginning, and what is not trained."""

from __future__ import annotations

from dataclasses import dataclass

from tensorgraph.network.arrays import Array


@dataclass(frozen=True)
class Normal:
    """Normally distributed around zero."""

    deviation: float

    def __str__(self) -> str:
        return f"normal, deviation {self.deviation:.6g}"


@dataclass(frozen=True)
class Uniform:
    """Uniform between plus and minus the bound."""

    bound: float

    def __str__(self) -> str:
        return f"uniform, bound {self.bound:.6g}"


@dataclass(frozen=True)
class Constant:
    """All the same."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:.6g}"


@dataclass(frozen=True)
class Equidistant:
    """From ``first`` to ``last``; ``inverse`` gives one over these numbers."""

    first: float
    last: float
    inverse: bool = False

    def __str__(self) -> str:
        return f"{'1 / ' if self.inverse else ''}({self.first:.6g} … {self.last:.6g})"


Initial = Normal | Uniform | Constant | Equidistant


@dataclass(frozen=True)
class Parameter:
    """Trained numbers of a layer, by the name that they have in a state dict, and how they begin."""

    array: Array
    initial: Initial

    @property
    def name(self) -> str:
        """In the state dict of the layer; dots separate modules."""
        return self.array.name


@dataclass(frozen=True)
class Fixed:
    """Numbers of a layer that are not trained and that no state dict holds, by position; the others are zero."""

    array: Array
    values: tuple[tuple[int, float], ...]

    @property
    def name(self) -> str:
        """Of the attribute."""
        return self.array.name
