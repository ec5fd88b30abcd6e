"""Bilinear forms of scalars, written with few operations.

An element of a contraction is a bilinear form in the independent elements of its operands. Written over *all* elements
it has one product for every index multiset; tracelessness makes some of those elements sums of others, and expanding
them shows how few products the form needs: ``Σ_ij M_ij x_i y_j = Σ_i x_i (Σ_j M_ij y_j)`` takes one for each row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from tensorgraph.scalar.ir import Builder, Linear, Node, Product, Sum

Form = dict[tuple[int, int], Fraction]
"""Coefficients of products of two values, the smaller number first."""

Term = tuple[int, Linear, Linear]
"""A number times two references."""

PRODUCT_WEIGHT = 3
"""Price of a multiplication of values in additions: its derivative takes two, that of an addition takes none."""


class Forms:
    """Makes bilinear forms in a builder; ``dependent`` values are expanded into the independent ones in their sum."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.dependent: set[int] = set()
        self.spaces: dict[tuple[int, int], Span] = {}

    def combination(self, terms: Iterable[Linear]) -> Linear:
        """A linear combination that later forms see through."""
        total = self.builder.sum(part for term in terms for part in self.expanded(term))
        if isinstance(self.builder.nodes[total.value], Sum):
            self.dependent.add(total.value)
        return total

    def expanded(self, reference: Linear) -> tuple[Linear, ...]:
        """A reference as a combination of independent values."""
        if reference.value not in self.dependent:
            return (reference,)
        node = self.builder.nodes[reference.value]
        assert isinstance(node, Sum)
        return tuple(Linear(coefficient * reference.coefficient, value) for coefficient, value in node.terms)

    def form(self, terms: Iterable[Term]) -> Form:
        """The form over independent values."""
        result: Form = {}
        for factor, left, right in terms:
            for x in self.expanded(left):
                for y in self.expanded(right):
                    pair = (min(x.value, y.value), max(x.value, y.value))
                    result[pair] = result.get(pair, Fraction(0)) + factor * x.coefficient * y.coefficient
        return {pair: coefficient for pair, coefficient in sorted(result.items()) if coefficient}

    def value(self, terms: Sequence[Term], operands: tuple[int, int]) -> Linear:
        """The cheapest way that is known to write a sum of products, given what the builder has already."""
        form = self.form(terms)
        space = self.spaces.setdefault(operands, Span())
        known = space.combination(form)
        writings: list[Callable[[], Linear]] = [
            lambda: self.builder.sum(self.builder.product(x, y).scaled(factor) for factor, x, y in terms),
            lambda: self.factored(form, 1),
            lambda: self.factored(form, -1),
        ]
        if known is not None:
            writings.insert(0, lambda: self.builder.sum(known))
        result = min(writings, key=self.cost_of)()
        if known is None:
            space.add(form, result)
        return result

    def factored(self, form: Form, preference: int) -> Linear:
        """Rows of the form, each taken out by the value that most of what is left contains; ties by number."""
        rows: dict[int, list[Linear]] = {}
        rest = dict(form)
        while rest:
            counts = Counter(value for pair in rest for value in set(pair))
            pivot = max(counts, key=lambda value: (counts[value], -preference * value))
            row = [pair for pair in rest if pivot in pair]
            inner = self.builder.sum(
                Linear(rest.pop((x, y)), y if x == pivot else x) for x, y in row
            )
            rows.setdefault(inner.value, []).append(Linear(inner.coefficient, pivot))
        one = Fraction(1)
        return self.builder.sum(
            self.builder.product(self.builder.sum(pivots), Linear(one, inner)) for inner, pivots in rows.items()
        )

    def cost_of(self, write: Callable[[], Linear]) -> int:
        """The price of the values that writing adds; the builder is left as it was."""
        mark = len(self.builder.nodes)
        write()
        cost = sum(price(node) for node in self.builder.nodes[mark:])
        self.builder.forget(mark)
        return cost


class Span:
    """Forms with their values, reduced so that any form in their span is found as a combination of the values."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int], tuple[Form, Form]] = {}

    def reduced(self, form: Form) -> tuple[Form, dict[int, Fraction]]:
        """What elimination leaves of a form, and the combination of values that was taken away."""
        rest, taken = dict(form), {}
        for pivot, (row, parts) in self.rows.items():
            if pivot in rest:
                factor = rest[pivot]
                _subtract(rest, row, factor)
                _subtract(taken, parts, -factor)
        return rest, taken

    def combination(self, form: Form) -> list[Linear] | None:
        rest, taken = self.reduced(form)
        return None if rest else [Linear(c, v) for v, c in taken.items()]

    def add(self, form: Form, value: Linear) -> None:
        rest, taken = self.reduced(form)
        parts = {v: -c for v, c in taken.items()}
        _subtract(parts, {value.value: value.coefficient}, Fraction(-1))
        pivot = next(iter(rest))
        scale = rest[pivot]
        self.rows[pivot] = {k: c / scale for k, c in rest.items()}, {v: c / scale for v, c in parts.items()}


def _subtract(target, row, factor):
    for key, coefficient in row.items():
        target[key] = target.get(key, Fraction(0)) - factor * coefficient
        if not target[key]:
            del target[key]


def price(node: Node) -> int:
    """Additions of one value, multiplications weighted."""
    match node:
        case Product():
            return PRODUCT_WEIGHT
        case Sum(terms):
            return len(terms) - 1 + len({abs(coefficient) for coefficient, _ in terms} - {1})
        case _:
            return 0
