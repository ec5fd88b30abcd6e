"""The frozen values of the basis stage; ``Basis.to_json`` is the ``basis`` object of a package's manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

from tensorgraph.algebra import Layout, Points, contraction_cost
from tensorgraph.basis.rule import Rule
from tensorgraph.graphs import Kind, Multigraph

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
    """What the kept invariants reach on one stratum; for ``linear`` on one multidegree, the kind of every vertex.

    ``known_by`` says why the rank is not larger. ``degrees of freedom`` and ``Molien-Weyl`` are proofs (``bound``);
    ``every graph tried`` holds but for ``failure_probability`` (Schwartz-Zippel); with ``limit of the family`` there
    may be more.
    """

    stratum: tuple[Kind, ...]
    bound: int
    rank: int
    known_by: str
    failure_probability: float
    minor: Minor

    def to_json(self) -> dict[str, Any]:
        """The minor as an object."""
        return {
            **kinds_json("stratum", self.stratum),
            "bound": self.bound,
            "rank": self.rank,
            "known_by": self.known_by,
            "failure_probability": self.failure_probability,
            "minor": self.minor.to_json(),
        }


@dataclass(frozen=True)
class Certificate:
    """Ranks with their proofs: ``points`` holds the components of each tensor modulo ``primes[trial]``, by trial."""

    primes: tuple[int, ...]
    points: tuple[tuple[Kind, tuple[tuple[int, ...], ...]], ...]
    strata: tuple[StratumRank, ...]

    @classmethod
    def of(cls, points: Points, strata: Iterable[StratumRank]) -> Certificate:
        """With the points as plain numbers; scalars are one everywhere and are not recorded."""
        tensors = points.components.items()
        recorded = ((kind, tuple(map(tuple, trials.tolist()))) for kind, trials in tensors if kind.rank)
        return cls(tuple(points.primes.tolist()), tuple(recorded), tuple(strata))

    def to_json(self) -> dict[str, Any]:
        """Tensors by their rank, and colour where there is one, as strings: JSON has no other keys."""
        return {
            "primes": list(self.primes),
            "points": {tensor_key(kind): [list(values) for values in trials] for kind, trials in self.points},
            "strata": [stratum.to_json() for stratum in self.strata],
        }


@dataclass(frozen=True)
class Basis:
    """A set of invariants with the rule that chose it and the record of the choice.

    ``body_order`` is one more than the tensors of a graph may be, or ``complete``.
    """

    rule: Rule
    body_order: BodyOrder
    invariants: tuple[Invariant, ...]
    dropped: tuple[Dropped, ...]
    certificate: Certificate

    def __len__(self) -> int:
        return len(self.invariants)

    @property
    def family(self) -> str:
        """The name of the family."""
        return self.rule.family

    @property
    def vertices(self) -> int:
        """The largest number of tensors in a graph that was allowed."""
        assert self.rule.vertices is not None, "a basis has an end"
        return self.rule.vertices

    @property
    def layout(self) -> Layout:
        """The tensors, and where their components stand in the features."""
        return self.rule.layout

    @property
    def max_rank(self) -> int:
        """The largest rank of a tensor."""
        return self.layout.max_rank

    @property
    def graphs(self) -> tuple[Multigraph, ...]:
        """The kept graphs, in the manifest's order."""
        return tuple(invariant.graph for invariant in self.invariants)

    @property
    def components(self) -> int:
        """Components of the features."""
        return self.layout.size

    @property
    def title(self) -> str:
        """Family, size and count in one line."""
        count = "1 invariant" if len(self) == 1 else f"{len(self)} invariants"
        order = self.body_order if self.body_order != "complete" else f"complete ({self.vertices + 1})"
        colours = len(self.rule.scalars)
        extra = f", {colours} colours" if colours > 1 else ""
        extra += f", {self.layout.dimension} dimensions" if self.layout.dimension != 3 else ""
        extra += f", {self.rule.degree}" if self.rule.degree else ""
        return f"{self.family}, body order {order}, rank {self.max_rank}{extra}: {count}"

    def to_json(self) -> dict[str, Any]:
        """The ``basis`` object of the manifest; what a basis of one colour in three dimensions lacks is left out."""
        colours, dimension, degree = len(self.rule.scalars), self.layout.dimension, self.rule.degree
        return {
            "family": self.family,
            "body_order": self.body_order,
            "vertices": self.vertices,
            "max_rank": self.max_rank,
            **({"dimension": dimension} if dimension != 3 else {}),
            **({"colours": colours} if colours > 1 else {}),
            **(
                {"degree": {key: value for key, value in asdict(degree).items() if value is not False}}
                if degree
                else {}
            ),
            **({"outputs": list(map(output_name, self.rule.outputs))} if self.rule.outputs != (None,) else {}),
            "invariants": [invariant.to_json() for invariant in self.invariants],
            "dropped": [dropped.to_json() for dropped in self.dropped],
            "certificate": self.certificate.to_json(),
        }

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {invariant.name:8} {invariant.graph}" for invariant in self.invariants)])


def output_name(output: Kind | None) -> int | str:
    """The rank of an output, or ``pseudoscalar``."""
    if output is None:
        return 0
    return output.rank if output.role == "probe" else "pseudoscalar"


def tensor_key(kind: Kind) -> str:
    """How the record of points names a tensor."""
    return f"probe {kind.rank}" if kind.role == "probe" else kind.key


def kinds_json(name: str, kinds: Sequence[Kind]) -> dict[str, Any]:
    """Ranks under this name; beside them colours, and the index of a ``probe`` or ``epsilon``, where there are some."""
    content: dict[str, Any] = {name: [kind.rank for kind in kinds]}
    if any(kind.colour for kind in kinds):
        content["colours"] = [kind.colour for kind in kinds]
    content |= {kind.role: number for number, kind in enumerate(kinds) if kind.role != "tensor"}
    return content


def graph_json(graph: Multigraph) -> dict[str, Any]:
    """A graph as the manifest writes it."""
    return {**kinds_json("ranks", graph.kinds), "edges": [list(edge) for edge in graph.edges]}


def simplicity(graph: Multigraph) -> tuple[int, int, Multigraph]:
    """Sort key of candidates: fewer vertices first, then the cheaper contraction, then the canonical form."""
    return graph.order, contraction_cost(graph), graph


def named(graphs: Iterable[Multigraph]) -> tuple[Invariant, ...]:
    """Outputs in their final order (rank, vertices, tensors, simplicity), named."""
    ordered = sorted(graphs, key=lambda g: (_output_rank(g), g.order, sorted(g.kinds), simplicity(g)))
    isomers = Counter(graph.composition for graph in ordered)
    met: Counter[str] = Counter()
    result = []
    for graph in ordered:
        met[graph.composition] += 1
        suffix = f"_{met[graph.composition]}" if isomers[graph.composition] > 1 else ""
        result.append(Invariant(graph.composition + suffix, graph))
    return tuple(result)


def _output_rank(graph: Multigraph) -> tuple[int, bool]:
    """Invariants first, then pseudo-scalars, then outputs by rank."""
    closing = None if graph.closing is None else graph.kinds[graph.closing]
    return (closing.rank if closing and closing.role == "probe" else 0), closing is not None
