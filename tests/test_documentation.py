"""The documentation: its Python runs, block after block, and what it names is there."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from tensorgraph import cli
from tensorgraph.compiler import compile_spec
from tensorgraph.emit.writing import write_package
from tensorgraph.model import load_package, save_checkpoint
from tensorgraph.spec import load_spec
from tests.helpers import GENERATED, crystal, molecule, package, quiet

ROOT = GENERATED.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
OPTIONAL = "torch_sim"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


of_vesin = pytest.mark.filterwarnings("ignore:.*vesin.torch. is deprecated:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the blocks run: with data to train on, and the checkpoints of training and demo, with random weights."""
    frames = [molecule(5, seed, spread=1.6) for seed in range(3)] + [crystal(0, n_atoms=4)]
    for atoms in frames:
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        labels |= {"stress": atoms.get_stress()} if atoms.pbc.any() else {}
        atoms.calc = SinglePointCalculator(atoms, **labels)
    write(tmp_path / "train.xyz", frames)
    hiphop4 = package("hiphop4")
    for name in ("model", "ethanol"):
        save_checkpoint(hiphop4.Model(seed=0), hiphop4, tmp_path / f"{name}.safetensors")
    gold = load_package(write_package(compile_spec(load_spec(ROOT / "specs" / "gold.yaml")).package, tmp_path))
    (tmp_path / "build" / "gold" / "run").mkdir(parents=True)
    save_checkpoint(gold.Model(seed=0), gold, tmp_path / "build" / "gold" / "run" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@quiet  # torch-sim uses what PyTorch and vesin have deprecated
@of_vesin
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_its_python_runs(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "documentation"}
    for block in blocks(page, "python"):
        if OPTIONAL not in block or find_spec(OPTIONAL):
            exec(compile(block, page.name, "exec"), names)
    if page.name == "README.md":
        check_the_readme(names, capsys.readouterr().out)


def check_the_readme(names: dict[str, Any], said: str) -> None:
    """What its blocks made, against what the text says of it."""
    n_atoms = len(names["atoms"])
    assert "1/cm" in said
    assert names["hessian"].shape == (3 * n_atoms, 3 * n_atoms)
    assert names["batch"].has_stress.tolist() == [False, False, False, True]
    np.testing.assert_allclose(names["terms"].sum(), names["energy"], rtol=1e-9)
    np.testing.assert_allclose(names["per_atom"].sum(axis=0), names["stress"], atol=1e-9)
    assert names["uncertainty"][1].shape == (n_atoms, 3)
    assert names["values"].shape == (1, names["hiphop4"].architecture.N_INVARIANTS, 1)


@quiet
@of_vesin
@pytest.mark.skipif(not find_spec(OPTIONAL), reason="torch-sim is not installed: pip install -e '.[torch-sim]'")
def test_torch_sim_takes_a_checkpoint(folder: Path) -> None:
    (block,) = (block for block in blocks(ROOT / "README.md", "python") if OPTIONAL in block)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["batched"].dtype.itemsize == 8


def test_commands_and_examples_that_are_named_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    modules = set(re.findall(r"python -m ((?:examples|bench)\.\w+)", text))
    assert {f"examples.{name}" for name in ("adsorption", "water", "elasticity", "vibrations", "evaluation")} <= modules
    assert not {name for name in modules if find_spec(name) is None}
    for command in sorted(set(re.findall(r"`tensorgraph ([a-z-]+)", text))):
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0, command
