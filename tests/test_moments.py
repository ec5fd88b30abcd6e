"""Moments of the neighbours of each kind: values and derivatives of every order against an einsum over all pairs."""

import itertools
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from generated import hiphop5
from tensorgraph.compiler import compile_spec
from tensorgraph.emit import emit_package, write_package
from tensorgraph.model import load_package
from tensorgraph.network.hiphop import INTERACTIONS, hiphop
from tensorgraph.network.orders import Order, contracted_in_order
from tensorgraph.runtime import grouping, moments
from tensorgraph.spec import load_spec
from tests.helpers import (
    TOLERANCE,
    assert_close,
    assert_equal_bits,
    backends,
    chosen_backend,
    double,
    quiet,
    values_and_derivatives,
    with_threads,
)

ROOT = Path(__file__).parents[1]
COLUMNS = ((16, 20), (1, 5), (4, 1), (9, 17), (25, 33))
"""Components and functions."""
KINDS = (1, 4, 11)
SYSTEMS = {
    "no atoms": (0, 0),
    "no pairs": (5, 0),
    "one atom": (1, 4),
    "one pair": (3, 1),
    "three atoms": (3, 4),
    "few": (11, 90),
    "many": (3, 1100),
}
"""Atoms and pairs."""


class Case(NamedTuple):
    """Sorted pairs, what the operator takes, and a cotangent."""

    index: NamedTuple
    kinds: Tensor
    n_kinds: int
    tensors: Tensor
    sensitivities: Tensor
    grad: Tensor


def case(name: str, columns: tuple[int, int] = (16, 20), n_kinds: int = 4, dtype: torch.dtype = torch.float64) -> Case:
    """Some atoms have no kind."""
    n_atoms, n_pairs = SYSTEMS[name]
    generator = torch.Generator().manual_seed(n_pairs)
    # The last atom has no neighbours.
    ends = torch.randint(0, max(1, n_atoms - 1), (2, n_pairs), generator=generator)
    ends[0] = ends[0].sort().values
    kinds = torch.randint(-1, n_kinds + 1, (n_atoms,), generator=generator)
    components, functions = columns
    shapes = [(n_pairs, components), (n_pairs, functions), (n_atoms, components, n_kinds, functions)]
    index = grouping.PairGroups.of(ends, n_atoms).index
    return Case(index, kinds, n_kinds, *(torch.randn(s, generator=generator, dtype=dtype) for s in shapes))


def reference(given: Case, tensors: Tensor, sensitivities: Tensor) -> Tensor:
    kinds = given.kinds[given.index.source]
    one_hot = (kinds[:, None] == torch.arange(given.n_kinds)).to(tensors.dtype)
    products = torch.einsum("pm,pk,pf->pmkf", tensors, one_hot, sensitivities)
    return torch.zeros_like(given.grad, dtype=tensors.dtype).index_add(0, given.index.target, products)


def ours(given: Case, tensors: Tensor, sensitivities: Tensor) -> Tensor:
    return moments.moments(tensors, sensitivities, given.kinds, given.n_kinds, given.index)


def results(function, given: Case, order: int) -> list[Tensor]:
    return values_and_derivatives(partial(function, given), given[3:5], order, given.grad)


@pytest.fixture
def backend_of(monkeypatch):
    programs = {"moments", "moments_backward", "moments_double_backward"}
    yield from chosen_backend(monkeypatch, programs)


@backends
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_of_all_sizes(backend_of, backend, name, dtype):
    backend_of(backend)
    given = case(name, dtype=dtype)
    assert_close(results(ours, given, 2), results(reference, double(given), 2), TOLERANCE[dtype])


@backends
@pytest.mark.parametrize("n_kinds", KINDS)
@pytest.mark.parametrize("columns", COLUMNS, ids=str)
def test_columns_and_kinds_of_all_numbers(backend_of, backend, columns, n_kinds):
    backend_of(backend)
    given = case("few", columns, n_kinds)
    assert_close(results(ours, given, 2), results(reference, given, 2), 1e-12)


@backends
def test_third_and_fourth_derivatives(backend_of, backend):
    backend_of(backend)
    given = case("few", (4, 5), 3)
    assert_close(results(ours, given, 4), results(reference, given, 4), 1e-12)


@backends
def test_finite_differences(backend_of, backend):
    backend_of(backend)
    given = case("three atoms", (4, 3), 2)._replace(kinds=torch.tensor([1, 0, 2]))
    inputs = tuple(tensor.clone().requires_grad_() for tensor in given[3:5])
    assert torch.autograd.gradcheck(lambda *tensors: ours(given, *tensors), inputs)
    assert torch.autograd.gradgradcheck(lambda *tensors: ours(given, *tensors), inputs)


