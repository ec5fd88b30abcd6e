"""The emitted network: equal to the published one, smooth, finite, reproducible, and strict about its input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from bench.published import Published
from tensorgraph.neighbours.lists import SMALLEST_DISTANCE
from tests.helpers import WITH_NETWORK, batch_of, molecule, package, small_model, variant

ORDERS = {"hiphop5": 4, "hiphop4": 3, "hipnn": None}  # vertices of the published set


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("group_norm", [True, False])
@pytest.mark.parametrize("name", ORDERS)
def test_equals_the_published_network(
    name: str, group_norm: bool, residual: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """Within the tolerance of the largest number; the published side has exact projectors, and float64 throughout."""
    module = variant(name, features=8, functions=7, atom_layers=2, group_norm=group_norm, residual=residual)
    published = Published(module.architecture, ORDERS[name], seed=3)
    model = module.Model().double()
    published.copy_weights_to(model, module)
    structures = molecule(9, seed=1), molecule(5, seed=2), Atoms("O")
    energy, forces = published.energies_and_forces(batch_of(module, *structures))
    ours = model.to(dtype).energy_and_forces(*batch_of(module, *structures, dtype=dtype).inputs)
    for found, expected in ((ours.energy, energy), (ours.forces.double(), forces)):
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_float32_agrees_with_float64(name: str) -> None:
    module = package(name)
    model = small_model(module, group_norm=False)
    batch = batch_of(module, molecule(8, seed=4))
    exact = model.energy_and_forces(*batch.inputs)
    rounded = model.float().energy_and_forces(*batch_of(module, molecule(8, seed=4), dtype=torch.float32).inputs)
    scale = float(exact.forces.abs().max())
    assert {rounded.energy.dtype, rounded.energies.dtype} == {torch.float64}
    assert {rounded.forces.dtype, rounded.virial.dtype, rounded.hierarchicality.dtype} == {torch.float32}
    torch.testing.assert_close(rounded.energy, exact.energy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rounded.forces.double(), exact.forces, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("group_norm", [True, False])
@pytest.mark.parametrize("name", WITH_NETWORK)
def test_gradients_of_parameters_are_finite_whatever_the_structure(name: str, group_norm: bool) -> None:
    module = package(name)
    model = small_model(module, group_norm=group_norm)
    square = Atoms("C4", [(0, 0, 0), (1.4, 0, 0), (0, 1.4, 0), (1.4, 1.4, 0)])
    line = Atoms("OCO", [(-1.2, 0, 0), (0, 0, 0), (1.2, 0, 0)])
    for structures in ([Atoms("H")], [Atoms()], [square], [line], [Atoms("N"), line, Atoms(), molecule(6, seed=5)]):
        model.zero_grad()
        out = model.energy_and_forces(*batch_of(module, *structures).inputs, create_graph=True)
        (out.energy.sum() + out.forces.square().sum() + out.hierarchicality.sum() + out.virial.sum()).backward()
        assert all(torch.isfinite(value).all() for value in out)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["hiphop4", "hipnn"])
def test_second_derivatives_for_training_on_forces(name: str) -> None:
    module = package(name)
    model = small_model(module)
    batch = batch_of(module, molecule(4, seed=6))
    parameters = list(model.parameters())

    def loss() -> torch.Tensor:
        return model.energy_and_forces(*batch.inputs, create_graph=True).forces.square().sum()

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    random = torch.Generator().manual_seed(0)
    directions = [torch.randn(p.shape, generator=random, dtype=p.dtype) for p in parameters]
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=step)
            values.append(loss().item())
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(direction, alpha=step)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("group_norm", [True, False])
def test_a_dimer_dissociates_continuously(group_norm: bool) -> None:
    module = package("hiphop5")
    model = small_model(module, group_norm=group_norm)
    cutoff = module.architecture.CUTOFF
    apart = model(*batch_of(module, Atoms("CO", [(0, 0, 0), (2 * cutoff, 0, 0)])).inputs).energy.detach()
    distances = cutoff - np.geomspace(1e-4, 1e-7, 4)
    for distance in distances:  # pairs are given by hand: also those that a neighbour list would leave out
        out = _dimer(model, distance)
        assert abs(float(out.energy - apart)) < 1e-6
        assert float(out.forces.abs().max()) < 1e-2 * (cutoff - distance) / 1e-4
    beyond = _dimer(model, cutoff + 1e-9)
    assert float(beyond.energy) == pytest.approx(float(apart), abs=1e-13)
    assert not beyond.forces.any()


def _dimer(model: torch.nn.Module, distance: float):
    pairs = torch.tensor([[0, 1], [1, 0]])
    displacements = torch.tensor([[distance, 0, 0], [-distance, 0, 0]], dtype=torch.float64)
    return model.energy_and_forces(torch.tensor([6, 8]), pairs, displacements)


def test_energies_of_many_heavy_atoms_keep_the_interaction_in_float32() -> None:
    module = package("hiphop4")
    crystal_ = bulk("C", cubic=True).repeat(3)
    interaction = {}
    for dtype in (torch.float32, torch.float64):
        inputs, model = batch_of(module, crystal_, dtype=dtype).inputs, module.Model(seed=0).to(dtype)
        model.set_atomic_energies({"C": 0.0})
        without = model(*inputs)
        model.set_atomic_energies({"C": -1030.5})  # exact in float32: what is lost, the sums lose
        shifted = model(*inputs)
        torch.testing.assert_close(shifted.energies, without.energies - 1030.5, rtol=0, atol=1e-10)
        torch.testing.assert_close(shifted.energy, without.energy - 1030.5 * len(crystal_), rtol=0, atol=1e-8)
        interaction[dtype] = without.energy
    torch.testing.assert_close(interaction[torch.float32], interaction[torch.float64], rtol=1e-5, atol=0)


def test_weights_are_reproducible_and_leave_the_global_random_state_alone() -> None:
    module = package("hiphop4")
    state = torch.get_rng_state()
    first, second, other = (module.Model(seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["blocks.0.interaction.layer.weights"], other["blocks.0.interaction.layer.weights"])


def test_initial_weights_are_distributed_like_the_published_ones() -> None:
    module = variant("hiphop4", features=64)
    published = Published(module.architecture, 3).network.blocks[1]
    ours = module.Model(seed=1).double().blocks[1]
    theirs, layer = published[0].base_layer, ours.interaction.layer
    torch.testing.assert_close(layer.sensitivity.mu, theirs.sensitivity.mu[0], rtol=0.5, atol=0)
    pairs = [(layer.weights, theirs.int_weights), (layer.mixing, theirs.mixing_weights)]
    pairs += [
        (layer.self_interaction.weight, theirs.selfint.weight),
        (ours.interaction.outer.weight, published[0].res_layer.weight),
    ]
    pairs += [(ours.atom_layers[0].layer.weight, published[1].base_layer.weight)]
    for mine, other in pairs:
        assert mine.std().item() == pytest.approx(other.std().item(), rel=0.1)


def test_works_where_gradients_are_off() -> None:
    module = package("hiphop4")
    model, batch = small_model(module), batch_of(module, molecule(4, seed=1))
    expected = model.energy_and_forces(*batch.inputs).forces
    with torch.no_grad():
        out = model.energy_and_forces(*batch.inputs)
    assert torch.equal(out.forces, expected)
    assert not any(value.requires_grad for value in out)
    with torch.inference_mode():
        for inputs in (batch, batch_of(module, molecule(4, seed=1))):  # made outside and inside
            out = model.energy_and_forces(*inputs.inputs)
            assert torch.equal(out.forces, expected)
            assert not any(value.requires_grad for value in out)


def test_hierarchicality_is_zero_where_both_terms_vanish() -> None:
    module = package("hipnn")
    model, batch = small_model(module), batch_of(module, molecule(3, seed=1))
    for head in (model.energy_heads.of_species, *model.energy_heads.of_blocks):
        torch.nn.init.zeros_(head.weight)
        if head.bias is not None:
            torch.nn.init.zeros_(head.bias)
    out = model(*batch.inputs)
    out.hierarchicality.sum().backward()
    assert out.hierarchicality.item() == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_atomic_energies_are_the_zeroth_head() -> None:
    module = package("hiphop4")
    model = small_model(module)
    batch = batch_of(module, Atoms("CH", [(0, 0, 0), (1.1, 0, 0)]))
    before = model(*batch.inputs).energies
    old = model.energy_heads.of_species.weight.detach().clone()
    model.set_atomic_energies({"C": -1030.5})
    shift = model(*batch.inputs).energies - before
    torch.testing.assert_close(
        shift, torch.stack([-1030.5 - old[0, 1], torch.zeros_like(old[0, 0])]), atol=1e-9, rtol=0
    )
    with pytest.raises(ValueError, match=r"unknown species Au, Zz; the model knows H, C, N, O"):
        model.set_atomic_energies({"Zz": 0, "C": 1, "Au": 2})


BAD_INPUT = {
    r"unknown species: atom 1: atomic number 79": {"numbers": [6, 79, 1]},
    r"atom index outside 0..2: pair 1: atoms 1 and 3": {"pairs": [[0, 1], [1, 3]]},
    r"atom index outside 0..2: pair 0: atoms -1 and 1": {"pairs": [[-1, 1], [1, 0]]},
    r"not finite: pair 0: atoms 0 and 1": {"displacements": [[float("nan"), 0, 0], [1.0, 0, 0]]},
    r"coincident atoms.*: pair 1: atoms 1 and 0": {"displacements": [[1.0, 0, 0], [1e-4, 0, 0]]},
    r"structure index outside 0..0: atom 2: 1": {"structure": [0, 0, 1]},
    r"pair of atoms of two structures: pair 0: atoms 0 and 1; pair 1": {"structure": [0, 1, 1], "n_structures": 2},
    r"pairs has the shape \[2, 1\], expected \[2, 2\]": {"pairs": [[0], [1]]},
    r"displacements has the shape \[2, 2\]": {"displacements": [[1.0, 0], [0, 1.0]]},
    r"structure has the shape \[2\], expected \[3\]": {"structure": [0, 0]},
}


@pytest.mark.parametrize("message", BAD_INPUT)
def test_bad_values_are_refused_by_name(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _three_atoms(**BAD_INPUT[message])


def test_bad_types_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"displacements are torch.float32 but the weights are torch.float64"):
        _three_atoms(displacements=torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"numbers must be int64, not torch.int32"):
        _three_atoms(numbers=torch.ones(3, dtype=torch.int32))
    with pytest.raises(ValueError, match="2 structures need `structure`"):
        _three_atoms(n_structures=2)


def _three_atoms(**changes):
    displacements = torch.tensor([[1.0, 0, 0], [-1, 0, 0]], dtype=torch.float64)
    inputs = {"numbers": [6, 1, 1], "pairs": [[0, 1], [1, 0]], "displacements": displacements, **changes}
    for name, value in inputs.items():
        if isinstance(value, list):
            inputs[name] = torch.tensor(value, dtype=torch.float64 if name == "displacements" else torch.int64)
    return small_model(package("hipnn")).energy_and_forces(**inputs)


def test_neighbour_lists_and_networks_agree_on_when_atoms_coincide() -> None:
    for name in WITH_NETWORK:
        assert package(name)._runtime.inputs.SMALLEST_DISTANCE == SMALLEST_DISTANCE


def test_the_model_says_what_it_is() -> None:
    model, constants = package("hipnn").Model(), package("hipnn").architecture
    assert (model.NAME, model.SPEC_DIGEST) == ("hipnn", constants.SPEC_DIGEST)
    assert "hiphop4: H C N O, 7 invariants of ranks up to 3, cutoff" in repr(package("hiphop4").Model())


def test_no_sensitivity_nor_its_derivatives_are_subnormal_in_float32() -> None:
    """Arithmetic with such numbers takes many times as long; what would be one of them is zero."""
    module = package("hiphop5")
    sensitivity = module.Model().blocks[0].interaction.layer.sensitivity
    distances = torch.linspace(0.5, 0.999 * module.architecture.CUTOFF, 2000).unsqueeze(1)
    inverse = (1 / distances).requires_grad_()
    radial = torch.cat([inverse, torch.ones_like(inverse)], dim=1)
    values = module.model.sensitivities(radial, sensitivity.mu, sensitivity.sigma)
    (slope,) = torch.autograd.grad(values.sum(), inverse, create_graph=True)
    exact = torch.exp(-0.5 * (sensitivity.sigma * (inverse - 1 / sensitivity.mu)).double().square())
    torch.testing.assert_close(values.double(), exact, rtol=1e-4, atol=1e-26)
    assert (exact < 1e-30).any()
    for found in (values, slope, torch.autograd.grad(slope.sum(), inverse)[0]):
        assert not ((found != 0) & (found.abs() < 1e-29)).any()


@pytest.mark.parametrize("cutoff", [3.0, 0.0, float("nan")])
def test_pairs_within_less_than_the_cutoff_are_refused(cutoff):
    model = small_model(package("hipnn"))
    inputs = batch_of(package("hipnn"), molecule(4, 0)).inputs[:5]
    for method in (model, model.energy_and_forces):
        method(*inputs, cutoff=package("hipnn").architecture.CUTOFF)
        method(*inputs)
        with pytest.raises(ValueError, match=f"pairs were listed within {cutoff} Å, but the model needs all within"):
            method(*inputs, cutoff=cutoff)
