"""Contraction multigraphs: the type, its canonical form, and enumeration without isomorphs."""

from tensorgraph.graphs.canonical import automorphism_count, canonical, canonical_labelling
from tensorgraph.graphs.counting import connected_count
from tensorgraph.graphs.enumeration import (
    connected_graphs,
    degree_sequences,
    graphs_of_degree_sequence,
    multigraphs_of_degree_sequence,
)
from tensorgraph.graphs.kinds import Kind, as_kinds
from tensorgraph.graphs.multigraph import SCALAR, Edge, Multigraph, to_networkx

__all__ = [
    "SCALAR",
    "Edge",
    "Kind",
    "Multigraph",
    "as_kinds",
    "automorphism_count",
    "canonical",
    "canonical_labelling",
    "connected_count",
    "connected_graphs",
    "degree_sequences",
    "graphs_of_degree_sequence",
    "multigraphs_of_degree_sequence",
    "to_networkx",
]
