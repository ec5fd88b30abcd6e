"""Stub until the parser of the general form lands."""

import hashlib
import json
from typing import Literal

from tensorgraph.spec.model import SpecModel


class RadialSpec(SpecModel):
    kind: str
    functions: int = 8
    cutoff: float = 5.0
    soft_min: float = 0.75
    soft_max: float = 5.5
    mix: str = "none"
    channels: int = 1


class DensitySpec(SpecModel):
    max_rank: int
    channels: int = 1
    of: str = "species"
    dimension: int = 3


class DegreeSpec(SpecModel):
    limit: int
    of: str
    constant: int = 2
    per_channel: int = 4
    per_rank: int = 1


class BasisLayerSpec(SpecModel):
    family: str
    body_order: int
    outputs: tuple[int, ...] = (0,)
    across: str | None = None
    degree: DegreeSpec | None = None


class UpdateSpec(SpecModel):
    mix: str = "full"
    residual: bool = True
    activation: str = "softplus"
    norm: str = "none"
    atom_layers: int = 0


class LayerSpec(SpecModel):
    density: DensitySpec
    basis: BasisLayerSpec
    update: UpdateSpec | None = None
    repeat: int = 1


class ReadoutSpec(SpecModel):
    kind: str = "linear"
    per: str | None = None
    of: str = "last"


class GeneralSpec(SpecModel):
    name: str
    species: tuple[str, ...]
    radial: RadialSpec
    layers: tuple[LayerSpec, ...]
    readout: ReadoutSpec

    def canonical_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def to_yaml(self) -> str:
        return self.canonical_json() + "\n"
