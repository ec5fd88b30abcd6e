"""Functions as `torch.library` operators with derivatives: defined piece by piece, shared by equal packages.

`torch.library.custom_op` would import PyTorch's compiler at the first call, for a second.
"""

import contextlib
import functools
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import sources

RUNTIME = sources.digest(sources.runtime())
"""Of all files that an operator may run; read at once, for the folder may be gone at the first call."""


def operator(
    name: str,
    implementation: Callable,
    fake: Callable,
    vjp: Callable,
    printed: Mapping[str, bytes] | None = None,
    schema: str = "",
):
    """The registered operator of this name, made of the runtime and of what was printed for it.

    `schema` says what the implementation takes and gives where its annotations do not.

    Its namespace is a digest of that code: equal operators share a name, others do not. A package whose operator is
    registered already, by itself or by another one, takes that: they are equal.
    """
    code = sources.digest({"runtime": RUNTIME.encode(), **(printed or {})})[:16]
    namespace = getattr(torch.ops, f"tensorgraph_{code}")
    if not hasattr(namespace, name):
        qualified = f"tensorgraph_{code}::{name}"
        schema = schema or torch.library.infer_schema(implementation, mutates_args=())
        torch.library.define(qualified, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(qualified, "default", implementation)
        torch.library.register_fake(qualified, fake)
        torch.library.register_autograd(qualified, _reverse_only(name, vjp), setup_context=_save_inputs)
    return getattr(namespace, name).default


@functools.cache
def gpu_module(name: str, plain: Any) -> Any:
    """The module of Triton kernels of this full name, or the plain PyTorch one where triton is missing."""
    return importlib.import_module(name) if _has_triton() else plain


def dispatch(name: str, kernels: str, plain: Any, arguments: tuple, on_cpu: Callable[[], Any]):
    """A function of these arguments: Triton's on a CUDA device, the C program's on a CPU, or the one in plain PyTorch.

    Args:
        name: of the function in both modules, that of Triton kernels and the plain one.
        kernels: the full name of the module of Triton kernels.
        plain: the module in plain PyTorch, or what has its functions.
        arguments: what the function takes, a tensor first.
        on_cpu: what a CPU gives; None where there is no C program.
    """
    if arguments[0].is_cuda:
        return getattr(gpu_module(kernels, plain), name)(*arguments)
    found = on_cpu() if arguments[0].is_cpu else None
    return getattr(plain, name)(*arguments) if found is None else found


@functools.cache
def _has_triton() -> bool:
    """Whether there is a triton; says once what runs where there is none."""
    try:
        importlib.import_module("triton")
    except ImportError as error:
        warnings.warn(f"tensorgraph: no Triton kernels ({error}); plain PyTorch runs on the GPU", stacklevel=2)
        return False
    return True


def is_recorded() -> bool:
    """Whether PyTorch records a graph of operations (compiled, exported or traced): values must not be asked for."""
    if torch.compiler.is_compiling():  # which cannot compile the questions below
        return True
    return torch._C._len_torch_dispatch_stack() > 0 or torch._ops._len_torch_dispatch_stack_pre_dispatch() > 0


def is_traced() -> bool:
    """Whether operations are recorded below autograd, as by `make_fx`: a graph does not detach what was detached."""
    return is_recorded() and not torch.compiler.is_compiling()


def check_recording(validate: bool) -> None:
    """Raises RuntimeError in TorchScript, and where checks of values would have to be part of an exported graph."""
    if torch.jit.is_tracing() or torch.jit.is_scripting():  # type: ignore[attr-defined]
        raise RuntimeError("TorchScript would fix how the pairs of this input are sorted; use torch.export instead")
    if validate and torch.compiler.is_exporting():
        raise RuntimeError("checks of values cannot be exported: set `validate = False` on the model first")


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context in which everything keeps its dtype: programs are for one, and forces need more than half precision."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def check_transforms(name: str, *tensors: Tensor) -> None:
    """Refuses derivatives that an operator does not have; PyTorch would silently take tangents for zero."""
    if torch.compiler.is_compiling():
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(f"{name} has no forward-mode derivatives, only those of torch.autograd.grad")
    # Tensors of torch.func.grad, that is; those of torch.func.vmap alone need no gradient.
    if any(tensor.requires_grad and torch.func.debug_unwrap(tensor) is not tensor for tensor in tensors):
        raise NotImplementedError(f"{name} has no derivatives by torch.func, only those of torch.autograd.grad")


def _reverse_only(name: str, vjp: Callable) -> Callable:
    """Cotangents may have tangents too."""

    @functools.wraps(vjp)
    def checked(ctx, *grads):
        check_transforms(f"the derivative of {name}", *(grad for grad in grads if grad is not None))
        return vjp(ctx, *grads)

    return checked


def check_types(name: str, tensors: Sequence[Tensor], index: Sequence[Tensor] = ()) -> None:
    """Compiled code does not check types: another one would be read out of bounds."""
    device = tensors[0].device
    if len({(t.dtype, t.device) for t in tensors}) > 1 or tensors[0].dtype not in (torch.float32, torch.float64):
        found = [(t.dtype, t.device) for t in tensors]
        raise TypeError(f"{name} needs one dtype and device, one of float32 and float64, not {found}")
    if any(t.dtype != torch.int64 or t.device != device for t in index):
        raise TypeError(f"{name} needs an int64 index on {device}, not {[(t.dtype, t.device) for t in index]}")


def check_shapes(name: str, tensors: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> None:
    """Compiled code does not check shapes either; `shapes` may go on beyond the tensors that there are."""
    for tensor, shape in zip(tensors, shapes, strict=False):
        if tensor.shape != shape:
            raise ValueError(f"{name} needs {list(shape)}, not {list(tensor.shape)}")


def check_rows(name: str, rows: Sequence[Tensor], n_rows: int) -> None:
    for tensor in rows:
        if tensor.shape != (n_rows,):
            raise ValueError(f"{name} needs an index of [{n_rows}], not {list(tensor.shape)}")


def check_starts(name: str, starts: Tensor, n_groups: int, n_rows: int) -> None:
    """Where the rows of each group begin, and the last ones end; on a GPU the value would have to be waited for."""
    if starts.shape != (n_groups + 1,):
        raise ValueError(f"{name} needs starts of [{n_groups + 1}], not {list(starts.shape)}")
    if starts.is_cpu and (end := starts[-1].item()) != n_rows:
        raise ValueError(f"{name} needs starts that end with {n_rows}, the number of pairs, not {end}")


def alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    """New contiguous tensors of the same shapes, with no values yet."""
    return tuple(tensor.new_empty(tensor.shape) for tensor in tensors)


def _save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))


def derivatives(
    function: Callable, saved: Sequence[Tensor], needed: Sequence[bool], grads: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients of a plain function with respect to those of its saved inputs that need one, given its outputs'.

    They are taken with respect to fresh views: the saved tensors depend on each other (a cotangent on the features,
    say), and paths between them are the outer graph's to follow.
    """
    higher = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [t.view_as(t) if higher else t.detach().requires_grad_(t.requires_grad) for t in saved]
        outputs = function(*inputs)
        dependent = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output.requires_grad]
        wanted = [k for k, is_needed in enumerate(needed) if is_needed]
        result: list[Tensor | None] = [None] * len(inputs)
        if dependent and wanted:
            sources, cotangents = zip(*dependent, strict=True)
            taken = torch.autograd.grad(
                sources, [inputs[k] for k in wanted], cotangents, create_graph=higher, materialize_grads=True
            )
            for k, grad in zip(wanted, taken, strict=True):
                result[k] = grad
    return tuple(result)
