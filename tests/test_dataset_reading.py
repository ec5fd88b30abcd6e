"""Labelled structures: what files hold, where it stands, and one line for everything that is wrong with them."""

from __future__ import annotations

import gzip
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

import tensorgraph.dataset.files as files
from tensorgraph.dataset import LabelledStructure, duplicates, duplicates_within, read_structures, repetition
from tensorgraph.errors import DataError, StructureError, TensorGraphError
from tensorgraph.model.labels import LabelChoice
from tests.helpers import crystal, molecule

BOTH = LabelChoice.of(True, (), {})
ANY = LabelChoice.of(("energy", "forces", "stress"), ("energy", "forces", "stress"), {})
NONE = LabelChoice.of(False, (), {})
DATA = os.environ.get("TENSORGRAPH_DATA")


def labelled(seed: int, atoms: Atoms | None = None, **changes: object) -> Atoms:
    atoms = molecule(4, seed) if atoms is None else atoms
    forces = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    labels = {"energy": -1.0 - seed, "forces": forces, **changes}
    atoms.calc = SinglePointCalculator(atoms, **{name: label for name, label in labels.items() if label is not None})
    return atoms


def refused(path: Path, choice: LabelChoice = BOTH, **options: object) -> str:
    """The one line with which a file is refused, without the folder."""
    with pytest.raises(TensorGraphError) as raised:
        read_structures([path], choice, **options)
    assert isinstance(raised.value, DataError | StructureError)
    assert str(raised.value).startswith(str(path))
    return str(raised.value).removeprefix(str(path))


@pytest.mark.parametrize("name", ["a.xyz", "a.xyz.gz", "a.xyz.bz2", "a.xyz.xz", "a.traj", "a.db", "a.json", "a@1:.xyz"])
def test_files_of_any_format_give_their_labels_and_origins(tmp_path: Path, name: str) -> None:
    frames = [labelled(0), labelled(1, crystal(1, n_atoms=3))]
    write(tmp_path / name, frames)
    found = read_structures([str(tmp_path / name)] * 2, BOTH)
    assert [str(one.origin) for one in found] == [f"{tmp_path / name}, frame {k}" for k in (0, 1)] * 2
    for one, atoms in zip(found, frames * 2, strict=True):
        assert one.atoms.calc is None
        assert one.labels.energy == atoms.calc.results["energy"]
        assert one.labels.stress is None
        np.testing.assert_allclose(one.labels.forces, atoms.calc.results["forces"], atol=1e-8)
        np.testing.assert_allclose(one.atoms.positions, atoms.positions, atol=1e-8)


def test_a_single_frame_of_a_format_that_holds_one(tmp_path: Path) -> None:
    write(tmp_path / "POSCAR", crystal(0), format="vasp")
    (found,) = read_structures([tmp_path / "POSCAR"], NONE)
    assert (found.origin.frame, len(found.atoms)) == (0, 2)


def test_what_a_structure_lacks_is_none_where_it_is_optional_and_an_error_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz", [labelled(0), labelled(1, forces=None), molecule(4, 2)])
    kinds = [
        (one.labels.energy is None, one.labels.forces is None) for one in read_structures([tmp_path / "a.xyz"], ANY)
    ]
    assert kinds == [(False, False), (False, True), (True, True)]
    assert refused(tmp_path / "a.xyz").startswith(", frame 1: the structure carries no forces")


