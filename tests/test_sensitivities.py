"""The sensitivities: values and written-out derivatives against those that PyTorch takes of the plain formula."""

import importlib

import numpy as np
import pytest
import torch
from torch import Tensor

from generated import hiphop5
from tensorgraph.battery.switching import runtime_modules
from tests.helpers import TOLERANCE, assert_close, assert_equal_bits, devices, quiet, with_threads
from tests.helpers import values_and_derivatives as results

sensitivities = hiphop5.model.sensitivities
native, module = hiphop5._runtime.native, hiphop5._runtime.pointwise


def arguments(n_pairs: int, n_functions: int = 20, dtype: torch.dtype = torch.float64, device: str = "cpu"):
    generator = torch.Generator().manual_seed(n_pairs)
    radial = torch.rand(n_pairs, 2, generator=generator, dtype=torch.float64) * 1.5 + 0.1
    mu = 1 / torch.linspace(0.2, 1.3, n_functions, dtype=torch.float64)
    sigma = 20 + torch.rand(n_functions, generator=generator, dtype=torch.float64)
    return [tensor.to(device, dtype) for tensor in (radial, mu, sigma)]


def reference(radial: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    inverse_distance, cutoff = radial.split(1, dim=1)
    return torch.exp(-0.5 * (sigma * (inverse_distance - 1 / mu)).square()) * cutoff


@devices
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("n_pairs", "n_functions"), [(0, 20), (1, 1), (7, 20), (300, 33)])
def test_values_and_derivatives(n_pairs, n_functions, dtype, device):
    given = arguments(n_pairs, n_functions, dtype, device)
    expected = results(reference, [tensor.double().cpu() for tensor in given], 2)
    assert_close(results(sensitivities, given, 2), expected, TOLERANCE[dtype])


def test_third_and_fourth_derivatives():
    given = arguments(9, 5)
    assert_close(results(sensitivities, given, 4), results(reference, given, 4), 1e-12)


def test_finite_differences():
    inputs = tuple(tensor.requires_grad_() for tensor in arguments(3, 4))
    assert torch.autograd.gradcheck(sensitivities, inputs)
    assert torch.autograd.gradgradcheck(sensitivities, inputs)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("pairs", [1, 2, 3, 49, 50, 10**6])
def test_blocks_join_without_a_seam(pairs, compiled, monkeypatch):
    given = arguments(50)
    expected = results(reference, given, 2)
    for runtime in runtime_modules("pointwise"):  # operators belong to the copy that was imported first
        monkeypatch.setattr(runtime, "BLOCK", pairs)
        monkeypatch.setattr(runtime, "BLOCK_ELEMENTS", 20 * pairs)
    for runtime in runtime_modules("native") if not compiled else ():
        monkeypatch.setattr(runtime, "run", lambda *_, **__: False)
    assert_close(results(sensitivities, given, 2), expected, 1e-12)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1.5e-7), (torch.float64, 3e-16)], ids=str)
def test_the_compiled_exponential_is_exact_to_rounding(dtype, bound):
    """Of squares that have no rounding of their own: s = exp(−½ u²) for σ = 1, 1/μ = 0 and c = 1."""
    assert native.available(sensitivities.source, "forward", dtype, COLUMNS=1, BLOCK=module.BLOCK)
    distances = np.arange(0, 11 * 64) / 64
    radial = torch.from_numpy(np.stack([distances, np.ones_like(distances)], axis=1)).to(dtype)
    found = sensitivities(radial, torch.tensor([torch.inf], dtype=dtype), torch.ones(1, dtype=dtype))
    exponents = -(distances.astype(np.longdouble) ** 2) / 2
    expected = np.where(exponents < -60, 0, np.exp(exponents))
    errors = np.abs(found[:, 0].numpy() - expected) / np.where(expected, expected, 1)
    assert errors.max() < bound


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FC00001, 0x7FC001FF, 0x7FFFFFFF, -1])
@pytest.mark.parametrize("place", ["radial", "mu", "sigma"])
def test_what_is_no_number_stays_none(place, bits):
    """Neither its bits, which the compiled exponential computes with, nor the zeros of far distances hide it."""
    nan = torch.tensor([bits], dtype=torch.int64).to(torch.int32).view(torch.float32)
    assert nan.isnan()
    given = dict(zip(("radial", "mu", "sigma"), arguments(3, 5, torch.float32), strict=True))
    given[place].view(-1)[-2 if place == "radial" else -1] = nan  # 1/r of the last pair, or of the last function
    found, of_radial, *_ = results(sensitivities, list(given.values()), 1)
    expected = torch.zeros(3, 5, dtype=torch.bool)
    expected[(2, slice(None)) if place == "radial" else (slice(None), 4)] = True
    assert torch.equal(found.isnan(), expected)
    assert torch.equal(of_radial[:, 0].isnan(), expected.any(1))


