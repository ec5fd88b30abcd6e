"""The structures that a potential is tried on: seeded, of its species, at distances that its atoms could have."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii
from numpy.typing import NDArray

from tensorgraph.neighbours.lists import neighbour_pairs

SEED = 11
PERIODIC = tuple((bool(k & 1), bool(k & 2), bool(k & 4)) for k in range(8))
"""Every combination of periodic directions."""


def structures(species: Sequence[int], cutoff: float, seed: int = SEED) -> dict[str, Atoms]:
    """By name: a dimer, molecules, a cluster, a wire, a slab, crystals smaller and larger than the cutoff (Å)."""
    return {kind: atoms.copy() for kind, atoms in _structures(tuple(species), cutoff, seed).items()}


@functools.lru_cache(maxsize=8)
def _structures(species: tuple[int, ...], cutoff: float, seed: int) -> dict[str, Atoms]:
    make = Maker(np.random.default_rng(seed), species, cutoff)
    return {
        "dimer": make.molecule(2),
        "molecule": make.molecule(5),
        "large molecule": make.molecule(9),
        "cluster": make.packed(6, PERIODIC[0], spread=1.8),
        "wire": make.packed(2, PERIODIC[4]),
        "slab": make.packed(3, PERIODIC[3]),
        "small crystal": make.packed(2, PERIODIC[7]),
        "large crystal": make.packed(8, PERIODIC[7], spread=1.8),
    }


class Maker:
    """Draws structures of atoms of `species` that bond within `cutoff` (Å)."""

    def __init__(self, random: np.random.Generator, species: Sequence[int], cutoff: float) -> None:
        self.random, self.species, self.cutoff = random, list(species), cutoff

    def bond(self, first: int, second: int) -> float:
        """The length of a bond (Å): the sum of covalent radii, and half the cutoff at most, so that atoms interact."""
        return min(float(covalent_radii[first] + covalent_radii[second]), self.cutoff / 2)

    def numbers(self, n_atoms: int) -> list[int]:
        """Random species; all of them in turn, so that few atoms have many species."""
        order = self.random.permutation(self.species)
        return [int(order[index % len(order)]) for index in range(n_atoms)]

    def molecule(self, n_atoms: int) -> Atoms:
        """Each atom is bonded to an earlier one, and further from all others."""
        numbers = self.numbers(n_atoms)
        positions = [np.zeros(3)]
        loosened = 1.0
        while len(positions) < n_atoms:
            number, base = numbers[len(positions)], int(self.random.integers(len(positions)))
            length = self.bond(number, numbers[base]) * self.random.uniform(1.0, 1.15)
            place = positions[base] + length * self.direction()
            others = [k for k in range(len(positions)) if k != base]
            if all(self._apart(place - positions[k], number, numbers[k], 1.35 * loosened) for k in others):
                positions.append(place)
            loosened *= 0.995  # so that a crowded molecule cannot go on for ever
        return Atoms(numbers, positions)

    def facing(self, n_atoms: int) -> tuple[Atoms, Atoms, NDArray[np.float64]]:
        """Two molecules and a direction from the first to the second, at the end of which each has its first atom, at
        the origin: moved apart along it, only these two come as close as they are moved apart."""
        left, right = self.molecule(n_atoms), self.molecule(n_atoms)
        axes = [self.direction() for _ in range(20)]
        depths = [(np.sort(left.positions @ -axis), np.sort(right.positions @ axis)) for axis in axes]
        axis = axes[int(np.argmax([min(a[1] - a[0], b[1] - b[0]) for a, b in depths]))]
        halves = []
        for half, sign in ((left, -1), (right, 1)):
            half = half[np.argsort(sign * (half.positions @ axis))]
            half.positions -= half.positions[0]
            halves.append(half)
        return halves[0], halves[1], axis

    def packed(self, n_atoms: int, pbc: tuple[bool, bool, bool], spread: float = 1.6) -> Atoms:
        """Atoms at random in a triclinic cell, at least a bond apart, images included, and some within the cutoff."""
        numbers = self.numbers(n_atoms)
        bonds = [self.bond(a, b) for a in numbers for b in numbers]
        length = spread * max(float(np.mean(bonds)), self.cutoff / 6)  # not thousands of images within a long cutoff
        edges = length * (n_atoms ** (1 / 3)) * self.random.uniform(0.9, 1.2, 3)
        cell = np.diag(edges) + 0.2 * length * self.random.uniform(-1, 1, (3, 3))
        longest = 1.0 + max(self.bond(a, b) for a in self.species for b in self.species)
        wanted = 1.0
        while True:
            atoms = Atoms(numbers, cell=cell, pbc=pbc, scaled_positions=self.random.uniform(0, 1, (n_atoms, 3)))
            (first, second), displacements = neighbour_pairs(atoms, longest)
            pairs = zip(displacements, atoms.numbers[first], atoms.numbers[second], strict=True)
            if all(self._apart(d, int(a), int(b), wanted) for d, a, b in pairs):
                clear = self._clear(atoms)
                if len(neighbour_pairs(clear, self.cutoff)[1]):  # without pairs it would test nothing
                    return clear
            wanted *= 0.99

    def lattice(self, n_atoms: int) -> Atoms:
        """A cluster of any size: near the sites of a cubic lattice, about as far apart as bonded atoms."""
        numbers = self.numbers(n_atoms)
        length = 2 * float(np.mean([covalent_radii[number] for number in self.species]))
        spacing = min(length, self.cutoff / 2)
        side = int(np.ceil(n_atoms ** (1 / 3)))
        sites = np.argwhere(np.ones((side, side, side)))[:n_atoms]
        return Atoms(numbers, spacing * (sites + self.random.uniform(-0.15, 0.15, sites.shape)))

    def _clear(self, atoms: Atoms) -> Atoms:
        """The structure scaled by a few per cent, so that no distance is close to the cutoff.

        The published cutoff function has a step in its second derivative: differences across it converge slowly.
        """
        _, displacements = neighbour_pairs(atoms, 1.1 * self.cutoff)
        distances = np.linalg.norm(displacements, axis=1)
        near = np.sort(np.append(distances[distances > 0.95 * self.cutoff], self.cutoff * np.array([0.95, 1.1])))
        widest = int(np.argmax(np.diff(near)))
        scale = self.cutoff / near[widest : widest + 2].mean()
        atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
        return atoms

    def direction(self) -> NDArray[np.float64]:
        """A random unit vector."""
        vector = self.random.normal(size=3)
        return np.asarray(vector / np.linalg.norm(vector), np.float64)

    def _apart(self, displacement: NDArray[np.float64], first: int, second: int, times: float) -> bool:
        return float(np.linalg.norm(displacement)) >= times * self.bond(first, second)


def rotation(random: np.random.Generator, dimension: int = 3) -> NDArray[np.float64]:
    """A random rotation [dimension, dimension], uniform over all of them."""
    turn, upper = np.linalg.qr(random.normal(size=(dimension, dimension)))
    turn = turn * np.sign(np.diag(upper))
    turn[:, 0] *= np.linalg.det(turn)
    return np.asarray(turn, np.float64)


def water_cluster(species: Sequence[int], cutoff: float, n_molecules: int = 2, seed: int = SEED) -> Atoms:
    """Water molecules 2.9 Å apart; a molecule of the species of a model that does not know water."""
    random = np.random.default_rng(seed)
    if not {1, 8} <= set(species):
        return Maker(random, species, cutoff).molecule(3 * n_molecules)
    cluster = Atoms()
    for index in range(n_molecules):
        water = molecule("H2O")
        water.euler_rotate(*random.uniform(0, 180, 3))
        water.translate(2.9 * np.array([index & 1, index >> 1 & 1, index >> 2]))
        cluster += water
    return cluster
