"""What autograd gives of a generated model besides its forces: Hessians, virials per atom, energies per layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tensorgraph.model.batch import Batch


def hessian(model: Any, batch: Batch) -> Tensor:
    """d²E/dr² [3 n_atoms, 3 n_atoms] in eV/Å², rows and columns by atom, then by direction.

    Images of an atom move with it. One backward pass per row; atoms of different structures have zeros between them.
    """
    size = 3 * len(batch.numbers)
    if not batch.pairs.shape[1]:
        return batch.displacements.new_zeros((size, size))
    with torch.inference_mode(False), torch.enable_grad():
        moves = batch.displacements.new_zeros((len(batch.numbers), 3), requires_grad=True)
        displacements = batch.displacements + moves[batch.pairs[1]] - moves[batch.pairs[0]]
        numbers, pairs, _, *others = batch.inputs
        forces = model.energy_and_forces(numbers, pairs, displacements, *others, create_graph=True).forces
        rows = [torch.autograd.grad(force, moves, retain_graph=True)[0].flatten() for force in forces.flatten()]
    return -torch.stack(rows)


def atomic_virials(model: Any, batch: Batch) -> Tensor:
    """Each atom's share of the virial dE/d(strain) [n_atoms, 3, 3] in eV, symmetrised; they sum to the virial.

    The share of atom i is Σ_j (r_j − r_i) ⊗ dE/d(r_j − r_i) over the pairs of which it is the central atom. Only
    their sum is unique: other shares, such as half to each atom of a pair, are as good.
    """
    with torch.inference_mode(False), torch.enable_grad():
        displacements = batch.displacements.detach().clone().requires_grad_()
        numbers, pairs, _, *others = batch.inputs
        energy = model(numbers, pairs, displacements, *others).energy.sum()
        (slope,) = torch.autograd.grad(energy, displacements)
    outer = displacements.detach().unsqueeze(2) * slope.unsqueeze(1)
    shares = outer.new_zeros((len(numbers), 3, 3)).index_add_(0, pairs[0], outer)
    return (shares + shares.transpose(1, 2)) / 2


def layer_energies(model: Any, batch: Batch) -> Tensor:
    """The energy terms [n_terms, n_atoms] in eV: of the species (the energies of single atoms), then of each block, and
    last the repulsion of nuclei, where the spec has one.

    Their sum is the energy per atom. Decreasing terms of blocks are what HIP-NN calls hierarchicality.
    """
    found: list[Tensor] = []
    made = model.energy_terms

    def kept(species: Tensor, geometry: Any) -> Tensor:
        found.append(made(species, geometry).detach())
        return found[-1]

    model.energy_terms = kept  # hides the method for a while
    try:
        with torch.no_grad():
            model(*batch.inputs)
    finally:
        del model.energy_terms
    (terms,) = found
    return terms
