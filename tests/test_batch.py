"""Neighbour lists against a naive sum over images, batches, and the errors that name an atom."""

from __future__ import annotations

import time
from dataclasses import fields

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given
from hypothesis import strategies as st

from tensorgraph.errors import StructureError
from tensorgraph.model.batch import Batch, batch_structures
from tensorgraph.neighbours.lists import completed_cell, neighbour_pairs, neighbour_tensors
from tests.helpers import batch_of, crystal, devices, gpu, molecule, naive_pairs, package

directions = st.tuples(st.booleans(), st.booleans(), st.booleans())


def rows(atoms: Atoms, cutoff: float) -> list[tuple]:
    pairs, displacements = neighbour_pairs(atoms, cutoff)
    rounded = np.round(displacements, 6) + 0.0
    return sorted((int(i), int(j), tuple(d.tolist())) for (i, j), d in zip(pairs.T, rounded, strict=True))


@given(seed=st.integers(0, 2**16), pbc=directions, n=st.integers(1, 4), cutoff=st.floats(1.0, 5.0))
def test_pairs_equal_a_sum_over_images(seed: int, pbc: tuple, n: int, cutoff: float) -> None:
    atoms = crystal(seed, pbc, n)
    assert rows(atoms, cutoff) == naive_pairs(atoms, cutoff)


@devices
@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 1, 0), (1, 1, 1)])
def test_lists_of_tensors_are_those_of_atoms(pbc: tuple, device: str) -> None:
    atoms = crystal(3, tuple(map(bool, pbc)), n_atoms=4)
    positions, cell = (torch.tensor(np.array(x), device=device) for x in (atoms.positions, atoms.cell))
    pairs, displacements = neighbour_tensors(positions, cell, atoms.pbc, 5.0)
    assert (pairs.device.type, displacements.device.type) == (device, device)
    assert (pairs[0].diff() >= 0).all()
    rounded = np.round(displacements.cpu().numpy(), 6) + 0.0
    found = sorted((int(i), int(j), tuple(d.tolist())) for (i, j), d in zip(pairs.t().cpu(), rounded, strict=True))
    assert found == naive_pairs(atoms, 5.0)
    for _ in range(3):
        again, moved = neighbour_tensors(positions, cell, atoms.pbc, 5.0)
        assert torch.equal(again, pairs)
        assert torch.equal(moved, displacements)


def test_displacements_of_tensors_are_differentiable() -> None:
    """With respect to the positions and to the vectors of the cell, of which only periodic ones count."""
    atoms = crystal(5, (True, False, True), n_atoms=3)
    positions, cell = (torch.tensor(np.array(x), requires_grad=True) for x in (atoms.positions, atoms.cell))

    def displacements(positions: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        return neighbour_tensors(positions, cell, atoms.pbc, 4.0)[1]

    assert len(displacements(positions, cell)) > 10
    assert torch.autograd.gradcheck(displacements, (positions, cell))
    slope = torch.autograd.grad(displacements(positions, cell).square().sum(), cell)[0]
    assert not slope[1].any()


def test_lists_of_single_precision_are_those_of_double() -> None:
    atoms = crystal(6, (True, True, True), n_atoms=4)
    tensors = torch.tensor(atoms.positions), torch.tensor(np.array(atoms.cell))
    exact, rounded = (neighbour_tensors(*(t.to(d) for t in tensors), atoms.pbc, 4.0)
                      for d in (torch.float64, torch.float32))  # fmt: skip
    assert rounded[1].dtype == torch.float32
    assert rounded[0].tolist() == exact[0].tolist()
    torch.testing.assert_close(rounded[1].double(), exact[1], rtol=0, atol=1e-5)


def test_bad_tensors_are_refused() -> None:
    positions, cell = torch.zeros(2, 3, dtype=torch.float64), 5 * torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"\[n_atoms, 3\], \[3, 3\] and 3 directions, not \[2, 2\]"):
        neighbour_tensors(positions[:, :2], cell, (True,) * 3, 4.0)
    with pytest.raises(TypeError, match=r"float32 or float64, not torch\.float64 and torch\.float32"):
        neighbour_tensors(positions, cell.float(), (True,) * 3, 4.0)
    with pytest.raises(StructureError, match="atoms 0 and 1 coincide"):
        neighbour_tensors(positions, cell, (True,) * 3, 4.0)
    with pytest.raises(StructureError, match="atom 1 has the position"):
        neighbour_tensors(positions.index_fill(0, torch.tensor([1]), torch.nan), cell, (True,) * 3, 4.0)
    with pytest.raises(StructureError, match="singular"):
        neighbour_tensors(positions, 0 * cell, (True,) * 3, 4.0)
    assert neighbour_tensors(positions[:0], cell, (True,) * 3, 4.0)[0].shape == (2, 0)


