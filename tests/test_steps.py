"""A whole step of energy and forces: compiled to one graph, in fixed shapes, and without a question to the device."""

from __future__ import annotations

import pytest
import torch

from tensorgraph.model.batch import Batch
from tests import helpers
from tests.helpers import batch_of, gpu, molecule, package, small_model

NAMES = ("hiphop5", "hipnn")
pytestmark = pytest.mark.usefixtures("fresh_compiler")
# What traces derivatives uses more of what is deprecated.
quiet = pytest.mark.filterwarnings(*helpers.quiet.args, "ignore:.*should not be instantiated:DeprecationWarning")


def model_of(name: str, device: str = "cpu") -> torch.nn.Module:
    model = small_model(package(name)).to(device)
    model.validate = False  # checks of values are questions to the device
    return model


def batch(name: str, *sizes: int, shuffled: bool = False, device: str = "cpu") -> Batch:
    made = batch_of(package(name), *(molecule(size, seed=size) for size in sizes))
    order = torch.arange(made.pairs.shape[1])
    if shuffled:
        order = torch.randperm(len(order), generator=torch.Generator().manual_seed(0))
    moved = (made.numbers, made.pairs[:, order], made.displacements[order], made.structure)
    return Batch(*(tensor.to(device) for tensor in moved), made.n_structures)


@quiet
@pytest.mark.parametrize(("name", "backend"), [("hiphop5", "aot_eager"), ("hipnn", "aot_eager"), ("hipnn", "inductor")])
def test_energies_compile_to_one_graph_for_any_number_of_atoms(name, backend):
    model = model_of(name)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for given in (batch(name, 5, 4), batch(name, 3, 7, shuffled=True)):
        for found, expected in zip(compiled(*given.inputs), model(*given.inputs), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@quiet
@pytest.mark.parametrize("name", NAMES)
def test_energy_and_forces_compile_to_one_graph(name):
    """Where PyTorch can trace derivatives; else, and by default, it goes on in several graphs."""
    config = torch._dynamo.config
    if not hasattr(config, "trace_autograd_ops"):
        pytest.skip("this PyTorch does not trace derivatives")
    model = model_of(name).requires_grad_(False)
    compiled = torch.compile(model.energy_and_forces, fullgraph=True, dynamic=True, backend="aot_eager")
    with config.patch(trace_autograd_ops=True):
        for given in (batch(name, 5, 4), batch(name, 3, 7)):
            for found, expected in zip(compiled(*given.inputs), model.energy_and_forces(*given.inputs), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@quiet
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_energy_and_forces_compile_as_they_are():
    model = model_of("hiphop5").requires_grad_(False)
    compiled = torch.compile(model.energy_and_forces, dynamic=True, backend="aot_eager")
    given = batch("hiphop5", 6)
    for found, expected in zip(compiled(*given.inputs), model.energy_and_forces(*given.inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("more_atoms", [0, 1, 6])
@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name, more_atoms):
    given, model = batch(name, 5, 4), model_of(name)
    padded = given.padded(9 + more_atoms, given.pairs.shape[1] + 11)
    assert (len(padded.numbers), padded.pairs.shape[1], padded.n_structures) == (
        9 + more_atoms,
        given.pairs.shape[1] + 11,
        3,
    )
    found, expected = (model.energy_and_forces(*b.inputs) for b in (padded, given))
    torch.testing.assert_close(found.energy[:2], expected.energy, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.forces[:9], expected.forces, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.virial[:2], expected.virial, rtol=1e-12, atol=1e-12)
    assert not found.forces[9:].any()
    model.validate = True
    model(*padded.inputs)


def test_padding_that_does_not_fit_is_refused():
    given = batch("hiphop5", 5)
    for atoms, pairs in ((4, 100), (5, given.pairs.shape[1] - 1)):
        with pytest.raises(ValueError, match=f"cannot be padded to {atoms} and {pairs}; allowed: at least 5 atoms"):
            given.padded(atoms, pairs)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=gpu)])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_asks_the_device_nothing(name, device):
    model, given = model_of(name, device), batch(name, 5, 4, shuffled=True, device=device)
    model.energy_and_forces(*given.inputs)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.energy_and_forces(*given.inputs)
        result = model.energy_and_forces(*given.inputs, create_graph=True)
        (result.forces.square().sum() + result.energy.sum()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=gpu)])
def test_a_step_can_be_captured_and_replayed(device):
    """As a CUDA graph of a padded batch, replayed for other atoms."""
    model = model_of("hiphop5", device).requires_grad_(False)
    batches = [batch("hiphop5", n, device=device).padded(12, 150) for n in (6, 10)]
    held = [tensor.clone() for tensor in batches[0].inputs[:4]]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            model.energy_and_forces(*held, 2)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = model.energy_and_forces(*held, 2)
    for given in batches:
        for tensor, value in zip(held, given.inputs, strict=False):
            tensor.copy_(value)
        graph.replay()
        expected = model.energy_and_forces(*given.inputs)
        torch.testing.assert_close(found.energy, expected.energy, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.forces, expected.forces, rtol=1e-10, atol=1e-12)
