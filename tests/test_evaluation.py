"""Many structures at once, and what autograd gives besides forces: against one by one, and against differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import full_3x3_to_voigt_6_stress
from ase.vibrations import VibrationsData

from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.errors import StructureError
from tensorgraph.model import predict
from tests.helpers import GENERATED, crystal, molecule, package


@pytest.fixture(scope="module")
def calculator() -> TensorGraphCalculator:
    return TensorGraphCalculator(GENERATED / "hipnn")


CUTOFF = package("hipnn").architecture.CUTOFF
FRAMES = [molecule(5, 1), crystal(2), Atoms(), Atoms("N"), crystal(3, (True, False, True), 4), molecule(9, 2)]


class Counting:
    """A model that counts the atoms and pairs it is given."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.sizes, self.dtype, self.species = model, [], model.dtype, model.species

    def energy_and_forces(self, numbers, pairs, *others):
        self.sizes.append((len(numbers), pairs.shape[1]))
        return self.model.energy_and_forces(numbers, pairs, *others)


@pytest.mark.parametrize("limits", [{}, {"max_pairs": 1}, {"max_atoms": 6}, {"max_pairs": 400, "max_atoms": 8}])
def test_predictions_equal_those_one_by_one(calculator: TensorGraphCalculator, limits: dict) -> None:
    found = list(predict(calculator.model, (atoms.copy() for atoms in FRAMES), CUTOFF, **limits))
    assert len(found) == len(FRAMES)
    for atoms, prediction in zip(FRAMES, found, strict=True):
        calculator.calculate(atoms)
        assert prediction.energy == pytest.approx(calculator.results["energy"], rel=1e-12)
        for name in ("energies", "forces"):
            np.testing.assert_allclose(getattr(prediction, name), calculator.results[name], rtol=1e-9, atol=1e-11)
        assert (prediction.stress is None) == ("stress" not in calculator.results)
        if prediction.stress is not None:
            np.testing.assert_allclose(prediction.stress, calculator.results["stress"], rtol=1e-9, atol=1e-11)


def test_no_batch_is_larger_than_was_asked_for(calculator: TensorGraphCalculator) -> None:
    frames = [molecule(size, seed) for seed, size in enumerate([3, 8, 2, 5, 4, 1, 6, 2] * 5)]
    counting = Counting(calculator.model)
    assert len(list(predict(counting, frames, CUTOFF, max_pairs=60, max_atoms=9))) == len(frames)
    assert max(atoms for atoms, _ in counting.sizes) <= 9
    assert max(pairs for _, pairs in counting.sizes) <= 60
    assert len(counting.sizes) < len(frames)
    counting = Counting(calculator.model)
    list(predict(counting, frames, CUTOFF, max_atoms=1))  # a structure with more goes alone
    assert [atoms for atoms, _ in counting.sizes] == [len(atoms) for atoms in frames]


def test_structures_are_read_as_far_as_needed(calculator: TensorGraphCalculator) -> None:
    read = []
    endless = (read.append(index) or molecule(4, 1) for index in itertools.count())
    found = predict(calculator.model, endless, CUTOFF, max_atoms=8)
    assert [next(found).energy for _ in range(4)] == [pytest.approx(next(found).energy)] * 4
    assert len(read) <= 7
    assert len(list(predict(calculator.model, molecule(3, 1), CUTOFF))) == 1
    assert not list(predict(calculator.model, [], CUTOFF))


def test_predictions_name_the_structure_and_refuse_wrong_arguments(calculator: TensorGraphCalculator) -> None:
    model = calculator.model
    with pytest.raises(StructureError, match=r"^structure 2: atom 0 has the unknown species Au"):
        list(predict(model, [*FRAMES[:2], Atoms("Au")], CUTOFF, max_atoms=1))
    for arguments in ({"max_pairs": 0}, {"max_atoms": 2.5}, {"max_atoms": True}, {"cutoff": -1.0}):
        with pytest.raises((TypeError, ValueError), match="must be"):
            predict(model, FRAMES, **{"cutoff": CUTOFF, **arguments})
    with pytest.raises(ValueError, match="within 5"):
        list(predict(model, FRAMES, 5.0))


def test_predictions_that_overflow_name_the_structure() -> None:
    model = package("hipnn").Model().requires_grad_(False)
    model.energy_heads.of_blocks[0].weight.fill_(3e38)
    with pytest.raises(StructureError, match=r"^structure 0: the model's energy is not finite"):
        list(predict(model, FRAMES, CUTOFF))


@pytest.mark.parametrize("name", ["hipnn", "hiphop4"])
@pytest.mark.parametrize("atoms", [molecule(4, 3), crystal(4), Atoms("CO", [(0, 0, 0), (30, 0, 0)])], ids=str)
def test_hessians_against_differences_of_forces(name: str, atoms: Atoms) -> None:
    calculator, step = TensorGraphCalculator(GENERATED / name), 1e-4
    found = calculator.get_hessian(atoms)
    assert found.shape == (3 * len(atoms), 3 * len(atoms))
    np.testing.assert_allclose(found, found.T, atol=1e-9 * (1 + np.abs(found).max()))
    np.testing.assert_allclose(found.reshape(-1, len(atoms), 3).sum(axis=1), 0, atol=1e-9)  # translations
    expected = []
    for index in range(3 * len(atoms)):
        moved = [atoms.copy(), atoms.copy()]
        for sign, copy in zip((1, -1), moved, strict=True):
            copy.positions.flat[index] += sign * step
        plus, minus = (calculator.get_forces(copy) for copy in moved)
        expected.append((minus - plus).ravel() / (2 * step))
    np.testing.assert_allclose(found, expected, atol=1e-5 * (1 + np.abs(found).max()))


