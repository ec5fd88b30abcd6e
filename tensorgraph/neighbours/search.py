"""The search for close pairs of points under any mixture of periodic directions, in a time that knows no empty space.

vesin searches where points fill their box. Its grid covers the whole box with a bounded number of cells, so that a box
which is empty for the most part, or much longer one way than another, takes it long or stops the process. Those, and
points on a GPU, are searched here: in a grid of which only the occupied cells exist, with images as further points.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray
from torch import Tensor
from vesin import NeighborList

from tensorgraph.errors import StructureError

MOST_PAIRS = 100_000_000  # about 20 GB while they are made; a list this long is a mistake in the cutoff or the cell
MOST_CELLS = 90_000  # of vesin's grid, which coarsens at 100,000, down to none along a short direction
EMPTY_CELLS = (1000, 8)  # of vesin's grid, and this many more per atom: beyond, the other search is faster
SMALLEST_REACH = 1e-3  # Å; vesin refuses 1e-6
SKEWED = 1.5  # product of the lengths of lattice vectors over their volume; reduced ones have √2 at most
GAP = 1.001  # times the reach, between images of a structure along a direction that is not periodic
CHUNK = 1 << 20  # candidates that are compared at a time

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Listed = tuple[Tensor, Tensor]
"""Pairs [2, n] and shifts [n, 3], both int64: how many cell vectors to add to the second atom's position."""


def close_pairs(positions: Tensor, cell: Floats, periodic: Flags, reach: float) -> Listed:
    """All pairs of positions [n_atoms, 3] and images closer than `reach` (Å), in both directions, in no given order.

    Positions are float64 and inside the cell [3, 3] along periodic directions; along others, the cell has unit vectors
    orthogonal to each other and to the periodic ones. A pair further apart than `reach` may be listed too.

    Raises StructureError where about `MOST_PAIRS` or more would be found.
    """
    if not len(positions):
        return positions.new_zeros((2, 0), dtype=torch.int64), positions.new_zeros((0, 3), dtype=torch.int64)
    lattice, steps = reduced(cell, periodic)
    whole = None
    if steps is not None:
        whole = (positions @ _tensor(np.linalg.inv(lattice), positions)).floor()
        whole[:, _tensor(~periodic, positions)] = 0
        positions = positions - whole @ _tensor(lattice, positions)
    grid = _Grid(positions, lattice, periodic, reach)
    grid.check_number()
    pairs, shifts = grid.by_vesin() if grid.suits_vesin() else grid.by_occupied_cells()
    if steps is not None and whole is not None:
        whole = whole.to(torch.int64)
        moved = shifts - whole[pairs[1]] + whole[pairs[0]]
        shifts = (moved.unsqueeze(2) * _tensor(steps, pairs)).sum(dim=1)  # CUDA has no product of whole matrices
    return pairs, shifts


def _tensor(array: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)


def reduced(cell: Floats, periodic: Flags) -> tuple[Floats, NDArray[np.int64] | None]:
    """Lattice vectors that are short, and what they are in those of the cell [3, 3]; None where the cell's stay.

    The images within reach of a skewed cell are few among many that must be tried.
    """
    lengths = np.linalg.norm(cell, axis=1)
    if periodic.sum() < 2 or np.prod(lengths) <= SKEWED * abs(np.linalg.det(cell)):
        return cell, None
    try:
        _, steps = minkowski_reduce(cell, periodic)
    except RuntimeError:  # its tests are absolute and may fail by rounding; it is only a matter of speed
        return cell, None
    return np.array(steps @ cell, dtype=np.float64), np.array(steps, dtype=np.int64)


