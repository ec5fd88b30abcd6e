"""Networks of the general form: the interpreter against the modules, physics by the battery, training, checkpoints."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tensorgraph.battery import verify
from tensorgraph.battery.certificate import check_certificate
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.cli import main
from tensorgraph.compiler import Compilation, compile_spec
from tensorgraph.emit import write_package
from tensorgraph.errors import PackageError, SpecError
from tensorgraph.model import load_package
from tensorgraph.network.messages import lower_messages, paths
from tensorgraph.network.radial import lower_bessel, lower_chebyshev
from tensorgraph.scalar import evaluate
from tensorgraph.spec import load_spec, parse_spec
from tests.test_statements import check
from tests.training_runs import copper, prepare

SPECS = Path(__file__).parents[1] / "specs"
COVARIANT = (SPECS / "covariant2.yaml").read_text().replace("channels: 32", "channels: 5")
ACE = """
name: ace
species: [Mo, O]
radial: {kind: chebyshev, functions: 5, soft_min: 0.5, cutoff: 4.0, mix: species_pair, channels: 2}
layers:
  - density: {max_rank: 2}
    basis: {family: linear, body_order: 4, across: channels, degree: {limit: 8, of: 1 + n + l}}
readout: {kind: linear, per: species}
"""
DEEP = """
name: deep
species: [H, O]
radial: {kind: bessel, functions: 4, cutoff: 4.0}
layers:
  - density: {max_rank: 2, channels: 4}
    basis: {family: linear, body_order: 3, outputs: [0, 1, 2]}
    update: {activation: silu, norm: group, atom_layers: 1}
  - density: {max_rank: 1, channels: 3, of: features}
    basis: {family: linear, body_order: 3, outputs: [0, 1]}
    update: {atom_layers: 1}
    repeat: 2
  - density: {max_rank: 1, channels: 4, of: features}
    basis: {family: linear, body_order: 3, outputs: [0, 1]}
    update: {residual: none, atom_layers: 2}
  - density: {max_rank: 2, channels: 4, of: features}
    basis: {family: flexible, body_order: 4}
readout: {kind: linear, per: species, of: last}
"""
GAP = """
name: gap
species: [H, O]
radial: {kind: inverse_gaussian, functions: 4, soft_min: 0.7, soft_max: 3.5, cutoff: 4.0}
layers:
  - density: {max_rank: 2, channels: 4}
    basis: {family: linear, body_order: 3, outputs: [0, 2]}
    update: {activation: silu}
  - density: {max_rank: 2, channels: 3, of: features}
    basis: {family: linear, body_order: 3, outputs: [0, 1, 2]}
    update: {activation: silu}
  - density: {max_rank: 1, of: features}
    basis: {family: linear, body_order: 3}
readout: {kind: linear, per: species}
"""
UPDATED = ACE.replace("degree: {limit: 8, of: 1 + n + l}}", "degree: {limit: 4, of: 1 + n + l}}\n    update: {}")
UPDATED = UPDATED.replace(", per: species", "").replace("name: ace", "name: updated")
FOUR = """
name: four
species: [H, O]
radial: {kind: hypersphere, cutoff: 4.0, rfac0: 0.95, rmin0: 0.3}
layers:
  - density: {dimension: 4, max_rank: 3, channels: 3, self: 0.8}
    basis: {family: flexible, body_order: 4}
    update: {activation: silu}
