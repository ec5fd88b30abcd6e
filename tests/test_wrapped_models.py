"""Checkpoints of models inside what PyTorch wraps around them: whatever is saved can be loaded, or saving refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parametrize

from tensorgraph.errors import CheckpointError
from tensorgraph.model.checkpoint import load_checkpoint, save_checkpoint
from tensorgraph.model.unwrapping import unwrapped
from tests.helpers import package, quiet


def with_compiled_blocks(model: torch.nn.Module) -> torch.nn.Module:
    model.blocks[0].interaction = torch.compile(model.blocks[0].interaction)
    return model


WRAPPERS: dict[str, Callable[[torch.nn.Module], torch.nn.Module]] = {
    "compiled": torch.compile,
    "compiled in parts": with_compiled_blocks,
    "compiled in parts and whole": lambda model: torch.compile(with_compiled_blocks(model)),
    "data parallel": torch.nn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "averaged and compiled": lambda model: torch.compile(torch.optim.swa_utils.AveragedModel(model)),
}
wrappers = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)


@quiet
@wrappers
def test_saved_and_loaded_again(wrap, tmp_path):
    module, path = package("hipnn"), tmp_path / "model.safetensors"
    expected = module.Model(seed=3).state_dict()
    save_checkpoint(wrap(module.Model(seed=3)), module, path)
    plain, wrapped = module.Model(), wrap(module.Model())
    load_checkpoint(plain, module, path)
    load_checkpoint(wrapped, module, path)
    assert plain.state_dict().keys() == expected.keys()
    for found in (plain, unwrapped(wrapped)):
        assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), expected.values(), strict=True))


def test_distributed_models(tmp_path):
    """One process of `torchrun`, over gloo."""
    module, path = package("hipnn"), tmp_path / "model.safetensors"
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        save_checkpoint(torch.nn.parallel.DistributedDataParallel(module.Model(seed=3)), module, path)
    finally:
        torch.distributed.destroy_process_group()
    loaded = module.Model()
    load_checkpoint(loaded, module, path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), module.Model(seed=3).parameters(), strict=True))


class Twice(torch.nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def parametrised(model: torch.nn.Module) -> torch.nn.Module:
    parametrize.register_parametrization(model.energy_heads.of_species, "weight", Twice())
    return model


def without_values(model: torch.nn.Module) -> torch.nn.Module:
    return model.to("meta")


def inside_another(model: torch.nn.Module) -> torch.nn.Module:
    return torch.nn.ModuleDict({"potential": model})


def with_a_surplus(model: torch.nn.Module) -> torch.nn.Module:
    model.register_buffer("scale", torch.ones(1))
    return model


REFUSED = [
    (parametrised, "remove_parametrizations"),
    (without_values, "on the meta device and has no values"),
    (inside_another, "pass its part potential"),
    (with_a_surplus, "scale"),
    (lambda model: model.state_dict(), "type OrderedDict; pass the model"),
]


@pytest.mark.filterwarnings("ignore:.*TypedStorage is deprecated:UserWarning")
@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_could_not_be_loaded_is_not_saved(change, said, tmp_path: Path):
    module, path = package("hipnn"), tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match=said):
        save_checkpoint(change(module.Model()), module, path)
    assert not list(tmp_path.iterdir())
