"""Models that are broken for one purpose each: what the battery must reject.

They wrap a right model and answer as it does, so that a check which rejects one rejects that fault alone. Each is named
by the row of the battery's table that must fail on it; `docs/verify.md` shows the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

from tensorgraph.battery import Subject
from tensorgraph.battery.bounds import BOUNDS
from tensorgraph.model.batch import Batch


@dataclass(frozen=True)
class Given:
    """What a model was called with; `cutoff` is the model's, in Å."""

    numbers: Tensor
    pairs: Tensor
    displacements: Tensor
    structure: Tensor
    n_structures: int
    cutoff: float

    @property
    def distances(self) -> Tensor:
        return torch.linalg.vector_norm(self.displacements, dim=1)

    @property
    def smooth(self) -> Tensor:
        """A cutoff function with three continuous derivatives, for terms whose fault is another one."""
        return (1 - (self.distances / self.cutoff).square()).clamp(min=0) ** 4

    def of_atoms(self, of_pairs: Tensor) -> Tensor:
        """Sums over the pairs of each central atom."""
        return of_pairs.new_zeros((len(self.numbers), *of_pairs.shape[1:])).index_add(0, self.pairs[0], of_pairs)

    def of_structures(self, of_atoms: Tensor) -> Tensor:
        return of_atoms.new_zeros((self.n_structures, *of_atoms.shape[1:])).index_add(0, self.structure, of_atoms)

    @property
    def sizes(self) -> Tensor:
        """Of each atom's structure, the number of atoms."""
        return torch.bincount(self.structure, minlength=self.n_structures)[self.structure].to(self.displacements)


Change = Callable[[Any, Given], dict[str, Tensor]]
Term = Callable[[Given], Tensor]


class Wrapped:
    """A model whose results `change` replaces, by name."""

    def __init__(self, subject: Subject, change: Change) -> None:
        self.subject, self.change = subject, change

    @property
    def dtype(self) -> torch.dtype:
        return self.subject.dtype

    @property
    def species(self) -> Tensor:
        return self.subject.model.species

    def energy_and_forces(
        self,
        numbers: Tensor,
        pairs: Tensor,
        displacements: Tensor,
        structure: Tensor,
        n_structures: int,
        cutoff: float | None = None,
        *,
        create_graph: bool = False,
    ) -> Any:
        given = Given(numbers, pairs, displacements, structure, n_structures, self.subject.cutoff)
        found = self.subject.model.energy_and_forces(
            numbers, pairs, displacements, structure, n_structures, cutoff, create_graph=create_graph
        )
        return found._replace(**self.change(found, given))


def changed(change: Change) -> Callable[[Subject], Subject]:
    """Breaks a subject by other results."""
    return lambda subject: replace(subject, model=Wrapped(subject, change))


def added(term: Term) -> Callable[[Subject], Subject]:
    """Breaks a subject by an energy per atom, with the forces and virials that belong to it."""

    def change(found: Any, given: Given) -> dict[str, Tensor]:
        with torch.enable_grad():
            if not given.displacements.requires_grad:
                given = replace(given, displacements=given.displacements.clone().requires_grad_())
            energies = term(given)
            (slope,) = torch.autograd.grad(
                energies.sum(), given.displacements, create_graph=True, materialize_grads=True
            )
        outer = given.displacements.unsqueeze(2) * slope.unsqueeze(1)
        forces = given.of_atoms(slope).index_add(0, given.pairs[1], -slope)
        virial = given.of_structures(given.of_atoms(outer))
        return {
            "energies": found.energies + energies,
            "energy": found.energy + given.of_structures(energies),
            "forces": found.forces + forces,
            "virial": found.virial + (virial + virial.transpose(1, 2)) / 2,
        }

    return changed(change)


def _vector_z(given: Given) -> Tensor:
    """The environment's weight along z, squared: not invariant."""
    return 1e-8 * given.of_atoms(given.smooth * given.displacements[:, 2]).square()


def _chirality(given: Given) -> Tensor:
    """A triple product of three vectors of the environment: invariant under rotations, odd under reflections."""
    first, second, third = (
        given.of_atoms((given.smooth * torch.exp(-power * given.distances / 2)).unsqueeze(1) * given.displacements)
        for power in (0, 1, 2)
    )
    return 1e-6 * (torch.linalg.cross(first, second) * third).sum(dim=1)


