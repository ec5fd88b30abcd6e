"""A thousand hostile inputs: a right answer or a documented exception; no NaN, no hang, and the process lives on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.errors import StructureError, TensorGraphError
from tensorgraph.model.batch import Batch, batch_structures
from tests.helpers import GENERATED, package

HIPNN = GENERATED / "hipnn"
DOCUMENTED = (StructureError, PropertyNotImplementedError)
EXTREMES = [0.0, -0.0, 1e-300, 1e-12, 1e-3, 0.5, 1.0, 7.5, 1e3, 1e6, 1e12, 1e13, 1e300, np.inf, -np.inf, np.nan]
SECONDS = 20.0  # far beyond what any of these structures needs, far below a hang
thousand = settings(max_examples=1000)

lengths = st.one_of(st.sampled_from(EXTREMES), st.floats(0.3, 30.0))
numbers = st.one_of(st.sampled_from([1, 6, 7, 8]), st.sampled_from([0, 2, 79, 118, -1, 400]))


def refusal(documented: tuple[type[Exception], ...], call: Callable[[], Any]) -> str:
    """The message of the documented exception that the call raises; empty where it gives an answer."""
    try:
        call()
    except documented as error:
        return str(error).strip() or pytest.fail(f"{type(error).__name__} without a message")
    return ""


@st.composite
def positions(draw: st.DrawFn, n_atoms: int) -> np.ndarray:
    """A cloud, needle, sheet or dust, with one atom in another's place or far away."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    extents = [draw(st.sampled_from([0.0, 1e-9, 2.0, 8.0, 50.0, 1e4, 1e9])) for _ in range(3)]
    found = random.uniform(-0.5, 0.5, (n_atoms, 3)) * extents
    if n_atoms:
        trouble, atom = draw(st.sampled_from(["none", "none", "double", "far", "extreme"])), draw(st.integers(0, 9))
        if trouble == "double":
            found[atom % n_atoms] = found[0]
        elif trouble == "far":
            found[atom % n_atoms] += 10.0 ** draw(st.integers(2, 14))
        elif trouble == "extreme":
            found[atom % n_atoms, draw(st.integers(0, 2))] = draw(st.sampled_from(EXTREMES))
    return found


@st.composite
def structures(draw: st.DrawFn) -> Atoms:
    n_atoms = draw(st.integers(0, 8))
    kind = draw(st.sampled_from(["orthorhombic", "orthorhombic", "triclinic", "flat", "none"]))
    cell = np.diag([draw(lengths) for _ in range(3)])
    if kind == "triclinic":
        cell = cell + np.array([[0, draw(lengths), 0], [0, 0, draw(lengths)], [0, 0, 0]])
    elif kind == "flat":
        cell[2] = cell[1]
    elif kind == "none":
        cell = np.zeros((3, 3))
    symbols = draw(st.lists(st.sampled_from([1, 6, 7, 8]), min_size=n_atoms, max_size=n_atoms))
    if n_atoms and draw(st.integers(0, 9)) == 0:
        symbols[0] = draw(numbers)
    atoms = Atoms(positions=draw(positions(n_atoms)), numbers=symbols, pbc=[draw(st.booleans()) for _ in range(3)])
    atoms.cell[:] = cell
    return atoms


@pytest.fixture(scope="module")
def calculator() -> TensorGraphCalculator:
    return TensorGraphCalculator(HIPNN)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@thousand
@given(atoms=structures(), properties=st.lists(st.sampled_from(["energy", "forces", "stress"]), unique=True))
def test_structures(calculator, atoms, properties):
    start = time.perf_counter()
    if refusal(DOCUMENTED, lambda: calculator.calculate(atoms, properties)):
        assert not calculator.results
    else:
        assert all(np.isfinite(value).all() for value in calculator.results.values())
        assert calculator.results["forces"].shape == (len(atoms), 3)
        assert np.abs(calculator.results["forces"].sum(axis=0)).max(initial=0) < 1e-6
        check_reversed(calculator, atoms)
    assert time.perf_counter() - start < SECONDS


def check_reversed(calculator: TensorGraphCalculator, atoms: Atoms) -> None:
    """The same atoms in another order, moved, have the same energy and forces.

    Far out, and in cells as large, moving them and wrapping them rounds.
    """
    if max(np.abs(atoms.positions).max(initial=0), np.abs(atoms.cell.array[atoms.pbc]).max(initial=0)) > 1e4:
        return
    expected = calculator.results
    other = atoms[::-1]
    other.positions += [3.0, -2.0, 1.0]
    calculator.calculate(other, ["energy"])
    found = calculator.results
    assert found["energy"] == pytest.approx(expected["energy"], rel=1e-8, abs=1e-8)
    np.testing.assert_allclose(found["forces"][::-1], expected["forces"], rtol=1e-6, atol=1e-6)


