"""The sensitivities: values and written-out derivatives against those that PyTorch takes of the plain formula."""

import importlib

import numpy as np
import pytest
import torch
from torch import Tensor

from generated import hiphop5
from tests.helpers import TOLERANCE, assert_close, devices, quiet
from tests.helpers import values_and_derivatives as results

module, native = (importlib.import_module(f"{hiphop5.__name__}.{name}") for name in ("sensitivities", "native"))


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
    assert_close(results(module.sensitivities, given, 2), expected, TOLERANCE[dtype])


def test_third_and_fourth_derivatives():
    given = arguments(9, 5)
    assert_close(results(module.sensitivities, given, 4), results(reference, given, 4), 1e-12)


def test_finite_differences():
    inputs = tuple(tensor.requires_grad_() for tensor in arguments(3, 4))
    assert torch.autograd.gradcheck(module.sensitivities, inputs)
    assert torch.autograd.gradgradcheck(module.sensitivities, inputs)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("pairs", [1, 2, 3, 49, 50, 10**6])
def test_blocks_join_without_a_seam(pairs, compiled, monkeypatch):
    given = arguments(50)
    expected = results(reference, given, 2)
    monkeypatch.setattr(module, "BLOCK", pairs)
    monkeypatch.setattr(module, "BLOCK_NUMBERS", 20 * pairs)
    if not compiled:
        monkeypatch.setattr(native, "run", lambda *_, **__: False)
    assert_close(results(module.sensitivities, given, 2), expected, 1e-12)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1.5e-7), (torch.float64, 3e-16)], ids=str)
def test_the_compiled_exponential_is_exact_to_rounding(dtype, bound):
    """Of squares that have no rounding of their own: s = exp(−½ u²) for σ = 1, 1/μ = 0 and c = 1."""
    assert native.available("sensitivities_cpu.c", "forward", dtype, COLUMNS=1, BLOCK=module.BLOCK)
    distances = np.arange(0, 11 * 64) / 64
    radial = torch.from_numpy(np.stack([distances, np.ones_like(distances)], axis=1)).to(dtype)
    found = module.sensitivities(radial, torch.tensor([torch.inf], dtype=dtype), torch.ones(1, dtype=dtype))
    exponents = -(distances.astype(np.longdouble) ** 2) / 2
    expected = np.where(exponents < -60, 0, np.exp(exponents))
    errors = np.abs(found[:, 0].numpy() - expected) / np.where(expected, expected, 1)
    assert errors.max() < bound


def test_what_is_no_number_stays_none():
    """Neither the bits of the compiled exponential nor its zeros hide it."""
    radial, mu, sigma = arguments(3)
    radial[1, 0] = torch.nan
    found = module.sensitivities(radial, mu, sigma)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("n_pairs", "n_functions"), [(0, 20), (5, 0), (1, 1), (7, 20), (100, 33)])
def test_every_target_equals_plain_pytorch(n_pairs, n_functions, dtype):
    """The C programs, and the Triton kernels, interpreted where there is no GPU."""
    pytest.importorskip("triton", reason="triton is not installed on this platform")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = ("sensitivities_triton", "sensitivities_torch")
    kernels, plain = (importlib.import_module(f"{hiphop5.__name__}.{name}") for name in names)
    radial, mu, sigma = arguments(n_pairs, n_functions, dtype)
    generator = torch.Generator().manual_seed(1)
    shapes = ((n_pairs, n_functions), (n_pairs, 2), (2, n_functions))
    drawn = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)
    given = (radial, torch.stack([1 / mu, sigma]), *drawn)
    for count, name in ((2, "forward"), (3, "backward"), (5, "double_backward")):
        expected = module._printed(getattr(plain, name), given[:count])
        assert native.available("sensitivities_cpu.c", name, dtype, COLUMNS=n_functions, BLOCK=module.BLOCK)
        assert_close(module._run(name, given[:count]), expected, TOLERANCE[dtype])
        moved = tuple(tensor.to(device) for tensor in given[:count])
        found = module._printed(getattr(kernels, name), moved)
        assert_close([tensor.cpu() for tensor in found], expected, TOLERANCE[dtype])


def test_results_do_not_depend_on_the_number_of_threads():
    given = arguments(3000)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = results(module.sensitivities, given, 2)
        for count in (2, 3):
            torch.set_num_threads(count)
            found = results(module.sensitivities, given, 2)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    finally:
        torch.set_num_threads(threads)


def test_what_is_far_below_rounding_is_zero_and_so_are_its_derivatives():
    radial, mu, sigma = arguments(1, 1)
    radial[0, 0] = 1 / mu + 11 / sigma  # e^-60.5
    found = results(module.sensitivities, [radial, mu, sigma], 2)
    assert not any(value.any() for value in found)
    radial[0, 0] = 1 / mu + 10.9 / sigma  # e^-59.4
    assert all(value.any() for value in results(module.sensitivities, [radial, mu, sigma], 1))


@quiet
def test_wrong_inputs_are_refused():
    radial, mu, sigma = arguments(5)
    with pytest.raises(ValueError, match=r"sensitivities needs \[5, 2\], not \[5, 3\]"):
        module.sensitivities(torch.ones(5, 3, dtype=torch.float64), mu, sigma)
    with pytest.raises(ValueError, match=r"sensitivities needs \[20\], not \[19\]"):
        module.sensitivities(radial, mu, sigma[1:])
    with pytest.raises(TypeError, match="one of float32 and float64"):
        module.sensitivities(radial, mu, sigma.float())
    with pytest.raises(NotImplementedError, match="sensitivities has no"):
        torch.func.jvp(lambda r: module.sensitivities(r, mu, sigma), (radial,), (radial,))


@quiet
def test_registrations_are_sound():
    """PyTorch's own checks: schema, fake tensors, autograd registration, ahead-of-time dispatch."""
    radial, mu, sigma = arguments(6, 4)
    first = [radial.requires_grad_(), torch.stack([1 / mu, sigma]).requires_grad_()]
    grad, *seconds = (torch.randn(s, dtype=torch.float64).requires_grad_() for s in ((6, 4), (6, 2), (2, 4)))
    torch.library.opcheck(module._forward_operator, tuple(first))
    torch.library.opcheck(module._backward_operator, (*first, grad))
    torch.library.opcheck(module._double_backward_operator, (*first, grad, *seconds))
