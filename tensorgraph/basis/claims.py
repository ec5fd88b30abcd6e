"""A manifest's ``basis`` object, read strictly: what a certificate claims, before any of it is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tensorgraph.algebra import PRIMES, Points
from tensorgraph.errors import PackageError
from tensorgraph.graphs import SCALAR, Multigraph

Small = Annotated[int, Field(ge=0, le=64)]
Residue = Annotated[int, Field(ge=0, lt=2**24)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class GraphClaim(_Strict):
    """A graph by its ranks and edges."""

    ranks: tuple[Small, ...]
    edges: tuple[tuple[Small, Small, Small], ...]

    @property
    def graph(self) -> Multigraph:
        """Raises ValueError where it is none."""
        return Multigraph(self.ranks, self.edges)


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


class RankClaim(_Strict):
    """The rank on one stratum, or multidegree, and how it is known."""

    stratum: tuple[Small, ...]
    bound: Annotated[int, Field(ge=0)]
    rank: Annotated[int, Field(ge=0)]
    known_by: Literal["degrees of freedom", "limit of the family", "every graph tried", "Molien-Weyl"]
    failure_probability: float
    minor: MinorClaim


class _Certificate(_Strict):
    primes: Annotated[tuple[Residue, ...], Field(min_length=1)]
    points: dict[str, tuple[tuple[Residue, ...], ...]]
    strata: tuple[RankClaim, ...]


class _Basis(_Strict):
    family: Literal["hiphop", "flexible", "independent", "connected", "linear"]
    body_order: Annotated[int, Field(ge=2, le=7)] | Literal["complete"]
    vertices: Annotated[int, Field(ge=1, le=64)]
    max_rank: Annotated[int, Field(ge=0, le=8)]
    invariants: Annotated[tuple[InvariantClaim, ...], Field(min_length=1)]
    dropped: tuple[DroppedClaim, ...]
    certificate: _Certificate


@dataclass(frozen=True, eq=False)
class Claims:
    """What a manifest says of its basis."""

    family: str
    body_order: int | str
    vertices: int
    max_rank: int
    kept: Mapping[str, Multigraph]
    dropped: tuple[tuple[Multigraph, DroppedClaim], ...]
    ranks: tuple[RankClaim, ...]
    points: Points

    @classmethod
    def of(cls, basis: Mapping[str, Any]) -> Claims:
        """Raises PackageError, in one line, for an object that is no basis."""
        try:
            read = _Basis.model_validate_json(json.dumps(basis))
            names = [invariant.name for invariant in read.invariants]
            if len(set(names)) != len(names):
                raise ValueError("two invariants have one name")
            return cls(
                read.family,
                read.body_order,
                read.vertices,
                read.max_rank,
                {invariant.name: invariant.graph for invariant in read.invariants},
                tuple((dropped.graph, dropped) for dropped in read.dropped),
                read.certificate.strata,
                _points(read),
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "basis"
            raise PackageError(f"the manifest holds no basis that can be read: {where}: {first['msg']}") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise PackageError(f"the manifest holds no basis that can be read: {error}") from None

    def within(self, stratum: tuple[int, ...]) -> list[Multigraph]:
        """Kept graphs that do not vanish on a stratum, the scalar left out."""
        return [graph for graph in self.kept.values() if graph != SCALAR and set(graph.ranks) <= set(stratum)]


def _points(basis: _Basis) -> Points:
    """The recorded points. Raises ValueError for another prime, rank, number of components, or residue."""
    certificate = basis.certificate
    primes = certificate.primes
    if not set(primes) <= set(PRIMES):
        raise ValueError(f"the primes are not among {PRIMES}")
    if sorted(certificate.points) != [str(rank) for rank in range(1, basis.max_rank + 1)]:
        raise ValueError("the points are not those of the ranks")
    for rank, trials in certificate.points.items():
        if len(trials) != len(primes) or any(len(components) != 2 * int(rank) + 1 for components in trials):
            raise ValueError(f"the points of rank {rank} have a wrong shape")
        if any(x >= prime for components, prime in zip(trials, primes, strict=True) for x in components):
            raise ValueError(f"a component of rank {rank} is no residue")
    return Points.of(primes, {int(rank): trials for rank, trials in certificate.points.items()})
