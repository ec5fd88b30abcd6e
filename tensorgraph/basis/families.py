"""The families of invariants, all by one mechanism: greedy passes over strata.

A pass looks at one stratum. It starts from the rank that the invariants chosen so far have there and tries further
graphs, simplest first, keeping those that raise it, until the stratum's degrees of freedom are met, the family's
limit is reached, or no graph is left. Passing through the strata by increasing size yields the *flexible* set with
the fewest invariants: what a stratum adds does not depend on the choices made before. A family is a sequence of
passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tensorgraph.algebra import PRIMES, RowSpace, contract, gradient, random_point
from tensorgraph.algebra.field import full_tensors
from tensorgraph.basis.types import (
    Basis,
    Certificate,
    Dropped,
    Invariant,
    StratumRank,
    named,
    simplicity,
)
from tensorgraph.errors import BudgetError
from tensorgraph.graphs import SCALAR, Multigraph, degree_sequences, graphs_of_degree_sequence

Stratum = tuple[int, ...]

POINT_SEED = 2503_23515
"""Seed of the point at which ranks are taken; any other gives the same ranks (a test takes five primes)."""


MAX_CANDIDATES = 4000
"""Graphs of one order that a pass may try: a few seconds of work, and more than a package could use."""


@dataclass(frozen=True)
class Pass:
    """One greedy pass: the stratum, the supports that its candidates may have, and at most how many are kept.

    With ``keep_dependent`` nothing is pruned: every candidate is kept.
    """

    stratum: Stratum
    supports: tuple[Stratum, ...]
    limit: int | None = None
    keep_dependent: bool = False


def derive(family: str, body_order: int, max_rank: int, prime: int = PRIMES[0]) -> Basis:
    """The basis of a family: graphs of at most ``body_order - 1`` vertices and rank at most ``max_rank``.

    Raises:
        KeyError: no such family; ``FAMILIES`` has them all.
        BudgetError: the family would have to look at more graphs than ``MAX_CANDIDATES`` at once.
    """
    vertices = body_order - 1
    search = _Search(vertices, max_rank, prime)
    for step in FAMILIES[family](max_rank):
        search.run(step)
    invariants = named(search.chosen)
    return Basis(family, body_order, max_rank, invariants, tuple(search.dropped), search.certificate(invariants))


def strata(max_rank: int) -> Iterator[Stratum]:
    """All non-empty sets of ranks up to ``max_rank``, by increasing size."""
    for size in range(1, max_rank + 1):
        yield from combinations(range(1, max_rank + 1), size)


def degrees_of_freedom(stratum: Stratum) -> int:
    """Components less the dimension of the rotations that move them: 2 for a single vector, else 3."""
    return sum(2 * rank + 1 for rank in stratum) - (2 if stratum == (1,) else 3)


def _flexible(max_rank: int) -> Iterator[Pass]:
    """Full rank on every stratum."""
    return (Pass(stratum, (stratum,)) for stratum in strata(max_rank))


def _hiphop(max_rank: int) -> Iterator[Pass]:
    """The published set: pure invariants, then for each pair of ranks those that fix the relative orientation."""
    for stratum in strata(max_rank):
        if len(stratum) == 1:
            yield Pass(stratum, (stratum,))
        elif len(stratum) == 2:
            yield Pass(stratum, (stratum,), limit=2 if 1 in stratum else 3)


def _independent(max_rank: int) -> Iterator[Pass]:
    """Full rank at a generic point (Langbein and Hagen, ISVC 2009)."""
    everything = tuple(strata(max_rank))
    return (Pass(stratum, everything) for stratum in everything[-1:])


def _connected(max_rank: int) -> Iterator[Pass]:
    """Every connected graph, dependent or not: the census that the other families prune."""
    everything = tuple(strata(max_rank))
    return (Pass(stratum, everything, keep_dependent=True) for stratum in everything[-1:])


FAMILIES: dict[str, Callable[[int], Iterator[Pass]]] = {
    "hiphop": _hiphop,
    "flexible": _flexible,
    "independent": _independent,
    "connected": _connected,
}


class _Search:
    """The state of a derivation: what is chosen and dropped so far, and the point at which ranks are taken."""

    def __init__(self, vertices: int, max_rank: int, prime: int) -> None:
        self.vertices = vertices
        self.prime = prime
        self.point = random_point(range(1, max_rank + 1), POINT_SEED, prime)
        self.tensors = full_tensors(self.point, prime)
        self.gradient = partial(gradient, tensors=self.tensors, modulus=prime)
        self.chosen: list[Multigraph] = [SCALAR]
        self.dropped: list[Dropped] = []
        self.endings: list[tuple[Stratum, str | None]] = []

    def run(self, step: Pass) -> None:
        """Carries out one pass."""
        space = RowSpace(self.prime)
        for graph in self.chosen[1:]:
            space.add(self.gradient(graph, stratum=step.stratum))
        goal, kept = degrees_of_freedom(step.stratum), 0
        for graph in self.candidates(step.supports):
            if kept == step.limit or (space.rank == goal and not step.keep_dependent):
                break
            if step.keep_dependent or space.add(self.gradient(graph, stratum=step.stratum)):
                self.chosen.append(graph)
                kept += 1
            else:
                self.dropped.append(Dropped(graph, self.why_dependent(graph, step.stratum)))
        limited = kept == step.limit and space.rank < goal
        self.endings.append((step.stratum, "limit of the family" if limited else None))

    def candidates(self, supports: Sequence[Stratum]) -> Iterator[Multigraph]:
        """Graphs on these supports, simplest first, enumerated only as far as the pass gets."""
        for order in range(2, self.vertices + 1):
            graphs: list[Multigraph] = []
            for ranks in (ranks for support in supports for ranks in degree_sequences(support, order)):
                graphs += graphs_of_degree_sequence(ranks)
                if len(graphs) > MAX_CANDIDATES:
                    allowed = "a smaller body order or rank, or a family that prunes"
                    raise BudgetError(f"more than {MAX_CANDIDATES} graphs of {order} vertices; allowed: {allowed}")
            yield from sorted(graphs, key=simplicity)

    def why_dependent(self, graph: Multigraph, stratum: Stratum) -> str:
        """The simplest true reason for which a graph adds nothing."""
        if not np.any(_values(graph, self.prime)):
            return "zero"
        for other in self.chosen:
            if sorted(other.ranks) == sorted(graph.ranks) and _proportional(graph, other, self.prime):
                return f"a multiple of {other}"
        return f"dependent on those kept on stratum {{{', '.join(map(str, stratum))}}}"

    def certificate(self, invariants: tuple[Invariant, ...]) -> Certificate:
        """The minors that prove the ranks of the final set on the strata that the family looked at."""
        ranks = []
        for stratum, ending in self.endings:
            space = RowSpace(self.prime)
            within = [invariant for invariant in invariants[1:] if set(invariant.graph.ranks) <= set(stratum)]
            rows = [i.name for i in within if space.add(self.gradient(i.graph, stratum=stratum))]
            freedom = degrees_of_freedom(stratum)
            full = "degrees of freedom" if space.rank == freedom else "every graph tried at a random point"
            ranks.append(StratumRank(stratum, freedom, space.rank, ending or full, tuple(rows), tuple(space.pivots)))
        point = tuple((rank, tuple(map(int, values))) for rank, values in self.point.items())
        return Certificate(self.prime, point, tuple(ranks))


def _values(graph: Multigraph, prime: int) -> NDArray[np.int64]:
    """The graph at three random points; a polynomial of degree d that is not zero vanishes there with (d/p)**3."""
    points = (full_tensors(random_point(graph.support, seed, prime), prime) for seed in range(3))
    return np.array([int(contract(graph, point, prime)) for point in points], dtype=np.int64)


def _proportional(graph: Multigraph, other: Multigraph, prime: int) -> bool:
    a, b = _values(graph, prime), _values(other, prime)
    return not np.any((a * b[0] - b * a[0]) % prime)