def test_hessian_is_symmetric():
    given = case("few", (4, 2), 3)
    sizes = [tensor.numel() for tensor in given[3:5]]

    def energy(flat: Tensor) -> Tensor:
        parts = [part.view_as(like) for part, like in zip(flat.split(sizes), given[3:5], strict=True)]
        return (ours(given, *parts) * given.grad).sin().sum()

    hessian = torch.autograd.functional.hessian(energy, torch.cat([tensor.flatten() for tensor in given[3:5]]))
    assert float(hessian.abs().max()) > 0.1
    torch.testing.assert_close(hessian, hessian.T, rtol=0, atol=1e-13 * float(hessian.abs().max()))


@backends
def test_any_layout(backend_of, backend):
    backend_of(backend)
    given = case("few")
    strided = given._replace(
        tensors=given.tensors.t().contiguous().t(),
        sensitivities=given.sensitivities.repeat(1, 2)[:, ::2][:, :20],
        grad=torch.ones((), dtype=torch.float64).expand(given.grad.shape),
    )
    assert_close(results(ours, strided, 2), results(reference, strided, 2), 1e-12)


def test_number_of_threads_changes_no_bit():
    given = case("many", dtype=torch.float32)
    assert_equal_bits(*with_threads((1, 2, 5), lambda: results(ours, given, 2)))


@pytest.mark.parametrize("summed", [*itertools.permutations([1.0, 1e16, -1e16])], ids=str)
def test_sums_over_the_pairs_of_an_atom_are_taken_in_their_order(backend_of, summed):
    """Another order would give another number; so too for the sum in the double backward."""
    backend_of("native")
    expected = (summed[0] + summed[1]) + summed[2]
    index = grouping.PairGroups.of(torch.tensor([[0, 0, 0], [1, 0, 1]]), 2).index
    tensors, ones = (torch.tensor(x, dtype=torch.float64).view(3, 1) for x in (summed, (1.0, 1.0, 1.0)))
    inputs = tensors.requires_grad_(), ones.requires_grad_()
    values = moments.moments(*inputs, torch.zeros(2, dtype=torch.int64), 1, index)
    assert values[0].item() == expected
    cotangent = torch.ones_like(values).requires_grad_()
    slopes = torch.autograd.grad(values, inputs, cotangent, create_graph=True)
    (change,) = torch.autograd.grad((slopes[0] * tensors.detach()).sum(), cotangent)
    assert change[0].item() == expected


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_order_of_pairs_changes_no_bit(backend_of, dtype):
    """Pairs of an atom keep theirs; those of different kinds may change places."""
    backend_of("native")
    given = case("few", dtype=dtype)
    source = given.index.source
    order = torch.argsort(given.index.target * 10 + given.kinds[source], stable=True)
    assert not torch.equal(order, torch.arange(len(order)))
    changed = given._replace(index=given.index._replace(source=source[order]), tensors=given.tensors[order],
                             sensitivities=given.sensitivities[order])  # fmt: skip
    found = []
    for each in (changed, given):
        inputs = [tensor.clone().requires_grad_() for tensor in each[3:5]]
        values = ours(each, *inputs)
        slopes = torch.autograd.grad(values, inputs, each.grad + values.square(), create_graph=True)
        changes = torch.autograd.grad(sum(slope.square().sum() for slope in slopes), inputs)
        found.append([values, *slopes, *changes])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b[order] if len(b) == len(order) else b)


def test_wrong_inputs_never_reach_the_programs():
    given = case("few")
    with pytest.raises(ValueError, match=r"moments needs \[90, 16\], not \[89, 16\]"):
        ours(given, given.tensors[1:], given.sensitivities)
    with pytest.raises(TypeError, match="one of float32 and float64"):
        ours(given, given.tensors.float(), given.sensitivities)
    with pytest.raises(TypeError, match="int64 index"):
        ours(given._replace(kinds=given.kinds.int()), given.tensors, given.sensitivities)
    with pytest.raises(ValueError, match=r"starts of \[11\], not \[12\]"):
        ours(given._replace(kinds=given.kinds[1:]), given.tensors, given.sensitivities)
    index = given.index
    with pytest.raises(ValueError, match=r"index of \[90\], not \[89\]"):
        ours(given._replace(index=index._replace(source=index.source[1:])), given.tensors, given.sensitivities)
    with pytest.raises(ValueError, match=r"index of \[90\], not \[90, 1\]"):
        ours(given._replace(index=index._replace(target=index.target[:, None])), given.tensors, given.sensitivities)
    for starts in (index.target_starts - 1, index.target_starts + 1):
        with pytest.raises(ValueError, match=r"starts that end with 90, the number of pairs, not (89|91)"):
            ours(given._replace(index=index._replace(target_starts=starts)), given.tensors, given.sensitivities)
    wrong = given._replace(index=index._replace(target_starts=index.target_starts.view(3, 4)))
    with pytest.raises(ValueError, match=r"starts of \[12\], not \[3, 4\]"):
        ours(wrong, given.tensors, given.sensitivities)
    with pytest.raises(TypeError, match="int64 index on cpu"):
        moments._moments(*given[3:5], 4, index.target.to("meta"), index.source, index.target_starts, given.kinds)


