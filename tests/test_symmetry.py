"""Symmetries of energies, forces and virials, and forces and stresses against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.helpers import WITH_NETWORK, batch_of, crystal, molecule, package, small_model

seeds = st.integers(0, 2**16)
sizes = st.integers(1, 7)


@pytest.fixture(params=WITH_NETWORK, scope="module")
def predict(request: pytest.FixtureRequest) -> Callable:
    """Structures -> prediction with forces of a small random model of each package."""
    module = package(request.param)
    model = small_model(module, seed=1)
    return lambda *structures: model.energy_and_forces(*batch_of(module, *structures).inputs)


def assert_close(ours: torch.Tensor, expected: torch.Tensor | np.ndarray, digits: float = 1e-9) -> None:
    """Equal up to `digits`, relative to the largest component."""
    expected = torch.as_tensor(expected)
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(ours, expected, rtol=0, atol=digits * scale)


@given(n=sizes, seed=seeds, reflect=st.booleans())
def test_rotations_and_reflections(predict: Callable, n: int, seed: int, reflect: bool) -> None:
    atoms = molecule(n, seed)
    turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix() * (-1 if reflect else 1)
    turned = Atoms(atoms.numbers, atoms.positions @ turn.T)
    before, after = predict(atoms), predict(turned)
    assert_close(after.energies, before.energies)
    assert_close(after.forces, before.forces.numpy() @ turn.T)
    assert_close(after.virial, turn @ before.virial.numpy() @ turn.T)


@given(n=sizes, seed=seeds)
def test_translations_leave_all_and_forces_sum_to_zero(predict: Callable, n: int, seed: int) -> None:
    atoms = molecule(n, seed)
    moved = atoms.copy()
    moved.translate(np.random.default_rng(seed).uniform(-50, 50, 3))
    before, after = predict(atoms), predict(moved)
    assert_close(after.energies, before.energies)
    assert_close(after.forces, before.forces)
    assert_close(before.forces.sum(dim=0), torch.zeros(3, dtype=torch.float64))
    assert_close(torch.linalg.cross(torch.tensor(atoms.positions), before.forces).sum(dim=0), np.zeros(3))


@given(n=sizes, seed=seeds)
def test_permutations_of_atoms(predict: Callable, n: int, seed: int) -> None:
    atoms = molecule(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    before, after = predict(atoms), predict(atoms[order])
    assert_close(after.energy, before.energy)
    assert_close(after.energies, before.energies[order])
    assert_close(after.forces, before.forces[order])


@given(n=sizes, seed=seeds)
def test_far_systems_add_up_and_batches_do_not_mix(predict: Callable, n: int, seed: int) -> None:
    first, second = molecule(n, seed), molecule(4, seed + 1)
    far = second.copy()
    far.translate((40, 0, 0))
    parts, together, batched = [predict(first), predict(second)], predict(first + far), predict(first, second)
    for name in ("energies", "forces"):
        expected = torch.cat([getattr(part, name) for part in parts])
        assert_close(getattr(together, name), expected)
        assert_close(getattr(batched, name), expected)
    for name in ("energy", "virial", "hierarchicality"):
        assert_close(getattr(together, name), sum(getattr(part, name) for part in parts))
        assert_close(getattr(batched, name), torch.cat([getattr(part, name) for part in parts]))


@given(n=st.integers(2, 5), seed=seeds)
def test_forces_are_the_slope_of_the_energy(predict: Callable, n: int, seed: int) -> None:
    atoms = molecule(n, seed)
    direction = np.random.default_rng(seed).normal(size=(n, 3))
    step = 1e-5
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * step * direction
        energies.append(float(predict(moved).energy))
    prediction = predict(atoms)
    work = -float((prediction.forces * torch.tensor(direction)).sum())
    scale = 1 + float(prediction.forces.abs().max())
    assert (energies[0] - energies[1]) / (2 * step) == pytest.approx(work, abs=1e-5 * scale)


@given(seed=seeds, pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_virials_are_the_slope_of_the_energy_under_strain(predict: Callable, seed: int, pbc: tuple) -> None:
    atoms = crystal(seed, pbc)
    random = np.random.default_rng(seed).normal(size=(3, 3))
    strain, step = random + random.T, 1e-6
    energies = []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + sign * step * strain), scale_atoms=True)
        energies.append(float(predict(strained).energy))
    virial = predict(atoms).virial[0]
    expected = float((virial * torch.tensor(strain)).sum())
    scale = 1 + float(virial.abs().max())
    assert (energies[0] - energies[1]) / (2 * step) == pytest.approx(expected, abs=1e-5 * scale)
    assert torch.equal(virial, virial.T)


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_the_order_of_pairs_and_pairs_beyond_the_cutoff_do_not_matter(name: str) -> None:
    module = package(name)
    model = small_model(module)
    batch = batch_of(module, molecule(7, seed=8))
    reference = model.energy_and_forces(*batch.inputs)
    order = torch.randperm(batch.pairs.shape[1], generator=torch.Generator().manual_seed(0))
    far = torch.full((3, 3), 20.0, dtype=torch.float64)
    pairs = torch.cat([torch.tensor([[0, 0, 5], [3, 0, 2]]), batch.pairs[:, order]], dim=1)
    other = model.energy_and_forces(batch.numbers, pairs, torch.cat([far, batch.displacements[order]]))
    for ours, theirs in zip(other, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("distance", "dtype"), [(1e20, torch.float32), (3e38, torch.float32), (1e200, torch.float64)])
def test_pairs_so_far_that_their_square_overflows_count_nothing(distance: float, dtype: torch.dtype) -> None:
    model = small_model(package("hiphop4")).to(dtype)
    pairs = torch.tensor([[0, 1], [1, 0]])
    displacements = torch.tensor([[0, distance, 0], [0, -distance, 1]], dtype=dtype)
    out = model.energy_and_forces(torch.tensor([6, 8]), pairs, displacements, create_graph=True)
    alone = model(torch.tensor([6, 8]), pairs[:, :0], displacements[:0])
    torch.testing.assert_close(out.energy, alone.energy, rtol=1e-6, atol=1e-6)
    assert not out.forces.any()
    assert not out.virial.any()
    (out.energy.sum() + out.forces.square().sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
