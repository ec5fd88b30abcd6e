"""Libraries of C programs: built by this machine's own compiler, tried, and kept for the next process.

They lie in ``$TENSORGRAPH_CACHE``, else in ``tensorgraph`` under ``$XDG_CACHE_HOME`` or ``~/.cache``, named by a digest
of source, compiler and processor, each beside its checksum: loading a damaged one would end the process. ``$CC`` names
a compiler; without one ``cc``, ``gcc`` and ``clang`` are tried.
"""

import atexit
import contextlib
import ctypes
import errno
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")

# The first that a compiler takes, and whose libraries load: for this very processor and on all cores, then with less.
MACHINE_FLAGS = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())

# Most programs take seconds, the longest a minute.
COMPILE_SECONDS = 300

# Libraries that are being put in the cache, and the age at which nobody is still writing them.
UNFINISHED = "unfinished-"
ABANDONED_SECONDS = 3600

# Where to look, after the one for temporary files, for a folder from which libraries can be loaded.
OTHER_FOLDERS = ("/var/tmp", "/dev/shm")

# Lines of /proc/cpuinfo that tell cores, or moments, of one machine apart.
VARYING = ("processor", "hart", "clock", "siblings", "cpu cores", "core id", "physical id", "apicid", "initial apicid")

# With what a source refuses a compiler, and what other flags would not help against.
REFUSAL = "tensorgraph needs "
HOPELESS = (
    "no space left on device",
    "disk quota exceeded",
    "read-only file system",
    "killed",
    "terminated signal",
    "out of memory",
    "cannot allocate memory",
    "memory exhausted",
)
HOPELESS_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)


class Unavailable(Exception):
    """Why there is no library, whatever the flags; holds for all programs of a compiler while the process lasts."""


_said: set[str] = set()


def say_once(what: str, reason: str, consequence: str) -> None:
    """A warning with the first of its reasons: others would only repeat it."""
    if what in _said:
        return
    _said.add(what)
    warnings.warn(f"tensorgraph: {what} ({reason}); {consequence}", RuntimeWarning, stacklevel=3)


# Compilers of which nothing more is expected in this process, and why.
_given_up: dict[tuple[str, ...], str] = {}

Check = Callable[[ctypes.CDLL], None]
"""Raises Unavailable where a new library computes something wrong."""


def library(source: bytes, name: str, macros: Sequence[str], check: Check) -> ctypes.CDLL:
    """The library of a source with these macros, which are part of its name; a new one passes the check first.

    Raises Unavailable, or an OSError, where there can be none.
    """
    compiler = _compiler()
    commands = [(*compiler, *FLAGS, *machine_flags, *macros) for machine_flags in MACHINE_FLAGS]
    paths = [_cache() / f"{name}-{_digest(source, command)}.so" for command in commands]
    # A library of any flags comes before compiling with others: those that failed once would fail again.
    if kept := _first_kept(paths):
        return kept
    if compiler in _given_up:
        raise Unavailable(_given_up[compiler])
    with _lock(paths[0].with_suffix(".lock")):
        try:
            return _first_kept(paths) or _first_built(source, commands, paths, check)
        except Unavailable as error:
            _given_up[compiler] = f"{compiler[0]}: {error}"
            raise Unavailable(_given_up[compiler]) from None


def _first_kept(paths: Sequence[Path]) -> ctypes.CDLL | None:
    for path in paths:
        with contextlib.suppress(OSError):
            return _load(path)
    return None


def _first_built(source: bytes, commands: Sequence[Sequence[str]], paths: Sequence[Path], check: Check) -> ctypes.CDLL:
    failure = ""
    for command, path in zip(commands, paths, strict=True):
        try:
            return _built(source, command, path, check)
        except OSError as error:  # what it does with other flags may work and load
            if error.errno in HOPELESS_ERRORS:
                raise Unavailable(str(error)) from None
            failure = str(error)
    raise Unavailable(failure)


