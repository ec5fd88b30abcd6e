"""Benchmarks: structures are what they claim, the exponent is right, and a tiny run writes the rows that it should."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list

from bench import runner, steps, structures, systems
from tensorgraph.spec import load_spec
from tests.helpers import package

AVOGADRO = 0.602214076  # 1e24 per mol: g/mol over Å³ to g/cm³


def smallest_distance(atoms) -> float:
    """Å, over all periodic images."""
    return float(neighbor_list("d", atoms, 3.5).min())


@pytest.mark.parametrize(("molecules", "sites"), [(24, (2, 3, 4)), (64, (4, 4, 4)), (7, (1, 1, 7))])
def test_water_boxes_have_the_density_of_the_liquid(molecules, sites):
    box = structures.water_box(molecules)
    assert box.get_chemical_symbols() == ["O", "H", "H"] * molecules
    assert box.pbc.all()
    np.testing.assert_allclose(box.cell.array, np.diag(sites) * structures.SPACING)
    density = box.get_masses().sum() / box.get_volume() / AVOGADRO
    assert density == pytest.approx(1.0, rel=0.01)  # g/cm³


def test_water_molecules_are_whole_and_apart():
    box = structures.water_box(64)
    oxygen = 3 * np.arange(64)
    for hydrogen in (1, 2):
        bonds = box.positions[oxygen + hydrogen] - box.positions[oxygen]
        np.testing.assert_allclose(np.linalg.norm(bonds, axis=1), 0.9572, atol=1e-3)
    first, second, distances = neighbor_list("ijd", box, 3.5)
    assert distances[first // 3 != second // 3].min() > 0.6  # Å
    assert neighbor_list("d", box[oxygen], 3.5).min() > 2.3  # Å, of oxygen across the faces of the box too


def test_a_cluster_is_the_same_water_without_images():
    cluster, box = structures.water_cluster(3), structures.water_box(27)
    np.testing.assert_array_equal(cluster.positions, box.positions)
    assert not cluster.pbc.any()
    assert len(neighbor_list("i", cluster, 3.5)) < len(neighbor_list("i", box, 3.5))


@pytest.mark.parametrize("atoms", [4, 32, 108])
def test_gold_crystals_have_twelve_neighbours(atoms):
    crystal = structures.gold_crystal(atoms)
    assert crystal.get_chemical_symbols() == ["Au"] * atoms
    assert crystal.pbc.all()
    assert crystal.get_masses().sum() / crystal.get_volume() / AVOGADRO == pytest.approx(19.3, rel=0.01)  # g/cm³
    assert np.bincount(neighbor_list("i", crystal, 3.4), minlength=atoms).tolist() == [12] * atoms
    assert 2.5 < smallest_distance(crystal) < 2.884


def test_structures_are_the_same_every_time():
    for make, size in ((structures.water_box, 8), (structures.gold_crystal, 32)):
        np.testing.assert_array_equal(make(size).positions, make(size).positions)
        assert not np.array_equal(make(size).positions, make(size, seed=1).positions)


@pytest.mark.parametrize("count", [1, 7, 24, 343, 2000, 9261])
def test_factors_multiply_to_the_count(count):
    sides = structures.most_cubic(count)
    assert np.prod(sides) == count
    assert list(sides) == sorted(sides)


def test_systems_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORGRAPH_DATA", str(tmp_path))
    assert len(structures.structure("water-8")) == 24
    assert len(structures.structure("gold-32")) == 32
    with pytest.raises(FileNotFoundError, match="no system chignolin"):
        structures.structure("chignolin")
    with pytest.raises(ValueError, match="multiple of 4"):
        structures.structure("gold-30")
    (tmp_path / "systems").mkdir()
    structures.water_box(2).write(tmp_path / "systems" / "pair-of-waters.xyz")
    assert len(structures.structure("pair-of-waters")) == 6


def test_series_reach_from_a_thousand_to_thirty_thousand_atoms():
    sizes = {"water": [3 * int(name.split("-")[1]) for name in systems.SERIES["water"]]}
    sizes["gold"] = [int(name.split("-")[1]) for name in systems.SERIES["gold"]]
    for series in sizes.values():
        assert len(series) >= systems.SIZES_NEEDED
        assert 1000 <= series[0] < 1500
        assert 25_000 < series[-1] <= 30_000


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_the_exponent_of_made_up_times(power):
    sizes = [1000, 3000, 9000, 27000]
    assert runner.growth_exponent(sizes, [3e-6 * n**power for n in sizes]) == pytest.approx(power)
    noise = [1.02, 0.98, 0.98, 1.02]  # even about the middle: no slope
    noisy = [factor * n**power for factor, n in zip(noise, sizes, strict=True)]
    assert runner.growth_exponent(sizes, noisy) == pytest.approx(power)


def test_growth_needs_four_sizes_of_a_series():
    def row(molecules: int) -> dict:
        times = {part: {"median_ms": factor * molecules} for part, factor in (("neighbours", 0.1), ("tensorgraph", 2))}
        return {"system": f"water-{molecules}", "atoms": 3 * molecules, "step_ms": 2.1 * molecules} | times

    rows = [row(n) for n in (10, 20, 40, 80)] + [{"system": "chignolin"}]
    assert systems.growth(rows[1:]) == []
    (found,) = systems.growth(rows)
    assert found["series"] == "water"
    assert found["exponent"] == pytest.approx({"neighbours": 1, "model": 1, "step": 1})


def test_peaks_of_memory_see_an_array():
    peak = runner.peak_memory(lambda: torch.ones(2**24), "cpu")
    # kB: 64 MiB. The kernel counts pages per thread and adds them up late: an entry may be off by hundreds of them.
    assert 0.97 * 2**16 <= peak < 2**17


def test_elements_that_the_spec_lacks_are_added_and_named():
    spec = load_spec(systems.ROOT / "specs" / "hiphop5.yaml")
    assert systems.with_species(spec, {"H", "O"}) is spec
    wider = systems.with_species(spec, {"H", "C", "S", "P"})
    assert wider.name == "hiphop5_with_p_s"
    assert wider.network.species == ("H", "C", "N", "O", "P", "S")
    assert wider.network.features == spec.network.features


def test_a_package_is_compiled_for_gold(tmp_path):
    module = systems.package_for(structures.gold_crystal(4), tmp_path)
    assert module.architecture.SPECIES == (("Au", 79),)
    assert systems.package_for(structures.gold_crystal(4), tmp_path) is module
    assert systems.package_for(structures.water_box(1), tmp_path) is package("hiphop5")


def test_a_tiny_run_writes_its_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", "systems --systems water-24 --repeats 1 --peer none".split())
    systems.main()
    (row,) = (json.loads(line) for line in (tmp_path / "systems-cpu.jsonl").read_text().splitlines())
    assert {"neighbours", "tensorgraph", "step_ms", "us_per_atom", "device", "versions", "threads"} <= row.keys()
    assert (row["system"], row["package"], row["atoms"], row["periodic"]) == ("water-24", "hiphop5", 72, True)
    assert row["pairs"] > 5000
    assert row["peak_kB_per_atom"]["tensorgraph"] > 0
    assert row["ratio"] == row["skipped"] == {}
    assert row["step_ms"] == row["neighbours"]["median_ms"] + row["tensorgraph"]["median_ms"]
    assert "water-24" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning", "ignore:The .grad attribute of:UserWarning")
@pytest.mark.parametrize("case", steps.CASES)
def test_both_sides_of_a_step_give_equal_numbers(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer, forces and gradients that `bench.steps` times, on a smaller cluster."""
    pytest.importorskip("hippynn")
    monkeypatch.setenv("HIPPYNN_USE_CUSTOM_KERNELS", "sparse")
    monkeypatch.setattr(steps, "water_cluster", lambda _: structures.water_cluster(2))
    assert steps.largest_difference(case, "cpu") <= steps.TOLERANCE
