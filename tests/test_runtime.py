"""The runtime: the same bytes in every package, shared where code is equal, and replaced by a refresh."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from tensorgraph.cli import main
from tensorgraph.compiler import compile_spec
from tensorgraph.emit import check_package, runtime, write_package
from tensorgraph.model.batch import batch_structures
from tensorgraph.model.loading import load_package
from tensorgraph.runtime import INTERFACE, sources
from tensorgraph.runtime.grouping import group_sum
from tensorgraph.runtime.modules import linear
from tensorgraph.runtime.potential import Potential
from tensorgraph.spec import parse_spec
from tests.helpers import GENERATED, WITH_NETWORK, batch_of, molecule

ROOT = Path(__file__).parents[1]
BASIS_ALONE = "name: small\nbasis: {family: flexible, body_order: 3, max_rank: 1}\n"
HIPNN = (GENERATED / "hipnn" / "spec.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_every_package_holds_the_runtime_byte_for_byte(name):
    files = {path.name: path.read_bytes() for path in (GENERATED / name / "_runtime").iterdir() if path.is_file()}
    assert files == sources.runtime()
    recorded = json.loads((GENERATED / name / "manifest.json").read_text(encoding="utf-8"))["runtime"]
    assert (recorded["interface"], recorded["digest"]) == (INTERFACE, sources.digest(files))


def test_a_package_without_network_holds_it_too():
    files = dict(compile_spec(parse_spec(BASIS_ALONE)).package.files)
    assert runtime.runtime_files().items() <= files.items()


def test_nothing_in_it_names_a_spec():
    for name, text in sources.runtime().items():
        assert not any(word.encode() in text for word in ("import architecture", *WITH_NETWORK)), name


def test_what_a_subclass_has_to_define_is_said():
    class Nothing(Potential):
        NAME, SPECIES, CUTOFF = "nothing", (("H", 1),), 3.0

    with pytest.raises(NotImplementedError, match="Nothing defines no energy terms"):
        Nothing().energy_terms(torch.ones(1, 1), None)
    assert repr(Nothing()) == "Nothing(nothing: H, cutoff 3.0 Å)"


class Springs(Potential):
    """Of every pair the square of its cutoff function: a potential that needs nothing that was printed."""

    NAME, SPEC_DIGEST, SPECIES, CUTOFF = "springs", "0" * 64, (("H", 1), ("O", 8)), 3.0

    def __init__(self) -> None:
        super().__init__()
        self.energy_heads = torch.nn.ModuleDict({"of_species": linear(2, 1, torch.Generator(), bias=False)})

    def energy_terms(self, species, geometry):
        springs = group_sum(geometry.radial[:, 1:].square(), geometry.index.target, len(species))
        return torch.cat([self.energy_heads.of_species(species).T, springs.T])


def test_a_potential_needs_its_energy_terms_alone():
    """Energies in closed form, and forces and virials that are their derivatives."""
    atoms = molecule(6, 0, symbols="HO")
    model, atoms.positions[:] = Springs().double(), 1.7 * atoms.positions
    model.set_atomic_energies({"H": -1.5, "O": -2.5})
    found = model.energy_and_forces(*batch_structures([atoms], 3.0, torch.float64).inputs)
    distances = atoms.get_all_distances()[~np.eye(6, dtype=bool)]
    energy = (np.cos(np.pi * distances[distances < 3] / 6) ** 4).sum()
    assert float(found.energy) == pytest.approx(energy + sum({1: -1.5, 8: -2.5}[n] for n in atoms.numbers), abs=1e-12)
    for (atom, axis), force in np.ndenumerate(found.forces.numpy()):
        direction = np.zeros((6, 3))
        direction[atom, axis] = 1
        assert -slope(model, atoms, direction) == pytest.approx(force, abs=1e-7)
    assert slope(model, atoms, atoms.positions) == pytest.approx(float(found.virial[0].trace()), abs=1e-6)


def slope(model: Potential, atoms: Atoms, direction: np.ndarray, step: float = 1e-5) -> float:
    """Of the energy as the positions move, by central differences."""
    moved = [Atoms(atoms.numbers, atoms.positions + sign * step * direction) for sign in (1, -1)]
    up, down = (model(*batch_structures([one], 3.0, torch.float64).inputs).energy.item() for one in moved)
    return (up - down) / (2 * step)


def test_a_potential_names_what_it_does_not_know():
    with pytest.raises(ValueError, match="unknown species He; the model knows H, O"):
        Springs().set_atomic_energies({"He": 1.0})
    with pytest.raises(ValueError, match=r"unknown species: atom 0: atomic number 2; the model knows \[1, 8\]"):
        Springs()(*batch_structures([Atoms("He")], 3.0).inputs)


SECOND = """
import sys
from pathlib import Path
import torch
from generated import {first}, {second}
cache, pairs = Path(sys.argv[1]), torch.tensor([[0, 1], [1, 0]])
for package in ({first}, {second}):
    before = len(list(cache.glob("*.so")))
    apart = torch.tensor([[1.0, 0.2, 0], [-1.0, -0.2, 0]], dtype=torch.float64)
    model = package.Model(seed=0).double()
    found = model.energy_and_forces(torch.tensor([1, 8]), pairs, apart, create_graph=True)
    (found.forces.square().sum() + found.energy.sum()).backward()
    print(len(list(cache.glob("*.so"))) - before)
