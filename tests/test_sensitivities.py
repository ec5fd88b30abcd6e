"""The sensitivities: values and written-out derivatives against those that PyTorch takes of the plain formula."""

import importlib

import pytest
import torch
from torch import Tensor

from generated import hiphop5
from tests.helpers import TOLERANCE, assert_close, devices, quiet
from tests.helpers import values_and_derivatives as results

module = importlib.import_module(f"{hiphop5.__name__}.sensitivities")


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


@pytest.mark.parametrize("block", [1, 40, 61, 10**6])
def test_blocks_join_without_a_seam(block, monkeypatch):
    given = arguments(50)
    expected = results(reference, given, 2)
    monkeypatch.setattr(module, "BLOCK_NUMBERS", block)
    assert_close(results(module.sensitivities, given, 2), expected, 1e-12)


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
    first = [tensor.requires_grad_() for tensor in arguments(6, 4)]
    grad, *seconds = (torch.randn(s, dtype=torch.float64).requires_grad_() for s in ((6, 4), (6, 2), (4,), (4,)))
    torch.library.opcheck(module._forward_operator, tuple(first))
    torch.library.opcheck(module._backward_operator, (*first, grad))
    torch.library.opcheck(module._double_backward_operator, (*first, grad, *seconds))
