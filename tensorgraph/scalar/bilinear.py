"""Bilinear forms of scalars, written with few operations.

Every element of a contraction is a bilinear form in the independent elements of its operands. Three ways to write it:
the sum of products over all index multisets; its rows, ``Σ_ij M_ij x_i y_j = Σ_i x_i (Σ_j M_ij y_j)``, one product
each, which shows how few products are left once tracelessness has made some elements sums of others; and, where it is
a linear combination of forms of the same two operands that are there already, that combination. The last finds traces
(``q_ab q_ab`` of ``q_ac q_bc``) and whatever else is linearly dependent, without being told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import TypeVar

from tensorgraph.scalar.ir import Builder, Linear, Node, Product, Sum

Form = Mapping[tuple[int, int], Fraction]
"""Coefficients of products of two independent values, the smaller number first."""

Term = tuple[int, Linear, Linear]
"""A number times two references."""

Key = TypeVar("Key")

PRODUCT_PRICE = 5
"""Of a multiplication of two values, in additions: its derivative takes two more of them, that of an addition none."""


def price(nodes: Iterable[Node]) -> int:
    """What values cost: additions and scalings one each, products more."""
    total = 0
    for node in nodes:
        match node:
            case Product():
                total += PRODUCT_PRICE
            case Sum(terms):
                total += len(terms) - 1 + len({abs(coefficient) for coefficient, _ in terms} - {1})
    return total


@dataclass(frozen=True)
class Span:
    """Forms and their values in echelon form: any form that they span is found as a combination of the values."""

    rows: Mapping[tuple[int, int], tuple[Form, Mapping[int, Fraction]]] = field(default_factory=dict)

    def reduced(self, form: Form) -> tuple[dict[tuple[int, int], Fraction], dict[int, Fraction]]:
        """What elimination leaves of a form, and the combination of values that it took away."""
        rest, taken = dict(form), dict[int, Fraction]()
        for pivot, (row, values) in self.rows.items():  # a row is free of earlier pivots, so one pass is enough
            if factor := rest.get(pivot):
                _add(rest, row, -factor)
                _add(taken, values, factor)
        return rest, taken

    def with_form(self, form: Form, value: Linear) -> Span:
        """The span of one more form, which must be independent."""
        rest, values = self.reduced(form)
        _add(values, {value.value: value.coefficient}, Fraction(-1))
        pivot, scale = next(iter(rest.items()))
        row = {pair: coefficient / scale for pair, coefficient in rest.items()}
        return Span({**self.rows, pivot: (row, {v: -coefficient / scale for v, coefficient in values.items()})})


def _add(target: dict[Key, Fraction], other: Mapping[Key, Fraction], factor: Fraction) -> None:
    for key, coefficient in other.items():
        total = target.get(key, Fraction(0)) + factor * coefficient
        if total:
            target[key] = total
        else:
            target.pop(key, None)


class Forms:
    """Writes bilinear forms into a builder.

    ``dependent`` values are combinations of independent ones, and forms see through them; ``spans`` holds the forms
    that are there already, by the pair of tensors that they are forms in.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.dependent: frozenset[int] = frozenset()
        self.spans: dict[tuple[int, int], Span] = {}

    def combination(self, terms: Iterable[Linear]) -> Linear:
        """A linear combination that forms see through."""
        total = self.builder.sum(part for term in terms for part in self._independent(term))
        if isinstance(self.builder.nodes[total.value], Sum):
            self.dependent |= {total.value}
        return total

    def value(self, terms: Sequence[Term], operands: tuple[int, int], ways: Sequence[Way]) -> Linear:
        """A sum of products of elements of two tensors, in the cheapest of some ways given what is there already."""
        form = self._form(terms)
        span = self.spans.get(operands, Span())
        rest, taken = span.reduced(form)
        writings: list[Callable[[], Linear]] = [partial(way, self.builder, terms, form) for way in ways]
        if not rest:
            known = [Linear(factor, value) for value, factor in taken.items()]
            writings.insert(0, lambda: self.builder.sum(known))
        written = min(writings, key=self.price_of)()
        if rest:
            self.spans[operands] = span.with_form(form, written)
        return written

    def price_of(self, write: Callable[[], object]) -> int:
        """What the values that writing adds would cost; everything is left as it was."""
        nodes, dependent, spans = len(self.builder.nodes), self.dependent, dict(self.spans)
        write()
        cost = price(self.builder.nodes[nodes:])
        self.builder.forget(nodes)
        self.dependent, self.spans = dependent, spans
        return cost

    def _independent(self, reference: Linear) -> list[Linear]:
        """A reference as a combination of independent values."""
        node = self.builder.nodes[reference.value]
        if reference.value not in self.dependent or not isinstance(node, Sum):
            return [reference]
        return [Linear(coefficient * reference.coefficient, value) for coefficient, value in node.terms]

    def _form(self, terms: Iterable[Term]) -> Form:
        result: dict[tuple[int, int], Fraction] = {}
        for factor, left, right in terms:
            for x in self._independent(left):
                for y in self._independent(right):
                    pair = min(x.value, y.value), max(x.value, y.value)
                    _add(result, {pair: x.coefficient * y.coefficient}, Fraction(factor))
        return dict(sorted(result.items()))


Way = Callable[[Builder, Sequence[Term], Form], Linear]
"""How a bilinear form is written, given as a sum of products of elements and as a form in independent values."""


def as_products(builder: Builder, terms: Sequence[Term], form: Form) -> Linear:
    """The sum of products over all elements."""
    return builder.sum(builder.product(x, y).scaled(factor) for factor, x, y in terms)


def by_first_rows(builder: Builder, terms: Sequence[Term], form: Form) -> Linear:
    """Row by row, the values with small numbers taken out first."""
    return _by_rows(builder, form, -1)


def by_last_rows(builder: Builder, terms: Sequence[Term], form: Form) -> Linear:
    """Row by row, the values with large numbers taken out first."""
    return _by_rows(builder, form, 1)


WAYS: tuple[Way, ...] = (as_products, by_first_rows, by_last_rows)


def _by_rows(builder: Builder, form: Form, preference: int) -> Linear:
    """Takes out the value that most of what is left contains, again and again; rows that agree share their product."""
    pivots: dict[int, list[Linear]] = {}
    rest = dict(form)
    while rest:
        counts = Counter(value for pair in rest for value in set(pair))
        pivot = max(counts, key=lambda value: (counts[value], preference * value))
        pairs = [pair for pair in rest if pivot in pair]
        row = builder.sum(Linear(rest.pop((x, y)), y if x == pivot else x) for x, y in pairs)
        pivots.setdefault(row.value, []).append(Linear(row.coefficient, pivot))
    return builder.sum(
        builder.product(builder.sum(factors), Linear(Fraction(1), row)) for row, factors in pivots.items()
    )
