"""How weights begin: drawn, or fixed numbers."""

from __future__ import annotations

from dataclasses import dataclass


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
