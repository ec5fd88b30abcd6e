"""The rule of a basis: which tensors, which graphs are candidates, and what makes one of them superfluous.

A family is a preset of three choices. Candidates are the connected graphs, or all: products of smaller ones too. What
counts as superfluous is nothing, a linear combination of others, or a function of others (by the rank of the Jacobian).
Where it is a function, the passes say on which strata, in which order, and how many are kept at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from tensorgraph.algebra import Layout, component_count, orbit_dimension
from tensorgraph.errors import BasisError, BudgetError
from tensorgraph.graphs import Kind, as_kinds
from tensorgraph.spec import names

Stratum = tuple[Kind, ...]

MAX_STRATA = 1024
"""Sets of tensors that the passes of a family may look at: a few seconds of work."""


@dataclass(frozen=True)
class Degree:
    """A bound on the sum of ``constant + per_colour · colour + per_rank · rank`` over vertices: the level of MTP.

    Where it is ``exact`` the sum has to be the limit itself.
    """

    limit: int
    constant: int
    per_colour: int
    per_rank: int
    exact: bool = False

    def of(self, kinds: Iterable[Kind]) -> int:
        """The sum; a probe and the antisymmetric tensor count nothing."""
        return sum(
            self.constant + self.per_colour * kind.colour + self.per_rank * kind.rank
            for kind in kinds
            if kind.role == "tensor"
        )

    def allows(self, kinds: Iterable[Kind]) -> bool:
        """Whether the sum is within the bound."""
        return self.of(kinds) == self.limit if self.exact else self.of(kinds) <= self.limit

    def __str__(self) -> str:
        return f"{self.constant} + {self.per_colour} n + {self.per_rank} l {'=' if self.exact else '<='} {self.limit}"


@dataclass(frozen=True)
class Rule:
    """What a basis is asked to hold.

    Attributes:
        family: the name of a preset in ``FAMILIES``.
        vertices: tensors of a graph at most; None sets no limit, and a pass goes on until it is complete.
        layout: the tensors.
        outputs: None for invariants, a probe for outputs of its rank, the antisymmetric tensor for pseudo-scalars.
        degree: a bound on the sum of what each tensor counts; None sets none.
    """

    family: str
    vertices: int | None
    layout: Layout
    outputs: tuple[Kind | None, ...] = (None,)
    degree: Degree | None = None

    @property
    def tensors(self) -> Stratum:
        """The tensors that are no scalars, ascending."""
        return tuple(sorted(kind for kind in self.layout.kinds if kind.rank))

    @property
    def scalars(self) -> Stratum:
        """The tensors of rank 0."""
        return tuple(sorted(kind for kind in self.layout.kinds if not kind.rank))

    @property
    def recorded(self) -> Stratum:
        """The tensors, and probes, of the points at which ranks are taken; none where nothing is pruned by them."""
        if self.preset.candidates == "all" and self.preset.superfluous == "nothing":
            return ()
        return (*self.tensors, *(output for output in self.outputs if output is not None and output.role == "probe"))

    @property
    def preset(self) -> Family:
        """The choices of the family. Raises KeyError for a name that is not in ``FAMILIES``."""
        return FAMILIES[self.family]

    def allows(self, kinds: Iterable[Kind]) -> bool:
        """Whether the degree allows a graph of these vertices."""
        return self.degree is None or self.degree.allows(kinds)

    def check_outputs(self, found: Iterable[Iterable[Kind]]) -> None:
        """Raises BasisError where no graph among those of these vertices gives one of the outputs."""
        there = {next((kind for kind in kinds if kind.role != "tensor"), None) for kinds in found}
        for output in self.outputs:
            if output not in there:
                what = (
                    "pseudo-scalar" if output and output.role == "epsilon" else f"rank {output.rank if output else 0}"
                )
                allowed = "another degree, body order or largest rank"
                raise BasisError(f"no graph gives an output of {what}; allowed: {allowed}")

    def passes(self) -> tuple[Pass, ...]:
        """The passes of the family over the strata of these tensors, none for one that prunes by no function.

        Raises:
            BudgetError: there are more than ``MAX_STRATA`` strata.
        """
        if self.preset.passes is None:
            return ()
        if (number := 2 ** len(self.tensors) - 1) > MAX_STRATA:
            allowed = f"at most {MAX_STRATA}, by fewer tensors, or the families linear and products"
            raise BudgetError(f"{number} strata of {len(self.tensors)} tensors; allowed: {allowed}")
        return tuple(self.preset.passes(self.tensors))


@dataclass(frozen=True)
class Pass:
    """One greedy pass: the stratum, the supports that its candidates may have, and at most how many are kept.

    With ``keep_dependent`` nothing is pruned: every candidate is kept.
    """

    stratum: Stratum
    supports: tuple[Stratum, ...]
    limit: int | None = None
    keep_dependent: bool = False


@dataclass(frozen=True)
class Family:
    """A preset of the rule; ``passes`` are those over the strata of given tensors."""

    candidates: Literal["connected", "all"]
    superfluous: Literal["nothing", "linear combinations", "functions"]
    passes: Callable[[Stratum], Iterator[Pass]] | None = None


def strata(tensors: Iterable[Kind | int]) -> Iterator[Stratum]:
    """All non-empty sets of these tensors, by increasing size."""
    kinds = as_kinds(tensors)
    for size in range(1, len(kinds) + 1):
        yield from combinations(kinds, size)


def degrees_of_freedom(stratum: Iterable[Kind | int], dimension: int = 3) -> int:
    """Components less the dimension of the rotations that move them."""
    ranks = [kind.rank for kind in as_kinds(stratum)]
    return sum(component_count(rank, dimension) for rank in ranks) - orbit_dimension(ranks, dimension)


def _flexible(tensors: Stratum) -> Iterator[Pass]:
    """Full rank on every stratum."""
    return (Pass(stratum, (stratum,)) for stratum in strata(tensors))


def _hiphop(tensors: Stratum) -> Iterator[Pass]:
    """The published set: pure invariants, then for each pair of tensors those that fix the relative orientation."""
    for stratum in strata(tensors):
        if len(stratum) == 1:
            yield Pass(stratum, (stratum,))
        elif len(stratum) == 2:
            yield Pass(stratum, (stratum,), limit=2 if any(kind.rank == 1 for kind in stratum) else 3)


def _independent(tensors: Stratum) -> Iterator[Pass]:
    """Full rank at a generic point (Langbein and Hagen, ISVC 2009)."""
    everything = tuple(strata(tensors))
    return (Pass(stratum, everything) for stratum in everything[-1:])


def _connected(tensors: Stratum) -> Iterator[Pass]:
    """Every connected graph, dependent or not: the census that the other families prune."""
    everything = tuple(strata(tensors))
    return (Pass(stratum, everything, keep_dependent=True) for stratum in everything[-1:])


FAMILIES: dict[str, Family] = {
    "hiphop": Family("connected", "functions", _hiphop),
    "flexible": Family("connected", "functions", _flexible),
    "independent": Family("connected", "functions", _independent),
    "connected": Family("connected", "nothing", _connected),
    "linear": Family("all", "linear combinations"),
    "products": Family("all", "nothing"),
}


def add_family(name: str, family: Family) -> None:
    """One more preset, for specs of both forms and for `derive`. Raises ValueError for a name that is taken.

    Where all graphs are candidates, a degree may limit it and its outputs may have ranks, as those of ``linear``.
    """
    names.FAMILIES.add(name)
    if family.candidates == "connected":
        names.SHORT_FAMILIES.add(name)
    else:
        names.GRADED.add(name)
        names.COVARIANT.add(name)
    FAMILIES[name] = family
