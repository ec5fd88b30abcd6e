"""`invariants` and `tensor_components` of the committed packages: values, derivatives, sizes, layouts, imports."""

import importlib
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from tensorgraph.algebra import embedding
from tensorgraph.compiler import compile_spec
from tensorgraph.emit import write_package
from tensorgraph.graphs import Kind, Multigraph
from tensorgraph.model import load_package
from tensorgraph.spec import parse_spec

ROOT = Path(__file__).parents[1]
NAMES = ("hiphop5", "hiphop4", "flexible5", "hipnn")
SIZES = [(5, 3), (1, 1), (2, 1), (31, 2), (0, 4), (3, 0), (0, 0), (300, 127)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}

packages = pytest.mark.parametrize("name", NAMES)
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def load(name: str):
    return importlib.import_module(f"generated.{name}")


def manifest(name: str) -> dict:
    return json.loads((ROOT / "generated" / name / "manifest.json").read_text(encoding="utf-8"))


def random_features(name: str, atoms: int, channels: int, dtype=torch.float64, seed: int = 0) -> torch.Tensor:
    size = load(name).tensor_components(torch.zeros(0, 3)).shape[1]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(atoms, size, channels, dtype=dtype, generator=generator)


def naive_invariants(basis: dict, features: torch.Tensor) -> np.ndarray:
    """A float64 einsum of each graph of a manifest's basis, straight from its ranks and edges."""
    values = features.double().numpy()
    full = {
        Kind(rank): np.einsum("...m,imc->ic...", embedding(rank).astype(float), values[:, rank**2 : (rank + 1) ** 2])
        for rank in range(basis["max_rank"] + 1)
    }
    columns = []
    for entry in basis["invariants"]:
        graph = Multigraph(tuple(entry["ranks"]), tuple(map(tuple, entry["edges"])))
        operands = graph.einsum.removesuffix("->").split(",")
        equation = ",".join(f"YZ{letters}" for letters in operands) + "->YZ"
        columns.append(np.einsum(equation, *(full[kind] for kind in graph.kinds), optimize="greedy"))
    return np.stack(columns, axis=1)


@packages
@dtypes
@pytest.mark.parametrize(("atoms", "channels"), SIZES)
def test_values_equal_a_naive_einsum(name, dtype, atoms, channels):
    features = random_features(name, atoms, channels, dtype)
    found = load(name).invariants(features)
    expected = naive_invariants(manifest(name)["basis"], features)
    assert found.shape == expected.shape
    assert found.dtype == dtype
    scale = np.abs(expected).max(axis=(0, 2), keepdims=True, initial=1e-300)
    np.testing.assert_allclose(found.double().numpy() / scale, expected / scale, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("family", "body_order", "max_rank"),
    [
        ("flexible", 5, 4),
        ("connected", 4, 5),
        ("independent", 4, 6),
        ("hiphop", 2, 6),
        ("flexible", 7, 3),
        ("linear", 5, 3),
        ("flexible", "complete", 3),
    ],
)
def test_packages_beyond_the_committed_ones(tmp_path, family, body_order, max_rank):
    """Other families and higher ranks, without a network: built, imported, and held against the naive einsum."""
    text = f"name: other\nbasis: {{family: {family}, body_order: {body_order}, max_rank: {max_rank}}}\n"
    package = load_package(write_package(compile_spec(parse_spec(text)).package, tmp_path))
    assert not hasattr(package, "Model")
    basis = json.loads((tmp_path / "other" / "manifest.json").read_text(encoding="utf-8"))["basis"]
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, (max_rank + 1) ** 2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    expected = naive_invariants(basis, features.detach())
    scale = np.abs(expected).max(axis=(0, 2), keepdims=True)
    found = package.invariants(features).detach().numpy()
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-12)
    assert gradcheck(package.invariants, (features,), fast_mode=True)
    assert gradgradcheck(package.invariants, (features,), fast_mode=True)


@packages
@pytest.mark.parametrize(("atoms", "channels"), [(2, 3), (1, 1), (0, 2)])
def test_gradcheck_and_gradgradcheck(name, atoms, channels):
    features = random_features(name, atoms, channels).requires_grad_()
    assert gradcheck(load(name).invariants, (features,))
    assert gradgradcheck(load(name).invariants, (features,))


def nested_gradient(function, features: torch.Tensor, order: int, keep: bool) -> torch.Tensor:
    """Nested gradients of Σ sin(invariants), each squared and summed before the next; `keep` keeps the last graph."""
    inputs = features.clone().requires_grad_()
    value = function(inputs).sin().sum()
    for taken in range(1, order + 1):
        (slope,) = torch.autograd.grad(value, inputs, create_graph=taken < order or keep)
        value = slope.square().sum()
    return slope.detach()


