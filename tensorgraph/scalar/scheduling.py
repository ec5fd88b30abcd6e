"""Scheduling: the order of a program's steps that keeps few values alive.

Finding the best order is NP-complete (Sethi, Complete register allocation problems, SIAM J. Comput. 4, 1975). This is
list scheduling for register pressure (Goodman and Hsu, Code scheduling and register allocation in large basic blocks,
1988): of the steps that can be taken, always the one that frees most. What a step is decides how far that reaches: one
step adds *one term* to an accumulation, so sums are associated in whatever order their terms become available, and
terms whose factors die with them are added first. Several rules of priority are tried, forwards and, because values
and their readers change places when time is reversed, backwards; the order with the least pressure is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from tensorgraph.scalar.assembly import assembled
from tensorgraph.scalar.instructions import StraightLine
from tensorgraph.scalar.ir import ScalarProgram
from tensorgraph.scalar.selection import Step, selected, steps

EFFORT = 50_000
"""Steps that are ordered in search of a good order, over all tries of one program: a second or two."""

LONG = 3000
"""Steps of a program beyond which less effort is made: the registers of no machine hold its values in any order."""

FEW = 8
"""Counts beyond this are all alike to a rule of priority, so that a step seldom changes the priority of others."""


@dataclass(frozen=True)
class Rule:
    """Weights of what makes a step urgent, in units that only compare with each other.

    - ``pressure``: each value that the step adds to the live ones, less those that it frees
    - ``sharpness``: an operand with r reads to go counts ``r ** -sharpness``
    - ``closing``: a result with t steps to go counts ``1 / t``
    - ``loading``: each element that must be loaded first, beyond its pressure
    - ``stuck``: a result that is begun now and cannot be finished with what is there
    - ``patient``: operands count only once all their reads can be done
    - ``recent``: of equals, the step of the later value is first
    - ``reverse``: the order is made from its end
    """

    pressure: float
    sharpness: int
    closing: float
    loading: float
    stuck: float
    patient: bool
    recent: bool
    reverse: bool


RULES = [
    Rule(4.0, 3, 0.25, 0.0, 4.0, False, False, False),
    Rule(0.5, 1, 1.0, 0.25, 0.5, False, False, True),
    Rule(1.0, 2, 1.0, 0.5, 0.5, True, True, True),
    Rule(1.0, 2, 1.0, 0.0, 1.0, True, True, False),
    Rule(0.25, 1, 0.5, 0.25, 0.0, False, False, True),
    Rule(0.25, 2, 0.25, 0.0, 0.5, False, False, False),
    Rule(0.25, 3, 0.25, 0.0, 0.5, False, False, False),
    Rule(2.0, 2, 1.0, 0.0, 2.0, True, True, False),
    Rule(0.5, 1, 0.0, 0.0, 1.0, True, False, False),
    Rule(0.5, 3, 0.25, 0.0, 0.5, False, False, False),
    Rule(2.0, 1, 0.5, 0.0, 2.0, False, False, False),
    Rule(8.0, 1, 0.5, 0.0, 8.0, False, False, False),
    Rule(1.0, 2, 0.25, 0.0, 0.5, False, False, False),
    Rule(2.0, 1, 1.0, 0.0, 0.5, False, False, False),
    Rule(2.0, 3, 0.25, 0.0, 0.5, False, False, False),
    Rule(4.0, 2, 0.25, 0.0, 2.0, False, False, False),
    Rule(4.0, 3, 0.25, 0.0, 0.5, False, False, False),
    Rule(4.0, 1, 1.0, 0.0, 0.5, False, False, False),
    Rule(8.0, 3, 0.25, 0.0, 1.0, False, False, False),
    Rule(0.5, 1, 0.5, 0.5, 0.0, True, False, False),
    Rule(4.0, 2, 4.0, 0.5, 2.0, False, False, False),
    Rule(2.0, 1, 0.5, 0.0, 1.0, True, False, False),
    Rule(2.0, 2, 2.0, 0.5, 0.0, True, True, True),
    Rule(2.0, 1, 2.0, 0.0, 1.0, False, True, False),
    Rule(2.0, 2, 2.0, 0.0, 1.0, True, True, False),
    Rule(4.0, 2, 1.0, 0.5, 1.0, False, False, True),
    Rule(1.0, 1, 1.0, 0.0, 4.0, False, True, False),
    Rule(1.0, 1, 2.0, 0.0, 4.0, True, False, True),
    Rule(4.0, 2, 0.5, 0.0, 2.0, True, True, False),
    Rule(4.0, 1, 4.0, 0.0, 2.0, True, True, False),
]
"""The rules that are tried, in this order as far as the effort allows."""


def scheduled(program: ScalarProgram) -> StraightLine:
    """The instructions of a program, in the best order that the rules give."""
    selection = selected(program)
    order = tuple(steps(selection))
    graph = _Graph.of(order, len(selection.values))
    size = max(1, len(order))
    tries = max(1, int(EFFORT / size * min(1, LONG / size)))
    lines = (assembled(selection, [order[step] for step in _ordered(graph, rule)]) for rule in RULES[:tries])
    line = min(lines, key=_pressure)
    line.verify()
    return line


def _pressure(line: StraightLine) -> int:
    """The peak of live values times their sum.

    Compilers of kernels shift instructions about for speed, so an order needs a low mean as well: 83 live values with a
    mean of 57 took 127 registers, 84 with a mean of 55 took 96 (hiphop5's double backward, ptxas for 9.0).
    """
    profile = line.live_profile
    return max(profile, default=0) * sum(profile)


@dataclass(frozen=True)
class _Graph:
    """Steps between values, by number: a value is read once all steps that lead to it are taken.

    - ``operands``, ``results``: the values that each step reads, and those that it leads to
    - ``makers``, ``readers``: the steps that lead to each value, and those that read it
    """

    operands: Sequence[tuple[int, ...]]
    results: Sequence[tuple[int, ...]]
    makers: list[list[int]]
    readers: list[list[int]]

    @classmethod
    def of(cls, order: Sequence[Step], values: int) -> _Graph:
        operands = [tuple(sorted(set(step.term.factors))) for step in order]
        results = [(step.target,) for step in order]
        return cls(operands, results, _steps_at(results, values), _steps_at(operands, values))

    @property
    def reversed(self) -> _Graph:
        return _Graph(self.results, self.operands, self.readers, self.makers)


def _steps_at(ends: Sequence[tuple[int, ...]], values: int) -> list[list[int]]:
    at: list[list[int]] = [[] for _ in range(values)]
    for step, ending in enumerate(ends):
        for value in ending:
            at[value].append(step)
    return at


def _ordered(graph: _Graph, rule: Rule) -> list[int]:
    """The order of steps that a rule gives."""
    return _Run(graph.reversed, rule).order()[::-1] if rule.reverse else _Run(graph, rule).order()


class _Run:
    """One list scheduling.

    Whatever is taken around a step only makes it more urgent, so a step enters the queue again when its cost has
    changed, and what is left of it there is skipped.
    """

    def __init__(self, graph: _Graph, rule: Rule) -> None:
        self.graph = graph
        self.rule = rule
        self.reads = [len(steps) for steps in graph.readers]
        self.terms = [len(steps) for steps in graph.makers]
        self.present = [False] * len(graph.makers)
        self.taken = [False] * len(graph.operands)
        self.waiting = [sum(bool(graph.makers[value]) for value in values) for values in graph.operands]
        # How many of the steps that lead to a value, and of those that read it, cannot be taken yet.
        self.stuck = [sum(self.waiting[step] > 0 for step in steps) for steps in graph.makers]
        self.held = [sum(self.waiting[step] > 0 for step in steps) for steps in graph.readers]
        counts = range(2, FEW + 1)
        self.operand_gain = [0.0, rule.pressure + 1.0, *(1.0 / count**rule.sharpness for count in counts), 0.0]
        self.result_gain = [0.0, rule.closing, *(rule.closing / count for count in counts), 0.0]
        self.queue: list[tuple[float, int]] = []
        self.renew(range(len(self.taken)))

    def order(self) -> list[int]:
        """All steps in order."""
        order: list[int] = []
        while self.queue:
            _, step = heappop(self.queue)
            step = abs(step)
            if not self.taken[step]:
                self.taken[step] = True
                order.append(step)
                self.take(step)
        return order

    def cost(self, step: int) -> float:
        """Of the steps that can be taken, the one with the least cost is next."""
        rule, reads, terms, present = self.rule, self.reads, self.terms, self.present
        cost = 0.0
        for value in self.graph.results[step]:
            count = terms[value]
            cost -= self.result_gain[count if count <= FEW else FEW + 1]
            if not present[value]:
                cost += rule.pressure + (rule.stuck if self.stuck[value] else 0.0)
            if count == 1 and not reads[value]:
                cost -= rule.pressure
        for value in self.graph.operands[step]:
            if not (rule.patient and self.held[value]):
                count = reads[value]
                cost -= self.operand_gain[count if count <= FEW else FEW + 1]
            if not present[value]:
                cost += rule.pressure + rule.loading
        return cost

    def renew(self, steps: Iterable[int]) -> None:
        """Enters those of the steps that can be taken with their present cost."""
        sign = -1 if self.rule.recent else 1
        for step in steps:
            if not self.waiting[step] and not self.taken[step]:
                heappush(self.queue, (self.cost(step), sign * step))

    def take(self, step: int) -> None:
        """Counts a step as taken, and renews the steps that this makes more urgent."""
        graph = self.graph
        for value in graph.operands[step]:
            self.reads[value] -= 1
            if self.begun(value) or self.reads[value] <= FEW:
                self.renew(graph.readers[value])
        for value in graph.results[step]:
            self.terms[value] -= 1
            if self.begun(value) or self.terms[value] <= FEW:
                self.renew(graph.makers[value])
            if not self.terms[value]:
                self.finished(value)

    def begun(self, value: int) -> bool:
        """Notes that a value is present; whether it is new."""
        new = not self.present[value]
        self.present[value] = True
        return new

    def finished(self, value: int) -> None:
        """Lets the readers of a value be taken."""
        graph = self.graph
        for reader in graph.readers[value]:
            self.waiting[reader] -= 1
            if not self.waiting[reader]:
                self.freed(reader)
        self.renew(graph.readers[value])

    def freed(self, step: int) -> None:
        """Notes that a step can be taken now, which its neighbours may have waited for."""
        for value in self.graph.results[step]:
            self.stuck[value] -= 1
            if not self.stuck[value] and not self.present[value]:
                self.renew(self.graph.makers[value])
        for value in self.graph.operands[step]:
            self.held[value] -= 1
            if self.rule.patient and not self.held[value] and self.reads[value] <= FEW:
                self.renew(self.graph.readers[value])
