"""The model inside what torch wraps around it, and the names that its tensors have without the wrappers.

`torch.compile`, data parallelism and weight averaging each put the model into a module of their own, around the whole
of it or around a part, and so change the names in its state dict.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tensorgraph.errors import CheckpointError

_AROUND = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
_SCRIPTED = (torch.jit.ScriptModule, torch.jit.ScriptFunction)


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The model of a package inside the wrappers that torch put around it.

    Raises CheckpointError, which says what to pass instead, for what has no such model inside or holds only a share.
    """
    while (attribute := _wrapped(model)) is not None:
        model = getattr(model, attribute)
    if isinstance(model, _SCRIPTED):
        raise CheckpointError("this is a compiled program of TorchScript; pass the model that it was made from")
    if not isinstance(model, torch.nn.Module):
        raise CheckpointError(f"this is an object of the type {type(model).__name__}; pass the model of a package")
    _refuse_shares(model)
    if not hasattr(model, "SPEC_DIGEST"):
        inside = [name for name, part in model.named_modules() if hasattr(part, "SPEC_DIGEST")]
        if len(inside) == 1:
            raise CheckpointError(f"{type(model).__name__} is not the model of a package; pass its part {inside[0]}")
    return model


def _wrapped(module: torch.nn.Module) -> str | None:
    """The attribute of a wrapper that holds what is wrapped; None for any other module."""
    if isinstance(module, _AROUND):
        return "module"
    # By its attribute: torch's compiler, which defines the class, takes a second to import.
    return "_orig_mod" if "_orig_mod" in getattr(module, "_modules", {}) else None


def _refuse_shares(model: torch.nn.Module) -> None:
    """Sharded models hold a part of each weight in this process, and saving it would lose the others."""
    for name, module in model.named_modules():
        if type(module).__name__ == "FullyShardedDataParallel" or "_fsdp_wrapped_module" in module._modules:
            raise CheckpointError(
                f"the module {name or type(model).__name__} is sharded by FSDP; pass an unsharded model into which the "
                "full state dict was loaded"
            )
        if "parametrizations" in module._modules:
            raise CheckpointError(
                f"the module {name} is parametrised; call torch.nn.utils.parametrize.remove_parametrizations first"
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if hasattr(tensor, "full_tensor"):
            raise CheckpointError(
                f"{name} is a distributed tensor; pass an unsharded model into which the full state dict was loaded"
            )
        if tensor.is_meta:
            raise CheckpointError(
                f"{name} is on the meta device and has no values; pass a model that was made on a real device"
            )


def tensors_by_name(model: torch.nn.Module) -> dict[str, tuple[str, Tensor]]:
    """The state dict of `model` by the names without wrappers of parts: each with the name that it has with them."""
    paths = {tuple(filter(None, (*name.split("."), _wrapped(part)))) for name, part in model.named_modules()
             if _wrapped(part)}  # fmt: skip
    result: dict[str, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        keys = name.split(".")
        kept = [key for index, key in enumerate(keys) if tuple(keys[: index + 1]) not in paths]
        result[".".join(kept)] = name, tensor
    return result
