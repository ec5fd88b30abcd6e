"""A checkpoint alone: its package is built from the spec inside it, kept, and built again when it cannot be trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file

from tensorgraph import cli, potential
from tensorgraph.errors import BudgetError, CheckpointError, PackageError
from tensorgraph.model.checkpoint import save_checkpoint
from tensorgraph.potential import load_model, members_of, open_potential, package_of_checkpoint
from tests.helpers import GENERATED, batch_of, molecule, package


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENSORGRAPH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packages"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of hipnn with the weights of seed 3."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(package("hipnn").Model(seed=3), package("hipnn"), path)
    return path


def test_the_package_is_the_committed_one(saved: Path, cache: Path) -> None:
    built = Path(package_of_checkpoint(saved).__file__).parent
    assert cache in built.parents
    for file in (GENERATED / "hipnn").rglob("*.*"):
        within = file.relative_to(GENERATED / "hipnn")
        assert "__pycache__" in within.parts or (built / within).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_model_is_the_one_that_was_saved(saved: Path, dtype: torch.dtype) -> None:
    batch = batch_of(package("hipnn"), molecule(5, 1), dtype=dtype)
    expected = package("hipnn").Model(seed=3).to(dtype)(*batch.inputs).energies
    assert torch.equal(load_model(saved, dtype=dtype)(*batch.inputs).energies, expected)


def test_it_is_built_once(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = package_of_checkpoint(saved)
    monkeypatch.setattr(potential, "compile_spec", lambda spec: pytest.fail("built again"))
    assert package_of_checkpoint(saved) is first


def test_edited_and_damaged_packages_are_built_again(saved: Path) -> None:
    folder = Path(package_of_checkpoint(saved).__file__).parent
    for damage in (lambda: (folder / "model.py").write_text("1 / 0"), lambda: (folder / "manifest.json").unlink()):
        damage()
        assert package_of_checkpoint(saved).Model(seed=0).NAME == "hipnn"


def test_folders_that_others_write_to_are_refused(saved: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(PackageError, match="others can write to it"):
        package_of_checkpoint(saved)


def forged(saved: Path, **changes: object) -> Path:
    """The checkpoint with other keys in its spec, and the digest that belongs to it."""
    import hashlib

    import safetensors

    with safetensors.safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    spec = json.loads(metadata["spec"]) | changes
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    save_file(load_file(saved), saved, metadata=metadata | {"spec": text, "spec_digest": digest})
    return saved


@pytest.mark.parametrize(
    "changes", [{"name": "../../evil"}, {"name": "os"}, {"basis": 3}, {"network": None}, {"code": "import os"}]
)
def test_hostile_specs_are_refused(saved: Path, changes: dict[str, object], cache: Path) -> None:
    with pytest.raises(CheckpointError, match="spec") as caught:
        package_of_checkpoint(forged(saved, **changes))
    assert "\n" not in str(caught.value)
    assert not cache.exists() or not list(cache.iterdir())


def test_deeply_nested_specs_are_refused(saved: Path) -> None:
    nested: list[object] = []
    for _ in range(800):
        nested = [nested]
    with pytest.raises(CheckpointError, match="spec"):
        package_of_checkpoint(forged(saved, basis=nested))


def test_a_folder_or_a_file_is_opened(saved: Path, tmp_path: Path) -> None:
    assert open_potential(GENERATED / "hipnn")[1] is None
    assert open_potential(GENERATED / "hipnn", saved)[1] == saved
    module, weights = open_potential(saved)
    assert (module.architecture.NAME, weights) == ("hipnn", saved)
    with pytest.raises(PackageError, match="does not exist; allowed: the folder of a generated package, or a check"):
        open_potential(tmp_path / "none")
    with pytest.raises(CheckpointError, match="allowed: a package, or one file"):
        open_potential(saved, saved)
    (tmp_path / "text").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        open_potential(tmp_path / "text")


def test_commands_take_a_checkpoint_for_its_spec(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = str(GENERATED / "hipnn" / "spec.yaml")
    shown = [(cli.main(["show", file, "--json"]), capsys.readouterr().out) for file in (spec, str(saved))]
    assert shown[0] == shown[1]
    assert shown[0][0] == 0
    assert cli.main(["build", str(saved), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "hipnn" / "model.py").read_bytes() == (GENERATED / "hipnn" / "model.py").read_bytes()
    capsys.readouterr()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(saved.read_bytes()[:100])
    assert cli.main(["show", str(damaged)]) == 1
    assert "damaged.safetensors" in capsys.readouterr().err

    def exhausted(*_: object) -> NoReturn:
        raise BudgetError("too many graphs")

    monkeypatch.setattr("tensorgraph.compiler.derive_basis", exhausted)
    assert cli.main(["show", str(saved)]) == 1
    assert capsys.readouterr().err == f"tensorgraph: {saved}: too many graphs\n"


def test_caches_are_ones_own_whatever_the_umask(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORGRAPH_CACHE", str(tmp_path / "of-a-group"))
    before = os.umask(0o002)
    try:
        package_of_checkpoint(saved)
    finally:
        os.umask(before)
    assert (tmp_path / "of-a-group").stat().st_mode & 0o777 == 0o700


def test_members_of_files_runs_and_committees(tmp_path: Path) -> None:
    def put(name: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        return tmp_path / name

    assert members_of(put("a.safetensors")) == [tmp_path / "a.safetensors"]
    assert members_of(str(put("run/model.safetensors").parent)) == [tmp_path / "run" / "model.safetensors"]
    first = put("many/seed-3/model.safetensors")
    with pytest.raises(CheckpointError, match=r"many holds one member of a committee.*allowed: two or more"):
        members_of(tmp_path / "many")
    last = put("many/seed-11/model.safetensors")
    put("many/seed-notes")
    assert members_of(tmp_path / "many") == [first, last]
    (tmp_path / "many" / "seed-4").mkdir()
    with pytest.raises(CheckpointError, match=r"seed-4/model.safetensors is missing: the committee .* not complete"):
        members_of(tmp_path / "many")
    put("run/seed-1/model.safetensors")
    with pytest.raises(CheckpointError, match=r"run holds both model.safetensors and seed-1; allowed: one of them"):
        members_of(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty holds no model.safetensors and no seed-\*/model.safetensors"):
        members_of(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        members_of(tmp_path / "nowhere")