def _curl(found: Any, given: Given, strength: float = 1e-6) -> dict[str, Tensor]:
    """Forces around the axis z: no gradient of any energy."""
    z = torch.zeros_like(given.displacements)
    z[:, 2] = 1
    around = strength * given.smooth.unsqueeze(1) * torch.linalg.cross(given.displacements, z)
    return {"forces": found.forces + given.of_atoms(around)}


def _wrong_second_derivatives(found: Any, _given: Given) -> dict[str, Tensor]:
    """Right forces, whose derivatives are 1e-4 too large."""
    return {"forces": found.forces + 1e-4 * (found.forces - found.forces.detach())}


def _virial_zz(found: Any, _given: Given) -> dict[str, Tensor]:
    virial = found.virial.clone()
    virial[:, 2, 2] *= 1 + 1e-5
    return {"virial": virial}


def _torque(found: Any, _given: Given) -> dict[str, Tensor]:
    turn = found.virial.new_tensor([[0, 1, 0], [-1, 0, 0], [0, 0, 0]])
    return {"virial": found.virial + 1e-6 * turn}


def _by_neighbours(found: Any, given: Given) -> dict[str, Tensor]:
    return {"energies": found.energies + 1e-9 * given.of_atoms((given.distances < given.cutoff).to(found.energies))}


def _by_index(found: Any, _given: Given) -> dict[str, Tensor]:
    weight = 1 + 1e-9 * torch.arange(len(found.energies)).to(found.energies)
    return {"energies": found.energies * weight, "forces": found.forces * weight.to(found.forces)[:, None]}


def _by_size(found: Any, given: Given) -> dict[str, Tensor]:
    energies = found.energies + 1e-8 * given.sizes
    forces = found.forces * (1 + 1e-8 * given.sizes)[:, None]
    return {"energies": energies, "energy": given.of_structures(energies), "forces": forces}


def _by_batch(found: Any, given: Given) -> dict[str, Tensor]:
    energies = found.energies + 1e-8 * found.energies.mean()
    return {"energies": energies, "energy": given.of_structures(energies)}


def _lonely(found: Any, given: Given) -> dict[str, Tensor]:
    """0/0 where there are no neighbours, made harmless the wrong way: a force that is left over."""
    alone = torch.bincount(given.pairs[0], minlength=len(given.numbers)) == 0
    return {"forces": found.forces + 1e-12 * alone[:, None]}


class Late:
    """A model with a memory: 1 % of the forces are those of the call before."""

    def __init__(self) -> None:
        self.before: Tensor | None = None

    def __call__(self, found: Any, _given: Given) -> dict[str, Tensor]:
        before, self.before = self.before, found.forces
        if before is None or before.shape != found.forces.shape:
            return {}
        return {"forces": 0.99 * found.forces + 0.01 * before}


def _pairwise(function: Callable[[Tensor], Tensor]) -> Callable[[Subject], Subject]:
    """An energy of every pair within the cutoff as a function of r/R_c."""

    def term(given: Given) -> Tensor:
        ratio = given.distances / given.cutoff
        return given.of_atoms(torch.where(ratio < 1, function(ratio.clamp(max=1 - 1e-15)), 0.0))

    return added(term)


@dataclass(frozen=True)
class RoundedSubject(Subject):
    """Takes differences of positions that were rounded to float32 before."""

    def batch(self, structures: Sequence[Atoms]) -> Batch:
        rounded = [atoms.copy() for atoms in structures]
        for atoms in rounded:
            atoms.positions = atoms.positions.astype("float32")
        return super().batch(rounded)


@dataclass(frozen=True)
class Broken:
    """A fault, in the words of the docs, and what has it."""

    what: str
    make: Callable[[Subject], Subject]


_BY_INDEX = Broken("results that depend on the index of an atom, 1e-9", changed(_by_index))
_BY_SIZE = Broken("energies and forces that depend on the number of atoms, 1e-8", changed(_by_size))
_CHIRAL = Broken("a triple product of three vectors of an environment", added(_chirality))
_ROUNDED = Broken("positions rounded to float32 before their differences", lambda s: RoundedSubject(s.package, s.model))
_SINGULAR = Broken("NaN at distances below 0.05 Å", added(lambda g: g.of_atoms((g.distances - 0.05).sqrt() * g.smooth)))

