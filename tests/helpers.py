"""What several test modules share: packages, structures, sums over images, comparisons of operators, compilers."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import Tensor

from tensorgraph.battery.switching import runtime_modules
from tensorgraph.compiler import Compilation, compile_spec, with_network
from tensorgraph.emit.writing import write_package
from tensorgraph.model.batch import Batch, batch_structures
from tensorgraph.model.loading import load_package
from tensorgraph.scalar import Opcode, Store, StraightLine
from tensorgraph.scalar.functions import FUNCTIONS
from tensorgraph.spec import load_spec, parse_spec

GENERATED = Path(__file__).parents[1] / "generated"
WITH_NETWORK = ("hiphop5", "hiphop4", "flexible5", "hipnn")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
"""Of an operator's values and its first two derivatives, each relative to its largest number."""

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
gpu = [pytest.mark.gpu, needs_gpu]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])
backends = pytest.mark.parametrize("backend", ["native", "pytorch"])
# PyTorch's own compiler still uses what PyTorch has deprecated.
quiet = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def package(name: str) -> ModuleType:
    """The committed package `name`."""
    return load_package(GENERATED / name)


def build(out: Path, **sensitivity: float) -> Path:
    """A small package `rebuilt` under `out`: of hipnn's spec, but with other values of its sensitivities."""
    text = (GENERATED / "hipnn" / "spec.yaml").read_text()
    spec = parse_spec(text.replace("name: hipnn", "name: rebuilt").replace("features: 128", "features: 8"))
    assert spec.network is not None
    changed = spec.network.sensitivity.model_copy(update=sensitivity)
    spec = spec.model_copy(update={"network": spec.network.model_copy(update={"sensitivity": changed})})
    return write_package(compile_spec(spec).package, out)


@functools.cache
def compiled(name: str) -> Compilation:
    """Every stage of a shipped spec."""
    return compile_spec(load_spec(GENERATED / name / "spec.yaml"))