readout: {kind: linear}
"""
CASES = {
    "four": FOUR,
    "covariant2": COVARIANT,
    "mtp16": (SPECS / "mtp16.yaml").read_text(),
    "ace": ACE,
    "deep": DEEP,
    "gap": GAP,
    "updated": UPDATED,
}


@pytest.fixture(scope="module", params=CASES)
def built(request, tmp_path_factory):
    compilation = compile_spec(parse_spec(CASES[request.param]))
    return compilation, load_package(write_package(compilation.package, tmp_path_factory.mktemp(request.param)))


def test_the_interpreter_gives_what_the_module_gives(built: tuple[Compilation, object]) -> None:
    """Energies, forces and the gradients of all weights."""
    compilation, module = built
    check(compilation.network, module, 6, compilation.spec.radial.cutoff)


def test_energies_do_not_depend_on_how_a_structure_is_turned(built) -> None:
    _, module = built
    model = module.Model(seed=2).double()
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3) * 1.9
    positions = grid + random.uniform(-0.2, 0.2, (8, 3))
    numbers = model.species[torch.from_numpy(random.integers(0, len(model.SPECIES), 8))]
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    turn *= -np.sign(np.linalg.det(turn))  # a reflection too

    def predicted(places):
        apart = places[None] - places[:, None]
        distance = np.linalg.norm(apart, axis=-1)
        pairs = np.array(np.nonzero((distance < model.CUTOFF) & (distance > 0)))
        found = model.energy_and_forces(numbers, torch.from_numpy(pairs), torch.from_numpy(apart[tuple(pairs)]))
        return found.energy.item(), found.forces.numpy()

    (energy, forces), (turned_energy, turned_forces) = predicted(positions), predicted(positions @ turn.T)
    assert turned_energy == pytest.approx(energy, rel=1e-11)
    np.testing.assert_allclose(turned_forces, forces @ turn.T, atol=1e-10 * np.abs(forces).max())


def test_the_package_is_verified(tmp_path: Path) -> None:
    """The whole battery in float64: symmetries, derivatives, limits, C, PyTorch, interpreted Triton, export."""
    compilation = compile_spec(parse_spec(COVARIANT))
    found = verify(write_package(compilation.package, tmp_path), dtypes=[torch.float64])
    assert found.passed, [row for row in found.rows if not row.check.passed]


def test_the_basis_of_every_layer_is_verified(tmp_path: Path) -> None:
    """A claim of the second basis that does not hold fails, and says of which basis it is."""
    target = write_package(compile_spec(parse_spec(COVARIANT)).package, tmp_path)
    rows = check_certificate(load_package(target))
    assert all(row.passed for row in rows)
    assert {row.name.endswith("(basis 2)") for row in rows} == {True, False}
    manifest = json.loads((target / "manifest.json").read_text())
    (later,) = manifest["later_layers"]
    gone = later["basis"]["invariants"].pop()
    (target / "manifest.json").write_text(json.dumps(manifest))
    failed = [row for row in check_certificate(load_package(target)) if not row.passed]
    assert failed, gone
    assert all(row.name.endswith("(basis 2)") for row in failed)
    (target / "manifest.json").write_text(json.dumps(manifest | {"later_layers": {"basis": later["basis"]}}))
    with pytest.raises(PackageError, match="later_layers"):
        check_certificate(load_package(target))


def test_a_potential_with_covariant_features_is_trained_and_used(tmp_path: Path, capsys) -> None:
    """One command from a spec and structures to a checkpoint, which alone is a calculator."""
    config = prepare(tmp_path, steps=200, loss="{energy: 1}", data=f"{{train: {tmp_path / 'cu.xyz'}, valid: 0.1}}")
    (tmp_path / "cu.yaml").write_text(COVARIANT.replace("covariant2", "cu").replace("[H, C, N, O]", "[Cu]"))
    assert main(["train", str(config)]) == 0
    errors = [float(x) for x in re.findall(r"valid [0-9.]+ meV/atom, ([0-9.]+) eV", capsys.readouterr().err)]
    calculator = TensorGraphCalculator(tmp_path / "run" / "model.safetensors", dtype="float64")
    atoms = copper()[0].copy()
    atoms.calc = calculator
    assert np.isfinite(atoms.get_potential_energy())
    truth = copper()[0].get_forces()
    assert np.abs(atoms.get_forces() - truth).mean() < 0.7 * np.abs(truth).mean(), errors


def test_a_checkpoint_holds_its_spec(tmp_path: Path) -> None:
    spec = parse_spec(COVARIANT)
    again = parse_spec(spec.canonical_json())
    assert again == spec
    assert again.digest == spec.digest == load_spec(_written(tmp_path, spec.to_yaml())).digest


def _written(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("channels", [4, 3])
def test_residuals_add_the_features_that_a_layer_was_given(channels: int, tmp_path: Path) -> None:
    """With mixings of zero they are all that is left, of every rank: as they are, or through a matrix."""
    text = (
        DEEP.replace("channels: 3", f"channels: {channels}").replace("silu", "none").replace(", atom_layers: 1}", "}")
    )
    text = text.replace("    repeat: 2\n", "").replace("update: {atom_layers: 1}", "update: {activation: none}")
    package = load_package(write_package(compile_spec(parse_spec(text)).package, tmp_path))
    model, layers = package.Model(seed=0).double(), []
    layer = model.layers[1]
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            if name.startswith(("mixing", "self_interaction")):
                weight.zero_()
    layer.register_forward_hook(lambda _, given, made: layers.append((given[-2], made[-1])))
    places = torch.from_numpy(np.random.default_rng(0).uniform(0, 3, (5, 3)))
    pairs = torch.tensor([(i, j) for i in range(5) for j in range(5) if i != j]).T
    model(torch.full((5,), 8), pairs, places[pairs[1]] - places[pairs[0]])
    ((before, after),) = layers
    assert before.shape[1:] == (9, 4)
    for rank, part in {0: slice(0, 1), 1: slice(1, 4)}.items():
        skip = getattr(layer, f"skip_{rank}", None)
        assert (skip is None) == (channels == 4)
        expected = before[:, part] if skip is None else before[:, part] @ skip.weight.T
        assert expected.abs().max() > 1e-6
        torch.testing.assert_close(after[:, part], expected)


def test_a_spec_that_meant_another_network_is_refused() -> None:
    """`residual: true` did not add features before: a checkpoint with it would give other energies."""
    with pytest.raises(SpecError, match=r"`layers\[0\].update.residual` is true; allowed: all, atom_layers or none"):
        parse_spec(COVARIANT.replace("activation: silu", "activation: silu, residual: true"))


@pytest.mark.parametrize("ranks", [(0,), (0, 1), (0, 1, 2), (0, 2)])
def test_messages_are_every_coupling_once(ranks) -> None:
    """As many as Clebsch and Gordan allow with parity; those of rank 0 are products of radial weights."""
    chosen = paths(2, ranks)
    allowed = {(a, b, c) for a in range(3) for b in ranks for c in range(3) if abs(a - b) <= c <= a + b}
    assert set(chosen) == {(a, b, c) for a, b, c in allowed if (a + b + c) % 2 == 0}
    program = lower_messages(2, ranks).forward
    size = sum(2 * rank + 1 for rank in ranks)
    found = evaluate(program, {"tensors": [1.0] + [0.0] * 8, "features": [2.0] + [0.0] * (size - 1),
                               "weights": [3.0] * len(chosen)})["messages"]  # fmt: skip
    assert found == [6.0] + [0.0] * 8


@pytest.mark.parametrize("lower", [lambda: lower_chebyshev(6, 0.7, 4.3), lambda: lower_bessel(6, 4.3)])
def test_radial_functions_end_smoothly_at_the_cutoff(lower) -> None:
    programs = lower()
    count = programs.forward.outputs[0][0].size

    def at(r):
        values = evaluate(programs.forward, {"distance": [r]})["radial_functions"]
        units = np.eye(count).tolist()
        given = ({"distance": [r], "grad_radial_functions": unit} for unit in units)
        slopes = [evaluate(programs.backward, one)["grad_distance"][0] for one in given]
        return np.array(values), np.array(slopes)

    values, slopes = at(4.3 - 1e-6)
    assert np.abs(values).max() < 1e-9
    assert np.abs(slopes).max() < 1e-3
    assert not any(np.any(x) for x in at(4.4))
    middle = (at(2.0)[0] - at(1.9999)[0]) / 1e-4
    np.testing.assert_allclose(at(1.99995)[1], middle, rtol=1e-4, atol=1e-4)


def test_bessel_functions_are_sines() -> None:
    r, cutoff = 1.7, 4.3
    d = r / cutoff
    envelope = 1 - 28 * d**6 + 48 * d**7 - 21 * d**8
    expected = [np.sqrt(2 / cutoff) * np.sin(n * np.pi * d) / r * envelope for n in range(1, 6)]
    found = evaluate(lower_bessel(5, cutoff).forward, {"distance": [r]})["radial_functions"]
    np.testing.assert_allclose(np.array(found, dtype=float), expected, rtol=1e-12)
