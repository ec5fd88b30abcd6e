"""Labelled structures from files: read with their origin, and looked at for what goes wrong with data.

Needs ASE and numpy; what is read here is what training and evaluation take.
"""

from tensorgraph.dataset.duplicates import duplicates, duplicates_within, repetition
from tensorgraph.dataset.reading import key_of_no_structure, read_structures
from tensorgraph.dataset.structure import LabelledStructure, Origin
from tensorgraph.dataset.units import unit_warnings

__all__ = [
    "LabelledStructure",
    "Origin",
    "duplicates",
    "duplicates_within",
    "key_of_no_structure",
    "read_structures",
    "repetition",
    "unit_warnings",
]
