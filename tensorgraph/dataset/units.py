"""x"""

from collections.abc import Sequence

from tensorgraph.dataset.structure import LabelledStructure


def unit_warnings(structures: Sequence[LabelledStructure]) -> list[str]:
    """x"""
    return []
