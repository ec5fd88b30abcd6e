"""Checkpoints: exact round trips, and refusal of everything that is not a checkpoint of the same spec."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from tensorgraph.errors import CheckpointError, PackageError
from tensorgraph.model.checkpoint import load_checkpoint, save_checkpoint
from tensorgraph.model.loading import load_package
from tensorgraph.spec import load_spec, parse_spec
from tests.helpers import GENERATED, batch_of, build, molecule, package


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
    assert parse_spec(metadata["spec"]) == load_spec(GENERATED / "hipnn" / "spec.yaml")
    assert hashlib.sha256(metadata["spec"].encode()).hexdigest() == metadata["spec_digest"]
    assert set(metadata) == {"format", "name", "spec", "spec_digest"}


def test_a_checkpoint_of_another_spec_is_refused_by_name(saved: Path) -> None:
    module = package("hiphop4")
    with pytest.raises(CheckpointError, match=r"belongs to the spec hipnn \(digest .*\), not to hiphop4 \(digest"):
        load_checkpoint(module.Model(), module, saved)


def test_a_spec_that_its_digest_does_not_stand_for_is_refused(saved: Path) -> None:
    with safetensors.safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(saved), saved, metadata={**metadata, "spec": "name: other"})
    with pytest.raises(CheckpointError, match="contradicts itself: its spec is not the one"):
        load_checkpoint(package("hipnn").Model(), package("hipnn"), saved)


def test_a_model_of_another_package_is_refused(saved: Path) -> None:
    module, other = package("hipnn"), package("hiphop4")
    for model in (other.Model(), torch.nn.Linear(1, 1)):
        for act in (save_checkpoint, load_checkpoint):
            with pytest.raises(CheckpointError, match=r"one of another package: of (hiphop4|Linear) .* not of hipnn"):
                act(model, module, saved)


def test_a_package_that_was_rebuilt_since_it_was_imported_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    old = load_package(build(tmp_path, cutoff=6.5))
    save_checkpoint(old.Model(), old, path)
    new = load_package(build(tmp_path, cutoff=5.6))
    for act in (save_checkpoint, load_checkpoint):
        with pytest.raises(CheckpointError, match=r"was rebuilt for another spec since it was imported: digest \w+"):
            act(old.Model(), old, path)
        with pytest.raises(CheckpointError, match=r"one of another package: of rebuilt \(digest \w+\), not of rebuilt"):
            act(old.Model(), new, path)
    with pytest.raises(CheckpointError, match="belongs to the spec rebuilt"):
        load_checkpoint(new.Model(), new, path)


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    directory = build(tmp_path)
    module, manifest = load_package(directory), directory / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"cutoff": 6.5', '"cutoff": 7.5'))
    with pytest.raises(CheckpointError, match="was edited: its spec is not the one of its digest"):
        save_checkpoint(module.Model(), module, tmp_path / "model.safetensors")


def test_weights_that_are_not_finite_are_not_saved(saved: Path) -> None:
    before, module = saved.read_bytes(), package("hipnn")
    model = module.Model(seed=4)
    with torch.no_grad():
        model.energy_heads.of_species.weight[0, 1] = float("nan")
    with pytest.raises(CheckpointError, match=r"not finite: energy_heads\.of_species\.weight"):
        save_checkpoint(model, module, saved)
    assert saved.read_bytes() == before


@pytest.mark.parametrize(("fault", "raised"), [(OSError("disk full"), CheckpointError), (KeyboardInterrupt(), None)])
def test_a_save_that_fails_half_way_leaves_the_earlier_file(saved: Path, monkeypatch, fault, raised) -> None:
    before, module, halves = saved.read_bytes(), package("hipnn"), []

    def fail(descriptor: int) -> None:
        os.ftruncate(descriptor, len(before) // 2)
        halves.append([path.stat().st_size for path in saved.parent.iterdir() if path != saved])
        raise fault

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(raised or type(fault)):
        save_checkpoint(module.Model(seed=4), module, saved)
    assert halves == [[len(before) // 2]]  # a second file was being written, and had been written half
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["model.safetensors"]


def test_what_safetensors_refuses_is_told(saved: Path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise safetensors.SafetensorError("no")

    monkeypatch.setattr(safetensors.torch, "save", refuse)
    with pytest.raises(CheckpointError, match="cannot be written: no"):
        save_checkpoint(package("hipnn").Model(), package("hipnn"), saved)


def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    module, path = package("hipnn"), tmp_path / "model.safetensors"
    before = os.umask(0o027)
    try:
        save_checkpoint(module.Model(), module, path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_weights_of_unusual_types_are_refused(saved: Path, dtype: torch.dtype) -> None:
    module, name = package("hipnn"), "energy_heads.of_species.weight"
    model = module.Model()
    model.energy_heads.of_species.weight = torch.nn.Parameter(torch.zeros(1, 4).to(dtype), requires_grad=False)
    with pytest.raises(CheckpointError, match=f"weights of the type {dtype}: {name}"):
        save_checkpoint(model, module, saved)
    with safetensors.safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    save_file({**load_file(saved), name: torch.zeros(1, 4).to(dtype)}, saved, metadata=metadata)
    with pytest.raises(CheckpointError, match=f"{name} is {dtype}"):
        load_checkpoint(module.Model(), module, saved)


def test_weights_too_large_for_the_dtype_of_the_model_are_refused(tmp_path: Path) -> None:
    module, path = package("hipnn"), tmp_path / "model.safetensors"
    model = module.Model().double()
    model.set_atomic_energies({"C": 1e300})
    save_checkpoint(model, module, path)
    with pytest.raises(CheckpointError, match=r"not finite: energy_heads\.of_species"):
        load_checkpoint(module.Model(), module, path)
    load_checkpoint(module.Model().double(), module, path)


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


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "loop", "null\0"):
        with pytest.raises(CheckpointError, match="cannot be written"):
            save_checkpoint(package("hipnn").Model(), package("hipnn"), tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "loop").is_symlink()


def test_the_mode_of_an_earlier_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for _ in range(2):
        save_checkpoint(package("hipnn").Model(), package("hipnn"), path)
        assert path.stat().st_mode & 0o777 in (0o600, 0o644)
        path.chmod(0o600)
    assert path.stat().st_mode & 0o777 == 0o600
