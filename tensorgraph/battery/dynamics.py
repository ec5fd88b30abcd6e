"""The drift of the total energy in dynamics at constant energy, the sum of all faults that a simulation would meet."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from tensorgraph.battery.bounds import judged
from tensorgraph.battery.check import Check
from tensorgraph.battery.predictions import Floats, predictions
from tensorgraph.battery.structures import SEED, water_cluster
from tensorgraph.battery.subject import Subject

STEPS = 1000
TIMESTEP = 0.5  # fs
TEMPERATURE = 60.0  # K of the velocities in the beginning
RELAXATION = 60  # steps at most, each of at most `STRETCH`
STRETCH = 0.05  # Å
FORCE = 0.05  # eV/Å, where relaxation ends


class SubjectCalculator(Calculator):
    """A subject for ASE's dynamics: energies and forces from a list of pairs made anew at every step."""

    # ASE declares both on the instance, which a ClassVar would contradict.
    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes
    ) -> None:
        """Energy (eV) and forces (eV/Å) of `atoms`."""
        super().calculate(atoms, properties, system_changes)
        (one,) = predictions(self.subject, [self.atoms])
        self.results = {"energy": one.energy, "forces": one.forces}


def check_drift(subject: Subject) -> Check:
    """The total energy of two water molecules (or of a molecule of the model's species) does not drift over 1,000
    steps of 0.5 fs by velocity Verlet.

    Any weights pass, random ones too: the cluster is relaxed first, for at most 3 Å, and starts at 60 K, so that it
    vibrates about a minimum instead of falling through a random landscape. The drift is the slope of a linear fit
    under a Hann window: the bounded oscillation of the integrator's energy, of order (ω Δt)², does not pass for one.
    """
    atoms = water_cluster(subject.species, subject.cutoff)
    atoms.calc = SubjectCalculator(subject)
    BFGS(atoms, logfile=None, maxstep=STRETCH).run(fmax=FORCE, steps=RELAXATION)
    energies = constant_energy(atoms)
    return judged(subject, "drift of the energy", {_formula(atoms): abs(drift(energies)) / len(atoms)})


def constant_energy(atoms: Atoms, steps: int | None = None) -> Floats:
    """The total energies [steps + 1] in eV of dynamics that start from here at `TEMPERATURE`."""
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=np.random.default_rng(SEED))
    Stationary(atoms)
    energies: list[float] = []
    dynamics = VelocityVerlet(atoms, timestep=TIMESTEP * units.fs)
    dynamics.attach(lambda: energies.append(float(atoms.get_total_energy())))
    dynamics.run(STEPS if steps is None else steps)
    return np.array(energies)


def drift(energies: Floats) -> float:
    """The slope in eV/ps of energies `TIMESTEP` apart, by a linear fit under a Hann window."""
    times = 1e-3 * TIMESTEP * np.arange(len(energies))
    # polyfit weighs residuals, whose squares the window weighs.
    slope, _ = np.polyfit(times, energies - energies.mean(), 1, w=np.sqrt(np.hanning(len(energies))))
    return float(slope)


def _formula(atoms: Atoms) -> str:
    return f"{atoms.get_chemical_formula()}, {STEPS} steps of {TIMESTEP} fs"
