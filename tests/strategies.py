"""Hypothesis strategies of the compiler's tests."""

from hypothesis import strategies as st

from tensorgraph.graphs import Multigraph
from tensorgraph.graphs.multigraph import sort_edges


@st.composite
def multigraphs(draw: st.DrawFn, max_order: int = 6, max_multiplicity: int = 3, open_legs: int = 2) -> Multigraph:
    """Multigraphs, connected or not, with some open legs; ranks follow from the edges and legs drawn."""
    order = draw(st.integers(1, max_order))
    pairs = [(u, v) for v in range(order) for u in range(v)]
    multiplicities = [draw(st.integers(0, max_multiplicity)) for _ in pairs]
    edges = [(u, v, m) for (u, v), m in zip(pairs, multiplicities, strict=True) if m]
    ranks = [draw(st.integers(0, open_legs)) for _ in range(order)]
    for u, v, m in edges:
        ranks[u] += m
        ranks[v] += m
    return Multigraph(tuple(ranks), sort_edges(edges))
