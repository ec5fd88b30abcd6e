"""Least squares of parameters in which the energy is affine: exact, and by the loss of the trainer."""

import csv
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from helpers import GENERATED, package, small_model

from tensorgraph.dataset import read_structures
from tensorgraph.errors import TrainingError
from tensorgraph.training.config import BatchConfig, TrainConfig, parse_config
from tensorgraph.training.data import label_choice
from tensorgraph.training.design import FreeParameters, Triangle, design_rows
from tensorgraph.training.least_squares import LABELS, LeastSquares, solve
from tensorgraph.training.loss import error_sums
from tensorgraph.training.optimisation import freeze
from tensorgraph.training.run import train
from tensorgraph.training.samples import list_samples

FABRIC = SimpleNamespace(is_global_zero=True, world_size=1, global_rank=0, device=torch.device("cpu"))


def molecules(n=6, seed=0):
    """Of H, C and O, in cells; with random labels: some lack forces, some a stress, one its energy."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(n):
        atoms = Atoms("COHHCO"[: 3 + index % 4], cell=[9, 9, 9], pbc=True)
        atoms.positions = np.arange(len(atoms))[:, None] * [1.0, 0.5, 0.2] + random.normal(0, 0.15, (len(atoms), 3))
        if index != 1:
            atoms.info["REF_energy"] = float(random.normal())
        if index != 2:
            atoms.arrays["REF_forces"] = random.normal(size=(len(atoms), 3))
        if index % 2:
            stress = random.normal(0, 0.01, (3, 3))
            atoms.info["REF_stress"] = stress + stress.T
        made.append(atoms)
    return made


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "train.xyz"
    write(file, molecules(), format="extxyz")
    document = f"""
