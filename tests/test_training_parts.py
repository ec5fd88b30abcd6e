"""The parts of a training: samples, batches, loss, schedules, the optimiser, the scales that data give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from training_runs import SPEC, copper

from tensorgraph.dataset import LabelledStructure, Origin
from tensorgraph.errors import DataError, TrainingError
from tensorgraph.model.batch import batch_structures
from tensorgraph.model.labels import TARGETS, LabelChoice, read_labels
from tensorgraph.potential import package_of_spec
from tensorgraph.spec import parse_spec
from tensorgraph.training.batches import epoch_batches, ordered_batches, share
from tensorgraph.training.config import BatchConfig, StartConfig, parse_config
from tensorgraph.training.data import _split
from tensorgraph.training.loss import TERMS, error_sums
from tensorgraph.training.optimisation import averaged_model, freeze, optimizer_of, rate_at, weights_at
from tensorgraph.training.samples import Samples, list_samples
from tensorgraph.training.scaling import scale_to_data, smoothing
from tensorgraph.training.soap import Scale, Soap
from tensorgraph.training.start import Subject, set_atomic_energies

CHOICE = LabelChoice.of(TARGETS, TARGETS, {})
F64, CPU = torch.float64, torch.device("cpu")


def labelled(frames: list[Atoms] | tuple[Atoms, ...]) -> list[LabelledStructure]:
    return [LabelledStructure(a, read_labels(a, CHOICE), Origin("cu.xyz", k)) for k, a in enumerate(frames)]


def listed(tmp_path, memory: float = 1.0) -> Samples:
    return list_samples(labelled(copper()), 4.5, [29], "float64", memory, tmp_path)


@pytest.fixture
def model():
    return package_of_spec(parse_spec(SPEC)).Model(seed=0).double()


def test_pairs_on_the_disk_are_those_in_memory(tmp_path):
    held, stored = listed(tmp_path), listed(tmp_path, memory=1e-6)
    assert stored.on_disk()
    assert not held.on_disk()
    assert held.digest == stored.digest
    assert not list(tmp_path.iterdir())  # files without names: nothing stays of a process that was killed
    chosen = [5, 0, 17]
    expected = batch_structures([copper()[k] for k in chosen], 4.5, F64, targets=TARGETS, optional=TARGETS)
    for samples in (held, stored):
        batch = samples.batch(chosen, F64, CPU)
        for name in ("numbers", "pairs", "displacements", "structure", "energy", "forces", "has_stress"):
            assert torch.equal(getattr(batch, name), getattr(expected, name)), name
        assert torch.equal(batch.stress[batch.has_stress], expected.stress[batch.has_stress])


def test_a_disk_that_is_full_is_told(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(DataError, match="No space left on device"):
        listed(tmp_path, memory=1e-6)


@pytest.mark.parametrize("limits", [BatchConfig(structures=5), BatchConfig(atoms=20), BatchConfig(pairs=900, atoms=30)])
def test_an_epoch_has_every_structure_once_within_the_limits(tmp_path, limits):
    samples = listed(tmp_path)
    batches = epoch_batches(samples, limits, seed=1, epoch=2)
    assert sorted(np.concatenate(batches)) == list(range(len(samples)))
    for chosen in batches:
        assert len(chosen) <= (limits.structures or 99)
        assert samples.n_atoms[chosen].sum() <= (limits.atoms or 10**6)
        assert samples.n_pairs[chosen].sum() <= (limits.pairs or 10**6) or len(chosen) == 1
    again = epoch_batches(samples, limits, seed=1, epoch=2)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))
    other = np.concatenate(epoch_batches(samples, limits, seed=1, epoch=3))
    assert not np.array_equal(np.concatenate(batches), other)
    parts = [share(batches[0], rank, 2) for rank in range(2)]
    assert sorted(np.concatenate(parts)) == sorted(batches[0])


def test_the_sums_of_the_loss_are_those_of_a_naive_loop(tmp_path, model):
    samples = listed(tmp_path)
    samples.has[2, 1] = samples.has[4, 0] = False
    batch = samples.batch(range(6), F64, CPU)
    found = model.energy_and_forces(*batch.inputs)
    expected, ends = dict.fromkeys(TERMS, 0.0), samples.atom_ends
    for k, atoms in enumerate(copper()[:6]):
        mine = slice(ends[k], ends[k + 1])
        if samples.has[k, 0]:
            expected["energy"] += float(((found.energy[k] - atoms.get_potential_energy()) / len(atoms)) ** 2)
        if samples.has[k, 1]:
            expected["forces"] += float(np.square(found.forces[mine].numpy() - atoms.get_forces()).sum())
        if samples.has[k, 2]:
            stress = found.virial[k].numpy() / atoms.get_volume() - atoms.get_stress(voigt=False)
            expected["stress"] += float(np.square(stress).sum())
    expected["hierarchicality"] = float(found.hierarchicality.sum())
    assert error_sums(model, batch).tolist() == pytest.approx([expected[name] for name in TERMS], rel=1e-9)
    counts = samples.label_counts(range(6))
    assert (counts["energy"], counts["forces"]) == (5, 3 * (36 - len(copper()[2])))
    energies = error_sums(model, batch, ("energy",)).tolist()
    assert energies == pytest.approx([expected["energy"], 0, 0, 0], rel=1e-9)


def test_schedules():
    config = parse_config(
        "model: a\ndata: {train: b}\nloss: {energy: [1, 100], forces: [0, 2]}\n"
        "optimizer: {rate: 0.1, warmup: 10, last_rate: 0.2}\n"
    )
    rates = [rate_at(config.optimizer, step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.1, rel=0.03)
    assert rates[100] == pytest.approx(0.02)
    middle = weights_at(config.loss, 0.5)
    assert (middle["energy"], middle["forces"]) == pytest.approx((10, 1))
    assert weights_at(config.loss, 1.0)["energy"] == pytest.approx(100)


def gradients(parameter: torch.Tensor, step: int) -> torch.Tensor:
    """Of a badly conditioned function, with noise that is the same in every run."""
    noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step), dtype=F64)
    return parameter.detach() * torch.logspace(-2, 1, parameter.numel(), dtype=F64).view(parameter.shape) + 0.1 * noise


def test_what_is_no_matrix_is_changed_as_adamw_does():
    ours, theirs = (torch.nn.Parameter(torch.ones(7, dtype=F64)) for _ in range(2))
    options = {"lr": 0.01, "weight_decay": 0.1}
    optimizers = (
        Soap([{"params": [ours], **options}], 0.01, (0.9, 0.95)),
        torch.optim.AdamW([theirs], betas=(0.9, 0.95), eps=1e-10, **options),
    )
    for step in range(25):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradients(parameter, step)
            optimizer.step()
    assert torch.allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("matrices", [False, True])
def test_scales_are_a_change_of_variables(matrices):
    random = torch.Generator().manual_seed(3)
    start = torch.randn((5, 4, 1), generator=random, dtype=F64)
    size = torch.rand((5, 4, 1), generator=random, dtype=F64) + 0.5
    mixing = torch.eye(5, dtype=F64) + 0.2 * torch.randn((5, 5), generator=random, dtype=F64)
    plain = torch.nn.Parameter(start.clone())
    scaled = torch.nn.Parameter(size * torch.tensordot(mixing, start, dims=1))
    group = {"lr": 0.01, "weight_decay": 0.1, "matrices": matrices}
    first = Soap([{"params": [plain], **group}], 0.01)
    second = Soap([{"params": [scaled], **group}], 0.01, scales={scaled: Scale(size, mixing)})
    for step in range(25):
        target = torch.ones_like(start) * math.cos(step)
        for parameter, optimizer in ((plain, first), (scaled, second)):
            parameter.grad = None
            value = parameter if parameter is scaled else size * torch.tensordot(mixing, parameter, dims=1)
            (value - target).pow(4).sum().backward()
            optimizer.step()
    assert torch.allclose(scaled, size * torch.tensordot(mixing, plain, dims=1), rtol=1e-9)


def test_runs_that_differ_by_rounding_stay_together():
    runs = []
    for shift in (0.0, 1e-14):
        parameter = torch.nn.Parameter(torch.ones((3, 40, 6), dtype=F64))
        optimizer = Soap([{"params": [parameter], "matrices": True}], 0.01)
        for step in range(40):
            parameter.grad = gradients(parameter, step) * (1 + shift * torch.arange(6, dtype=F64))
            optimizer.step()
        runs.append(parameter.detach())
    assert float((runs[0] - runs[1]).abs().max()) < 1e-9


def test_soap_is_faster_than_adam_where_a_rotation_hides_the_scales():
    random = torch.Generator().manual_seed(0)
    left, right = torch.linalg.qr(torch.randn((2, 8, 8), generator=random, dtype=F64))[0]
    weights = torch.logspace(0, -2, 8, dtype=F64)
    target = torch.randn((8, 8), generator=random, dtype=F64)
    losses = []
    for matrices in (False, True):
        parameter = torch.nn.Parameter(torch.zeros((8, 8), dtype=F64))
        optimizer = Soap([{"params": [parameter], "matrices": matrices}], 0.02)
        for step in range(200):
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 200)
            loss = (weights[:, None] * weights * (left.T @ (parameter - target) @ right).square()).sum()
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < 0.5 * losses[0]


def test_new_weights_have_the_scales_of_the_data(tmp_path, model):
    package, batch = package_of_spec(parse_spec(SPEC)), listed(tmp_path).batch(range(12), F64, CPU)
    scales = scale_to_data(model, package, batch, StartConfig(factor=0.5))
    seen = []

    def look(layer, arguments):
        around = layer.environment(*arguments)
        seen.append((around.square().mean(dim=(0, 1)), package.invariants(around)))

    for block in model.blocks:
        block.interaction.layer.register_forward_pre_hook(look)
    model(*batch.inputs)
    for block, (sizes, values) in zip(model.blocks, seen, strict=True):
        layer = block.interaction.layer
        assert torch.allclose(sizes, torch.ones_like(sizes), rtol=1e-6)
        sent = values.std(dim=0, correction=0) * scales[layer.mixing].size[:, :, 0]
        relative = sent / 0.5 ** (torch.tensor([[1.0], [2], [2], [3], [3]], dtype=F64) - 1)
        relative = relative.detach()
        assert float(relative.max()) == pytest.approx(1)
        assert (relative > 0.999).double().mean() > 0.8  # the rest hardly varies, and is not blown up


def test_smoothing_makes_neighbours_alike():
    matrix = smoothing(12, 2.0)
    assert torch.allclose(matrix, matrix.T)
    covariance = matrix @ matrix.T
    assert float(covariance[5, 6] / covariance[5, 5]) == pytest.approx(math.exp(-1 / 8), abs=0.05)
    assert torch.equal(smoothing(3, 0.0), torch.eye(3, dtype=F64))


def test_energies_of_species_are_found_by_least_squares(tmp_path, model):
    samples = listed(tmp_path)
    model.set_atomic_energies({"Cu": -3.25})
    for chosen in ordered_batches(samples):
        samples.energy[chosen] = model(*samples.batch(chosen, F64, CPU).inputs).energy.detach().numpy()
    subject = Subject(package_of_spec(parse_spec(SPEC)), None)
    model.set_atomic_energies({"Cu": 1.0})
    set_atomic_energies(model, subject, parse_config("model: a\ndata: {train: b}\n"), samples)
    assert float(model.energy_heads.of_species.weight.detach()) == pytest.approx(-3.25, rel=1e-9)


def test_energies_of_isolated_atoms(tmp_path, model):
    samples, subject = listed(tmp_path), Subject(package_of_spec(parse_spec(SPEC)), None)
    atoms = [Atoms("Cu", info={"energy": -0.5}), Atoms("Au", info={"energy": -9.0})]
    write(tmp_path / "atoms.xyz", atoms)
    config = parse_config(f"model: a\ndata: {{train: b}}\natomic_energies: {tmp_path / 'atoms.xyz'}\n")
    set_atomic_energies(model, subject, config, samples)
    assert float(model.energy_heads.of_species.weight.detach()) == pytest.approx(-0.5)
    write(tmp_path / "atoms.xyz", atoms[1:])
    with pytest.raises(TrainingError, match="atomic_energies lacks Cu; the data have Cu"):
        set_atomic_energies(model, subject, config, samples)
    write(tmp_path / "atoms.xyz", [Atoms("Cu2", positions=np.eye(3)[:2], info={"energy": -0.5})])
    with pytest.raises(TrainingError, match="2 atoms; allowed as atomic_energies: one atom a frame"):
        set_atomic_energies(model, subject, config, samples)


def test_the_groups_of_the_optimiser(model):
    config = parse_config("model: a\ndata: {train: b}\noptimizer: {decay: 0.5}\n").optimizer
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {named[id(p)]: group for group in optimizer_of(model, config).param_groups for p in group["params"]}
    assert groups.keys() == set(named.values())
    for name, group in groups.items():
        still = name.endswith(("bias", "mu", "sigma")) or "of_species" in name
        assert (group["weight_decay"] == 0) is still, name
    assert groups["energy_heads.of_species.weight"]["factor"] == 0.1
    assert groups["blocks.0.interaction.layer.mixing"]["matrices"]


def test_freezing_needs_names_that_exist(model):
    freeze(model, ("blocks.*",))
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"energy_heads"}
    with pytest.raises(TrainingError, match=r"'layers\.0' is the name of no parameter"):
        freeze(model, ("layers.0",))
    with pytest.raises(TrainingError, match="nothing is left to train"):
        freeze(model, ("*",))


def test_the_moving_average_forgets_its_start(model):
    average = averaged_model(model, 0.9)
    first = [parameter.detach().clone() for parameter in model.parameters()]
    average.update_parameters(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    for _ in range(200):
        average.update_parameters(model)
    for before, mean in zip(first, average.module.parameters(), strict=True):
        assert torch.allclose(mean, before + 1, atol=1e-6)


def test_states_have_the_order_of_elements_that_files_give_back(model):
    """Else products are rounded in another way where a run goes on."""
    optimizer = optimizer_of(model, parse_config("model: a\ndata: {train: b}\n").optimizer, None)
    for seed in range(12):  # beyond a renewal of the bases
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    tensors = [x for state in optimizer.state.values() for x in state.values()]
    assert len(tensors) > 20
    assert all(tensor.is_contiguous() for tensor in tensors)


def test_the_validation_part_has_its_share_of_every_kind():
    frames = [atoms.copy() for atoms in copper()]
    for index, atoms in enumerate(frames):
        atoms.info["energy"], atoms.arrays["forces"] = 0.0, np.full((len(atoms), 3), float(index % 3))
    structures = labelled(frames)
    parts = _split(structures, 0.25, seed=4)
    assert len(parts.valid) == 6
    assert len(parts.train) == 18
    sizes = [float(one.labels.forces[0, 0]) for one in parts.valid]
    assert sorted(sizes) == [0, 0, 1, 1, 2, 2]
    assert [one.origin for one in _split(structures, 0.25, seed=4).valid] == [one.origin for one in parts.valid]
    assert [one.origin for one in _split(structures, 0.25, seed=5).valid] != [one.origin for one in parts.valid]
    with pytest.raises(DataError, match="cannot be split"):
        _split(structures[:1], 0.5, seed=0)
