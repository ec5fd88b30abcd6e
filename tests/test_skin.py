"""Lists with a skin: the pairs of `neighbour_pairs`, to the bit, from lists that are made as seldom as they may be."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.filters import FrechetCellFilter, UnitCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE

from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.committee import CommitteeCalculator
from tensorgraph.errors import StructureError
from tensorgraph.model.checkpoint import save_checkpoint
from tensorgraph.model.loading import load_package
from tensorgraph.neighbours import search
from tensorgraph.neighbours.lists import Placed, neighbour_pairs
from tensorgraph.neighbours.skin import SkinnedNeighbours, _Structure
from tests.helpers import build, crystal, molecule

CUTOFF = 4.0


def assert_equal(known: SkinnedNeighbours, atoms: Atoms) -> None:
    pairs, displacements = known.pairs(atoms)
    expected, exact = neighbour_pairs(atoms, known.cutoff)
    np.testing.assert_array_equal(pairs, expected)
    assert displacements.tobytes() == exact.tobytes()
    assert (pairs.dtype, displacements.dtype, pairs.flags.writeable) == (expected.dtype, exact.dtype, True)


def message_of(function: Callable[..., object], *arguments: object) -> str:
    """Of the error that a call ends with, if any."""
    try:
        function(*arguments)
    except StructureError as error:
        return str(error)
    return ""


def slab() -> Atoms:
    return crystal(5, (True, False, True), n_atoms=6)


def long_cell() -> Atoms:
    """For which another search than in full boxes is used, and which is skewed."""
    atoms = crystal(6, n_atoms=5)
    atoms.cell[1] += 5 * atoms.cell[0]
    atoms.cell[2] *= 500
    return atoms


def far_away() -> Atoms:
    atoms = crystal(8, (True, True, False), n_atoms=5)
    atoms.positions += (3e6, -2e6, 1e5)
    return atoms


SHAPES: dict[str, Callable[[], Atoms]] = {
    "crystal": lambda: crystal(3, n_atoms=5),
    "slab": slab,
    "long cell": long_cell,
    "far away": far_away,
    "cluster": lambda: molecule(12, 4),
    "box": lambda: Atoms(molecule(40, 7), cell=[9, 9, 9], pbc=True),
}


def other_cell(atoms: Atoms, random: np.random.Generator) -> None:
    atoms.set_cell(atoms.cell.array * random.uniform(0.97, 1.03), scale_atoms=bool(random.integers(2)))


def other_number(atoms: Atoms, random: np.random.Generator) -> None:
    if len(atoms) > 2 and random.integers(2):
        del atoms[random.integers(len(atoms))]
    else:
        atoms.append("H")
        atoms.positions[-1] = atoms.positions[0] + random.uniform(1.5, 9, 3)


def by_whole_cells(atoms: Atoms, random: np.random.Generator) -> None:
    atoms.positions += random.integers(-2, 3, (len(atoms), 3)) * atoms.pbc @ atoms.cell.array


EVENTS: list[Callable[[Atoms, np.random.Generator], object]] = [
    other_cell,
    other_number,
    by_whole_cells,
    lambda atoms, random: atoms.wrap(),
    lambda atoms, random: atoms.set_pbc(random.integers(2, size=3).astype(bool)),
    lambda atoms, random: atoms.set_atomic_numbers(random.choice([1, 6, 7, 8], len(atoms))),
    lambda atoms, random: atoms.rattle(1.0, rng=random),
    lambda atoms, random: atoms.translate(random.uniform(-0.2, 0.2, 3)),
    lambda atoms, random: atoms.set_positions(random.permutation(atoms.positions)),
]


@pytest.mark.parametrize("skin", [0.0, 0.3, 1.5, 8.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_are_those_of_a_new_list_whatever_happens_to_the_atoms(shape: str, skin: float) -> None:
    atoms, known, random = SHAPES[shape](), SkinnedNeighbours(CUTOFF, skin), np.random.default_rng(len(shape))
    for step in range(60):
        before = atoms.copy()
        atoms.positions += random.normal(size=atoms.positions.shape) * 0.03
        if step % 6 == 5:
            EVENTS[random.integers(len(EVENTS))](atoms, random)
        messages = [message_of(neighbour_pairs, atoms, CUTOFF), message_of(known.pairs, atoms)]
        assert messages[0] == messages[1]
        atoms = before if messages[0] else atoms
        assert_equal(known, atoms)
    assert known.builds == 60 if skin == 0 else known.builds < 50


def test_lists_are_made_when_an_atom_has_moved_by_half_the_skin_and_not_before() -> None:
    atoms, known = Atoms(molecule(30, 1), cell=[20, 20, 20], pbc=True), SkinnedNeighbours(CUTOFF, 0.5)
    assert_equal(known, atoms)  # without a skin, for it may be the only structure
    atoms.positions += 1e-3
    assert_equal(known, atoms)
    assert known.builds == 2
    for step in range(1, 25):
        atoms.positions[7, 1] += 0.01
        atoms.positions[11] -= 0.005
        assert_equal(known, atoms)
        assert known.builds == 2, step
    by_whole_cells(atoms, np.random.default_rng(0))
    assert_equal(known, atoms)
    assert known.builds == 2
    atoms.positions[7, 1] += 0.0101
    assert_equal(known, atoms)
    assert known.builds == 3


def approaching(distance: float, step: float) -> tuple[SkinnedNeighbours, Atoms]:
    """A list of two atoms that then move towards each other by a step each."""
    known, atoms = SkinnedNeighbours(CUTOFF, 0.5), Atoms("CO", [(0, 0, 0), (distance, 0, 0)], cell=[40] * 3, pbc=True)
    known.pairs(Atoms(atoms, positions=atoms.positions + 1e-9))
    known.pairs(atoms)
    atoms.positions[:, 0] += (step, -step)
    return known, atoms


def test_atoms_that_approach_by_just_less_than_half_the_skin_are_in_the_list() -> None:
    known, atoms = approaching(CUTOFF + 0.5 - 1e-9, 0.25 - 1e-10)
    assert known.pairs(atoms)[0].tolist() == [[0, 1], [1, 0]]
    assert_equal(known, atoms)
    assert known.builds == 2


def test_a_list_that_is_not_made_in_time_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    known, atoms = approaching(CUTOFF + 0.55, 0.28)
    assert_equal(known, atoms)
    assert known.builds == 3
    original = _Structure.steps_from
    monkeypatch.setattr(_Structure, "steps_from", lambda self, other, skin: original(self, other, 2 * skin))
    known, atoms = approaching(CUTOFF + 0.55, 0.28)
    with pytest.raises(AssertionError):
        assert_equal(known, atoms)


def test_structures_in_turn_have_their_own_pairs_and_cost_no_skin(monkeypatch: pytest.MonkeyPatch) -> None:
    reaches: list[float] = []
    original = Placed.listed
    monkeypatch.setattr(Placed, "listed", lambda self, reach: (reaches.append(reach), original(self, reach))[1])
    known, structures = SkinnedNeighbours(CUTOFF, 0.5), [crystal(seed, n_atoms=4) for seed in range(4)]
    for _ in range(2):
        for atoms in structures:
            known.pairs(atoms)
    assert reaches == [CUTOFF] * 8
    for atoms in structures:
        assert_equal(known, atoms)


def test_what_is_given_away_may_be_changed() -> None:
    known, atoms = SkinnedNeighbours(CUTOFF, 0.5), crystal(1, n_atoms=4)
    for _ in range(4):
        for array in known.pairs(atoms):
            array[:] = 7
        assert_equal(known, atoms)
        atoms.positions += 0.01


def test_where_pairs_in_the_skin_are_too_many_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_PAIRS", 2000)
    known, atoms = SkinnedNeighbours(CUTOFF, 20.0), crystal(1, n_atoms=4)
    for _ in range(3):
        atoms.positions += 0.01
        assert_equal(known, atoms)
    monkeypatch.setattr(search, "MOST_PAIRS", 20)
    atoms.positions += 0.01
    with pytest.raises(StructureError, match=r"are within 4 Å: at most"):
        known.pairs(atoms)


@pytest.mark.parametrize("skin", [-0.1, np.nan, np.inf, 2e12, "0.5", None, True])
def test_skins_that_are_none_are_refused(skin: object, small: Path) -> None:
    for make in (lambda: SkinnedNeighbours(CUTOFF, skin), lambda: TensorGraphCalculator(small, skin=skin)):
        with pytest.raises(ValueError, match=r"^the skin must be a number of at least 0 and up to 1e\+12 Å, not "):
            make()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with few features."""
    return build(tmp_path_factory.mktemp("skin"))


