"""Checks of a network's input that name the atom or the pair at fault."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_DISTANCE = 1e-3  # Å; closer atoms are taken for a mistake: at zero the direction of a pair does not exist
NAMED_AT_MOST = 5


def check_cutoff(cutoff: float | None, needed: float) -> None:
    """Raise ValueError for pairs that were listed within less than the cutoff (Å) of the model; None is not known."""
    if cutoff is not None and not cutoff >= needed:
        raise ValueError(f"pairs were listed within {cutoff} Å, but the model needs all within its {needed} Å")


def check_types(numbers: Tensor, pairs: Tensor, displacements: Tensor, structure: Tensor, dtype: torch.dtype) -> None:
    """Raise TypeError for a wrong dtype and ValueError for a wrong shape; values are not looked at."""
    if displacements.dtype != dtype:
        raise TypeError(f"displacements are {displacements.dtype} but the weights are {dtype}: convert one of them")
    for name, tensor in (("numbers", numbers), ("pairs", pairs), ("structure", structure)):
        if tensor.dtype != torch.int64:
            raise TypeError(f"{name} must be int64, not {tensor.dtype}")
    n_atoms, n_pairs = numbers.numel(), displacements.shape[0] if displacements.dim() else 0
    _check_shape("numbers", numbers, (n_atoms,))
    _check_shape("structure", structure, (n_atoms,))
    _check_shape("pairs", pairs, (2, n_pairs))
    _check_shape("displacements", displacements, (n_pairs, 3))


def check_atoms(numbers: Tensor, known: Tensor, structure: Tensor, n_structures: int) -> None:
    """Raise ValueError for species not in `known` (atomic numbers) and structure indices outside [0, n_structures)."""
    unknown = ~torch.isin(numbers, known)
    if unknown.any():
        names = "; ".join(f"atom {i}: atomic number {numbers[i]}" for i in _first(unknown))
        raise ValueError(f"unknown species: {names}; the model knows {known.tolist()}")
    outside = (structure < 0) | (structure >= n_structures)
    if outside.any():
        names = "; ".join(f"atom {i}: {structure[i]}" for i in _first(outside))
        raise ValueError(f"structure index outside 0..{n_structures - 1}: {names}")


def check_pairs(pairs: Tensor, displacements: Tensor, structure: Tensor) -> None:
    """Raise ValueError for atoms that do not exist, pairs across structures and impossible displacements (Å)."""
    n_atoms = structure.shape[0]
    _check_no_pair(((pairs < 0) | (pairs >= n_atoms)).any(dim=0), pairs, f"atom index outside 0..{n_atoms - 1}")
    _check_no_pair(structure[pairs[0]] != structure[pairs[1]], pairs, "pair of atoms of two structures")
    _check_no_pair(~torch.isfinite(displacements).all(dim=1), pairs, "displacement not finite")
    close = torch.linalg.vector_norm(displacements.detach(), dim=1) < SMALLEST_DISTANCE
    _check_no_pair(close, pairs, f"coincident atoms, closer than {SMALLEST_DISTANCE} Å")


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has the shape {list(tensor.shape)}, expected {list(shape)}")


def _check_no_pair(wrong: Tensor, pairs: Tensor, what: str) -> None:
    if wrong.any():
        names = "; ".join(f"pair {p}: atoms {pairs[0, p]} and {pairs[1, p]}" for p in _first(wrong))
        raise ValueError(f"{what}: {names}")


def _first(mask: Tensor) -> list[int]:
    """The first few indices where the mask is true, for a message."""
    return mask.nonzero().flatten()[:NAMED_AT_MOST].tolist()
