"""The SNAP bispectrum as the papers define it, term by term: an oracle, to be read next to them.

[B] Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115 (2013), https://doi.org/10.1103/PhysRevB.87.184115: the map onto
    the 3-sphere, the hyperspherical harmonics and their bispectrum.
[T] Thompson, Swiler, Trott, Foiles, Tucker, J. Comput. Phys. 285, 316 (2015),
    https://doi.org/10.1016/j.jcp.2014.12.018: the density and the components that SNAP takes.
[L] LAMMPS documentation of `compute sna/atom`: θ0, the weights, the formula of B and the order of components.
[V] Varshalovich, Moskalev, Khersonskii, Quantum Theory of Angular Momentum (1988).

Angular momenta are given as the integers n = 2j. Rows and columns of U^j run over j - m = 0, …, n, so that the first
belongs to m = j. Nothing is normalised and nothing subtracted: `bnormflag 0`, `bzeroflag 0`, no `chem`.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import comb, factorial, sqrt

import numpy as np

Triple = tuple[int, int, int]


def triples(twojmax: int) -> list[Triple]:
    """(2 j1, 2 j2, 2 j) of each component, in the order of [L]: 0 ≤ j2 ≤ j1 ≤ j, of all that couple."""
    return [
        (n1, n2, n)
        for n1 in range(twojmax + 1)
        for n2 in range(n1 + 1)
        for n in range(n1 - n2, min(twojmax, n1 + n2) + 1, 2)
        if n >= n1
    ]


@cache
def squared_clebsch_gordan(n1: int, a1: int, n2: int, a2: int, n: int, a: int) -> Fraction:
    """Sign times square of <j1 m1 j2 m2 | j m>, m = j - a, in the phases of Condon and Shortley.

    Racah's sum over factorials, [V] section 8.2; k, k1, k2 are j1 + j2 - j, j1 + j - j2, j2 + j - j1.
    """
    k, k1, k2 = (n1 + n2 - n) // 2, (n1 + n - n2) // 2, (n2 + n - n1) // 2
    if (n1 + n2 + n) % 2 or min(k, k1, k2) < 0 or a1 + a2 != a + k:
        return Fraction(0)
    total = Fraction(0)
    for s in range(max(0, a1 - k1, n2 - a2 - k2), min(k, a1, n2 - a2) + 1):
        below = (s, k - s, a1 - s, n2 - a2 - s, k1 - a1 + s, k2 - n2 + a2 + s)
        total += Fraction((-1) ** s, int(np.prod([factorial(i) for i in below], dtype=object)))
    above = (k, k1, k2, a1, n1 - a1, a2, n2 - a2, a, n - a)
    square = Fraction((n + 1) * int(np.prod([factorial(i) for i in above], dtype=object)), factorial(k + k1 + k2 + 1))
    return square * total * abs(total)


@cache
def clebsch_gordan(n1: int, n2: int, n: int) -> np.ndarray:
    """<j1 m1 j2 m2 | j m>, of shape (n1 + 1, n2 + 1, n + 1)."""

    def value(a1: int, a2: int, a: int) -> float:
        square = squared_clebsch_gordan(n1, a1, n2, a2, n, a)
        return sqrt(abs(square)) * (1 if square > 0 else -1)

    return np.array([[[value(a1, a2, a) for a in range(n + 1)] for a2 in range(n2 + 1)] for a1 in range(n1 + 1)])


def sphere(displacements: np.ndarray, cutoff: np.ndarray | float, rfac0: float, rmin0: float) -> np.ndarray:
    """Points (N, 4) on the unit 3-sphere, (cos θ0, sin θ0 r̂), of displacements (N, 3); θ0 as in [L].

    Nearer than rmin0, where θ0 < 0, LAMMPS takes the antipode instead, which jumps; do not choose rmin0 so large.
    """
    distance = np.linalg.norm(displacements, axis=1)
    angle = rfac0 * np.pi * (distance - rmin0) / (cutoff - rmin0)
    return np.column_stack([np.cos(angle), np.sin(angle)[:, None] * displacements / distance[:, None]])


def switching(distance: np.ndarray, cutoff: np.ndarray | float, rmin0: float) -> np.ndarray:
    """f_c(r) of [L]; 1 up to rmin0, as in LAMMPS, and 0 from the cutoff on."""
    return 0.5 * (np.cos(np.pi * np.clip((distance - rmin0) / (cutoff - rmin0), 0, 1)) + 1)


def environment(
    displacements: np.ndarray,
    elements: np.ndarray | float = 1.0,
    *,
    cutoff: np.ndarray | float,
    rfac0: float = 0.99363,
    rmin0: float = 0.0,
    wself: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Points (N + 1, 4) and weights (N + 1,) of the density: the centre at the pole, then the neighbours.

    displacements (N, 3), from the centre to its neighbours, and cutoff are lengths of one unit; elements are the
    weights of the neighbours' elements and, like cutoff, one for all or (N,).
    """
    neighbours = elements * switching(np.linalg.norm(displacements, axis=1), cutoff, rmin0)
    points = sphere(displacements, cutoff, rfac0, rmin0)
    return np.vstack([[1.0, 0, 0, 0], points]), np.concatenate([[wself], neighbours])


def hyperspherical(n: int, point: np.ndarray) -> np.ndarray:
    """U^j_mm' (n + 1, n + 1) of a point u on the 3-sphere: the rotation about r̂ by 2 θ0; [V] chapter 4.

    Its Cayley-Klein parameters are a = u0 - i u3, b = u2 - i u1: U^{1/2} = ((a, -b*), (b, a*)) = cos θ0 - i sin θ0 r̂·σ.
    Any other choice, U* or the transpose included, is another basis of the same functions and gives the same B. With
    f_m = ξ^(j+m) η^(j-m) / √((j+m)! (j-m)!), column m' is f_m' where ξ → a ξ + b η, η → -b* ξ + a* η.
    """
    a, b = complex(point[0], -point[3]), complex(point[2], -point[1])
    result = np.zeros((n + 1, n + 1), dtype=complex)
    for row in range(n + 1):
        for column in range(n + 1):
            for s in range(max(0, column - row), min(column, n - row) + 1):  # factors ξ that come from η
                first = comb(n - column, n - row - s) * a ** (n - row - s) * b ** (row - column + s)
                second = comb(column, s) * (-b.conjugate()) ** s * a.conjugate() ** (column - s)
                result[row, column] += sqrt(comb(n, column) / comb(n, row)) * first * second
    return result


def density(n: int, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """u^j_mm' = Σ_i w_i U^j_mm'(i), the centre among the points, as in [T] and [L]."""
    return np.asarray(sum(weight * hyperspherical(n, point) for point, weight in zip(points, weights, strict=True)))


def coupled(triple: Triple, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Σ C(m1 m2 m) C(m1' m2' m') u^j1_{m1 m1'} u^j2_{m2 m2'}: the coupling H of [B] and [L] is this product of two."""
    table = clebsch_gordan(*triple)
    return np.einsum("abc,xyz,ax,by->cz", table, table, first, second, optimize="greedy")


def bispectrum(twojmax: int, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """B_{j1,j2,j} = Σ (u^j)* H u^j1 u^j2 in the order of `triples`; [B], [T], [L]. Real, which is checked."""
    moments = [density(n, points, weights) for n in range(twojmax + 1)]
    values = [np.vdot(moments[n], coupled((n1, n2, n), moments[n1], moments[n2])) for n1, n2, n in triples(twojmax)]
    assert np.max(np.abs(np.imag(values))) <= 1e-12 * np.max(np.abs(values))
    return np.real(values)
