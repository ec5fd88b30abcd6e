"""Libraries of C programs: how they are built, kept and named, and replaced where they are damaged or not trusted."""

import errno
import os
import platform
import shutil
import stat
import warnings
from pathlib import Path

import pytest
import torch

from tensorgraph.runtime import libraries, native, pairs
from tests.helpers import counting_compiler, empty_cache, library_in, put, uses

ANSWER = b"int answer(void) { return 42; }"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty folder for libraries, and a process that has not warned of anything."""
    return empty_cache(libraries, tmp_path / "cache", monkeypatch)


@pytest.fixture
def compiler_of(tmp_path, monkeypatch):
    """Makes a counting compiler the one of this process; its log."""

    def choose(before: str = "") -> Path:
        compiler, log = counting_compiler(tmp_path, before)
        monkeypatch.setenv("CC", compiler)
        return log

    return choose


def answer() -> int:
    return libraries.library(ANSWER, "answer", [], lambda new: None).answer()


DAMAGES = {
    **{f"cut to {size}": lambda content, size=size: content[:size] for size in (0, 100, 1000, 4096, 8192)},
    "cut to a half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "first page zero": lambda content: bytes(4096) + content[4096:],
    "second page zero": lambda content: content[:4096] + bytes(4096) + content[8192:],
    "one bit": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_libraries_are_built_anew(cache, compiler_of, damage):
    """Loading them would end the process, and every later one."""
    log = compiler_of()
    assert (answer(), uses(log)) == (42, 1)
    library = library_in(cache)
    whole = library.read_bytes()
    put(library, DAMAGES[damage](whole))
    assert (answer(), uses(log)) == (42, 2)
    assert library.read_bytes() == whole
    assert (answer(), uses(log)) == (42, 2)


def test_a_damaged_checksum_is_one_that_differs(cache, compiler_of):
    log = compiler_of()
    assert (answer(), uses(log)) == (42, 1)
    put(library_in(cache).with_suffix(".sha256"), b"\xff\xfe no text")
    assert (answer(), uses(log)) == (42, 2)


def test_a_library_without_its_checksum_is_built_anew(cache, compiler_of):
    log = compiler_of()
    answer()
    libraries._checksum_file(library_in(cache)).unlink()
    assert (answer(), uses(log)) == (42, 2)


def test_a_library_that_others_could_have_written_is_built_anew(cache, compiler_of, monkeypatch):
    log, before = compiler_of(), os.umask(0)
    try:
        assert (answer(), answer(), uses(log)) == (42, 42, 1)
    finally:
        os.umask(before)
    for count, mode in enumerate((0o620, 0o602), 2):
        library_in(cache).chmod(mode)
        assert (answer(), uses(log)) == (42, count)
    status = library_in(cache).stat()
    assert libraries._distrust(status) == ""
    monkeypatch.setattr(os, "getuid", lambda: status.st_uid + 1)
    assert libraries._distrust(status) == "belongs to somebody else"
    with pytest.raises(OSError, match="belongs to somebody else"):
        libraries._load(library_in(cache))


def test_a_new_library_takes_its_place_in_one_step(cache, compiler_of, monkeypatch):
    """What is there before stays whole until then, and after a failure nothing is left behind."""
    compiler_of()
    answer()
    library, before = library_in(cache), library_in(cache).read_bytes()
    names = {file.name for file in cache.iterdir()}
    new = cache.parent / "new"
    new.write_bytes(b"something else")
    seen = []

    def refuse(source, target):
        seen.append((Path(source).read_bytes(), Path(target)))
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        libraries._keep(new, library)
    assert library.read_bytes() == before
    assert {file.name for file in cache.iterdir()} == names
    monkeypatch.undo()
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    libraries._keep(new, library)
    assert synced == [64, len(b"something else")]
    assert library.read_bytes() == b"something else"


@pytest.mark.parametrize("untrusted", ["by its group", "by all", "another owner", "no folder"])
def test_folders_that_are_not_used(tmp_path, monkeypatch, untrusted):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TENSORGRAPH_CACHE", str(folder))
    monkeypatch.setattr(libraries, "_said", set())
    assert libraries._cache.__wrapped__() == folder
    if untrusted == "another owner":
        uid = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    elif untrusted == "no folder":
        folder.rmdir()
        folder.write_text("")
    else:
        folder.chmod(0o770 if untrusted == "by its group" else 0o707)
    with pytest.warns(RuntimeWarning, match="every process compiles its own"):
        found = libraries._cache.__wrapped__()
    assert found != folder
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_where_the_folder_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME", "TENSORGRAPH_CACHE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", "/home/someone")
    assert libraries._cache_folder() == Path("/home/someone/.cache/tensorgraph")
    monkeypatch.setenv("XDG_CACHE_HOME", "kept")
    assert libraries._cache_folder() == tmp_path / "kept" / "tensorgraph"
    monkeypatch.setenv("TENSORGRAPH_CACHE", "~/libraries")
    assert libraries._cache_folder() == Path("/home/someone/libraries")
    monkeypatch.setenv("TENSORGRAPH_CACHE", "libraries")
    assert libraries._cache_folder() == tmp_path / "libraries"


def test_a_library_that_cannot_be_kept_is_used_all_the_same(cache, compiler_of, monkeypatch):
    log = compiler_of()

    def full(*where):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(libraries, "_keep", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as said:
        assert (answer(), answer(), uses(log)) == (42, 42, 2)
    assert len(said) == 1


@pytest.mark.parametrize("part", ["source", "flags", "size", "time", "processor"])
def test_libraries_of_other_sources_compilers_and_processors_have_other_names(tmp_path, monkeypatch, part):
    compiler = tmp_path / "cc"
    compiler.write_text("one")
    os.utime(compiler, (1e9, 1e9))
    source, command = b"one", [str(compiler), "-O3"]
    before = libraries._digest(source, command)
    assert libraries._digest(source, command) == before
    if part == "source":
        source = b"two"
    elif part == "flags":
        command.append("-g")
    elif part == "size":
        compiler.write_text("three")
        os.utime(compiler, (1e9, 1e9))
    elif part == "time":
        os.utime(compiler, (1e9, 2e9))
    else:
        monkeypatch.setattr(libraries, "_processor", lambda: "another")
    assert libraries._digest(source, command) != before


PROCESSORS = {
    "x86_64": ("processor: 0\nmodel name: A\ncpu MHz: 2793\ncore id: 0\napicid: 0\nbogomips: 5\nflags: sse avx", "avx"),
    "ppc64le": ("processor: 0\ncpu: POWER9, altivec\nclock: 3800.000000MHz\nrevision: 2.2", "POWER9"),
    "riscv64": ("processor: 0\nhart: 1\nisa: rv64imafdcv\nmmu: sv39\nuarch: u74", "rv64imafdcv"),
    "aarch64": ("processor: 0\nBogoMIPS: 50.00\nFeatures: fp asimd sve\nCPU part: 0xd40", "sve"),
}


@pytest.mark.parametrize("machine", PROCESSORS)
def test_processors_of_all_kinds_are_told_apart(machine):
    text, feature = PROCESSORS[machine]
    found = libraries._described(text + "\n\nprocessor: 1\nmodel name: B\n")
    assert feature in found
    assert "B" not in found.replace("BogoMIPS", "B").replace(feature, "")
    assert libraries._described(text.replace(feature, "less")) != found
    for old, new in (("2793", "1200"), ("apicid: 0", "apicid: 7"), ("50.00", "60.00"), ("hart: 1", "hart: 2"),
                     ("bogomips: 5", "bogomips: 6"), ("3800", "2000"), ("processor: 0", "processor: 3")):  # fmt: skip
        assert libraries._described(text.replace(old, new)) == found


def test_processors_of_macs_are_told_apart(tmp_path, monkeypatch):
    """By a sysctl that, as there, does not know all names."""
    tool = tmp_path / "sysctl"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    found = []
    for brand in ("Apple M1", "Apple M4"):
        tool.write_text(f'#!/bin/sh\ntest "$1 $2" = "-n machdep.cpu.brand_string" && echo "{brand}"\nexit 1\n')
        tool.chmod(0o755)
        found.append(libraries._processor.__wrapped__())
        assert brand in found[-1]
    assert found[0] != found[1]


UNLOADABLE = """
case "$*" in *-fopenmp*) while [ $# -gt 0 ]; do test "$1" = -o && echo "no library" > "$2"; shift; done; exit 0;; esac
"""


def test_libraries_that_do_not_load_are_built_with_other_flags(cache, compiler_of):
    """As by a compiler that takes -fopenmp, without the library that this needs."""
    log = compiler_of(UNLOADABLE)
    assert (answer(), uses(log)) == (42, 3)
    assert "-march=native" in log.read_text().splitlines()[-1]
    assert (answer(), uses(log)) == (42, 3)


def test_a_compiler_that_hangs_is_asked_once(cache, compiler_of, monkeypatch):
    log = compiler_of("exec sleep 60")
    monkeypatch.setattr(libraries, "COMPILE_SECONDS", 0.5)
    with pytest.raises(libraries.Unavailable, match=r"more than 0\.5 s"):
        answer()
    assert uses(log) == 1


def test_a_compiler_goes_by_its_name(cache, tmp_path, monkeypatch):
    """As ccache and distcc do, that stand in for others by links."""
    real = shutil.which(os.environ.get("CC", "cc"))
    one = tmp_path / "one-for-all"
    one.write_text(f'#!/bin/sh\ntest "$(basename "$0")" = cc || exit 1\nexec {real} "$@"\n')
    one.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cc").symlink_to(one)
    monkeypatch.setenv("CC", str(tmp_path / "bin" / "cc"))
    assert answer() == 42


def test_a_relative_compiler_has_one_name_everywhere(cache, compiler_of, tmp_path, monkeypatch):
    log = compiler_of()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CC", "./counting-cc")
    assert libraries._compiler() == (str(tmp_path / "counting-cc"),)
    assert (answer(), uses(log)) == (42, 1)


def test_an_empty_compiler_is_none(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    default = libraries._compiler()
    for empty in ("", " ", "\t"):
        monkeypatch.setenv("CC", empty)
        assert libraries._compiler() == default


def test_nobody_waits_for_a_lock_for_ever(cache, compiler_of, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    log = compiler_of()
    waited = []
    monkeypatch.setattr(libraries, "COMPILE_SECONDS", 2)
    monkeypatch.setattr(libraries.time, "sleep", waited.append)
    commands = [(*libraries._compiler(), *libraries.FLAGS, *flags) for flags in libraries.MACHINE_FLAGS]
    lock = cache / f"answer-{libraries._digest(ANSWER, commands[0])}.lock"
    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert (answer(), uses(log)) == (42, 1)
    assert waited
    assert lock.exists(), "it is somebody else's"


def test_what_is_said_is_said_once_and_names_the_error(cache, compiler_of):
    """Of several programs; what the compiler says may differ each time."""
    log = compiler_of('echo "$$: warning: hm" >&2; echo "$$: fatal error: bad" >&2; exit 1')
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for name in ("environment", "environment_backward"):
            assert native._compiled.__wrapped__(pairs.SOURCE, name, torch.float64, COMPONENTS=4, FUNCTIONS=5) is None
    assert uses(log) == len(libraries.MACHINE_FLAGS), "the second program did not try what failed for the first"
    (only,) = said
    assert "fatal error: bad); plain PyTorch runs instead" in str(only.message)
