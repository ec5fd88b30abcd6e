"""Potentials from files: a checkpoint alone is enough, for its package is built from the spec inside it.

Packages are kept in the same cache as compiled programs: `$TENSORGRAPH_CACHE`, else `tensorgraph` under
`$XDG_CACHE_HOME` or `~/.cache`. Each has a folder of its own, named by a digest of the spec and of the compiler that
built it, so that another compiler builds it anew; any number of processes may use it at once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from tensorgraph.atomic import write_atomically
from tensorgraph.compiler import compile_spec
from tensorgraph.emit.writing import write_package
from tensorgraph.errors import BudgetError, CheckpointError, PackageError, SpecError
from tensorgraph.model.checkpoint import load_checkpoint, spec_of_checkpoint
from tensorgraph.model.loading import load_package
from tensorgraph.spec import AnySpec, parse_spec
from tensorgraph.version import __version__

WEIGHTS = "model.safetensors"
"""The name of the checkpoint that training writes into the folder of a run."""


def read_spec(path: str | Path) -> AnySpec:
    """The spec inside the checkpoint at `path`.

    Raises CheckpointError for a file that is not a checkpoint, or whose spec is not valid or has no network.
    """
    text = spec_of_checkpoint(path)
    try:
        spec = parse_spec(text, "spec")
    except SpecError as error:
        raise CheckpointError(f"{path} holds a spec that is not valid: {error}") from None
    if not spec.has_model:
        raise CheckpointError(f"{path} holds a spec without a network, which has no weights")
    if spec.canonical_json() != text:
        raise CheckpointError(
            f"{path} holds a spec that this version of tensorgraph ({__version__}) would write otherwise; "
            "allowed: the canonical JSON of a spec with all of its keys"
        )
    return spec


def package_of_checkpoint(path: str | Path) -> ModuleType:
    """The package of the spec inside the checkpoint at `path`, built into the cache if it is not there yet.

    Raises CheckpointError for a file that is not a checkpoint or whose spec is not valid, and PackageError where the
    cache cannot be written or is not the user's own.
    """
    return package_of_spec(read_spec(path))


def package_of_spec(spec: AnySpec) -> ModuleType:
    """The package of a spec, built into the cache if it is not there yet.

    Raises CheckpointError for a spec that is too large to build, and PackageError where the cache cannot be written or
    is not the user's own.
    """
    return load_package(_built(spec))


def load_model(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
    *,
    package: ModuleType | None = None,
) -> torch.nn.Module:
    """The model in the checkpoint at `path`, its weights converted to `dtype`.

    `package` is what holds the checkpoint's code, by default `package_of_checkpoint(path)`. Raises CheckpointError
    and PackageError like it, and PackageError for a package without a network.
    """
    package = package_of_checkpoint(path) if package is None else package
    if not hasattr(package, "Model"):
        raise PackageError(f"{package.__name__} has no Model; allowed: the package of a spec with a network")
    model: torch.nn.Module = package.Model().to(dtype)
    load_checkpoint(model, package, path)
    return model.to(device)


def open_potential(path: str | Path, checkpoint: str | Path | None = None) -> tuple[ModuleType, Path | None]:
    """The package and the checkpoint, if any, that `path` means: the folder of a package, or a checkpoint alone.

    With the folder of a package, `checkpoint` names its weights. Raises PackageError for a folder that holds no
    package and for a path that does not exist, and CheckpointError for a file that is not a checkpoint and for a
    second checkpoint.
    """
    if os.path.isfile(path):
        if checkpoint is not None:
            raise CheckpointError(
                f"{path} is a file beside the checkpoint {checkpoint}; allowed: a package, or one file"
            )
        return package_of_checkpoint(path), Path(path)
    if not os.path.isdir(path):
        raise PackageError(f"{path} does not exist; allowed: the folder of a generated package, or a checkpoint")
    return load_package(path), None if checkpoint is None else Path(checkpoint)


def members_of(path: str | Path) -> list[Path]:
    """The checkpoints that `path` means: a file is one; a folder holds the one of a run, `model.safetensors`, or those
    of a committee, two or more `seed-*/model.safetensors`, which come in the order of their seeds.

    Raises CheckpointError for a path that does not exist, a folder that holds neither or both, and a committee of which
    members are missing. The files are not opened.
    """
    folder = Path(path)
    if not folder.exists():
        raise CheckpointError(f"{path} does not exist; allowed: a checkpoint, or the folder of a run")
    if not folder.is_dir():
        return [folder]
    single, seeds = folder / WEIGHTS, sorted((seed for seed in folder.glob("seed-*") if seed.is_dir()), key=_by_seed)
    if single.exists() and seeds:
        raise CheckpointError(f"{path} holds both {WEIGHTS} and {seeds[0].name}; allowed: one of them, named in full")
    if single.exists():
        return [single]
    if not seeds:
        raise CheckpointError(f"{path} holds no {WEIGHTS} and no seed-*/{WEIGHTS}; allowed: the folder of a run")
    members = [seed / WEIGHTS for seed in seeds]
    if missing := [member for member in members if not member.exists()]:
        raise CheckpointError(f"{missing[0]} is missing: the committee in {path} is not complete")
    if len(members) < 2:
        raise CheckpointError(f"{path} holds one member of a committee, {members[0]}; allowed: two or more")
    return members


def _by_seed(folder: Path) -> tuple[int, str]:
    """Numbers in their own order: seed-10 after seed-9."""
    seed = folder.name.removeprefix("seed-")
    return int(seed) if seed.isdecimal() else -1, seed


def _built(spec: AnySpec) -> Path:
    """The folder of the package of `spec` in the cache; one that is damaged or was edited is built again."""
    out = _own_folder(_own_folder(_cache_folder()) / _identity(spec))
    target, seal = out / spec.name, out / "sha256"
    with _as_package_error(out):
        if seal.is_file() and seal.read_text(encoding="utf-8", errors="replace") == _content_digest(target):
            return target
    try:
        compilation = compile_spec(spec)
    except BudgetError as error:
        raise CheckpointError(f"the package of the spec {spec.name} cannot be built: {error}") from error
    try:
        write_package(compilation.package, out)
    except PackageError:  # what stands there is damaged beyond recognition, and the folder is ours alone
        shutil.rmtree(target, ignore_errors=True)
        write_package(compilation.package, out)
    with _as_package_error(out):
        write_atomically(_content_digest(target).encode(), seal)
    return target


def _content_digest(package: Path) -> str:
    """Of the names and contents of its files, the caches of Python left out."""
    total = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name, content = path.relative_to(package).as_posix().encode(), path.read_bytes()
            total.update(f"{len(name)} {len(content)} ".encode() + name + content)
    return total.hexdigest()


def _identity(spec: AnySpec) -> str:
    return f"{spec.name}-{hashlib.sha256(f'{spec.digest} {_compiler_digest()}'.encode()).hexdigest()[:24]}"


@functools.cache
def _compiler_digest() -> str:
    """Changes with the version and with every edit of the compiler's sources and templates."""
    return hashlib.sha256(f"{__version__} {_content_digest(Path(__file__).parent)}".encode()).hexdigest()


def _cache_folder() -> Path:
    if chosen := os.environ.get("TENSORGRAPH_CACHE"):
        folder = Path(chosen)
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "tensorgraph"
    try:
        return folder.expanduser().absolute() / "packages"
    except (OSError, RuntimeError) as error:  # RuntimeError: no home
        raise PackageError(f"there is no folder to keep packages in: {error}; allowed: TENSORGRAPH_CACHE") from None


def _own_folder(folder: Path) -> Path:
    """The folder, made if needed: what is imported from there must not be somebody else's."""
    with _as_package_error(folder):
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # `parents` have the mode of the umask
        folder.mkdir(mode=0o700, exist_ok=True)
        for place in (folder.parent, folder):
            status = place.stat()
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                raise PackageError(
                    f"{place} belongs to somebody else; allowed: TENSORGRAPH_CACHE names a folder of yours"
                )
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PackageError(f"{place}: others can write to it; allowed: a folder that only you can write to")
    return folder


@contextmanager
def _as_package_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise PackageError(f"packages cannot be kept in {folder}: {reason}; set TENSORGRAPH_CACHE") from error
