"""The base class of all models: checks, energies, forces and virials of atoms. Units: Å and eV."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from .geometry import Geometry
from .grouping import PairGroups, group_sum
from .inputs import check_atoms, check_cutoff, check_pairs, check_types
from .modules import Fixed
from .operators import check_recording, is_traced, without_autocast


class Prediction(NamedTuple):
    """energy [n_structures] and energies [n_atoms] in eV; hierarchicality [n_structures], a training penalty.

    Energies are float64 in a float32 model too: next to the large energies of single atoms, and over many atoms,
    float32 would lose the interaction. The rest has the dtype of the weights.
    """

    energy: Tensor
    energies: Tensor
    hierarchicality: Tensor


class EnergyAndForces(NamedTuple):
    """A `Prediction` with forces [n_atoms, 3] in eV/Å and virial [n_structures, 3, 3] = dE/d(strain) in eV."""

    energy: Tensor
    energies: Tensor
    hierarchicality: Tensor
    forces: Tensor
    virial: Tensor


def hierarchicality(terms: Tensor) -> Tensor:
    """Σ_n (Ê^n)² / ((Ê^n)² + (Ê^{n−1})²) per atom (HIP-NN): terms [n_heads, n_atoms] -> [n_atoms].

    A quotient is defined as zero where both energies vanish (in float32, below about 3e-10 eV).
    """
    squares = terms.square()
    totals = squares[1:] + squares[:-1]
    vanishing = totals < torch.finfo(terms.dtype).tiny ** 0.5
    return (squares[1:].masked_fill(vanishing, 0) / totals.masked_fill(vanishing, 1)).sum(dim=0)


class Potential(torch.nn.Module):
    """A potential of atoms; a subclass gives the class attributes, `energy_terms`, and makes `energy_heads`.

    Input of every method: numbers [n_atoms] (int64, atomic numbers), pairs [2, n_pairs] (int64: central atom i,
    neighbour j; both directions listed, in any order), displacements [n_pairs, 3] r_j − r_i in Å, for several
    structures at once structure [n_atoms] (int64) and their number, and where it is known the cutoff (Å) within which
    pairs were listed. Pairs beyond the model's own cutoff contribute exactly zero. Inside an autocast region a model
    runs in the dtype of its weights.

    Raises TypeError for a wrong dtype, and ValueError, naming the atom or pair, for an unknown species, an index out of
    range, a displacement that is not finite, atoms closer than 1e-3 Å, or pairs listed within less than the model's
    cutoff. `validate = False` skips the checks of values, which on a GPU wait for the device and which cannot be part
    of an exported graph. RuntimeError in TorchScript, and for an export with these checks.
    """

    NAME: ClassVar[str]
    SPEC_DIGEST: ClassVar[str]  # a checkpoint of the model carries it
    SPECIES: ClassVar[tuple[tuple[str, int], ...]]
    """Chemical symbols and atomic numbers."""
    CUTOFF: ClassVar[float]
    """In Å."""
    FIXED_TERMS: ClassVar[int] = 0
    """How many energy terms, the last ones, have nothing to train and are no part of the hierarchicality."""
    BASIS: ClassVar[str] = ""
    """What the printed form of a model says of its basis."""

    energy_heads: Any
    """A module with the linear layer `of_species`, without bias: the energies of single atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.validate = True
        self.register_buffer("species", self._known_species(torch.get_default_device()), persistent=False)
        self.register_load_state_dict_post_hook(_renew_constants)

    species: Tensor

    def energy_terms(self, species: Tensor, geometry: Geometry) -> Tensor:
        """The energy terms [n_terms, n_atoms] in eV, the zeroth that of the species: what a subclass defines.

        `species` [n_atoms, n_species] is one where an atom is of a species and else zero, in the dtype of the weights.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no energy terms")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to` and the like do; those of a model on the meta device would leave `species` without values."""
        super()._apply(fn, recurse)
        _renew_constants(self)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the weights, and so of displacements and results."""
        dtype: torch.dtype = self.energy_heads.of_species.weight.dtype
        return dtype

    def forward(
        self,
        numbers: Tensor,
        pairs: Tensor,
        displacements: Tensor,
        structure: Tensor | None = None,
        n_structures: int = 1,
        cutoff: float | None = None,
    ) -> Prediction:
        """Energies in eV; see the class for the input and the errors, and `Prediction` for the shapes."""
        structure = self._checked_structure(numbers, pairs, displacements, structure, n_structures, cutoff)
        with without_autocast(displacements.device):
            groups = PairGroups.of(pairs, numbers.shape[0])
            return self._prediction(numbers, groups, displacements, structure, n_structures)

    def _prediction(
        self, numbers: Tensor, groups: PairGroups, displacements: Tensor, structure: Tensor, n_structures: int
    ) -> Prediction:
        is_species = numbers.unsqueeze(1) == self.species
        geometry = Geometry.of(groups, _kinds(is_species), displacements, self.CUTOFF)
        terms = self.energy_terms(is_species.to(displacements.dtype), geometry)
        energies = terms.double().sum(dim=0)  # see `Prediction` for why not in the dtype of the weights
        heads = terms[: len(terms) - self.FIXED_TERMS]
        per_atom = torch.stack([energies, hierarchicality(heads).double()], dim=1)
        energy, penalty = group_sum(per_atom, structure, n_structures).unbind(dim=1)
        return Prediction(energy, energies, penalty.to(terms.dtype))

    def energy_and_forces(
        self,
        numbers: Tensor,
        pairs: Tensor,
        displacements: Tensor,
        structure: Tensor | None = None,
        n_structures: int = 1,
        cutoff: float | None = None,
        *,
        create_graph: bool = False,
    ) -> EnergyAndForces:
        """Energies (eV), forces (eV/Å) and virials (eV); `create_graph=True` keeps all differentiable, for training.

        Works under `torch.no_grad` and `torch.inference_mode` too (not with weights that were made under the latter).
        The virial is symmetrised; the stress of a cell of volume V is virial / V.
        """
        structure = self._checked_structure(numbers, pairs, displacements, structure, n_structures, cutoff)
        create_graph = create_graph or is_traced()  # the graph would have wrong derivatives, where it should have none
        with without_autocast(displacements.device):
            return self._energy_and_forces(numbers, pairs, displacements, structure, n_structures, create_graph)

    def _energy_and_forces(
        self,
        numbers: Tensor,
        pairs: Tensor,
        displacements: Tensor,
        structure: Tensor,
        n_structures: int,
        create_graph: bool,
    ) -> EnergyAndForces:
        with torch.inference_mode(False), torch.enable_grad():
            numbers, pairs, displacements, structure = (
                _with_gradients(tensor) for tensor in (numbers, pairs, displacements, structure)
            )
            if not (create_graph and displacements.requires_grad):
                displacements = displacements.detach().requires_grad_()
            groups = PairGroups.of(pairs, numbers.shape[0])
            prediction = self._prediction(numbers, groups, displacements, structure, n_structures)
            (slope,) = torch.autograd.grad(prediction.energy.sum(), displacements, create_graph=create_graph)
        if not create_graph:
            prediction = Prediction(*(value.detach() for value in prediction))
            displacements = displacements.detach()
        forces, virials = _forces_and_virials(groups, displacements, slope)
        virial = group_sum(virials, structure, n_structures)
        return EnergyAndForces(
            prediction.energy, prediction.energies, prediction.hierarchicality, forces=forces, virial=virial
        )

    def _checked_structure(
        self,
        numbers: Tensor,
        pairs: Tensor,
        displacements: Tensor,
        structure: Tensor | None,
        n_structures: int,
        cutoff: float | None,
    ) -> Tensor:
        check_cutoff(cutoff, self.CUTOFF)
        check_recording(self.validate)
        if structure is None:
            if n_structures != 1:
                raise ValueError(f"{n_structures} structures need `structure`, the index of every atom's structure")
            structure = torch.zeros_like(numbers)
        check_types(numbers, pairs, displacements, structure, self.dtype)
        if self.validate:
            check_atoms(numbers, self.species, structure, n_structures)
            check_pairs(pairs, displacements, structure)
        return structure

    def set_atomic_energies(self, energies: Mapping[str, float]) -> None:
        """Set the energy per species (eV) by chemical symbol, the weights of the zeroth head; the others stay.

        Raises ValueError for a symbol that the model does not know.
        """
        symbols = [symbol for symbol, _ in self.SPECIES]
        unknown = sorted(set(energies) - set(symbols))
        if unknown:
            raise ValueError(f"unknown species {', '.join(unknown)}; the model knows {', '.join(symbols)}")
        weight = self.energy_heads.of_species.weight
        with torch.no_grad():
            for symbol, energy in energies.items():
                weight[0, symbols.index(symbol)] = energy

    def _known_species(self, device: torch.device) -> Tensor:
        """The atomic numbers of the species, [n_species]."""
        return torch.tensor([number for _, number in self.SPECIES], device=device)

    def extra_repr(self) -> str:
        symbols = " ".join(symbol for symbol, _ in self.SPECIES)
        return f"{self.NAME}: {', '.join(filter(None, (symbols, self.BASIS)))}, cutoff {self.CUTOFF} Å"


def _renew_constants(model: Potential, _loaded: object = None) -> None:
    """Puts the constants `species` and `Fixed`, which no state dict holds, where the weights are."""
    weight = model.energy_heads.of_species.weight
    model.species = model._known_species(weight.device)
    for module in model.modules():
        if isinstance(module, Fixed):
            module.renew(weight)


def _kinds(is_species: Tensor) -> Tensor:
    """[n_atoms, n_species] -> [n_atoms]: which species each atom is, and what is beyond the last for none of them."""
    n_species = is_species.shape[1]
    return torch.where(is_species.any(dim=1), is_species.int().argmax(dim=1), n_species)


def _with_gradients(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it was made under `torch.inference_mode` and autograd could not use it."""
    return tensor.clone() if not torch.compiler.is_compiling() and tensor.is_inference() else tensor


def _forces_and_virials(groups: PairGroups, displacements: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Forces [n_atoms, 3] and each atom's share of the virial [n_atoms, 3, 3] from slope = dE/d(r_j − r_i) per pair."""
    displacements, slope = groups.sort(displacements), groups.sort(slope)
    outer = displacements.unsqueeze(2) * slope.unsqueeze(1)
    received = torch.cat([slope, (outer + outer.transpose(1, 2)).flatten(1) / 2], dim=1)
    of_central = groups.targets.sum(received)
    return of_central[:, :3] - groups.sources.sum(slope), of_central[:, 3:].unflatten(1, (3, 3))