BROKEN: dict[str, tuple[Broken, ...]] = {
    "rotation: energies": (Broken("an energy that depends on the direction z", added(_vector_z)),),
    "rotation: forces and virials": (
        Broken(
            "a force along z, 1e-9 eV/Å", changed(lambda f, _: {"forces": f.forces + f.forces.new_tensor([0, 0, 1e-9])})
        ),
    ),
    "reflection: energies": (_CHIRAL,),
    "reflection: forces and virials": (_CHIRAL,),
    "translation: energies": (_ROUNDED,),
    "translation: forces and virials": (_ROUNDED,),
    "permutation: energies": (_BY_INDEX,),
    "permutation: forces and virials": (_BY_INDEX,),
    "choice of cell: energies": (_BY_SIZE,),
    "choice of cell: forces and virials": (_BY_SIZE,),
    "forces: slopes of the energy": (
        Broken("forces times 1 + 1e-6", changed(lambda f, _: {"forces": f.forces * (1 + 1e-6)})),
        Broken("forces with a curl", changed(_curl)),
    ),
    "Hessian: symmetry": (Broken("forces with a curl", changed(_curl)),),
    "Hessian: slopes of the forces": (Broken("second derivatives times 1 + 1e-4", changed(_wrong_second_derivatives)),),
    "virials: strain derivatives": (Broken("the virial along z times 1 + 1e-5", changed(_virial_zz)),),
    "virials: symmetry": (Broken("a torque: 1e-6 eV of an antisymmetric virial", changed(_torque)),),
    "cutoff: step of the energy": (
        Broken("a pair energy of 1e-8 eV up to the cutoff", _pairwise(lambda x: 1e-8 + 0 * x)),
    ),
    "cutoff: step of the force": (
        Broken("a pair energy that ends in a kink, 1e-5 eV·(1 − r/R_c)", _pairwise(lambda x: 1e-5 * (1 - x))),
        Broken("a force that ends like a square root", _pairwise(lambda x: 1e-2 * (1 - x) ** 1.5)),
    ),
    "cutoff: step of the force's slope": (
        Broken("a pair energy of 100 eV·(1 − r/R_c)²·(r/R_c)⁴⁰", _pairwise(lambda x: 100 * (1 - x) ** 2 * x**40)),
    ),
    "work of the force": (
        Broken("a step of 0.1 eV at 0.55 R_c", _pairwise(lambda x: 0.1 * (x < 0.55).to(x) + 0 * x)),
        Broken("forces times 1.1", changed(lambda f, _: {"forces": f.forces * 1.1})),
    ),
    "energies of atoms: their sum": (Broken("1e-9 eV for each neighbour, not in the energy", changed(_by_neighbours)),),
    "pairs beyond the cutoff": (
        Broken("a pair energy without a cutoff", added(lambda g: 1e-4 * g.of_atoms(torch.exp(-g.distances)))),
    ),
    "distant fragments": (_BY_SIZE,),
    "structures of a batch": (Broken("a shift by the mean energy of the batch, 1e-8", changed(_by_batch)),),
    "single atoms: forces and virials": (Broken("a force on atoms without neighbours, 1e-12 eV/Å", changed(_lonely)),),
    "single atoms: energies": (
        Broken("an energy that is not the sum over atoms", changed(lambda f, _: {"energy": f.energy * (1 + 1e-9)})),
    ),
    "dimers beyond the cutoff": (_BY_SIZE,),
    "close dimers": (_SINGULAR,),
    "drift of the energy": (
        Broken("forces that are late: 1 % of those of the step before", lambda s: changed(Late())(s)),
        Broken("forces with a curl, 1e-2 eV/Å²", changed(lambda f, g: _curl(f, g, 1e-2))),
    ),
}
"""By the row that must fail on it."""


def broken_invariants(package: Any) -> SimpleNamespace:
    """The package with one component of a tensor added to every invariant."""

    def invariants(features: Tensor) -> Tensor:
        return package.invariants(features) + 1e-6 * features[:, 1:2]

    return SimpleNamespace(
        invariants=invariants,
        tensor_components=package.tensor_components,
        architecture=package.architecture,
        __file__=package.__file__,
    )


def table() -> str:
    """The bounds and the faults, as the table of `docs/verify.md`."""
    lines = ["| check | float64 | float32 | unit | why | rejects |", "|---|---|---|---|---|---|"]
    faults = {"invariants: rotation and reflection": "a component of a tensor, 1e-6, in every invariant"}
    faults |= {row: "; ".join(broken.what for broken in all_) for row, all_ in BROKEN.items()}
    for row, bound in BOUNDS.items():
        numbers = f"{bound.float64:g} | {bound.float32:g} | {bound.unit or 'relative'}"
        lines.append(f"| {row} | {numbers} | {bound.why} | {faults[row]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
