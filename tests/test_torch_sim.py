"""Models for torch-sim: batched states give what the calculator gives, and torch-sim's own programs run with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.compiler import compile_spec
from tensorgraph.emit.writing import write_package
from tensorgraph.errors import PackageError, StructureError
from tensorgraph.spec import parse_spec
from tests.helpers import GENERATED, crystal, molecule

ts = pytest.importorskip("torch_sim", reason="torch-sim is not installed: pip install -e '.[torch-sim]'")

from torch_sim.models.interface import validate_model_outputs  # noqa: E402

from tensorgraph.torch_sim import TensorGraphModel  # noqa: E402

HIPHOP4 = GENERATED / "hiphop4"


def state_of(structures: list[Atoms], dtype: torch.dtype = torch.float64) -> ts.SimState:
    return ts.io.atoms_to_state(structures, torch.device("cpu"), dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), ("float32", 2e-5)])
def test_a_batch_agrees_with_the_calculator(dtype: torch.dtype | str, tolerance: float) -> None:
    structures = [crystal(seed, n_atoms=n) for seed, n in enumerate((2, 1, 4))]
    model = TensorGraphModel(HIPHOP4, dtype=dtype)
    found = model(state_of(structures, model.dtype))
    calculator = TensorGraphCalculator(HIPHOP4, dtype=str(dtype).removeprefix("torch."))
    assert {value.dtype for value in found.values()} == {model.dtype}

    def assert_near(values: torch.Tensor, expected: np.ndarray) -> None:
        np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance * np.abs(expected).max())

    assert_near(found["energy"], np.array([calculator.get_potential_energy(atoms) for atoms in structures]))
    assert_near(found["forces"], np.concatenate([calculator.get_forces(atoms) for atoms in structures]))
    stress = np.array([full_3x3_to_voigt_6_stress(matrix) for matrix in found["stress"].numpy()])
    assert_near(torch.from_numpy(stress), np.array([calculator.get_stress(atoms) for atoms in structures]))


def test_molecules_have_no_stress() -> None:
    structures = [molecule(4, seed) for seed in range(2)]
    found = TensorGraphModel(HIPHOP4)(state_of(structures))
    calculator = TensorGraphCalculator(HIPHOP4)
    assert set(found) == {"energy", "forces"}
    np.testing.assert_allclose(found["forces"], np.concatenate([calculator.get_forces(atoms) for atoms in structures]))


def test_a_dictionary_is_a_state_too() -> None:
    state, model = state_of([crystal(0), crystal(1)]), TensorGraphModel(HIPHOP4)
    fields = {"positions", "cell", "pbc", "atomic_numbers", "system_idx"}
    found = model({name: getattr(state, name) for name in fields})
    assert all(torch.equal(found[name], value) for name, value in model(state).items())


def test_torch_sim_accepts_the_interface(tmp_path) -> None:
    text = (GENERATED / "hipnn" / "spec.yaml").read_text().replace("name: hipnn", "name: alloy")
    text = text.replace("[H, C, N, O]", "[Si, Fe]").replace("features: 128", "features: 8")
    assert "[Si, Fe]" in text
    model = TensorGraphModel(write_package(compile_spec(parse_spec(text)).package, tmp_path))
    validate_model_outputs(model, model.device, model.dtype)


def test_dynamics_of_torch_sim_keeps_its_energy() -> None:
    """Of an untrained model too: its forces are the derivatives of its energies."""
    model = TensorGraphModel(HIPHOP4)
    init, step = ts.nve(model, dt=torch.tensor(1e-3), kT=torch.tensor(0.01))  # ps and eV
    state = init(state_of([crystal(seed) for seed in range(3)]), seed=0)
    totals = []
    for _ in range(20):
        kinetic = ts.calc_kinetic_energy(momenta=state.momenta, masses=state.masses, system_idx=state.system_idx)
        totals.append(state.energy + kinetic)
        state = step(state)
    drift = torch.stack(totals) - totals[0]
    assert drift.shape == (20, 3)
    assert float(drift.abs().max()) < 1e-3


def test_errors_are_those_of_the_package() -> None:
    with pytest.raises(StructureError, match="unknown species Au; the model knows"):
        TensorGraphModel(HIPHOP4)(state_of([Atoms("Au", cell=[4, 4, 4], pbc=True)]))
    with pytest.raises(TypeError, match="float32"):
        TensorGraphModel(HIPHOP4)(state_of([crystal(0)], torch.float32))
    with pytest.raises(PackageError):
        TensorGraphModel(GENERATED / "nothing")


def test_results_that_are_not_finite_are_an_error() -> None:
    model = TensorGraphModel(HIPHOP4, device="cpu", dtype="float32")
    model.model.energy_heads.of_blocks[0].weight.fill_(3e38)
    with pytest.raises(StructureError, match=r"system 0: .* not finite"):
        model(state_of([molecule(4, 0), molecule(5, 1)], torch.float32))
