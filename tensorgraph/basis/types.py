"""The frozen values of the basis stage; ``Basis.to_json`` is the ``basis`` object of a package's manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from tensorgraph.algebra import Points, contraction_cost
from tensorgraph.graphs import Multigraph

BodyOrder = int | Literal["complete"]


@dataclass(frozen=True)
class Invariant:
    """A kept graph and its name: its tensors by ascending rank, numbered where isomers are kept (``qqtt_1``)."""

    name: str
    graph: Multigraph

    def to_json(self) -> dict[str, Any]:
        """Name, rank of each vertex, and edges ``[u, v, multiplicity]``."""
        return {"name": self.name, **graph_json(self.graph)}


@dataclass(frozen=True)
class Dropped:
    """A graph that was tried and left out.

    ``kind`` is ``zero``, ``multiple`` (equal to ``factor`` times the only one of ``on``) or ``dependent`` (a function
    of those named in ``on``, by the rank of the Jacobian; for the family ``linear``, a linear combination of them).
    """

    graph: Multigraph
    kind: Literal["zero", "multiple", "dependent"]
    on: tuple[str, ...] = ()
    factor: Fraction | None = None

    @property
    def reason(self) -> str:
        """The reason as a phrase."""
        if self.kind == "zero":
            return "zero"
        return f"{self.factor} times {self.on[0]}" if self.kind == "multiple" else f"dependent on {', '.join(self.on)}"

    def to_json(self) -> dict[str, Any]:
        """The factor as a pair of integers."""
        content: dict[str, Any] = {**graph_json(self.graph), "kind": self.kind, "on": list(self.on)}
        if self.factor is not None:
            content["factor"] = [self.factor.numerator, self.factor.denominator]
        return content


@dataclass(frozen=True)
class Minor:
    """A non-zero minor, which proves a rank as a lower bound over the rationals.

    Of the Jacobian (or, for the family ``linear``, of the values at the points) at point ``trial``: rows are the
    invariants of these names, columns count components of the stratum's tensors, concatenated by rank (or points).
    """

    trial: int
    rows: tuple[str, ...]
    columns: tuple[int, ...]
    value: int

    def to_json(self) -> dict[str, Any]:
        """Lists in place of tuples."""
        return {"trial": self.trial, "rows": list(self.rows), "columns": list(self.columns), "value": self.value}


@dataclass(frozen=True)
class StratumRank:
    """What the kept invariants reach on one stratum; for ``linear`` on one multidegree, the rank of every vertex.

    ``known_by`` says why the rank is not larger. ``degrees of freedom`` and ``Molien-Weyl`` are proofs (``bound``);
    ``every graph tried`` holds but for ``failure_probability`` (Schwartz-Zippel); with ``limit of the family`` there
    may be more.
    """

    stratum: tuple[int, ...]
    bound: int
    rank: int
    known_by: str
    failure_probability: float
    minor: Minor

    def to_json(self) -> dict[str, Any]:
        """The minor as an object."""
        return {
            "stratum": list(self.stratum),
            "bound": self.bound,
            "rank": self.rank,
            "known_by": self.known_by,
            "failure_probability": self.failure_probability,
            "minor": self.minor.to_json(),
        }


@dataclass(frozen=True)
class Certificate:
    """Ranks with their proofs: ``points[l][trial]`` are components of the rank-l tensor, modulo ``primes[trial]``."""

    primes: tuple[int, ...]
    points: tuple[tuple[int, tuple[tuple[int, ...], ...]], ...]
    strata: tuple[StratumRank, ...]

    @classmethod
    def of(cls, points: Points, strata: Iterable[StratumRank]) -> Certificate:
        """With the points as plain numbers; the scalar is one everywhere and is not recorded."""
        recorded = ((rank, tuple(map(tuple, trials.tolist()))) for rank, trials in points.components.items() if rank)
        return cls(tuple(points.primes.tolist()), tuple(recorded), tuple(strata))

    def to_json(self) -> dict[str, Any]:
        """Ranks as string keys, as JSON has no others."""
        return {
            "primes": list(self.primes),
            "points": {str(rank): [list(values) for values in trials] for rank, trials in self.points},
            "strata": [stratum.to_json() for stratum in self.strata],
        }


@dataclass(frozen=True)
class Basis:
    """A set of invariants with the rule that chose it and the record of the choice.

    ``vertices`` is the largest number of vertices that was allowed; ``body_order`` is one more, or ``complete``.
    """

    family: str
    body_order: BodyOrder
    vertices: int
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

    @property
    def title(self) -> str:
        """Family, size and count in one line."""
        count = "1 invariant" if len(self) == 1 else f"{len(self)} invariants"
        order = self.body_order if self.body_order != "complete" else f"complete ({self.vertices + 1})"
        return f"{self.family}, body order {order}, rank {self.max_rank}: {count}"

    def to_json(self) -> dict[str, Any]:
        """The ``basis`` object of the manifest."""
        return {
            "family": self.family,
            "body_order": self.body_order,
            "vertices": self.vertices,
            "max_rank": self.max_rank,
            "invariants": [invariant.to_json() for invariant in self.invariants],
            "dropped": [dropped.to_json() for dropped in self.dropped],
            "certificate": self.certificate.to_json(),
        }

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {invariant.name:8} {invariant.graph}" for invariant in self.invariants)])


def graph_json(graph: Multigraph) -> dict[str, Any]:
    """A graph as the manifest writes it."""
    return {"ranks": list(graph.ranks), "edges": [list(edge) for edge in graph.edges]}


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
