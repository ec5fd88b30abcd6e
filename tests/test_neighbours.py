"""Pairs of atoms in thousands of random shapes, against a sum over images in extended precision."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import write

from tensorgraph.errors import StructureError
from tensorgraph.model.batch import batch_structures
from tensorgraph.neighbours.lists import neighbour_pairs, neighbour_tensors
from tests.helpers import crystal, molecule

Random = np.random.Generator
EVERY_PBC = list(itertools.product((False, True), repeat=3))
COINCIDENT = 1e-3


def duals(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, 3] of which `vectors[k] @ duals[k]` is 1 and other products are 0, for 0 to 3 vectors [n, 3]."""
    if len(vectors) == 3:
        crossed = np.array([np.cross(vectors[k - 2], vectors[k - 1]) for k in range(3)])
        return crossed / (vectors[0] * crossed[0]).sum()
    if len(vectors) == 2:
        normal = np.cross(*vectors)
        return np.array([np.cross(vectors[1], normal), np.cross(normal, vectors[0])]) / np.square(normal).sum()
    return vectors / np.square(vectors).sum()


class Oracle:
    """Every image of every atom that can be within the cutoff (Å) of an atom, in extended precision."""

    def __init__(self, atoms: Atoms, cutoff: float) -> None:
        positions = atoms.positions.astype(np.longdouble)
        self.vectors = atoms.cell.array.astype(np.longdouble)[atoms.pbc]
        self.duals = duals(self.vectors)
        self.first, self.second = (x.ravel() for x in np.indices((len(atoms), len(atoms))))
        self.apart = positions[self.second] - positions[self.first]
        nearest = self.images(self.apart, 0 * self.apart)
        reach = np.ceil(cutoff * np.sqrt(np.square(self.duals).sum(axis=1))).astype(int) + 1
        steps = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))), dtype=np.int64)
        numbers = nearest[:, None] + steps.reshape(1, len(steps), len(reach))
        displacements = self.apart[:, None] + (numbers[..., None] * self.vectors).sum(axis=2)
        distances = np.sqrt(np.square(displacements).sum(axis=2))
        itself = (self.first == self.second)[:, None] & ~numbers.any(axis=2)
        # What float64 cannot tell may be listed or not.
        largest = max(np.abs(positions).max(initial=0), np.abs(self.vectors).max(initial=0), cutoff)
        self.rounding = 16 * np.finfo(np.float64).eps * float(largest)
        self.closest = float(np.where(itself, np.inf, distances).min(initial=np.inf))
        self.certain = self.listed(numbers, (distances < cutoff - self.rounding) & ~itself)
        self.possible = self.listed(numbers, (distances <= cutoff + self.rounding) & ~itself)

    def images(self, apart: np.ndarray, displacements: np.ndarray) -> np.ndarray:
        """The whole numbers [n, n_periodic] of cell vectors that make `displacements` out of `apart`, both [n, 3]."""
        return np.rint(((displacements - apart)[:, None] * self.duals).sum(axis=2)).astype(np.int64)

    def listed(self, numbers: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        pair, image = np.nonzero(chosen)
        return np.column_stack([self.first[pair], self.second[pair], numbers[pair, image]])


def check(atoms: Atoms, cutoff: float) -> int:
    """Compare with the oracle: which pairs, displacements to rounding, and the order. The number of pairs."""
    oracle = Oracle(atoms, cutoff)
    if oracle.closest < min(COINCIDENT, cutoff) - oracle.rounding:
        with pytest.raises(StructureError, match="coincide"):
            neighbour_pairs(atoms, cutoff)
        return 0
    pairs, displacements = neighbour_pairs(atoms, cutoff)
    assert (pairs.dtype, displacements.dtype, displacements.shape) == (np.int64, np.float64, (pairs.shape[1], 3))
    apart = oracle.apart[pairs[0] * len(atoms) + pairs[1]]
    images = oracle.images(apart, displacements.astype(np.longdouble))
    rows = np.column_stack([*pairs, images])
    exact = apart + (images[..., None] * oracle.vectors).sum(axis=1)
    assert np.abs(displacements - exact).max(initial=0) <= oracle.rounding
    listed, certain, possible = (set(map(tuple, x.tolist())) for x in (rows, oracle.certain, oracle.possible))
    assert len(listed) == len(rows)
    assert certain <= listed <= possible
    assert rows.tolist() == sorted(rows.tolist())
    return len(rows)


def magnitude(random: Random, low: float, high: float, size: int | None = None) -> np.ndarray:
    """Lengths (Å) of any magnitude between two."""
    return np.exp(random.uniform(np.log(low), np.log(high), size))


def turned(random: Random, vectors: np.ndarray) -> np.ndarray:
    """Vectors in another order, in random directions, right- or left-handed."""
    return random.permutation(vectors) @ np.linalg.qr(random.normal(size=(3, 3)))[0]


def clusters(random: Random, cell: np.ndarray, n_atoms: int, size: float = 6.0) -> np.ndarray:
    """Positions [n_atoms, 3] in a few places in or near the cell."""
    places = random.uniform(-0.2, 1.2, (random.integers(1, 4), 3)) @ cell
    return random.choice(places, n_atoms) + random.uniform(-size, size, (n_atoms, 3))


def placed(random: Random, cell: np.ndarray, n_atoms: int) -> Atoms:
    return Atoms(f"C{n_atoms}", clusters(random, cell, n_atoms), cell=cell, pbc=EVERY_PBC[random.integers(8)])


def needle(random: Random) -> Atoms:
    return placed(random, turned(random, np.diag([random.uniform(2, 6), *magnitude(random, 300, 1e6, 2)])), 8)


def sheet(random: Random) -> Atoms:
    return placed(random, turned(random, np.diag([*random.uniform(2, 8, 2), magnitude(random, 300, 1e7)])), 8)


def thin_cluster(random: Random) -> Atoms:
    """Along a line or in a plane, as far as it goes."""
    extents = np.array([magnitude(random, 10, 1e9), random.choice([0, 1, magnitude(random, 10, 1e6)]), 0])
    places = random.uniform(0, 1, (4, 3)) * extents
    offsets = random.uniform(-3, 3, (8, 3)) * (extents > 0)
    return Atoms("C8", (random.choice(places, 8) + offsets) @ turned(random, np.eye(3)))


def dust(random: Random) -> Atoms:
    cell = turned(random, np.diag(magnitude(random, 20, 1e11, 3)))
    return Atoms("C6", random.uniform(-1, 2, (6, 3)) @ cell, cell=cell, pbc=EVERY_PBC[random.integers(8)])


def runaway(random: Random) -> Atoms:
    atoms = placed(random, turned(random, np.diag(random.uniform(4, 12, 3))), 8)
    atoms.positions[random.integers(8)] += random.normal(size=3) * magnitude(random, 100, 1e11)
    return atoms


def tiny_cell(random: Random) -> Atoms:
    return placed(random, turned(random, np.diag(random.uniform(0.7, 2, 3))), random.integers(1, 3))


def huge_cell(random: Random) -> Atoms:
    return placed(random, turned(random, np.diag(magnitude(random, 1e3, 1e11, 3))), 8)


def skewed(random: Random) -> Atoms:
    """Its faces may be close to each other where the lattice has other vectors that are short and far from parallel."""
    steps = np.eye(3) + np.triu(random.integers(-2, 3, (3, 3)), 1)
    steps[0, 2] += random.choice([-50, -20, 0, 20, 50])
    return placed(random, turned(random, steps @ np.diag(random.uniform(2, 5, 3))), 3)


def far_outside(random: Random) -> Atoms:
    atoms = placed(random, turned(random, np.diag(random.uniform(3, 9, 3))), 6)
    atoms.positions += random.integers(-9, 10, (6, 3)) * magnitude(random, 1, 1e10) @ atoms.cell.array
    return atoms


def repeated_atoms(random: Random) -> Atoms:
    """Atoms that stand where others, or images of them, do; an error."""
    atoms = placed(random, turned(random, np.diag(magnitude(random, 3, 300, 3))), 5)
    atoms.pbc[random.integers(3)] = True
    return atoms + Atoms("C", atoms.positions[:1] + random.integers(-3, 4, 3) * atoms.pbc @ atoms.cell.array)


def mixture(random: Random) -> Atoms:
    cell = np.diag(magnitude(random, 1.5, 1e4, 3)) @ (np.eye(3) + random.uniform(-0.4, 0.4, (3, 3)))
    return placed(random, turned(random, cell), random.integers(1, 9))


def filled(random: Random) -> Atoms:
    """A box full of atoms, as simulations have them."""
    cell = turned(random, np.diag(random.uniform(4, 14, 3)) + random.uniform(-1, 1, (3, 3)))
    return Atoms("C40", random.uniform(-0.1, 1.1, (40, 3)) @ cell, cell=cell, pbc=EVERY_PBC[random.integers(8)])


FAMILIES: dict[str, tuple[Callable[[Random], Atoms], int]] = {
    function.__name__: (function, n_shapes)
    for function, n_shapes in [
        (needle, 300), (sheet, 300), (thin_cluster, 200), (dust, 200), (runaway, 250), (tiny_cell, 100),
        (huge_cell, 250), (skewed, 200), (far_outside, 250), (repeated_atoms, 100), (mixture, 300), (filled, 60),
    ]
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_random_shapes_have_the_pairs_of_a_sum_over_images(family: str) -> None:
    function, n_shapes = FAMILIES[family]
    n_pairs = 0
    for seed in range(n_shapes):
        random = np.random.default_rng([seed, len(family)])
        atoms, cutoff = function(random), float(random.choice([0.9, 3.0, 5.0]))
        try:
            n_pairs += check(atoms, cutoff)
        except BaseException as error:
            error.add_note(f"{family}, seed {seed}: cutoff {cutoff}, {atoms.pbc}, {atoms.cell.array.tolist()}")
            raise
    assert (n_pairs > n_shapes) == (family not in ("dust", "repeated_atoms"))


PROGRAM = """
import resource, sys
from io import StringIO
from ase.io import read
from tensorgraph.neighbours.lists import neighbour_pairs
shapes = read(StringIO(sys.stdin.read()), ":", format="extxyz")
for atoms in shapes:
    print(len(neighbour_pairs(atoms, 5.0)[0][0]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
"""


def test_long_thin_cells_do_not_stop_the_process_nor_fill_its_memory() -> None:
    """In a process of its own: one died by dividing by a number of cells that its grid had scaled down to 0."""
    cells = [(4, 1600, 1600), (1600, 4, 1600), (4, 4, 1e9), (1e12, 4, 1e12)]
    shapes = [Atoms("C", cell=cell, pbc=True) for cell in cells] + [lattice(5.0), *(make() for make in SPARSE.values())]
    file = io.StringIO()
    write(file, shapes, format="extxyz", columns=["symbols", "positions"])
    run = subprocess.run([sys.executable, "-c", PROGRAM], input=file.getvalue(), capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    counts, memory = np.array([line.split() for line in run.stdout.splitlines()], dtype=int).T
    assert counts.tolist() == [2, 2, 4, 2, 5400, 0, 0, 5394, 5790]
    assert memory[-1] - memory[4] < 20_000  # kB, beyond what the atoms take where they are close


@pytest.mark.parametrize("skew", [10, 1000, 10**6])
@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 0, 1)])
def test_skewed_cells_have_the_pairs_of_their_lattice(skew: int, pbc: tuple) -> None:
    atoms = Atoms("C4", np.random.default_rng(skew).uniform(0, 4, (4, 3)), cell=[3.0, 3.5, 4.0], pbc=pbc)
    other = atoms.copy()
    other.cell[2] += skew * other.cell[0]
    listed = []
    for structure in (atoms, other):
        pairs, displacements = neighbour_pairs(structure, 5.0)
        listed.append(sorted(zip(*pairs.tolist(), np.round(displacements, 6).tolist(), strict=True)))
    assert [row[:2] for row in listed[0]] == [row[:2] for row in listed[1]]
    vectors = [[row[2] for row in rows] for rows in listed]
    np.testing.assert_allclose(*vectors, rtol=0, atol=3e-6)


