"""The C programs on the CPU: built by this machine's own compiler at their first call, and kept for the next process.

Libraries lie in ``$TENSORGRAPH_CACHE``, else in ``tensorgraph`` under ``$XDG_CACHE_HOME`` or ``~/.cache``, named by a
digest of source, compiler and processor, each beside its checksum: loading a damaged one would end the process.
``$CC`` names a compiler; without one ``cc``, ``gcc`` and ``clang`` are tried. ``TENSORGRAPH_CPU=pytorch`` does without.
"""

import atexit
import contextlib
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
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import architecture

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None

# Read at once: the folder of the package may be gone at the first call.
SOURCES = {file.name: file.read_bytes() for file in Path(__file__).parent.glob("*_cpu.c")}

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")

# The first that a compiler takes, and whose libraries load: for this very processor and on all cores, then with less.
MACHINE_FLAGS = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())

REALS = {torch.float32: "float", torch.float64: "double"}

# Rows (atoms or pairs, times channels) below which another thread costs more than it helps.
ROWS_PER_THREAD = 4096

# Most programs take seconds, the longest a minute.
COMPILE_SECONDS = 300

# Lines of /proc/cpuinfo that tell cores, or moments, of one machine apart.
VARYING = ("processor", "hart", "clock", "siblings", "cpu cores", "core id", "physical id", "apicid", "initial apicid")


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


def results(source: str, name: str, sizes: Sequence[int], rows: int, inputs: Sequence[Tensor], outputs, **macros: int):
    """The outputs, one tensor or several, as `run` fills them; None where it cannot."""
    made = (outputs,) if isinstance(outputs, Tensor) else outputs
    return outputs if run(source, name, sizes, rows, (*inputs, *made), **macros) else None


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
    defined = {"REAL": REALS[dtype], name.upper(): 1, **macros}
    try:
        library = _library(SOURCES[source], name, [f"-D{key}={value}" for key, value in defined.items()])
    except (Unavailable, OSError) as error:
        _say_once("no compiled CPU programs", str(error), "plain PyTorch runs instead, many times slower")
        return None
    function = getattr(library, name)
    function.restype = None
    return function


_said: set[str] = set()


def _say_once(what: str, reason: str, consequence: str) -> None:
    """A warning with the first of its reasons: others would only repeat it."""
    if what in _said:
        return
    _said.add(what)
    warnings.warn(f"{architecture.NAME}: {what} ({reason}); {consequence}", RuntimeWarning, stacklevel=3)


def _library(source: bytes, name: str, macros: Sequence[str]) -> ctypes.CDLL:
    compiler = _compiler()
    commands = [(*compiler, *FLAGS, *machine_flags, *macros) for machine_flags in MACHINE_FLAGS]
    paths = [_cache() / f"{architecture.NAME}-{name}-{_digest(source, command)}.so" for command in commands]
    # A library of any flags comes before compiling with others: those that failed once would fail again.
    if library := _first_kept(paths):
        return library
    with _lock(paths[0].with_suffix(".lock")):
        return _first_kept(paths) or _first_built(source, commands, paths)


def _first_kept(paths: Sequence[Path]) -> ctypes.CDLL | None:
    for path in paths:
        with contextlib.suppress(OSError):
            return _load(path)
    return None


def _first_built(source: bytes, commands: Sequence[Sequence[str]], paths: Sequence[Path]) -> ctypes.CDLL:
    failure = ""
    for command, path in zip(commands, paths, strict=True):
        try:
            return _built(source, command, path)
        except OSError as error:  # what it does with other flags may work and load
            failure = str(error)
    raise Unavailable(failure)


def _load(path: Path) -> ctypes.CDLL:
    """A library that is whole and that nobody else could have written; an OSError says why not."""
    if reason := _distrust(path.stat()):
        raise OSError(f"{path}: {reason}")
    if _checksum_file(path).read_text(encoding="utf-8") != hashlib.sha256(path.read_bytes()).hexdigest():
        raise OSError(f"{path} is damaged")
    return ctypes.CDLL(os.fspath(path))


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _compiler() -> tuple[str, ...]:
    """The compiler and its arguments; by the name it was found by, which tells a ccache what to be."""
    chosen = os.environ.get("CC", "").strip()
    for command in [chosen] if chosen else ["cc", "gcc", "clang"]:
        try:
            program, *arguments = shlex.split(command)
        except ValueError as error:
            raise Unavailable(f"CC is {chosen!r}: {error}") from None
        if found := shutil.which(program):
            return (os.path.abspath(found), *arguments)
    raise Unavailable(f"no C compiler {chosen or 'cc, gcc or clang'} on the path")


