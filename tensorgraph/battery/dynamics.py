"""The drift of the total energy in dynamics at constant energy, the sum of all faults that a simulation would meet."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.data import covalent_radii
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from tensorgraph.battery.bounds import judged
from tensorgraph.battery.check import Check
from tensorgraph.battery.predictions import Floats, predictions
from tensorgraph.battery.structures import SEED, water_cluster
from tensorgraph.battery.subject import Subject
from tensorgraph.model.derivatives import hessian

MOLECULES = 2  # of water
STEPS = 1000
TIMESTEP = 0.5  # fs
STIFFEST = 0.42  # ω Δt of the stiffest vibration: that of H₂ at 0.5 fs; of O–H in water it is 0.35
TEMPERATURE = 10.0  # K of the velocities in the beginning: random landscapes have shallow minima
RELAXATION = 250  # steps at most, each of at most `STRETCH`
STRETCH = 0.05  # Å
FORCE = 0.005  # eV/Å, where relaxation ends
CORE = 0.7  # of the sum of two covalent radii: where the repulsion of a pair is 1 eV


class SubjectCalculator(Calculator):
    """A subject for ASE's dynamics: energies and forces from a list of pairs made anew at every step.

    To its energy that of a repulsion is added, (r₀ / r)¹² eV for all pairs of the cluster: random weights may attract
    without bound, and atoms that meet say nothing of a drift. At the length of a bond it is 0.014 eV.
    """

    # ASE declares both on the instance, which a ClassVar would contradict.
    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Energy (eV) and forces (eV/Å) of `atoms`."""
        super().calculate(atoms, properties, system_changes)
        assert isinstance(self.atoms, Atoms)
        (one,) = predictions(self.subject, [self.atoms])
        energy, forces = repulsion(self.atoms)
        self.results = {"energy": one.energy + energy, "forces": one.forces + forces}


def repulsion(atoms: Atoms) -> tuple[float, Floats]:
    """The energy (eV) and the forces (eV/Å) of (r₀ / r)¹², with r₀ a fixed part of the sum of covalent radii."""
    radii = CORE * covalent_radii[atoms.numbers]
    i, j = np.triu_indices(len(atoms), 1)
    vectors = atoms.positions[j] - atoms.positions[i]
    squares = (vectors**2).sum(axis=1)
    energies = ((radii[i] + radii[j]) ** 2 / squares) ** 6
    slopes = (12 * energies / squares)[:, None] * vectors
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, j, slopes)
    np.add.at(forces, i, -slopes)
    return float(energies.sum()), forces


def check_drift(subject: Subject) -> Check:
    """The energy of two water molecules (or of a molecule of the model's species) does not drift over 1,000 steps of
    0.5 fs by velocity Verlet.

    Any weights may pass, random ones too: a repulsion keeps atoms apart, and the cluster is relaxed first and starts at
    10 K, so that it vibrates about a minimum instead of falling through a random landscape; where that is stiffer than
    any molecule, steps are shorter.

    The integrator does not conserve E but E + Δt² (v·∇²V·v / 12 − Σ F²/m / 24) to the fourth order (Engle, Skeel and
    Drees, J. Comput. Phys. 206, 432, 2005). The drift is the slope of a linear fit of that energy, under a Hann window,
    so that neither bounded oscillations nor their slow modulation pass for a drift.
    """
    atoms = water_cluster(subject.species, subject.cutoff, MOLECULES)
    atoms.calc = SubjectCalculator(subject)
    BFGS(atoms, logfile=None, maxstep=STRETCH).run(fmax=FORCE, steps=RELAXATION)
    timestep = min(TIMESTEP, STIFFEST / max(stiffest(subject, atoms), 1e-3))
    found = abs(drift(constant_energy(atoms, STEPS, timestep), timestep)) / len(atoms)
    return judged(subject, "drift of the energy", {f"{atoms.symbols}, {STEPS} steps of {timestep:.2f} fs": found})


def stiffest(subject: Subject, atoms: Atoms) -> float:
    """The largest angular frequency of a vibration, in 1/fs."""
    matrix = hessian(subject.model, subject.batch([atoms])).detach().cpu().numpy().astype(np.float64)
    matrix += _slopes_of_repulsion(atoms)
    masses = np.repeat(atoms.get_masses(), 3)
    squares = np.linalg.eigvalsh((matrix + matrix.T) / (2 * np.sqrt(np.outer(masses, masses))))
    return float(np.sqrt(np.abs(squares).max()) * units.fs)


def _slopes_of_repulsion(atoms: Atoms, step: float = 1e-4) -> Floats:
    """The second derivatives (eV/Å²) of the repulsion, by central differences."""
    columns = []
    for k in range(3 * len(atoms)):
        moved = [atoms.copy(), atoms.copy()]
        for sign, one in zip((1, -1), moved, strict=True):
            one.positions.flat[k] += sign * step
        plus, minus = (repulsion(one)[1].ravel() for one in moved)
        columns.append((minus - plus) / (2 * step))
    return np.array(columns)


def constant_energy(atoms: Atoms, steps: int, timestep: float = TIMESTEP) -> Floats:
    """The energies [steps − 1] in eV, of second order corrected, of dynamics that start from here at `TEMPERATURE`."""
    masses = atoms.get_masses()[:, None]
    velocities = np.sqrt(units.kB * TEMPERATURE / masses) * np.random.default_rng(SEED).normal(size=(len(atoms), 3))
    atoms.set_velocities(velocities - (masses * velocities).sum(axis=0) / masses.sum())
    energies, speeds, forces = [], [], []
    step = timestep * units.fs
    dynamics = VelocityVerlet(atoms, timestep=step)
    for _ in dynamics.irun(steps):
        energies.append(float(atoms.get_total_energy()))
        speeds.append(atoms.get_velocities())
        forces.append(atoms.get_forces())
    v, f = np.array(speeds), np.array(forces)
    curvature = -(v[1:-1] * (f[2:] - f[:-2])).sum(axis=(1, 2)) / (2 * step)
    acceleration = (f[1:-1] ** 2 / masses).sum(axis=(1, 2))
    corrected: Floats = np.array(energies[1:-1]) + step**2 * (curvature / 12 - acceleration / 24)
    return corrected


def drift(energies: Floats, timestep: float = TIMESTEP) -> float:
    """The slope in eV/ps of energies `timestep` (fs) apart, by a linear fit under a Hann window."""
    times = 1e-3 * timestep * np.arange(len(energies))
    # polyfit weighs residuals, whose squares the window weighs.
    slope, _ = np.polyfit(times, energies - energies.mean(), 1, w=np.sqrt(np.hanning(len(energies))))
    return float(slope)
