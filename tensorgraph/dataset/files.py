"""Frames of a file that ASE reads, one after the other; what would run code, and what ASE would drop, is refused.

No reader of ASE's that is reached from here unpickles or evaluates what a file holds, with these exceptions: the old
trajectories (`PickleTrajectory`, a pickle), the folders of a `BundleTrajectory`, whose early ones hold pickles, and the
tar archives that GPAW once wrote as `.gpw`, whose reader evaluates text. They are refused before they are opened.
"""

from __future__ import annotations

import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat, open_with_compression

from tensorgraph.errors import DataError

PICKLES = (b"PickleTrajectory", *(bytes([0x80, protocol]) for protocol in range(2, 6)))
PICKLE_NAMES = {"pckl", "pickle", "pickletrajectory", "pkl", "trj"}
SAFE_GPW = (b"- of Ulm", b"AFFormat")
UNREADABLE = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
"""What files raise that are not there, cut off, of broken compression, or no text (ValueError)."""
_HEAD = 64  # bytes


def frames_of(file: str | Path) -> Iterator[Atoms]:
    """The structures of a file, compressed or not, as ASE gives them, with their calculators.

    Raises DataError, the file and where there is one the frame in front, for a path that is no regular file, an empty
    file or one without structures, a format that ASE cannot read or that may run code, a broken frame, and a file that
    changes before its last frame is taken.
    """
    before = _identity(file)
    name = _format(file)
    if name == "extxyz":
        _check_xyz(file)
    count = 0
    for atoms in _frames(file, name):
        yield atoms
        count += 1
    if not count:
        raise DataError(f"{file} holds no structure (read as {name})")
    if _identity(file) != before:
        raise DataError(f"{file} changed while it was read; allowed: a file that nothing writes to meanwhile")


def _identity(file: str | Path) -> tuple[int, int, int]:
    """What tells whether a file is still the same: its size, the time of its last change, and its inode."""
    try:
        status = os.stat(file)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise DataError(f"{file} cannot be read: {_reason(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise DataError(f"{file} is {what}; allowed: a file of structures that ASE reads")
    if not status.st_size:
        raise DataError(f"{file} is empty")
    return status.st_size, status.st_mtime_ns, status.st_ino


def _format(file: str | Path) -> str:
    """ASE's name of the format. An absolute path is given to ASE, which takes some relative ones for databases."""
    path = os.path.abspath(file)
    try:
        with open_with_compression(path, "rb") as opened:
            head = opened.read(_HEAD)
    except UNREADABLE as error:
        raise DataError(f"{file} cannot be read: {_reason(error)}") from None
    suffixes = {suffix.lstrip(".").lower() for suffix in Path(path).suffixes[-2:]}
    if head.startswith(PICKLES) or suffixes & PICKLE_NAMES:
        raise DataError(f"{file} is a pickle, which may run any code when it is read; allowed: extended XYZ, .traj, …")
    if not head.strip():
        raise DataError(f"{file} holds no structure")
    try:
        name: str = get_ioformat(filetype(path)).name
    except UNREADABLE as error:
        raise DataError(f"{file} cannot be read: {_reason(error)}") from None
    except (UnknownFileTypeError, KeyError) as error:
        raise DataError(f"{file} has no format that ASE knows: {error}; extended XYZ ends in .xyz") from None
    _check_format(file, name, head)
    return name


def _check_format(file: str | Path, name: str, head: bytes) -> None:
    known = get_ioformat(name)
    if name in PICKLE_NAMES or known.module_name.endswith("pickletrajectory"):
        raise DataError(f"{file} has the format {name}, which may run any code when it is read; allowed: extended XYZ")
    if name == "gpw" and not head.startswith(SAFE_GPW):
        raise DataError(f"{file} is a .gpw file of an old GPAW, whose text is evaluated; allowed: those of GPAW 1.0 on")
    if not known.can_read:
        raise DataError(f"{file} has the format {name}, which ASE writes and does not read")


def _check_xyz(file: str | Path) -> None:
    """Raise DataError for the first frame whose place is not where the one before ends.

    ASE finds all frames before it reads the first one, so that its error does not say which one is broken; and at a
    blank line it ends without one, however many frames follow.
    """
    frame = 0
    try:
        with open_with_compression(os.path.abspath(file), "rt") as lines:
            line = lines.readline()
            while line.strip():
                if not line.strip().isdecimal():
                    raise DataError(f"{file}, frame {frame}: the number of atoms is {_shortened(line)}")
                if not all(lines.readline() for _ in range(int(line) + 1)):
                    raise DataError(f"{file}, frame {frame}: the file ends before the last of {int(line)} atoms")
                line = lines.readline()
                while line.lstrip().startswith("VEC"):
                    line = lines.readline()
                frame += 1
            if any(line.strip() for line in lines):
                raise DataError(f"{file}, frame {frame}: a blank line stands where the number of atoms should")
    except UNREADABLE as error:
        raise DataError(f"{file}, frame {frame}: cannot be read as extended XYZ: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _shortened(line: str) -> str:
    return repr(line.strip()[:40] + ("…" if len(line.strip()) > 40 else ""))


def _frames(file: str | Path, name: str) -> Iterator[Atoms]:
    frames = iread(os.path.abspath(file), index=":", format=name, parallel=False, do_not_split_by_at_sign=True)
    frame = 0
    while True:
        try:
            atoms = next(frames, None)
        except (Warning, MemoryError):  # a warning that the caller made an error is not the file's
            raise
        except Exception as error:  # readers raise whatever their parsing meets: IndexError, AssertionError, …
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            # Most formats are parsed as a whole before their first frame.
            where = f"{file}, frame {frame}:" if frame or name == "extxyz" else file
            raise DataError(f"{where} cannot be read as {name}: {reason}") from error
        if atoms is None:
            return
        yield atoms
        frame += 1
