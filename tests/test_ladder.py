"""The ladder: every form of a program, from the graphs to the compiled targets, gives equal values and derivatives.

The first rung owes nothing to the compiler: one einsum for each graph of the basis, differentiated by PyTorch. On it
stand contraction program, scalar programs, PyTorch, Triton and C, in both precisions.
"""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tensorgraph.algebra import embedding
from tensorgraph.basis import Basis
from tensorgraph.compiler import Compilation, compile_spec
from tensorgraph.contractions.types import run as run_contractions
from tensorgraph.emit import emit_package, write_package
from tensorgraph.graphs import Kind
from tensorgraph.model import load_package
from tensorgraph.scalar import Instruction, Opcode, evaluate
from tensorgraph.spec import parse_spec
from tests.helpers import gpu

CHANNELS = (0, 1, 2, 31, 127, 128, 129)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
SPECS = {
    "hiphop5": "{family: hiphop, body_order: 5, max_rank: 3}",
    "flexible5": "{family: flexible, body_order: 5, max_rank: 3}",
    "rank4": "{family: flexible, body_order: 4, max_rank: 4}",
    "products": "{family: linear, body_order: 4, max_rank: 2}",
    "scalars": "{family: hiphop, body_order: 2, max_rank: 0}",
}
TARGETS = [
    pytest.param("torch", "cpu"),
    pytest.param("cpu", "cpu"),
    pytest.param(
        "triton", "cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="kernels compile for the GPU here")
    ),
    pytest.param("triton", "cuda", marks=gpu),
]
targets = pytest.mark.parametrize(("target", "device"), TARGETS)


class Arguments(NamedTuple):
    """Features, a cotangent of the invariants, and a cotangent of the gradient."""

    features: Tensor
    cotangent: Tensor
    second: Tensor


class Results(NamedTuple):
    """Values, gradient, and the two outputs of the double gradient."""

    values: Tensor
    gradient: Tensor
    grad_features: Tensor
    grad_cotangent: Tensor


def specification(name: str, basis: str) -> str:
    return f"name: {name}\nbasis: {basis}\n"


@pytest.fixture(scope="module", params=SPECS)
def compiled(request) -> Compilation:
    return compile_spec(parse_spec(specification(request.param, SPECS[request.param])))


@pytest.fixture(scope="module")
def package(compiled, tmp_path_factory):
    return load_package(write_package(compiled.package, tmp_path_factory.mktemp("ladder")))


def arguments(basis: Basis, atoms: int, channels: int, dtype: torch.dtype = torch.float64) -> Arguments:
    generator = torch.Generator().manual_seed(atoms + 10 * channels)
    sizes = (basis.components, len(basis), basis.components)
    return Arguments(*(torch.randn(atoms, size, channels, dtype=dtype, generator=generator) for size in sizes))


def first_rung(basis: Basis, given: Arguments) -> Results:
    """By einsum over full tensors, and autograd, in float64."""
    features, cotangent, second = (tensor.detach().clone().double().requires_grad_() for tensor in given)
    full = {
        Kind(rank): torch.einsum(
            "...m,imc->ic...", torch.tensor(embedding(rank).astype(float)), features[:, rank**2 : (rank + 1) ** 2]
        )
        for rank in range(basis.max_rank + 1)
    }
    columns = []
    for invariant in basis.invariants:
        operands = invariant.graph.einsum.removesuffix("->").split(",")
        equation = ",".join(f"YZ{letters}" for letters in operands) + "->YZ"
        columns.append(torch.einsum(equation, *(full[kind] for kind in invariant.graph.kinds)))
    values = torch.stack(columns, dim=1)
    (gradient,) = torch.autograd.grad(values, features, cotangent, create_graph=True)
    both = torch.autograd.grad(gradient, (features, cotangent), second, allow_unused=True, materialize_grads=True)
    return Results(values.detach(), gradient.detach(), *both)


def of_programs(programs, given: Arguments) -> Results:
    """What the three functions of a module or namespace give."""
    forward, backward, double_backward = programs
    return Results(forward(given[0]), backward(*given[:2]), *double_backward(*given))


def assert_equal(found: Results, expected: Results, tolerance: float) -> None:
    """Within the tolerance of the largest of each column."""
    for name, ours, theirs in zip(Results._fields, found, expected, strict=True):
        assert ours.shape == theirs.shape, name
        scale = theirs.abs().amax(dim=(0, 2), keepdim=True) if theirs.numel() else torch.ones(1)
        difference = (ours.double().cpu() - theirs).abs() / scale.clamp(min=1e-300)
        assert not difference.numel() or float(difference.max()) <= tolerance, f"{name}: {float(difference.max())}"