@pytest.mark.parametrize("pbc", EVERY_PBC)
@pytest.mark.parametrize("empty", [0.0, 1e3, 1e9])
def test_atoms_exactly_at_the_cutoff_are_pairs(pbc: tuple, empty: float) -> None:
    """Whole numbers are exact, so that (3, 4, 0) is at 5 and (4, 3, 1) is not, nor is anything at a bit less than 5."""
    grid = np.array(list(itertools.product(range(6), repeat=3)), dtype=float)
    atoms = Atoms("C216", grid, cell=np.diag([6.0, 6.0, 6.0 + empty]), pbc=pbc)
    full = np.array(pbc) & [True, True, not empty]  # directions along which the atoms go on
    steps = np.array(list(itertools.product(range(-5, 6), repeat=3)))
    numbers = np.where(full, 6, 6 - np.abs(steps)).prod(axis=1)
    squares = np.square(steps).sum(axis=1)
    for cutoff, largest in ((5.0, 25), (np.nextafter(5.0, 0), 24)):
        pairs, displacements = neighbour_pairs(atoms, cutoff)
        assert pairs.shape == (2, numbers[(squares > 0) & (squares <= largest)].sum())
        assert np.square(displacements).sum(axis=1).max() == largest


@pytest.mark.parametrize("pbc", EVERY_PBC)
@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.diag([4.0, 1e9, 7.0])])
def test_structures_without_atoms_have_no_pairs(pbc: tuple, cell: np.ndarray) -> None:
    atoms = Atoms(cell=cell, pbc=pbc)
    if any(pbc) and not cell.any():
        with pytest.raises(StructureError, match="singular"):
            neighbour_pairs(atoms, 5.0)
        return
    pairs, displacements = neighbour_pairs(atoms, 5.0)
    assert (pairs.shape, displacements.shape, pairs.dtype) == ((2, 0), (0, 3), np.int64)


