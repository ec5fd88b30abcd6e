"""A program whose children write the same file or package over and over until they are killed.

It is imported once; each line of its input, the name of a job and a folder, starts a child. The child answers with its
process number when it begins, and the program, when that has ended, with its wait status. The number of writes that
were completed stands in the file `completed` of the folder; the n-th writes state n, and a child goes on where the
earlier one was killed.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tensorgraph import potential
from tensorgraph.compiler import compile_spec
from tensorgraph.emit.writing import PackageText, write_package
from tensorgraph.model import checkpoint
from tensorgraph.model.loading import load_package
from tensorgraph.spec import Spec, parse_spec

CUTOFFS = (4.0, 4.5, 5.0)
"""Of the specs whose packages are written in turn."""

LIBRARY = 300_000  # bytes


def spec(state: int) -> Spec:
    """The spec of this state: a small HIP-NN."""
    network = {"species": ["H", "O"], "features": 64, "sensitivity": {"cutoff": CUTOFFS[state % len(CUTOFFS)]}}
    basis = {"family": "hiphop", "body_order": 2, "max_rank": 0}
    return parse_spec(json.dumps({"name": "crashing", "basis": basis, "network": network}))


COMPILATIONS = [compile_spec(spec(state)) for state in range(len(CUTOFFS))]


def text(state: int) -> PackageText:
    return COMPILATIONS[state % len(CUTOFFS)].package


def checkpoint_writer(folder: Path) -> Callable[[int], object]:
    """Writes models all of whose weights are the number of the state."""
    package = load_package(folder / "crashing")
    model = package.Model().double()
    package.Model = lambda: model  # what weights are compared with: making one takes longer than writing it

    def write(state: int) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(state)
        checkpoint.save_checkpoint(model, package, folder / "model.safetensors")

    return write


def package_writer(folder: Path) -> Callable[[int], object]:
    return lambda state: write_package(text(state), folder / "packages")


def cache_writer(folder: Path) -> Callable[[int], object]:
    """Builds packages into the cache, whose seals it breaks before."""
    os.environ["TENSORGRAPH_CACHE"] = str(folder / "cache")
    potential.compile_spec = lambda wanted: next(c for c in COMPILATIONS if c.spec == wanted)

    def write(state: int) -> None:
        for seal in (folder / "cache").glob("packages/*/sha256"):
            seal.unlink()
        potential._built(spec(state))

    return write


def library_writer(folder: Path) -> Callable[[int], object]:
    """Keeps libraries in the cache all of whose bytes are the number of the state."""
    libraries = load_package(folder / "crashing")._runtime.libraries

    def write(state: int) -> None:
        new = folder / "new.so"
        new.write_bytes(bytes([state % 256]) * LIBRARY)
        libraries._keep(new, folder / "libraries" / "kept.so")

    return write


JOBS = {
    "checkpoint": checkpoint_writer,
    "plain": checkpoint_writer,
    "package": package_writer,
    "cache": cache_writer,
    "library": library_writer,
}


def write_carelessly(content: bytes, target: Path) -> None:
    """Straight into the file, in two halves, the disk as slow as for the others."""
    with target.open("wb", buffering=0) as file:
        for half in (content[: len(content) // 2], content[len(content) // 2 :]):
            file.write(half)
            os.fsync(file.fileno())


def write_until_killed(job: str, folder: Path, write: Callable[[int], object]) -> None:
    delay = 0.002 if job in ("package", "cache") else 0.005  # for packages have many files
    os.fsync = lambda descriptor: time.sleep(delay)  # a slow disk: a good part of a write is spent here
    if job == "plain":
        checkpoint.write_atomically = write_carelessly
    with (folder / "completed").open("r+b") as file, mmap.mmap(file.fileno(), 8) as completed:
        print(os.getpid(), flush=True)
        while True:
            state = int.from_bytes(completed[:8], "little") + 1
            write(state)
            completed[:8] = state.to_bytes(8, "little")


def main() -> None:
    torch.set_num_threads(1)  # threads would not be there in a child
    print("ready", flush=True)
    prepared: dict[str, Callable[[int], object]] = {}
    for line in sys.stdin:
        job, folder = line.split()
        if line not in prepared:
            prepared[line] = JOBS[job](Path(folder))
        child = os.fork()
        if not child:
            try:
                write_until_killed(job, Path(folder), prepared[line])
            finally:
                os._exit(1)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
