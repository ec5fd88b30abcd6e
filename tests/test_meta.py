"""Models without data, on the meta device: made, given weights and moved, as large models and shards are."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import WITH_NETWORK, batch_of, molecule, package


def energy(model: torch.nn.Module, name: str) -> torch.Tensor:
    return model(*batch_of(package(name), molecule(5, 0), dtype=torch.float32).inputs).energy


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_made_without_data_and_given_weights(name):
    module = package(name)
    with torch.device("meta"):
        model = module.Model()
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    expected = module.Model(seed=3)
    with torch.device("meta"):
        assigned = module.Model()
    assigned.load_state_dict(expected.state_dict(), assign=True)
    model.to_empty(device="cpu").load_state_dict(expected.state_dict())
    for found in (model, assigned):
        assert found.species.tolist() == [number for _, number in module.architecture.SPECIES]
        assert torch.equal(energy(found, name), energy(expected, name))


def test_part_of_another_module_keeps_its_species():
    module = package("hipnn")
    with torch.device("meta"):
        whole = torch.nn.ModuleDict({"potential": module.Model()})
    whole.to_empty(device="cpu")
    assert whole["potential"].species.tolist() == [number for _, number in module.architecture.SPECIES]


def test_shapes_without_data():
    module = package("hiphop4")
    given = batch_of(module, molecule(5, 0), molecule(3, 1), dtype=torch.float32)
    with torch.device("meta"):
        model = module.Model()
    model.validate = False
    found = model.energy_and_forces(*(x.to("meta") if isinstance(x, torch.Tensor) else x for x in given.inputs))
    assert found.forces.is_meta
    assert [list(x.shape) for x in found] == [[2], [8], [2], [8, 3], [2, 3, 3]]


@pytest.mark.parametrize("name", ["hiphop4", "hipnn"])
def test_a_seed_means_the_same_weights_under_any_default(name):
    module = package(name)
    expected = module.Model(seed=5).state_dict()
    with torch.device("cpu"):
        found = module.Model(seed=5).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