def test_groups(tmp_path: Path) -> None:
    frames = [labelled(seed) for seed in range(4)]
    frames[0].info.update(group="bulk", config_type="other")
    frames[1].info["config_type"] = "slab"
    frames[2].info["kind"] = 3
    write(tmp_path / "a.xyz", frames)
    assert [one.group for one in read_structures([tmp_path / "a.xyz"], BOTH)] == ["bulk", "slab", None, None]
    assert [one.group for one in read_structures([tmp_path / "a.xyz"], BOTH, "kind")] == [None, None, "3", None]
    assert refused(tmp_path / "a.xyz", group_key="nothing") == ": no structure carries the group key 'nothing'"
    frames[2].info["kind"] = [1, 2]
    write(tmp_path / "a.xyz", frames)
    assert ", frame 2: info['kind'] is ndarray" in refused(tmp_path / "a.xyz", group_key="kind")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert refused(tmp_path / "missing.xyz") == " cannot be read: No such file or directory"
    assert refused(tmp_path).startswith(" is a directory; allowed")
    os.mkfifo(tmp_path / "pipe.xyz")
    assert refused(tmp_path / "pipe.xyz").startswith(" is no regular file; allowed")
    with pytest.raises(TypeError, match="files must be a list"):
        read_structures("a.xyz", BOTH)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", b"", " is empty"),
        ("a.xyz", b" \n\n", " holds no structure"),
        ("a.xyz.gz", gzip.compress(b"", mtime=0), " holds no structure"),
        ("a.xyz.gz", b"1\n\nH 0 0 0\n", " cannot be read: Not a gzipped file"),
        ("a.json", b"{}", " cannot be read as json: UnknownFileTypeError: Does not resemble ASE JSON"),
        ("a.db", b"x" * 100, " cannot be read as db: DatabaseError: file is not a database"),
        ("a.traj", b"- of UlmASE-Trajectory" + bytes(100), " cannot be read as traj: "),
        ("a.notes", b"some notes", " has no format that ASE knows: notes; extended XYZ ends in .xyz"),
        ("a.gif", b"GIF89a", " has the format gif, which ASE writes and does not read"),
        ("a.xyz", b"1\n\nH 0 0 0\nthree\n\n", ", frame 1: the number of atoms is 'three'"),
        ("a.xyz", b"-1\n\nH 0 0 0\n", ", frame 0: the number of atoms is '-1'"),
        ("a.xyz", b"1\n\nH 0 0 0\n2\n\nH 0 0 0\n", ", frame 1: the file ends before the last of 2 atoms"),
        ("a.xyz", b"999999999999999999\n\nH 0 0 0\n", ", frame 0: the file ends before the last of 9999"),
        ("a.xyz", b"1\n\nH 0 0 0\n\n1\n\nH 0 0 0\n", ", frame 1: a blank line stands where the number of atoms"),
        ("a.xyz", b"1\n\nH 0 0 0\n1\n\nH 0 zero 0\n", ", frame 1: cannot be read as extxyz: "),
        ("a.xyz", b"1\n\nH 0 0 0\n1\n\nQq 0 0 0\n", ", frame 1: cannot be read as extxyz: KeyError: 'Qq'"),
        ("a.xyz", b"1\n\xff\xfe\nH 0 0 0\n", ", frame 0: cannot be read as extended XYZ: 'utf-8' codec"),
        ("a.xyz", b"0\n\n", ", frame 0: the structure has no atoms"),
        ("a.xyz", b"1\n\nH 0 nan 0\n", ", frame 0: the position of atom 0 (H) is not finite"),
        ("a.xyz", b'1\nLattice="inf 0 0 0 1 0 0 0 1" pbc="T T T"\nH 0 0 0\n', ", frame 0: a periodic cell vector"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name, NONE).startswith(message)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_compressed_files_that_are_cut_off_or_damaged(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.xyz.{suffix}"
    write(path, [labelled(seed) for seed in range(200)])
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = whole[:middle] + bytes(byte ^ 0x55 for byte in whole[middle : middle + 50]) + whole[middle + 50 :]
    for content in (whole[:20], whole[:middle], damaged):
        path.write_bytes(content)
        assert "cannot be read" in (said := refused(path)) or "the number of atoms is" in said


def test_labels_that_are_not_finite_are_refused_with_their_frame(tmp_path: Path) -> None:
    for name, value in {"energy": np.nan, "forces": np.full((4, 3), np.inf)}.items():
        write(tmp_path / "a.xyz", [labelled(0), labelled(1), labelled(2, **{name: value})])
        assert refused(tmp_path / "a.xyz") == f", frame 2: calc.results['{name}'] is not finite"


def test_unknown_elements_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz", [labelled(0, molecule(4, 0, "HC")), labelled(1, molecule(4, 0, "N"))])
    assert len(read_structures([tmp_path / "a.xyz"], BOTH, species=[1, 6, 7])) == 2
    found = refused(tmp_path / "a.xyz", species=(number for number in (6, 1)))
    assert found == ", frame 1: atom 0 has the unknown species N; the model knows H C"


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xyz"

    def appended() -> None:
        with path.open("a") as file:
            file.write("1\n\nH 0 0 0\n")

    def touched() -> None:
        os.utime(path, ns=(0, 0))

    def replaced() -> None:
        status, content = path.stat(), path.read_bytes()
        (tmp_path / "new").write_bytes(content)
        os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(tmp_path / "new", path)

    def removed() -> None:
        path.unlink()

    read = files.iread
    for change in (appended, touched, replaced, removed):
        write(path, [labelled(0), labelled(1)])

        def changing(*arguments: object, change=change, **options: object):
            frames = read(*arguments, **options)
            yield next(frames)
            change()
            yield from frames

        monkeypatch.setattr(files, "iread", changing)
        assert " changed while it was read" in refused(path) or change is removed


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "exploded").touch, ())

    for protocol in range(2, 6):
        for name in ("a.traj", "a.xyz", "a", "a.trj", "a.pckl"):
            (tmp_path / name).write_bytes(pickle.dumps(Bomb(), protocol))
            assert " is a pickle, which may run any code" in refused(tmp_path / name)
    old = {"b.traj": b"PickleTrajectory" + pickle.dumps(Bomb()), "b.traj.gz": gzip.compress(pickle.dumps(Bomb()))}
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
        assert " is a pickle, which may run any code" in refused(tmp_path / name)
    for name in ("c.traj", "c.xyz", "c.trj", "c.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(), 0))  # text, which no reader takes for a pickle
        refused(tmp_path / name)
    (tmp_path / "d.gpw").write_bytes(b"a tar archive")
    assert " is a .gpw file of an old GPAW, whose text is evaluated" in refused(tmp_path / "d.gpw")
    assert not (tmp_path / "exploded").exists()


def test_names_that_ase_takes_for_databases_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("postgres.xyz", "mysql.xyz", "-"):
        write(tmp_path / name, labelled(0), format="extxyz")
        assert str(read_structures([name], BOTH)[0].origin) == f"{name}, frame 0"


def test_warnings_of_ase_are_not_held_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.xyz", labelled(0))
    read = files.iread

    def warning(*arguments: object, **options: object):
        import warnings

        warnings.warn("ASE says so", UserWarning, stacklevel=2)
        yield from read(*arguments, **options)

    monkeypatch.setattr(files, "iread", warning)
    with pytest.warns(UserWarning, match="ASE says so"):
        assert len(read_structures([tmp_path / "a.xyz"], BOTH)) == 1
    with pytest.raises(UserWarning, match="ASE says so"):  # as warnings are errors here
        read_structures([tmp_path / "a.xyz"], BOTH)


def test_constraints_and_calculators(tmp_path: Path) -> None:
    atoms = labelled(0)
    atoms.set_constraint(FixAtoms([0]))
    write(tmp_path / "a.traj", atoms)
    (found,) = read_structures([tmp_path / "a.traj"], BOTH)
    np.testing.assert_array_equal(found.labels.forces, atoms.calc.results["forces"])


# Duplicates


def structures(frames: list[Atoms], folder: Path, choice: LabelChoice = ANY) -> list[LabelledStructure]:
    write(folder / "frames.traj", frames)
    return read_structures([folder / "frames.traj"], choice)


def rattled(atoms: Atoms, width: float) -> Atoms:
    moved = atoms.copy()
    moved.positions += np.random.default_rng(0).uniform(-width, width, moved.positions.shape)
    return moved


def test_duplicates_have_the_same_elements_and_energy(tmp_path: Path) -> None:
    atoms = molecule(5, 0)
    same, turned = labelled(0, atoms.copy()), labelled(0, atoms[::-1])
    turned.rotate(90, "x")
    turned.calc = SinglePointCalculator(turned, energy=-1.0 + 9e-7, forces=same.calc.results["forces"][::-1])
    other_energy = labelled(0, atoms.copy(), energy=-1.0 + 3e-6)
    by_chance = labelled(0, atoms.copy(), forces=np.ones((5, 3)))
    no_forces = labelled(0, atoms.copy(), forces=None)
    other_elements = labelled(0, Atoms("He5", atoms.positions))
    train = structures([other_elements, same], tmp_path)
    test = structures([turned, other_energy, by_chance, no_forces, other_elements], tmp_path)
    assert duplicates(train, test) == [(0, 4), (1, 0), (1, 3)]


def test_duplicates_without_energies_have_the_same_cell_and_positions(tmp_path: Path) -> None:
    one, other = crystal(0), molecule(4, 1)
    grown = one.copy()
    grown.cell[0, 0] += 1e-5
    train = structures([other, one], tmp_path)
    swapped = Atoms("HHCO", other.positions)
    again = Atoms("OHCH", other.positions)
    test = structures([rattled(one, 5e-7), rattled(one, 1e-5), grown, labelled(0, one.copy()), other[::-1]], tmp_path)
    assert duplicates(train, test) == [(1, 0), (1, 3)]
    assert duplicates_within(structures([swapped, again, again], tmp_path)) == [(1, 2)]


def test_duplicates_are_told_with_their_number(tmp_path: Path) -> None:
    train = structures([labelled(seed) for seed in (0, 1, 2, 1, 1)], tmp_path)
    assert duplicates_within(train) == [(1, 3), (1, 4), (3, 4)]
    within = r"2 of 5 structures repeat an earlier one .*traj, frame 3 is .*, frame 1"
    assert re.fullmatch(within, repetition(train) or "")
    between = r"1 of 2 test structures stand in the training set too .*, frame 1 is .*, frame 1"
    assert re.fullmatch(between, repetition(train, structures([labelled(8), labelled(1)], tmp_path)) or "")
    assert repetition(train[:3]) is repetition(train[:3], train[:0]) is None


@pytest.mark.skipif(not DATA, reason="TENSORGRAPH_DATA is not set")
@pytest.mark.parametrize(("element", "count"), [("Ni", 4), ("Cu", 9), ("Mo", 0), ("Si", 3)])
def test_duplicates_of_published_data(element: str, count: int) -> None:
    train, test = (read_structures([Path(DATA) / "mlearn" / f"{element}_{k}.xyz"], BOTH) for k in ("train", "test"))
    assert len({second for _, second in duplicates(train, test)}) == count


@pytest.mark.skipif(not DATA, reason="TENSORGRAPH_DATA is not set")
def test_equal_energies_by_chance_are_no_duplicates() -> None:
    train, test = (read_structures([Path(DATA) / "ethanol" / name], BOTH) for name in ("train.xyz", "test_MD.xyz"))
    energies = [np.array([one.labels.energy for one in part]) for part in (train, test)]
    assert (np.abs(energies[0][:, None] - energies[1]) < 1e-6).sum() == 5
    assert duplicates(train, test) == []