def water_like() -> Atoms:
    atoms = Atoms(molecule(24, 3, "HO", spread=2.0), cell=[7.5, 7.6, 7.7], pbc=True)
    velocities = np.random.default_rng(1).normal(size=(24, 3)) * np.sqrt(600 * units.kB / atoms.get_masses())[:, None]
    atoms.set_velocities(velocities)
    return atoms


def test_dynamics_are_the_same_with_and_without_a_skin(small: Path) -> None:
    ends, builds = [], []
    for skin in (0.0, 0.5):
        atoms = water_like()
        atoms.calc = TensorGraphCalculator(small, skin=skin)
        dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
        dynamics.attach(atoms.wrap, interval=50)
        energies: list[float] = []
        dynamics.attach(lambda atoms=atoms, energies=energies: energies.append(atoms.get_potential_energy()))
        dynamics.run(200)
        ends.append([atoms.positions.tolist(), atoms.get_forces().tolist(), atoms.get_stress().tolist(), energies])
        builds.append(atoms.calc.neighbours.builds)
    assert ends[0] == ends[1]
    assert 3 * builds[1] < builds[0]


@pytest.mark.parametrize("kind", [FrechetCellFilter, UnitCellFilter])
def test_relaxations_of_the_cell_are_the_same_with_and_without_a_skin(small: Path, kind: type) -> None:
    ends = []
    for skin in (0.0, 0.5):
        atoms = crystal(2, n_atoms=5)
        atoms.calc = TensorGraphCalculator(small, skin=skin)
        FIRE(kind(atoms), logfile=None).run(fmax=1e-9, steps=25)
        BFGS(atoms, logfile=None).run(fmax=1e-9, steps=10)
        ends.append([atoms.positions.tolist(), atoms.cell.tolist(), atoms.get_stress().tolist()])
    assert ends[0] == ends[1]


