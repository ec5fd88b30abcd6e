"""The sensitivities as an operator: forward, backward and double backward, each one fused call.

For pairs at distance r, with the cutoff function c of r and trained μ and σ of each function ν (Lubbers, Smith and
Barros, J. Chem. Phys. 148, 241715, 2018), s = exp(−½ t²) c with t = σ (1/r − 1/μ). The programs are printed from the
scalar IR: the compiled ones take sums over functions and over pairs within, and keep no array of pairs times functions
besides the values and their cotangents. Exponents below −60 count as far below rounding beside any other: their values
are zero.
"""

import torch
from torch import Tensor

from . import native, sensitivities_torch, trials
from .operators import alike, check_shapes, check_transforms, check_types, derivatives, dispatch, operator

PRINTED = ("sensitivities_torch.py", "sensitivities_triton.py", "sensitivities_cpu.c")
CODE = (*PRINTED, "launching.py", "libraries.py", "native.py", "operators.py", "sensitivities.py", "trials.py")

# Pairs whose sums the C programs leave together: few enough that rounding does not add up over many pairs.
BLOCK = 256

# Numbers (pairs times functions) that plain PyTorch takes at a time on a CPU: temporaries stay in its cache.
BLOCK_NUMBERS = 65_536


def sensitivities(radial: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """The sensitivities of all functions to the distances of pairs.

    Args:
        radial: ``[n_pairs, 2]``, 1/r in 1/Å and the cutoff function; float32 or float64.
        mu: ``[n_functions]`` in Å, the distances that functions are most sensitive to.
        sigma: ``[n_functions]`` in Å, how sharply.

    Returns:
        ``[n_pairs, n_functions]``, differentiable to any order by ``torch.autograd`` in reverse mode.

    Raises:
        ValueError: shapes that do not belong together.
        TypeError: dtypes other than one of float32 and float64.
        NotImplementedError: derivatives in forward mode, or by ``torch.func``.
    """
    check_transforms("sensitivities", radial, mu, sigma)
    check_types("sensitivities", (radial, mu, sigma))
    n_pairs, n_functions = radial.shape[0] if radial.dim() else 0, mu.numel()
    check_shapes("sensitivities", (radial, mu, sigma), ((n_pairs, 2), (n_functions,), (n_functions,)))
    return _forward_operator(radial, torch.stack([1 / mu, sigma]))


def _check(name: str, given: tuple[Tensor, ...]) -> None:
    """Compiled code does not check shapes: a mismatch would read out of bounds."""
    check_types(name, given)
    (n_pairs, *_), (*_, n_functions) = given[0].shape, given[1].shape
    radial, parameters, values = (n_pairs, 2), (2, n_functions), (n_pairs, n_functions)
    check_shapes(name, given, (radial, parameters, values, radial, parameters))


def _forward(radial: Tensor, parameters: Tensor) -> Tensor:
    return _run("forward", (radial, parameters))[0]


def _backward(radial: Tensor, parameters: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return _run("backward", (radial, parameters, grad))


def _double_backward(
    radial: Tensor, parameters: Tensor, grad: Tensor, of_radial: Tensor, of_parameters: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _run("double_backward", (radial, parameters, grad, of_radial, of_parameters))


def _fake_forward(radial, parameters):
    return radial.new_empty((radial.shape[0], parameters.shape[1]))


def _fake_backward(radial, parameters, grad):
    return alike(radial, parameters)


def _fake_double_backward(radial, parameters, grad, *cotangents):
    return alike(radial, parameters, grad)


def _run(name: str, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    _check(f"sensitivities, {name},", given)
    # Printed programs take and give values as one element of rows and columns.
    arguments = (*given[:2], *(grad.unsqueeze(1) for grad in given[2:3]), *given[3:])
    found = dispatch(name, "sensitivities_triton", sensitivities_torch, arguments, lambda: _on_cpu(name, arguments))
    return tuple(tensor.squeeze(1) if tensor.dim() == 3 else tensor for tensor in _as_tuple(found))


def _as_tuple(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def _on_cpu(name: str, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    radial, parameters = given[:2]
    values = radial.new_empty((radial.shape[0], 1, parameters.shape[1]))
    if name == "forward":
        return _compiled(name, given, (values,)) or _in_blocks(name, given)
    of_blocks = parameters.new_empty((-(-radial.shape[0] // BLOCK), *parameters.shape))
    outputs = (*alike(radial), of_blocks, *((values,) if name == "double_backward" else ()))
    if _compiled(name, given, outputs):
        return (outputs[0], of_blocks.sum(0), *outputs[2:])
    return _in_blocks(name, given)


def _compiled(name: str, given: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """The outputs as the C program fills them; None where there is none."""
    (n_pairs, *_), (*_, n_functions) = given[0].shape, given[1].shape
    inputs = [tensor.contiguous() for tensor in given]
    sizes, work = {"COLUMNS": n_functions, "BLOCK": BLOCK}, n_pairs * n_functions
    return native.results("sensitivities_cpu.c", name, (n_pairs,), work, inputs, outputs, **sizes)


def _in_blocks(name: str, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A plain function over blocks of pairs: results of pairs side by side, of parameters summed."""
    (n_pairs, *_), (*_, n_functions) = given[0].shape, given[1].shape
    step = max(1, BLOCK_NUMBERS // max(1, n_functions))
    radial, parameters, *rest = given
    plain = getattr(sensitivities_torch, name)
    results = [
        _as_tuple(plain(radial[k : k + step], parameters, *(t[k : k + step] for t in rest[:2]), *rest[2:]))
        for k in range(0, max(1, n_pairs), step)
    ]
    if len(results) == 1:
        return results[0]
    return tuple(sum(parts) if k == 1 else torch.cat(parts) for k, parts in enumerate(zip(*results, strict=True)))


def _forward_vjp(ctx, grad):
    return _backward_operator(*ctx.saved_tensors, grad)


def _backward_vjp(ctx, *grads):
    return _double_backward_operator(*ctx.saved_tensors, *grads)


def _double_backward_vjp(ctx, *grads):
    """Order three and above: PyTorch differentiates the plain functions."""

    def plain(radial: Tensor, parameters: Tensor, grad: Tensor, *cotangents: Tensor) -> tuple[Tensor, ...]:
        *slopes, of_grad = sensitivities_torch.double_backward(radial, parameters, grad.unsqueeze(1), *cotangents)
        return (*slopes, of_grad.squeeze(1))

    return derivatives(plain, ctx.saved_tensors, ctx.needs_input_grad, grads)


_forward_operator = operator("sensitivities", _forward, _fake_forward, _forward_vjp, CODE)
_backward_operator = operator("sensitivities_backward", _backward, _fake_backward, _backward_vjp, CODE)
_double_backward_operator = operator(
    "sensitivities_double_backward", _double_backward, _fake_double_backward, _double_backward_vjp, CODE
)

native.TRIALS["sensitivities_cpu.c"] = trials.of_sensitivities(
    {"forward": _forward, "backward": _backward, "double_backward": _double_backward}
)
