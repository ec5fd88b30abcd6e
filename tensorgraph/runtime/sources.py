"""The texts that programs are made of: the runtime's own, and those that are printed beside it; named by digests."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib import resources

SUFFIXES = (".py", ".c", ".h")


@functools.cache
def runtime() -> Mapping[str, bytes]:
    """The files of this package by their names, in order."""
    files = sorted(resources.files(__package__).iterdir(), key=lambda file: file.name)
    return {file.name: file.read_bytes() for file in files if file.name.endswith(SUFFIXES)}


def printed(package: str, stem: str) -> dict[str, bytes]:
    """The three files of a printed program in a package, without their headers."""
    folder = resources.files(package)
    names = (f"{stem}_cpu.c", f"{stem}_torch.py", f"{stem}_triton.py")
    return {name: body(name, folder.joinpath(name).read_bytes()) for name in names}


def table(package: str, stem: str) -> bytes:
    """The table that a package holds in place of programs."""
    return resources.files(package).joinpath(f"{stem}.json").read_bytes()


def body(name: str, text: bytes) -> bytes:
    """A file without the lines of comment that it begins with: they name the spec that it was printed for."""
    sign = b"#" if name.endswith(".py") else b"//"
    lines = text.splitlines(keepends=True)
    start = next((k for k, line in enumerate(lines) if not line.startswith(sign)), len(lines))
    return b"".join(lines[start:])


def digest(texts: Mapping[str, bytes]) -> str:
    """Of names and contents; 64 hexadecimal digits."""
    total = hashlib.sha256()
    for name in sorted(texts):
        total.update(f"{name} {len(texts[name])}\n".encode() + texts[name])
    return total.hexdigest()
