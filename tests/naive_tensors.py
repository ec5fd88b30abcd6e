"""Symmetric traceless tensors in any number of dimensions and, in four, as forms of two spinors: naive oracles.

Tensors are dense arrays (D,) * rank, of floats or, exactly, of objects: integers and `Fraction`. A contraction graph is
a mapping of pairs of vertices to the number of indices that they share.

**Four dimensions.** With σ = (1, -iσ1, -iσ2, -iσ3) and two-component x, y, the vector v(x, y)_μ = xᵀ σ_μ y is null, and
all null vectors are of this kind. So a symmetric traceless tensor T of rank n is a form of degrees (n, n),

    T(x, y) = T · v(x, y)^⊗n = Σ_ab binom(n, a) binom(n, b) c_ab x0^(n-a) x1^a y0^(n-b) y1^b,

which for T = u^⊗n minus traces is (xᵀ M y)^n, M = u0 - i u·σ. Completeness of σ gives v(x, y) · v(p, q) = 2 [x p] [y q]
with [x p] = x0 p1 - x1 p0. Powers of null vectors span these tensors, and the c_ab of v(p, q)^⊗n is 2^n times
α0^(n-a) α1^a β0^(n-b) β1^b with α = (p1, -p0), β = (q1, -q0), [α α'] = [p p']. So a contraction graph with E edges is

    2^(-E) Σ_{a, b} w(a) w(b) Π_i c^(i)[a_i, b_i],    Π_edges [α_i α_j] = Σ_a w(a) Π_i α_i0^(n_i - a_i) α_i1^(a_i).

A real tensor has c[n-a, n-b] = (-1)^(a+b) conj(c[a, b]). (Symbolic method: Olver, Classical Invariant Theory (1999),
chapter 6. Spinors: Penrose and Rindler, Spinors and Space-Time 1 (1984), chapter 3.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import reduce
from itertools import combinations, product
from math import comb, factorial, prod

import numpy as np

Edges = Mapping[tuple[int, int], int]
# A complex array as its real and imaginary parts, which may be exact.
Parts = tuple[np.ndarray, np.ndarray]

NULL_VECTORS: dict[tuple[int, int], Parts] = {
    (0, 0): (np.array([1, 0, 0, 0]), np.array([0, 0, 0, -1])),
    (0, 1): (np.array([0, 0, -1, 0]), np.array([0, -1, 0, 0])),
    (1, 0): (np.array([0, 0, 1, 0]), np.array([0, -1, 0, 0])),
    (1, 1): (np.array([1, 0, 0, 0]), np.array([0, 0, 0, 1])),
}
"""Real and imaginary part of σ_μ[s, t], for spinor indices s, t."""


def triangle(n1: int, n2: int, n3: int) -> Edges:
    """The graph of three tensors of these ranks; their sum is even, and no rank exceeds the sum of the others."""
    return {(0, 1): (n1 + n2 - n3) // 2, (0, 2): (n1 + n3 - n2) // 2, (1, 2): (n2 + n3 - n1) // 2}


def moment(rank: int, points: np.ndarray, weights: Sequence) -> np.ndarray:
    """Σ_i w_i u_i^⊗rank of points (N, D): a moment tensor, traces and all."""
    powers = (reduce(np.multiply.outer, [u] * rank, np.asarray(w)) for u, w in zip(points, weights, strict=True))
    return np.asarray(sum(powers))


def with_delta(tensor: np.ndarray, dimension: int) -> np.ndarray:
    """Σ over pairs of places of δ there times the symmetric tensor at the other places: of rank + 2."""
    outer = np.multiply.outer(np.eye(dimension, dtype=int), tensor)
    return np.asarray(sum(np.moveaxis(outer, (0, 1), places) for places in combinations(range(outer.ndim), 2)))


def traceless(tensor: np.ndarray) -> np.ndarray:
    """The symmetric tensor minus its traces: Σ_k (-1)^k / (k! Π_{i ≤ k} (D + 2 rank - 2 - 2 i)) δ^k tr^k.

    δ is `with_delta`, and the sum is nested as in Horner's rule. This is the harmonic part of a homogeneous polynomial
    (Axler, Bourdon, Ramey, Harmonic Function Theory (2001), chapter 5) read by components.
    """
    rank = tensor.ndim
    if rank < 2:
        return tensor
    dimension = len(tensor)
    traces = [tensor]
    while traces[-1].ndim >= 2:
        traces.append(np.asarray(np.trace(traces[-1]), dtype=tensor.dtype))
    result = None
    for taken in reversed(range(len(traces))):
        below = factorial(taken) * prod(dimension + 2 * rank - 2 - 2 * i for i in range(1, taken + 1))
        factor = Fraction((-1) ** taken, below)
        term = traces[taken] * (factor if tensor.dtype == object else float(factor))
        result = term if result is None else term + with_delta(result, dimension)
    return np.asarray(result)


def contract(tensors: Sequence[np.ndarray], edges: Edges) -> Fraction | float:
    """The full contraction of tensors, one per vertex, by one einsum."""
    places: list[list[int]] = [[] for _ in tensors]
    index = 0
    for (first, second), multiplicity in edges.items():
        places[first] += range(index, index + multiplicity)
        places[second] += range(index, index + multiplicity)
        index += multiplicity
    operands = [item for pair in zip(tensors, places, strict=True) for item in pair]
    return np.asarray(np.einsum(*operands, [], optimize="greedy")).item()


def times(first: Parts, second: Parts, multiply=np.multiply) -> Parts:
    """The product of complex numbers or arrays, by the given bilinear operation."""
    (a, b), (c, d) = first, second
    return multiply(a, c) - multiply(b, d), multiply(a, d) + multiply(b, c)


def spinor_components(tensor: np.ndarray) -> Parts:
    """c_ab, of shape (rank + 1, rank + 1), of a symmetric traceless tensor in four dimensions.

    It is the tensor's contraction with *any* n of the null vectors σ[s, t], a of the s and b of the t equal to one. Two
    such products differ by σ[0, 0] σ[1, 1] - σ[0, 1] σ[1, 0], which symmetrised is δ: a traceless tensor gives zero.
    """
    n = tensor.ndim
    result = (np.zeros((n + 1, n + 1), dtype=tensor.dtype), np.zeros((n + 1, n + 1), dtype=tensor.dtype))
    for a, b in product(range(n + 1), repeat=2):
        value: Parts = (tensor, np.zeros_like(tensor))
        for place in range(n):
            vector = NULL_VECTORS[int(place < a), int(place < b)]
            value = times(value, vector, lambda left, right: np.tensordot(left, right, 1))
        for part, number in zip(result, value, strict=True):
            part[a, b] = np.asarray(number).item()
    return result


def as_real(components: Parts) -> np.ndarray:
    """The (rank + 1)² independent real numbers of a real tensor's c_ab, in an array of the same shape.

    Of each conjugate pair, the first in row-major order leaves its real part at its own place and its imaginary part at
    the other's. Of even rank, the middle one is its own partner and real. Each is rational in Cartesian components.
    """
    real, imag = (part.ravel() for part in components)
    half = (len(real) + 1) // 2
    return np.concatenate([real[:half], imag[: len(real) - half][::-1]]).reshape(components[0].shape)


def from_real(values: np.ndarray) -> Parts:
    """The c_ab of `as_real`, by c[n-a, n-b] = (-1)^(a+b) conj(c[a, b])."""
    flat, size = values.ravel(), values.size
    half = size // 2
    signs = np.array([(-1) ** sum(divmod(place, len(values))) for place in range(half)], dtype=int)
    imag = flat[size - half :][::-1]
    real = np.concatenate([flat[: size - half], (signs * flat[:half])[::-1]])
    whole = np.concatenate([imag, flat[half : size - half] * 0, (-signs * imag)[::-1]])
    return real.reshape(values.shape), whole.reshape(values.shape)


def pairing(ranks: Sequence[int], edges: Edges) -> dict[tuple[int, ...], int]:
    """w(a): the expansion of Π_edges [α_i α_j] by the degree a_i in the second component of each α_i; integers."""
    terms: Counter[tuple[int, ...]] = Counter({(0,) * len(ranks): 1})
    for (i, j), multiplicity in edges.items():
        for _ in range(multiplicity):
            longer: Counter[tuple[int, ...]] = Counter()
            for degrees, weight in terms.items():
                for vertex, sign in ((j, 1), (i, -1)):  # [α_i α_j] = α_i0 α_j1 - α_i1 α_j0
                    raised = (*degrees[:vertex], degrees[vertex] + 1, *degrees[vertex + 1 :])
                    longer[raised] += sign * weight
            terms = longer
    return {degrees: weight for degrees, weight in sorted(terms.items()) if weight}


def spinor_contract(components: Sequence[Parts], edges: Edges) -> tuple[Fraction | float, Fraction | float]:
    """A graph's contraction from the c_ab of its tensors: its real and its imaginary part, zero for real tensors."""
    weights = pairing([len(real) - 1 for real, _ in components], edges)
    total = [0, 0]
    for (a, left), (b, right) in product(weights.items(), repeat=2):
        factors = [
            (real[place], imag[place]) for (real, imag), place in zip(components, zip(a, b, strict=True), strict=True)
        ]
        value = reduce(times, factors)
        total = [total[0] + left * right * value[0], total[1] + left * right * value[1]]
    scale = Fraction(1, 2 ** sum(edges.values()))
    return tuple(part * (scale if isinstance(part, (int, Fraction)) else float(scale)) for part in total)