@functools.cache
def variant(name: str, functions: int = 20, **network: Any) -> ModuleType:
    """The package `name` with other sizes or options of its network, and the same invariants; made once."""
    known = compiled(name)
    assert known.spec.network is not None
    sensitivity = known.spec.network.sensitivity.model_copy(update={"functions": functions})
    changed = known.spec.network.model_copy(update=network | {"sensitivity": sensitivity})
    folder = tempfile.mkdtemp(prefix="variant-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return load_package(write_package(with_network(known, changed).package, Path(folder)))


def small_model(module: ModuleType, seed: int = 0, **network: Any) -> torch.nn.Module:
    """A float64 model with few features, all of whose parameters (biases included) are random."""
    small = variant(module.architecture.NAME, **{"features": 6, "functions": 5, "atom_layers": 1, **network})
    model = small.Model(seed=seed).double()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.1 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
            if not parameter.any():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return model


def batch_of(module: ModuleType, *structures: Atoms, dtype: torch.dtype = torch.float64) -> Batch:
    """The structures as input of the package's model."""
    return batch_structures(structures, module.architecture.CUTOFF, dtype)


def molecule(n_atoms: int, seed: int, symbols: str = "HCNO", spread: float = 1.1) -> Atoms:
    """Random atoms of the given species at least 0.8 Å apart, at a density of about one per (spread Å)³."""
    random = np.random.default_rng(seed)
    side = spread * n_atoms ** (1 / 3) + 0.5
    positions: list[np.ndarray] = []
    while len(positions) < n_atoms:
        candidate = random.uniform(0, side, 3)
        if all(np.linalg.norm(candidate - other) > 0.8 for other in positions):
            positions.append(candidate)
        side *= 1.01  # so that a crowded box cannot go on for ever
    return Atoms(random.choice(list(symbols), n_atoms), positions)


def crystal(seed: int, pbc: tuple[bool, bool, bool] = (True, True, True), n_atoms: int = 2) -> Atoms:
    """Random atoms in a random triclinic cell that is smaller than the cutoffs of the packages."""
    random = np.random.default_rng(seed)
    cell = np.diag(random.uniform(2.5, 4.0, 3)) + random.uniform(-0.7, 0.7, (3, 3))
    fractions = (np.arange(n_atoms)[:, None] + random.uniform(0, 0.3, (n_atoms, 3))) / n_atoms
    return Atoms(random.choice(list("HCNO"), n_atoms), scaled_positions=fractions, cell=cell, pbc=pbc)


def naive_pairs(atoms: Atoms, cutoff: float) -> list[tuple[int, int, tuple[float, ...]]]:
    """Sorted (i, j, displacement rounded to 1e-6 Å) of every pair within the cutoff, by a sum over all images."""
    reach = [_images(atoms, axis, cutoff) for axis in np.flatnonzero(atoms.pbc)]
    shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    offsets = shifts.reshape(len(shifts), len(reach)) @ atoms.cell.array[atoms.pbc]
    found = []
    for i, j in itertools.product(range(len(atoms)), repeat=2):
        displacements = atoms.positions[j] + offsets - atoms.positions[i]
        near = np.linalg.norm(displacements, axis=1) <= cutoff
        if i == j:
            near &= shifts.any(axis=1)
        found += [(i, j, tuple(d)) for d in (np.round(displacements[near], 6) + 0.0).tolist()]
    return sorted(found)


def _images(atoms: Atoms, axis: int, cutoff: float) -> int:
    """Enough images along one periodic axis: the extent of the atoms and the cutoff over the height of the cell."""
    vectors = atoms.cell.array[atoms.pbc]
    height = 1 / np.linalg.norm(np.linalg.pinv(vectors)[:, int(atoms.pbc[:axis].sum())])
    extent = np.linalg.norm(np.ptp(atoms.positions, axis=0))
    return int(np.ceil((cutoff + extent) / height)) + 1


def values_and_derivatives(
    function: Callable[..., Tensor], inputs: Iterable[Tensor], order: int, cotangent: Tensor | None = None
) -> list[Tensor]:
    """Values and derivatives up to an order, each with respect to all inputs; cotangents are random but for the first
    where it is given."""
    generator = torch.Generator().manual_seed(0)

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    found = [function(*inputs)]
    weight = random(found[0]) if cotangent is None else cotangent.to(found[0])
    # What the cotangent of the values is made of depends on the inputs too: all mixed derivatives count.
    slope = (found[0] * weight).sum() + found[0].square().sum() / 20
    for level in range(order):
        grads = torch.autograd.grad(slope, inputs, create_graph=level + 1 < order, materialize_grads=True)
        found += grads
        slope = sum((grad * random(grad)).sum() for grad in grads)
    return [value.detach().cpu() for value in found]


def double(given: tuple) -> Any:
    """A named tuple with its real tensors in double precision."""
    exact = (x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in given)
    return type(given)(*exact)


def assert_close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Within the tolerance of the largest number of each result."""
    for level, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape
        scale = float(b.abs().max()) if b.numel() else 0.0
        assert not a.numel() or float((a.double() - b).abs().max()) <= tolerance * scale, f"result {level}"


def assert_equal_bits(first: Sequence[Tensor], *others: Sequence[Tensor]) -> None:
    """Of all numbers of results that were found in several ways."""
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def chosen_backend(monkeypatch: pytest.MonkeyPatch, names: set[str]) -> Iterator[Callable]:
    """Chooses what runs the programs of these names, and makes sure in the end that it ran all of them.

    In every copy of the runtime: operators are shared, and belong to the one that was imported first.
    """
    ran: dict[str, set[bool]] = {}
    chosen = []

    def choose(backend: str) -> None:
        chosen.append(backend)
        for native in runtime_modules("native"):

            def recorded(source: object, name: str, *arguments: Any, run=native.run, **macros: int) -> bool:
                done = backend == "native" and run(source, name, *arguments, **macros)
                ran.setdefault(name, set()).add(done)
                return done

            monkeypatch.setattr(native, "run", recorded)

    yield choose
    for backend in chosen:
        assert {name: ran.get(name) for name in names} == {name: {backend == "native"} for name in names}


def with_threads(counts: Iterable[int], function: Callable[[], Any]) -> list[Any]:
    """The function's results with these numbers of threads."""
    before, found = torch.get_num_threads(), []
    try:
        for count in counts:
            torch.set_num_threads(count)
            found.append(function())
    finally:
        torch.set_num_threads(before)
    return found


def counting_compiler(folder: Path, before: str = "") -> tuple[str, Path]:
    """A compiler that writes down each use, and the file where it does; `before` may do something else instead."""
    script, log = folder / "counting-cc", folder / "uses"
    real = shutil.which(os.environ.get("CC", "cc"))
    script.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\n{before}\nexec {real} "$@"\n')
    script.chmod(0o755)
    return str(script), log


def empty_cache(libraries: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder for a package's libraries, in a process that has not warned of, nor given up, any compiler."""
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(libraries, "_cache", lambda: folder)
    monkeypatch.setattr(libraries, "_said", set())
    monkeypatch.setattr(libraries, "_given_up", {})
    return folder


def uses(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def library_in(cache: Path) -> Path:
    (found,) = cache.glob("*.so")
    return found


def put(path: Path, content: bytes) -> None:
    """A new file in place of another: this process has the other one's pages in memory."""
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o600)


def execute(line: StraightLine, arrays: dict[str, list[Fraction]]) -> dict[str, list[Fraction]]:
    """An interpreter of instructions, apart from the emitters."""
    values: dict[int, Fraction] = {}
    results = {array.name: [Fraction(0)] * array.size for array in line.outputs}
    for item in line.body:
        if isinstance(item, Store):
            results[item.array][item.index] = Fraction(0) if item.target is None else values[item.target]
            continue
        a, b, c = (*[values[operand] for operand in item.operands], 0, 0, 0)[:3]
        values[item.target] = {
            Opcode.LOAD: lambda i=item: arrays[i.source.array][i.source.index],
            Opcode.CONSTANT: lambda i=item: i.constant,
            Opcode.MULTIPLY: lambda a=a, b=b: a * b,
            Opcode.SCALE: lambda a=a, i=item: i.constant * a,
            Opcode.ADD: lambda a=a, b=b: a + b,
            Opcode.SUBTRACT: lambda a=a, b=b: a - b,
            Opcode.MULTIPLY_ADD: lambda a=a, b=b, c=c: a + b * c,
            Opcode.MULTIPLY_SUBTRACT: lambda a=a, b=b, c=c: a - b * c,
            Opcode.APPLY: lambda a=a, i=item: FUNCTIONS[i.function].evaluate(a),
        }[item.opcode]()
    return results
