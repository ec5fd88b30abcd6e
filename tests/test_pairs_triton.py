"""The kernels over pairs in Triton: interpreted on a CPU against plain PyTorch, and on a GPU through the operators."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tensorgraph.runtime import grouping, pairs
from tensorgraph.runtime import pairs_torch as plain
from tests import helpers
from tests.helpers import assert_equal_bits, gpu

pytest.importorskip("triton", reason="triton is not installed on this platform")
RUNTIME = "tensorgraph.runtime"
KERNELS = ("pairs_triton", "moments_triton")
environment_kernels, moments_kernels = kernels = [importlib.import_module(f"{RUNTIME}.{name}") for name in KERNELS]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6}
N_KINDS = 3
SYSTEMS = {
    "no atoms": (0, 0, 0),
    "no pairs": (2, 3, 0),
    "one pair": (2, 3, 1),
    "more sources than targets": (3, 5, 40),
    "more targets than sources, many without neighbours": (7, 2, 20),
}
"""Numbers of targets, sources and pairs."""
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


class Case(NamedTuple):
    """What the double backward takes, and a kind for every pair, with cotangents of the moments."""

    tensors: Tensor
    sensitivities: Tensor
    weighted: Tensor
    grad: Tensor
    tensors_change: Tensor
    sensitivities_change: Tensor
    weighted_change: Tensor
    moments_grad: Tensor
    kinds: Tensor
    index: NamedTuple

    def to(self, device: str, dtype: torch.dtype) -> "Case":
        real = (tensor.to(device, dtype) for tensor in self[:8])
        return Case(*real, self.kinds.to(device), grouping.PairIndex(*(rows.to(device) for rows in self.index)))


def index_of(target: Tensor, source: Tensor, n_targets: int, n_sources: int):
    """Of pairs in no order; targets and sources are numbered apart."""
    order = torch.argsort(target, stable=True)
    target, source = target[order], source[order]
    by_source = torch.argsort(source, stable=True)
    starts = (torch.searchsorted(*a) for a in ((target, torch.arange(n_targets + 1)),
                                               (source[by_source], torch.arange(n_sources + 1))))  # fmt: skip
    return grouping.PairIndex(target, source, *starts, by_source)


def case(n_targets: int, n_sources: int, n_pairs: int, columns=(4, 5), channels: int = 3, dtype=torch.float64) -> Case:
    random = torch.Generator().manual_seed(n_pairs + channels)
    # The last atoms of either side have no pairs.
    target, source = (torch.randint(0, max(1, n - 1), (n_pairs,), generator=random) for n in (n_targets, n_sources))
    m, f = columns
    shapes = [(n_pairs, m), (n_pairs, f), (n_sources, f, channels)]
    shapes = [*shapes, (n_targets, m, channels), *shapes, (n_targets, m, N_KINDS, f)]
    real = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes)
    kinds = torch.randint(-1, N_KINDS + 1, (n_pairs,), generator=random)  # some are none of them
    return Case(*real, kinds, index_of(target, source, n_targets, n_sources)).to(DEVICE, dtype)


def environments(module: ModuleType, given: Case) -> list[Tensor]:
    """Values, gradients and second-order gradients."""
    first, index = given[:4], given.index
    return [
        module.environment(*first[:3], index),
        *module.environment_backward(*first, index),
        *module.environment_double_backward(*given[:7], index),
    ]


def moments(module: ModuleType, given: Case) -> list[Tensor]:
    t, s, x, y, g = given[0], given[1], given[4], given[5], given.moments_grad
    rows = given.index.target, given.index.target_starts, given.kinds
    return [
        module.moments(t, s, N_KINDS, *rows),
        *module.moments_backward(t, s, g, *rows),
        *module.moments_double_backward(t, s, g, x, y, *rows),
    ]


def expected_moments(given: Case) -> list[Tensor]:
    """By one einsum over all pairs."""
    t, s, x, y, g = (a.double() for a in (given[0], given[1], given[4], given[5], given.moments_grad))
    target = given.index.target
    kinds = (given.kinds.unsqueeze(1) == torch.arange(N_KINDS, device=target.device)).double()

    def of(tensors: Tensor, sensitivities: Tensor) -> Tensor:
        each = torch.einsum("pm,pk,pf->pmkf", tensors, kinds, sensitivities)
        return torch.zeros_like(g).index_add(0, target, each)

    def backward(tensors: Tensor, sensitivities: Tensor) -> tuple[Tensor, Tensor]:
        own = torch.einsum("pmkf,pk->pmf", g[target], kinds)
        return torch.einsum("pmf,pf->pm", own, sensitivities), torch.einsum("pmf,pm->pf", own, tensors)

    return [of(t, s), *backward(t, s), *backward(x, y), of(x, s) + of(t, y)]


def assert_close(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    """Results of this type, within its tolerance of the largest number of each."""
    assert {result.dtype for result in found} == {dtype}
    helpers.assert_close(found, expected, TOLERANCE[dtype])


def assert_as_plain(modules: Sequence[ModuleType], given: Case) -> None:
    """Of kernels of the environment, and of moments."""
    dtype = given.tensors.dtype
    exact = given.to(DEVICE, torch.float64)
    assert_close(environments(modules[0], given), environments(plain, exact), dtype)
    assert_close(moments(modules[1], given), expected_moments(exact), dtype)


@dtypes
@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_of_all_sizes(name, dtype):
    assert_as_plain(kernels, case(*SYSTEMS[name], dtype=dtype))


@dtypes
@pytest.mark.parametrize("channels", [0, 1, 5, 33, 130])
def test_channels_of_all_numbers(channels, dtype):
    assert_as_plain(kernels, case(2, 3, 5, channels=channels, dtype=dtype))


@pytest.mark.parametrize("columns", [(1, 20), (9, 3), (16, 33), (25, 1)], ids=str)
def test_components_and_functions_of_all_numbers(columns):
    assert_as_plain(kernels, case(2, 3, 5, columns))


def test_a_thousand_neighbours():
    given = case(2, 3, 1000, (2, 3), 2)
    found, expected = (module.environment(*given[:3], given.index) for module in (environment_kernels, plain))
    assert_close([found], [expected], torch.float64)


@dtypes
def test_any_layout(dtype):
    """Permuted strides, and a cotangent that is one number everywhere."""
    given = case(2, 3, 7, dtype=dtype)
    strided = given._replace(
        tensors=given.tensors.t().contiguous().t(),
        sensitivities=given.sensitivities.repeat(1, 2)[:, ::2],
        weighted=given.weighted.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        grad=torch.ones((), dtype=dtype, device=DEVICE).expand(given.grad.shape),
    )
    assert not any(tensor.is_contiguous() for tensor in (strided.tensors, strided.sensitivities, strided.weighted))
    assert_as_plain(kernels, strided)


def test_an_atom_feels_no_bit_of_others():
    """Neither which other atoms there are, nor where its pairs stand among theirs, changes a sum."""
    given = case(3, 4, 60, dtype=torch.float32)
    index = given.index
    kept = (index.target == 1).nonzero().squeeze(1)
    alone = index_of(index.target[kept].cpu(), index.source[kept].cpu(), 3, 4)
    alone = grouping.PairIndex(*(rows.to(DEVICE) for rows in alone))
    found = environment_kernels.environment(given.tensors[kept], given.sensitivities[kept], given.weighted, alone)
    assert torch.equal(found[1], environment_kernels.environment(*given[:3], index)[1])
    assert not found[0].any()
    of_pairs = environment_kernels.environment_backward(
        given.tensors[kept], given.sensitivities[kept], *given[2:4], alone
    )[:2]  # fmt: skip
    every = environment_kernels.environment_backward(*given[:4], index)[:2]
    assert all(torch.equal(a, b[kept]) for a, b in zip(of_pairs, every, strict=True))


def test_order_of_pairs_changes_no_bit():
    """Pairs in another order, but with that of each atom's own pairs, are sorted alike."""
    random = torch.Generator().manual_seed(0)
    ends = torch.randint(0, 4, (2, 30), generator=random)
    rows = torch.randn(30, 9, generator=random, dtype=torch.float32)
    weighted = torch.randn(4, 5, 3, generator=random, dtype=torch.float32).to(DEVICE)
    found = []
    for order in (torch.arange(30), torch.argsort(torch.randperm(4, generator=random)[ends[0]], stable=True)):
        groups = grouping.PairGroups.of(ends[:, order].to(DEVICE), 4)
        own = groups.sort(rows[order].to(DEVICE))
        found.append(environment_kernels.environment(own[:, :4], own[:, 4:], weighted, groups.index))
    assert torch.equal(*found)


