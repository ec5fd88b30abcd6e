"""Writers that are killed at random moments: the last good file always loads, and little is left behind."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tensorgraph import potential
from tensorgraph.atomic import write_atomically
from tensorgraph.emit.writing import check_package, write_package
from tensorgraph.errors import CheckpointError
from tensorgraph.model.checkpoint import load_checkpoint
from tensorgraph.model.loading import load_package
from tests import killed_writer

ROOT = Path(__file__).parents[1]


class Writers:
    """Starts a writer and kills it, again and again."""

    def __init__(self, folder: Path, program: subprocess.Popen[str]) -> None:
        self.folder, self.program = folder, program
        self.random = random.Random(11)

    def completed(self) -> int:
        return int.from_bytes((self.folder / "completed").read_bytes(), "little")

    def seconds(self, job: str) -> float:
        """What one write takes here."""
        child, before = self._start(job), self.completed()
        start = time.monotonic()
        while self.completed() < before + 3:
            assert time.monotonic() < start + 60
        found = (time.monotonic() - start) / 3
        self._kill(child)
        return found

    def kill_one(self, job: str, longest: float) -> int:
        """Kills a writer at a random moment up to `longest` seconds after its start; how many writes it completed."""
        before = self.completed()
        child = self._start(job)
        time.sleep(self.random.uniform(0, longest))
        self._kill(child)
        return self.completed() - before

    def _start(self, job: str) -> int:
        self.program.stdin.write(f"{job} {self.folder}\n")
        self.program.stdin.flush()
        return int(self.program.stdout.readline())

    def _kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        status = int(self.program.stdout.readline())
        assert os.WIFSIGNALED(status), f"the writer ended by itself: {status}"


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.killed_writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as program:
        assert program.stdout.readline() == "ready\n"
        yield program
        program.stdin.close()


@pytest.fixture
def writers(program: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Writers]:
    """In memory, where there is a file system of it: syncing to disk takes most of the time, and no kill loses it."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        monkeypatch.setenv("TENSORGRAPH_CACHE", str(folder / "cache"))
        (folder / "completed").write_bytes(bytes(8))
        (folder / "libraries").mkdir()
        write_package(killed_writer.text(0), folder)
        yield Writers(folder, program)


def kill_many(writers: Writers, job: str, times: int, check: Callable[[int, int], bool]) -> None:
    """Kills so many writers, and checks after each what stands there, of the last completed state or the one after.

    `check` also says whether something unfinished was left. Some kills have to come in the middle of a write, and some
    after one.
    """
    longest = 2 * writers.seconds(job)
    interrupted, written = 0, 0
    for _ in range(times):
        written += writers.kill_one(job, longest)
        last = writers.completed()
        interrupted += check(last, last + 1)
    assert interrupted, "no kill came in the middle of a write"
    assert written, "no kill came after a write"


def left(folder: Path, *wanted: str) -> list[Path]:
    """What else stands in a folder."""
    return [path for path in folder.iterdir() if path.name not in wanted]


def check_checkpoint(folder: Path, *states: int) -> None:
    """That it loads, and that all its weights are of one of the states."""
    package = load_package(folder / "crashing")
    model = package.Model().double()
    load_checkpoint(model, package, folder / "model.safetensors")
    values = {value for parameter in model.parameters() for value in parameter.unique().tolist()}
    assert len(values) == 1
    assert values <= {float(state) for state in states}


def test_the_last_good_checkpoint_loads(writers: Writers) -> None:
    folder = writers.folder / "crashing"
    killed_writer.checkpoint_writer(writers.folder)(0)

    def check(*states: int) -> bool:
        check_checkpoint(writers.folder, *states)
        unfinished = left(writers.folder, "model.safetensors", "crashing", "completed", "libraries")
        assert len(unfinished) <= 1  # the next writer removes what the last one left
        return bool(unfinished)

    kill_many(writers, "checkpoint", 50, check)
    assert folder.is_dir()
    killed_writer.checkpoint_writer(writers.folder)(0)
    assert not left(writers.folder, "model.safetensors", "crashing", "completed", "libraries")


