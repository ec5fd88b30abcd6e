"""The invariants as operators: forward, backward and double backward, each one fused call.

On CUDA tensors the Triton kernels run, on a CPU the C programs; plain PyTorch functions stand in where there is no
triton or no C compiler. All three are ``torch.library`` operators with fake and autograd registrations; derivatives of
order three and above are taken by PyTorch through the plain functions.
"""

import torch
from torch import Tensor

from . import architecture, native, program_torch
from .operators import derivatives, gpu_module, operator

CODE = ("program_torch.py", "program_triton.py", "program_cpu.c", "native.py", "operators.py", "invariants.py")

# Rows (atoms times channels) that plain PyTorch takes at a time: temporaries stay in the cache of a CPU.
CPU_BLOCK_ROWS = 65_536


def invariants(features: Tensor) -> Tensor:
    """The invariant polynomials of tensor features, in the manifest's order.

    Args:
        features: ``[n_atoms, n_components, n_channels]``, any linear combination of rows of ``tensor_components``;
            float32 or float64, on a CPU or a CUDA device. Atoms or channels may be none or one.

    Returns:
        ``[n_atoms, n_invariants, n_channels]``: full contractions of the symmetric traceless tensors whose leading
        coefficient is one. Differentiable to any order by ``torch.autograd`` (not by ``torch.func``).

    Raises:
        ValueError: a wrong shape.
        TypeError: a dtype other than float32 and float64.
    """
    expected = architecture.N_COMPONENTS
    if features.dim() != 3 or features.shape[1] != expected:
        raise ValueError(f"features must be [n_atoms, {expected}, n_channels], not {list(features.shape)}")
    if features.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"features must be float32 or float64, not {features.dtype}")
    return forward(features)


def _in_blocks(function, *tensors: Tensor):
    """A plain function over blocks of atoms, so that memory stays bounded and temporaries in the cache."""
    atoms, _, channels = tensors[0].shape
    step = max(1, CPU_BLOCK_ROWS // max(1, channels))
    if atoms <= step:
        return function(*tensors)
    parts = [function(*(t[start : start + step] for t in tensors)) for start in range(0, atoms, step)]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def _run(name: str, *tensors: Tensor):
    _check(name, tensors)
    if tensors[0].is_cuda:
        return getattr(gpu_module("program_triton", program_torch), name)(*tensors)
    inputs = [tensor.contiguous() for tensor in tensors]
    outputs = FAKES[name](*inputs)
    atoms, _, channels = inputs[0].shape
    arrays = (*inputs, outputs) if isinstance(outputs, Tensor) else (*inputs, *outputs)
    if native.run(name, (atoms, channels), atoms * channels, arrays):
        return outputs
    return _in_blocks(getattr(program_torch, name), *tensors)


def _check(name: str, tensors: tuple[Tensor, ...]) -> None:
    """Kernels believe in shapes: a wrong one would be a wrong address."""
    if len({(t.dtype, t.device) for t in tensors}) > 1:
        raise TypeError(f"{name} needs one dtype and device, not {[(t.dtype, t.device) for t in tensors]}")
    if tensors[0].dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} needs float32 or float64, not {tensors[0].dtype}")
    atoms, channels = tensors[0].shape[0], tensors[0].shape[-1]
    sizes = (architecture.N_COMPONENTS, architecture.N_INVARIANTS, architecture.N_COMPONENTS)
    for tensor, size in zip(tensors, sizes, strict=False):
        if tensor.shape != (atoms, size, channels):
            raise ValueError(f"{name} needs [{atoms}, {size}, {channels}], not {list(tensor.shape)}")


def _forward(features: Tensor) -> Tensor:
    return _run("forward", features)


def _backward(features: Tensor, grad_invariants: Tensor) -> Tensor:
    return _run("backward", features, grad_invariants)


def _double_backward(features: Tensor, grad_invariants: Tensor, grad_grad_features: Tensor) -> tuple[Tensor, Tensor]:
    return _run("double_backward", features, grad_invariants, grad_grad_features)


def _fake_forward(features):
    return features.new_empty((features.shape[0], architecture.N_INVARIANTS, features.shape[2]))


def _fake_backward(features, grad_invariants):
    return features.new_empty(features.shape)


def _fake_double_backward(features, grad_invariants, grad_grad_features):
    return features.new_empty(features.shape), grad_invariants.new_empty(grad_invariants.shape)


FAKES = {"forward": _fake_forward, "backward": _fake_backward, "double_backward": _fake_double_backward}


def _forward_vjp(ctx, grad):
    (features,) = ctx.saved_tensors
    return backward(features, grad)


def _backward_vjp(ctx, grad):
    return double_backward(*ctx.saved_tensors, grad)


def _double_backward_vjp(ctx, *grads):
    """Order three and above: differentiate the plain functions, which PyTorch traces."""
    return derivatives(program_torch.double_backward, ctx.saved_tensors, ctx.needs_input_grad, grads)


forward = operator("forward", _forward, _fake_forward, _forward_vjp, CODE)
backward = operator("backward", _backward, _fake_backward, _backward_vjp, CODE)
double_backward = operator("double_backward", _double_backward, _fake_double_backward, _double_backward_vjp, CODE)