MUTATIONS = {
    ("pairs_triton", "totals[k] + factor"): "totals[k] - factor",
    ("pairs_triton", "tile + tl.sum(products"): "tile - tl.sum(products",
    ("pairs_triton", "head += "): "head -= ",
    ("pairs_triton", "tail += "): "tail -= ",
    ("pairs_triton", "_expand(by_source, y, q, s, z)"): "_expand(by_source, y, q)",
    ("pairs_triton", "_dots(by_target, changed, g)"): "_dots(by_target, messages, g)",
    ("pairs_triton", "while start < last:"): "while start + 1 < last:",
    ("moments_triton", "return total + tensor"): "return total - tensor",
    ("moments_triton", "of_sensitivities += "): "of_sensitivities -= ",
    ("moments_triton", "while start < last:"): "while start + 1 < last:",
}


@pytest.mark.parametrize(("name", "line"), MUTATIONS)
def test_a_wrong_line_is_found(name, line, tmp_path, monkeypatch):
    """The comparison can fail: one change of the kernels at a time."""
    which = KERNELS.index(name)
    text = Path(kernels[which].__file__).read_text(encoding="utf-8")
    assert line in text
    file = tmp_path / "mutant.py"
    file.write_text(text.replace(line, MUTATIONS[name, line]), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"{RUNTIME}.mutant", file)  # of the runtime, whose modules it imports
    mutant = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, mutant)
    spec.loader.exec_module(mutant)
    with pytest.raises(AssertionError):
        assert_as_plain([*kernels[:which], mutant, *kernels[which + 1 :]], case(2, 3, 5))