def test_a_hessian_gives_vibrations(calculator: TensorGraphCalculator) -> None:
    atoms = molecule(4, 3)
    data = VibrationsData.from_2d(atoms, calculator.get_hessian(atoms))
    energies = np.abs(data.get_energies())
    assert (np.sort(energies)[:3] < 1e-4).all()  # of translations


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True)])
def test_atomic_stresses_sum_to_the_stress(calculator: TensorGraphCalculator, pbc: tuple) -> None:
    atoms = crystal(2, pbc, n_atoms=4)
    atoms.calc = calculator
    assert atoms.get_stresses().shape == (4, 6)
    np.testing.assert_allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), atol=1e-12)
    repeated = atoms.repeat((2, 1, 2))
    repeated.calc = calculator
    copies = repeated.get_stresses().reshape(4, 4, 6)
    np.testing.assert_allclose(copies, [atoms.get_stresses() / 4] * 4, atol=1e-10)
    with pytest.raises(PropertyNotImplementedError, match="stress needs a cell"):
        calculator.get_stresses(molecule(3, 1))


def test_atomic_stresses_are_of_the_atoms_that_feel_them(calculator: TensorGraphCalculator) -> None:
    """Of two clusters out of each other's reach, each has its own share."""
    near, far = molecule(4, 1), molecule(3, 2)
    shifted = far.copy()
    shifted.positions += (40, 0, 0)
    both = near + shifted
    parts = []
    for atoms in (both, near, far):
        atoms.set_cell((80, 80, 80))
        atoms.pbc = True
        parts.append(calculator.get_stresses(atoms))
    np.testing.assert_allclose(parts[0], np.concatenate(parts[1:]), atol=1e-12)


def test_layer_energies_sum_to_the_energies(calculator: TensorGraphCalculator) -> None:
    atoms = molecule(5, 1)
    energies = calculator.get_potential_energies(atoms)
    terms = calculator.get_layer_energies(atoms)
    assert terms.shape == (len(calculator.model.energy_heads.of_blocks) + 1, 5)
    np.testing.assert_allclose(terms.sum(axis=0), energies, rtol=1e-12)
    alone = [calculator.get_layer_energies(Atoms([atom.symbol]))[0, 0] for atom in atoms]
    np.testing.assert_allclose(terms[0], alone, rtol=1e-12)
    assert not calculator.model.energy_heads._forward_hooks


def test_what_ase_has_no_names_for_comes_on_request_alone(calculator: TensorGraphCalculator) -> None:
    atoms = crystal(1)
    calculator.reset()
    calculator.get_forces(atoms)
    standard = {"energy", "free_energy", "energies", "forces", "stress"}
    assert set(calculator.results) == standard
    calculator.get_hessian(atoms)
    assert set(calculator.results) == standard | {"hessian"}
    assert set(calculator.export_properties()) - {"natoms"} == standard
    np.testing.assert_allclose(
        full_3x3_to_voigt_6_stress(atoms_stress(calculator, atoms)), calculator.get_stress(atoms)
    )


def atoms_stress(calculator: TensorGraphCalculator, atoms: Atoms) -> np.ndarray:
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms.get_stress(voigt=False)


def test_structures_that_a_generator_changes_in_place_are_those_that_it_gave(calculator: TensorGraphCalculator) -> None:
    atoms = crystal(2)
    cell = atoms.cell.array.copy()

    def scan():
        for scale in (0.95, 1.0, 1.05):
            atoms.set_cell(cell * scale, scale_atoms=True)
            yield atoms

    found = list(predict(calculator.model, scan(), calculator.package.architecture.CUTOFF))
    for one, copied in zip(found, [frame.copy() for frame in scan()], strict=True):
        expected = full_3x3_to_voigt_6_stress(atoms_stress(calculator, copied))
        np.testing.assert_allclose(one.stress, expected, rtol=1e-10)


def test_what_was_found_before_an_error_is_given(calculator: TensorGraphCalculator) -> None:
    predictions = predict(
        calculator.model, [molecule(3, 0), molecule(4, 1), Atoms("H2")], calculator.package.architecture.CUTOFF
    )
    assert [len(next(predictions).forces) for _ in range(2)] == [3, 4]
    with pytest.raises(StructureError, match=r"^structure 2: atoms 0"):
        next(predictions)


def test_derivatives_in_inference_mode() -> None:
    with torch.inference_mode():
        made = TensorGraphCalculator(GENERATED / "hipnn")
        atoms = molecule(4, 0)
        hessian = made.get_property("hessian", atoms)
    atoms.positions += 1e-9
    np.testing.assert_allclose(made.get_property("hessian", atoms), hessian, atol=1e-5)


def test_cells_that_are_flat_but_for_rounding_have_no_stress(calculator: TensorGraphCalculator) -> None:
    atoms = Atoms("H", cell=[[3.1, 0.2, 0], [0.3, 2.9, 0.1], [3.4, 3.1, 0.1]], pbc=[True, True, False])
    with pytest.raises(PropertyNotImplementedError):
        calculator.calculate(atoms, ["stress"])
