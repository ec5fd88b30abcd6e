"""What a source distribution holds, and what an installation needs."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

import tensorgraph

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


def requirements() -> list[Requirement]:
    """What the package, its tests and torch-sim need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [Requirement(text) for text in [*project["dependencies"], *extras["test"], *extras["torch-sim"]]]


def test_constraints_pin_a_version_that_is_allowed_of_every_requirement():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(versions) == len(pins)
    for requirement in requirements():
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_users_bring_any_newer_torch_and_triton():
    for requirement in requirements():
        if requirement.name in ("torch", "triton"):
            assert {bound.operator for bound in requirement.specifier} == {">="}


def test_the_citation_is_of_this_version():
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == tensorgraph.__version__
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
