"""Weights on disk: safetensors files that say which spec they belong to. Nothing is ever unpickled."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import ModuleType

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from tensorgraph.errors import CheckpointError
from tensorgraph.runtime.loading import package_directory, read_manifest

FORMAT = "tensorgraph-checkpoint-1"


def save_checkpoint(model: torch.nn.Module, package: ModuleType, path: str | Path) -> None:
    """Write the weights of `model`, an instance of `package.Model`, with the package's spec; atomically.

    Raises CheckpointError for weights that are not finite and where `path` cannot be written, and PackageError where
    `package` is not a generated package.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    _check_finite(tensors, "the model")
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            written = Path(scratch) / target.name
            save_file(tensors, written, metadata=_metadata(package))
            os.replace(written, target)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error


def load_checkpoint(model: torch.nn.Module, package: ModuleType, path: str | Path) -> None:
    """Copy the weights in `path` into `model`, an instance of `package.Model`, converting to its dtype and device.

    Raises CheckpointError, and leaves the model as it was, for a file that is not a checkpoint, one of another spec,
    and one whose tensors differ from the model's in name or shape or are not finite.
    """
    metadata, tensors = _read(path)
    ours = _metadata(package)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a tensorgraph checkpoint: its format is {metadata.get('format')!r}")
    if metadata.get("spec_digest") != ours["spec_digest"]:
        raise CheckpointError(
            f"{path} belongs to the spec {metadata.get('name')} (digest {metadata.get('spec_digest')}), not to "
            f"{ours['name']} (digest {ours['spec_digest']})"
        )
    _check_same(tensors, model.state_dict(), path)
    _check_finite(tensors, str(path))
    model.load_state_dict(tensors)


def _metadata(package: ModuleType) -> dict[str, str]:
    directory = package_directory(package)
    manifest = read_manifest(directory)
    spec = directory / "spec.yaml"
    text = spec if spec.is_file() else directory / "manifest.json"
    return {
        "format": FORMAT,
        "name": manifest["name"],
        "spec": text.read_text(encoding="utf-8"),
        "spec_digest": manifest["spec_digest"],
    }


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error


def _check_same(found: dict[str, Tensor], expected: dict[str, Tensor], path: str | Path) -> None:
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or surplus:
        raise CheckpointError(f"{path} does not fit the model: missing {missing[:3]}, not expected {surplus[:3]}")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape or not tensor.is_floating_point():
            raise CheckpointError(
                f"{path} does not fit the model: {name} is {tensor.dtype} {list(tensor.shape)}, expected floating "
                f"{list(expected[name].shape)}"
            )


def _check_finite(tensors: dict[str, Tensor], owner: str) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{owner} has weights that are not finite: {name}")
