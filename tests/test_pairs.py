"""The pair operators: values and derivatives of every order against an einsum over all pairs, and to the bit."""

import importlib
import itertools
import sys
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from generated import hiphop4

pairs = importlib.import_module(f"{hiphop4.__name__}.pairs")
grouping = importlib.import_module(f"{hiphop4.__name__}.grouping")
CHANNELS = (0, 1, 7, 31, 127, 128, 129)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
COLUMNS = ((16, 20), (1, 5), (4, 1), (9, 17))
"""Components and functions."""
SYSTEMS = {
    "no atoms": (0, 0, "random"),
    "no pairs": (5, 0, "random"),
    "one atom": (1, 3, "random"),
    "one pair": (3, 1, "random"),
    "few neighbours": (11, 90, "random"),
    "atoms without neighbours": (40, 60, "clustered"),
    "a thousand neighbours of one atom": (12, 1100, "hub"),
}
backends = pytest.mark.parametrize("backend", ["native", "pytorch"])
# PyTorch's own compiler still uses what PyTorch has deprecated.
quiet = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


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
        ends[0, :500], ends[1, 500:1000] = 3, 7
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


def results(function, given: Case, order: int, seed: int = 0) -> list[Tensor]:
    """Values and derivatives up to an order, each with respect to the three inputs; cotangents are random."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [tensor.detach().clone().requires_grad_() for tensor in given[1:4]]
    found = [function(given, *inputs)]
    # What the cotangent of the values is made of depends on the inputs too: all mixed derivatives count.
    slope = (found[0] * given.grad.to(inputs[0].dtype)).sum() + found[0].square().sum() / 20
    for level in range(order):
        grads = torch.autograd.grad(slope, inputs, create_graph=level + 1 < order, materialize_grads=True)
        found += grads
        weights = [torch.randn(grad.shape, generator=generator, dtype=torch.float64).to(grad.dtype) for grad in grads]
        slope = sum((grad * weight).sum() for grad, weight in zip(grads, weights, strict=True))
    return [value.detach() for value in found]


def double(given: Case) -> Case:
    return Case(given.ends, *(tensor.double() for tensor in given[1:]))


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Within the tolerance of the largest number of each result."""
    for level, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape
        scale = float(b.abs().max()) if b.numel() else 0.0
        assert not a.numel() or float((a.double() - b).abs().max()) <= tolerance * scale, f"result {level}"


@pytest.fixture
def backend_of(monkeypatch):
    """Chooses what runs, and makes sure that it does."""

    def choose(backend: str) -> None:
        if backend == "pytorch":
            monkeypatch.setattr(pairs.native, "run", lambda *arguments, **macros: False)
        else:
            macros = {"COMPONENTS": 16, "FUNCTIONS": 20}
            assert pairs.native.available("pairs_cpu.c", "environment", torch.float64, **macros), "no C compiler here"

    return choose


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
def test_components_and_functions_of_all_numbers(columns, dtype):
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
    given = case("one atom", 2, (4, 3))
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


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_number_of_threads_changes_no_bit(dtype):
    given = case("a thousand neighbours of one atom", 129, dtype=dtype)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found.append(results(ours, given, 2))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


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
def test_compiled_into_one_graph():
    given = case("few neighbours", 9)
    index = given.groups.index
    compiled = torch.compile(pairs.environment, fullgraph=True, backend="aot_eager")
    found = []
    for function in (compiled, pairs.environment):
        inputs = [tensor.clone().requires_grad_() for tensor in given[1:4]]
        values = function(*inputs, index)
        found.append([values, *torch.autograd.grad(values.sin().sum(), inputs)])
    torch.testing.assert_close(*found, rtol=0, atol=0)
    torch._dynamo.reset()


def test_sums_over_groups():
    """Sorted or not, with empty groups, differentiated three times."""
    generator = torch.Generator().manual_seed(0)
    for n_groups, n_rows in itertools.product((1, 2, 7), (0, 1, 30)):
        groups = torch.randint(0, n_groups, (n_rows,), generator=generator)
        for keys in (groups, groups.sort().values):
            rows = torch.randn(n_rows, 3, dtype=torch.float64, generator=generator, requires_grad=True)
            expected = torch.zeros(n_groups, 3, dtype=torch.float64).index_add(0, keys, rows)
            torch.testing.assert_close(grouping.group_sum(rows, keys, n_groups), expected)
            assert torch.autograd.gradcheck(lambda r, k=keys, n=n_groups: grouping.group_sum(r, k, n), (rows,))
            assert torch.autograd.gradgradcheck(
                lambda r, k=keys, n=n_groups: grouping.group_sum(r, k, n).sin(), (rows,)
            )


def test_without_triton_plain_pytorch_is_told_of_once(monkeypatch):
    """One warning for all operators, and what plain PyTorch lacks is made of what it has."""
    operators = importlib.import_module(f"{hiphop4.__name__}.operators")
    monkeypatch.setitem(sys.modules, "triton", None)
    caches = (operators.gpu_module, operators._has_triton)
    for cache in caches:
        cache.cache_clear()
    try:
        with pytest.warns(UserWarning, match="no Triton kernels") as told:
            found = [operators.gpu_module(name, pairs.pairs_torch) for name in ("pairs_triton", "program_triton")]
        assert (found, len(told)) == ([pairs.pairs_torch] * 2, 1)
    finally:
        for cache in caches:
            cache.cache_clear()
