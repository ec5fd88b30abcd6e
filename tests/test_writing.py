"""Packages on disk: atomic, complete, and never at the cost of what somebody else put there."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tensorgraph.emit import writing
from tensorgraph.emit.writing import PackageText, check_package, write_package
from tensorgraph.errors import PackageError

Snapshot = dict[str, bytes]


def package(*extra: tuple[str, str], name: str = "a1") -> PackageText:
    texts = {
        "__init__.py": "x = 1\n",
        "kernels/forward.py": "# größe\r\nlast",
        "spec.yaml": "name: a1\n",
        **dict(extra),
    }
    paths = sorted([*texts, "manifest.json"])
    manifest = {"name": name, "spec_digest": "0" * 64, "tensorgraph_version": "0.1.0", "files": paths}
    return PackageText(name, tuple(sorted({**texts, "manifest.json": json.dumps(manifest)}.items())))


FIRST = package()
SECOND = package(("__init__.py", "x = 2\n"), ("layers.py", "y = 3\n"))


def snapshot(folder: Path) -> Snapshot:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_written_bytes_are_the_text(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "generated"
    assert write_package(FIRST, out) == out / "a1"
    assert snapshot(out / "a1") == {path: text.encode() for path, text in FIRST.files}
    assert names(out) == ["a1"]
    assert check_package(FIRST, out) == ()


def test_a_build_replaces_the_earlier_package_and_its_caches(tmp_path: Path) -> None:
    write_package(SECOND, tmp_path)
    (tmp_path / "a1" / "kernels" / "__pycache__").mkdir()
    (tmp_path / "a1" / "kernels" / "__pycache__" / "forward.pyc").write_bytes(b"\0")
    assert check_package(SECOND, tmp_path) == ()
    write_package(FIRST, tmp_path)
    assert snapshot(tmp_path / "a1") == {path: text.encode() for path, text in FIRST.files}
    assert names(tmp_path) == ["a1"]


def test_packages_are_as_readable_as_other_folders(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    target = write_package(FIRST, tmp_path)
    assert target.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_without_an_exchange_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_exchange", lambda one, other: False)
    write_package(FIRST, tmp_path)
    write_package(SECOND, tmp_path)
    assert check_package(SECOND, tmp_path) == ()
    assert names(tmp_path) == ["a1"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system call is Linux's")
def test_linux_exchanges_paths_in_one_call(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "x").touch()
    if not writing._exchange(one, other):
        pytest.skip("this file system cannot exchange paths")
    assert (names(one), names(other)) == ([], ["x"])
    assert not writing._exchange(one, tmp_path / "none")


def _fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["_write_files", "_put_in_place", "sync_directory"])
def test_a_failed_build_leaves_the_earlier_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_package(FIRST, tmp_path)
    before = snapshot(tmp_path)
    monkeypatch.setattr(writing, step, _fail)
    with pytest.raises(PackageError, match=r"cannot write .*a1: No space left on device"):
        write_package(SECOND, tmp_path)
    assert snapshot(tmp_path) == before
    assert names(tmp_path) == ["a1"]


def test_an_interrupted_build_leaves_the_earlier_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    write_package(FIRST, tmp_path)
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_package(SECOND, tmp_path)
    assert check_package(FIRST, tmp_path) == ()
    assert names(tmp_path) == ["a1"]


def test_a_rename_that_fails_halfway_is_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail_on_target(self: Path, target: Path) -> Path:
        if target == tmp_path / "a1" and not self.name.endswith("-old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    write_package(FIRST, tmp_path)
    monkeypatch.setattr(writing, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fail_on_target)
    with pytest.raises(PackageError, match="Input/output error"):
        write_package(SECOND, tmp_path)
    assert check_package(FIRST, tmp_path) == ()
    assert names(tmp_path) == ["a1"]


KILLED = """
import os, signal
from pathlib import Path
from tensorgraph.emit import writing
from tensorgraph.emit.writing import PackageText, write_package

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{fault}
write_package({package!r}, Path({out!r}))
"""
FAULTS = {
    "mid-write": "n = iter(range(9)); sync = os.fsync\nos.fsync = lambda fd: kill() if next(n) == 2 else sync(fd)",
    "before the swap": "writing._put_in_place = kill",
    "between two renames": (
        "writing._exchange = lambda one, other: False\n"
        "rename = Path.rename\n"
        "Path.rename = lambda self, to: rename(self, to) if to.name.endswith('-old') else kill()"
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_killed_build_leaves_the_earlier_package(tmp_path: Path, fault: str) -> None:
    write_package(FIRST, tmp_path)
    code = KILLED.format(fault=FAULTS[fault], package=SECOND, out=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL
    if fault != "between two renames":  # there the next build puts it back
        assert check_package(FIRST, tmp_path) == ()
    assert len(names(tmp_path)) == 2
    write_package(package(name="a1_other"), tmp_path)
    assert len(names(tmp_path)) == 3, "what another name left is not ours to remove"
    with pytest.raises(PackageError):
        write_package(PackageText("a1", (("../x", ""),)), tmp_path)
    write_package(SECOND, tmp_path)
    assert check_package(SECOND, tmp_path) == ()
    assert names(tmp_path) == ["a1", "a1_other"]


def test_what_two_renames_left_is_put_back(tmp_path: Path) -> None:
    write_package(FIRST, tmp_path)
    (tmp_path / "a1").rename(tmp_path / ".a1.build-0123456789abcdef-old")
    (tmp_path / ".a1.build-0123456789abcdef").mkdir()
    writing._remove_stale(tmp_path, "a1")
    assert check_package(FIRST, tmp_path) == ()
    assert names(tmp_path) == ["a1"]


def test_only_our_own_leavings_are_removed(tmp_path: Path) -> None:
    kept = [".a1.build-0123", ".a1.build-0123456789abcdeg", "a1.build-0123456789abcdef", ".a11.build-0123456789abcdef"]
    for name in [*kept, ".a1.build-0123456789abcdef"]:
        (tmp_path / name).mkdir()
    write_package(FIRST, tmp_path)
    assert names(tmp_path) == sorted([*kept, "a1"])


def test_builds_of_one_directory_wait_for_each_other(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom tensorgraph.emit.writing import PackageText, write_package\n"
        "for _ in range(20): write_package({!r}, Path({!r}))"
    )
    builds = [
        subprocess.Popen([sys.executable, "-c", code.format(text, str(tmp_path))], cwd=Path(__file__).parents[1])
        for text in (FIRST, SECOND)
    ]
    assert [build.wait() for build in builds] == [0, 0]
    assert () in (check_package(FIRST, tmp_path), check_package(SECOND, tmp_path))
    assert names(tmp_path) == ["a1"]


def _foreign_file(target: Path) -> None:
    (target / "kernels" / "notes.txt").write_text("mine")


def _foreign_link(target: Path) -> None:
    (target / "data").symlink_to("/tmp")


def _link_in_place_of_a_file(target: Path) -> None:
    (target / "spec.yaml").unlink()
    (target / "spec.yaml").symlink_to(target / "__init__.py")


@pytest.mark.parametrize("put", [_foreign_file, _foreign_link, _link_in_place_of_a_file])
def test_foreign_files_are_kept_and_named(tmp_path: Path, put: Callable[[Path], None]) -> None:
    put(write_package(FIRST, tmp_path))
    before = snapshot(tmp_path)
    with pytest.raises(PackageError, match=r"a1/(kernels/notes.txt|data|spec.yaml) was not written by tensorgraph"):
        write_package(SECOND, tmp_path)
    assert snapshot(tmp_path) == before
    assert names(tmp_path) == ["a1"]


@pytest.mark.parametrize(
    "manifest",
    [None, "", "[]", "{}", "[" * 99999, '"files"', "\ud800", package(name="b2").files[1][1], FIRST.files[2][1][:-1]],
    ids=["none", "empty", "list", "no keys", "deep", "text", "no UTF-8", "other name", "cut off"],
)
def test_a_directory_that_is_no_package_is_kept(tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / "a1").mkdir()
    (tmp_path / "a1" / "mine.txt").write_text("mine")
    if manifest is not None:
        (tmp_path / "a1" / "manifest.json").write_bytes(manifest.encode(errors="surrogatepass"))
    with pytest.raises(PackageError, match="a1 is no package of tensorgraph"):
        write_package(FIRST, tmp_path)
    assert (tmp_path / "a1" / "mine.txt").read_text() == "mine"


def test_a_directory_of_caches_alone_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a1" / "__pycache__").mkdir(parents=True)
    (tmp_path / "a1" / "__pycache__" / "x.pyc").touch()
    write_package(FIRST, tmp_path)
    assert check_package(FIRST, tmp_path) == ()


def test_places_that_cannot_hold_a_package(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "a1").write_text("mine")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a1").symlink_to(tmp_path)
    for out, message in (
        (tmp_path / "file", "file is no directory"),
        (tmp_path / "file" / "below", "cannot write .*: Not a directory"),
        (tmp_path, "a1 is no directory; allowed"),
        (tmp_path / "linked", "a1 is no directory; allowed"),
    ):
        with pytest.raises(PackageError, match=message):
            write_package(FIRST, out)
    assert names(tmp_path) == ["a1", "file", "linked"]
    assert (tmp_path / "a1").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PackageError, match="Permission denied"):
        write_package(FIRST, tmp_path)
    tmp_path.chmod(0o700)


def test_check_names_every_difference(tmp_path: Path) -> None:
    assert check_package(FIRST, tmp_path) == (f"{tmp_path}/a1: missing, the package was never built",)
    target = write_package(SECOND, tmp_path)
    (target / "kernels" / "forward.py").write_bytes("# größe\nlast".encode())
    (target / "spec.yaml").unlink()
    assert check_package(FIRST, tmp_path) == (
        f"{target}/__init__.py: differs at line 1",
        f"{target}/kernels/forward.py: differs at line 1",
        f"{target}/layers.py: extra, the spec gives no such file",
        f"{target}/manifest.json: differs at line 1",
        f"{target}/spec.yaml: missing",
    )
    write_package(FIRST, tmp_path)
    with (target / "__init__.py").open("a") as stream:
        stream.write("\n")
    assert check_package(FIRST, tmp_path) == (f"{target}/__init__.py: differs at line 3",)
    assert check_package(FIRST, tmp_path / "none")


@pytest.mark.parametrize("path", ["../x", "/x", "a/../x", "", ".", "a//b", "__pycache__/x"])
def test_paths_stay_inside_the_package(tmp_path: Path, path: str) -> None:
    with pytest.raises(PackageError, match="is no path of a package's file"):
        write_package(PackageText("a1", ((path, ""),)), tmp_path)
    assert names(tmp_path) == []


def test_packages_are_canonical(tmp_path: Path) -> None:
    for files in ((("b", ""), ("a", "")), (("a", ""), ("a", ""))):
        with pytest.raises(PackageError, match="not in order"):
            write_package(PackageText("a1", files), tmp_path)
    with pytest.raises(PackageError, match="is no name of a package"):
        write_package(PackageText("../a1", ()), tmp_path)