def operands(given: Case) -> list[Tensor]:
    return [tensor.clone().requires_grad_() for tensor in given[:3]]


@pytest.mark.parametrize("dtype", [pytest.param(dtype, marks=gpu, id=str(dtype)) for dtype in TOLERANCE])
def test_operators_on_a_gpu_equal_those_on_a_cpu(dtype):
    """At the sizes of hiphop5, with the second derivatives."""
    given = case(50, 50, 3500, (16, 20), 128, dtype)
    found = []
    for device, precision in (("cuda", dtype), ("cpu", torch.float64)):
        moved = given.to(device, precision)
        inputs = operands(moved)
        values = pairs.environment(*inputs, moved.index)
        grads = torch.autograd.grad((values * moved.grad).sum() + values.square().sum() / 50, inputs, create_graph=True)
        slope = sum((a * b).sum() for a, b in zip(grads, moved[4:7], strict=True))
        found.append([t.detach().cpu() for t in (values, *grads, *torch.autograd.grad(slope, inputs))])
    for a, b in zip(*found, strict=True):
        assert float((a.double() - b).abs().max()) <= 50 * TOLERANCE[dtype] * float(b.abs().max())


@pytest.mark.parametrize("order", [pytest.param(order, marks=gpu) for order in ("first", "second")])
def test_finite_differences_on_a_gpu(order):
    given = case(2, 3, 7)
    check = {"first": torch.autograd.gradcheck, "second": torch.autograd.gradgradcheck}[order]
    # Tensors whose values the kernels round differently would fail at this tolerance: sums have one order.
    assert check(lambda *t: pairs.environment(*t, given.index), operands(given), nondet_tol=0.0)


def step(inputs: list[Tensor], given: Case) -> list[Tensor]:
    """A forward, backward and double backward, as a training step has them."""
    values = pairs.environment(*inputs, given.index)
    grads = torch.autograd.grad(values, inputs, given.grad, create_graph=True)
    return [values, *grads, *torch.autograd.grad(grads, inputs, given[4:7])]


@pytest.mark.parametrize("repeats", [pytest.param(3, marks=gpu)])
def test_a_gpu_is_not_waited_for_and_gives_equal_bits(repeats):
    given = case(50, 50, 3500, (16, 20), 128, torch.float32)
    inputs = operands(given)
    first = step(inputs, given)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [step(inputs, given) for _ in range(repeats)]
        grouping.PairGroups.of(torch.stack(given.index[:2]), 50)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_equal_bits(first, *found)


@pytest.mark.parametrize("channels", [pytest.param(n, marks=gpu) for n in (5, 128, 200)])
def test_a_cuda_graph_holds_a_step(channels):
    given = case(20, 20, 600, (16, 20), channels, torch.float32)
    inputs = operands(given)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(inputs, given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = step(inputs, given)
    with torch.no_grad():
        for tensor in inputs:
            tensor.mul_(1.5)
    graph.replay()
    assert_equal_bits(held, step(inputs, given))
