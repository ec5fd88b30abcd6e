"""Checkpoints: exact round trips, and refusal of everything that is not a checkpoint of the same spec."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import safetensors
import torch
from helpers import GENERATED, batch_of, molecule, package
from safetensors.torch import load_file, save_file

from tensorgraph.errors import CheckpointError, PackageError
from tensorgraph.runtime.checkpoint import load_checkpoint, save_checkpoint
from tensorgraph.runtime.loading import load_package


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of hipnn with the weights of seed 3."""
    module = package("hipnn")
    path = tmp_path / "run" / "model.safetensors"
    save_checkpoint(module.Model(seed=3), module, path)
    return path


def test_a_round_trip_is_exact(saved: Path) -> None:
    module = package("hipnn")
    original, loaded = module.Model(seed=3), module.Model(seed=0)
    load_checkpoint(loaded, module, saved)
    batch = batch_of(module, molecule(5, 1), dtype=torch.float32)
    assert torch.equal(original(*batch.inputs).energies, loaded(*batch.inputs).energies)
    assert [path.name for path in saved.parent.iterdir()] == ["model.safetensors"]


def test_weights_are_converted_to_the_dtype_of_the_model(saved: Path) -> None:
    module = package("hipnn")
    model = module.Model().double()
    load_checkpoint(model, module, saved)
    assert model.dtype == torch.float64
    assert torch.equal(
        model.energy_heads.of_species.weight, module.Model(seed=3).energy_heads.of_species.weight.double()
    )


def test_the_spec_travels_with_the_weights(saved: Path) -> None:
    with safetensors.safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["name"] == "hipnn"
    assert metadata["spec"] == (GENERATED / "hipnn" / "spec.yaml").read_text()
    assert set(metadata) == {"format", "name", "spec", "spec_digest"}


def test_a_checkpoint_of_another_spec_is_refused_by_name(saved: Path) -> None:
    module = package("hiphop4")
    with pytest.raises(CheckpointError, match=r"belongs to the spec hipnn \(digest .*\), not to hiphop4 \(digest"):
        load_checkpoint(module.Model(), module, saved)


def test_a_failed_save_leaves_the_earlier_file(saved: Path) -> None:
    before, module = saved.read_bytes(), package("hipnn")
    model = module.Model(seed=4)
    with torch.no_grad():
        model.energy_heads.of_species.weight[0, 1] = float("nan")
    with pytest.raises(CheckpointError, match=r"not finite: energy_heads\.of_species\.weight"):
        save_checkpoint(model, module, saved)
    assert saved.read_bytes() == before


def test_a_place_that_cannot_be_written(saved: Path) -> None:
    module = package("hipnn")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(module.Model(), module, saved / "below a file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("blocks.0.interaction.layer.weights"), "missing .*layer.weights"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "not expected .*extra"),
        (lambda tensors: tensors.update({"energy_heads.of_species.weight": torch.zeros(1, 9)}), r"\[1, 9\], expected"),
        (lambda tensors: tensors["energy_heads.of_species.weight"].fill_(float("inf")), "not finite: energy_heads"),
        (lambda tensors: tensors.update({"energy_heads.of_species.weight": torch.zeros(1, 4).long()}), "int64"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_the_model_is_untouched(saved: Path, change, message: str) -> None:
    tensors = load_file(saved)
    with safetensors.safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    change(tensors)
    save_file(tensors, saved, metadata=metadata)
    module = package("hipnn")
    model = module.Model(seed=0)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, module, saved)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), module.Model(seed=0).parameters(), strict=True))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_files_of_other_kinds_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    module = package("hipnn")
    path = tmp_path / "weights"
    contents = [pickle.dumps(Bomb()), b"", b"\0" * 100]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            load_checkpoint(module.Model(), module, path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not a tensorgraph checkpoint: its format is None"):
        load_checkpoint(module.Model(), module, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(module.Model(), module, tmp_path / "absent")


def test_packages_are_loaded_by_path_once_and_refused_where_there_is_none(tmp_path: Path) -> None:
    assert load_package(GENERATED / "hipnn") is load_package(str(GENERATED / "hipnn"))
    with pytest.raises(PackageError, match=r"is not a generated package: manifest\.json"):
        load_package(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(PackageError, match="lacks name or spec_digest"):
        load_package(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "x", "spec_digest": "y"}')
    with pytest.raises(PackageError, match=r"no __init__\.py"):
        load_package(tmp_path)
    (tmp_path / "__init__.py").write_text("1 / 0")
    with pytest.raises(PackageError, match="cannot be imported: division by zero"):
        load_package(tmp_path)
