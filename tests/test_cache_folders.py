"""Folders for libraries on real file systems: without execution, full, or read-only; found out once, and said once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import GENERATED, counting_compiler, uses

CALL = """
import torch, hipnn
from hipnn._runtime import native
for dtype in (torch.float64, torch.float32):
    features = torch.randn(5, 1, 19, dtype=dtype)
    assert torch.equal(hipnn.invariants(features), features)
    assert hipnn.tensor_components(torch.eye(3, dtype=dtype)).shape == (3, 1)
source = hipnn.invariants.__globals__["PROGRAMS"].source
print("native" if native.available(source, "forward", torch.float64) else "pytorch")
"""
PROGRAMS = 4  # two programs in two precisions


def may_mount() -> bool:
    """Whether a process may have a name space of its own, in which it mounts file systems."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, timeout=20).returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="needs a system where a process may mount file systems")


@pytest.fixture
def compiler(tmp_path: Path) -> tuple[str, Path]:
    return counting_compiler(tmp_path)


def call(tmp_path: Path, compiler: tuple[str, Path], *mounts: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """A process with `cache` and `tmp` of its own, after mounts such as "noexec cache"; how often it compiled."""
    lines = []
    for name in ("cache", "tmp"):
        (tmp_path / name).mkdir(mode=0o700, exist_ok=True)
    for mount in mounts:
        options, name = mount.split()
        lines.append(f"mount -t tmpfs -o mode=0700,{options} tmpfs '{tmp_path / name}'")
    variables = os.environ | {"PYTHONPATH": str(GENERATED), "OMP_NUM_THREADS": "1", "CC": compiler[0]}
    variables |= {"TENSORGRAPH_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}
    variables.pop("TENSORGRAPH_CPU", None)
    script = "\n".join(["set -e", *lines, f"exec '{sys.executable}' -W always::RuntimeWarning -c '{CALL}'"])
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script]
    before = uses(compiler[1])
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    return done, uses(compiler[1]) - before


def test_each_program_is_compiled_once(tmp_path, compiler):
    done, count = call(tmp_path, compiler)
    assert (done.stdout, done.stderr, count) == ("native\n", "", PROGRAMS)
    assert call(tmp_path, compiler)[1] == 0


@pytest.mark.parametrize(
    ("mounts", "reason"),
    [
        (["noexec cache"], "its file system forbids execution"),
        (["noexec cache", "noexec tmp"], "its file system forbids execution"),
        (["size=4k cache"], "No space left on device"),
        (["ro cache"], "Read-only file system|not writable"),
    ],
    ids=lambda value: " and ".join(value) if isinstance(value, list) else "",
)
def test_other_folders_are_used(tmp_path, compiler, mounts, reason):
    done, count = call(tmp_path, compiler, *mounts)
    assert (done.stdout, count) == ("native\n", PROGRAMS)
    assert done.stderr.count("RuntimeWarning") == 1
    assert any(part in done.stderr for part in reason.split("|")), done.stderr
    assert "every process compiles its own" in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []  # nothing is left behind


def test_folders_for_temporary_files_without_execution_do_not_matter(tmp_path, compiler):
    done, count = call(tmp_path, compiler, "noexec tmp")
    assert (done.stdout, done.stderr, count) == ("native\n", "", PROGRAMS)


def test_a_full_folder_for_temporary_files_is_said_once(tmp_path, compiler):
    done, count = call(tmp_path, compiler, "size=4k tmp")
    assert (done.stdout, count) == ("pytorch\n", 1)
    assert done.stderr.count("RuntimeWarning") == 1
    assert "No space left on device" in done.stderr