"""


def test_a_second_package_compiles_what_differs_alone(tmp_path, monkeypatch):
    """The invariants' three programs; those of pairs, moments, tensors and sensitivities are there."""
    monkeypatch.setenv("TENSORGRAPH_CACHE", str(tmp_path))
    code = SECOND.format(first="hiphop5", second="hiphop4")
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.stderr, done.stdout.split()) == ("", ["15", "3"])


def test_operators_are_named_by_their_code_alone(tmp_path):
    """Another name changes headers, and no operator; another basis has its own invariants."""
    other = load_package(write_package(compile_spec(parse_spec(HIPNN.replace("hipnn", "other"))).package, tmp_path))
    committed = [importlib.import_module(f"generated.{name}") for name in ("hipnn", "hiphop4")]
    texts = [(folder / "invariants_cpu.c").read_bytes() for folder in (tmp_path / "other", GENERATED / "hipnn")]
    assert texts[0] != texts[1]
    assert len({sources.body("invariants_cpu.c", text) for text in texts}) == 1
    programs = [sys.modules[f"{package.__name__}.invariants"].PROGRAMS for package in (other, *committed)]
    assert programs[0].source.text == programs[1].source.text
    assert programs[0].forward is programs[1].forward
    assert programs[1].forward is not programs[2].forward
    assert len({id(package._runtime.pairs._environment_operator) for package in (other, *committed)}) == 1


@pytest.mark.parametrize(
    ("name", "text", "body"),
    [
        ("a.py", b"# one\n# two\nimport torch\n# three\n", b"import torch\n# three\n"),
        ("a.c", b"// one\n#define A\n// two\n", b"#define A\n// two\n"),
        ("a.c", b"// one", b""),
        ("a.py", b"", b""),
        ("a.py", b"x = 1", b"x = 1"),
    ],
)
def test_headers_are_the_first_lines_of_comment(name, text, body):
    assert sources.body(name, text) == body


def test_digests_tell_names_and_contents_apart():
    texts = [{"a": b"xy"}, {"b": b"xy"}, {"a": b"x", "b": b"y"}, {"a": b"x"}, {}]
    assert len({sources.digest(text) for text in texts}) == len(texts)
    assert sources.digest({"a": b"1", "b": b"2"}) == sources.digest({"b": b"2", "a": b"1"})


SMALL = HIPNN.replace("features: 128", "features: 8")


@pytest.fixture
def handed_out(tmp_path, monkeypatch) -> Path:
    """A package with an older runtime: another text, and a file that is there no more."""
    older = sources.runtime() | {"inputs.py": b"# older\n" + sources.runtime()["inputs.py"], "layouts.py": b"OLD = 1\n"}
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "runtime", lambda: older)
        return write_package(compile_spec(parse_spec(SMALL)).package, tmp_path)


def test_a_refreshed_package_is_what_a_build_gives(handed_out, capsys):
    package = compile_spec(parse_spec(SMALL)).package
    differences = check_package(package, handed_out.parent)
    assert [line.split(": ")[0].removeprefix(f"{handed_out}/") for line in differences] == [
        "_runtime/inputs.py",
        "_runtime/layouts.py",
        "manifest.json",
    ]
    assert main(["refresh", str(handed_out)]) == 0
    assert capsys.readouterr().out == f"{handed_out}\n"
    assert check_package(package, handed_out.parent) == ()


