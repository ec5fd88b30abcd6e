"""The greedy search behind the families: passes over strata, their record, and the minors that prove their ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, count
from math import prod

import numpy as np

from tensorgraph.algebra import Points, Trials, combination, gradients, values
from tensorgraph.basis.types import Certificate, Dropped, Invariant, Minor, StratumRank, simplicity
from tensorgraph.errors import BudgetError
from tensorgraph.graphs import SCALAR, Multigraph, connected_count, connected_graphs

Stratum = tuple[int, ...]

POINT_SEED = 2503_23515
"""Seed of the points at which ranks are taken; any other gives the same ranks (a test takes five primes)."""

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


def strata(max_rank: int) -> Iterator[Stratum]:
    """All non-empty sets of ranks up to ``max_rank``, by increasing size."""
    for size in range(1, max_rank + 1):
        yield from combinations(range(1, max_rank + 1), size)


def degrees_of_freedom(stratum: Stratum) -> int:
    """Components less the dimension of the rotations that move them: 2 for a single vector, else 3."""
    return sum(2 * rank + 1 for rank in stratum) - (2 if stratum == (1,) else 3)


class Search:
    """The state of a derivation: what is chosen and dropped so far, and the points at which ranks are taken.

    ``vertices=None`` sets no limit: a pass then goes on until the degrees of freedom are met.
    """

    def __init__(self, vertices: int | None, max_rank: int, primes: Sequence[int]) -> None:
        self.vertices = vertices
        self.points = Points.random(range(1, max_rank + 1), primes, POINT_SEED)
        self.chosen: list[Multigraph] = [SCALAR]
        self.passes: list[tuple[Pass, bool, tuple[Multigraph, ...]]] = []

    def run(self, step: Pass) -> None:
        """Carries out one pass."""
        trials = Trials(self.points.primes)
        for graph in self.chosen[1:]:
            if set(graph.ranks) <= set(step.stratum):
                trials.add(gradients(graph, self.points, step.stratum))
        goal, kept, dropped = degrees_of_freedom(step.stratum), 0, []
        candidates = self.candidates(step.supports)
        # Asked before the next candidate is made: without a limit on vertices there may be none, and no end of trying.
        while kept != step.limit and (trials.rank < goal or step.keep_dependent):
            try:
                graph = next(candidates)
            except StopIteration:
                break
            if step.keep_dependent or trials.add(gradients(graph, self.points, step.stratum)):
                self.chosen.append(graph)
                kept += 1
            else:
                dropped.append(graph)
        self.passes.append((step, kept == step.limit and trials.rank < goal, tuple(dropped)))

    def candidates(self, supports: Sequence[Stratum]) -> Iterator[Multigraph]:
        """Graphs on these supports, simplest first, enumerated only as far as the pass gets, and counted before.

        Raises:
            BudgetError: there are more than ``MAX_CANDIDATES`` of one order.
        """
        for order in count(2) if self.vertices is None else range(2, self.vertices + 1):
            number = sum(connected_count(support, order) for support in supports)
            if number > MAX_CANDIDATES:
                ranks = ", ".join(str(rank) for rank in sorted({rank for support in supports for rank in support}))
                allowed = f"at most {MAX_CANDIDATES}, by a smaller body order or rank, or a family that prunes"
                raise BudgetError(f"{number} graphs of {order} vertices of rank {ranks} to try; allowed: {allowed}")
            graphs = (graph for support in supports for graph in connected_graphs(support, order))
            yield from sorted(graphs, key=simplicity)

    def dropped_by_name(self, invariants: Sequence[Invariant]) -> tuple[Dropped, ...]:
        """What the passes left out, each with the simplest true reason."""
        return tuple(
            why_dropped(graph, within(invariants, step.stratum), self.points, step.stratum)
            for step, _, dropped in self.passes
            for graph in dropped
        )

    def certificate(self, invariants: Sequence[Invariant]) -> Certificate:
        """The minors that prove the ranks of the final set on the strata that the family looked at."""
        rows = (self._stratum_rank(step.stratum, limited, invariants) for step, limited, _ in self.passes)
        return Certificate.of(self.points, rows)

    def _stratum_rank(self, stratum: Stratum, limited: bool, invariants: Sequence[Invariant]) -> StratumRank:
        kept = within(invariants, stratum)
        trials = Trials(self.points.primes)
        rows = [i.name for i in kept if trials.add(gradients(i.graph, self.points, stratum))]
        best = max(range(len(trials.spaces)), key=lambda trial: (trials.spaces[trial].rank, -trial))
        space, freedom = trials.spaces[best], degrees_of_freedom(stratum)
        minor = Minor(best, tuple(rows), tuple(space.pivots), space.determinant)
        if space.rank == freedom:
            return StratumRank(stratum, freedom, space.rank, "degrees of freedom", 0.0, minor)
        if limited:
            return StratumRank(stratum, freedom, space.rank, "limit of the family", 0.0, minor)
        chance = failure_probability(space.rank, self.vertices or 0, self.points.primes.tolist())
        return StratumRank(stratum, freedom, space.rank, "every graph tried", chance, minor)


def failure_probability(rank: int, vertices: int, primes: Sequence[int]) -> float:
    """How likely trials over these primes all miss a larger rank (Schwartz-Zippel).

    A minor of ``rank + 1`` rows, each of gradients of degree at most ``vertices - 1``, that is not the zero polynomial
    vanishes at a uniform point with probability at most its degree over the size of the field.
    """
    return float(prod(min(1.0, (rank + 1) * (vertices - 1) / prime) for prime in primes))


def within(invariants: Sequence[Invariant], stratum: Stratum) -> list[Invariant]:
    """Those that do not vanish on a stratum, the scalar left out."""
    return [i for i in invariants if i.graph != SCALAR and set(i.graph.ranks) <= set(stratum)]


def why_dropped(graph: Multigraph, kept: Sequence[Invariant], points: Points, stratum: Stratum) -> Dropped:
    """Zero, a multiple of one of those kept, or dependent on some: on those without any of which it would not be.

    Kept graphs are independent on the stratum, so that set, the circuit of the graph in the matroid, is unique.
    """
    value = values(graph, points)
    if not np.any(value):
        return Dropped(graph, "zero")
    for other in kept:
        if sorted(other.graph.ranks) == sorted(graph.ranks):
            factor = common_factor(value, values(other.graph, points), points.primes)
            if factor is not None:
                return Dropped(graph, "multiple", (other.name,), factor)
    return Dropped(graph, "dependent", tuple(other.name for other in _circuit(graph, kept, points, stratum)))


def _circuit(graph: Multigraph, kept: Sequence[Invariant], points: Points, stratum: Stratum) -> list[Invariant]:
    """Those whose gradients have a part in the combination that the graph's gradient is, at any of the points."""
    rows = np.stack([gradients(other.graph, points, stratum) for other in kept], axis=1)
    row = gradients(graph, points, stratum)
    parts = [combination(*trial) for trial in zip(rows, row, points.primes.tolist(), strict=True)]
    return [other for k, other in enumerate(kept) if any(part is not None and part[k] for part in parts)]


def common_factor(a: np.ndarray, b: np.ndarray, primes: np.ndarray) -> Fraction | None:
    """The small rational that is ``a / b`` modulo every prime, if there is one."""
    residues = [int(x) * pow(int(y), -1, int(p)) % int(p) if y else None for x, y, p in zip(a, b, primes, strict=True)]
    if None in residues:
        return None
    for denominator in range(1, 65):
        numerators = {
            (residue * denominator + int(p) // 2) % int(p) - int(p) // 2
            for residue, p in zip(residues, primes, strict=True)
            if residue is not None
        }
        if len(numerators) == 1 and abs(numerator := numerators.pop()) <= 4096:
            return Fraction(numerator, denominator)
    return None
