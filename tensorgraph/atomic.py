"""Files that are replaced in one atomic step: a reader sees the earlier one or the whole new one, whatever fails.

The content is written to a hidden file beside its place, forced to disk, and renamed. Its writer holds a lock on it,
so that the next writer of the same file knows what a killed one left, and removes it, while others go on writing.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from pathlib import Path

from tensorgraph.errors import TensorGraphError


def write_atomically(content: bytes, target: Path) -> None:
    """Replace `target` by a file with this content, or leave it as it was; on the disk when this returns.

    A link stays a link: the file that it leads to is replaced, and an earlier file's mode is kept. Raises OSError where
    `target` cannot be written, and where it is not a regular file.
    """
    if reason := obstacle(target):
        raise OSError(errno.EEXIST, reason)
    target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target)
    descriptor, staging = _create(target)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
            _keep_mode(descriptor, target)
            os.replace(staging, target)  # while it is locked: nobody else may take it for stale
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def write_file(content: str | bytes, path: Path, kind: type[TensorGraphError] = TensorGraphError) -> None:
    """`write_atomically` for what a user named: where the file cannot be written, an error of this kind says so."""
    try:
        write_atomically(content.encode() if isinstance(content, str) else content, path)
    except OSError as error:
        raise kind(f"cannot write {path}: {error.strerror or error}") from error


def sync_directory(directory: Path) -> None:
    """Put the new name of a file on the disk too, where directories can be opened at all."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot do it for directories
                raise
        finally:
            os.close(descriptor)


def obstacle(target: Path) -> str:
    """What stands there that no file may replace: a directory, a pipe, a link that leads in a circle; or nothing."""
    place = os.path.realpath(target)
    if not os.path.lexists(place) or os.path.isfile(place):
        return ""
    return f"it is {'a directory' if os.path.isdir(place) else 'no regular file'}"


def _keep_mode(descriptor: int, target: Path) -> None:
    """Gives a new file the mode of the earlier one, if there is one."""
    if target.exists():
        mode = stat.S_IMODE(target.stat().st_mode)
        if mode != stat.S_IMODE(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, mode)


def _create(target: Path) -> tuple[int, Path]:
    """A new file beside the target, with the mode that the umask gives, locked where files can be."""
    while True:
        staging = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        _lock(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink:
            return descriptor, staging
        os.close(descriptor)  # another writer found it before it was locked, and removed it


def _remove_stale(target: Path) -> None:
    """Removes what killed writers of this target left: what nobody holds a lock on."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}")
    for entry in target.parent.iterdir():
        if pattern.fullmatch(entry.name):
            with contextlib.suppress(OSError):  # it was renamed meanwhile, or belongs to somebody else
                descriptor = os.open(entry, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
                try:
                    if _lock(descriptor, wait=False):
                        entry.unlink()
                finally:
                    os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    """Whether the file is locked by this call; never where locks are not supported, as on some network file systems."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
