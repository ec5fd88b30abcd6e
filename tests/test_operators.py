"""The operators under torch.compile and torch.export: equal numbers and derivatives, one graph, any number of atoms."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.decorators import mark_unbacked
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad

from tests.helpers import devices, needs_gpu, quiet

ROOT = Path(__file__).parents[1]
NAMES = ("hiphop5", "flexible5", "hipnn")
ATOMS = (5, 3, 1, 0, 2, 9)
pytestmark = [quiet, pytest.mark.usefixtures("fresh_compiler")]
packages = pytest.mark.parametrize("name", NAMES)


def load(name: str):
    return importlib.import_module(f"generated.{name}")


def features_of(name: str, atoms: int, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(atoms)
    size = load(name).invariants.__globals__["architecture"].N_COMPONENTS
    return torch.randn(atoms, size, 7, dtype=torch.float64, generator=generator).to(device).requires_grad_()


def slope(function, features: Tensor, keep: bool = False) -> Tensor:
    """The gradient of a non-linear function of the invariants."""
    return torch.autograd.grad(function(features).sin().sum(), features, create_graph=keep)[0]


@devices
@packages
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_values_and_gradients(name, device, backend):
    """With the number of atoms left open, one graph serves none, one and many."""
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(load(name).invariants, fullgraph=True, backend=counter)
    for atoms in ATOMS:
        features = features_of(name, atoms, device)
        mark_unbacked(features, 0)
        torch.testing.assert_close(compiled(features), load(name).invariants(features), rtol=0, atol=0)
        torch.testing.assert_close(slope(compiled, features), slope(load(name).invariants, features))
    assert counter.frame_count == 1


@devices
@packages
def test_sizes_of_their_own_break_nothing(name, device):
    compiled = torch.compile(load(name).invariants, fullgraph=True, backend="aot_eager")
    for atoms in ATOMS:
        features = features_of(name, atoms, device)
        torch.testing.assert_close(compiled(features), load(name).invariants(features), rtol=0, atol=0)


@devices
@packages
@pytest.mark.skipif(not hasattr(torch._dynamo.config, "trace_autograd_ops"), reason="this torch cannot trace gradients")
def test_a_gradient_inside_compiles_and_is_differentiated(name, device):
    """As in training on forces: the gradient is part of the graph, and its own derivative is taken."""

    invariants = load(name).invariants

    def gradient(features: Tensor) -> Tensor:
        return slope(invariants, features, keep=True)

    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled = torch.compile(gradient, fullgraph=True, backend="inductor")
        features = features_of(name, 4, device)
        results = []
        for function in (compiled, gradient):
            found = function(features)
            results.append([found, *torch.autograd.grad((found * features).square().sum(), features)])
    torch.testing.assert_close(*results)


@pytest.mark.gpu
@needs_gpu
@packages
def test_operators_differentiate_on_the_gpu(name):
    features = features_of(name, 3, "cuda")
    assert torch.autograd.gradcheck(load(name).invariants, (features,))
    assert torch.autograd.gradgradcheck(load(name).invariants, (features,))


RELOADED = """
import sys
import torch
from generated import {name}
loaded = torch.export.load(sys.argv[1]).module()
for atoms in (5, 1, 0, 3):
    features = torch.randn(atoms, *{shape}, dtype=torch.float64, device="{device}", requires_grad=True)
    results = []
    for function in (loaded, {name}.invariants):
        values = function(features)
        (slope,) = torch.autograd.grad(values.sin().sum(), features, create_graph=True)
        results.append([values, slope, *torch.autograd.grad(slope.square().sum(), features)])
    torch.testing.assert_close(*results, rtol=0, atol=0)
