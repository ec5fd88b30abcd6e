"""The ASE calculator: properties, periodic directions, caching, and errors that name the atom."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError, PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from ase.units import fs
from hypothesis import given
from hypothesis import strategies as st

from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.errors import CheckpointError, PackageError, StructureError
from tensorgraph.model.checkpoint import save_checkpoint
from tests.helpers import GENERATED, batch_of, build, crystal, molecule, package


@pytest.fixture(scope="module")
def calculator() -> TensorGraphCalculator:
    return TensorGraphCalculator(GENERATED / "hiphop4")


def with_calculator(atoms: Atoms, calculator: TensorGraphCalculator) -> Atoms:
    atoms.calc = calculator
    return atoms


def test_properties_have_the_shapes_and_the_consistency_that_ase_expects(calculator: TensorGraphCalculator) -> None:
    atoms = with_calculator(crystal(1, n_atoms=3), calculator)
    energy = atoms.get_potential_energy()
    assert isinstance(energy, float)
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, rel=1e-12)
    assert atoms.get_forces().shape == (3, 3)
    assert atoms.get_stress().shape == (6,)
    assert {value.dtype for value in atoms.calc.results.values() if isinstance(value, np.ndarray)} == {np.dtype(float)}


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, True, False)])
def test_forces_and_stress_against_finite_differences(calculator: TensorGraphCalculator, pbc: tuple) -> None:
    atoms = with_calculator(crystal(2, pbc), calculator)
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=2e-5)
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-6)


@given(seed=st.integers(0, 2**16), pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_a_supercell_has_the_energy_per_atom_of_its_small_cell(calculator, seed: int, pbc: tuple) -> None:
    atoms = crystal(seed, pbc)
    larger = atoms.repeat([2 if periodic else 1 for periodic in pbc])
    copies = len(larger) // len(atoms)
    small, large = (with_calculator(system, calculator) for system in (atoms, larger))
    assert large.get_potential_energy() == pytest.approx(copies * small.get_potential_energy(), rel=1e-10)
    np.testing.assert_allclose(large.get_forces(), np.tile(small.get_forces(), (copies, 1)), atol=1e-8)
    if any(pbc):
        np.testing.assert_allclose(large.get_stress(), small.get_stress(), atol=1e-8)


def test_wrapping_atoms_into_the_cell_changes_nothing(calculator: TensorGraphCalculator) -> None:
    atoms = crystal(5)
    wrapped = atoms.copy()
    wrapped.positions += np.array([[3, -2, 1], [-1, 0, 4]]) @ atoms.cell.array
    energies = [with_calculator(system, calculator).get_potential_energy() for system in (atoms, wrapped)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-12)


def test_stress_needs_a_periodic_direction_and_a_volume(calculator: TensorGraphCalculator) -> None:
    in_vacuum = molecule(3, 1)
    boxed = molecule(3, 1)
    boxed.set_cell((9, 9, 9))
    wire = Atoms("CC", [(0, 0, 0), (1.4, 0, 0)], cell=(3, 0, 0), pbc=(True, False, False))
    unknown = Atoms("CC", [(0, 0, 0), (1.4, 0, 0)], cell=np.diag((3, np.nan, 3)), pbc=(True, False, False))
    for atoms in (in_vacuum, boxed, wire, unknown):
        energy = with_calculator(atoms, calculator).get_potential_energy()
        with pytest.raises(PropertyNotImplementedError, match="stress needs a cell"):
            atoms.get_stress()
        assert atoms.get_potential_energy() == energy


def test_one_atom_and_atoms_without_neighbours(calculator: TensorGraphCalculator) -> None:
    alone = with_calculator(Atoms("N"), calculator)
    energy = alone.get_potential_energy()
    assert np.isfinite(energy)
    assert not alone.get_forces().any()
    apart = with_calculator(Atoms("N2", [(0, 0, 0), (30, 0, 0)]), calculator)
    assert apart.get_potential_energy() == pytest.approx(2 * energy, rel=1e-12)
    assert not apart.get_forces().any()


def test_results_are_kept_until_something_that_matters_changes(calculator: TensorGraphCalculator, monkeypatch) -> None:
    atoms = with_calculator(crystal(3), calculator)
    calls = []
    original = type(calculator)._predict
    monkeypatch.setattr(type(calculator), "_predict", lambda self, system: (calls.append(1), original(self, system))[1])
    atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    atoms.set_initial_magnetic_moments([1.0, 0.0])
    atoms.get_forces()
    assert len(calls) == 1
    changes = [
        lambda: atoms.rattle(0.01, seed=1),
        lambda: atoms.set_pbc((True, False, True)),
        lambda: atoms.set_cell(atoms.cell * 1.01),
        lambda: atoms.set_chemical_symbols("HO"),
    ]
    for count, change in enumerate(changes, start=2):
        change()
        atoms.get_potential_energy(), atoms.get_forces()
        assert len(calls) == count


BAD = {
    r"atom 1 has the unknown species Au; the model knows H C N O": Atoms("HAu", [(0, 0, 0), (2, 0, 0)]),
    r"atoms 0 \(H\) and 2 \(O\) coincide": Atoms("HCO", [(0, 0, 0), (2, 0, 0), (0, 0, 0)]),
    r"atom 1 \(C\) has the position .*nan": Atoms("HC", [(0, 0, 0), (2, np.nan, 0)]),
    r"atom 0 \(H\) has the position .*inf": Atoms("H", [(np.inf, 0, 0)]),
    r"the cell is singular": Atoms("H", cell=(3, 0, 3), pbc=True),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_by_name_and_leaves_no_stale_results(calculator, message: str) -> None:
    with_calculator(molecule(3, 1), calculator).get_potential_energy()
    with pytest.raises(StructureError, match=f"^{message}"):
        with_calculator(BAD[message].copy(), calculator).get_potential_energy()
    assert not calculator.results


def test_dynamics_conserve_energy_in_float32_too() -> None:
    for dtype, drift in (("float64", 2e-4), ("float32", 2e-3)):
        atoms = with_calculator(molecule(4, 7, spread=2.0), TensorGraphCalculator(GENERATED / "hipnn", dtype=dtype))
        before = atoms.get_total_energy()
        VelocityVerlet(atoms, timestep=0.2 * fs).run(25)
        assert atoms.get_total_energy() == pytest.approx(before, abs=drift * max(1, abs(before)))


def test_weights_come_from_the_checkpoint(tmp_path: Path) -> None:
    module, path = package("hipnn"), tmp_path / "model.safetensors"
    save_checkpoint(module.Model(seed=8), module, path)
    energies = {}
    for checkpoint in (None, path):
        atoms = with_calculator(molecule(4, 1), TensorGraphCalculator(GENERATED / "hipnn", checkpoint=checkpoint))
        energies[checkpoint] = atoms.get_potential_energy()
    assert energies[None] != energies[path]
    with pytest.raises(CheckpointError, match="belongs to the spec hipnn"):
        TensorGraphCalculator(GENERATED / "hiphop4", checkpoint=path)


def test_weights_in_float64_stay_exact(tmp_path: Path) -> None:
    module, path = package("hipnn"), tmp_path / "model.safetensors"
    model = module.Model(seed=1).double()
    model.set_atomic_energies({"H": -13.587222780835477, "C": -1030.567812345678})
    save_checkpoint(model, module, path)
    atoms = with_calculator(molecule(30, 3, symbols="HC"), TensorGraphCalculator(GENERATED / "hipnn", path))
    out = model.energy_and_forces(*batch_of(module, atoms).inputs)
    assert atoms.get_potential_energy() == out.energy.item()
    np.testing.assert_array_equal(atoms.get_forces(), out.forces)


def test_copies_carry_the_weights_and_are_independent(tmp_path: Path) -> None:
    module, path = package("hipnn"), tmp_path / "model.safetensors"
    save_checkpoint(module.Model(seed=8).double(), module, path)
    atoms = with_calculator(molecule(4, 1), TensorGraphCalculator(GENERATED / "hipnn", path))
    energy = atoms.get_potential_energy()
    for twin in (copy.deepcopy(atoms), with_calculator(molecule(4, 1), copy.copy(atoms.calc))):
        assert twin.calc is not atoms.calc
        assert twin.calc.package is atoms.calc.package
        assert twin.get_potential_energy() == energy
        twin.calc.model.energy_heads.of_species.weight.fill_(1.0)
        twin.rattle(0.1)
        twin.get_potential_energy()
        assert atoms.get_potential_energy() == energy
        assert with_calculator(atoms.copy(), atoms.calc).get_potential_energy() == energy


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pickles_work_in_a_new_process(tmp_path: Path, dtype: str) -> None:
    module, path = package("hipnn"), tmp_path / "model.safetensors"
    save_checkpoint(module.Model(seed=8).double(), module, path)
    calculator = TensorGraphCalculator(GENERATED / "hipnn", path, dtype=dtype)
    atoms = with_calculator(molecule(4, 1), calculator)
    forces = atoms.get_forces()
    atoms.calc.reset()  # so that the other process has to compute them
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_allclose(pool.submit(Atoms.get_forces, atoms).result(), forces, rtol=1e-9, atol=1e-6)


def test_a_pickle_whose_package_was_rebuilt_is_refused(tmp_path: Path) -> None:
    pickled = pickle.dumps(TensorGraphCalculator(build(tmp_path, cutoff=6.5)))
    assert isinstance(pickle.loads(pickled), TensorGraphCalculator)
    build(tmp_path, cutoff=5.6)
    with pytest.raises(PackageError, match="was rebuilt for another spec since the calculator was pickled"):
        pickle.loads(pickled)


def test_unknown_keywords_are_refused(calculator: TensorGraphCalculator) -> None:
    allowed = "allowed: package_dir, checkpoint, device, dtype, skin, atoms, label, directory"
    with pytest.raises(TypeError, match=f"^TensorGraphCalculator has no keyword 'model_path'; {allowed}$"):
        TensorGraphCalculator(GENERATED / "hipnn", model_path="trained.safetensors")
    for keyword in ("restart", "parameters", "xc"):
        with pytest.raises(TypeError, match=f"no keyword '{keyword}'"):
            TensorGraphCalculator(GENERATED / "hipnn", **{keyword: None})
    with pytest.raises(TypeError, match=r"^TensorGraphCalculator.set\(\) has no keyword 'checkpoint'; it takes none$"):
        calculator.set(checkpoint="trained.safetensors")
    assert calculator.set() == {}


def test_keywords_of_ase_are_taken(tmp_path: Path) -> None:
    atoms = molecule(3, 1)
    calculator = TensorGraphCalculator(GENERATED / "hipnn", atoms=atoms, label="run", directory=tmp_path)
    assert atoms.calc is calculator
    assert calculator.label == f"{tmp_path}/run"
    with pytest.raises(CheckpointError):
        TensorGraphCalculator(GENERATED / "hipnn", tmp_path / "none.safetensors", atoms=(other := molecule(3, 1)))
    assert other.calc is None


def test_calculate_takes_what_ase_gives(calculator: TensorGraphCalculator) -> None:
    atoms = molecule(3, 1)
    expected = with_calculator(atoms.copy(), calculator).get_potential_energy()
    for arguments in ((["energy"], None), (None, None), ("energy",), (("forces", "energy"), ["positions"]), ()):
        calculator.reset()
        calculator.calculate(atoms, *arguments)
        assert calculator.results["energy"] == expected
    calculator.calculate(properties=["forces"])  # of the atoms from before
    assert calculator.results["energy"] == expected


def test_unknown_properties_leave_no_stale_results(calculator: TensorGraphCalculator) -> None:
    atoms = with_calculator(molecule(3, 1), calculator)
    atoms.get_potential_energy()
    with pytest.raises(
        PropertyNotImplementedError, match=r"^dipole is not a property of TensorGraphCalculator: it has"
    ):
        calculator.calculate(molecule(3, 2), ["energy", "dipole"])
    assert not calculator.results
    with pytest.raises(TypeError, match=r"^calculate\(\) needs ase.Atoms, not list"):
        calculator.calculate([atoms])
    assert atoms.get_potential_energy() == with_calculator(atoms.copy(), calculator).get_potential_energy()


def test_dtypes_and_devices_by_name_or_as_torch_has_them() -> None:
    for dtype in ("float32", torch.float32):
        calculator = TensorGraphCalculator(GENERATED / "hipnn", dtype=dtype, device=torch.device("cpu"))
        assert calculator.model.dtype == torch.float32
    for device in ("cuda:99", "gpu", "meta", None):
        with pytest.raises(ValueError, match=r"^device .* (cannot be used|holds no values).* allowed here: cpu"):
            TensorGraphCalculator(GENERATED / "hipnn", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_missing_gpu_is_named() -> None:
    with pytest.raises(ValueError, match=r"^device 'cuda' cannot be used: .*; allowed here: cpu$"):
        TensorGraphCalculator(GENERATED / "hipnn", device="cuda")


def test_results_are_copies(calculator: TensorGraphCalculator) -> None:
    atoms = with_calculator(crystal(1), calculator)
    forces = atoms.get_forces()
    for get in (atoms.get_forces, atoms.get_stress, atoms.get_potential_energies):
        before = get().copy()
        get()[:] = 99
        np.testing.assert_array_equal(get(), before)
    kept = calculator.results["forces"]
    with_calculator(crystal(2), calculator).get_forces()
    np.testing.assert_array_equal(kept, forces)


def test_overflow_is_an_error_and_not_a_result() -> None:
    calculator = TensorGraphCalculator(GENERATED / "hipnn", dtype="float32")
    calculator.model.energy_heads.of_blocks[0].weight.fill_(3e38)
    with pytest.raises(StructureError, match=r"^the model's energy is not finite: the structure is out of its range"):
        with_calculator(molecule(3, 1), calculator).get_potential_energy()
    assert not calculator.results


def test_weights_can_be_changed(tmp_path: Path) -> None:
    module = package("hipnn")
    paths = [tmp_path / f"{seed}.safetensors" for seed in (3, 4)]
    for seed, path in enumerate(paths, start=3):
        save_checkpoint(module.Model(seed=seed), module, path)
    atoms = with_calculator(molecule(3, 1), TensorGraphCalculator(GENERATED / "hipnn", paths[0]))
    first = atoms.get_potential_energy()
    atoms.calc.load(paths[1])
    assert not atoms.calc.results
    second = atoms.get_potential_energy()
    assert (
        second
        == with_calculator(molecule(3, 1), TensorGraphCalculator(GENERATED / "hipnn", paths[1])).get_potential_energy()
        != first
    )
    with pytest.raises(CheckpointError):
        atoms.calc.load(tmp_path / "none.safetensors")
    assert atoms.calc.results["energy"] == atoms.get_potential_energy() == second


def test_a_checkpoint_is_enough(tmp_path: Path) -> None:
    module, path = package("hipnn"), tmp_path / "model.safetensors"
    save_checkpoint(module.Model(seed=8), module, path)
    alone, both = (TensorGraphCalculator(*arguments) for arguments in ((path,), (GENERATED / "hipnn", path)))
    energies = [with_calculator(molecule(3, 1), calculator).get_potential_energy() for calculator in (alone, both)]
    assert energies[0] == energies[1]
    assert pickle.loads(pickle.dumps(alone)).get_potential_energy(molecule(3, 1)) == energies[0]
    with pytest.raises(CheckpointError, match="beside the checkpoint"):
        TensorGraphCalculator(path, path)
    with pytest.raises(TypeError, match="checkpoint must be one path, not list; CommitteeCalculator"):
        TensorGraphCalculator(GENERATED / "hipnn", checkpoint=[path, path])


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown dtype 'half'; allowed: float32, float64"):
        TensorGraphCalculator(GENERATED / "hipnn", dtype="half")
    with pytest.raises(CalculatorSetupError, match=r"calculate\(\) needs atoms"):
        TensorGraphCalculator(GENERATED / "hipnn").calculate()
    with pytest.raises(PackageError, match="not a generated package"):
        TensorGraphCalculator(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "bare", "spec_digest": "0"}')
    (tmp_path / "__init__.py").write_text("")
    with pytest.raises(PackageError, match="has no energies: its spec has no `network` section"):
        TensorGraphCalculator(tmp_path)
