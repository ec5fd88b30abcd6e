"""Import of generated packages: once for the same files, anew for others, whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tensorgraph.errors import PackageError
from tensorgraph.model.loading import load_package
from tests.helpers import GENERATED, build


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of hipnn that may be edited."""
    return Path(shutil.copytree(GENERATED / "hipnn", tmp_path / "hipnn", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_same_files_give_the_same_module(copied: Path) -> None:
    first = load_package(copied)
    assert load_package(str(copied)) is first
    assert load_package(copied / ".." / "hipnn") is first
    assert load_package(GENERATED / "hipnn") is not first


def test_an_edited_package_is_imported_anew(copied: Path) -> None:
    first, source = load_package(copied), copied / "model.py"
    source.write_text(source.read_text() + "\nEDITED = 1\n")
    second = load_package(copied)
    assert second is not first
    assert second.model.EDITED == 1
    assert not hasattr(first.model, "EDITED")


def test_a_rebuilt_package_is_imported_anew(tmp_path: Path) -> None:
    loaded = [load_package(build(tmp_path, cutoff=cutoff)) for cutoff in (6.5, 5.6)]
    assert loaded[0] is not loaded[1]
    assert [module.architecture.CUTOFF for module in loaded] == [6.5, 5.6]


@pytest.mark.parametrize(("fault", "raised"), [("KeyboardInterrupt", KeyboardInterrupt), ("OSError", PackageError)])
def test_no_half_module_stays_behind(copied: Path, fault: str, raised: type[BaseException]) -> None:
    flag, source = copied / "flag", copied / "model.py"
    head = f"import pathlib\nif pathlib.Path({str(flag)!r}).exists():\n    raise {fault}\n"
    source.write_text(head + source.read_text().replace("from __future__ import annotations", ""))
    before = set(sys.modules)
    flag.touch()
    with pytest.raises(raised):
        load_package(copied)
    assert not [name for name in set(sys.modules) - before if name.startswith("_tensorgraph_package_")]
    flag.unlink()
    assert load_package(copied).Model(seed=0).NAME == "hipnn"


def test_threads_are_given_one_whole_module(copied: Path) -> None:
    source = copied / "_runtime" / "inputs.py"
    source.write_text(source.read_text() + "\nimport time\ntime.sleep(0.2)\n")
    with ThreadPoolExecutor(8) as pool:
        modules = list(pool.map(load_package, [copied] * 8))
    assert len(set(modules)) == 1
    assert hasattr(modules[0], "Model")


IN_A_ZIP = """
import sys, torch, hipnn
assert ".zip" in hipnn.__file__
pairs, apart = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]], dtype=torch.float64)
found = hipnn.Model(seed=0).double().energy_and_forces(torch.tensor([1, 8]), pairs, apart)
source = hipnn.tensors.PROGRAMS.source
assert hipnn._runtime.native.available(source, "forward", torch.float64), "the C programs do not run"
print(found.energy.item(), found.forces.flatten().tolist())
"""


def test_packages_in_a_zip_run_compiled(tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "packed"), "zip", GENERATED, "hipnn")
    outputs = []
    for folder in (tmp_path / "packed.zip", GENERATED):
        program = IN_A_ZIP if folder != GENERATED else IN_A_ZIP.replace('assert ".zip"', 'assert "hipnn"')
        around = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], env=around, capture_output=True, text=True
        )
        assert not done.returncode, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


def test_edited_programs_in_c_are_another_package(copied: Path) -> None:
    first = load_package(copied)
    source = copied / "invariants_cpu.c"
    source.write_text(source.read_text() + "\n/* edited */\n")
    assert load_package(copied) is not first
