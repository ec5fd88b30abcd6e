"""The pair operators: values and derivatives of every order against an einsum over all pairs, and to the bit."""

import itertools
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from generated import hiphop4
from tensorgraph.runtime import grouping, pairs
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
CHANNELS = (0, 1, 7, 31, 127, 128, 129)
COLUMNS = ((16, 20), (1, 5), (4, 1), (9, 17))
"""Components and functions."""
SYSTEMS = {
    "no atoms": (0, 0, "random"),
    "no pairs": (5, 0, "random"),
    "one atom": (1, 3, "random"),
    "one pair": (3, 1, "random"),
    "five pairs": (3, 5, "random"),
    "few neighbours": (11, 90, "random"),
    "atoms without neighbours": (40, 60, "clustered"),
    "a thousand neighbours of one atom": (12, 2200, "hub"),
}


class Case(NamedTuple):
    """Pairs in no order, what the operator takes in that order, and cotangents up to the double backward."""

    ends: Tensor
    tensors: Tensor
    sensitivities: Tensor
    weighted: Tensor
    grad: Tensor

    @property
    def groups(self):
        return grouping.PairGroups.of(self.ends, self.weighted.shape[0])


def case(name: str, channels: int = 7, columns: tuple[int, int] = (16, 20), dtype: torch.dtype = torch.float64) -> Case:
    n_atoms, n_pairs, kind = SYSTEMS[name]
    generator = torch.Generator().manual_seed(n_pairs + channels)
    ends = torch.randint(0, max(1, n_atoms // 4 if kind == "clustered" else n_atoms), (2, n_pairs), generator=generator)
    if kind == "hub":
        ends[0, :1000], ends[1, 1000:2000] = 3, 7
        ends = ends[:, torch.randperm(n_pairs, generator=generator)]
    components, functions = columns
    shapes = [(n_pairs, components), (n_pairs, functions), (n_atoms, functions, channels)]
    shapes.append((n_atoms, components, channels))
    return Case(ends, *(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes))


def reference(given: Case, tensors: Tensor, sensitivities: Tensor, weighted: Tensor) -> Tensor:
    """One einsum over all pairs in the order in which they are given."""
    target, source = given.ends
    messages = torch.einsum("pm,pf,pfa->pma", tensors, sensitivities, weighted[source])
    return torch.zeros_like(given.grad, dtype=tensors.dtype).index_add(0, target, messages)


def ours(given: Case, tensors: Tensor, sensitivities: Tensor, weighted: Tensor) -> Tensor:
    groups = given.groups
    return pairs.environment(groups.sort(tensors), groups.sort(sensitivities), weighted, groups.index)


def results(function, given: Case, order: int) -> list[Tensor]:
    return values_and_derivatives(partial(function, given), given[1:4], order, given.grad)


@pytest.fixture
def backend_of(monkeypatch):
    programs = {"environment", "environment_backward", "environment_double_backward"}
    yield from chosen_backend(monkeypatch, programs)


def test_a_thousand_neighbours_are_a_thousand():
    index = case("a thousand neighbours of one atom").groups.index
    assert min(int(starts.diff().max()) for starts in (index.target_starts, index.source_starts)) >= 1000


@backends
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_of_all_sizes(backend_of, backend, name, dtype):
    backend_of(backend)
    given = case(name, dtype=dtype)
    assert_close(results(ours, given, 2), results(reference, double(given), 2), TOLERANCE[dtype])


@backends
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("channels", CHANNELS)
def test_channels_of_all_numbers(backend_of, backend, channels, dtype):
    backend_of(backend)
    given = case("few neighbours", channels, dtype=dtype)
    assert_close(results(ours, given, 2), results(reference, double(given), 2), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("columns", COLUMNS, ids=str)
def test_components_and_functions_of_all_numbers(backend_of, columns, dtype):
    backend_of("native")
    given = case("few neighbours", 19, columns, dtype)
    assert_close(results(ours, given, 2), results(reference, double(given), 2), TOLERANCE[dtype])


@backends
def test_third_and_fourth_derivatives(backend_of, backend):
    backend_of(backend)
    given = case("few neighbours", 3, (4, 5))
    assert_close(results(ours, given, 4), results(reference, given, 4), 1e-12)


@backends
def test_finite_differences(backend_of, backend):
    backend_of(backend)
    given = case("five pairs", 2, (4, 3))
    assert not torch.equal(*given.ends)
    inputs = tuple(tensor.clone().requires_grad_() for tensor in given[1:4])
    assert torch.autograd.gradcheck(lambda *tensors: ours(given, *tensors), inputs)
    assert torch.autograd.gradgradcheck(lambda *tensors: ours(given, *tensors), inputs)


def test_hessian_is_symmetric():
    given = case("one pair", 3, (4, 2))
    sizes = [tensor.numel() for tensor in given[1:4]]

    def energy(flat: Tensor) -> Tensor:
        parts = [part.view_as(like) for part, like in zip(flat.split(sizes), given[1:4], strict=True)]
        return (ours(given, *parts) * given.grad).sin().sum()

    flat = torch.cat([tensor.flatten() for tensor in given[1:4]])
    hessian = torch.autograd.functional.hessian(energy, flat)
    assert float(hessian.abs().max()) > 0.1
    torch.testing.assert_close(hessian, hessian.T, rtol=0, atol=1e-13 * float(hessian.abs().max()))


def permuted(given: Case, order: Tensor) -> Case:
    return Case(given.ends[:, order], given.tensors[order], given.sensitivities[order], *given[3:])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_order_of_pairs_changes_no_bit(dtype):
    """Any permutation that keeps, for each atom, the order of its pairs and of those of which it is the neighbour."""
    given = case("few neighbours", 33, dtype=dtype)
    order = topological_shuffle(given.ends, torch.Generator().manual_seed(1))
    assert not torch.equal(order, torch.arange(len(order)))
    found, expected = results(ours, permuted(given, order), 1), results(ours, given, 1)
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(a, b[order] if number in (1, 2) else b)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_order_of_pairs_changes_no_bit_of_second_derivatives(backend_of, dtype):
    backend_of("native")
    given = case("few neighbours", 33, dtype=dtype)
    order = topological_shuffle(given.ends, torch.Generator().manual_seed(2))
    for a, b in zip(second_derivatives(permuted(given, order)), second_derivatives(given), strict=True):
        assert torch.equal(a, b[order] if len(b) == len(order) else b)


def second_derivatives(given: Case) -> tuple[Tensor, ...]:
    """Of the squares of the first ones, so that no number belongs to a place in the order of pairs."""
    inputs = [tensor.clone().requires_grad_() for tensor in given[1:4]]
    slopes = torch.autograd.grad(ours(given, *inputs), inputs, given.grad, create_graph=True)
    return torch.autograd.grad(sum(slope.square().sum() for slope in slopes), inputs)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_order_of_pairs_changes_no_bit_of_the_network(dtype):
    """Through everything around the operators too: energies, forces, and the virial but for its sum over pairs."""
    generator = torch.Generator().manual_seed(3)
    numbers = torch.tensor([1, 6, 7, 8])[torch.randint(0, 4, (11,), generator=generator)]
    positions = 2.5 * torch.rand(11, 3, generator=generator, dtype=dtype)
    ends = torch.cartesian_prod(torch.arange(11), torch.arange(11)).t()
    ends = ends[:, ends[0] != ends[1]]
    ends = ends[:, torch.randperm(ends.shape[1], generator=generator)]
    order = topological_shuffle(ends, generator)
    assert not torch.equal(order, torch.arange(len(order)))
    model, found = hiphop4.Model(seed=1).to(dtype), []
    for chosen in (ends, ends[:, order]):
        displacements = positions[chosen[1]] - positions[chosen[0]]
        found.append(model.energy_and_forces(numbers, chosen, displacements))
    assert float(found[0].forces.abs().max()) > 1e-3
    for name in ("energy", "energies", "forces"):
        assert torch.equal(getattr(found[0], name), getattr(found[1], name)), name


@pytest.mark.parametrize("summed", [*itertools.permutations([1.0, 1e16, -1e16])], ids=str)
def test_sums_over_the_pairs_of_an_atom_are_taken_in_their_order(backend_of, summed):
    """Another order would give another number."""
    backend_of("native")
    one, numbers = torch.ones(3, 1, dtype=torch.float64), torch.tensor(summed, dtype=torch.float64)
    expected = (summed[0] + summed[1]) + summed[2]
    weighted = torch.cat([numbers.new_zeros(1), numbers]).view(4, 1, 1).requires_grad_()
    inputs = one.clone().requires_grad_(), one.clone().requires_grad_(), weighted
    given = Case(torch.tensor([[0, 0, 0], [1, 2, 3]]), *inputs, torch.ones(4, 1, 1, dtype=torch.float64))
    assert ours(given, *inputs)[0].item() == expected
    given = given._replace(ends=given.ends.flip(0))
    cotangent = weighted.detach().clone().requires_grad_()
    slopes = torch.autograd.grad(ours(given, *inputs), inputs, cotangent, create_graph=True)
    assert slopes[2][0].item() == expected
    # The same two sums in the double backward: the change of weighted, and of the tensors.
    (change,) = torch.autograd.grad(slopes[0].sum(), weighted, retain_graph=True)
    assert change[0].item() == expected
    given = given._replace(ends=given.ends.flip(0))
    slopes = torch.autograd.grad(ours(given, *inputs), inputs, cotangent, create_graph=True)
    (change,) = torch.autograd.grad(slopes[0].sum(), cotangent)
    assert change[0].item() == expected


def topological_shuffle(ends: Tensor, generator: torch.Generator) -> Tensor:
    """A random order of pairs in which pairs with a common target, or a common source, keep theirs."""
    waiting = [[[p for p in range(ends.shape[1]) if ends[side, p] == atom] for atom in range(11)] for side in (0, 1)]
    order = []
    while len(order) < ends.shape[1]:
        ready = [queue[0] for queue in waiting[0] if queue and waiting[1][int(ends[1, queue[0]])][0] == queue[0]]
        chosen = ready[int(torch.randint(len(ready), (), generator=generator))]
        for side in (0, 1):
            waiting[side][int(ends[side, chosen])].pop(0)
        order.append(chosen)
    return torch.tensor(order)


def test_any_order_of_pairs_gives_equal_numbers():
    given = case("a thousand neighbours of one atom", 5)
    order = torch.randperm(given.ends.shape[1], generator=torch.Generator().manual_seed(0))
    (found, *grads), (expected, *expected_grads) = (results(ours, c, 1) for c in (permuted(given, order), given))
    assert_close([found, *grads], [expected, *(g[order] for g in expected_grads[:2]), expected_grads[2]], 1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_names_of_atoms_change_no_bit(name):
    """The programs take atoms in a sequence of their own; each atom's sum is over its pairs as they are given."""
    given = case(name)
    n_atoms = given.weighted.shape[0]
    names = torch.randperm(n_atoms, generator=torch.Generator().manual_seed(0))
    renamed = given._replace(ends=names[given.ends], weighted=given.weighted[names.argsort()])
    expected, found = (ours(c, *c[1:4]) for c in (given, renamed))
    assert torch.equal(found[names], expected)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_number_of_threads_changes_no_bit(dtype):
    given = case("a thousand neighbours of one atom", 129, dtype=dtype)
    assert_equal_bits(*with_threads((1, 2, 3, 5), lambda: results(ours, given, 2)))


@backends
def test_any_layout(backend_of, backend):
    """Permuted strides, and a cotangent that is one number everywhere."""
    backend_of(backend)
    given = case("few neighbours", 33)
    strided = Case(
        given.ends,
        given.tensors.t().contiguous().t(),
        given.sensitivities.repeat(1, 2)[:, ::2][:, :20],
        given.weighted.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        torch.ones((), dtype=torch.float64).expand(given.grad.shape),
    )
    assert_close(results(ours, strided, 2), results(reference, strided, 2), 1e-12)


def test_wrong_inputs_never_reach_the_programs():
    given = case("few neighbours")
    index = given.groups.index
    with pytest.raises(ValueError, match=r"environment needs \[90, 16\], not \[89, 16\]"):
        pairs.environment(given.tensors[1:], given.sensitivities, given.weighted, index)
    with pytest.raises(ValueError, match=r"environment needs \[11, 20, 7\], not \[10, 20, 7\]"):
        pairs.environment(given.tensors, given.sensitivities, given.weighted[1:], index)
    with pytest.raises(TypeError, match="one of float32 and float64"):
        pairs.environment(given.tensors.float(), given.sensitivities, given.weighted, index)
    with pytest.raises(TypeError, match="int64 index"):
        pairs.environment(given.tensors, given.sensitivities, given.weighted, index._replace(source=index.source.int()))
    with pytest.raises(ValueError, match=r"needs \[0, 0\], not \[\]"):
        pairs.environment(torch.zeros(()), torch.zeros(()), torch.zeros(()), grouping.PairGroups.of(
            torch.zeros(2, 0, dtype=torch.int64), 0).index)  # fmt: skip


WRONG_INDICES = {
    "source": (lambda index: index.source[1:], r"index of \[90\], not \[89\]"),
    "by_source": (lambda index: index.by_source[1:], r"index of \[90\], not \[89\]"),
    "target": (lambda index: index.target.unsqueeze(1), r"index of \[90\], not \[90, 1\]"),
    "source_starts": (lambda index: index.source_starts[1:], r"starts of \[12\], not \[11\]"),
    "target_starts": (lambda index: index.target_starts.view(3, 4), r"starts of \[12\], not \[3, 4\]"),
}


@pytest.mark.parametrize("name", WRONG_INDICES)
def test_wrong_indices_never_reach_the_programs(name):
    given = case("few neighbours")
    index, (wrong, reason) = given.groups.index, WRONG_INDICES[name]
    with pytest.raises(ValueError, match=reason):
        pairs.environment(*given[1:4], index._replace(**{name: wrong(index)}))
    with pytest.raises(TypeError, match="int64 index on cpu"):
        pairs._environment(*given[1:4], *index._replace(**{name: getattr(index, name).to("meta")}))


@pytest.mark.parametrize("name", ["target_starts", "source_starts"])
@pytest.mark.parametrize("more", [-1, 1])
def test_pairs_that_the_starts_do_not_count_never_reach_the_programs(name, more):
    given = case("few neighbours")
    starts = getattr(given.groups.index, name).clone()
    starts[-1] += more
    with pytest.raises(ValueError, match=rf"starts that end with 90, the number of pairs, not {90 + more}"):
        pairs.environment(*given[1:4], given.groups.index._replace(**{name: starts}))


@backends
@pytest.mark.parametrize("channels", [1, 5, 8, 13])
@pytest.mark.parametrize("infinite", ["tensors", "sensitivities", "weighted"])
def test_infinities_stay_infinite(backend_of, backend, infinite, channels):
    """All numbers are positive, so no product or sum of theirs is undefined."""
    backend_of(backend)
    given = case("five pairs", channels, (4, 3))
    given = Case(given.ends, *(tensor.abs() for tensor in given[1:]))
    getattr(given, infinite)[given.ends[1, 1] if infinite == "weighted" else 1, 1] = torch.inf
    found = []
    for function in (ours, reference):
        inputs = [tensor.clone().requires_grad_() for tensor in given[1:4]]
        values = function(given, *inputs)
        slopes = torch.autograd.grad(values, inputs, given.grad, create_graph=True)
        changes = torch.autograd.grad(slopes, inputs, [tensor.nan_to_num(posinf=1.0) for tensor in given[1:4]])
        found.append([values.detach(), *(slope.detach() for slope in slopes), *changes])
        assert any(result.isinf().any() for result in found[-1])
    torch.testing.assert_close(*found)


@quiet
def test_registrations_are_sound():
    """PyTorch's own checks: schema, fake tensors, autograd registration, ahead-of-time dispatch."""
    given = case("few neighbours", 3)
    index = given.groups.index
    first = [tensor.clone().requires_grad_() for tensor in given[1:]]
    second = [torch.randn_like(tensor).requires_grad_() for tensor in given[1:4]]
    torch.library.opcheck(pairs._environment_operator, (*first[:3], *index))
    torch.library.opcheck(pairs._backward_operator, (*first, *index))
    torch.library.opcheck(pairs._double_backward_operator, (*first, *second, *index))


@quiet
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_into_one_graph(backend, dynamic):
    compiled = torch.compile(pairs.environment, fullgraph=True, backend=backend, dynamic=dynamic)
    for name in ("few neighbours", "five pairs", "one atom", "no pairs"):
        given, found = case(name, 9), []
        for function in (compiled, pairs.environment):
            inputs = [tensor.clone().requires_grad_() for tensor in given[1:4]]
            values = function(*inputs, given.groups.index)
            found.append([values, *torch.autograd.grad(values.square().sum(), inputs)])
        torch.testing.assert_close(*found, rtol=0, atol=0)


class Exported(torch.nn.Module):
    def forward(self, tensors: Tensor, sensitivities: Tensor, weighted: Tensor, index: tuple[Tensor, ...]) -> Tensor:
        return pairs.environment(tensors, sensitivities, weighted, grouping.PairIndex(*index))


RELOADED = """
import sys
import torch
from tests.test_pairs import case, pairs
loaded = torch.export.load(sys.argv[1]).module()
for name in ("few neighbours", "one atom", "no pairs", "one pair", "no atoms", "a thousand neighbours of one atom"):
    given, found = case(name), []
    index = given.groups.index
    for function in (lambda *inputs: loaded(*inputs, tuple(index)), lambda *inputs: pairs.environment(*inputs, index)):
        inputs = [tensor.clone().requires_grad_() for tensor in given[1:4]]
        values = function(*inputs)
        slopes = torch.autograd.grad(values.square().sum(), inputs, create_graph=True)
        found.append([values, *slopes, *torch.autograd.grad(sum(s.square().sum() for s in slopes), inputs)])
    torch.testing.assert_close(*found, rtol=0, atol=0)
"""


@quiet
@pytest.mark.usefixtures("fresh_compiler")
def test_exported_and_reloaded_in_another_process(tmp_path):
    """With any number of atoms and pairs, none and one too; derivatives are those of the operators, to the bit."""
    given, some = case("few neighbours"), {0: torch.export.Dim.DYNAMIC}
    index = tuple(given.groups.index)
    shapes = (some, some, some, tuple(some for _ in index))
    exported = torch.export.export(Exported(), (*given[1:4], index), dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "environment.pt2")
    command = [sys.executable, "-c", RELOADED, str(tmp_path / "environment.pt2")]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120)