@given(seed=st.integers(0, 2**16), pbc=directions, unused=st.sampled_from(["zero", "parallel", "tiny", "nan"]))
def test_vectors_along_directions_that_are_not_periodic_do_not_matter(seed: int, pbc: tuple, unused: str) -> None:
    atoms = crystal(seed, pbc)
    atoms.positions[0] += (6, -14, 9)  # outside the cell
    other = atoms.copy()
    fill = {"zero": np.zeros(3), "parallel": atoms.cell[pbc.index(True)] if any(pbc) else np.ones(3)}
    vector = fill.get(unused, np.full(3, 1e-9 if unused == "tiny" else np.nan))
    for axis in np.flatnonzero(~atoms.pbc):
        other.cell[axis] = vector
    assert rows(other, 4.0) == rows(atoms, 4.0) == naive_pairs(atoms, 4.0)


@pytest.mark.parametrize("distance", [1e5, 1e6, 2.5e9])
@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 1, 0), (1, 0, 0)])
def test_atoms_far_away_cost_nothing_and_keep_their_neighbours(pbc: tuple, distance: float) -> None:
    near = crystal(4, tuple(map(bool, pbc)), n_atoms=3)
    near.cell[~near.pbc] = 0
    far = near.copy()
    away = completed_cell(far)[~far.pbc].sum(axis=0)
    far.positions += distance * away
    started = time.perf_counter()
    pairs, displacements = neighbour_pairs(near + far, 4.0)
    assert time.perf_counter() - started < 1
    assert len(pairs[0]) == 2 * len(naive_pairs(near, 4.0))  # of both, and none between them
    assert (pairs // 3)[0].tolist() == (pairs // 3)[1].tolist()
    theirs = pairs[0] >= 3
    expected, offsets = neighbour_pairs(near, 4.0)
    for mine, digits in ((~theirs, 1e-12), (theirs, 4e-16 * distance + 1e-12)):
        np.testing.assert_array_equal(np.sort(pairs[:, mine] % 3), np.sort(expected))
        sums = [np.sort(np.linalg.norm(values, axis=1)) for values in (displacements[mine], offsets)]
        np.testing.assert_allclose(*sums, rtol=0, atol=4 * digits)
    assert rows(near + far, 4.0)[: len(offsets)] == naive_pairs(near, 4.0)


@given(seed=st.integers(0, 2**16), pbc=directions, spread=st.floats(0, 300))
def test_gaps_between_atoms_change_no_pair(seed: int, pbc: tuple, spread: float) -> None:
    atoms = crystal(seed, pbc, n_atoms=5)
    outside = completed_cell(atoms)[~atoms.pbc]
    atoms.positions += np.random.default_rng(seed).integers(-1, 2, (5, len(outside))) @ outside * spread
    assert rows(atoms, 4.0) == naive_pairs(atoms, 4.0)


@pytest.mark.parametrize("cells", [10, 10**6, 10**9, 10**11])
def test_atoms_far_outside_the_cell_keep_their_neighbours(cells: int) -> None:
    atoms = Atoms("HCO", [(0, 0, 0), (1.2, 0.3, 0.4), (1, 2, 1)], cell=(4, 4, 2), pbc=(True, True, False))
    moved = atoms.copy()
    moved.positions[1] += 4 * np.array([cells, -cells, 0])
    pairs, displacements = neighbour_pairs(moved, 5.0)
    expected, offsets = neighbour_pairs(atoms, 5.0)
    assert sorted(pairs.T.tolist()) == sorted(expected.T.tolist())
    lengths = [np.sort(np.linalg.norm(values, axis=1)) for values in (displacements, offsets)]
    np.testing.assert_allclose(*lengths, rtol=0, atol=1e-12 + 4e-15 * cells)


def test_positions_too_far_for_float64_are_named() -> None:
    with pytest.raises(StructureError, match=r"^atom 1 \(C\) has the position .*: beyond 1e\+12 Å"):
        neighbour_pairs(Atoms("HC", [(0, 0, 0), (0, -2e12, 0)]), 4.0)


def test_every_pair_is_listed_in_both_directions() -> None:
    listed = set(rows(crystal(3, n_atoms=3), 4.0))
    assert {(j, i, tuple(0.0 - x for x in d)) for i, j, d in listed} == listed


@pytest.mark.parametrize("pbc", [(1, 1, 0), (0, 1, 0), (0, 0, 0)])
def test_a_completed_cell_keeps_periodic_vectors_and_adds_orthogonal_ones(pbc: tuple) -> None:
    atoms = crystal(1, tuple(bool(flag) for flag in pbc))
    cell = completed_cell(atoms)
    np.testing.assert_array_equal(cell[atoms.pbc], atoms.cell.array[atoms.pbc])
    np.testing.assert_allclose(cell[~atoms.pbc] @ cell.T, np.eye(3)[~atoms.pbc], atol=1e-12)


def test_a_batch_is_its_structures_side_by_side() -> None:
    structures = [molecule(4, 1), Atoms(), Atoms("H"), crystal(2)]
    batch = batch_structures(structures, 3.0, torch.float64)
    assert batch.n_structures == 4
    assert batch.structure.tolist() == [0] * 4 + [2] + [3] * 2
    assert batch.numbers.tolist() == [number for atoms in structures for number in atoms.numbers]
    own = batch.structure[batch.pairs]
    assert torch.equal(own[0], own[1])
    for index, offset in ((0, 0), (3, 5)):
        mine = own[0] == index
        pairs, displacements = neighbour_pairs(structures[index], 3.0)
        assert torch.equal(batch.pairs[:, mine] - offset, torch.tensor(pairs))
        assert torch.equal(batch.displacements[mine], torch.tensor(displacements))


@given(chosen=st.lists(st.integers(0, 3), max_size=6))
def test_taking_structures_is_batching_them(chosen: list[int]) -> None:
    structures = [molecule(4, 1), Atoms(), Atoms("H"), crystal(2)]
    for atoms in structures:
        atoms.calc = SinglePointCalculator(atoms, energy=len(atoms), forces=atoms.positions)
    structures[3].info["stress"] = np.arange(6.0)
    labels = {"targets": ("energy", "forces", "stress"), "optional": "stress"}
    whole = batch_structures(structures, 3.0, torch.float64, **labels)
    expected = batch_structures([structures[index] for index in chosen], 3.0, torch.float64, **labels)
    taken = whole.take(torch.tensor(chosen, dtype=torch.int64))
    for field in fields(Batch):
        ours, theirs = getattr(taken, field.name), getattr(expected, field.name)
        assert (ours is None) == (theirs is None), field.name
        assert ours is None or torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs)), field.name


