"""A published network as a checkpoint: the spec that matches it, and its weights under the names of a model."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType

import torch
from ase import units
from torch import Tensor

from tensorgraph.errors import CheckpointError
from tensorgraph.graphs import Multigraph
from tensorgraph.hippynn.layout import Layout, weights
from tensorgraph.hippynn.reading import Network, read_network
from tensorgraph.manifest import read_manifest
from tensorgraph.model.checkpoint import save_checkpoint
from tensorgraph.model.loading import package_directory
from tensorgraph.potential import package_of_spec
from tensorgraph.spec import Spec
from tensorgraph.spec.documents import parse_document

ENERGY_UNITS: Mapping[str, float] = MappingProxyType(
    {"eV": 1.0, "Hartree": units.Hartree, "kcal/mol": units.kcal / units.mol, "kJ/mol": units.kJ / units.mol}
)
"""What energies may be given in, in eV."""


def import_hippynn(
    file: str | Path,
    out: str | Path,
    spec: Spec | None = None,
    *,
    species: Sequence[str] | None = None,
    cutoff: float | None = None,
    name: str = "imported",
    energy_unit: str = "eV",
) -> Spec:
    """Write the network whose state dict stands in `file` as the checkpoint `out`, and return its spec.

    Without `spec` one of that `name` is made from what the file shows; it needs the `cutoff` (Å), which no file holds,
    and where the file does not say it `species`, the symbols of the input features in their order. Energies are
    converted from `energy_unit`, one of `ENERGY_UNITS`, to eV. Weights keep their dtype (the widest, where they have
    several; float64 where energies are converted).

    Raises CheckpointError for a file that is no such state dict, for what does not match the spec, and where `out`
    cannot be written; SpecError for options that no spec may have; PackageError where the package cannot be built.
    """
    if energy_unit not in ENERGY_UNITS:
        raise CheckpointError(f"the unit of energy is {energy_unit!r}; allowed: {', '.join(ENERGY_UNITS)}")
    if spec is not None and (species is not None or cutoff is not None):
        raise CheckpointError("species and cutoff are given beside a spec, which says them; allowed: a spec, or these")
    network = read_network(file)
    if os.path.exists(out) and os.path.samefile(file, out):
        raise CheckpointError(f"{out} is the file that is imported; allowed: another one, this is not overwritten")
    try:
        spec = _spec(network, species, cutoff, name) if spec is None else _checked(network, spec)
        package = package_of_spec(spec)
        factor = ENERGY_UNITS[energy_unit]
        weights_ = converted(network, package_graphs(package), spec.network.species, factor)  # type: ignore[union-attr]
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    model = package.Model().to(next(iter(weights_.values())).dtype)
    model.load_state_dict(weights_)
    save_checkpoint(model, package, out)
    return spec


def converted(
    network: Network, graphs: Sequence[Multigraph], species: Sequence[str] | None = None, energy_unit: float = 1.0
) -> dict[str, Tensor]:
    """The state dict of a model with these weights, of a package with these invariants and species in its order.

    `energy_unit` is the unit of the published energies in eV. Raises CheckpointError for other invariants.
    """
    layout, tensors = network.layout, network.tensors
    order = _invariant_order(layout, graphs)
    columns = _species_order(network, species)
    dtype = torch.float64 if energy_unit != 1 else _widest(tensors)
    found = {}
    if not layout.species_head:
        found["energy_heads.of_species.weight"] = torch.zeros(1, layout.n_species, dtype=dtype)
    for weight in weights(layout):
        value = weight.convert(tensors[weight.theirs].to(dtype), order)
        value = value[..., columns] if weight.by_species and columns is not None else value
        found[weight.ours] = value * energy_unit if weight.energy else value
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in found.items()}


def package_graphs(package: ModuleType) -> tuple[Multigraph, ...]:
    """The invariants of a generated package as graphs, in its order. Raises PackageError for another module."""
    basis = read_manifest(package_directory(package), ["basis"])["basis"]
    return tuple(
        Multigraph(tuple(invariant["ranks"]), tuple(tuple(edge) for edge in invariant["edges"]))
        for invariant in basis["invariants"]
    )


def _invariant_order(layout: Layout, graphs: Sequence[Multigraph]) -> list[int]:
    """For each invariant of the package the published one; of the scalar alone HIP-NN makes no list."""
    published = layout.graphs or tuple(graph for graph in graphs if not graph.edges)
    missing, surplus = set(published) - set(graphs), set(graphs) - set(published)
    if missing or surplus:
        raise CheckpointError(
            f"the spec's invariants are not those of the network: it lacks {_formulas(missing)}, "
            f"and has {_formulas(surplus)} besides"
        )
    return [published.index(graph) for graph in graphs]


def _formulas(graphs: set[Multigraph]) -> str:
    return ", ".join(str(graph.formula) for graph in sorted(graphs)) or "none"


def _species_order(network: Network, species: Sequence[str] | None) -> list[int] | None:
    """The input feature of each species of a package, where they differ in order."""
    theirs = network.species
    if species is None or theirs is None or tuple(species) == theirs:
        return None
    if sorted(species) != sorted(theirs):
        raise CheckpointError(f"its species are {', '.join(theirs)}, not {', '.join(species)}")
    if network.layout.residual and network.layout.n_species == network.layout.features:
        raise CheckpointError(
            f"its species are {', '.join(theirs)} and become as many features: the spec has to name them in this order"
        )
    return [theirs.index(symbol) for symbol in species]


def _widest(tensors: Mapping[str, Tensor]) -> torch.dtype:
    return functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()))


def _spec(network: Network, species: Sequence[str] | None, cutoff: float | None, name: str) -> Spec:
    layout = network.layout
    missing = ["the cutoff (Å)"] if cutoff is None else []
    if species is None and network.species is None:
        missing.append(f"the species of its {layout.n_species} input features in their order")
    if missing:
        raise CheckpointError(f"it does not say {' and '.join(missing)}; give them, or a spec")
    if species is not None and len(species) != layout.n_species:
        raise CheckpointError(f"it has {layout.n_species} species, not {len(species)} ({', '.join(species)})")
    values = {
        "name": name,
        "basis": {"family": "hiphop", "body_order": max(layout.n_max, 1) + 1, "max_rank": layout.max_rank},
        "network": {
            "species": list(species if species is not None else network.species or ()),
            **_sizes(layout),
            "sensitivity": {"functions": layout.functions, "cutoff": cutoff},
            "group_norm": layout.group_norm,
            "residual": layout.residual,
        },
    }
    return parse_document(Spec, json.dumps(values), "spec of the network")


def _sizes(layout: Layout) -> dict[str, int]:
    return {
        "features": layout.features,
        "interactions": layout.interactions,
        "atom_layers": layout.atom_layers,
    }


def _checked(network: Network, spec: Spec) -> Spec:
    """The spec, if it has the sizes of the network; CheckpointError with all that differ."""
    layout, wanted = network.layout, spec.network
    if wanted is None:
        raise CheckpointError(f"the spec {spec.name} has no network")
    pairs = {
        "max_rank": (layout.max_rank, spec.basis.max_rank),
        "species": (layout.n_species, len(wanted.species)),
        **{key: (value, getattr(wanted, key)) for key, value in _sizes(layout).items()},
        "sensitivity.functions": (layout.functions, wanted.sensitivity.functions),
        "residual": (layout.residual, wanted.residual),
        # Of the scalar alone there is no group norm, whatever the spec says.
        "group_norm": (layout.group_norm, wanted.group_norm and spec.basis.max_rank > 0),
    }
    if wanted.repulsion is not None:
        raise CheckpointError(f"it does not match the spec {spec.name}: it has no repulsion, and the spec has one")
    different = [f"{key} {_yaml(ours)}, not {_yaml(theirs)}" for key, (ours, theirs) in pairs.items() if ours != theirs]
    if different:
        raise CheckpointError(f"it does not match the spec {spec.name}: it has {'; '.join(different)}")
    return spec


def _yaml(value: int | bool) -> str:
    return json.dumps(value)
