"""Weights on disk: safetensors files that say which spec they belong to. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from types import ModuleType

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tensorgraph.errors import CheckpointError
from tensorgraph.runtime.loading import package_directory, read_manifest

FORMAT = "tensorgraph-checkpoint-1"
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # the types of weights in a file


def save_checkpoint(model: torch.nn.Module, package: ModuleType, path: str | Path) -> None:
    """Write the weights of `model`, an instance of `package.Model`, with the package's spec; atomically.

    Raises CheckpointError for a model of another package, for a package that was rebuilt for another spec since it was
    imported, for weights that are not finite and where `path` cannot be written; and PackageError where `package` is
    not a generated package.
    """
    metadata = _metadata(model, package)
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # tensors that share memory: apart
        for name, tensor in model.state_dict().items()
    }
    _check_values(tensors, "the model")
    try:
        _write(safetensors.torch.save(tensors, metadata=metadata), Path(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error


def load_checkpoint(model: torch.nn.Module, package: ModuleType, path: str | Path) -> None:
    """Copy the weights in `path` into `model`, an instance of `package.Model`, converting to its dtype and device.

    Raises CheckpointError, and leaves the model as it was, for a file that is not a checkpoint, one of another spec,
    and one whose tensors differ from the model's in name or shape or are not finite in its dtype; and, like
    `save_checkpoint`, where model and package do not belong together.
    """
    ours = _metadata(model, package)
    metadata, tensors = _read(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a tensorgraph checkpoint: its format is {metadata.get('format')!r}")
    if metadata.get("spec_digest") != ours["spec_digest"]:
        raise CheckpointError(
            f"{path} belongs to the spec {metadata.get('name')} (digest {metadata.get('spec_digest')}), not to "
            f"{ours['name']} (digest {ours['spec_digest']})"
        )
    if metadata.get("spec") != ours["spec"]:
        raise CheckpointError(f"{path} contradicts itself: its spec is not the one that its digest stands for")
    expected = model.state_dict()
    _check_same(tensors, expected, path)
    converted = {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}
    _check_values(converted, str(path))
    model.load_state_dict(converted)


def _metadata(model: torch.nn.Module, package: ModuleType) -> dict[str, str]:
    """What a checkpoint of the model says of itself; CheckpointError unless model, package and directory agree."""
    directory = package_directory(package)
    manifest = read_manifest(directory)
    name, digest = getattr(model, "NAME", type(model).__name__), getattr(model, "SPEC_DIGEST", None)
    imported = getattr(getattr(package, "architecture", None), "SPEC_DIGEST", None)
    if digest is None or digest != imported:
        raise CheckpointError(
            f"the model is one of another package: of {name} (digest {digest}), not of {manifest['name']} "
            f"(digest {imported})"
        )
    if manifest["spec_digest"] != imported:
        raise CheckpointError(
            f"the package in {directory} was rebuilt for another spec since it was imported: digest "
            f"{manifest['spec_digest']} instead of {imported}"
        )
    spec = _canonical_json(manifest.get("spec"))
    if hashlib.sha256(spec.encode()).hexdigest() != digest:
        raise CheckpointError(f"the manifest in {directory} was edited: its spec is not the one of its digest {digest}")
    return {"format": FORMAT, "name": name, "spec": spec, "spec_digest": digest}


def _canonical_json(spec: object) -> str:
    """The text whose SHA-256 is the digest of a spec; as YAML too, it reads as that spec."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"))


def _write(content: bytes, target: Path) -> None:
    """Replace `target` by a file with this content, or leave it as it was; on the disk when this returns."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        written = Path(scratch) / target.name
        with written.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(written, target)
    _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    """Put the new name of a file on the disk too, where directories can be opened at all."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
        if tensor.shape != expected[name].shape or tensor.dtype not in FLOATS:
            raise CheckpointError(
                f"{path} does not fit the model: {name} is {tensor.dtype} {list(tensor.shape)}, expected floating "
                f"{list(expected[name].shape)}"
            )


def _check_values(tensors: dict[str, Tensor], owner: str) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise CheckpointError(f"{owner} has weights of the type {tensor.dtype}: {name}")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{owner} has weights that are not finite: {name}")
