"""Printed programs as operators: value, gradient and double gradient, each one fused call.

On CUDA tensors the Triton kernels run, on a CPU the C programs; plain PyTorch functions stand in where there is no
triton or no C compiler. All three are ``torch.library`` operators with fake and autograd registrations; derivatives of
order three and above are taken by PyTorch through the plain functions.
"""

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType

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


class Programs:
    """The programs of a stem in a package over atoms and channels, and their three operators.

    Attributes:
        forward: ``[n, n_inputs, channels]`` -> ``[n, n_outputs, channels]``, differentiable to any order.
        backward: those inputs and a cotangent of the outputs -> the cotangent of the inputs.
        double_backward: those and a cotangent of backward's result -> cotangents of backward's two arguments.
    """

    def __init__(self, package: str, stem: str, n_inputs: int, n_outputs: int, positive: bool = False) -> None:
        """`positive`: what the programs take is a distance, and new C programs are tried with such."""
        self.n_inputs, self.n_outputs = n_inputs, n_outputs
        self.fakes: dict[str, Callable] = {
            "forward": self._fake_forward,
            "backward": self._fake_backward,
            "double_backward": self._fake_double_backward,
        }
        implementations: dict[str, Callable] = {"forward": self._forward, "backward": self._backward}
        implementations["double_backward"] = self._double_backward
        self.printed = Printed(package, stem, trials.of_programs(implementations, n_inputs, n_outputs, positive))
        self.plain, self.source, code = self.printed.plain, self.printed.source, self.printed.texts
        self.forward = operator("forward", self._forward, self._fake_forward, self._forward_vjp, code)
        self.backward = operator("backward", self._backward, self._fake_backward, self._backward_vjp, code)
        self.double_backward = operator(
            "double_backward", self._double_backward, self._fake_double_backward, self._double_backward_vjp, code
        )

    def _forward(self, inputs: Tensor) -> Tensor:
        return self._run("forward", inputs)

    def _backward(self, inputs: Tensor, grad_outputs: Tensor) -> Tensor:
        return self._run("backward", inputs, grad_outputs)

    def _double_backward(self, inputs: Tensor, grad_outputs: Tensor, grad_grad_inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self._run("double_backward", inputs, grad_outputs, grad_grad_inputs)

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

    def _run(self, name: str, *tensors: Tensor):
        self._check(name, tensors)
        # C programs take vectors of channels: one channel of many atoms is many channels of one atom.
        on_cpu = self._transposed if tensors[0].shape[2] == 1 else self._run_on_cpu
        return dispatch(name, self.printed.kernels, self.plain, tensors, lambda: on_cpu(name, *tensors))

    def _transposed(self, name: str, *tensors: Tensor):
        found = self._run_on_cpu(name, *(tensor.permute(2, 1, 0) for tensor in tensors))
        if isinstance(found, Tensor):
            return found.permute(2, 1, 0).contiguous()
        return tuple(tensor.permute(2, 1, 0).contiguous() for tensor in found)

    def _run_on_cpu(self, name: str, *tensors: Tensor):
        inputs = [tensor.contiguous() for tensor in tensors]
        outputs = self.fakes[name](*inputs)
        atoms, _, channels = inputs[0].shape
        found = native.results(self.source, name, (atoms, channels), atoms * channels, inputs, outputs)
        return _in_blocks(getattr(self.plain, name), *inputs) if found is None else found

    def _check(self, name: str, tensors: tuple[Tensor, ...]) -> None:
        """Compiled code does not check shapes: a mismatch would read out of bounds."""
        check_types(name, tensors)
        atoms, channels = tensors[0].shape[0], tensors[0].shape[-1]
        sizes = (self.n_inputs, self.n_outputs, self.n_inputs)
        check_shapes(name, tensors, [(atoms, size, channels) for size in sizes])


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
