"""What holds for every package, with or without a network: the certificate of its basis, and its invariants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from tensorgraph.algebra import Layout, embedding
from tensorgraph.basis.verification import verify_basis
from tensorgraph.battery.bounds import BOUNDS
from tensorgraph.battery.check import Check, worst
from tensorgraph.battery.structures import SEED, rotation
from tensorgraph.errors import PackageError
from tensorgraph.manifest import read_manifest
from tensorgraph.model.loading import package_directory

ENVIRONMENTS, NEIGHBOURS, CHANNELS = 20, 12, 4


def check_certificate(package: ModuleType) -> tuple[Check, ...]:
    """The claims of the manifest about the basis of each layer, recomputed without trust in the search that chose it.

    Each measures the number of claims that do not hold; `where` quotes them. Raises PackageError for a manifest
    without a basis.
    """
    manifest = read_manifest(package_directory(package))
    later = manifest.get("later_layers", [])
    if not isinstance(later, list) or not all(isinstance(one, dict) for one in later):
        raise PackageError("later_layers of the manifest is no list of mappings, one for each further basis")
    found = []
    for index, layer in enumerate((manifest, *later), start=1):
        where = "" if index == 1 else f" (basis {index})"
        for check in verify_basis(layer.get("basis", {})):
            problems = check.problems
            name = f"certificate: {check.name}{where}"
            found.append(Check(name, float(len(problems)), 0.0, "claims", "; ".join(problems)))
    return tuple(found)


def check_invariants(package: ModuleType, device: torch.device, dtype: torch.dtype) -> Check:
    """The invariants of random environments stay when their directions are rotated or reflected, and so do the norms of
    outputs with rank.

    Relative to the largest value of each, for their orders differ.
    """
    random = np.random.default_rng(SEED)
    basis = read_manifest(package_directory(package)).get("basis", {})
    dimension, colours = basis.get("dimension", 3), basis.get("colours", 1)
    components = Layout.full(basis["max_rank"], dimension=dimension).size
    directions = random.normal(size=(ENVIRONMENTS, NEIGHBOURS, dimension))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    weights = torch.as_tensor(random.normal(size=(ENVIRONMENTS, NEIGHBOURS, colours, CHANNELS))).to(device, dtype)

    def values(turn: np.ndarray) -> np.ndarray:
        unit = torch.as_tensor((directions @ turn.T).reshape(-1, dimension)).to(device, dtype)
        tensors = package.tensor_components(unit)[:, :components].unflatten(0, (ENVIRONMENTS, NEIGHBOURS))
        features = torch.einsum("anm,anuc->aumc", tensors, weights).flatten(1, 2)
        return _norms(package.invariants(features).double().cpu().numpy(), basis["invariants"])

    before = values(np.eye(dimension))
    size = np.abs(before).max(axis=(0, 2))
    mirror = np.diag([-1.0] * 3 + [1.0] * (dimension - 3))
    found: dict[str, float] = {}
    for sign, kind in ((np.eye(dimension), "rotation"), (mirror, "reflection")):
        change = np.abs(values(sign @ rotation(random, dimension)) - before).max(axis=(0, 2)) / size
        names = package.architecture.INVARIANTS
        found |= {f"{name}, {kind}": float(value) for name, value in zip(names, change, strict=True)}
    bound = BOUNDS["invariants: rotation and reflection"]
    return worst("invariants: rotation and reflection", found, bound.of(dtype), bound.unit)


def _norms(values: np.ndarray, outputs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """One number for each output, ``[n_atoms, n_outputs, channels]``: its value, or the norm of its tensor."""
    found, start = [], 0
    for output in outputs:
        rank = output["ranks"][output["probe"]] if "probe" in output else 0
        outer = embedding(rank).reshape(-1, 2 * rank + 1)
        elements = values[:, start : start + 2 * rank + 1]
        found.append(elements[:, 0] if not rank else np.linalg.norm(np.einsum("em,amc->aec", outer, elements), axis=1))
        start += 2 * rank + 1
    return np.stack(found, axis=1)
