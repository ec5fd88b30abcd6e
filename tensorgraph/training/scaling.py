"""Natural scales of a new network's weights, from the data: tensors of size one, and invariants of size one.

Invariants are products of up to several tensors: drawn weights give them sizes that differ by orders of magnitude with
the number of their vertices and with the density of neighbours, and a network that is hard to train. So the weights of
every interaction are multiplied by constants that the first structures decide: the tensors E around atoms have a mean
square of one in every channel, the invariants a standard deviation of `factor` to the power of their vertices less one,
and a mean that the bias takes away. The optimiser takes its steps in these scales.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tensorgraph.manifest import read_manifest
from tensorgraph.runtime.batch import Batch
from tensorgraph.runtime.loading import package_directory

LEAST = 1e-3  # of a standard deviation, relative to the largest of the invariants


def scale_to_data(model: Any, package: ModuleType, batch: Batch, factor: float) -> dict[Tensor, Tensor]:
    """Scale the weights of every interaction of a new model, as the batch says; the scales by parameter.

    Layers with a group norm, which scales invariants itself, keep their mixing.
    """
    scales: dict[Tensor, Tensor] = {}
    vertices = [len(graph["ranks"]) for graph in _invariants(package)]

    def scale(layer: Any, arguments: tuple[Any, ...]) -> None:
        around = layer.environment(*arguments)
        size = around.square().mean(dim=(0, 1)).sqrt()
        of_channels = torch.where(size > 0, 1 / size, 1.0).view(1, -1, 1)
        layer.weights.mul_(of_channels)
        scales[layer.weights] = of_channels.expand_as(layer.weights)
        if layer.mixing is not None and layer.norm is None:
            values = package.invariants(around * of_channels.flatten())
            powers = values.new_tensor([factor ** (n - 1) for n in vertices]).view(-1, 1, 1)
            _scale_mixing(layer, values, powers, scales)

    handles = [block.interaction.layer.register_forward_pre_hook(scale) for block in model.blocks]
    with torch.no_grad():
        model(*batch.inputs)  # block by block: each sees what the scaled ones before it give
    for handle in handles:
        handle.remove()
    return scales


def _scale_mixing(layer: Any, values: Tensor, powers: Tensor, scales: dict[Tensor, Tensor]) -> None:
    """values [n_atoms, n_invariants, channels]; powers [n_invariants, 1, 1]."""
    deviation = values.std(dim=0, correction=0)
    deviation = deviation.clamp(min=LEAST * float(deviation.max()) or 1.0).unsqueeze(2)
    of_invariants = powers / deviation
    layer.mixing.mul_(of_invariants)
    layer.self_interaction.bias.sub_((values.mean(dim=0).unsqueeze(2) * layer.mixing).sum(dim=(0, 1)))
    scales[layer.mixing] = of_invariants.expand_as(layer.mixing)


def _invariants(package: ModuleType) -> list[dict[str, Any]]:
    """The graphs of the package's invariants, from its manifest."""
    invariants: list[dict[str, Any]] = read_manifest(package_directory(package))["basis"]["invariants"]
    return invariants