def real(*rows: Any, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(rows, dtype=dtype)


def whole(*rows: Any, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(rows, dtype=dtype)


APART = ([1.0, 0.0, 0.0], [-1.0, 0.0, 0.0])
TENSORS = {
    "numbers": [whole(1, 8), real(1, 8), whole(1, 99), whole()],
    "pairs": [
        whole([0, 1], [1, 0]),
        whole([0, 2], [2, 0]),
        whole([-1, 0], [0, 1]),
        whole([], []),
        whole(0, 0),
        whole([0, 1], [1, 0], dtype=torch.int32),
    ],
    "displacements": [
        real(*APART),
        real([0.0] * 3, [0.0] * 3),
        real([np.nan] * 3, [1.0] * 3),
        real([1e200] * 3, [-1e200] * 3),
        torch.zeros((0, 3), dtype=torch.float64),
        real(*APART, dtype=torch.float32),
        real(*APART, dtype=torch.bfloat16),
        real([1.0, 0.0], [-1.0, 0.0]),
    ],
    "structure": [None, whole(0, 0), whole(0, 1), whole(0, 7), whole(0, -1)],
    "n_structures": [1, 2, 0],
    "cutoff": [None, 6.5, 100.0, 1.0, float("nan")],
}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return package("hipnn").Model(seed=0).double().requires_grad_(False)


@thousand
@given(chosen=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in TENSORS.items()}))
def test_tensors(model, chosen: dict[str, Any]):
    found: list[torch.Tensor] = []
    if not refusal((ValueError, TypeError), lambda: found.extend(model.energy_and_forces(**chosen))):
        assert all(torch.isfinite(value).all() for value in found)


@thousand
@given(
    atoms=st.lists(structures(), max_size=3),
    cutoff=st.one_of(lengths, st.sampled_from([0, -1, True, "5", None, 5])),
    targets=st.booleans(),
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_batches(atoms, cutoff, targets):
    if isinstance(cutoff, float) and 30 < cutoff < np.inf:
        cutoff = 30.0  # memory is bounded by an error elsewhere
    start = time.perf_counter()
    found: list[Batch] = []
    documented = (StructureError, ValueError, TypeError)
    if not refusal(documented, lambda: found.append(batch_structures(atoms, cutoff, targets=targets))):
        assert found[0].n_structures == len(atoms)
        assert torch.isfinite(found[0].displacements).all()
    assert time.perf_counter() - start < SECONDS


WRONG: dict[str, list[Any]] = {
    "package_dir": [
        HIPNN,
        str(HIPNN),
        GENERATED / "nothing",
        GENERATED,
        __file__,
        "",
        None,
        3,
    ],
    "checkpoint": [None, __file__, GENERATED, "absent.safetensors", 3, [], b"x"],
    "device": ["cpu", torch.device("cpu"), "cuda:99", "meta", "toaster", None, 7.5],
    "dtype": ["float64", torch.float32, "float16", torch.int64, "double", None, 64],
    "model_path": ["trained.safetensors"],
    "cutoff": [6.0],
    "command": ["run"],
    "label": ["name"],
    "atoms": [None, Atoms("H"), Atoms("Au"), "H2O"],
}


@settings(max_examples=300)
@given(
    package_dir=st.sampled_from(WRONG["package_dir"]),
    others=st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in WRONG.items() if k != "package_dir"}),
)
def test_arguments_of_the_calculator(package_dir, others):
    documented = (TensorGraphError, ValueError, TypeError)
    calculators: list[TensorGraphCalculator] = []
    message = refusal(documented, lambda: calculators.append(TensorGraphCalculator(package_dir, **others)))
    right = {"device": 2, "dtype": 2, "checkpoint": 1, "label": 1, "atoms": 3}
    accepted = package_dir in WRONG["package_dir"][:2] and all(
        any(value is allowed for allowed in WRONG[name][: right.get(name, 0)]) for name, value in others.items()
    )
    assert accepted == (not message)
    assert len(message) < 400


@settings(max_examples=200)
@given(keyword=st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=12))
def test_unknown_keywords(calculator, keyword):
    assert keyword in ("atoms", "label", "directory", "package_dir", "checkpoint", "device", "dtype") or refusal(
        (TypeError,), lambda: TensorGraphCalculator(HIPNN, **{keyword: 1})
    )
    assert refusal((TypeError,), lambda: calculator.set(**{keyword: 1}))
    assert refusal((PropertyNotImplementedError,), lambda: calculator.calculate(Atoms("H"), [keyword])) or (
        keyword in calculator.implemented_properties
    )
