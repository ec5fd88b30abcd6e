"""What a source distribution holds: all that the package is built of, and none of what would not run from it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"


def test_the_source_distribution_is_whole_and_without_tests(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="setuptools of the build system is not installed")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    files = tracked.stdout.split()
    for name in files:  # a copy: building writes into the source tree
        target = tmp_path / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=tmp_path / "source", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(out / done.stdout.splitlines()[-1]) as archive:
        held = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert {name for name in files if name.startswith("tensorgraph/")} <= held
    assert {"pyproject.toml", "README.md", "LICENSE"} <= held
    assert not {name for name in held if name.startswith("tests/")}