@quiet
def test_registrations_are_sound():
    """PyTorch's own checks: schema, fake tensors, autograd registration, ahead-of-time dispatch."""
    given = case("few", (4, 3), 2)
    pairs = (given.index.target, given.index.source, given.index.target_starts, given.kinds)
    first = [tensor.clone().requires_grad_() for tensor in given[3:]]
    second = [torch.randn_like(tensor).requires_grad_() for tensor in given[3:5]]
    torch.library.opcheck(moments._moments_operator, (*first[:2], 2, *pairs))
    torch.library.opcheck(moments._backward_operator, (*first, *pairs))
    torch.library.opcheck(moments._double_backward_operator, (*first, *second, *pairs))


@quiet
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_into_one_graph(backend, dynamic):
    compiled = torch.compile(moments.moments, fullgraph=True, backend=backend, dynamic=dynamic)
    for name in ("few", "many", "one atom", "no pairs"):
        given, found = case(name), []
        for function in (compiled, moments.moments):
            inputs = [tensor.clone().requires_grad_() for tensor in given[3:5]]
            values = function(*inputs, given.kinds, given.n_kinds, given.index)
            found.append([values, *torch.autograd.grad(values.square().sum(), inputs)])
        torch.testing.assert_close(*found, rtol=0, atol=0)


class Exported(torch.nn.Module):
    def forward(self, tensors: Tensor, sensitivities: Tensor, kinds: Tensor, index: tuple[Tensor, ...]) -> Tensor:
        return moments.moments(tensors, sensitivities, kinds, 4, grouping.PairIndex(*index))


RELOADED = """
import sys
import torch
from tests.test_moments import case, ours
loaded = torch.export.load(sys.argv[1]).module()
for name in ("few", "no pairs", "one pair", "many", "no atoms", "one atom"):
    given, found = case(name), []
    for whole in (False, True):
        inputs = [tensor.clone().requires_grad_() for tensor in given[3:5]]
        values = ours(given, *inputs) if whole else loaded(*inputs, given.kinds, tuple(given.index))
        slopes = torch.autograd.grad(values.square().sum(), inputs, create_graph=True)
        found.append([values, *slopes, *torch.autograd.grad(sum(s.square().sum() for s in slopes), inputs)])
    torch.testing.assert_close(*found, rtol=0, atol=0)
"""


@quiet
@pytest.mark.usefixtures("fresh_compiler")
def test_exported_and_reloaded_in_another_process(tmp_path):
    """With other numbers of atoms and pairs, none and one too; derivatives are those of the operators, to the bit."""
    given, some = case("few"), {0: torch.export.Dim.DYNAMIC}
    shapes = (some, some, some, tuple(some for _ in given.index))
    arguments = (*given[3:5], given.kinds, tuple(given.index))
    exported = torch.export.export(Exported(), arguments, dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "moments.pt2")
    command = [sys.executable, "-c", RELOADED, str(tmp_path / "moments.pt2")]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120)


def in_order(order: Order, folder: Path) -> torch.nn.Module:
    """A model of hiphop5, its first interaction contracted in this order; seed 1."""
    compiled = compile_spec(load_spec("specs/hiphop5.yaml"))
    assert compiled.layers[0].chosen.order is Order.NEIGHBOURS_FIRST
    network = hiphop(compiled.spec.network, compiled.basis.max_rank, compiled.scalars)
    ordered = contracted_in_order(network, {INTERACTIONS[0]: order, INTERACTIONS[1]: Order.WEIGHTS_FIRST})
    package = emit_package(compiled.spec, compiled.bases, compiled.programs, ordered)
    return load_package(write_package(package, folder)).Model(seed=1).double()


def test_both_orders_of_the_first_layer_give_the_same_network(tmp_path):
    """Energies, forces and the slope of a loss on forces with respect to all weights."""
    generator = torch.Generator().manual_seed(3)
    numbers = torch.tensor([1, 6, 7, 8])[torch.randint(0, 4, (12,), generator=generator)]
    positions = 2.5 * torch.rand(12, 3, generator=generator, dtype=torch.float64)
    pairs = torch.stack(torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")).flatten(1)
    pairs = pairs[:, pairs[0] != pairs[1]]
    displacements = positions[pairs[1]] - positions[pairs[0]]
    models = [hiphop5.Model(seed=1).double(), *(in_order(order, tmp_path / order.name) for order in Order)]
    texts = [Path(sys.modules[type(model).__module__].__file__).read_text(encoding="utf-8") for model in models]
    assert texts[0] == texts[1 + [*Order].index(Order.NEIGHBOURS_FIRST)]
    assert texts[1].count("moments(") < texts[2].count("moments(")
    found = []
    for model in models:
        result = model.energy_and_forces(numbers, pairs, displacements, create_graph=True)
        slopes = torch.autograd.grad(result.forces.square().sum() + result.energy.sum(), [*model.parameters()],
                                     allow_unused=True, materialize_grads=True)  # fmt: skip
        found.append([value.detach() for value in (result.energy, result.forces, *slopes)])
    for other in found[1:]:
        assert_close(found[0], other, 1e-11)