BAD_CELLS = {
    "zero": np.zeros((3, 3)),
    "one vector zero": np.diag([4.0, 0, 4.0]),
    "parallel": np.array([[4.0, 0, 0], [8.0, 0, 0], [0, 0, 4.0]]),
    "coplanar": np.array([[4.0, 0, 0], [0, 4.0, 0], [1.3, 2.7, 0]]),
    "coplanar by rounding": np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]) * 1e3,
    "thin": np.array([[4.0, 0, 0], [4.0, 0.05, 0], [0, 0, 4.0]]),
    "thin and long": np.array([[1e11, 0, 0], [1e11, 0.05, 0], [0, 0, 4.0]]),
    "nan": np.diag([4.0, np.nan, 4.0]),
    "infinite": np.diag([4.0, np.inf, 4.0]),
    "too long": np.diag([4.0, 2e12, 4.0]),
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_cells_that_are_none_are_refused(name: str) -> None:
    atoms = Atoms("CO", [(0, 0, 0), (1, 1, 1)], cell=BAD_CELLS[name], pbc=True)
    with pytest.raises(
        StructureError, match=r"^the cell (is singular|has periodic vectors that are (not finite|beyond))"
    ):
        neighbour_pairs(atoms, 5.0)
    atoms.pbc = False
    assert neighbour_pairs(atoms, 5.0)[0].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("cutoff", [0, -1, -0.0, np.nan, np.inf, -np.inf, 2e12, 10**400, "5", None, True, [5.0], 5j])