@packages
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("keep", [False, True])
def test_nested_derivatives_equal_those_of_the_plain_function(name, order, keep):
    """A non-linear function of the invariants makes cotangents depend on the features, as in training on Hessians."""
    plain = importlib.import_module(f"generated.{name}.invariants_torch").forward
    features = 0.5 * random_features(name, 2, 2)
    expected = nested_gradient(plain, features, order, keep)
    found = nested_gradient(load(name).invariants, features, order, keep)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


@packages
@pytest.mark.parametrize("wanted", [mask for mask in product([False, True], repeat=3) if any(mask)], ids=str)
def test_double_backward_differentiates_any_part_of_its_input(name, wanted):
    operator = importlib.import_module(f"generated.{name}.invariants").PROGRAMS.double_backward
    plain = importlib.import_module(f"generated.{name}.invariants_torch").double_backward
    features = random_features(name, 1, 2)
    cotangent = torch.randn(load(name).invariants(features).shape, dtype=torch.float64)
    inputs = [features, cotangent, torch.randn_like(features)]
    inputs = [tensor.requires_grad_(needed) for tensor, needed in zip(inputs, wanted, strict=True)]
    weights = [torch.randn_like(output) for output in plain(*inputs)]
    chosen = [tensor for tensor in inputs if tensor.requires_grad]
    results = []
    for function in (operator, plain):
        outputs = function(*inputs)
        total = sum((weight * output).sum() for weight, output in zip(weights, outputs, strict=True))
        if not total.requires_grad:  # the plain function of rank 0 does not depend on all of its input
            results.append([torch.zeros_like(tensor) for tensor in chosen])
            continue
        results.append(torch.autograd.grad(total, chosen, materialize_grads=True))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_network_can_be_trained_on_curvature():
    """Third derivatives through the whole model: the loss contains a Hessian-vector product of the energy."""
    model = load("hiphop4").Model(seed=0).double()
    numbers, pairs = torch.tensor([8, 1]), torch.tensor([[0, 1], [1, 0]])
    apart = torch.tensor([[0.9, 0.3, 0.1], [-0.9, -0.3, -0.1]], dtype=torch.float64, requires_grad=True)
    energy = model(numbers, pairs, apart).energy.sum()
    (slope,) = torch.autograd.grad(energy, apart, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), apart, create_graph=True)
    curvature.square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) > 10
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@packages
def test_hessian_is_symmetric(name):
    features = random_features(name, 1, 1)
    weights = torch.randn(load(name).invariants(features).shape, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda x: (weights * load(name).invariants(x)).sum(), features)
    matrix = hessian.reshape(features.numel(), -1)
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-12, atol=1e-12)


@packages
def test_operators_pass_the_checks_of_torch(name):
    """Schema, fake tensors and autograd registration of the three operators."""
    module = importlib.import_module(f"generated.{name}.invariants")
    features = random_features(name, 3, 2).requires_grad_()
    cotangent = torch.randn_like(module.invariants(features)).requires_grad_()
    second = torch.randn_like(features).requires_grad_()
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    programs = module.PROGRAMS
    torch.library.opcheck(programs.forward, (features,), test_utils=tests)
    torch.library.opcheck(programs.backward, (features, cotangent), test_utils=tests)
    torch.library.opcheck(programs.double_backward, (features, cotangent, second), test_utils=tests)


@packages
def test_layout_of_the_input_does_not_matter(name):
    features = random_features(name, 6, 4)
    expected = load(name).invariants(features)
    strided = features.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not strided.is_contiguous()
    assert torch.equal(load(name).invariants(strided), expected)
    broadcast = features[:1].expand(6, -1, -1)
    torch.testing.assert_close(load(name).invariants(broadcast), expected[:1].expand(6, -1, -1), rtol=1e-14, atol=0)


