"""The runtime as files of a generated package: copied as it is, and replaced in a package that was handed out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorgraph.emit.writing import MANIFEST_KEYS, PackageText, check_package, refuse_foreign, write_package
from tensorgraph.errors import PackageError
from tensorgraph.manifest import MANIFEST, read_manifest
from tensorgraph.runtime import INTERFACE
from tensorgraph.runtime.sources import digest, runtime
from tensorgraph.version import __version__

FOLDER = "_runtime"
"""Of a generated package."""


def runtime_files() -> dict[str, str]:
    """The runtime's files by their paths in a package, the same for every spec."""
    return {f"{FOLDER}/{name}": text.decode("utf-8") for name, text in runtime().items()}


def runtime_entry() -> dict[str, Any]:
    """What a manifest records of the runtime beside it."""
    return {"tensorgraph_version": __version__, "interface": INTERFACE, "digest": digest(runtime())}


def manifest_text(content: Mapping[str, Any]) -> str:
    """A manifest as it stands in a package."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def refreshed(directory: Path) -> PackageText:
    """The package in a directory with the newest runtime; what was printed for its spec is unchanged.

    Raises PackageError where there is no package, or one of the layout before the runtime, or that was printed for
    another interface of it, holds anything that tensorgraph did not write, or lacks a file.
    """
    manifest = read_manifest(directory, MANIFEST_KEYS)
    rebuild = f"`tensorgraph build {directory / 'spec.yaml'} --out {directory.parent}` rebuilds it"
    recorded = manifest.get("runtime")
    if recorded is None:
        raise PackageError(f"{directory} is a package of the old layout, without {FOLDER}/; {rebuild}")
    if not isinstance(recorded, dict) or recorded.get("interface") != INTERFACE:
        found = recorded.get("interface") if isinstance(recorded, dict) else recorded
        raise PackageError(
            f"{directory} was printed for interface {found!r} of the runtime, this one has {INTERFACE}; {rebuild}"
        )
    if manifest["name"] != directory.name:
        raise PackageError(f"{directory} holds the package {manifest['name']}; rename the folder first")
    refuse_foreign(directory)
    printed = [path for path in manifest["files"] if path != MANIFEST and not path.startswith(f"{FOLDER}/")]
    PackageText(directory.name, tuple((path, "") for path in sorted(printed))).verify()  # before any is read
    files = {path: _read(directory / path, rebuild) for path in printed} | runtime_files()
    updated = manifest | {"runtime": runtime_entry(), "files": sorted([*files, MANIFEST])}
    package = PackageText(directory.name, tuple(sorted({**files, MANIFEST: manifest_text(updated)}.items())))
    package.verify()
    return package


def refresh_package(directory: Path) -> bool:
    """Brings a package to the newest runtime in one atomic step; False where it has that already.

    Raises PackageError as `refreshed` does, and where the package cannot be written.
    """
    directory = directory.resolve()
    package = refreshed(directory)
    if not check_package(package, directory.parent):
        return False
    write_package(package, directory.parent)
    return True


def _read(path: Path, rebuild: str) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PackageError(f"cannot read {path}: {reason}; {rebuild}") from error
