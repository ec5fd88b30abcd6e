"""HIP-HOP-NN: energies, forces and virials of atoms from the invariants of this package.

The network of Allen, Shinkle, Bujack and Lubbers, arXiv:2503.23515, on the blocks and energy heads of HIP-NN
(Lubbers, Smith, Barros, J. Chem. Phys. 148, 241715, 2018). Units: Å and eV.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor

from . import architecture
from .grouping import PairGroups, group_sum
from .inputs import check_atoms, check_cutoff, check_pairs, check_types
from .layers import Block, Geometry, linear
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


class EnergyHeads(torch.nn.Module):
    """Ê_i = Σ_n w_n·z^n_i + b_n: one head per block, and one without bias for the species, its energies per atom."""

    def __init__(self, random: torch.Generator) -> None:
        super().__init__()
        self.of_species = linear(len(architecture.SPECIES), 1, random, bias=False)
        heads = [linear(architecture.FEATURES, 1, random) for _ in range(architecture.INTERACTIONS)]
        self.of_blocks = torch.nn.ModuleList(heads)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Features of every stage, each [n_atoms, width] -> energy terms [n_heads, n_atoms] in eV."""
        heads = [self.of_species, *self.of_blocks]
        return torch.stack([head(features).squeeze(1) for head, features in zip(heads, stages, strict=True)])


def hierarchicality(terms: Tensor) -> Tensor:
    """Σ_n (Ê^n)² / ((Ê^n)² + (Ê^{n−1})²) per atom (HIP-NN): terms [n_heads, n_atoms] -> [n_atoms].

    A quotient is defined as zero where both energies vanish (in float32, below about 3e-10 eV).
    """
    squares = terms.square()
    totals = squares[1:] + squares[:-1]
    vanishing = totals < torch.finfo(terms.dtype).tiny ** 0.5
    return (squares[1:].masked_fill(vanishing, 0) / totals.masked_fill(vanishing, 1)).sum(dim=0)


class Model(torch.nn.Module):
    """The potential: `Model(seed=0)` has reproducible random weights and leaves torch's global random state alone.

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

    NAME = architecture.NAME
    SPEC_DIGEST = architecture.SPEC_DIGEST  # a checkpoint of the model carries it

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        widths = [len(architecture.SPECIES)] + [architecture.FEATURES] * (architecture.INTERACTIONS - 1)
        layers = zip(widths, architecture.ORDERS, strict=True)
        self.blocks = torch.nn.ModuleList(Block(width, order, random) for width, order in layers)
        self.energy_heads = EnergyHeads(random)
        self.validate = True
        self.register_buffer("species", _known_species(torch.get_default_device()), persistent=False)
        self.register_load_state_dict_post_hook(_renew_species)

    species: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to` and the like do; those of a model on the meta device would leave `species` without values."""
        super()._apply(fn, recurse)
        _renew_species(self)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the weights, and so of displacements and results."""
        return self.energy_heads.of_species.weight.dtype

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
        geometry = Geometry.of(groups, _kinds(is_species), displacements)
        stages = [is_species.to(displacements.dtype)]
        for block in self.blocks:
            stages.append(block(stages[-1], geometry))
        terms = self.energy_heads(stages)
        energies = terms.double().sum(dim=0)  # see `Prediction` for why not in the dtype of the weights
        per_atom = torch.stack([energies, hierarchicality(terms).double()], dim=1)
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
        check_cutoff(cutoff, architecture.CUTOFF)
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
        symbols = [symbol for symbol, _ in architecture.SPECIES]
        unknown = sorted(set(energies) - set(symbols))
        if unknown:
            raise ValueError(f"unknown species {', '.join(unknown)}; the model knows {', '.join(symbols)}")
        weight = self.energy_heads.of_species.weight
        with torch.no_grad():
            for symbol, energy in energies.items():
                weight[0, symbols.index(symbol)] = energy

    def extra_repr(self) -> str:
        symbols = " ".join(symbol for symbol, _ in architecture.SPECIES)
        return (
            f"{architecture.NAME}: {symbols}, {architecture.N_INVARIANTS} invariants of ranks up to "
            f"{architecture.MAX_RANK}, cutoff {architecture.CUTOFF} Å"
        )


def _known_species(device: torch.device) -> Tensor:
    """The atomic numbers of the species, [n_species]."""
    return torch.tensor([number for _, number in architecture.SPECIES], device=device)


def _renew_species(model: Model, _loaded: object = None) -> None:
    """Puts the constant `species`, which no state dict holds, where the weights are."""
    model.species = _known_species(model.energy_heads.of_species.weight.device)


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
