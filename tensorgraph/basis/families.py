"""The bases of the families: greedy passes over strata, linear independence by multidegree, or no pruning at all.

A pass looks at one stratum. It starts from the rank that the invariants chosen so far have there and tries further
graphs, simplest first, keeping those that raise it, until the stratum's degrees of freedom are met, the family's limit
is reached, or no graph is left. Passing through the strata by increasing size yields the *flexible* set with the fewest
invariants: what a stratum adds does not depend on the choices made before (docs/flexible-bases.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tensorgraph.algebra import PRIMES, Layout
from tensorgraph.basis.products import derive_products
from tensorgraph.basis.rule import Degree, Rule
from tensorgraph.basis.search import Search
from tensorgraph.basis.types import Basis, BodyOrder, named
from tensorgraph.graphs import Kind

Tell = Callable[[str], None]


def derive(
    family: str,
    body_order: BodyOrder,
    max_rank: int,
    primes: tuple[int, ...] = PRIMES[:3],
    tell: Tell = lambda _: None,
    *,
    colours: int = 1,
    dimension: int = 3,
    outputs: tuple[Kind | None, ...] = (None,),
    degree: Degree | None = None,
) -> Basis:
    """The basis of a family: graphs of at most ``body_order - 1`` tensors of rank at most ``max_rank``.

    Args:
        family: a name in ``FAMILIES``.
        body_order: with ``"complete"`` as many tensors as full rank on every stratum needs.
        max_rank: of the tensors.
        primes: of the points at which ranks are taken.
        tell: called with each stratum as its turn comes, for a display of progress.
        colours: how many tensors there are of each rank.
        dimension: of their space, 3 or 4.
        outputs: None for invariants, a probe for outputs of its rank, the antisymmetric tensor for pseudo-scalars.
        degree: a bound on the sum of what each tensor counts.

    Raises:
        KeyError: no such family.
        BasisError: there is no graph for an output.
        BudgetError: the family would have to look at too many graphs.
        ValueError: outputs with rank from a family that prunes functions.
    """
    layout = Layout.full(max_rank, colours, dimension)
    vertices = complete_vertices(layout) if body_order == "complete" else body_order - 1
    rule = Rule(family, vertices, layout, outputs, degree)
    if rule.preset.candidates == "all":
        return derive_products(rule, body_order, primes)
    if outputs != (None,):
        raise ValueError(f"the family {family} has no outputs but invariants; allowed: linear, products")
    search, steps = Search(rule, primes), rule.passes()
    for number, step in enumerate(steps, 1):
        tell(f"basis: stratum {number} of {len(steps)}, {len(search.chosen)} invariants so far")
        search.run(step)
    rule.check_outputs(graph.kinds for graph in search.chosen)
    tell("basis: certificate")
    invariants = named(search.chosen)
    return Basis(rule, body_order, invariants, search.dropped_by_name(invariants), search.certificate(invariants))


@cache
def complete_vertices(layout: Layout) -> int:
    """The least number of vertices with which all graphs have full rank on every stratum of these tensors."""
    rule = Rule("flexible", None, layout)
    search = Search(rule, PRIMES[:1])
    for step in rule.passes():
        search.run(step)
    return max(graph.order for graph in search.chosen)