def transvectant(order: int, first: Parts, second: Parts) -> Parts:
    """c_ab of 2^(-order) times the transvectant of this order in x and in y at once.

    It is the symmetric traceless part of two tensors of ranks n, n' contracted over `order` indices:
    [α α']^order α_x^(n-order) α'_x^(n'-order), where α_x = α0 x0 + α1 x1, and the same in y.
    """
    n1, n2 = len(first[0]) - 1, len(second[0]) - 1
    n = n1 + n2 - 2 * order
    weights = pairing((n1, n2, n), triangle(n1, n2, n))
    result = tuple(np.zeros((n + 1, n + 1), dtype=first[0].dtype) for _ in range(2))
    for ((a1, a2, a), left), ((b1, b2, b), right) in product(weights.items(), repeat=2):
        # The third vertex of a triangle is [α x]^.. [α' x]^..: α_x with x = (-x1, x0).
        scale = Fraction(left * right * (-1) ** (a + b), 2**order * comb(n, a) * comb(n, b))
        value = times((first[0][a1, b1], first[1][a1, b1]), (second[0][a2, b2], second[1][a2, b2]))
        for part, term in zip(result, value, strict=True):
            part[n - a, n - b] += (scale if part.dtype == object else float(scale)) * term
    return result[0], result[1]


def bispectrum_factor(n1: int, n2: int, n: int) -> Fraction:
    """B_{j1,j2,j} / triangle(2 j1, 2 j2, 2 j), a positive rational.

    u^j_mm' is √(binom(n, a) binom(n, b)) c_ab with a = j - m, b = j - m', and a 3j symbol is, up to sign, w(a) divided
    by the root of Π_i binom(n_i, a_i) and by its norm, while a Clebsch-Gordan coefficient is √(2j + 1) times as large.
    The squared norm Σ_a w(a)² / Π_i binom(n_i, a_i) is (N + 1)! Π_edges k! / Π_i n_i!, N = (n1 + n2 + n) / 2.
    """
    half = (n1 + n2 + n) // 2
    above = (n + 1) * 2**half * prod(factorial(rank) for rank in (n1, n2, n))
    return Fraction(above, factorial(half + 1) * prod(factorial(k) for k in triangle(n1, n2, n).values()))
