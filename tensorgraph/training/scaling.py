"""Natural scales of a new network's weights, from the data: tensors of size one, and invariants of size one.

Invariants are products of up to several tensors: drawn weights give them sizes that differ by orders of magnitude with
the number of their vertices and with the density of neighbours, and a network that is hard to train. So the weights of
every interaction are multiplied by constants that the first structures decide: the tensors E around atoms have a mean
square of one in every channel, the invariants a standard deviation of `factor` to the power of their vertices less one,
and a mean that the bias takes away. The optimiser takes its steps in these scales.

Radial functions are sums of sensitivities, whose weights are drawn, and changed, smoothly from one sensitivity to the
next: over `smoothness` of them. So many narrow sensitivities do not mean radial functions that oscillate. Of functions
of rising frequency, Bessel's and Chebyshev's, the n-th has weights of size n^-smoothness.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tensorgraph.manifest import read_manifest
from tensorgraph.model.batch import Batch
from tensorgraph.model.loading import package_directory
from tensorgraph.training.config import StartConfig
from tensorgraph.training.soap import Scale

FLOOR = 1e-3  # of the covariance of radial weights that no smoothness bends
FAR = 4096.0  # how many times as large tensors are made to find degrees
LEAST = 1e-3  # of a standard deviation, relative to the largest of the invariants


def scale_to_data(model: Any, package: ModuleType, batch: Batch, config: StartConfig) -> dict[Tensor, Scale]:
    """Scale the weights of every interaction of a new model, as the batch says; the scales by parameter.

    Layers with a group norm, which scales invariants itself, keep their mixing.
    """
    if not hasattr(model, "blocks"):
        return _scale_layers(model, package, batch, config)
    scales: dict[Tensor, Scale] = {}
    vertices = [len(graph["ranks"]) for graph in _invariants(package)]

    def scale(layer: Any, arguments: tuple[Any, ...]) -> None:
        mixing = smoothing(len(layer.weights), config.smoothness).to(layer.weights)
        layer.weights.copy_(torch.tensordot(mixing, layer.weights, dims=1))
        around = layer.environment(*arguments)
        size = around.square().mean(dim=(0, 1)).sqrt()
        of_channels = torch.where(size > 0, 1 / size, 1.0).view(1, -1, 1)
        layer.weights.mul_(of_channels)
        scales[layer.weights] = Scale(of_channels.expand_as(layer.weights), mixing)
        if hasattr(layer, "mixing") and not hasattr(layer, "norm"):
            values = package.invariants(around * of_channels.flatten())
            powers = values.new_tensor([config.factor ** (n - 1) for n in vertices]).view(-1, 1, 1)
            _scale_mixing(layer, values, powers, scales)

    handles = [block.interaction.layer.register_forward_pre_hook(scale) for block in model.blocks]
    with torch.no_grad():
        model(*batch.inputs)  # block by block: each sees what the scaled ones before it give
    for handle in handles:
        handle.remove()
    return scales


def _scale_layers(model: Any, package: ModuleType, batch: Batch, config: StartConfig) -> dict[Tensor, Scale]:
    """Of the general form: tensors of size one in the mean, and outputs of the basis as the invariants above."""
    scales: dict[Tensor, Scale] = {}
    radial = read_manifest(package_directory(package))["spec"]["radial"]

    def scale(layer: Any, arguments: tuple[Any, ...]) -> None:
        falling, mixing = _smooth(radial, layer.weights, config.smoothness)
        layer.weights.mul_(falling)
        if mixing is not None:
            layer.weights.copy_(torch.tensordot(mixing, layer.weights, dims=1))
        size = float(layer.environment(*arguments).square().mean().sqrt()) or 1.0
        layer.weights.div_(size)
        scales[layer.weights] = Scale(falling / size, mixing)
        scales.update(_scale_mixings(layer, arguments, config.factor))

    handles = [layer.register_forward_pre_hook(scale) for layer in model.layers]
    with torch.no_grad():
        model(*batch.inputs)  # layer by layer: each sees what the scaled ones before it give
        for name, weights in model.energy_heads.named_parameters():
            if name.startswith("coefficients_"):
                scales[weights] = _scale_coefficients(model, batch, weights, int(name.removeprefix("coefficients_")))
    for handle in handles:
        handle.remove()
    return scales


def _smooth(radial: dict[str, Any], weights: Tensor, length: float) -> tuple[Tensor, Tensor | None]:
    """What makes radial functions smooth: factors of their weights, and a matrix along the first axis.

    Localised functions are alike among neighbours, as in `smoothing`; of functions of rising frequency, the n-th is
    taken n^-length times.
    """
    axis = 2 if radial.get("mix", "none") == "species_pair" else 0
    count = weights.shape[axis]
    if radial["kind"] == "inverse_gaussian":
        return torch.ones_like(weights), None if axis else smoothing(count, length).to(weights)
    shape = [count if k == axis else 1 for k in range(weights.dim())]
    falling = torch.arange(1, count + 1, dtype=torch.float64) ** -length
    return falling.to(weights).view(shape).expand_as(weights), None


def _scale_mixings(layer: Any, arguments: tuple[Any, ...], factor: float) -> dict[Tensor, Scale]:
    """Of the mixings of a layer, for each rank one, where no group norm scales what they mix."""
    scales, start = {}, 0
    values, degrees = _with_channels(layer.outputs(*arguments)), _degrees(layer, arguments)
    for name, mixing in sorted(layer.named_parameters(recurse=False)):
        if not name.startswith("mixing_"):
            continue
        rank, n_outputs = int(name.removeprefix("mixing_")), len(mixing)
        part = slice(start, start + n_outputs * (2 * rank + 1))
        start = part.stop
        if rank == 0 and hasattr(layer, "norm"):
            continue
        powers = factor ** (degrees[part].view(n_outputs, -1).amax(dim=1) - 1)
        of_outputs = powers.view(-1, 1, 1) * _inverse_sizes(values[:, part], n_outputs)
        mixing.mul_(of_outputs)
        scales[mixing] = Scale(of_outputs.expand_as(mixing))
    return scales


def _with_channels(values: Tensor) -> Tensor:
    """Outputs across channels as those of a single one, [n_atoms, n, channels]."""
    return values.unsqueeze(2) if values.dim() == 2 else values


def _degrees(layer: Any, arguments: tuple[Any, ...]) -> Tensor:
    """Of how many tensors each element of the outputs is the product, [n].

    With tensors twice as large, an output of n tensors is 2^n times as large. They are made so large before that what
    the central atom itself adds to the density, in four dimensions, does not count.
    """
    before, sizes = layer.weights.clone(), []
    for factor in (FAR, 2 * FAR):
        layer.weights.copy_(before * factor)
        sizes.append(_with_channels(layer.outputs(*arguments)).double().square().sum(dim=(0, 2)).sqrt())
    layer.weights.copy_(before)
    degrees = torch.where(sizes[0] > 0, sizes[1] / sizes[0], 2.0).log2().round()
    return degrees.clamp(min=1).to(before)


def _inverse_sizes(values: Tensor, n_outputs: int) -> Tensor:
    """[n_atoms, n_outputs * components, channels] -> [n_outputs, channels, 1], one over deviations from means."""
    deviation = (values - values.mean(dim=0)).unflatten(1, (n_outputs, -1)).square().mean(dim=(0, 2)).sqrt()
    inverse: Tensor = 1 / deviation.clamp(min=LEAST * float(deviation.max()) or 1.0).unsqueeze(2)
    return inverse


def _scale_coefficients(model: Any, batch: Batch, weights: Tensor, layer: int) -> Scale:
    """Of a readout that is linear in the basis: every output counts by its deviation over the atoms."""
    found: list[Tensor] = []
    handle = model.layers[layer].register_forward_hook(lambda _module, _inputs, values: found.append(values))
    model(*batch.inputs)
    handle.remove()
    deviation = found[0].std(dim=0, correction=0)
    inverse = 1 / deviation.clamp(min=LEAST * float(deviation.max()) or 1.0)
    weights.mul_(inverse)
    return Scale(inverse.expand_as(weights))


def _scale_mixing(layer: Any, values: Tensor, powers: Tensor, scales: dict[Tensor, Scale]) -> None:
    """values [n_atoms, n_invariants, channels]; powers [n_invariants, 1, 1]."""
    deviation = values.std(dim=0, correction=0)
    deviation = deviation.clamp(min=LEAST * float(deviation.max()) or 1.0).unsqueeze(2)
    of_invariants = powers / deviation
    layer.mixing.mul_(of_invariants)
    layer.self_interaction.bias.sub_((values.mean(dim=0).unsqueeze(2) * layer.mixing).sum(dim=(0, 1)))
    scales[layer.mixing] = Scale(of_invariants.expand_as(layer.mixing))


def smoothing(n: int, length: float) -> Tensor:
    """The symmetric matrix [n, n] (float64) that makes independent elements smooth over `length` of them."""
    places = torch.arange(n, dtype=torch.float64)
    if not length:
        return torch.eye(n, dtype=torch.float64)
    covariance = torch.exp(-((places[:, None] - places) ** 2) / (2 * length**2)) + FLOOR * torch.eye(n)
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.sqrt()) @ vectors.mT
    return root / root.square().sum(dim=1).mean().sqrt()


def _invariants(package: ModuleType) -> list[dict[str, Any]]:
    """The graphs of the package's invariants, from its manifest."""
    invariants: list[dict[str, Any]] = read_manifest(package_directory(package))["basis"]["invariants"]
    return invariants
