"""A manifest's ``basis`` object, read strictly: what a certificate claims, before any of it is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tensorgraph.algebra import PRIMES, Layout, Points, component_count
from tensorgraph.basis.rule import FAMILIES, Degree, Rule
from tensorgraph.basis.types import tensor_key
from tensorgraph.errors import PackageError
from tensorgraph.graphs import Kind, Multigraph
from tensorgraph.graphs.kinds import Role

Small = Annotated[int, Field(ge=0, le=64)]
Residue = Annotated[int, Field(ge=0, lt=2**24)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class _KindsClaim(_Strict):
    """Kinds by their ranks; where there are some, colours beside them, and which vertex is no tensor."""

    colours: tuple[Small, ...] | None = None
    probe: Small | None = None
    epsilon: Small | None = None

    def kinds_of(self, ranks: tuple[int, ...]) -> tuple[Kind, ...]:
        """Raises ValueError where colours or roles do not fit the ranks."""
        colours = self.colours or (0,) * len(ranks)
        roles: dict[int | None, Role] = {self.probe: "probe", self.epsilon: "epsilon"}
        if len(colours) != len(ranks) or any(at is not None and at >= len(ranks) for at in roles):
            raise ValueError("colours or roles do not fit the ranks")
        pairs = enumerate(zip(ranks, colours, strict=True))
        return tuple(Kind(rank, colour, roles.get(k, "tensor")) for k, (rank, colour) in pairs)


class GraphClaim(_KindsClaim):
    """A graph by its ranks and edges."""

    ranks: tuple[Small, ...]
    edges: tuple[tuple[Small, Small, Small], ...]

    @property
    def graph(self) -> Multigraph:
        """Raises ValueError where it is none."""
        return Multigraph(self.kinds_of(self.ranks), self.edges)


class InvariantClaim(GraphClaim):
    """A kept graph and its name."""

    name: str


class DroppedClaim(GraphClaim):
    """A graph left out, and why."""

    kind: Literal["zero", "multiple", "dependent"]
    on: tuple[str, ...]
    factor: tuple[int, int] | None = None


class MinorClaim(_Strict):
    """A non-zero minor."""

    trial: Small
    rows: tuple[str, ...]
    columns: tuple[Annotated[int, Field(ge=0)], ...]
    value: Residue


class RankClaim(_KindsClaim):
    """The rank on one stratum, or multidegree, and how it is known."""

    stratum: tuple[Small, ...]
    bound: Annotated[int, Field(ge=0)]
    rank: Annotated[int, Field(ge=0)]
    known_by: Literal["degrees of freedom", "limit of the family", "every graph tried", "Molien-Weyl"]
    failure_probability: float
    minor: MinorClaim

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The tensors of the stratum."""
        return self.kinds_of(self.stratum)


class DegreeClaim(_Strict):
    """A bound on what tensors count."""

    limit: Annotated[int, Field(ge=0, le=1000)]
    constant: Small
    per_colour: Small
    per_rank: Small
    exact: bool = False


class _Certificate(_Strict):
    primes: Annotated[tuple[Residue, ...], Field(min_length=1)]
    points: dict[str, tuple[tuple[Residue, ...], ...]]
    strata: tuple[RankClaim, ...]


def _known_family(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"{name!r} is no family")
    return name


class _Basis(_Strict):
    family: Annotated[str, AfterValidator(_known_family)]
    body_order: Annotated[int, Field(ge=2, le=7)] | Literal["complete"]
    vertices: Annotated[int, Field(ge=1, le=64)]
    max_rank: Annotated[int, Field(ge=0, le=16)]
    dimension: Literal[3, 4] = 3
    colours: Annotated[int, Field(ge=1, le=64)] = 1
    degree: DegreeClaim | None = None
    outputs: tuple[Small | Literal["pseudoscalar"], ...] = (0,)
    invariants: Annotated[tuple[InvariantClaim, ...], Field(min_length=1)]
    dropped: tuple[DroppedClaim, ...]
    certificate: _Certificate

    @property
    def rule(self) -> Rule:
        """What the basis was asked to hold."""
        outputs = tuple(
            Kind(self.dimension, role="epsilon") if one == "pseudoscalar" else Kind(one, role="probe") if one else None
            for one in self.outputs
        )
        degree = Degree(**self.degree.model_dump()) if self.degree else None
        layout = Layout.full(self.max_rank, self.colours, self.dimension)
        return Rule(self.family, self.vertices, layout, outputs, degree)


@dataclass(frozen=True, eq=False)
class Claims:
    """What a manifest says of its basis."""

    rule: Rule
    body_order: int | str
    kept: Mapping[str, Multigraph]
    dropped: tuple[tuple[Multigraph, DroppedClaim], ...]
    ranks: tuple[RankClaim, ...]
    points: Points

    @property
    def family(self) -> str:
        """The name of the family."""
        return self.rule.family

    @property
    def vertices(self) -> int:
        """Tensors of a graph at most."""
        return self.rule.vertices or 0

    @property
    def dimension(self) -> int:
        """Of the space of the tensors."""
        return self.rule.layout.dimension

    @classmethod
    def of(cls, basis: Mapping[str, Any]) -> Claims:
        """Raises PackageError, in one line, for an object that is no basis."""
        try:
            read = _Basis.model_validate_json(json.dumps(basis))
            names = [invariant.name for invariant in read.invariants]
            if len(set(names)) != len(names):
                raise ValueError("two invariants have one name")
            return cls(
                read.rule,
                read.body_order,
                {invariant.name: invariant.graph for invariant in read.invariants},
                tuple((dropped.graph, dropped) for dropped in read.dropped),
                read.certificate.strata,
                _points(read.rule, read.certificate),
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "basis"
            raise PackageError(f"the manifest holds no basis that can be read: {where}: {first['msg']}") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise PackageError(f"the manifest holds no basis that can be read: {error}") from None

    def within(self, stratum: tuple[Kind, ...]) -> list[Multigraph]:
        """Kept graphs that do not vanish on a stratum, scalars left out."""
        return [graph for graph in self.kept.values() if graph.order > 1 and set(graph.kinds) <= set(stratum)]


def _points(rule: Rule, certificate: _Certificate) -> Points:
    """The recorded points. Raises ValueError for another prime, tensor, number of components, or residue."""
    primes, dimension = certificate.primes, rule.layout.dimension
    if not set(primes) <= set(PRIMES):
        raise ValueError(f"the primes are not among {PRIMES}")
    named = {tensor_key(kind): kind for kind in rule.recorded}
    if sorted(certificate.points) != sorted(named):
        raise ValueError("the points are not those of the ranks")
    for key, trials in certificate.points.items():
        width = component_count(named[key].rank, dimension)
        if len(trials) != len(primes) or any(len(components) != width for components in trials):
            raise ValueError(f"the points of rank {key} have a wrong shape")
        if any(x >= prime for components, prime in zip(trials, primes, strict=True) for x in components):
            raise ValueError(f"a component of rank {key} is no residue")
    return Points.of(primes, {named[key]: trials for key, trials in certificate.points.items()}, dimension)
