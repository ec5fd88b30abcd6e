"""Labelled structures from files: read with their origin, and looked at for what goes wrong with data.

Needs ASE and numpy; what is read here is what training and evaluation take.
"""

from tensorgraph.dataset.reading import (
    LabelledStructure,
    Origin,
    duplicates,
    duplicates_within,
    read_structures,
    unit_warnings,
    warn_duplicates,
)

__all__ = [
    "LabelledStructure",
    "Origin",
    "duplicates",
    "duplicates_within",
    "read_structures",
    "unit_warnings",
    "warn_duplicates",
]
