"""The multigraph: vertices are symmetric traceless tensors, edges are contracted indices.

Scope: loopless multigraphs whose vertices carry a kind, which has a rank. A vertex of rank ``l`` has ``l`` index slots;
those not taken by edges are *open legs*. A graph without open legs is a full contraction (an invariant); a graph with
open legs is a tensor, and that is what every intermediate of a contraction is. An output of a rank above 0 is a closed
graph with one *probe*, by which it is the derivative; a pseudo-scalar is a closed graph with one antisymmetric vertex.
Not in scope: loops (they vanish, the tensors are traceless).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from string import ascii_letters

import networkx as nx

from tensorgraph.graphs.kinds import Kind, as_kinds

Edge = tuple[int, int, int]
"""``(u, v, multiplicity)`` with ``u < v``."""


@dataclass(frozen=True, order=True)
class Multigraph:
    """A loopless multigraph of symmetric traceless tensors, possibly with open legs.

    ``kinds[k]`` is the kind of vertex ``k``, where a bare rank stands for a tensor of colour 0; ``edges`` are sorted
    triples ``(u, v, multiplicity)`` with ``u < v``.

    Raises:
        ValueError: the graph is empty, an edge names no vertex, is a loop or given twice, or a vertex has more edges
            than its rank.
    """

    kinds: tuple[Kind, ...]
    edges: tuple[Edge, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", as_kinds(self.kinds))
        if not self.kinds:
            raise ValueError("a graph has at least one vertex; a constant is no graph")
        seen = set()
        for u, v, multiplicity in self.edges:
            if not 0 <= u < v < len(self.kinds) or multiplicity < 1 or (u, v) in seen:
                raise ValueError(f"edge {(u, v, multiplicity)} is not valid in a graph of {len(self.kinds)} vertices")
            seen.add((u, v))
        if min(self.legs) < 0:
            raise ValueError(f"a vertex has more edges than its rank: ranks {self.ranks}, edges {self.edges}")

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """The rank of each vertex."""
        return tuple(kind.rank for kind in self.kinds)

    @cached_property
    def degrees(self) -> tuple[int, ...]:
        """Edges at each vertex, parallel edges counted each."""
        degrees = [0] * len(self.kinds)
        for u, v, multiplicity in self.edges:
            degrees[u] += multiplicity
            degrees[v] += multiplicity
        return tuple(degrees)

    @cached_property
    def legs(self) -> tuple[int, ...]:
        """Open legs at each vertex: its rank less its degree."""
        return tuple(rank - degree for rank, degree in zip(self.ranks, self.degrees, strict=True))

    @property
    def order(self) -> int:
        """Number of vertices; without a probe or an antisymmetric tensor the order of the polynomial."""
        return len(self.kinds)

    @property
    def is_closed(self) -> bool:
        """Whether no leg is open, that is, whether the graph is an invariant."""
        return not any(self.legs)

    @cached_property
    def support(self) -> tuple[Kind, ...]:
        """The kinds that occur, ascending: the smallest stratum on which the graph may be non-zero."""
        return tuple(sorted(set(self.kinds)))

    @cached_property
    def closing(self) -> int | None:
        """The vertex that is no tensor, a probe or the antisymmetric one; None where all are tensors.

        Raises:
            ValueError: there are several.
        """
        found = [vertex for vertex, kind in enumerate(self.kinds) if kind.role != "tensor"]
        if len(found) > 1:
            raise ValueError(f"{self.formula} has {len(found)} vertices that are no tensors; allowed: one")
        return found[0] if found else None

    @property
    def opened(self) -> Multigraph:
        """The graph without its probe or antisymmetric vertex: its open legs are that vertex's indices."""
        return self if self.closing is None else self.induced([v for v in range(self.order) if v != self.closing])

    @cached_property
    def adjacency(self) -> tuple[tuple[int, ...], ...]:
        """Symmetric matrix of multiplicities."""
        matrix = [[0] * self.order for _ in range(self.order)]
        for u, v, multiplicity in self.edges:
            matrix[u][v] = matrix[v][u] = multiplicity
        return tuple(map(tuple, matrix))

    @cached_property
    def is_connected(self) -> bool:
        """Whether the graph is in one piece; a disconnected graph is a product of smaller ones (reducible)."""
        reached, frontier = {0}, [0]
        while frontier:
            row = self.adjacency[frontier.pop()]
            new = [v for v, multiplicity in enumerate(row) if multiplicity and v not in reached]
            reached.update(new)
            frontier.extend(new)
        return len(reached) == self.order

    def induced(self, vertices: Sequence[int]) -> Multigraph:
        """The subgraph on these vertices, in this order; edges that leave it become open legs."""
        position = {vertex: k for k, vertex in enumerate(vertices)}
        kept = [(position[u], position[v], m) for u, v, m in self.edges if u in position and v in position]
        return Multigraph(tuple(self.kinds[v] for v in vertices), sort_edges(kept))

    def relabelled(self, order: Sequence[int]) -> Multigraph:
        """The same graph with vertex ``order[k]`` renamed ``k``."""
        return self.induced(order)

    def recoloured(self, colours: Mapping[int, int]) -> Multigraph:
        """The same graph with tensors of other colours; those that are not named keep theirs."""
        kinds = (
            replace(kind, colour=colours.get(kind.colour, kind.colour)) if kind.role == "tensor" else kind
            for kind in self.kinds
        )
        return Multigraph(tuple(kinds), self.edges)

    def index_letters(self) -> tuple[tuple[str, ...], str]:
        """Letters of the indices at each vertex, and those of the open legs in the order of the vertices."""
        at_vertex: list[list[str]] = [[] for _ in self.kinds]
        letters = iter(ascii_letters)
        for u, v, multiplicity in self.edges:
            for _ in range(multiplicity):
                letter = next(letters)
                at_vertex[u].append(letter)
                at_vertex[v].append(letter)
        open_letters = []
        for vertex, count in enumerate(self.legs):
            new = [next(letters) for _ in range(count)]
            at_vertex[vertex].extend(new)
            open_letters.extend(new)
        return tuple("".join(letters) for letters in at_vertex), "".join(open_letters)

    @property
    def einsum(self) -> str:
        """The contraction as an einsum equation, one operand per vertex, open legs in the order of the vertices."""
        at_vertex, open_letters = self.index_letters()
        return ",".join(at_vertex) + "->" + open_letters

    @property
    def formula(self) -> str:
        """The contraction in index notation, as ``t_abc t_abd q_cd``."""
        at_vertex, _ = self.index_letters()
        factors = zip(self.kinds, at_vertex, strict=True)
        return " ".join(kind.letter + (f"_{letters}" if letters else "") for kind, letters in factors)

    @property
    def composition(self) -> str:
        """The tensors that take part, by ascending rank, as ``qtt``, a probe last; isomers share it."""
        ordered = sorted(self.kinds, key=lambda kind: (kind.role == "probe", kind))
        return "".join(kind.letter for kind in ordered)

    def __str__(self) -> str:
        return self.formula


SCALAR = Multigraph((Kind(0),))
"""The vertex of rank 0 that stands alone: the invariant ``s``."""


def sort_edges(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """Edges with their ends ascending, in lexicographic order."""
    return tuple(sorted((min(u, v), max(u, v), multiplicity) for u, v, multiplicity in edges))


def to_networkx(graph: Multigraph) -> nx.Graph:
    """The graph for networkx's algorithms: vertices have ``rank`` and ``kind``, edges have ``multiplicity``."""
    result = nx.Graph()
    result.add_nodes_from((vertex, {"rank": kind.rank, "kind": kind}) for vertex, kind in enumerate(graph.kinds))
    result.add_edges_from((u, v, {"multiplicity": multiplicity}) for u, v, multiplicity in graph.edges)
    return result
