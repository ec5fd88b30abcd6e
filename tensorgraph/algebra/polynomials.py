"""Graph polynomials as exact polynomials over the integers, for statements that must hold identically."""

from __future__ import annotations

import numpy as np
from sympy import ZZ
from sympy.polys.rings import PolyElement, ring

from tensorgraph.algebra.contraction import contract
from tensorgraph.algebra.tensors import component_name, components, embedding, levi_civita
from tensorgraph.graphs import Kind, Multigraph


def polynomial(graph: Multigraph, dimension: int = 3) -> PolyElement:
    """The closed graph as a polynomial in the independent components, named ``v_x, …, q_xx, …``.

    Cost grows with the number of monomials: meant for graphs of a few vertices.
    """
    kinds = [kind for kind in graph.support if kind.role != "epsilon"]
    names = [f"{kind.letter}_{component_name(c)}" for kind in kinds for c in components(kind.rank, dimension)]
    domain, *variables = ring(names, ZZ)
    remaining = iter(variables)
    tensors = {Kind(dimension, role="epsilon"): levi_civita(dimension).astype(object)}
    for kind in kinds:
        values = np.array([next(remaining) for _ in components(kind.rank, dimension)], dtype=object)
        tensors[kind] = embedding(kind.rank, dimension).astype(object) @ values
    value = contract(graph, tensors)
    return domain(value.item() if isinstance(value, np.ndarray) else value)