def test_a_calculator_follows_every_change_of_its_atoms(small: Path) -> None:
    random, atoms = np.random.default_rng(4), water_like()
    calculators = [TensorGraphCalculator(small, skin=skin) for skin in (0.0, 1.0)]
    for step in range(36):
        atoms.positions += random.normal(size=atoms.positions.shape) * 0.01
        if step % 4 == 3:
            EVENTS[step // 4](atoms, random)
        forces = [calculator.get_forces(atoms).tolist() for calculator in calculators]
        assert forces[0] == forces[1]


def test_copies_and_pickles_start_without_pairs(small: Path) -> None:
    calculator, atoms = TensorGraphCalculator(small, skin=1.0), water_like()
    size = len(pickle.dumps(calculator))
    for _ in range(3):
        atoms.positions += 0.01
        calculator.calculate(atoms, ["energy"])
    assert len(pickle.dumps(calculator)) < size + 20_000  # the results and the atoms
    for twin in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        assert (twin.neighbours.skin, twin.neighbours.builds) == (1.0, 0)
        for other in (atoms, crystal(1, n_atoms=24), atoms):
            assert twin.get_forces(other).tolist() == TensorGraphCalculator(small, skin=0).get_forces(other).tolist()
    assert calculator.neighbours.builds == 2


def test_other_weights_keep_the_list(small: Path, tmp_path: Path) -> None:
    module, atoms = load_package(small), water_like()
    save_checkpoint(module.Model(seed=5), module, tmp_path / "other.safetensors")
    calculator = TensorGraphCalculator(small, skin=1.0)
    before = calculator.get_potential_energy(atoms)
    calculator.load(tmp_path / "other.safetensors")
    assert calculator.get_potential_energy(atoms) != before
    assert calculator.neighbours.builds == 1


def test_committees_share_a_list(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_package(small)
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(3)]
    for seed, path in enumerate(paths):
        save_checkpoint(module.Model(seed=seed), module, path)
    calls = []
    original = Placed.within
    monkeypatch.setattr(Placed, "within", lambda self, *rest: (calls.append(1), original(self, *rest))[1])
    mine = TensorGraphCalculator(small, paths[2])
    committee, atoms = CommitteeCalculator([*paths[:2], mine], small, skin=1.0), water_like()
    for _ in range(5):
        atoms.positions += 0.01
        committee.get_property("forces_std", atoms)
    assert committee.members[0].neighbours is committee.members[1].neighbours is not mine.neighbours
    assert (committee.members[0].neighbours.builds, len(calls)) == (2, 10)
    twin = copy.deepcopy(committee)
    assert twin.members[0].neighbours is twin.members[1].neighbours is not committee.members[0].neighbours
    alone = [TensorGraphCalculator(small, path, skin=0).get_forces(atoms) for path in paths]
    assert committee.get_forces(atoms).tolist() == np.mean(alone, axis=0).tolist()
