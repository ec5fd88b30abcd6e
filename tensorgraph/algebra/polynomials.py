"""Graph polynomials as exact polynomials over the integers, for statements that must hold identically."""

from __future__ import annotations

import numpy as np
from sympy import ZZ
from sympy.polys.rings import PolyElement, ring

from tensorgraph.algebra.contraction import contract
from tensorgraph.algebra.tensors import component_name, components, embedding
from tensorgraph.graphs import Multigraph
from tensorgraph.graphs.multigraph import rank_letter


def polynomial(graph: Multigraph) -> PolyElement:
    """The closed graph as a polynomial in the independent components, named ``v_x, …, q_xx, …``.

    Cost grows with the number of monomials: meant for graphs of a few vertices.
    """
    names = [f"{rank_letter(rank)}_{component_name(c)}" for rank in graph.support for c in components(rank)]
    domain, *variables = ring(names, ZZ)
    remaining = iter(variables)
    tensors = {}
    for rank in graph.support:
        values = np.array([next(remaining) for _ in components(rank)], dtype=object)
        tensors[rank] = embedding(rank).astype(object) @ values
    value = contract(graph, tensors)
    return domain(value.item() if isinstance(value, np.ndarray) else value)
