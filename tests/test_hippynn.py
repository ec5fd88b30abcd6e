"""Imported networks give what hippynn 0.1.3 itself gives: energies, forces, and gradients of a loss on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms, units
from safetensors.torch import load_file
from torch import Tensor

from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.cli import main
from tensorgraph.hippynn import converted, network_of, package_graphs
from tensorgraph.model.batch import Batch
from tensorgraph.potential import load_model, package_of_checkpoint
from tests.helpers import assert_close, batch_of, molecule
from tests.hippynn_graphs import CUTOFF, SPECIES, Graph, graph

EXACT = 1e-10
"""Of energies, forces and gradients in float64, each relative to its largest number."""

NETWORKS: dict[str, dict[str, Any]] = {
    "hipnn": {"n_interaction_layers": 2, "resnet": True},
    "hipnn plain": {"n_interaction_layers": 2, "resnet": False},
    "hipnn 1 interaction": {"n_interaction_layers": 1, "resnet": True, "n_atom_layers": 3},
    "hipnn plain 1 interaction": {"n_interaction_layers": 1, "resnet": False, "n_atom_layers": 0},
    "hipnn as many species as features": {"species": ("H", "O"), "n_features": 2},
    "hipnn interacting energies alone": {"first_is_interacting": True},
    "hipnn linear sensitivities": {"sensitivity_type": "linear", "species": ("O",)},
    "hiphop4 rank 2": {"n_max": 3, "l_max": 2, "group_norm": True, "species": ("C", "H")},
    "hiphop4 rank 2 no norm": {"n_max": 3, "l_max": 2, "group_norm": False, "n_interaction_layers": 1},
    "hiphop4 rank 2 plain": {"n_max": 3, "l_max": 2, "resnet": False, "group_norm": True, "n_interaction_layers": 1},
    "hiphop4 rank 2 plain no norm": {"n_max": 3, "l_max": 2, "resnet": False, "group_norm": False},
    "hiphop3 rank 1": {"n_max": 2, "l_max": 1, "resnet": False},
    "hiphop5": {"n_max": 4, "l_max": 3, "group_norm": True},
    "hiphop5 plain no norm": {"n_max": 4, "l_max": 3, "resnet": False, "group_norm": False, "n_interaction_layers": 1},
}


COMPILED = ("hipnn", "hiphop5")
"""Which of them run the C programs too, which take seconds to compile; the others run in plain PyTorch."""


@pytest.fixture(autouse=True)
def plain_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORGRAPH_CPU", "pytorch")


def structures(species: tuple[str, ...]) -> list[Atoms]:
    """Molecules of several sizes, one a lonely atom."""
    return [molecule(n, seed, symbols="".join(s for s in species if len(s) == 1)) for seed, n in enumerate((5, 1, 7))]


def imported(file: Path, *arguments: object) -> Path:
    """The checkpoint that the command line makes of a file."""
    out = file.with_suffix(".safetensors")
    assert main(["import-hippynn", str(file), "--out", str(out), *map(str, arguments)]) == 0
    return out


def spec_file(folder: Path, published: Graph, **changes: object) -> Path:
    """A spec that matches the network, written from what hippynn was asked for."""
    network, hop = published.network, hasattr(published.network, "l_max")
    norm = hop and network.interaction_layers[0].group_norm is not None
    values = {
        "species": f"[{', '.join(published.species)}]",
        "features": network.nf,
        "interactions": network.ni,
        "atom_layers": network.n_layers_per_block,
        "sensitivity": f"{{functions: {network.n_sensitivities}, cutoff: {CUTOFF}}}",
        "group_norm": str(norm).lower(),
        "residual": str(network.resnet).lower(),
        **changes,
    }
    order, rank = (network.n_max + 1, network.l_max) if hop else (2, 0)
    lines = ["name: wanted", f"basis: {{family: hiphop, body_order: {order}, max_rank: {rank}}}", "network:"]
    path = folder / "wanted.yaml"
    path.write_text("\n".join([*lines, *(f"  {key}: {value}" for key, value in values.items())]))
    return path


def totals(energies: Tensor, batch: Batch) -> Tensor:
    """[n_structures] from those of atoms."""
    return energies.new_zeros(batch.n_structures).index_add(0, batch.structure, energies)


def loss(energies: Tensor, forces: Tensor) -> Tensor:
    return energies.square().sum() + 3 * forces.square().sum()


def gradients(published: Graph, atoms: list[Atoms]) -> dict[str, Tensor]:
    """Of hippynn's loss by all its weights, under the names of its state dict; maps, which are not trained, as is."""
    energies, forces = published.energies_and_forces(atoms)
    loss(energies, forces).backward()
    module = torch.nn.ModuleDict({"network": published.network, "energy": published.heads})
    trained = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    return published.bare_state() | trained


