"""Why components are independent Cartesian ones: in a real harmonic basis the same programs are longer.

The harmonic basis is orthogonal (m = −l … l, as real solid harmonics) with rational coefficients: its normalisation,
which would take roots, only scales inputs. Both bases go through the same passes.
"""

from fractions import Fraction

import numpy as np
import pytest

from tensorgraph.algebra import components, embedding
from tensorgraph.basis import derive
from tensorgraph.contractions import contraction_program
from tensorgraph.scalar import contracting, evaluate, lower_invariants, lowering, scheduled

HARMONIC = {
    0: {"": {0: 1}},
    1: {"x": {0: 1}, "y": {1: 1}, "z": {2: 1}},
    2: {
        "xx": {0: 1, 1: Fraction(-1, 2)},
        "yy": {0: -1, 1: Fraction(-1, 2)},
        "zz": {1: 1},
        "xy": {2: 1},
        "xz": {3: 1},
        "yz": {4: 1},
    },
    3: {
        "zzz": {0: 1},
        "xzz": {1: 1},
        "yzz": {2: 1},
        "xxz": {3: 1, 0: Fraction(-1, 2)},
        "yyz": {3: -1, 0: Fraction(-1, 2)},
        "xyz": {4: 1},
        "xxx": {5: 1, 1: Fraction(-3, 4)},
        "xyy": {5: -1, 1: Fraction(-1, 4)},
        "yyy": {6: 1, 2: Fraction(-3, 4)},
        "xxy": {6: -1, 2: Fraction(-1, 4)},
    },
}
"""Each Cartesian component in harmonic ones, by rank."""


def change(rank: int) -> np.ndarray:
    """The matrix from harmonic to independent Cartesian components."""
    matrix = np.full((2 * rank + 1,) * 2, Fraction(0), dtype=object)
    for row, powers in enumerate(components(rank)):
        name = "".join(axis * power for axis, power in zip("xyz", powers, strict=True))
        for column, value in HARMONIC[rank][name].items():
            matrix[row, column] = Fraction(value)
    return matrix


def in_harmonics(rank: int, dimension: int = 3) -> np.ndarray:
    """What `embedding` is in the harmonic basis."""
    return embedding(rank).astype(object) @ change(rank)


@pytest.mark.parametrize("rank", HARMONIC)
def test_the_other_basis_is_orthogonal(rank):
    """Under the inner product of full tensors, as real harmonics are."""
    full = in_harmonics(rank).reshape(-1, 2 * rank + 1)
    products = full.T @ full
    assert not (products - np.diag(np.diag(products))).any()
    assert all(np.diag(products))


@pytest.mark.parametrize(("family", "body_order"), [("hiphop", 5), ("hiphop", 4), ("flexible", 5)])
def test_cartesian_components_give_the_shorter_programs(family, body_order, monkeypatch):
    basis = derive(family, body_order, 3)
    contractions = contraction_program(basis.graphs, basis.layout)
    cartesian = lower_invariants(contractions)
    for module in (contracting, lowering):
        monkeypatch.setattr(module, "embedding", in_harmonics)
    harmonic = lower_invariants(contractions)
    moved = [Fraction(3 * k % 7 - 3, k + 2) for k in range(16)]
    features = [v for rank in range(4) for v in (change(rank) @ np.array(moved[rank**2 : (rank + 1) ** 2])).tolist()]
    expected = evaluate(cartesian.forward, {"features": features})["invariants"]
    assert evaluate(harmonic.forward, {"features": moved})["invariants"] == expected
    for ours, theirs in zip(cartesian, harmonic, strict=True):
        assert scheduled(ours).operations.total < scheduled(theirs).operations.total
