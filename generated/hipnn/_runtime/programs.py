"""Printed programs as operators: value, gradient and double gradient, each one fused call.

On CUDA tensors the Triton kernels run, on a CPU the C programs; plain PyTorch functions stand in where there is no
triton or no C compiler. All three are ``torch.library`` operators with fake and autograd registrations; derivatives of
order three and above are taken by PyTorch through the plain functions.
"""

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import native, sources, trials
from .operators import alike, check_shapes, check_types, derivatives, dispatch, operator

# Rows (atoms times channels) that plain PyTorch takes at a time: temporaries stay in the cache of a CPU.
CPU_BLOCK_ROWS = 65_536


class Printed:
    """What was printed for the files STEM_torch.py, STEM_cpu.c and STEM_triton.py of a package.

    Attributes:
        plain: the module in plain PyTorch.
        kernels: the full name of the module of Triton kernels, which needs triton.
        texts: the files by name, without their headers.
        source: the programs in C.
    """

    def __init__(self, package: str, stem: str, trial: trials.Trial) -> None:
        self.plain: ModuleType = importlib.import_module(f"{package}.{stem}_torch")
        self.kernels = f"{package}.{stem}_triton"
        self.texts: Mapping[str, bytes] = sources.printed(package, stem)
        self.source = native.Source.of(f"{stem}_cpu.c", self.texts[f"{stem}_cpu.c"], trial)


class Operators:
    """Value, gradient and double gradient over atoms and channels as operators; a subclass says how they run.

    Attributes:
        forward: ``[n, n_inputs, channels]`` -> ``[n, n_outputs, channels]``, differentiable to any order.
        backward: those inputs and a cotangent of the outputs -> the cotangent of the inputs.
        double_backward: those and a cotangent of backward's result -> cotangents of backward's two arguments.
    """

    def __init__(self, n_inputs: int, n_outputs: int, plain: Any, code: Mapping[str, bytes]) -> None:
        """`plain` has the three as functions of PyTorch; `code` is what was printed for them, by file."""
        self.n_inputs, self.n_outputs, self.plain = n_inputs, n_outputs, plain
        self.fakes: dict[str, Callable] = {
            "forward": self._fake_forward,
            "backward": self._fake_backward,
            "double_backward": self._fake_double_backward,
        }
        self.forward = operator("forward", self._forward, self._fake_forward, self._forward_vjp, code)
        self.backward = operator("backward", self._backward, self._fake_backward, self._backward_vjp, code)
        self.double_backward = operator(
            "double_backward", self._double_backward, self._fake_double_backward, self._double_backward_vjp, code
        )

    @property
    def implementations(self) -> dict[str, Callable]:
        """What the operators run, in their order."""
        return {"forward": self._forward, "backward": self._backward, "double_backward": self._double_backward}

    def _forward(self, inputs: Tensor) -> Tensor:
        return self._checked("forward", inputs)

    def _backward(self, inputs: Tensor, grad_outputs: Tensor) -> Tensor:
        return self._checked("backward", inputs, grad_outputs)

    def _double_backward(self, inputs: Tensor, grad_outputs: Tensor, grad_grad_inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self._checked("double_backward", inputs, grad_outputs, grad_grad_inputs)

    def _fake_forward(self, inputs):
        return inputs.new_empty((inputs.shape[0], self.n_outputs, inputs.shape[2]))

    def _fake_backward(self, inputs, grad_outputs):
        return inputs.new_empty(inputs.shape)

    def _fake_double_backward(self, inputs, grad_outputs, grad_grad_inputs):
        return alike(inputs, grad_outputs)

    def _forward_vjp(self, ctx, grad):
        (inputs,) = ctx.saved_tensors
        return self.backward(inputs, grad)

    def _backward_vjp(self, ctx, grad):
        return self.double_backward(*ctx.saved_tensors, grad)

    def _double_backward_vjp(self, ctx, *grads):
        """Order three and above: differentiate the plain functions, which PyTorch traces."""
        return derivatives(self.plain.double_backward, ctx.saved_tensors, ctx.needs_input_grad, grads)

    def _checked(self, name: str, *tensors: Tensor):
        """Compiled code does not check shapes: a mismatch would read out of bounds."""
        check_types(name, tensors)
        atoms, channels = tensors[0].shape[0], tensors[0].shape[-1]
        n, m = self.n_inputs, self.n_outputs
        check_shapes(name, tensors, [(atoms, size, channels) for size in (n, m, n, n, m)])
        return self._run(name, *tensors)

    def _run(self, name: str, *tensors: Tensor):
        """The function of this name of these tensors."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its operators run")


class Programs(Operators):
    """The printed programs of a stem in a package, and their three operators."""

    def __init__(self, package: str, stem: str, n_inputs: int, n_outputs: int, positive: bool = False) -> None:
        """`positive`: what the programs take is a distance, and new C programs are tried with such."""
        trial = trials.of_programs(self.implementations, n_inputs, n_outputs, positive)
        self.printed = Printed(package, stem, trial)
        self.source = self.printed.source
        super().__init__(n_inputs, n_outputs, self.printed.plain, self.printed.texts)

    def _run(self, name: str, *tensors: Tensor):
        return dispatch(name, self.printed.kernels, self.plain, tensors, lambda: self._run_on_cpu(name, *tensors))

    def _run_on_cpu(self, name: str, *tensors: Tensor):
        inputs = [tensor.contiguous() for tensor in tensors]
        outputs = self.fakes[name](*inputs)
        atoms, _, channels = inputs[0].shape
        found = native.results(self.source, name, (atoms, channels), atoms * channels, inputs, outputs)
        return _in_blocks(getattr(self.plain, name), *inputs) if found is None else found


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