def test_cutoffs_that_are_none_are_refused(cutoff: object) -> None:
    atoms, message = molecule(3, 1), r"^the cutoff must be a number above 0 and up to 1e\+12 Å, not "
    tensors = torch.tensor(atoms.positions), torch.eye(3).double(), (False,) * 3
    for call in (neighbour_pairs, batch_structures):
        with pytest.raises(ValueError, match=message):
            call(atoms, cutoff)
    with pytest.raises(ValueError, match=message):
        neighbour_tensors(*tensors, cutoff)


def test_lists_without_end_are_refused() -> None:
    for atoms, cutoff in ((molecule(3, 1), 1e12), (Atoms("C", cell=[1e12] * 3, pbc=True), 1e12)):
        assert neighbour_pairs(atoms, cutoff)[0].shape[1] == 6
    for atoms, cutoff in ((bulk("Au"), 1e3), (Atoms("C", cell=[0.2] * 3, pbc=True), 1e12)):
        with pytest.raises(StructureError, match=r"^about .* pairs of atoms, with periodic images, are within .* Å"):
            neighbour_pairs(atoms, cutoff)


def shapes_for_gradients() -> list[Atoms]:
    """Of both searches, with skewed cells, and with atoms far outside their cell."""
    outside = crystal(7, n_atoms=3)
    outside.positions += np.array([(3, -2, 1), (0, 5, 0), (-1, 0, 0)]) @ outside.cell.array
    long = crystal(8, (True, True, False), n_atoms=3)
    long.cell[1] *= 4000
    skewed_cell = crystal(9, (True, True, True))
    skewed_cell.cell[2] += 7 * skewed_cell.cell[0]
    return [outside, long, skewed_cell, crystal(10, (False, True, False), n_atoms=3), molecule(4, 3)]


