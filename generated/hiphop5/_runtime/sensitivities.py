"""The sensitivities as operators: forward, backward and double backward, each one fused call.

For pairs at distance r, with the cutoff function c of r and trained μ and σ of each function ν (Lubbers, Smith and
Barros, J. Chem. Phys. 148, 241715, 2018), s = exp(−½ t²) c with t = σ (1/r − 1/μ). The programs are printed from the
scalar IR: the compiled ones take sums over functions and over pairs within, and keep no array of pairs times functions
besides the values and their cotangents. Exponents below −60 count as far below rounding beside any other: their values
are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import native, trials
from .operators import alike, check_shapes, check_transforms, check_types, derivatives, dispatch, operator
from .programs import Printed

# Pairs whose sums the C programs leave together: few enough that rounding does not add up over many pairs.
BLOCK = 256

# Numbers (pairs times functions) that plain PyTorch takes at a time on a CPU: temporaries stay in its cache.
BLOCK_NUMBERS = 65_536


class Sensitivities:
    """The programs of a stem in a package over pairs and functions, as operators; called, the first of them."""

    def __init__(self, package: str, stem: str = "sensitivities") -> None:
        implementations: dict[str, Callable] = {"forward": self._forward, "backward": self._backward}
        implementations["double_backward"] = self._double_backward
        self.printed = Printed(package, stem, trials.of_sensitivities(implementations))
        self.plain, self.source, code = self.printed.plain, self.printed.source, self.printed.texts
        self.forward = operator("sensitivities", self._forward, _fake_forward, self._forward_vjp, code)
        self.backward = operator("sensitivities_backward", self._backward, _fake_backward, self._backward_vjp, code)
        self.double_backward = operator(
            "sensitivities_double_backward",
            self._double_backward,
            _fake_double_backward,
            self._double_backward_vjp,
            code,
        )

    def __call__(self, radial: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
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
        values: Tensor = self.forward(radial, torch.stack([1 / mu, sigma]))
        return values

    def _forward(self, radial: Tensor, parameters: Tensor) -> Tensor:
        return self._run("forward", (radial, parameters))[0]

    def _backward(self, radial: Tensor, parameters: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        of_radial, of_parameters = self._run("backward", (radial, parameters, grad))
        return of_radial, of_parameters

    def _double_backward(
        self, radial: Tensor, parameters: Tensor, grad: Tensor, of_radial: Tensor, of_parameters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        first, second, third = self._run("double_backward", (radial, parameters, grad, of_radial, of_parameters))
        return first, second, third

    def _forward_vjp(self, ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        slopes: tuple[Tensor, ...] = self.backward(*ctx.saved_tensors, grad)
        return slopes

    def _backward_vjp(self, ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        slopes: tuple[Tensor, ...] = self.double_backward(*ctx.saved_tensors, *grads)
        return slopes

    def _double_backward_vjp(self, ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Order three and above: PyTorch differentiates the plain functions."""

        def plain(radial: Tensor, parameters: Tensor, grad: Tensor, *cotangents: Tensor) -> tuple[Tensor, ...]:
            *slopes, of_grad = self.plain.double_backward(radial, parameters, grad.unsqueeze(1), *cotangents)
            return (*slopes, of_grad.squeeze(1))

        return derivatives(plain, ctx.saved_tensors, ctx.needs_input_grad, grads)

    def _run(self, name: str, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _check(f"sensitivities, {name},", given)
        # Printed programs take and give values as one element of rows and columns.
        arguments = (*given[:2], *(grad.unsqueeze(1) for grad in given[2:3]), *given[3:])
        kernels = self.printed.kernels
        found = _as_tuple(dispatch(name, kernels, self.plain, arguments, lambda: self._on_cpu(name, arguments)))
        return tuple(tensor.squeeze(1) if tensor.dim() == 3 else tensor for tensor in found)

    def _on_cpu(self, name: str, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        radial, parameters = given[:2]
        values = radial.new_empty((radial.shape[0], 1, parameters.shape[1]))
        if name == "forward":
            return self._compiled(name, given, (values,)) or self._in_blocks(name, given)
        of_blocks = parameters.new_empty((-(-radial.shape[0] // BLOCK), *parameters.shape))
        outputs = (*alike(radial), of_blocks, *((values,) if name == "double_backward" else ()))
        if self._compiled(name, given, outputs):
            return (outputs[0], of_blocks.sum(0), *outputs[2:])
        return self._in_blocks(name, given)

    def _compiled(self, name: str, given: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """The outputs as the C program fills them; None where there is none."""
        (n_pairs, *_), (*_, n_functions) = given[0].shape, given[1].shape
        inputs = [tensor.contiguous() for tensor in given]
        sizes, work = {"COLUMNS": n_functions, "BLOCK": BLOCK}, n_pairs * n_functions
        filled: tuple[Tensor, ...] | None = native.results(
            self.source, name, (n_pairs,), work, inputs, outputs, **sizes
        )
        return filled

    def _in_blocks(self, name: str, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A plain function over blocks of pairs: results of pairs side by side, of parameters summed."""
        (n_pairs, *_), (*_, n_functions) = given[0].shape, given[1].shape
        step = max(1, BLOCK_NUMBERS // max(1, n_functions))
        radial, parameters, *rest = given
        plain = getattr(self.plain, name)
        results = [
            _as_tuple(plain(radial[k : k + step], parameters, *(t[k : k + step] for t in rest[:2]), *rest[2:]))
            for k in range(0, max(1, n_pairs), step)
        ]
        if len(results) == 1:
            return results[0]
        return tuple(
            sum(parts[1:], parts[0]) if k == 1 else torch.cat(parts)
            for k, parts in enumerate(zip(*results, strict=True))
        )


def _check(name: str, given: tuple[Tensor, ...]) -> None:
    """Compiled code does not check shapes: a mismatch would read out of bounds."""
    check_types(name, given)
    (n_pairs, *_), (*_, n_functions) = given[0].shape, given[1].shape
    radial, parameters, values = (n_pairs, 2), (2, n_functions), (n_pairs, n_functions)
    check_shapes(name, given, (radial, parameters, values, radial, parameters))


def _as_tuple(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def _fake_forward(radial, parameters):
    return radial.new_empty((radial.shape[0], parameters.shape[1]))


def _fake_backward(radial, parameters, grad):
    return alike(radial, parameters)


def _fake_double_backward(radial, parameters, grad, *cotangents):
    return alike(radial, parameters, grad)