def test_checkpoints_that_are_written_without_care_are_found(writers: Writers) -> None:
    """The checks above can fail."""
    killed_writer.checkpoint_writer(writers.folder)(0)

    longest = writers.seconds("plain")

    def kill_and_check() -> None:
        for _ in range(200):
            writers.kill_one("plain", longest)
            check_checkpoint(writers.folder, writers.completed(), writers.completed() + 1)

    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        kill_and_check()


def test_the_last_good_package_loads(writers: Writers) -> None:
    out = writers.folder / "packages"
    write_package(killed_writer.text(0), out)

    def check(*states: int) -> bool:
        (state,) = (state for state in states if not check_package(killed_writer.text(state), out))
        package = load_package(out / "crashing")
        assert killed_writer.spec(state).digest == package.architecture.SPEC_DIGEST
        assert package.Model(seed=0).NAME == "crashing"
        unfinished = left(out, "crashing")
        assert len(unfinished) <= 1
        return bool(unfinished)

    kill_many(writers, "package", 40, check)
    write_package(killed_writer.text(0), out)
    assert not left(out, "crashing")


def test_the_cache_of_packages_recovers(writers: Writers) -> None:
    def check(*states: int) -> bool:
        folders = {path.name: path for path in (writers.folder / "cache" / "packages").glob("*")}
        unfinished = any(left(folder, "crashing", "sha256") for folder in folders.values())
        for state in states:
            package = potential.package_of_spec(killed_writer.spec(state))
            built = Path(package.__file__).parents[1]
            assert not check_package(killed_writer.text(state), built)
            assert not left(built, "crashing", "sha256")
        return unfinished

    kill_many(writers, "cache", 15, check)


def test_half_a_library_is_never_loaded(writers: Writers) -> None:
    """Its checksum is not its own then, and it is compiled again."""
    libraries = load_package(writers.folder / "crashing")._runtime.libraries
    killed_writer.library_writer(writers.folder)(0)
    kept = writers.folder / "libraries" / "kept.so"

    def check(*states: int) -> bool:
        content = kept.read_bytes()
        assert content in {bytes([state % 256]) * killed_writer.LIBRARY for state in states}
        with pytest.raises(OSError, match=r"is damaged|file too short|invalid ELF header"):
            libraries._load(kept)
        return bool(left(kept.parent, "kept.so", "kept.sha256"))

    kill_many(writers, "library", 10, check)


def test_libraries_that_were_abandoned_are_removed(writers: Writers) -> None:
    folder = writers.folder / "libraries"
    old, new = folder / "unfinished-old", folder / "unfinished-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    killed_writer.library_writer(writers.folder)(0)
    assert sorted(left(folder, "kept.so", "kept.sha256")) == [new]


def test_what_others_are_writing_is_left_alone(tmp_path: Path) -> None:
    """A file that is locked by its writer is not stale."""
    target = tmp_path / "model.safetensors"
    in_use, stale = (tmp_path / f".model.safetensors.{digit * 16}" for digit in "ab")
    other = tmp_path / ".other.safetensors.aaaaaaaaaaaaaaaa"
    for path in (in_use, stale, other):
        path.write_bytes(b"half")
    with in_use.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomically(b"whole", target)
        assert sorted(tmp_path.iterdir()) == sorted([target, in_use, other])
    write_atomically(b"whole", target)
    assert sorted(tmp_path.iterdir()) == sorted([target, other])


def test_links_stay_links(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    link = tmp_path / "model.safetensors"
    link.symlink_to(tmp_path / "scratch" / "model.safetensors")
    for content in (b"first", b"second"):
        write_atomically(content, link)
        assert link.is_symlink()
        assert (tmp_path / "scratch" / "model.safetensors").read_bytes() == content


def test_many_writers_at_once(tmp_path: Path) -> None:
    """In several processes: whatever is read is one of their files, and nothing is left."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom tensorgraph.atomic import write_atomically\n"
        "for _ in range(60): write_atomically(sys.argv[1].encode() * 100_000, Path(sys.argv[2]))"
    )
    target = tmp_path / "file"
    programs = [subprocess.Popen([sys.executable, "-c", code, letter, str(target)], cwd=ROOT) for letter in "abcd"]
    wanted = {letter.encode() * 100_000 for letter in "abcd"}
    while any(program.poll() is None for program in programs):
        if target.exists():
            assert target.read_bytes() in wanted
    assert [program.returncode for program in programs] == [0] * 4
    assert list(tmp_path.iterdir()) == [target]