def _load(path: Path) -> ctypes.CDLL:
    """A library that is whole and that nobody else could have written; an OSError says why not."""
    if reason := _distrust(path.stat()):
        raise OSError(f"{path}: {reason}")
    if _checksum_file(path).read_bytes() != hashlib.sha256(path.read_bytes()).hexdigest().encode():
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


def _built(source: bytes, command: Sequence[str], path: Path, check: Check) -> ctypes.CDLL:
    """A new library, kept if that is possible; an OSError says why it cannot be built or loaded with these flags."""
    with tempfile.TemporaryDirectory(prefix="tensorgraph-", dir=_workshop()) as folder:
        new = Path(folder) / path.name
        _compile(source, command, new)
        library = ctypes.CDLL(os.fspath(new))
        check(library)
        try:
            _keep(new, path)
            return _load(path)
        except OSError as error:  # a full disk, say
            say_once("libraries cannot be kept", str(error), "every process compiles its own")
            return library


def _compile(source: bytes, command: Sequence[str], new: Path) -> None:
    try:
        done = subprocess.run(
            [*command, "-x", "c", "-", "-o", os.fspath(new)],
            input=source,
            capture_output=True,
            timeout=COMPILE_SECONDS,
            env=os.environ | {"LC_ALL": "C"},  # what it says is read below
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"more than {COMPILE_SECONDS} s") from None
    if not done.returncode:
        return
    said = done.stderr.decode(errors="replace")
    by_signal = done.returncode < 0 or done.returncode > 128
    if refusals := [line for line in said.splitlines() if REFUSAL in line]:
        raise Unavailable(refusals[0].strip())
    if by_signal or any(symptom in said.lower() for symptom in HOPELESS):
        raise Unavailable(_complaint(said, done.returncode))
    raise OSError(_complaint(said, done.returncode))


def _complaint(said: str, status: int) -> str:
    """The line that says what is wrong; warnings may come before it."""
    lines = said.strip().splitlines()
    ended = f"ended by signal {-status if status < 0 else status - 128}"
    ending = f"exit status {status}" if 0 <= status <= 128 else ended
    return next((line for line in lines if "error" in line), lines[0] if lines else ending)


def _keep(new: Path, path: Path) -> None:
    """Puts a library and its checksum in their place, each in one atomic step; in between they do not agree."""
    content = new.read_bytes()
    _remove_abandoned(path.parent)
    for kept, data in ((_checksum_file(path), hashlib.sha256(content).hexdigest().encode()), (path, content)):
        handle, unfinished = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)  # or a crash could leave the name of a file without its content
            os.replace(unfinished, kept)
        finally:
            Path(unfinished).unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """What killed processes left: no other takes this long to write a file."""
    for left in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink()


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
        if not (reason := _distrust(folder.stat()) or _unusable(folder)):
            return folder
        reason = f"{folder}: {reason}"
    except (OSError, RuntimeError) as error:  # RuntimeError: no home
        reason = str(error)
    say_once("no folder to keep libraries in", reason, "every process compiles its own")
    for parent in (tempfile.gettempdir(), *OTHER_FOLDERS):
        if os.path.isdir(parent) and not _unusable(parent):
            temporary = tempfile.mkdtemp(prefix="tensorgraph-", dir=parent)
            atexit.register(shutil.rmtree, temporary, ignore_errors=True)
            return Path(temporary)
    raise Unavailable(f"no folder for libraries: {reason}; {tempfile.gettempdir()}: {_unusable(tempfile.gettempdir())}")


def _workshop() -> str | Path:
    """Where libraries are built, and loaded for their trial."""
    return _cache() if _unusable(tempfile.gettempdir()) else tempfile.gettempdir()


def _unusable(folder: str | Path) -> str:
    """Why no library can be put there and loaded."""
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
        return "its file system forbids execution"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "not writable"


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
