"""The C programs on the CPU: built by this machine's own compiler at their first call, and kept for the next process.

Libraries lie in ``$TENSORGRAPH_CACHE``, else in ``tensorgraph`` under ``$XDG_CACHE_HOME`` or ``~/.cache``, named by a
digest of source, compiler and processor. ``$CC`` names a compiler; without one ``cc``, ``gcc`` and ``clang`` are tried.
``TENSORGRAPH_CPU=pytorch`` does without.
"""

import atexit
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import architecture

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")

# The first that a compiler takes: for this very processor and on all cores, then with less.
MACHINE_FLAGS = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())

REALS = {torch.float32: "float", torch.float64: "double"}

# Rows (atoms or pairs, times channels) below which another thread costs more than it helps.
ROWS_PER_THREAD = 4096

COMPILE_SECONDS = 600


class Unavailable(Exception):
    """Why there is no library."""


def run(source: str, name: str, sizes: Sequence[int], rows: int, arrays: Sequence[Tensor], **macros: int) -> bool:
    """Runs a program on contiguous CPU tensors, inputs (the first one real) before outputs; False where it cannot.

    `source` is the file of a program, whose name in capitals selects it there; `sizes` are what it takes before the
    arrays, `rows` says how much work it is, and `macros` what it is compiled for.
    """
    function = _function(source, name, arrays[0].dtype, **macros)
    if function is None:
        return False
    threads = min(torch.get_num_threads(), 1 + rows // ROWS_PER_THREAD)
    pointers = (ctypes.c_void_p(array.data_ptr()) for array in arrays)
    function(*map(ctypes.c_int64, sizes), ctypes.c_int(threads), *pointers)
    return True


def available(source: str, name: str, dtype: torch.dtype, **macros: int) -> bool:
    """Whether the program runs compiled here; the first question builds it."""
    return _function(source, name, dtype, **macros) is not None


@functools.cache
def _function(source: str, name: str, dtype: torch.dtype, **macros: int):
    """The compiled program, or None, said once, where plain PyTorch has to do."""
    chosen = os.environ.get("TENSORGRAPH_CPU", "native")
    if chosen not in ("native", "pytorch"):
        raise ValueError(f"TENSORGRAPH_CPU is {chosen!r}; allowed: native, pytorch")
    if chosen == "pytorch":
        return None
    file = Path(__file__).with_name(source)
    defined = {"REAL": REALS[dtype], name.upper(): 1, **macros}
    try:
        function = getattr(_library(file, name, [f"-D{key}={value}" for key, value in defined.items()]), name)
    except (Unavailable, OSError) as error:
        _warn(str(error))
        return None
    function.restype = None
    return function


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(
        f"{architecture.NAME}: no compiled CPU programs ({reason}); plain PyTorch runs instead, many times slower",
        RuntimeWarning,
        stacklevel=2,
    )


def _library(source: Path, name: str, macros: Sequence[str]) -> ctypes.CDLL:
    compiler = _compiler()
    failure = ""
    for machine_flags in MACHINE_FLAGS:
        command = (*compiler, *FLAGS, *machine_flags, *macros)
        path = _cache() / f"{architecture.NAME}-{name}-{_digest(source, command)}.so"
        if path.exists():
            try:
                return ctypes.CDLL(os.fspath(path))
            except OSError:  # cut short by a full disk, say: built anew below
                pass
        failure = _build(source, command, path)
        if not failure:
            return ctypes.CDLL(os.fspath(path))
    raise Unavailable(failure)


def _compiler() -> tuple[str, ...]:
    """The compiler and its arguments."""
    for command in [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]:
        program, *arguments = shlex.split(command)
        if found := shutil.which(program):
            return (os.path.realpath(found), *arguments)
    raise Unavailable(f"no C compiler {os.environ.get('CC') or 'cc, gcc or clang'} on the path")


def _build(source: Path, command: Sequence[str], path: Path) -> str:
    """Builds a library in one atomic step; the reason if that fails."""
    handle, unfinished = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        done = subprocess.run(
            [*command, os.fspath(source), "-o", unfinished],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_SECONDS,
        )
        if done.returncode == 0:
            os.replace(unfinished, path)
            return ""
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[0]
    except subprocess.TimeoutExpired:
        said = f"more than {COMPILE_SECONDS} s"
    finally:
        Path(unfinished).unlink(missing_ok=True)
    return f"{command[0]}: {said}"


@functools.cache
def _cache() -> Path:
    """A folder for libraries that nobody else can write to; one of this process if there is none."""
    for folder in _cache_folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
        except OSError:
            continue
        ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        if ours and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    temporary = tempfile.mkdtemp(prefix="tensorgraph-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)


def _cache_folders() -> Iterator[Path]:
    if os.environ.get("TENSORGRAPH_CACHE"):
        yield Path(os.environ["TENSORGRAPH_CACHE"])
    elif os.environ.get("XDG_CACHE_HOME"):
        yield Path(os.environ["XDG_CACHE_HOME"]) / "tensorgraph"
    else:
        try:
            yield Path.home() / ".cache" / "tensorgraph"
        except RuntimeError:  # no home
            return


def _digest(source: Path, command: Sequence[str]) -> str:
    """Changes with all that the library depends on."""
    compiler = os.stat(command[0])
    facts = [*command, compiler.st_size, compiler.st_mtime_ns, _processor()]
    return hashlib.sha256(source.read_bytes() + repr(facts).encode()).hexdigest()[:24]


def _processor() -> str:
    """What ``native`` means here; a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(line for line in lines if line.startswith(kept))