model: {GENERATED / "hipnn"}
method: least_squares
dtype: float64
data: {{train: {file}, valid: 0}}
freeze: ["blocks.*"]
ridge: 0
out: {tmp_path / "run"}
"""
    return parse_config(document)


def changed(config, **keys):
    """The config with other values, checked as those of a file are."""
    given = config.model_dump(exclude_unset=True)
    return TrainConfig.model_validate(given | keys)


def samples_of(config, tmp_path, part="train"):
    found = read_structures(getattr(config.data, part), label_choice(config.data))
    return list_samples(found, 6.6, (1, 6, 7, 8), "float64", 1.0, tmp_path)


def affine_model(seed=0):
    model = small_model(package("hipnn"), seed)
    freeze(model, ("blocks.*",))
    return model


def fitted(config, model, samples, valid=None, tell=lambda _: None, **limits):
    fit = LeastSquares(FABRIC, config, model, (samples, valid), tell)
    return fit.fit(**limits)


def relabelled(samples, model):
    """The samples, all of them with the labels that a model gives."""
    batch = samples.batch(np.arange(len(samples)), torch.float64, torch.device("cpu"))
    found = model.energy_and_forces(*batch.inputs)
    samples.energy[:] = found.energy.numpy()
    samples.forces[:] = found.forces.numpy()
    samples.stress[:] = (found.virial / batch.volume[:, None, None]).numpy()
    return samples


def whole(samples):
    return samples.batch(np.arange(len(samples)), torch.float64, torch.device("cpu"))


def loss(config, model, samples, create_graph=False):
    counts = samples.label_counts(np.arange(len(samples)))
    sums = error_sums(model, whole(samples), LABELS, create_graph)
    return sum(getattr(config.loss, name)[-1] / counts[name] * sums[k] for k, name in enumerate(LABELS))


def test_known_weights_are_found(config, tmp_path):
    truth, model = affine_model(), affine_model()
    samples = relabelled(samples_of(config, tmp_path), truth)
    free = FreeParameters.of(model)
    free.set(torch.randn(len(free), generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    fitted(config, model, samples)
    assert float(loss(config, model, samples)) < 1e-20
    a, b = truth.energy_heads.of_blocks[0].weight, model.energy_heads.of_blocks[0].weight
    assert torch.allclose(a, b, atol=1e-6), "biases and energies of species may be exchanged, these weights may not"


def test_rows_are_derivatives_by_unit_vectors_and_the_solution_is_that_of_lstsq(config, tmp_path):
    model, samples = affine_model(), samples_of(config, tmp_path)
    free, batch = FreeParameters.of(model), whole(samples_of(config, tmp_path))
    rows, start = design_rows(model, free, batch), free.vector()

    def values(at):
        free.set(at)
        found = model.energy_and_forces(*batch.inputs)
        energy = (found.energy / torch.bincount(batch.structure))[batch.has_energy]
        forces = found.forces[batch.has_forces[batch.structure]].flatten()
        stress = (found.virial / batch.volume[:, None, None])[batch.has_stress].flatten()
        return {"energy": energy, "forces": forces, "stress": stress}

    base = values(start)
    units = [values(start + unit) for unit in torch.eye(len(free), dtype=torch.float64)]
    free.set(start)
    scaled, counts = [], samples.label_counts(np.arange(len(samples)))
    for name in LABELS:
        naive = torch.stack([unit[name] - base[name] for unit in units], dim=1)
        assert len(naive) == counts[name] > 0, "structures without a label have no row"
        assert torch.allclose(rows[name][:, :-1], naive, atol=1e-10)
        scaled.append(rows[name] * (getattr(config.loss, name)[-1] / counts[name]) ** 0.5)
    matrix = torch.cat(scaled)
    expected = torch.linalg.lstsq(matrix[:, :-1], matrix[:, -1:], driver="gelsd").solution.flatten()
    least = (matrix[:, -1] - matrix[:, :-1] @ expected).square().sum()
    fitted(config, model, samples)
    assert torch.allclose(loss(config, model, samples).double(), least, rtol=1e-10)


def test_the_gradient_of_the_trainers_loss_vanishes(config, tmp_path):
    model, samples = affine_model(), samples_of(config, tmp_path)
    free = FreeParameters.of(model)
    parameters = [parameter for _, parameter in free.named]
    before = torch.autograd.grad(loss(config, model, samples, True), parameters)
    fitted(config, model, samples)
    after = torch.autograd.grad(loss(config, model, samples, True), parameters)
    largest = max(float(gradient.abs().max()) for gradient in before)
    assert largest > 1e-3
    assert max(float(gradient.abs().max()) for gradient in after) < 1e-9 * largest


def test_batches_and_blocks_do_not_matter(config, tmp_path):
    samples = samples_of(config, tmp_path)
    config = changed(config, ridge=1e-6)
    found = []
    for structures in (1, 4):
        model = affine_model()
        fitted(config, model, samples, batch=BatchConfig(structures=structures))
        found.append(FreeParameters.of(model).vector())
    assert torch.allclose(*found, rtol=1e-7, atol=1e-9)
    rows = torch.randn(200, 7, dtype=torch.float64)
    for at_a_time in (1, 30, 1000):
        triangle = Triangle(7, rows.device, at_a_time)
        for part in rows.split(13):
            triangle.add(part)
            assert sum(map(len, triangle.gathered)) < at_a_time + 13 + 7, "no more rows are kept"
        factor = triangle.factor()
        assert torch.allclose(factor.T @ factor, rows.T @ rows)


def test_a_ridge_is_relative_to_the_mean_square_of_the_columns():
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights, counts = {"energy": 1 / 50}, {"energy": 50}
    (one,) = solve({"energy": rows}, weights, counts, (0.3,))
    a, b = rows[:, :-1] / 50**0.5, rows[:, -1] / 50**0.5
    diagonal = (a.T @ a).diagonal()
    expected = torch.linalg.solve(a.T @ a + 0.3 * torch.diag(diagonal), a.T @ b)
    assert torch.allclose(one.change, expected)
    assert one.train["energy"] == pytest.approx(float((rows[:, -1] - rows[:, :-1] @ expected).square().mean()))


def test_validation_chooses_the_ridge(config, tmp_path):
    config = changed(config, ridge=[0, 1e-3, 1e-1, 1e12])
    samples, model = samples_of(config, tmp_path), affine_model()
    start = FreeParameters.of(model).vector()
    valid = relabelled(samples_of(config, tmp_path), model)  # what the start gives exactly: no change is best
    lines = []
    solutions, best = fitted(config, model, samples, valid, lines.append)
    assert "larger ones may be better" in lines[-1]
    assert best.ridge == 1e12
    assert best.score == min(one.score for one in solutions)
    assert torch.allclose(FreeParameters.of(model).vector(), start, atol=1e-6)


@pytest.mark.parametrize("pattern", ["blocks.0.atom_layers.*", "energy_heads.of_species.*"])
def test_a_model_that_is_not_affine_is_refused(config, tmp_path, pattern):
    model, samples = small_model(package("hipnn")), samples_of(config, tmp_path)
    names = [name for name, _ in model.named_parameters()]
    if not any(name.startswith(pattern.removesuffix("*")) for name in names):
        pattern = names[0]
    freeze(model, (pattern,))
    with pytest.raises(TrainingError, match=r"not; allowed: freeze: \[blocks\.\*\]"):
        fitted(config, model, samples)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"steps": 10}, "steps"),
        ({"minutes": 1.0}, "minutes"),
        ({"epochs": 2}, "epochs"),
        ({"batch": {"atoms": 100}}, "batch"),
        ({"optimizer": {"rate": 0.1}}, "optimizer"),
        ({"validation": {"patience": 3}}, "validation.patience"),
        ({"log": {"save_seconds": 1.0}}, "log.save_seconds"),
        ({"loss": {"hierarchicality": 1.0}}, "loss.hierarchicality"),
        ({"loss": {"energy": [1.0, 2.0]}}, "loss.energy"),
        ({"method": "gradient"}, "ridge"),
    ],
)
def test_keys_without_meaning_are_refused(config, keys, message):
    with pytest.raises(TrainingError, match=message):
        train(changed(config, **keys), tell=lambda _: None)


def test_the_whole_run(config, tmp_path):
    from tensorgraph.potential import load_model
    from tensorgraph.training.pictures import draw_learning

    lines = []
    config = changed(config, ridge=[1e-6, 1e-2], data={"train": config.data.train, "valid": 0.3})
    (outcome,) = train(config, tell=lines.append)
    assert any(line.startswith("done after") for line in lines)
    out = tmp_path / "run"
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors", "last.safetensors", "metrics.csv", "config.json"
    }  # fmt: skip
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [float(row["rate"]) for row in rows] == [1e-6, 1e-2]
    assert len({row["seconds"] for row in rows}) == 1, "by which the picture shows errors against the ridge"
    first = load_model(outcome.checkpoint).state_dict()
    assert draw_learning(out).is_file()
    with pytest.raises(TrainingError, match="holds a run"):
        train(config, tell=lines.append)
    with pytest.raises(TrainingError, match="allowed to change with --resume"):
        train(changed(config, ridge=1.0), resume=True, tell=lines.append)
    (again,) = train(config, resume=True, tell=lines.append)
    second = load_model(again.checkpoint).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_interruption_leaves_what_stood_there(config, tmp_path, monkeypatch):
    from tensorgraph.training import least_squares

    train(config, tell=lambda _: None)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return design_rows(*arguments)

    monkeypatch.setattr(least_squares, "design_rows", interrupted)
    lines = []
    (outcome,) = train(config, overwrite=True, tell=lines.append)
    assert outcome.interrupted
    assert any("ends without a result" in line for line in lines)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
