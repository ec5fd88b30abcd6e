"""Models that PyTorch compiles, exports, traces, checkpoints or runs under autocast: right gradients, or a refusal.

What is compared are gradients with respect to weights of a loss on energies and forces: forces alone can be right where
those are zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from tests import helpers
from tests.helpers import batch_of, molecule, package, small_model

NAMES = ("hiphop4", "hipnn")
pytestmark = [
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.filterwarnings(*helpers.quiet.args),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


class Case:
    """A small model, two molecules as its input, and the gradient of a loss on their energies and forces."""

    def __init__(self, name: str) -> None:
        self.package = package(name)
        self.model = small_model(self.package)
        self.model.validate = False  # PyTorch's tracers cannot take branches on values
        batch = batch_of(self.package, molecule(6, 0), molecule(5, 1))
        self.numbers, self.pairs, self.displacements, self.structure, self.n_structures = batch.inputs[:5]

    def step(self, displacements: Tensor, create_graph: bool = True) -> tuple[Tensor, ...]:
        around = (self.numbers, self.pairs, displacements, self.structure, self.n_structures)
        return tuple(self.model.energy_and_forces(*around, create_graph=create_graph))

    def gradients(self, step: Callable[[Tensor], tuple[Tensor, ...]]) -> list[Tensor]:
        """Of a loss on what the step gives, with respect to every weight."""
        self.model.zero_grad()
        energy, _, _, forces, _ = step(self.displacements)
        (forces.square().sum() + 1e-3 * energy.square().sum()).backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.model.parameters()]

    def check(self, step: Callable[[Tensor], tuple[Tensor, ...]], expected: list[Tensor], tolerance: float) -> None:
        found = self.gradients(step)
        scale = max(float(gradient.abs().max()) for gradient in expected)
        assert scale > 0
        for a, b in zip(found, expected, strict=True):
            assert float((a - b).abs().max()) <= tolerance * scale


@pytest.fixture(params=NAMES)
def case(request) -> Case:
    return Case(request.param)


def traced_derivatives(chosen: bool) -> contextlib.AbstractContextManager:
    """Whether PyTorch's compiler takes derivatives into its graphs; a skip where it cannot."""
    config = torch._dynamo.config
    if not hasattr(config, "trace_autograd_ops"):
        return pytest.skip("this PyTorch does not trace derivatives") if chosen else contextlib.nullcontext()
    return config.patch(trace_autograd_ops=chosen)


@pytest.mark.parametrize(
    ("name", "backend", "derivatives"),
    [("hiphop4", "eager", False), ("hipnn", "eager", True), ("hipnn", "aot_eager", True)],
)
def test_compiled_steps_train(name, backend, derivatives):
    case = Case(name)
    expected = case.gradients(case.step)
    with traced_derivatives(derivatives):
        compiled = torch.compile(case.step, backend=backend, dynamic=True)
        case.check(compiled, expected, 1e-12)


def test_derivatives_outside_of_a_compiled_graph_train():
    case = Case("hipnn")

    def outside(model: Callable[..., tuple[Tensor, ...]]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        def step(displacements: Tensor) -> tuple[Tensor, ...]:
            displacements = displacements.clone().requires_grad_()
            energy, *rest = model(case.numbers, case.pairs, displacements, case.structure, case.n_structures)
            (slope,) = torch.autograd.grad(energy.sum(), displacements, create_graph=True)
            return (energy, *rest, slope, slope)

        return step

    expected = case.gradients(outside(case.model))
    case.check(outside(torch.compile(case.model, backend="eager", dynamic=True)), expected, 1e-12)
    with pytest.raises(RuntimeError, match=r"double backward|create_graph=False"):
        case.gradients(outside(torch.compile(case.model, backend="aot_eager", dynamic=True)))


def test_a_compiled_step_without_its_graph_cannot_be_trained():
    case = Case("hipnn")
    compiled = torch.compile(lambda d: case.step(d, create_graph=False), backend="aot_eager", dynamic=True)
    with traced_derivatives(hasattr(torch._dynamo.config, "trace_autograd_ops")):
        assert not any(value.requires_grad for value in compiled(case.displacements))


@pytest.mark.parametrize("mode", ["real", "symbolic"])
@pytest.mark.parametrize("create_graph", [True, False])
def test_traced_steps_train(case, mode, create_graph):
    """Also without a graph: what a trace records of a detached tensor would have other derivatives."""
    expected = case.gradients(case.step)
    step = make_fx(lambda d: case.step(d, create_graph), tracing_mode=mode, _allow_non_fake_inputs=True)
    case.check(step(case.displacements), expected, 1e-12)


def test_traced_pairs_may_come_in_another_order():
    """A trace of sorted pairs must not take all pairs for sorted."""
    case = Case("hiphop4")

    def forces(pairs: Tensor, displacements: Tensor) -> Tensor:
        return case.model.energy_and_forces(case.numbers, pairs, displacements, case.structure, 2).forces

    traced = make_fx(forces)(case.pairs, case.displacements)
    order = torch.randperm(len(case.displacements), generator=torch.Generator().manual_seed(0))
    found = traced(case.pairs[:, order], case.displacements[order])
    torch.testing.assert_close(found, forces(case.pairs, case.displacements), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_energies_train(case, strict):
    class Energy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = case.model

        def forward(self, displacements: Tensor) -> Tensor:
            return self.model(case.numbers, case.pairs, displacements, case.structure, 2).energy

    def slope_gradients(energy: torch.nn.Module) -> dict[str, Tensor]:
        displacements = case.displacements.clone().requires_grad_()
        (slope,) = torch.autograd.grad(energy(displacements).sum(), displacements, create_graph=True)
        weights = dict(energy.named_parameters())
        taken = torch.autograd.grad(slope.square().sum(), list(weights.values()), materialize_grads=True)
        return dict(zip(weights, taken, strict=True))

    expected = slope_gradients(Energy())
    found = slope_gradients(torch.export.export(Energy(), (case.displacements,), strict=strict).module())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12)


def test_exports_with_checks_of_values_are_refused():
    case = Case("hipnn")
    case.model.validate = True
    with pytest.raises(RuntimeError, match="set `validate = False`"):
        torch.export.export(case.model, (case.numbers, case.pairs, case.displacements, case.structure, 2))


def test_torchscript_is_refused(case):
    with pytest.raises(RuntimeError, match=r"torch\.export"):
        torch.jit.trace(case.step, case.displacements)


def test_checkpointed_blocks_train(case, monkeypatch):
    """Activation checkpointing: saved tensors may be read once."""
    expected = case.gradients(case.step)
    for block in case.model.blocks:
        plain = block.forward
        monkeypatch.setattr(block, "forward", lambda *given, f=plain: checkpoint(f, *given, use_reentrant=False))
    case.check(case.step, expected, 1e-12)


def test_checkpointed_steps_train(case):
    expected = case.gradients(case.step)
    case.check(lambda d: checkpoint(case.step, d.clone().requires_grad_(), use_reentrant=False), expected, 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", [torch.float32, torch.float64])
def test_autocast_changes_nothing(case, weights, dtype):
    case.model.to(weights)
    case.displacements = case.displacements.to(weights)
    expected, energies = case.gradients(case.step), case.step(case.displacements)

    def step(displacements: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", dtype=dtype):
            return case.step(displacements)

    assert all(torch.equal(a, b) for a, b in zip(step(case.displacements), energies, strict=True))
    case.check(step, expected, 0.0)
    with torch.autocast("cpu", dtype=dtype):
        outside = case.model(case.numbers, case.pairs, case.displacements, case.structure, 2)
    assert torch.equal(outside.energy, energies[0])