def test_a_batch_of_nothing() -> None:
    batch = batch_structures([], 3.0)
    assert (batch.n_structures, *batch.numbers.shape, *batch.pairs.shape) == (0, 0, 2, 0)


def test_targets_come_along() -> None:
    structures = [bulk("Cu").repeat(2), bulk("Au", cubic=True)]
    for atoms in structures:
        atoms.rattle(0.1, seed=1)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    batch = batch_structures(structures, 4.0, torch.float64, targets=True)
    assert batch.energy is not None
    assert batch.forces is not None
    np.testing.assert_allclose(batch.energy, [atoms.get_potential_energy() for atoms in structures])
    np.testing.assert_allclose(batch.forces, np.concatenate([atoms.get_forces() for atoms in structures]))
    assert batch_structures(structures, 4.0).energy is None


def test_single_structures_and_generators_are_batches() -> None:
    atoms = molecule(4, 1)
    for structures in (atoms, (copy for copy in [atoms]), {"only": atoms}.values()):
        batch = batch_structures(structures, 3.0)
        assert (batch.n_structures, batch.numbers.tolist(), batch.cutoff) == (1, atoms.numbers.tolist(), 3.0)


@pytest.mark.parametrize(
    ("structures", "message"),
    [
        ("frames.xyz", "structures must be ase.Atoms or an iterable of them, not str"),
        (None, "structures must be ase.Atoms or an iterable of them, not NoneType"),
        ([molecule(2, 1), "frame"], "structure 1 is str, not ase.Atoms"),
        (molecule(2, 1)[0:2].positions, "structure 0 is ndarray, not ase.Atoms"),
    ],
)
def test_what_is_no_structure_is_refused(structures: object, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        batch_structures(structures, 3.0)


@pytest.mark.parametrize("cutoff", [0, -1.0, np.nan, np.inf, -np.inf, True, "5.0", None, 1j, np.bool_(True), [5.0]])
def test_cutoffs_that_are_none_are_refused(cutoff: object) -> None:
    with pytest.raises(ValueError, match=r"^the cutoff must be a number above 0 and up to 1e\+12 Å, not "):
        batch_structures([molecule(2, 1)], cutoff)


@pytest.mark.parametrize("cutoff", [3, np.float32(3), np.int64(3)])
def test_cutoffs_of_other_types_of_numbers(cutoff: float) -> None:
    batch = batch_structures([molecule(4, 1)], cutoff)
    assert (type(batch.cutoff), batch.cutoff) == (float, 3.0)
    assert torch.equal(batch.pairs, batch_structures([molecule(4, 1)], 3.0).pairs)


def test_wrong_dtypes_and_devices_are_refused() -> None:
    assert batch_structures(Atoms("H"), 3.0, "float64").displacements.dtype == torch.float64
    for dtype in ("half", torch.float16, torch.int64, "torch.float32"):
        with pytest.raises(ValueError, match=r"^unknown dtype .*; allowed: float32, float64"):
            batch_structures(Atoms("H"), 3.0, dtype)
    for device in ("gpu", "cuda:99", "meta", 3.5, ""):
        with pytest.raises(ValueError, match=r"^device .* allowed here: cpu"):
            batch_structures(Atoms("H"), 3.0, device=device)


def test_a_batch_of_a_smaller_cutoff_than_the_model_is_refused() -> None:
    module = package("hipnn")
    model, atoms = module.Model().double(), molecule(4, 1)
    small = batch_structures(atoms, module.architecture.CUTOFF - 0.5, torch.float64)
    kept = [small, small.take(torch.tensor([0])), small.padded(8, 100), small.to(dtype="float64")]
    for batch in kept:
        with pytest.raises(ValueError, match=r"pairs were listed within 6.0 Å"):
            model(*batch.inputs)
        with pytest.raises(ValueError, match=r"pairs were listed within 6.0 Å"):
            model.energy_and_forces(*batch.inputs)
    larger = batch_structures(atoms, module.architecture.CUTOFF + 0.5, torch.float64)
    torch.testing.assert_close(model(*larger.inputs).energy, model(*batch_of(module, atoms).inputs).energy)


def full_batch() -> Batch:
    """Of two structures with all labels, and one without any."""
    structures = [crystal(2), crystal(3), Atoms("H")]
    for atoms in structures[:2]:
        atoms.calc = SinglePointCalculator(atoms, energy=-1e6, forces=atoms.positions, stress=np.arange(6.0))
    labels = ("energy", "forces", "stress")
    return batch_structures(structures, 4.0, torch.float64, targets=labels, optional=labels)


@devices
def test_batches_move_and_change_their_dtype(device: str) -> None:
    batch = full_batch()
    moved = batch.to(device, "float32")
    assert (moved.n_structures, moved.cutoff) == (3, 4.0)
    for field in fields(Batch):
        before, after = getattr(batch, field.name), getattr(moved, field.name)
        if isinstance(before, torch.Tensor):
            changes = field.name in ("displacements", "forces", "stress")
            assert after.device.type == device
            assert after.dtype == (torch.float32 if changes else before.dtype), field.name
            torch.testing.assert_close(after.cpu().to(before.dtype), before)
    assert batch.to().displacements is batch.displacements
    assert batch.displacements.dtype == torch.float64


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=gpu)])
def test_pinned_batches_are_equal(device: str) -> None:
    batch = full_batch()
    pinned = batch.pin_memory()
    assert pinned.forces.is_pinned()
    assert torch.equal(pinned.to(device, non_blocking=True).forces.cpu(), batch.forces)


