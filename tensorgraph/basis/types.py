"""The frozen values of the basis stage; ``Basis.to_json`` is the ``basis`` object of a package's manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tensorgraph.algebra import contraction_cost
from tensorgraph.graphs import Multigraph


@dataclass(frozen=True)
class Invariant:
    """A kept graph and its name: its tensors by ascending rank, numbered where isomers are kept (``qqtt_1``)."""

    name: str
    graph: Multigraph

    def to_json(self) -> dict[str, Any]:
        """Name, rank of each vertex, and edges ``[u, v, multiplicity]``."""
        return {"name": self.name, "ranks": list(self.graph.ranks), "edges": [list(edge) for edge in self.graph.edges]}


@dataclass(frozen=True)
class Dropped:
    """A graph that was tried and left out, and why."""

    graph: Multigraph
    reason: str


@dataclass(frozen=True)
class StratumRank:
    """What the kept invariants reach on one stratum.

    The minor of ``rows`` (names of invariants) and ``columns`` (components of the stratum's tensors, concatenated by
    rank) of the Jacobian is non-zero modulo the prime, which proves ``rank`` as a lower bound over the rationals.
    ``known_by`` says why no more can be reached, or that the family does not try to.
    """

    stratum: tuple[int, ...]
    degrees_of_freedom: int
    rank: int
    known_by: str
    rows: tuple[str, ...]
    columns: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Lists in place of tuples."""
        return {
            "stratum": list(self.stratum),
            "degrees_of_freedom": self.degrees_of_freedom,
            "rank": self.rank,
            "known_by": self.known_by,
            "rows": list(self.rows),
            "columns": list(self.columns),
        }


@dataclass(frozen=True)
class Certificate:
    """Ranks on the strata at one point over one prime field; ``point[l]`` holds the components of the rank-l tensor."""

    prime: int
    point: tuple[tuple[int, tuple[int, ...]], ...]
    strata: tuple[StratumRank, ...]

    def to_json(self) -> dict[str, Any]:
        """Ranks as string keys, as JSON has no others."""
        return {
            "prime": self.prime,
            "point": {str(rank): list(values) for rank, values in self.point},
            "strata": [stratum.to_json() for stratum in self.strata],
        }


@dataclass(frozen=True)
class Basis:
    """A set of invariants with the rule that chose it and the record of the choice."""

    family: str
    body_order: int
    max_rank: int
    invariants: tuple[Invariant, ...]
    dropped: tuple[Dropped, ...]
    certificate: Certificate

    def __len__(self) -> int:
        return len(self.invariants)

    @property
    def graphs(self) -> tuple[Multigraph, ...]:
        """The kept graphs, in the manifest's order."""
        return tuple(invariant.graph for invariant in self.invariants)

    @property
    def components(self) -> int:
        """Components of the features: ``(max_rank + 1)**2``."""
        return (self.max_rank + 1) ** 2

    def to_json(self) -> dict[str, Any]:
        """The ``basis`` object of the manifest."""
        return {
            "family": self.family,
            "body_order": self.body_order,
            "max_rank": self.max_rank,
            "invariants": [invariant.to_json() for invariant in self.invariants],
            "certificate": self.certificate.to_json(),
        }

    def __str__(self) -> str:
        head = f"{self.family}, body order {self.body_order}, rank {self.max_rank}: {len(self)} invariants"
        return "\n".join([head, *(f"  {invariant.name:8} {invariant.graph}" for invariant in self.invariants)])


def simplicity(graph: Multigraph) -> tuple[int, int, Multigraph]:
    """Sort key of candidates: fewer vertices first, then the cheaper contraction, then the canonical form."""
    return graph.order, contraction_cost(graph), graph


def named(graphs: Iterable[Multigraph]) -> tuple[Invariant, ...]:
    """Invariants in their final order (vertices, tensors, simplicity), named."""
    ordered = sorted(graphs, key=lambda graph: (graph.order, sorted(graph.ranks), simplicity(graph)))
    isomers = Counter(graph.composition for graph in ordered)
    met: Counter[str] = Counter()
    result = []
    for graph in ordered:
        met[graph.composition] += 1
        suffix = f"_{met[graph.composition]}" if isomers[graph.composition] > 1 else ""
        result.append(Invariant(graph.composition + suffix, graph))
    return tuple(result)