def test_blocks_of_atoms_join_without_a_seam():
    module = importlib.import_module("tensorgraph.runtime.programs")
    plain = importlib.import_module("generated.hiphop4.invariants_torch")
    features = random_features("hiphop4", 2 * module.CPU_BLOCK_ROWS // 8 + 3, 8)
    inputs = features, torch.randn(len(features), 7, 8, dtype=torch.float64), torch.randn_like(features)
    for count, name in enumerate(("forward", "backward", "double_backward"), 1):
        program = getattr(plain, name)
        found, expected = module._in_blocks(program, *inputs[:count]), program(*inputs[:count])
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@packages
@given(st.integers(0, 2**32 - 1))
def test_invariance_under_rotation_and_reflection(name, seed):
    """Features of random neighbours before and after an orthogonal map; reflections are among them."""
    random = np.random.default_rng(seed)
    orthogonal, _ = np.linalg.qr(random.standard_normal((3, 3)))
    units = random.standard_normal((4, 5, 3))
    units /= np.linalg.norm(units, axis=-1, keepdims=True)
    weights = torch.from_numpy(random.standard_normal((4, 5, 2)))

    def of(vectors):
        components = load(name).tensor_components(torch.from_numpy(vectors.reshape(-1, 3))).reshape(4, 5, -1)
        return load(name).invariants(torch.einsum("ijm,ijc->imc", components, weights))

    torch.testing.assert_close(of(units @ orthogonal.T), of(units), rtol=1e-9, atol=1e-9)


@packages
def test_tensor_components_are_those_of_the_interface(name):
    units = torch.nn.functional.normalize(torch.randn(7, 3, dtype=torch.float64), dim=1)
    found = load(name).tensor_components(units)
    max_rank = manifest(name)["basis"]["max_rank"]
    assert found.shape == (7, (max_rank + 1) ** 2)
    assert torch.equal(found[:, 0], torch.ones(7, dtype=torch.float64))
    if max_rank >= 3:
        x, y, z = units.unbind(1)
        assert torch.equal(found[:, 1:4], units)
        torch.testing.assert_close(found[:, 4], x * x - 1 / 3)
        torch.testing.assert_close(found[:, 8], y * z)
        torch.testing.assert_close(found[:, 9], x**3 - 3 / 5 * x)
        torch.testing.assert_close(found[:, 13], x * y * z)
    assert load(name).tensor_components(units[:0]).shape == (0, (max_rank + 1) ** 2)
    assert gradcheck(load(name).tensor_components, (units.requires_grad_(),))


def test_wrong_input_is_refused():
    invariants = load("hiphop5").invariants
    with pytest.raises(ValueError, match=r"\[n_atoms, 16, n_channels\], not \[3, 15, 2\]"):
        invariants(torch.zeros(3, 15, 2))
    with pytest.raises(ValueError, match=r"not \[3, 16\]"):
        invariants(torch.zeros(3, 16))
    with pytest.raises(TypeError, match="float32 or float64"):
        invariants(torch.zeros(3, 16, 2, dtype=torch.float16))
    components = load("hiphop5").tensor_components
    with pytest.raises(ValueError, match=r"\[n, 3\], not \[3, 4\]"):
        components(torch.zeros(3, 4))
    with pytest.raises(TypeError, match="float32 or float64"):
        components(torch.zeros(3, 3, dtype=torch.int64))
    backward = importlib.import_module("generated.hiphop5.invariants").PROGRAMS.backward
    with pytest.raises(TypeError, match="one dtype and device"):
        backward(torch.zeros(3, 16, 2), torch.zeros(3, 13, 2, dtype=torch.float64))


def test_fullgraph_compilation_traces_the_operator():
    """Without a back end: that torch.compile sees one graph, with equal numbers and gradients."""
    name = "hiphop4"
    compiled = torch.compile(load(name).invariants, fullgraph=True, backend="aot_eager")
    features = random_features(name, 3, 2).requires_grad_()
    expected = load(name).invariants(features)
    assert torch.equal(compiled(features), expected)
    (ours,) = torch.autograd.grad(compiled(features).sum(), features)
    (theirs,) = torch.autograd.grad(expected.sum(), features)
    torch.testing.assert_close(ours, theirs)


BLOCKER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r}:
            raise ImportError(f'{{name}} must not be imported')
sys.meta_path.insert(0, Blocked())
"""


def run_blocked(code: str, *blocked: str) -> None:
    script = BLOCKER.format(blocked=set(blocked)) + code
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT / "generated", timeout=120)


@packages
def test_package_imports_and_trains_with_torch_alone(name):
    """Found as a top-level module; one training step on forces without tensorgraph, triton, ASE or vesin."""
    code = f"""
import torch, {name} as package
model = package.Model(seed=0)
numbers = torch.tensor([1, 8, 1]); pairs = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
apart = torch.tensor([[1., .2, .1], [-1., -.2, -.1], [.3, 1., 0.], [-.3, -1., 0.]])
result = model.energy_and_forces(numbers, pairs, apart, create_graph=True)
result.forces.square().sum().backward()
assert torch.isfinite(result.energy).all()
"""
    run_blocked(code, "tensorgraph", "triton", "ase", "vesin", "safetensors", "opt_einsum", "pydantic", "rich")


def test_importing_a_package_again_breaks_nothing():
    """By other names, in other ways, and after the other copies are gone: the first import keeps all derivatives."""
    code = """
import gc, sys; sys.path.insert(0, '..')
import torch, hiphop4
from tensorgraph.model import load_package
def check(package):
    x = torch.randn(2, 16, 3, dtype=torch.float64, requires_grad=True)
    sys.modules[package.__name__ + '.invariants'].PROGRAMS.double_backward(x, package.invariants(x), x)
    assert torch.autograd.gradgradcheck(package.invariants, (x,))
    y = package.invariants(x).pow(4).sum()
    for _ in range(3):
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        y = slope.square().sum()
check(hiphop4)
from generated import hiphop4 as other
check(other); check(hiphop4)
for _ in range(3):
    check(load_package('hiphop4')); gc.collect(); check(hiphop4)
"""
    run_blocked(code, "triton")
