"""Import of a generated package from the directory that it stands in."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tensorgraph.errors import PackageError
from tensorgraph.manifest import read_manifest

_PREFIX = "_tensorgraph_package_"
_RUNTIME = "_runtime"
_IMPORTING = threading.RLock()


def load_package(path: str | Path) -> ModuleType:
    """Import the generated package in the directory `path` under a private name; `sys.path` is not touched.

    The same directory with the same files gives the same module again; a rebuilt or an edited one is imported anew.
    Several threads may call it at once.

    Raises PackageError if the directory does not hold a generated package, or if its code cannot be imported.
    """
    directory = Path(path).resolve()
    manifest = read_manifest(directory)
    if not (directory / "__init__.py").is_file():
        raise PackageError(f"{path} is not a generated package: it has no __init__.py")
    name = _module_name(directory, manifest)
    with _IMPORTING:  # another thread must not be given a module that is still being executed
        if name not in sys.modules:
            _import(name, directory)
        return sys.modules[name]


def package_directory(package: ModuleType) -> Path:
    """The directory that an imported generated package stands in. Raises PackageError for a module without a file."""
    if package.__file__ is None:
        raise PackageError(f"{package.__name__} is not a generated package: it has no file")
    return Path(package.__file__).parent


def _module_name(directory: Path, manifest: Mapping[str, Any]) -> str:
    """A name that no one else uses, different for another directory, another build and edited code."""
    try:
        code = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in _sources(directory).items()}
    except OSError as error:
        raise PackageError(f"the package in {directory} cannot be read: {error}") from error
    identity = json.dumps([str(directory), manifest, code], sort_keys=True)
    return _PREFIX + hashlib.sha256(identity.encode()).hexdigest()[:16]


def _sources(directory: Path) -> dict[str, Path]:
    """Python and C, the runtime's too: all are read when the package is imported."""
    files = [*directory.iterdir()]
    if (directory / _RUNTIME).is_dir():  # not in a package that was made before there was one
        files += (directory / _RUNTIME).iterdir()
    return {file.relative_to(directory).as_posix(): file for file in files if file.suffix in (".py", ".c", ".h")}


def _import(name: str, directory: Path) -> None:
    source = directory / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, source, submodule_search_locations=[str(directory)])
    if spec is None or spec.loader is None:
        raise PackageError(f"{source} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # an interrupt too must not leave half a module behind
        for imported in [key for key in sys.modules if key == name or key.startswith(name + ".")]:
            del sys.modules[imported]
        if isinstance(error, Exception):
            raise PackageError(f"the package in {directory} cannot be imported: {error}") from error
        raise