@pytest.mark.parametrize("name", NETWORKS)
def test_energies_forces_and_gradients_are_those_of_hippynn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in COMPILED:
        monkeypatch.setenv("TENSORGRAPH_CPU", "native")
    published = graph(**NETWORKS[name])
    atoms = structures(published.species)
    checkpoint = imported(published.save(tmp_path / "best_model.pt"), "--cutoff", CUTOFF)
    package = package_of_checkpoint(checkpoint)
    model = load_model(checkpoint)
    batch = batch_of(package, *atoms)
    output = model.energy_and_forces(*batch.inputs, create_graph=True)
    found = totals(output.energies, batch), output.forces
    expected = published.energies_and_forces(atoms)
    assert_close([x.detach() for x in found], [x.detach() for x in expected], EXACT)
    assert expected[1].abs().max() > 1e-3  # there is something to compare

    loss(*found).backward()
    theirs = converted(network_of(gradients(published, atoms)), package_graphs(package))
    for key, parameter in model.named_parameters():
        if key != "energy_heads.of_species.weight" or not published.heads.first_is_interacting:
            assert_close([parameter.grad], [theirs[key]], EXACT)


@pytest.mark.parametrize("name", ["hipnn plain", "hiphop4 rank 2"])
def test_bare_networks_and_specs_give_the_same_model(name: str, tmp_path: Path) -> None:
    published = graph(**NETWORKS[name])
    whole, bare = published.save(tmp_path / "whole.pt"), published.save(tmp_path / "bare.pt", whole=False)
    species = ("--species", ",".join(published.species))
    spec = ("--spec", spec_file(tmp_path, published))
    checkpoints = [
        imported(whole, "--cutoff", CUTOFF),
        imported(bare, "--cutoff", CUTOFF, *species),
        imported(whole, *spec),
        imported(bare, *spec),
    ]
    atoms = structures(published.species)[0]
    (expected,), forces = (x.detach().numpy() for x in published.energies_and_forces([atoms]))
    for checkpoint in checkpoints:
        atoms.calc = TensorGraphCalculator(checkpoint)
        assert atoms.get_potential_energy() == pytest.approx(expected, rel=EXACT)
        assert abs(atoms.get_forces() - forces).max() <= EXACT * abs(forces).max()


@pytest.mark.parametrize("resnet", [True, False])
def test_a_spec_may_name_the_species_in_another_order(resnet: bool, tmp_path: Path) -> None:
    published = graph(resnet=resnet)
    spec = spec_file(tmp_path, published, species=f"[{', '.join(reversed(SPECIES))}]")
    model = load_model(imported(published.save(tmp_path / "best_model.pt"), "--spec", spec))
    assert model.energy_heads.of_species.weight.tolist() == [published.heads.layers[0].weight[0].tolist()[::-1]]
    package = package_of_checkpoint(tmp_path / "best_model.safetensors")
    atoms = structures(SPECIES)
    expected = published.energies_and_forces(atoms)[0].detach()
    batch = batch_of(package, *atoms)
    assert_close([totals(model(*batch.inputs).energies.detach(), batch)], [expected], EXACT)


@pytest.mark.parametrize(
    ("unit", "in_ev", "rounded"),
    [
        ("eV", 1.0, 1.0),
        ("Hartree", units.Hartree, 27.2114),
        ("kcal/mol", units.kcal / units.mol, 0.0433641),
        ("kJ/mol", units.kJ / units.mol, 0.0103643),
    ],
)
def test_energies_and_forces_are_converted_to_ev(unit: str, in_ev: float, rounded: float, tmp_path: Path) -> None:
    published = graph()
    checkpoint = imported(published.save(tmp_path / "model.pt"), "--cutoff", CUTOFF, "--energy-unit", unit)
    atoms = structures(SPECIES)[0]
    atoms.calc = TensorGraphCalculator(checkpoint)
    (energy,), forces = (x.detach().numpy() for x in published.energies_and_forces([atoms]))
    assert atoms.get_potential_energy() == pytest.approx(energy * in_ev, rel=EXACT)
    assert abs(atoms.get_forces() - forces * in_ev).max() <= EXACT * abs(forces * in_ev).max()
    assert float(f"{in_ev:.6g}") == rounded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_keep_their_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    """Also where hippynn's own maps are rounded to it."""
    published = graph(n_max=2, l_max=2)
    state = {name: x.to(dtype) if x.is_floating_point() else x for name, x in published.module.state_dict().items()}
    torch.save(state, tmp_path / "model.pt")
    checkpoint = imported(tmp_path / "model.pt", "--cutoff", CUTOFF)
    kept = load_file(checkpoint)
    assert {tensor.dtype for tensor in kept.values()} == {dtype}
    head = next(value for name, value in state.items() if name.endswith("layers.2.weight"))
    assert torch.equal(kept["energy_heads.of_blocks.1.weight"], head)


def test_what_is_taken_as_given_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = graph().save(tmp_path / "best_model.pt")
    capsys.readouterr()
    out = imported(file, "--cutoff", CUTOFF, "--name", "mine", "--energy-unit", "kcal/mol")
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n"
    assert "name: mine" in printed.err
    for assumed in ("softplus", "1e-5", "4.5 Å", "H, C, N, O", "kcal/mol"):
        assert assumed in printed.err.splitlines()[-1]
