"""Weights on disk: safetensors files that say which spec they belong to. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tensorgraph.atomic import write_atomically
from tensorgraph.errors import CheckpointError
from tensorgraph.manifest import read_manifest
from tensorgraph.model.loading import package_directory
from tensorgraph.model.unwrapping import tensors_by_name, unwrapped

FORMAT = "tensorgraph-checkpoint-1"
_MAX_SPEC = 2**20  # characters
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # the types of weights in a file


def save_checkpoint(
    model: torch.nn.Module, package: ModuleType, path: str | Path, *, training: str | None = None
) -> None:
    """Write the weights of `model`, an instance of `package.Model`, with the package's spec; atomically.

    `training` is a text that says how the weights came about; `training_of_checkpoint` gives it back.

    The model may be wrapped, in whole or in parts, by `torch.compile`, `DataParallel`, `DistributedDataParallel` or
    `AveragedModel`: the file holds the names and values of the model inside.

    Raises CheckpointError for a model of another package, for a package that was rebuilt for another spec since it was
    imported, for weights that a new model of the package could not load or that are not finite, and where `path`
    cannot be written; and PackageError where `package` is not a generated package.
    """
    model = unwrapped(model)
    metadata = _metadata(model, package)
    found = {name: tensor for name, (_, tensor) in tensors_by_name(model).items()}
    _check_types(found, "the model")
    _check_same(found, package.Model().state_dict(), "the model", f"a new model of {metadata['name']}")
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # tensors that share memory: apart
        for name, tensor in found.items()
    }
    _check_values(tensors, "the model")
    if training is not None:
        metadata["training"] = training
    try:
        write_atomically(safetensors.torch.save(tensors, metadata=metadata), Path(path))
    except (OSError, ValueError, safetensors.SafetensorError) as error:  # ValueError: a null character in the path
        raise CheckpointError(f"{path} cannot be written: {error}") from error


def load_checkpoint(model: torch.nn.Module, package: ModuleType, path: str | Path) -> None:
    """Copy the weights in `path` into `model`, an instance of `package.Model`, converting to its dtype and device.

    The model may be wrapped as for `save_checkpoint`.

    Raises CheckpointError, and leaves the model as it was, for a file that is not a checkpoint, one of another spec,
    and one whose tensors differ from the model's in name or shape or are not finite in its dtype; and, like
    `save_checkpoint`, where model and package do not belong together.
    """
    model = unwrapped(model)
    ours = _metadata(model, package)
    metadata, tensors = _read(path)
    _check_format(metadata, path)
    if metadata.get("spec_digest") != ours["spec_digest"]:
        raise CheckpointError(
            f"{path} belongs to the spec {metadata.get('name')} (digest {metadata.get('spec_digest')}), not to "
            f"{ours['name']} (digest {ours['spec_digest']})"
        )
    if metadata.get("spec") != ours["spec"]:
        raise CheckpointError(f"{path} contradicts itself: its spec is not the one that its digest stands for")
    named = tensors_by_name(model)
    expected = {name: tensor for name, (_, tensor) in named.items()}
    _check_same(tensors, expected, str(path), "the model")
    converted = {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}
    _check_values(converted, str(path))
    _check_shared(converted, expected, path)
    model.load_state_dict({named[name][0]: tensor for name, tensor in converted.items()})


def spec_of_checkpoint(path: str | Path) -> str:
    """The spec inside the checkpoint at `path`, as canonical JSON; no weights are read.

    Raises CheckpointError for a file that is not a checkpoint, and for a spec that its digest does not stand for.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
    _check_format(metadata, path)
    spec: str = metadata.get("spec", "")
    if len(spec) > _MAX_SPEC:
        raise CheckpointError(f"{path} holds a spec of {len(spec)} characters; allowed: {_MAX_SPEC}")
    if hashlib.sha256(spec.encode(errors="surrogatepass")).hexdigest() != metadata.get("spec_digest"):
        raise CheckpointError(f"{path} contradicts itself: its spec is not the one that its digest stands for")
    return spec


def training_of_checkpoint(path: str | Path) -> str | None:
    """How the weights at `path` came about: the text that `save_checkpoint` was given, or None.

    `tensorgraph train` gives a JSON document with the keys config, versions, step, seconds and score. Raises
    CheckpointError for a file that is not a checkpoint.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
    _check_format(metadata, path)
    return metadata.get("training")


def _check_format(metadata: dict[str, str], path: str | Path) -> None:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a tensorgraph checkpoint: its format is {metadata.get('format')!r}")


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


@contextmanager
def _opened(path: str | Path) -> Iterator[safetensors.safe_open]:
    """The open safetensors file at `path`; reading it too raises CheckpointError alone."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CheckpointError(f"{path} cannot be read: it is not a regular file")
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with _opened(path) as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _check_same(found: dict[str, Tensor], expected: dict[str, Tensor], owner: str, other: str) -> None:
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or surplus:
        raise CheckpointError(f"{owner} does not fit {other}: missing {missing[:3]}, not expected {surplus[:3]}")
    for name, tensor in found.items():
        if tensor.layout != torch.strided:
            raise CheckpointError(f"{owner} does not fit {other}: {name} is {tensor.layout}, expected torch.strided")
        if tensor.shape != expected[name].shape or tensor.dtype not in FLOATS:
            raise CheckpointError(
                f"{owner} does not fit {other}: {name} is {tensor.dtype} {list(tensor.shape)}, expected floating "
                f"{list(expected[name].shape)}"
            )


def _check_shared(found: dict[str, Tensor], expected: dict[str, Tensor], path: str | Path) -> None:
    """Tensors of the model that are one and the same can take one value only."""
    first: dict[tuple[int, int], str] = {}
    for name, tensor in expected.items():
        if tensor.numel() == 0:
            continue
        other = first.setdefault((tensor.data_ptr(), tensor.numel()), name)
        if not torch.equal(found[name], found[other]):
            raise CheckpointError(
                f"{path} does not fit the model: {other} and {name} are one tensor there and differ in the file"
            )


def _check_types(tensors: dict[str, Tensor], owner: str) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise CheckpointError(f"{owner} has weights of the type {tensor.dtype}: {name}")


def _check_values(tensors: dict[str, Tensor], owner: str) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{owner} has weights that are not finite: {name}")