class _Grid:
    """The positions [n_atoms, 3] in the slanted coordinates of the lattice, in Å between opposite faces."""

    def __init__(self, positions: Tensor, lattice: Floats, periodic: Flags, reach: float) -> None:
        inverse = np.linalg.inv(lattice)
        self.positions, self.lattice, self.periodic, self.reach = positions, lattice, periodic, reach
        self.heights = 1 / np.linalg.norm(inverse, axis=0)
        self.coordinates = positions @ _tensor(inverse * self.heights, positions)
        self.low, self.high = (x.cpu().numpy() for x in torch.aminmax(self.coordinates, dim=0))
        self.extents = np.where(periodic, self.heights, self.high - self.low + GAP * reach)
        self.cells = np.maximum(1, np.trunc(self.extents / reach))

    def check_number(self) -> None:
        """Raise StructureError where about `MOST_PAIRS` or more would be found."""
        images = np.where(self.periodic, 2 * np.ceil(self.reach / self.heights) + 1, 1).prod()
        if len(self.positions) ** 2 * images <= MOST_PAIRS:
            return
        estimate = self.estimate()
        if estimate > MOST_PAIRS:
            raise StructureError(
                f"about {estimate:.1e} pairs of atoms, with periodic images, are within {self.reach:.6g} Å: "
                f"at most {MOST_PAIRS:.0e} are listed"
            )

    def estimate(self) -> float:
        """About how many pairs there are, if the atoms of every cell of the grid were spread evenly in it."""
        spread = self.periodic | (self.cells > 1)
        edges = self.extents / self.cells
        places = ((self.coordinates - _tensor(self.low, self.positions)) / _tensor(edges, self.positions)).floor()
        counts = torch.unique(places, dim=0, return_counts=True)[1].double()
        ball = (1.0, 2.0, math.pi, 4 / 3 * math.pi)[int(spread.sum())]
        parts = self.reach / edges[spread]
        slant = abs(np.linalg.det(self.lattice)) / self.heights.prod()
        return float(counts.square().sum()) * ball * float(parts.prod() / slant)

    def suits_vesin(self) -> bool:
        """Whether its grid has fewer cells than its bound, and few empty ones."""
        most = min(MOST_CELLS, EMPTY_CELLS[0] + EMPTY_CELLS[1] * len(self.positions))
        return not self.positions.is_cuda and self.reach >= SMALLEST_REACH and bool(self.cells.prod() <= most)

    def by_vesin(self) -> Listed:
        """Always in a periodic box, with a gap along other directions: vesin's mixtures are slow, or wrong in some."""
        lengths = np.where(self.periodic, 1.0, self.extents)
        start = np.where(self.periodic, 0.0, self.low) @ self.lattice  # of unit vectors
        points, box = self.positions.numpy() - start, self.lattice * lengths[:, None]
        finder = NeighborList(cutoff=self.reach, full_list=True, sorted=False)
        pairs, shifts = finder.compute(points, box, True, "PS", copy=False)
        return torch.from_numpy(pairs.T.astype(np.int64, order="C")), torch.from_numpy(shifts.astype(np.int64))

    def images(self) -> tuple[Tensor, Tensor]:
        """Atoms [n] and shifts [n, 3] of all images within reach of the slabs, along each direction, of all atoms."""
        atoms = torch.arange(len(self.positions), device=self.positions.device)
        shifts: list[Tensor] = []
        for axis in range(3):
            here = self.coordinates[atoms, axis]
            first, last = torch.zeros_like(atoms), torch.zeros_like(atoms)
            if self.periodic[axis]:
                height = float(self.heights[axis])
                first = ((float(self.low[axis]) - self.reach - here) / height).ceil().to(torch.int64)
                last = ((float(self.high[axis]) + self.reach - here) / height).floor().to(torch.int64)
            rows, shift = _ranges(first, last + 1)
            atoms, shifts = atoms[rows], [*(known[rows] for known in shifts), shift]
        return atoms, torch.stack(shifts, dim=1)

    def by_occupied_cells(self) -> Listed:
        atoms, shifts = self.images()
        points = self.positions[atoms] + shifts.double() @ _tensor(self.lattice, self.positions)
        centres = torch.nonzero((shifts == 0).all(dim=1)).flatten()  # in the order of the atoms
        order, rows, starts, ends = _neighbourhoods(points, centres, self.reach)
        middle = centres[rows]
        pairs, found = [atoms.new_zeros((2, 0))], [shifts[:0]]
        for part in _chunks(ends - starts):
            which, places = _ranges(starts[part], ends[part])
            first, second = middle[part].index_select(0, which), order.index_select(0, places)
            apart = points.index_select(0, second) - points.index_select(0, first)
            near = torch.nonzero((apart.square().sum(dim=1) <= self.reach**2) & (first != second)).flatten()
            first, second = first.index_select(0, near), second.index_select(0, near)
            pairs.append(torch.stack([atoms[first], atoms[second]]))
            found.append(shifts[second])
        return torch.cat(pairs, dim=1), torch.cat(found)


def _neighbourhoods(points: Tensor, centres: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An order of the points [n], and for each of 9 columns of cells around each centre a range in that order.

    The ranges are three vectors: the centre's row in `centres`, the start and the end. Together they hold every point
    that is within reach of the centre.
    """
    x, y, z = (_closed_up((values / reach).floor().to(torch.int64)) for values in points.unbind(1))
    width, depth = int(y.max()) + 2, int(z.max()) + 2
    columns, column = torch.unique(x * width + y, return_inverse=True)
    keys, order = torch.sort(column * depth + z)
    around = torch.arange(-1, 2, device=points.device)
    beside = (around[:, None] * width + around).reshape(-1)
    wanted = ((x * width + y)[centres, None] + beside).reshape(-1)
    place = torch.searchsorted(columns, wanted).clamp(max=len(columns) - 1)
    there = torch.nonzero(columns[place] == wanted).flatten()
    rows = there // len(beside)
    middle = place[there] * depth + z[centres[rows]]
    return order, rows, torch.searchsorted(keys, middle - 1), torch.searchsorted(keys, middle + 1, right=True)


def _closed_up(numbers: Tensor) -> Tensor:
    """Numbers [n] of cells, from 1, with every run of empty ones narrowed to one."""
    values, inverse = torch.unique(numbers, return_inverse=True)
    return (torch.diff(values, prepend=values[:1] - 1).clamp(max=2).cumsum(0))[inverse]


def _ranges(starts: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Every number of every range [start, end), after the row of its range."""
    counts = (ends - starts).clamp(min=0)
    rows = torch.repeat_interleave(counts)
    return rows, torch.arange(len(rows), device=rows.device) + (starts - counts.cumsum(0) + counts)[rows]


def _chunks(counts: Tensor) -> list[slice]:
    """Slices of rows that have about `CHUNK` together."""
    total = counts.cumsum(0)
    n_chunks = int(total[-1]) // CHUNK + 1
    bounds = torch.searchsorted(total, torch.arange(1, n_chunks, device=total.device) * CHUNK, right=True)
    edges = [0, *bounds.tolist(), len(counts)]
    return [slice(start, end) for start, end in pairwise(edges) if end > start]
