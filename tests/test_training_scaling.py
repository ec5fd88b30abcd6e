"""The scales in which a new network starts and is trained: sizes of tensors and of outputs, smooth radial functions."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms

from tensorgraph.compiler import compile_spec
from tensorgraph.emit import write_package
from tensorgraph.manifest import read_manifest
from tensorgraph.model import load_package
from tensorgraph.model.batch import batch_structures
from tensorgraph.model.loading import package_directory
from tensorgraph.spec import parse_spec
from tensorgraph.training.config import StartConfig
from tensorgraph.training.scaling import LEAST, scale_to_data

SHORT = """
name: short
basis: {family: hiphop, body_order: 4, max_rank: 2}
network:
  species: [Cu]
  features: 4
  interactions: 2
  atom_layers: 0
  sensitivity: {functions: 5, soft_min: 1.5, soft_max: 3.0, cutoff: 4.0}
  group_norm: false
"""
GENERAL = """
name: general
species: [Cu]
radial: {kind: bessel, functions: 5, cutoff: 4.0}
layers:
  - density: {max_rank: 2, channels: 4}
    basis: {family: linear, body_order: 4, outputs: [0, 1]}
    update: {}
  - density: {max_rank: 2, channels: 3, of: features}
    basis: {family: linear, body_order: 3}
    update: {}
readout: {kind: linear, of: all}
"""
FOUR = """
name: four
species: [Cu]
radial: {kind: hypersphere, cutoff: 4.0}
layers:
  - density: {dimension: 4, max_rank: 2, channels: 4, self: 2.0}
    basis: {family: linear, body_order: 4}
    update: {}
readout: {kind: linear}
"""
ACROSS = """
name: across
species: [Cu]
radial: {kind: chebyshev, functions: 5, soft_min: 1.0, cutoff: 4.0, mix: species_pair, channels: 2}
layers:
  - density: {max_rank: 2}
    basis: {family: linear, body_order: 3, across: channels}
    update: {}
readout: {kind: linear}
"""
GAUSSIANS = GENERAL.replace("bessel", "inverse_gaussian").replace("general", "gaussians")
START = StartConfig(factor=0.25, smoothness=2.0)


def disordered() -> list[Atoms]:
    """Crystals would have tensors near zero, whose sizes are not taken for what they are."""
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3) * 2.2
    return [Atoms("Cu27", grid + random.uniform(-0.7, 0.7, (27, 3))) for _ in range(4)]


TEXTS = {"short": SHORT, "general": GENERAL, "gaussians": GAUSSIANS, "four": FOUR, "across": ACROSS}


@pytest.fixture(scope="module", params=TEXTS)
def scaled(request, tmp_path_factory):
    """A new model, scaled to data, its scales, its package and the data."""
    package = load_package(
        write_package(compile_spec(parse_spec(TEXTS[request.param])).package, tmp_path_factory.mktemp("p"))
    )
    model, batch = package.Model(seed=0).double(), batch_structures(disordered(), 4.0, dtype=torch.float64)
    scales = scale_to_data(model, package, batch, START)
    layers = model.layers if hasattr(model, "layers") else [block.interaction.layer for block in model.blocks]
    return SimpleNamespace(model=model, batch=batch, scales=scales, package=package, layers=list(layers))


def given_to(scaled, layer):
    """What the layer is called with."""
    found = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: found.append(arguments))
    scaled.model(*scaled.batch.inputs)
    handle.remove()
    return found[0]


def test_tensors_have_size_one(scaled):
    for layer in scaled.layers:
        around = layer.environment(*given_to(scaled, layer))
        if scaled.model.NAME == "four":  # what the central atom adds is not scaled
            assert 0.5 < around.square().mean().item() < 3
        else:
            assert around.square().mean().item() == pytest.approx(1.0, rel=1e-9)


def test_outputs_fall_with_their_vertices(scaled):
    """An output of n tensors enters with a deviation of factor^(n-1) per unit of its drawn weight, vectors too."""
    manifest = read_manifest(package_directory(scaled.package))
    bases = [manifest["basis"], *(later["basis"] for later in manifest.get("later_layers", []))]
    for number, layer in enumerate(scaled.layers):
        around = layer.environment(*given_to(scaled, layer))
        around = around.flatten(1).unsqueeze(2) if scaled.model.NAME == "across" else around
        name = "invariants" if number == 0 or len(bases) == 1 else f"invariants_{number + 1}"
        values = getattr(importlib.import_module(f"{scaled.package.__name__}.model"), name)(around).detach()
        start = 0
        for rank in (0, 1):
            mixing = getattr(layer, f"mixing_{rank}", getattr(layer, "mixing", None) if rank == 0 else None)
            graphs = [one for one in bases[min(number, len(bases) - 1)]["invariants"] if _rank(one) == rank]
            if mixing is None or not graphs:
                continue
            part = values[:, start : start + len(graphs) * (2 * rank + 1)].unflatten(1, (len(graphs), -1))
            start += len(graphs) * (2 * rank + 1)
            deviation = (part - part.mean(dim=0)).square().mean(dim=(0, 2)).sqrt()  # [n_outputs, channels]
            vertices = torch.tensor([len(one["ranks"]) - (rank > 0) for one in graphs], dtype=torch.float64)
            found = scaled.scales[mixing].size[:, :, 0] * deviation
            expected = (START.factor ** (vertices - 1)).unsqueeze(1).expand_as(found)
            counted = deviation > LEAST * deviation.max()  # others are taken for as large as that
            assert counted.sum() > counted.numel() / 2
            torch.testing.assert_close(found[counted], expected[counted], rtol=1e-6, atol=0)


def _rank(invariant) -> int:
    probe = invariant.get("probe")
    return invariant["ranks"][probe] if probe is not None else 0


def test_radial_functions_are_smooth(scaled):
    """Functions of rising frequency have falling scales; localised ones are mixed with their neighbours."""
    for layer in scaled.layers:
        scale = scaled.scales[layer.weights]
        if scaled.model.NAME == "four":  # a single function
            assert scale.mixing is None
            continue
        if scaled.model.NAME in ("general", "across"):
            assert scale.mixing is None
            sizes = scale.size[:, 0, 0] if scale.size.dim() == 3 else scale.size[0, 0, :, 0]
            falling = sizes / sizes[0]
            torch.testing.assert_close(falling, torch.arange(1, 6, dtype=torch.float64) ** -2.0)
        else:
            assert scale.mixing is not None
            assert (scale.mixing[0, 1] / scale.mixing[0, 0]).item() > 0.5


def test_a_group_norm_scales_what_it_normalises(tmp_path):
    """The mixing behind it is as it was drawn; that of vectors, which it does not see, is scaled."""
    text = GENERAL.replace("update: {}", "update: {norm: group}", 1)
    package = load_package(write_package(compile_spec(parse_spec(text)).package, tmp_path))
    model, drawn = package.Model(seed=0).double(), package.Model(seed=0).double()
    scales = scale_to_data(model, package, batch_structures(disordered(), 4.0, dtype=torch.float64), START)
    assert torch.equal(model.layers[0].mixing_0, drawn.layers[0].mixing_0)
    assert model.layers[0].mixing_0 not in scales
    assert model.layers[0].mixing_1 in scales
