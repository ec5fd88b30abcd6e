"""Scheduling: the order of a program's steps that keeps few values alive, and the instructions in that order.

Finding the best order is NP-complete (Sethi, Complete register allocation problems, 1975). This is list scheduling for
register pressure (Goodman and Hsu, Code scheduling and register allocation in large basic blocks, 1988): of the steps
that can be taken, always the one that frees most. What a step is decides how far that reaches: one step adds *one
term* to an accumulation, so sums are associated in whatever order their terms become available, and terms whose
factors die with them are added first. Several rules of priority are tried, and the order with the fewest live values
is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import heapify, heappop, heappush
from itertools import product

from tensorgraph.scalar.instructions import Instruction, Opcode, Store, StraightLine
from tensorgraph.scalar.ir import Input, ScalarProgram
from tensorgraph.scalar.selection import Accumulation, Constant, Scaled, Selection, Term, selected

EFFORT = 100_000
"""Steps that are scheduled in search of a good order, over all tries of one program: about a second."""

FEW = 8
"""Counts beyond this are all alike to a rule of priority, so that a step seldom changes the priority of others."""


@dataclass(frozen=True)
class Rule:
    """Weights of what makes a step urgent, in the scale of one live value.

    - ``pressure``: each value that the step adds to the live ones, less those that it frees
    - ``sharpness``: a factor with r reads to go counts ``r ** -sharpness``
    - ``closing``: an accumulation with t terms to go counts ``1 / t``
    - ``loading``: each element that must be loaded first, beyond its pressure
    """

    pressure: float
    sharpness: int
    closing: float
    loading: float


RULES = [Rule(*weights) for weights in product((1.0, 0.5, 2.0), (1, 2), (1.0, 0.0, 0.5, 2.0), (0.0, 0.5))]
"""The rules that are tried, in this order as far as the effort allows."""


@dataclass(frozen=True)
class Step:
    """Adds a term to an accumulation, or scales a value."""

    target: int
    term: Term


def scheduled(program: ScalarProgram) -> StraightLine:
    """The instructions of a program in the best order found."""
    selection = selected(program)
    line = instructions(selection, best_order(selection))
    line.verify()
    return line


def best_order(selection: Selection) -> list[Step]:
    """The steps in the order with the fewest live values of all that the rules give."""
    problem = _Problem(selection)
    tries = max(1, EFFORT // max(1, len(problem.steps)))
    orders = [problem.ordered(rule) for rule in RULES[:tries]]
    _, _, order = min(orders)
    return [problem.steps[step] for step in order]


def steps(selection: Selection) -> Iterator[Step]:
    """All steps, by ascending target."""
    for target, value in enumerate(selection.values):
        match value:
            case Scaled(_, operand):
                yield Step(target, Term(True, (operand,)))
            case Accumulation(terms):
                yield from (Step(target, term) for term in terms)
            case Input() | Constant():
                pass


class _Problem:
    """What depends on what; values and steps are numbers here, for speed."""

    def __init__(self, selection: Selection) -> None:
        self.steps = list(steps(selection))
        self.targets = [step.target for step in self.steps]
        self.factors = [tuple(sorted(set(step.term.factors))) for step in self.steps]
        self.leaf = [isinstance(value, Input | Constant) for value in selection.values]
        self.of: list[list[int]] = [[] for _ in selection.values]
        self.readers: list[list[int]] = [[] for _ in selection.values]
        for number, (target, factors) in enumerate(zip(self.targets, self.factors, strict=True)):
            self.of[target].append(number)
            for factor in factors:
                self.readers[factor].append(number)

    def ordered(self, rule: Rule) -> tuple[int, int, list[int]]:
        """The order that a rule gives, with its peak and its sum of live values."""
        return _Run(self, rule).run()


class _Run:
    """One list scheduling.

    Priorities only grow while steps are taken around a step, so a step enters the queue again when its priority
    changed, and what is left of it there is skipped later.
    """

    def __init__(self, problem: _Problem, rule: Rule) -> None:
        self.problem = problem
        self.reads = [len(readers) for readers in problem.readers]
        self.terms = [len(of) for of in problem.of]
        self.present = [False] * len(problem.leaf)
        self.waiting = [sum(not problem.leaf[factor] for factor in factors) for factors in problem.factors]
        self.taken = [False] * len(problem.steps)
        far = FEW + 1
        # What a factor with so many reads to go, or a target with so many terms to go, takes off a step's cost.
        self.factor_gain = [0.0, rule.pressure + 1.0, *(r**-rule.sharpness for r in range(2, far)), 0.0]
        self.target_gain = [0.0, *(rule.closing / t for t in range(1, far)), 0.0]
        self.load_cost = rule.pressure + rule.loading
        self.open_cost = rule.pressure

    def cost(self, step: int) -> float:
        """Of ready steps, the one with the least cost is next."""
        problem, reads, present = self.problem, self.reads, self.present
        target = problem.targets[step]
        terms = self.terms[target]
        result = -self.target_gain[terms if terms <= FEW else FEW + 1]
        if not present[target]:
            result += self.open_cost
        if terms == 1 and not reads[target]:
            result -= self.open_cost
        for factor in problem.factors[step]:
            count = reads[factor]
            result -= self.factor_gain[count if count <= FEW else FEW + 1]
            if not present[factor]:
                result += self.load_cost
        return result

    def run(self) -> tuple[int, int, list[int]]:
        """All steps in order, with the peak and the sum of live values."""
        self.queue = [(self.cost(step), step) for step, count in enumerate(self.waiting) if not count]
        heapify(self.queue)
        order: list[int] = []
        live = peak = total = 0
        while self.queue:
            _, step = heappop(self.queue)
            if not self.taken[step]:
                self.taken[step] = True
                order.append(step)
                made, ended = self.take(step)
                peak = max(peak, live + made)
                live += made - ended
                total += live
        return peak, total, order

    def take(self, step: int) -> tuple[int, int]:
        """The values that a step makes, and those that are dead after it."""
        problem = self.problem
        made = ended = 0
        for factor in problem.factors[step]:
            self.reads[factor] -= 1
            if not self.present[factor]:
                self.present[factor] = True
                made += 1
                self.renew(problem.readers[factor])
            elif 0 < self.reads[factor] <= FEW:
                self.renew(problem.readers[factor])
            ended += not self.reads[factor]
        target = problem.targets[step]
        self.terms[target] -= 1
        if not self.present[target]:
            self.present[target] = True
            made += not ended  # else it takes the place of a factor
            ended -= bool(ended)
            self.renew(problem.of[target])
        elif self.terms[target] <= FEW:
            self.renew(problem.of[target])
        if not self.terms[target]:
            ended += not self.reads[target]
            for reader in problem.readers[target]:
                self.waiting[reader] -= 1
            self.renew(problem.readers[target])
        return made, ended

    def renew(self, steps: Sequence[int]) -> None:
        """Enters those of the steps that are ready with their present cost."""
        for step in steps:
            if not self.waiting[step] and not self.taken[step]:
                heappush(self.queue, (self.cost(step), step))


def instructions(selection: Selection, order: Sequence[Step]) -> StraightLine:
    """The instructions that take these steps; leaves are loaded before their first use, results stored at once."""
    return _Assembler(selection).assembled(order)


class _Assembler:
    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.body: list[Instruction | Store] = []
        self.where: dict[int, int] = {}
        self.sums: dict[int, tuple[bool, int]] = {}
        self.terms = [len(v.terms) if isinstance(v, Accumulation) else 1 for v in selection.values]
        self.stores: dict[int | None, list[Store]] = {}
        for array, index, value in selection.stores:
            self.stores.setdefault(value, []).append(Store(array, index, None))
        self.count = 0

    def assembled(self, order: Sequence[Step]) -> StraightLine:
        for step in order:
            self.take(step)
        for value in list(self.stores):  # zeros, and leaves that no step reads
            self.body.extend(self.stores.pop(None)) if value is None else self.value(value)
        return StraightLine(self.selection.inputs, self.selection.outputs, tuple(self.body))

    def emit(
        self, opcode: Opcode, *operands: int, constant: Fraction = Fraction(1), source: Input | None = None
    ) -> int:
        self.body.append(Instruction(opcode, self.count, operands, constant, source))
        self.count += 1
        return self.count - 1

    def made(self, value: int, target: int) -> None:
        """Notes where a value is, and stores it if it is an output."""
        self.where[value] = target
        self.body += [Store(store.array, store.index, target) for store in self.stores.pop(value, ())]

    def value(self, value: int) -> int:
        """Where a value is, loading it if need be."""
        if value not in self.where:
            match self.selection.values[value]:
                case Input() as source:
                    self.made(value, self.emit(Opcode.LOAD, source=source))
                case Constant(number):
                    self.made(value, self.emit(Opcode.CONSTANT, constant=number))
                case Scaled() | Accumulation():
                    raise ValueError(f"value {value} is read before it is made")
        return self.where[value]

    def take(self, step: Step) -> None:
        factors = tuple(self.value(factor) for factor in step.term.factors)
        match self.selection.values[step.target]:
            case Scaled(factor, _):
                self.made(step.target, self.emit(Opcode.SCALE, *factors, constant=factor))
            case _:
                self.sums[step.target] = self.accumulated(self.sums.get(step.target), step.term.positive, factors)
                self.terms[step.target] -= 1
                if not self.terms[step.target]:
                    self.made(step.target, self.sums.pop(step.target)[1])

    def accumulated(self, total: tuple[bool, int] | None, positive: bool, factors: tuple[int, ...]) -> tuple[bool, int]:
        """A sign and a value that together are the total plus the term.

        A total of negative terms is held with its sign changed, until a positive term turns it.
        """
        if total is None:
            return positive, factors[0] if len(factors) == 1 else self.emit(Opcode.MULTIPLY, *factors)
        sign, value = total
        if positive and not sign:
            term = factors[0] if len(factors) == 1 else self.emit(Opcode.MULTIPLY, *factors)
            return True, self.emit(Opcode.SUBTRACT, term, value)
        if len(factors) == 2:
            opcode = Opcode.MULTIPLY_ADD if positive == sign else Opcode.MULTIPLY_SUBTRACT
        else:
            opcode = Opcode.ADD if positive == sign else Opcode.SUBTRACT
        return sign, self.emit(opcode, value, *factors)
