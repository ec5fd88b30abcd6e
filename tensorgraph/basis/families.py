"""The families of invariants, as sequences of greedy passes over strata.

A pass looks at one stratum. It starts from the rank that the invariants chosen so far have there and tries further
graphs, simplest first, keeping those that raise it, until the stratum's degrees of freedom are met, the family's limit
is reached, or no graph is left. Passing through the strata by increasing size yields the *flexible* set with the fewest
invariants: what a stratum adds does not depend on the choices made before (docs/flexible-bases.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from tensorgraph.algebra import PRIMES
from tensorgraph.basis.linear import derive_linear
from tensorgraph.basis.search import Pass, Search, degrees_of_freedom, strata
from tensorgraph.basis.types import Basis, BodyOrder, named

__all__ = ["FAMILIES", "complete_vertices", "degrees_of_freedom", "derive", "strata"]


def derive(
    family: str,
    body_order: BodyOrder,
    max_rank: int,
    primes: tuple[int, ...] = PRIMES[:3],
    tell: Callable[[str], None] = lambda _: None,
) -> Basis:
    """The basis of a family: graphs of at most ``body_order - 1`` vertices and rank at most ``max_rank``.

    With ``body_order="complete"``, of as many vertices as full rank on every stratum needs. ``tell`` is told of each
    stratum as its turn comes, for a display of progress.

    Raises:
        KeyError: no such family; ``FAMILIES`` and ``linear`` are there.
        BudgetError: the family would have to look at too many graphs.
    """
    vertices = complete_vertices(max_rank) if body_order == "complete" else body_order - 1
    if family == "linear":
        return derive_linear(body_order, vertices, max_rank, primes)
    search = Search(vertices, max_rank, primes)
    steps = list(FAMILIES[family](max_rank))
    for number, step in enumerate(steps, 1):
        tell(f"basis: stratum {number} of {len(steps)}, {len(search.chosen)} invariants so far")
        search.run(step)
    tell("basis: certificate")
    invariants = named(search.chosen)
    dropped, certificate = search.dropped_by_name(invariants), search.certificate(invariants)
    return Basis(family, body_order, vertices, max_rank, invariants, dropped, certificate)


@cache
def complete_vertices(max_rank: int) -> int:
    """The least number of vertices with which all graphs have full rank on every stratum of these ranks."""
    search = Search(None, max_rank, PRIMES[:1])
    for step in _flexible(max_rank):
        search.run(step)
    return max(graph.order for graph in search.chosen)


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