def programs_of(package, target: str) -> Sequence[Callable]:
    """The three functions of a target, as a package holds them."""
    if target == "cpu":
        programs = importlib.import_module(f"{package.__name__}.invariants").PROGRAMS
        native = importlib.import_module(f"{package.__name__}._runtime.native")
        for name in ("forward", "backward", "double_backward"):
            found = native.available(programs.source, name, torch.float64)
            assert found, "no C compiler here: the rung would be PyTorch's"
        return programs.forward, programs.backward, programs.double_backward
    if target == "triton":
        pytest.importorskip("triton", reason="triton is not installed on this platform")
    module = importlib.import_module(f"{package.__name__}.invariants_{target}")
    return module.forward, module.backward, module.double_backward


def test_contraction_program(compiled):
    given = arguments(compiled.basis, 3, 2)
    expected = first_rung(compiled.basis, given).values
    for atom, channel in np.ndindex(3, 2):
        vector = given.features[atom, :, channel].numpy()
        tensors = {
            Kind(rank): embedding(rank).astype(float) @ vector[rank**2 : (rank + 1) ** 2]
            for rank in range(compiled.basis.max_rank + 1)
        }
        found = [float(value) for value in run_contractions(compiled.contractions, tensors)]
        np.testing.assert_allclose(found, expected[atom, :, channel].numpy(), rtol=1e-12, atol=1e-12)


def test_scalar_programs(compiled):
    given = arguments(compiled.basis, 3, 2)
    arrays = {
        name: list(tensor.numpy().swapaxes(0, 1))
        for name, tensor in zip(("features", "grad_invariants", "grad_grad_features"), given, strict=True)
    }
    zero = np.zeros((3, 2))
    results = []
    for program in compiled.scalars:
        found = evaluate(program, {array.name: arrays[array.name] for array in program.inputs})
        results += [np.stack([zero + element for element in elements], axis=1) for elements in found.values()]
    assert_equal(Results(*map(torch.from_numpy, results)), first_rung(compiled.basis, given), 1e-12)


@targets
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("channels", CHANNELS)
def test_targets(compiled, package, target, device, dtype, channels):
    for atoms in (0, 1, 3):
        given = arguments(compiled.basis, atoms, channels, dtype)
        moved = Arguments(*(tensor.to(device) for tensor in given))
        found = of_programs(programs_of(package, target), moved)
        assert all(result.dtype == dtype for result in found)
        assert_equal(found, first_rung(compiled.basis, given), TOLERANCE[dtype])


@targets
def test_any_layout(compiled, package, target, device):
    """Permuted strides, and a cotangent that is one number everywhere."""
    plain = arguments(compiled.basis, 4, 33)
    given = Arguments(
        plain.features.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        torch.ones((), dtype=torch.float64).expand(plain.cotangent.shape),
        plain.second[:1].expand(plain.second.shape),
    )
    found = of_programs(programs_of(package, target), Arguments(*(tensor.to(device) for tensor in given)))
    assert_equal(found, first_rung(compiled.basis, given), 1e-12)


@targets
def test_a_wrong_coefficient_is_found(tmp_path, target, device):
    """The ladder can fail: each program of each target with one sign changed."""
    compiled = compile_spec(parse_spec(specification("mutant", SPECS["rank4"])))
    given = arguments(compiled.basis, 2, 3)
    moved = Arguments(*(tensor.to(device) for tensor in given))
    expected = first_rung(compiled.basis, given)
    for changed in range(3):
        package = load_package(write_package(mutant(compiled, changed), tmp_path / str(changed)))
        with pytest.raises(AssertionError):
            assert_equal(of_programs(programs_of(package, target), moved), expected, TOLERANCE[torch.float32])


def mutant(compiled: Compilation, changed: int):
    """The package with the middle one of a program's additions turned into a subtraction."""
    line = compiled.instructions[changed]
    turned = {Opcode.ADD: Opcode.SUBTRACT, Opcode.MULTIPLY_ADD: Opcode.MULTIPLY_SUBTRACT}
    places = [k for k, item in enumerate(line.body) if isinstance(item, Instruction) and item.opcode in turned]
    place = places[len(places) // 2]
    body = list(line.body)
    body[place] = dataclasses.replace(body[place], opcode=turned[body[place].opcode])
    field = compiled.instructions._fields[changed]
    programs = compiled.instructions._replace(**{field: dataclasses.replace(line, body=tuple(body))})
    bases = (dataclasses.replace(compiled.bases[0], instructions=programs), *compiled.bases[1:])
    return emit_package(compiled.spec, bases, compiled.programs, compiled.network)