def _built(source: bytes, command: Sequence[str], path: Path) -> ctypes.CDLL:
    """A new library, kept if that is possible; an OSError says why it cannot be built or loaded."""
    with tempfile.TemporaryDirectory(prefix="tensorgraph-") as folder:
        new = Path(folder) / path.name
        try:
            done = subprocess.run(
                [*command, "-x", "c", "-", "-o", os.fspath(new)],
                input=source,
                capture_output=True,
                timeout=COMPILE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{command[0]}: more than {COMPILE_SECONDS} s") from None
        if done.returncode:
            raise OSError(f"{command[0]}: {_complaint(done)}")
        try:
            _keep(new, path)
        except OSError as error:  # a full disk, say
            _say_once("libraries cannot be kept", str(error), "every process compiles its own")
            return ctypes.CDLL(os.fspath(new))
        return _load(path)


def _complaint(done: subprocess.CompletedProcess) -> str:
    """The line that says what is wrong; warnings may come before it."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return next((line for line in lines if "error" in line), lines[0] if lines else f"exit status {done.returncode}")


def _keep(new: Path, path: Path) -> None:
    """Puts a library and its checksum in their place, each in one atomic step; in between they do not agree."""
    content = new.read_bytes()
    for kept, data in ((_checksum_file(path), hashlib.sha256(content).hexdigest().encode()), (path, content)):
        handle, unfinished = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)  # or a crash could leave the name of a file without its content
            os.replace(unfinished, kept)
        finally:
            Path(unfinished).unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time, where files can be locked; no longer than a compiler may take.

    Whoever comes next looks for the library first, so the file may go while others wait for it.
    """
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a full disk, or a file system without locks
                file = stack.enter_context(path.open("wb"))
                if _locked(file):
                    stack.callback(path.unlink, missing_ok=True)
        yield


def _locked(file) -> bool:
    deadline = time.monotonic() + COMPILE_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


@functools.cache
def _cache() -> Path:
    """A folder for libraries that nobody else can write to; one of this process if there is none."""
    try:
        folder = _cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (reason := _distrust(folder.stat())):
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
            reason = "not writable"
        reason = f"{folder}: {reason}"
    except (OSError, RuntimeError) as error:  # RuntimeError: no home
        reason = str(error)
    _say_once("no folder to keep libraries in", reason, "every process compiles its own")
    temporary = tempfile.mkdtemp(prefix="tensorgraph-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)


def _cache_folder() -> Path:
    if chosen := os.environ.get("TENSORGRAPH_CACHE"):
        folder = Path(chosen)
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "tensorgraph"
    return folder.expanduser().absolute()


def _distrust(status: os.stat_result) -> str:
    """Why code from this file or folder could be somebody else's."""
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return "belongs to somebody else"
    return "others can write to it" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def _digest(source: bytes, command: Sequence[str]) -> str:
    """Changes with all that the library depends on."""
    real = os.path.realpath(command[0])
    compiler = os.stat(real)
    facts = [*command, real, compiler.st_size, compiler.st_mtime_ns, _processor()]
    return hashlib.sha256(source + repr(facts).encode()).hexdigest()[:24]


@functools.cache
def _processor() -> str:
    """What ``native`` means here; a home folder may be shared by machines that differ."""
    machine = f"{platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if platform.system() == "Darwin":
            return machine + _sysctl()
        return machine + _described(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    return machine


def _sysctl() -> str:
    """Brand and features of a Mac's processor; those it does not know are left out."""
    names = ("machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features")
    done = subprocess.run(["sysctl", "-n", *names], capture_output=True, text=True, timeout=10)
    return done.stdout


def _described(cpuinfo: str) -> str:
    """The first processor, without what varies; its lines have other names on every architecture."""
    lines = cpuinfo.strip().split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if not _varies(line.partition(":")[0].strip()))


def _varies(key: str) -> bool:
    return key in VARYING or "mhz" in key.lower() or "bogomips" in key.lower()
