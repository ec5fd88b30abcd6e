"""Contraction multigraphs: the type, its canonical form, and enumeration without isomorphs."""

from tensorgraph.graphs.canonical import canonical, canonical_labelling
from tensorgraph.graphs.enumeration import connected_graphs, degree_sequences, graphs_of_degree_sequence
from tensorgraph.graphs.multigraph import SCALAR, Edge, Multigraph, to_networkx

__all__ = [
    "SCALAR",
    "Edge",
    "Multigraph",
    "canonical",
    "canonical_labelling",
    "connected_graphs",
    "degree_sequences",
    "graphs_of_degree_sequence",
    "to_networkx",
]