def test_a_refresh_leaves_what_was_printed_and_the_numbers(handed_out):
    """What was edited by hand, and what another version has printed, too."""
    edited = handed_out / "invariants.py"
    edited.write_text(edited.read_text(encoding="utf-8") + "# edited\r\n", encoding="utf-8", newline="")
    _change(handed_out, lambda manifest: manifest.update(tensorgraph_version="0.0.1"))
    before = {path.name: path.read_bytes() for path in handed_out.iterdir() if path.suffix in (".py", ".c", ".yaml")}
    found = []
    for _ in range(2):
        module = load_package(handed_out)
        found.append(module.Model(seed=0).double().energy_and_forces(*batch_of(module, molecule(6, 0)).inputs))
        main(["refresh", str(handed_out)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert {name: (handed_out / name).read_bytes() for name in before} == before
    assert json.loads((handed_out / "manifest.json").read_text(encoding="utf-8"))["tensorgraph_version"] == "0.0.1"


def test_a_second_refresh_has_nothing_to_do(handed_out, capsys):
    main(["refresh", str(handed_out)])
    inode = handed_out.stat().st_ino
    capsys.readouterr()
    assert main(["refresh", str(handed_out)]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{handed_out} has the newest runtime: nothing to do\n")
    assert handed_out.stat().st_ino == inode


def test_an_edited_runtime_is_put_right(handed_out):
    main(["refresh", str(handed_out)])
    file = handed_out / "_runtime" / "pairs.py"
    text = file.read_bytes()
    file.write_bytes(text + b"# edited\n")
    main(["refresh", str(handed_out)])
    assert file.read_bytes() == text


def of_the_old_layout(package: Path) -> None:
    _change(package, lambda manifest: manifest.pop("runtime"))


def _change(package: Path, change) -> None:
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    change(manifest)
    (package / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


REFUSED = {
    "no package": (lambda package: (package / "manifest.json").unlink(), "is not a generated package: manifest.json"),
    "no folder": (lambda package: shutil.rmtree(package), "is not a generated package"),
    "the old layout": (of_the_old_layout, "of the old layout, without _runtime/; `tensorgraph build "),
    "another interface": (
        lambda package: _change(package, lambda manifest: manifest["runtime"].update(interface=INTERFACE + 1)),
        f"was printed for interface {INTERFACE + 1} of the runtime, this one has {INTERFACE}; `tensorgraph build ",
    ),
    "an entry that is none": (
        lambda package: _change(package, lambda manifest: manifest.update(runtime="new")),
        "was printed for interface 'new' of the runtime",
    ),
    "a foreign file": (lambda package: (package / "notes.txt").touch(), "notes.txt was not written by tensorgraph"),
    "a foreign file in the runtime": (
        lambda package: (package / "_runtime" / "mine.py").touch(),
        "_runtime/mine.py was not written by tensorgraph",
    ),
    "a link": (
        lambda package: ((package / "model.py").unlink(), (package / "model.py").symlink_to(package / "invariants.py")),
        "model.py was not written by tensorgraph",
    ),
    "a missing file": (lambda package: (package / "model.py").unlink(), "model.py: No such file or directory; `tens"),
    "a path that leads out": (
        lambda package: _change(package, lambda manifest: manifest["files"].append("../spec.yaml")),
        "'../spec.yaml' is no path of a package's file",
    ),
    "files that are none": (
        lambda package: _change(package, lambda manifest: manifest.update(files=3)),
        "is no package of tensorgraph",
    ),
    "no text": (lambda package: (package / "model.py").write_bytes(b"\xff\xfe"), "cannot read "),
    "another name": (
        lambda package: _change(package, lambda manifest: manifest.update(name="other")),
        "holds the package other",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_refreshed_is_left_as_it_is(handed_out, what, capsys):
    """With one line that says why, and for a package that has to be rebuilt which command does."""
    change, message = REFUSED[what]
    change(handed_out)
    before = {path: path.read_bytes() for path in handed_out.rglob("*") if path.is_file()}
    assert main(["refresh", str(handed_out)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tensorgraph: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert {path: path.read_bytes() for path in handed_out.rglob("*") if path.is_file()} == before