@pytest.mark.parametrize("atoms", shapes_for_gradients(), ids=["outside", "long", "skewed", "wire", "molecule"])
def test_gradients_agree_with_finite_differences(atoms: Atoms) -> None:
    positions, cell = (torch.tensor(np.array(x), requires_grad=True) for x in (atoms.positions, atoms.cell))
    weights = torch.cos(torch.arange(3 * len(neighbour_pairs(atoms, 3.0)[1])).double()).reshape(-1, 3)
    assert len(weights)

    def total(positions: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        displacements = neighbour_tensors(positions, cell, atoms.pbc, 3.0)[1]
        return (weights * displacements.sin()).sum()

    gradients = torch.autograd.grad(total(positions, cell), (positions, cell))
    for values, gradient in zip((positions, cell), gradients, strict=True):
        for place in np.ndindex(*values.shape):
            step = torch.zeros_like(values)
            step[place] = 1e-5
            ends = [[x + sign * step if x is values else x for x in (positions, cell)] for sign in (1, -1)]
            slope = (total(*ends[0]) - total(*ends[1])) / 2e-5
            assert float(slope.detach()) == pytest.approx(float(gradient[place]), abs=1e-6)


def lattice(spacing: float, periodic: bool = False) -> Atoms:
    grid = np.array(list(itertools.product(range(10), repeat=3))) * spacing
    return Atoms("C1000", grid, cell=[10 * spacing] * 3, pbc=periodic)


def with_runaway(atoms: Atoms) -> Atoms:
    atoms.positions[0] -= (1e9, 2e9, -3e9)
    return atoms


SPARSE = {
    "spread": lambda: lattice(5e6),
    "spread and periodic": lambda: lattice(5e6, periodic=True),
    "one runaway": lambda: with_runaway(lattice(5.0)),
    "one runaway in a slab": lambda: with_runaway(Atoms(lattice(5.0), pbc=(True, True, False))),
}


def best_time(atoms: Atoms) -> float:
    times = []
    for _ in range(7):
        started = time.perf_counter()
        neighbour_pairs(atoms, 6.0)
        times.append(time.perf_counter() - started)
    return min(times)


@pytest.mark.parametrize("name", SPARSE)
def test_empty_space_costs_no_time(name: str) -> None:
    assert best_time(SPARSE[name]()) < 5 * best_time(lattice(5.0))
