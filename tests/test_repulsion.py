"""The repulsion of nuclei: against its formula, with every derivative, and beside what a network learns."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers

from tensorgraph.battery import verify
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.compiler import compile_spec
from tensorgraph.emit import write_package
from tensorgraph.model import load_package
from tensorgraph.spec import load_spec, parse_spec
from tests.test_statements import check

SPECS = Path(__file__).parents[1] / "specs"
SHORT = """
name: short
basis: {family: hiphop, body_order: 3, max_rank: 1}
network:
  species: [H, C, O]
  features: 4
  interactions: 1
  sensitivity: {functions: 5, soft_min: 0.5, soft_max: 3.0, cutoff: 4.0}
"""
GENERAL = """
name: general
species: [H, C, O]
radial: {kind: bessel, functions: 4, cutoff: 4.0}
layers:
  - density: {max_rank: 1, channels: 4}
    basis: {family: linear, body_order: 3, outputs: [0, 1]}
    update: {}
  - density: {max_rank: 1, channels: 4, of: features}
    basis: {family: linear, body_order: 3}
    update: {}
readout: {kind: linear, of: all}
"""
RADII = {"H": 0.6, "C": 0.8, "O": 0.7}
REPULSION = f"repulsion: {{kind: zbl, radii: {list(RADII.values())}}}\n"
WITH = {"short": SHORT + "  " + REPULSION, "general": GENERAL + REPULSION}
WITHOUT = {"short": SHORT, "general": GENERAL}


def energy_of(first: str, second: str, r: float) -> float:
    """In eV, as Ziegler, Biersack and Littmark have it, switched off at the sum of the radii."""
    one, other = atomic_numbers[first], atomic_numbers[second]
    reduced = r * (one**0.23 + other**0.23) / 0.4685
    screening = 0.18175 * np.exp(-3.1998 * reduced) + 0.50986 * np.exp(-0.94229 * reduced)
    screening += 0.28022 * np.exp(-0.4029 * reduced) + 0.02817 * np.exp(-0.20162 * reduced)
    d = r / (RADII[first] + RADII[second])
    switch = 1 - 28 * d**6 + 48 * d**7 - 21 * d**8 if d < 1 else 0.0
    return 14.3996454784 * one * other / r * screening * switch


@pytest.fixture(scope="module", params=WITH)
def models(request, tmp_path_factory):
    """The compilation, its module, and a model with and without the repulsion, of the same weights."""
    compilations = [compile_spec(parse_spec(texts[request.param])) for texts in (WITH, WITHOUT)]
    folders = [tmp_path_factory.mktemp(name) for name in ("with", "without")]
    packages = [load_package(write_package(c.package, f)) for c, f in zip(compilations, folders, strict=True)]
    return compilations[0], packages[0], *(package.Model(seed=1).double() for package in packages)


def predicted(model, symbols, positions):
    apart = positions[None] - positions[:, None]
    pairs = np.array(np.nonzero(np.linalg.norm(apart, axis=-1)))
    numbers = torch.tensor([atomic_numbers[symbol] for symbol in symbols])
    return model.energy_and_forces(numbers, torch.from_numpy(pairs), torch.from_numpy(apart[tuple(pairs)]))


@pytest.mark.parametrize("pair", [("H", "H"), ("C", "O"), ("O", "C"), ("C", "C")])
@pytest.mark.parametrize("r", [0.01, 0.3, 0.9, 1.15, 1.45, 2.5])
def test_a_pair_has_the_energy_and_forces_of_the_formula(models, pair, r):
    _, _, repelled, plain = models
    positions, step = np.array([[0, 0, 0], [0, 0, r]]), 1e-6
    found, without = (predicted(model, pair, positions) for model in (repelled, plain))
    energy = energy_of(*pair, r)
    assert (found.energy - without.energy).item() == pytest.approx(energy, rel=1e-11, abs=1e-11)
    assert (found.energies - without.energies).tolist() == pytest.approx([energy / 2] * 2, rel=1e-11, abs=1e-11)
    slope = (energy_of(*pair, r + step) - energy_of(*pair, r - step)) / (2 * step)
    assert (found.forces - without.forces)[1, 2].item() == pytest.approx(-slope, rel=1e-6, abs=1e-6)


def test_a_structure_has_the_sum_over_its_pairs(models):
    _, _, repelled, plain = models
    symbols, positions = "HCOHC", np.random.default_rng(0).uniform(0, 1.5, (5, 3))
    expected = sum(
        energy_of(symbols[i], symbols[j], np.linalg.norm(positions[i] - positions[j]))
        for i in range(5)
        for j in range(i)
    )
    found, without = (predicted(model, symbols, positions).energy.item() for model in (repelled, plain))
    assert found - without == pytest.approx(expected, rel=1e-10)


def test_it_ends_with_two_derivatives(models):
    _, _, repelled, plain = models

    def slope(r):
        found = (predicted(m, "CO", np.array([[0, 0, 0], [0, 0, r]])).forces[1, 2].item() for m in (repelled, plain))
        return np.subtract(*found)

    end = RADII["C"] + RADII["O"]
    assert slope(end + 1e-9) == 0.0
    assert abs(slope(end - 1e-6)) < 1e-7 * slope(1.0)  # the slope falls as the square of the distance to the end
    assert (slope(end - 2e-4) - slope(end - 1e-4)) / 1e-4 < 1e-2 * slope(1.0)


def test_the_interpreter_gives_what_the_module_gives(models):
    """Energies, forces and the gradients of all weights."""
    compilation, package, _, _ = models
    check(compilation.network, package, 5, 4.0)


def test_energies_keep_it_beside_large_energies_of_atoms(models):
    """In float32: terms are summed in float64."""
    _, _, repelled, plain = models
    single = [copy.deepcopy(model).float() for model in (repelled, plain)]
    for model in single:
        model.set_atomic_energies({"C": -2e4, "O": -2e4})
    for r in (1.1, 1.3, 1.45):
        positions = np.array([[0, 0, 0], [0, 0, r]], dtype=np.float32)
        found = (predicted(model, "CO", positions).energy.item() for model in single)
        assert np.subtract(*found) == pytest.approx(energy_of("C", "O", r), rel=2e-5, abs=1e-6)


def test_energy_terms_hold_it_last_and_hierarchicality_does_not(models):
    _, package, repelled, plain = models
    positions = np.array([[0, 0, 0], [0, 0, 1.1]])
    found, without = (predicted(model, "CO", positions) for model in (repelled, plain))
    torch.testing.assert_close(found.hierarchicality, without.hierarchicality)
    assert package.Model.FIXED_TERMS == 1
    calculator = TensorGraphCalculator(str(Path(package.__file__).parent), dtype="float64")
    atoms = Atoms("CO", positions)
    terms = calculator.get_layer_energies(atoms)
    assert terms[-1].sum() == pytest.approx(energy_of("C", "O", 1.1))
    np.testing.assert_allclose(terms.sum(axis=0), calculator.get_property("energies", atoms), rtol=1e-12)


def test_weights_are_those_of_the_model_without_it(models):
    """A repulsion brings none, and draws none: the same seed gives the same potential beside it."""
    _, _, repelled, plain = models
    assert repelled.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in repelled.state_dict().items())


def test_the_package_is_verified(tmp_path):
    """The whole battery in float64: symmetries, derivatives, limits, C, PyTorch, interpreted Triton, export."""
    package = write_package(compile_spec(parse_spec(WITH["general"])).package, tmp_path)
    found = verify(package, dtypes=[torch.float64])
    assert found.passed, [row for row in found.rows if not row.check.passed]


def test_a_spec_without_it_has_the_digest_that_it_had():
    spec = parse_spec(SHORT)
    assert "repulsion" not in spec.canonical_json()
    assert load_spec(SPECS / "hiphop5.yaml").digest.startswith("9a7950451237c9da")
    for text in WITH.values():
        assert parse_spec(parse_spec(text).to_yaml()) == parse_spec(text)
