"""The multigraph: vertices are symmetric traceless tensors, edges are contracted indices.

Scope: loopless multigraphs whose vertices carry a rank. A vertex of rank ``l`` has ``l`` index slots; those not
taken by edges are *open legs*. A graph without open legs is a full contraction (an invariant); a graph with open
legs is a tensor, and that is what every intermediate of a contraction is. Not in scope: loops (they vanish, the
tensors are traceless).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_letters

import networkx as nx

Edge = tuple[int, int, int]
"""``(u, v, multiplicity)`` with ``u < v``."""

RANK_LETTERS = "svqth"
"""Letters of ranks 0 to 4, as in the literature: scalar, vector, quadrupole, (rank) three, hexadecapole."""


def rank_letter(rank: int) -> str:
    """The letter that stands for a tensor of this rank in names and formulas."""
    return RANK_LETTERS[rank] if rank < len(RANK_LETTERS) else f"r{rank}"


@dataclass(frozen=True, order=True)
class Multigraph:
    """A loopless multigraph of symmetric traceless tensors, possibly with open legs.

    ``ranks[k]`` is the rank of vertex ``k``; ``edges`` are sorted triples ``(u, v, multiplicity)`` with ``u < v``.

    Raises:
        ValueError: the graph is empty, an edge names no vertex, is a loop or given twice, or a vertex has more edges
            than its rank.
    """

    ranks: tuple[int, ...]
    edges: tuple[Edge, ...] = ()

    def __post_init__(self) -> None:
        if not self.ranks:
            raise ValueError("a graph has at least one vertex; a constant is no graph")
        seen = set()
        for u, v, multiplicity in self.edges:
            if not 0 <= u < v < len(self.ranks) or multiplicity < 1 or (u, v) in seen:
                raise ValueError(f"edge {(u, v, multiplicity)} is not valid in a graph of {len(self.ranks)} vertices")
            seen.add((u, v))
        if min(self.legs) < 0:
            raise ValueError(f"a vertex has more edges than its rank: ranks {self.ranks}, edges {self.edges}")

    @cached_property
    def degrees(self) -> tuple[int, ...]:
        """Edges at each vertex, parallel edges counted each."""
        degrees = [0] * len(self.ranks)
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
        """Number of vertices: the order of the polynomial in the tensors."""
        return len(self.ranks)

    @property
    def is_closed(self) -> bool:
        """Whether no leg is open, that is, whether the graph is an invariant."""
        return not any(self.legs)

    @cached_property
    def support(self) -> tuple[int, ...]:
        """The ranks that occur, ascending: the smallest stratum on which the graph may be non-zero."""
        return tuple(sorted(set(self.ranks)))

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
        return Multigraph(tuple(self.ranks[v] for v in vertices), sort_edges(kept))

    def relabelled(self, order: Sequence[int]) -> Multigraph:
        """The same graph with vertex ``order[k]`` renamed ``k``."""
        return self.induced(order)

    def index_letters(self) -> tuple[tuple[str, ...], str]:
        """Letters of the indices at each vertex, and those of the open legs in the order of the vertices."""
        at_vertex: list[list[str]] = [[] for _ in self.ranks]
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
        factors = zip(self.ranks, at_vertex, strict=True)
        return " ".join(rank_letter(rank) + (f"_{letters}" if letters else "") for rank, letters in factors)

    @property
    def composition(self) -> str:
        """The tensors that take part, by ascending rank, as ``qtt``; isomers share it."""
        return "".join(rank_letter(rank) for rank in sorted(self.ranks))

    def __str__(self) -> str:
        return self.formula


SCALAR = Multigraph((0,))
"""The vertex of rank 0 that stands alone: the invariant ``s``."""


def sort_edges(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """Edges with their ends ascending, in lexicographic order."""
    return tuple(sorted((min(u, v), max(u, v), multiplicity) for u, v, multiplicity in edges))


def to_networkx(graph: Multigraph) -> nx.Graph:
    """The graph with vertex attribute ``rank`` and edge attribute ``multiplicity``, for networkx's algorithms."""
    result = nx.Graph()
    result.add_nodes_from((vertex, {"rank": rank}) for vertex, rank in enumerate(graph.ranks))
    result.add_edges_from((u, v, {"multiplicity": multiplicity}) for u, v, multiplicity in graph.edges)
    return result
