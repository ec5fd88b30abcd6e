"""Functions as `torch.library` operators with derivatives: defined piece by piece, shared by equal packages.

`torch.library.custom_op` would import PyTorch's compiler at the first call, for a second.
"""

import functools
import hashlib
import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from . import architecture


@functools.cache
def _namespace(files: tuple[str, ...]) -> str:
    """Named by a digest of the code that the operators run: equal operators share a name, others do not."""
    texts = (Path(__file__).with_name(name).read_bytes() for name in files)
    return f"tensorgraph_{architecture.NAME}_{hashlib.sha256(b''.join(texts)).hexdigest()[:16]}"


def operator(name: str, implementation: Callable, fake: Callable, vjp: Callable, files: tuple[str, ...]):
    """The registered operator of this name, made of these files of the package.

    A package imported a second time takes the first one's: they are equal.
    """
    namespace = getattr(torch.ops, _namespace(files))
    if not hasattr(namespace, name):
        qualified = f"{_namespace(files)}::{name}"
        schema = torch.library.infer_schema(implementation, mutates_args=())
        torch.library.define(qualified, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(qualified, "default", implementation)
        torch.library.register_fake(qualified, fake)
        torch.library.register_autograd(qualified, vjp, setup_context=_save_inputs)
    return getattr(namespace, name).default


@functools.cache
def gpu_module(name: str, plain: ModuleType) -> ModuleType:
    """The package's module of Triton kernels of this name, or the plain PyTorch one where triton is missing."""
    return importlib.import_module(f".{name}", __package__) if _has_triton() else plain


@functools.cache
def _has_triton() -> bool:
    """Whether there is a triton; says once what runs where there is none."""
    try:
        importlib.import_module("triton")
    except ImportError as error:
        warnings.warn(f"{architecture.NAME}: no Triton kernels ({error}); plain PyTorch runs on the GPU", stacklevel=2)
        return False
    return True


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
