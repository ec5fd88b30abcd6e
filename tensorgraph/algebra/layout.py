"""Which tensors there are, and where the components of each stand in an array of features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from tensorgraph.algebra.tensors import component_count, component_name, components
from tensorgraph.graphs import Kind, as_kinds


@dataclass(frozen=True)
class Layout:
    """Tensors by kind, one behind the other, each with its independent components; ``dimension`` of their space."""

    kinds: tuple[Kind, ...]
    dimension: int = 3

    @classmethod
    def of(cls, kinds: Iterable[Kind | int], dimension: int = 3) -> Layout:
        """Bare ranks stand for tensors of colour 0."""
        return cls(as_kinds(kinds), dimension)

    @classmethod
    def full(cls, max_rank: int, colours: int = 1, dimension: int = 3) -> Layout:
        """All ranks up to ``max_rank`` of the first colour, then of the next."""
        return cls(tuple(Kind(rank, c) for c in range(colours) for rank in range(max_rank + 1)), dimension)

    @property
    def max_rank(self) -> int:
        """The largest rank of a tensor."""
        return max(kind.rank for kind in self.kinds)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Where the components of each tensor end."""
        return tuple(accumulate(component_count(kind.rank, self.dimension) for kind in self.kinds))

    @property
    def size(self) -> int:
        """The number of all components."""
        return self.ends[-1]

    @cached_property
    def places(self) -> dict[Kind, slice]:
        """Where the components of each tensor stand."""
        return {
            kind: slice(start, end) for kind, start, end in zip(self.kinds, (0, *self.ends), self.ends, strict=False)
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every component, as ``q_xy``."""
        return tuple(
            f"{kind.letter}_{component_name(exponents)}" if kind.rank else kind.letter
            for kind in self.kinds
            for exponents in components(kind.rank, self.dimension)
        )
