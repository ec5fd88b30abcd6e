"""Which tensors a network of hippynn 0.1.3 has, of which shapes, and what each is called in a model of a package.

One table, of `weights`, is what files are checked against and what is copied by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tensorgraph.algebra import embedding
from tensorgraph.graphs import Multigraph, as_kinds, canonical

INVARIANTS = tuple(
    canonical(Multigraph(as_kinds(ranks), edges))
    for ranks, edges in (
        ((0,), ()),
        ((1, 1), ((0, 1, 1),)),
        ((2, 2), ((0, 1, 2),)),
        ((2, 2, 2), ((0, 1, 1), (0, 2, 1), (1, 2, 1))),
        ((3, 3), ((0, 1, 3),)),
        ((3, 3, 3, 3), ((0, 1, 2), (0, 2, 1), (1, 3, 1), (2, 3, 2))),
        ((2, 1, 1), ((0, 1, 1), (0, 2, 1))),
        ((2, 2, 1, 1), ((0, 1, 1), (0, 2, 1), (1, 3, 1))),
        ((3, 1, 1, 1), ((0, 1, 1), (0, 2, 1), (0, 3, 1))),
        ((3, 3, 1, 1), ((0, 1, 2), (0, 2, 1), (1, 3, 1))),
        ((3, 3, 2), ((0, 1, 2), (0, 2, 1), (1, 2, 1))),
        ((3, 3, 2, 2), ((0, 1, 2), (0, 2, 1), (1, 3, 1), (2, 3, 1))),
        ((3, 3, 2, 2), ((0, 1, 1), (0, 2, 2), (1, 3, 2))),
    )
)
"""The published invariants in their order: `calc_invariants` in hippynn/layers/hiplayers/tensors.py."""

MAX_RANK = 3
MAX_TENSORS = 4


def invariants_of(n_max: int, l_max: int) -> tuple[Multigraph, ...]:
    """The published invariants of at most `n_max` tensors of rank at most `l_max`, in the published order."""
    return tuple(graph for graph in INVARIANTS if graph.order <= n_max and max(graph.ranks) <= l_max)


@dataclass(frozen=True)
class Layout:
    """The sizes of a network; `graphs` are its invariants in the published order, none for HIP-NN.

    `n_max` is the least number of tensors in a product that gives them. Without `species_head` the network has no
    energies of its species alone (`first_is_interacting`).
    """

    n_species: int
    features: int
    interactions: int
    atom_layers: int
    functions: int
    max_rank: int
    n_max: int
    group_norm: bool
    residual: bool
    species_head: bool

    @property
    def graphs(self) -> tuple[Multigraph, ...]:
        return invariants_of(self.n_max, self.max_rank) if self.max_rank else ()


Convert = Callable[[Tensor, Sequence[int]], Tensor]
"""From a published tensor and the published number of each invariant of a package to the tensor of its model."""


def _same(tensor: Tensor, _order: Sequence[int]) -> Tensor:
    return tensor


def _vector(tensor: Tensor, _order: Sequence[int]) -> Tensor:
    return tensor.squeeze(0)


def _mixing(tensor: Tensor, order: Sequence[int]) -> Tensor:
    return tensor.permute(1, 0, 2)[order]


def _norm(tensor: Tensor, order: Sequence[int]) -> Tensor:
    return tensor.view(len(order), -1)[order]


@dataclass(frozen=True)
class Weight:
    """A tensor of a published network and where its values belong: a prefix, a name, the name in a model.

    `by_species`: its last index runs over the species; `energy`: it is proportional to the unit of energy.
    """

    part: str  # network or heads
    theirs: str
    ours: str
    shape: tuple[int, ...]
    convert: Convert = _same
    by_species: bool = False
    energy: bool = False


def weights(layout: Layout) -> Iterator[Weight]:
    """All trained tensors of a network with this layout and of its energy heads."""
    for block in range(layout.interactions):
        width = layout.features if block else layout.n_species
        yield from _interaction(layout, block, width)
        for layer in range(1, layout.atom_layers + 1):
            theirs, ours = f"blocks.{block}.{layer}", f"blocks.{block}.atom_layers.{layer - 1}"
            base = f"{theirs}.base_layer" if layout.residual else theirs
            yield from _linear("network", base, f"{ours}.layer", layout.features, layout.features)
            yield from _residual(layout, theirs, ours, layout.features, False)
    yield from _heads(layout)


def _interaction(layout: Layout, block: int, width: int) -> Iterator[Weight]:
    theirs, ours = f"blocks.{block}.0", f"blocks.{block}.interaction"
    base = f"{theirs}.base_layer" if layout.residual else theirs
    n, n_graphs, first = layout.features, len(layout.graphs), block == 0
    for name in ("mu", "sigma"):
        row = (1, layout.functions)
        yield Weight("network", f"{base}.sensitivity.{name}", f"{ours}.layer.sensitivity.{name}", row, _vector)
    shape = (layout.functions, n, width)
    yield Weight("network", f"{base}.int_weights", f"{ours}.layer.weights", shape, by_species=first)
    yield from _linear("network", f"{base}.selfint", f"{ours}.layer.self_interaction", width, n, by_species=first)
    if layout.graphs:
        yield Weight("network", f"{base}.mixing_weights", f"{ours}.layer.mixing", (n, n_graphs, n), _mixing)
    if layout.group_norm:
        for name in ("weight", "bias"):
            flat = (n_graphs * n,)
            yield Weight("network", f"{base}.group_norm.{name}", f"{ours}.layer.norm.{name}", flat, _norm)
    yield from _residual(layout, theirs, ours, width, first)


def _residual(layout: Layout, theirs: str, ours: str, width: int, first: bool) -> Iterator[Weight]:
    if not layout.residual:
        return
    yield from _linear("network", f"{theirs}.res_layer", f"{ours}.outer", layout.features, layout.features)
    if width != layout.features:
        shape = (layout.features, width)
        yield Weight("network", f"{theirs}.adjust_layer.weight", f"{ours}.skip.weight", shape, by_species=first)


def _linear(part: str, theirs: str, ours: str, n_in: int, n_out: int, by_species: bool = False) -> Iterator[Weight]:
    yield Weight(part, f"{theirs}.weight", f"{ours}.weight", (n_out, n_in), by_species=by_species)
    yield Weight(part, f"{theirs}.bias", f"{ours}.bias", (n_out,))


def _heads(layout: Layout) -> Iterator[Weight]:
    if layout.species_head:
        ours = "energy_heads.of_species.weight"
        yield Weight("heads", "layers.0.weight", ours, (1, layout.n_species), by_species=True, energy=True)
    for block in range(layout.interactions):
        theirs, ours = f"layers.{block + layout.species_head}", f"energy_heads.of_blocks.{block}"
        yield Weight("heads", f"{theirs}.weight", f"{ours}.weight", (1, layout.features), energy=True)
        yield Weight("heads", f"{theirs}.bias", f"{ours}.bias", (1,), energy=True)


def constants(layout: Layout) -> dict[str, Tensor]:
    """The maps between tensors and their components that a HIP-HOP-NN holds beside its weights, in float64."""
    if not layout.graphs:
        return {}
    maps = [torch.from_numpy(embedding(rank).copy()).double() for rank in range(MAX_RANK + 1)]
    maps[0] = maps[0].view(1, 1)
    found = {f"tensor_extractor.pmaps.{rank}": _dual(maps[rank]) for rank in range(layout.max_rank + 1)}
    base = "base_layer." if layout.residual else ""
    for block in range(layout.interactions):
        found |= {f"blocks.{block}.0.{base}invars.cmaps.{rank}": map_ for rank, map_ in enumerate(maps)}
    return found


def _dual(map_: Tensor) -> Tensor:
    """What takes the components of a tensor from its elements."""
    flat: Tensor = torch.linalg.pinv(map_.reshape(-1, map_.shape[-1])).T
    return flat.reshape(map_.shape)
