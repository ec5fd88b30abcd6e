"""The basis: which graphs are kept, by which rule, and what was shown about them."""

from tensorgraph.basis.families import derive
from tensorgraph.basis.rule import FAMILIES, Degree, Rule
from tensorgraph.basis.types import Basis, Certificate, Dropped, Invariant, Minor, StratumRank

__all__ = [
    "FAMILIES",
    "Basis",
    "Certificate",
    "Degree",
    "Dropped",
    "Invariant",
    "Minor",
    "Rule",
    "StratumRank",
    "derive",
]
