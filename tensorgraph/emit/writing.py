"""Packages on disk: written in one atomic step, compared byte for byte.

The files of a package are written to a hidden directory beside its place, forced to disk, and then that directory
and the earlier package change places in one system call. Whoever imports the package sees the old one or the new
one; a build that fails or is killed leaves the old one. The hidden directory of a killed build is removed by the
next build.
"""

import ctypes
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from tensorgraph.atomic import sync_directory
from tensorgraph.errors import PackageError
from tensorgraph.manifest import MANIFEST, read_manifest

MANIFEST_KEYS = ("tensorgraph_version", "files")
_CACHE = "__pycache__"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@dataclass(frozen=True)
class PackageText:
    """A generated package as text: its name, and the path (relative, POSIX) and text of each file, sorted by path."""

    name: str
    files: tuple[tuple[str, str], ...]

    def verify(self) -> None:
        """Raises PackageError where the name or a path would lead out of the package, or the order is not canonical."""
        if not self.name.isidentifier():
            raise PackageError(f"{self.name!r} is no name of a package; allowed: a Python identifier")
        paths = [path for path, _ in self.files]
        if paths != sorted(set(paths)):
            raise PackageError(f"the files of {self.name} are not in order; allowed: sorted paths, each once")
        for path in paths:
            pure = PurePosixPath(path)
            if pure.is_absolute() or str(pure) != path or ".." in pure.parts or _CACHE in pure.parts or path == ".":
                raise PackageError(f"{path!r} is no path of a package's file; allowed: relative paths inside it")


def write_package(package: PackageText, out: Path) -> Path:
    """Writes `out/<name>/` in one atomic step and returns its path.

    An earlier package is replaced, its `__pycache__` included. Raises PackageError, with everything left as it was,
    where `out` cannot be written or `out/<name>` holds anything that tensorgraph did not write.
    """
    package.verify()
    target = out / package.name
    with _as_package_error(f"cannot write {target}"):
        if out.exists() and not out.is_dir():
            raise PackageError(f"{out} is no directory; allowed: a directory, or a path where one can be made")
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out) as alone:
            if alone:
                _remove_stale(out, package.name)
            refuse_foreign(target)
            staging = out / f".{package.name}.build-{secrets.token_hex(8)}"
            try:
                _write_files(package, staging)
                _put_in_place(staging, target)
            finally:  # holds the earlier package now, or what a failure left
                shutil.rmtree(staging, ignore_errors=True)
    return target


def check_package(package: PackageText, out: Path) -> tuple[str, ...]:
    """How `out/<name>/` differs from `package`, one line per file; empty where they agree byte for byte.

    Raises PackageError where a file cannot be read.
    """
    package.verify()
    target = out / package.name
    with _as_package_error(f"cannot read {target}"):
        if not target.is_dir():
            return (f"{target}: missing, the package was never built",)
        present, wanted = set(_files(target)), dict(package.files)
        return tuple(
            difference
            for path in sorted(present | wanted.keys())
            if (difference := _difference(target / path, wanted.get(path), path in present))
        )


def _difference(path: Path, wanted: str | None, present: bool) -> str | None:
    if not present:
        return f"{path}: missing"
    if wanted is None:
        return f"{path}: extra, the spec gives no such file"
    found = path.read_bytes()
    if found == wanted.encode():
        return None
    pairs = zip_longest(found.split(b"\n"), wanted.encode().split(b"\n"))
    line = next(number for number, (old, new) in enumerate(pairs, start=1) if old != new)
    return f"{path}: differs at line {line}"


def _files(root: Path) -> Iterator[str]:
    """The relative paths of all that is no directory under `root`, Python's caches left out; links are not followed."""
    for folder, folders, names in os.walk(root, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        folders[:] = sorted(name for name in folders if name != _CACHE and name not in links)
        for name in sorted(names + links):
            yield Path(folder, name).relative_to(root).as_posix()


def _raise(error: OSError) -> None:
    raise error


def refuse_foreign(target: Path) -> None:
    """Raises PackageError where replacing `target` would lose anything that tensorgraph did not write."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise PackageError(f"{target} is no directory; allowed: no such path, or a package that tensorgraph wrote")
    present = list(_files(target)) if target.exists() else []
    if not present:
        return
    written = _written_files(target)
    if written is None:
        raise PackageError(f"{target} is no package of tensorgraph; move it away, or build with another --out or name")
    foreign = [path for path in present if path not in written or (target / path).is_symlink()]
    if foreign:
        raise PackageError(f"{target / foreign[0]} was not written by tensorgraph; move it out of the package first")


def _written_files(target: Path) -> frozenset[str] | None:
    """The files that the manifest in `target` lists, or None where there is no manifest of a package of that name."""
    try:
        manifest = read_manifest(target, MANIFEST_KEYS)
    except PackageError:
        return None
    if manifest["name"] != target.name:
        return None
    files = manifest["files"]
    if not isinstance(files, list) or not all(isinstance(path, str) for path in files):
        return None
    return frozenset(files) | {MANIFEST}


def _write_files(package: PackageText, staging: Path) -> None:
    staging.mkdir()
    folders = {staging}
    for path, text in package.files:
        file = staging / path
        file.parent.mkdir(parents=True, exist_ok=True)
        folders.update(folder for folder in file.parents if folder.is_relative_to(staging))
        with file.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    for folder in sorted(folders, reverse=True):
        sync_directory(folder)


def _put_in_place(staging: Path, target: Path) -> None:
    """Moves `staging` to `target`; an earlier package then stands in `staging`."""
    if not target.exists():
        staging.rename(target)
    elif not _exchange(staging, target):
        _exchange_in_steps(staging, target)
    sync_directory(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two paths change places in one system call; False where this system or file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _exchange_in_steps(staging: Path, target: Path) -> None:
    """Three renames with a roll-back, where there is no exchange; what a kill leaves aside the next build puts back."""
    aside = staging.with_name(f"{staging.name}-old")
    target.rename(aside)
    try:
        staging.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    aside.rename(staging)


def _remove_stale(out: Path, name: str) -> None:
    """Removes what killed builds of `name` left; a set-aside package whose successor never came is put back first."""
    pattern = re.compile(rf"\.{re.escape(name)}\.build-[0-9a-f]{{16}}(-old)?")
    for entry in sorted(out.iterdir(), reverse=True):
        match = pattern.fullmatch(entry.name)
        if match and match[1] and not (out / name).exists():
            entry.rename(out / name)
        elif match:
            shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _locked(out: Path) -> Iterator[bool]:
    """Holds a lock on the directory itself, so that no lock file stays behind; False where locks are not supported."""
    descriptor = os.open(out, os.O_RDONLY)
    try:
        locked = False
        with suppress(OSError):  # some network file systems
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            locked = True
        yield locked
    finally:
        os.close(descriptor)  # releases the lock


@contextmanager
def _as_package_error(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PackageError(f"{what}: {error.strerror or error}") from error
