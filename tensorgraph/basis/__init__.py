"""The basis: which graphs are kept, by which rule, and what was shown about them."""

from tensorgraph.basis.families import FAMILIES, derive
from tensorgraph.basis.types import Basis, Certificate, Dropped, Invariant, Minor, StratumRank

__all__ = ["FAMILIES", "Basis", "Certificate", "Dropped", "Invariant", "Minor", "StratumRank", "derive"]
