"""Contraction graphs to tables of monomials: for tensors of four dimensions, whose components are those of spinors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from tensorgraph.algebra import Layout
from tensorgraph.algebra.spinors import pairings, spinor_polynomial
from tensorgraph.errors import BudgetError
from tensorgraph.graphs import Multigraph
from tensorgraph.scalar.derivatives import Derivatives
from tensorgraph.scalar.ir import ArrayRef
from tensorgraph.scalar.tables import Table, table_derivatives

MAX_PRODUCTS = 2 * 10**6
"""Of real components, that the polynomials of all graphs are summed from: some ten seconds of work."""


def products_of(graph: Multigraph) -> int:
    """How many products of real components a graph is summed from: the real part of each of complex ones."""
    products: int = len(pairings(graph)) ** 2 * 2 ** (graph.order - 1)
    return products


def check_products(numbers: Iterable[int]) -> None:
    """Raises BudgetError as soon as these products of components are too many together."""
    if any(total > MAX_PRODUCTS for total in accumulate(numbers)):
        allowed = "a smaller body order, rank or degree"
        raise BudgetError(f"a table from more than {MAX_PRODUCTS} products of components; allowed: {allowed}")


def tabulated(graphs: Sequence[Multigraph], layout: Layout) -> Derivatives[Table]:
    """Value, gradient and double gradient of closed graphs, the features in the components of `spinor_components`.

    Raises:
        BudgetError: there would be more than ``MAX_PRODUCTS`` products, or the table would be too long.
        ValueError: other tensors than those of one colour in four dimensions.
    """
    kinds = {kind for graph in graphs for kind in graph.kinds}
    if layout.dimension != 4 or any(kind.colour or kind.role != "tensor" for kind in kinds):
        raise ValueError("tables are of graphs of tensors of one colour in four dimensions")
    check_products(map(products_of, graphs))
    starts = {kind.rank: place.start for kind, place in layout.places.items()}
    polynomials = [spinor_polynomial(graph, starts) for graph in graphs]
    features, invariants = ArrayRef("features", layout.size), ArrayRef("invariants", len(graphs))
    return table_derivatives(Table.of(features, invariants, polynomials))