def drawn(n_pairs: int, n_functions: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """What the programs take: forward the first two, backward three, double backward all five."""
    radial, mu, sigma = arguments(n_pairs, n_functions, dtype)
    generator = torch.Generator().manual_seed(1)
    shapes = ((n_pairs, 1, n_functions), (n_pairs, 2), (2, n_functions))
    cotangents = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)
    return (radial, torch.stack([1 / mu, sigma]), *cotangents)


def of_module(name: str, program: str, given: tuple[Tensor, ...]) -> list[Tensor]:
    """What a printed module's function gives."""
    found = getattr(importlib.import_module(f"{hiphop5.__name__}.sensitivities_{name}"), program)(*given)
    return list(found) if isinstance(found, tuple) else [found]


sizes = pytest.mark.parametrize(("n_pairs", "n_functions"), [(0, 20), (5, 0), (1, 1), (7, 20), (100, 33)])
programs = pytest.mark.parametrize(("program", "count"), [("forward", 2), ("backward", 3), ("double_backward", 5)])


@sizes
@programs
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_compiled_programs_equal_plain_pytorch(n_pairs, n_functions, program, count, dtype):
    given = drawn(n_pairs, n_functions, dtype)[:count]
    assert native.available(sensitivities.source, program, dtype, COLUMNS=n_functions, BLOCK=module.BLOCK)
    assert_close(sensitivities._run(program, given), of_module("torch", program, given), TOLERANCE[dtype])


@sizes
@programs
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_kernels_equal_plain_pytorch(n_pairs, n_functions, program, count, dtype):
    """Interpreted where there is no GPU."""
    pytest.importorskip("triton", reason="triton is not installed on this platform")
    given = drawn(n_pairs, n_functions, dtype)[:count]
    moved = tuple(tensor.to("cuda" if torch.cuda.is_available() else "cpu") for tensor in given)
    found = [tensor.cpu() for tensor in of_module("triton", program, moved)]
    assert_close(found, of_module("torch", program, given), TOLERANCE[dtype])


@pytest.mark.parametrize("n_pairs", [3000, 250_000])
def test_results_do_not_depend_on_the_number_of_threads(n_pairs):
    """Few pairs, and so many that PyTorch, too, shares the sum over blocks among threads."""
    given = drawn(n_pairs, 20, torch.float32)
    assert_equal_bits(*with_threads((1, 2, 3), lambda: sensitivities._run("double_backward", given)))


@pytest.mark.parametrize("strict", [True, False])
def test_exported_for_any_number_of_pairs(strict):
    class Exported(torch.nn.Module):
        def forward(self, radial: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
            return sensitivities(radial, mu, sigma)

    shapes = ({0: torch.export.Dim.DYNAMIC}, None, None)
    exported = torch.export.export(Exported(), tuple(arguments(5, 4)), dynamic_shapes=shapes, strict=strict).module()
    for n_pairs in (1, 5, 9):
        given = arguments(n_pairs, 4)
        assert torch.equal(exported(*given), sensitivities(*given))


def test_what_is_far_below_rounding_is_zero_and_so_are_its_derivatives():
    radial, mu, sigma = arguments(1, 1)
    radial[0, 0] = 1 / mu + 11 / sigma  # e^-60.5
    found = results(sensitivities, [radial, mu, sigma], 2)
    assert not any(value.any() for value in found)
    radial[0, 0] = 1 / mu + 10.9 / sigma  # e^-59.4
    assert all(value.any() for value in results(sensitivities, [radial, mu, sigma], 1))


@quiet
def test_wrong_inputs_are_refused():
    radial, mu, sigma = arguments(5)
    with pytest.raises(ValueError, match=r"sensitivities needs \[5, 2\], not \[5, 3\]"):
        sensitivities(torch.ones(5, 3, dtype=torch.float64), mu, sigma)
    with pytest.raises(ValueError, match=r"sensitivities needs \[20\], not \[19\]"):
        sensitivities(radial, mu, sigma[1:])
    with pytest.raises(TypeError, match="one of float32 and float64"):
        sensitivities(radial, mu, sigma.float())
    with pytest.raises(NotImplementedError, match="sensitivities has no"):
        torch.func.jvp(lambda r: sensitivities(r, mu, sigma), (radial,), (radial,))


@quiet
def test_registrations_are_sound():
    """PyTorch's own checks: schema, fake tensors, autograd registration, ahead-of-time dispatch."""
    radial, mu, sigma = arguments(6, 4)
    first = [radial.requires_grad_(), torch.stack([1 / mu, sigma]).requires_grad_()]
    grad, *seconds = (torch.randn(s, dtype=torch.float64).requires_grad_() for s in ((6, 1, 4), (6, 2), (2, 4)))
    torch.library.opcheck(sensitivities.forward, tuple(first))
    torch.library.opcheck(sensitivities.backward, (*first, grad))
    torch.library.opcheck(sensitivities.double_backward, (*first, grad, *seconds))