"""


@devices
@packages
def test_exported_and_reloaded_in_another_process(name, device, tmp_path):
    """Values, gradient and double gradient are equal to the bit; the process that loads imports the package."""

    class Invariants(torch.nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return load(name).invariants(features)

    features = features_of(name, 5, device).detach()
    exported = torch.export.export(Invariants(), (features,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(exported, tmp_path / "invariants.pt2")
    code = RELOADED.format(name=name, shape=tuple(features.shape[1:]), device=device)
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "invariants.pt2")], check=True, cwd=ROOT, timeout=120)


def operators_of_one_argument():
    """Every public operator, of one of its arguments, with a value of that."""
    from generated.hiphop5 import invariants, tensor_components
    from tensorgraph.runtime.grouping import PairGroups
    from tensorgraph.runtime.moments import moments
    from tensorgraph.runtime.pairs import environment

    index = PairGroups.of(torch.tensor([[0, 1, 1], [1, 0, 1]]), 2).index
    kinds = torch.tensor([0, 1])
    t, s, q = (torch.ones(shape, dtype=torch.float64) for shape in ((3, 4), (3, 2), (2, 2, 3)))
    yield pytest.param(invariants, torch.ones(2, 16, 3, dtype=torch.float64), id="invariants")
    yield pytest.param(tensor_components, torch.ones(3, 3, dtype=torch.float64), id="tensor_components")
    yield pytest.param(lambda x: environment(x, s, q, index), t, id="environment of tensors")
    yield pytest.param(lambda x: environment(t, x, q, index), s, id="environment of sensitivities")
    yield pytest.param(lambda x: environment(t, s, x, index), q, id="environment of features")
    yield pytest.param(lambda x: moments(x, s, kinds, 2, index), t, id="moments of tensors")
    yield pytest.param(lambda x: moments(t, x, kinds, 2, index), s, id="moments of sensitivities")


one_argument = pytest.mark.parametrize(("function", "value"), list(operators_of_one_argument()))


@one_argument
@pytest.mark.parametrize("tracked", [False, True])
def test_forward_mode_is_refused(request, function, value, tracked):
    """PyTorch alone would answer zero."""
    name = request.node.callspec.id.split("-")[-1].split()[0]
    value = value.clone().requires_grad_(tracked)
    with pytest.raises(NotImplementedError, match=f"{name} has no forward-mode derivatives"):
        torch.func.jvp(function, (value,), (value,))
    with pytest.raises(NotImplementedError, match=f"{name} has no forward-mode derivatives"):
        torch.func.jacfwd(function)(value)
    with forward_ad.dual_level():
        function(value)
        with pytest.raises(NotImplementedError, match=f"{name} has no forward-mode derivatives"):
            function(forward_ad.make_dual(value, value))


@one_argument
def test_tangents_of_cotangents_are_refused(function, value):
    value = value.clone().requires_grad_()
    with forward_ad.dual_level():
        output = function(value)
        cotangent = forward_ad.make_dual(torch.ones_like(output), torch.ones_like(output))
        with pytest.raises(NotImplementedError, match="has no forward-mode derivatives"):
            torch.autograd.grad(output, value, cotangent)


@one_argument
def test_derivatives_by_torch_func_are_refused_clearly(function, value):
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.hessian):
        with pytest.raises(NotImplementedError, match=r"has no derivatives by torch\.func"):
            transform(lambda x: function(x).sum())(value)


@devices
@packages
def test_registrations_are_sound(name, device):
    """PyTorch's own checks: schema, fake tensors, autograd registration, ahead-of-time dispatch."""
    operators = importlib.import_module(f"generated.{name}.invariants").PROGRAMS
    features = features_of(name, 3, device)
    cotangent = torch.randn_like(operators.forward(features)).requires_grad_()
    second = torch.randn_like(features).requires_grad_()
    for operator, inputs in (
        (operators.forward, (features,)),
        (operators.backward, (features, cotangent)),
        (operators.double_backward, (features, cotangent, second)),
    ):
        torch.library.opcheck(operator, inputs)


def test_without_triton_plain_pytorch_is_told_of_once(monkeypatch):
    """One warning for all operators."""
    operators, plain = (importlib.import_module(f"tensorgraph.runtime.{name}") for name in ("operators", "pairs_torch"))
    monkeypatch.setitem(sys.modules, "triton", None)
    caches = (operators.gpu_module, operators._has_triton)
    for cache in caches:
        cache.cache_clear()
    try:
        with pytest.warns(UserWarning, match="no Triton kernels") as told:
            found = [operators.gpu_module(name, plain) for name in ("pairs_triton", "moments_triton")]
        assert (found, len(told)) == ([plain] * 2, 1)
    finally:
        for cache in caches:
            cache.cache_clear()
