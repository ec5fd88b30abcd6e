"""Oracles from outside: nauty's census of multigraphs, and environments that low body orders cannot tell apart."""

import os
import re
import shutil
import subprocess
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from tensorgraph.algebra import components, contract, embedding, projection
from tensorgraph.basis import derive
from tensorgraph.graphs import Kind, connected_graphs

GENG, MULTIG = (shutil.which(f"nauty-{tool}") or shutil.which(tool) for tool in ("geng", "multig"))
DATA = os.environ.get("TENSORGRAPH_DATA")


@pytest.mark.skipif(not (GENG and MULTIG), reason="nauty is not installed (Debian's package `nauty`)")
@pytest.mark.parametrize(("max_rank", "order"), [(1, 3), (2, 6), (3, 6), (3, 8), (4, 5), (5, 4), (6, 4), (8, 3)])
def test_nauty_counts_as_many_connected_multigraphs(max_rank, order):
    graphs = subprocess.run([GENG, "-cq", str(order)], check=True, capture_output=True).stdout
    report = subprocess.run([MULTIG, "-u", f"-D{max_rank}"], input=graphs, check=True, capture_output=True).stderr
    counted = int(re.search(r"(\d+) multigraphs generated", report.decode()).group(1))
    supports = [s for size in range(1, max_rank + 1) for s in combinations(range(1, max_rank + 1), size)]
    assert sum(len(connected_graphs(support, order)) for support in supports) == counted


def environments(pair: str) -> list[np.ndarray]:
    """The two environments of a pair: integer displacements of the neighbours from the central atom."""
    frames = [atoms for atoms in read(Path(DATA) / "degenerate" / "pairs.xyz", ":") if atoms.info["pair"] == pair]
    assert [atoms.info["member"] for atoms in frames] == ["A", "B"]
    return [np.rint(atoms.positions[1:] - atoms.positions[0]).astype(int) for atoms in frames]


def exact_invariants(neighbours: np.ndarray, body_order: int, max_rank: int, seed: int) -> list[Fraction]:
    """Invariants over the rationals, for random radial weights that depend on the shell and the rank.

    The tensors are `|r|^l [r̂…r̂]_0`, polynomials in integer positions; the power of |r| belongs to the weight.
    """
    random = np.random.default_rng(seed)
    shells = sorted({int(r @ r) for r in neighbours} | {25, 50, 75})
    weights = {
        (shell, rank): Fraction(int(random.integers(1, 99)), 7) for shell in shells for rank in range(max_rank + 1)
    }
    tensors = {}
    for rank in range(max_rank + 1):
        total = np.array([Fraction(0)] * (2 * rank + 1), dtype=object)
        for r in neighbours:
            square = int(r @ r)
            values = [homogeneous(exponents, r.tolist(), square) for exponents in components(rank)]
            total = total + weights[square, rank] * np.array(values, dtype=object)
        tensors[Kind(rank)] = np.asarray(embedding(rank).astype(object) @ total, dtype=object)
    return [
        Fraction(np.asarray(contract(graph, tensors), dtype=object).item())
        for graph in derive("flexible", body_order, max_rank).graphs
    ]


def homogeneous(exponents: tuple[int, int, int], r: list[int], square: int) -> Fraction:
    """The projection with `|r|²` put back wherever a trace was taken."""
    total = Fraction(0)
    for (a, b, c), factor in projection(exponents).items():
        taken = (sum(exponents) - a - b - c) // 2
        total += factor * square**taken * r[0] ** a * r[1] ** b * r[2] ** c
    return total


@pytest.mark.skipif(DATA is None, reason="set TENSORGRAPH_DATA to the folder that holds degenerate/pairs.xyz")
@pytest.mark.parametrize(("pair", "differ_from"), [("2body", 3), ("3body", 4)])
@pytest.mark.parametrize("max_rank", [2, 3])
def test_degenerate_pairs_differ_exactly_from_their_body_order_on(pair, differ_from, max_rank):
    """Equal below for all of ten random radial weights, different at and above for each, over the rationals."""
    first, second = environments(pair)
    for body_order in range(2, 6):
        same = [
            exact_invariants(first, body_order, max_rank, seed) == exact_invariants(second, body_order, max_rank, seed)
            for seed in range(10)
        ]
        assert all(same) if body_order < differ_from else not any(same), body_order
