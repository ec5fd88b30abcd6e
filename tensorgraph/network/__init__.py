"""Networks as data: statements over named index spaces, their meaning, their adjoints, and how they are rewritten."""

from tensorgraph.network.adjoint import adjoint
from tensorgraph.network.arrays import ATOM, PAIR, STRUCTURE, Array, Factor, Space, Term
from tensorgraph.network.interpreter import Pairs, run
from tensorgraph.network.rewriting import contracted_first
from tensorgraph.network.statements import (
    Call,
    Child,
    Contract,
    Fixed,
    Layer,
    Normalise,
    NormaliseAdjoint,
    Parameter,
    Part,
    Place,
    Pointwise,
    Program,
    Statement,
    knows_pairs,
    reads_neighbours,
)

__all__ = [
    "ATOM",
    "PAIR",
    "STRUCTURE",
    "Array",
    "Call",
    "Child",
    "Contract",
    "Factor",
    "Fixed",
    "Layer",
    "Normalise",
    "NormaliseAdjoint",
    "Pairs",
    "Parameter",
    "Part",
    "Place",
    "Pointwise",
    "Program",
    "Space",
    "Statement",
    "Term",
    "adjoint",
    "contracted_first",
    "knows_pairs",
    "reads_neighbours",
    "run",
]