def test_total_energies_keep_their_digits_in_float32() -> None:
    atoms = molecule(2, 1)
    atoms.calc = SinglePointCalculator(atoms, energy=-527890.476412345, forces=np.zeros((2, 3)))
    batch = batch_structures([atoms], 3.0, torch.float32, targets=True)
    assert batch.energy is not None
    assert batch.energy.item() == -527890.476412345


@pytest.mark.parametrize("wrong", [{"energy": np.nan}, {"forces": np.full((2, 3), np.inf)}])
def test_targets_that_are_not_finite_name_the_structure(wrong: dict) -> None:
    frames = [molecule(2, 1), molecule(2, 2)]
    for atoms, changes in zip(frames, ({}, wrong), strict=True):
        atoms.calc = SinglePointCalculator(atoms, **{"energy": 1.0, "forces": np.zeros((2, 3)), **changes})
    with pytest.raises(StructureError, match=r"^structure 1: calc.results\['(energy|forces)'\] is not finite"):
        batch_structures(frames, 3.0, targets=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite_are_named(value: float) -> None:
    atoms = molecule(3, 1, symbols="C")
    atoms.positions[2, 1] = value
    with pytest.raises(StructureError, match=r"^structure 1: atom 2 \(C\) has the position .* not finite"):
        batch_structures([molecule(3, 1), atoms], 3.0)


def test_coincident_atoms_are_named_also_across_a_cell() -> None:
    together = Atoms("HCO", [(0, 0, 0), (2, 0, 0), (2, 0, 1e-5)])
    with pytest.raises(StructureError, match=r"^atoms 1 \(C\) and 2 \(O\) coincide"):
        batch_structures([together], 3.0)
    across = Atoms("HC", [(0, 0, 0), (3, 0, 1e-5)], cell=(3, 4, 5), pbc=(True, False, False))
    with pytest.raises(StructureError, match=r"^atoms 0 \(H\) and 1 \(C\) coincide"):
        batch_structures([across], 3.0)


def test_unknown_species_are_named() -> None:
    with pytest.raises(StructureError, match=r"^atom 1 has the unknown species Au; the model knows H C$"):
        batch_structures([Atoms("HAu", [(0, 0, 0), (2, 0, 0)])], 3.0, species=[6, 1])
    with pytest.raises(StructureError, match=r"^structure 1: atom 0 has the unknown species Au"):
        batch_structures([Atoms("H"), Atoms("Au"), Atoms("C")], 3.0, species=iter([6, 1]))
    assert batch_structures([Atoms("H"), Atoms("C")], 3.0, species=iter([6, 1])).numbers.tolist() == [1, 6]


@pytest.mark.parametrize("number", [200, -1])
def test_atomic_numbers_without_an_element_are_named(number: int) -> None:
    atoms = Atoms(numbers=[1, number], positions=[(0, 0, 0), (0, 0, 0)])
    with pytest.raises(StructureError, match=f"^atom 1 has the unknown species atomic number {number};"):
        batch_structures([atoms], 3.0, species=[1])
    with pytest.raises(StructureError, match=rf"^atoms 0 \(H\) and 1 \(atomic number {number}\) coincide"):
        batch_structures([atoms], 3.0)


SINGULAR = {
    "singular": np.array([[3, 0, 0], [3, 0, 0], [0, 0, 3.0]]),
    r"singular.*lengths 3, 3, 0 Å": np.diag([3, 3, 0.0]),
    "singular in its periodic directions": np.diag([3, 3, 0.01]),
    "not finite": np.diag([3, 3, np.inf]),
}


@pytest.mark.parametrize("message", SINGULAR)
def test_singular_cells_are_refused(message: str) -> None:
    with pytest.raises(StructureError, match=message):
        batch_structures([Atoms("H", cell=SINGULAR[message], pbc=True)], 3.0)


@pytest.mark.parametrize("shift", [1e5, 9e4])
def test_single_precision_far_away_ends_soon(shift: float) -> None:
    """A search that reaches as far as positions are uncertain would find all pairs of images."""
    positions = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)) * 8
    positions[0, 0] += shift
    cell = 8 * torch.eye(3)
    started = time.perf_counter()
    if shift >= 1e5:
        with pytest.raises(StructureError, match=r"atom 0 has the position .*: beyond 100000 Å"):
            neighbour_tensors(positions, cell, (True,) * 3, 4.0)
    else:
        assert len(neighbour_tensors(positions, cell, (True,) * 3, 4.0)[1]) > 0
    assert time.perf_counter() - started < 5


def test_structures_are_taken_by_masks_and_lists_and_nothing_else() -> None:
    whole = batch_structures([molecule(3, 0), molecule(4, 1), molecule(5, 2)], 5.0)
    for chosen in ([2], torch.tensor([False, False, True]), np.array([2])):
        assert whole.take(chosen).numbers.tolist() == whole.numbers[7:].tolist()
    assert whole.take([]).n_structures == 0
    for wrong, error in ((torch.tensor([True]), ValueError), ([3], ValueError), ([-1], ValueError), ([0.5], TypeError)):
        with pytest.raises(error):
            whole.take(wrong)
