"""The greedy search behind the families: passes over strata, their record, and the minors that prove their ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import count
from math import prod

import numpy as np

from tensorgraph.algebra import Points, Trials, combination, gradients, values
from tensorgraph.basis.rule import Pass, Rule, Stratum, degrees_of_freedom
from tensorgraph.basis.types import Certificate, Dropped, Invariant, Minor, StratumRank, simplicity
from tensorgraph.errors import BudgetError
from tensorgraph.graphs import Multigraph, connected_count, connected_graphs

POINT_SEED = 2503_23515
"""Seed of the points at which ranks are taken; any other gives the same ranks (a test takes five primes)."""

MAX_CANDIDATES = 4000
"""Graphs of one order that a pass may try: a few seconds of work, and more than a package could use."""


class Search:
    """The state of a derivation: what is chosen and dropped so far, and the points at which ranks are taken."""

    def __init__(self, rule: Rule, primes: Sequence[int]) -> None:
        self.rule = rule
        self.points = Points.random(rule.tensors, primes, POINT_SEED, rule.layout.dimension)
        self.chosen: list[Multigraph] = [Multigraph((kind,)) for kind in rule.scalars if rule.allows((kind,))]
        self.passes: list[tuple[Pass, bool, tuple[Multigraph, ...]]] = []

    def run(self, step: Pass) -> None:
        """Carries out one pass."""
        trials = Trials(self.points.primes)
        for graph in self.chosen:
            if graph.order > 1 and set(graph.kinds) <= set(step.stratum):
                trials.add(gradients(graph, self.points, step.stratum))
        goal, kept, dropped = self.freedom(step.stratum), 0, []
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

    def freedom(self, stratum: Stratum) -> int:
        """The degrees of freedom of a stratum."""
        return degrees_of_freedom(stratum, self.rule.layout.dimension)

    def candidates(self, supports: Sequence[Stratum]) -> Iterator[Multigraph]:
        """Graphs on these supports, simplest first, enumerated only as far as the pass gets, and counted before.

        Raises:
            BudgetError: there are more than ``MAX_CANDIDATES`` of one order.
        """
        for order in count(2) if self.rule.vertices is None else range(2, self.rule.vertices + 1):
            number = sum(connected_count(support, order) for support in supports)
            if number > MAX_CANDIDATES:
                ranks = ", ".join(kind.key for kind in sorted({kind for support in supports for kind in support}))
                allowed = f"at most {MAX_CANDIDATES}, by a smaller body order or rank, or a family that prunes"
                raise BudgetError(f"{number} graphs of {order} vertices of rank {ranks} to try; allowed: {allowed}")
            graphs = (graph for support in supports for graph in connected_graphs(support, order))
            yield from sorted(filter(lambda graph: self.rule.allows(graph.kinds), graphs), key=simplicity)

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
        space, freedom = trials.spaces[best], self.freedom(stratum)
        minor = Minor(best, tuple(rows), tuple(space.pivots), space.determinant)
        if space.rank == freedom:
            return StratumRank(stratum, freedom, space.rank, "degrees of freedom", 0.0, minor)
        if limited:
            return StratumRank(stratum, freedom, space.rank, "limit of the family", 0.0, minor)
        chance = failure_probability(space.rank, self.rule.vertices or 0, self.points.primes.tolist())
        return StratumRank(stratum, freedom, space.rank, "every graph tried", chance, minor)


def failure_probability(rank: int, vertices: int, primes: Sequence[int]) -> float:
    """How likely trials over these primes all miss a larger rank (Schwartz-Zippel).

    A minor of ``rank + 1`` rows, each of gradients of degree at most ``vertices - 1``, that is not the zero polynomial
    vanishes at a uniform point with probability at most its degree over the size of the field.
    """
    return float(prod(min(1.0, (rank + 1) * (vertices - 1) / prime) for prime in primes))


def within(invariants: Sequence[Invariant], stratum: Stratum) -> list[Invariant]:
    """Those that do not vanish on a stratum, scalars left out."""
    return [i for i in invariants if i.graph.order > 1 and set(i.graph.kinds) <= set(stratum)]


def why_dropped(graph: Multigraph, kept: Sequence[Invariant], points: Points, stratum: Stratum) -> Dropped:
    """Zero, a multiple of one of those kept, or dependent on some: on those without any of which it would not be.

    Kept graphs are independent on the stratum, so that set, the circuit of the graph in the matroid, is unique.
    """
    value = values(graph, points)
    if not np.any(value):
        return Dropped(graph, "zero")
    for other in kept:
        if sorted(other.graph.kinds) == sorted(graph.kinds):
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
