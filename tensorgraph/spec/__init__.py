"""The spec: what a user asks for, from YAML to validated values."""

from tensorgraph.spec.degree import DegreeSpec
from tensorgraph.spec.general import AnySpec, GeneralSpec
from tensorgraph.spec.loading import line_of, load_spec, parse_spec, spec_schema
from tensorgraph.spec.model import BasisSpec, NetworkSpec, SensitivitySpec, Spec
from tensorgraph.spec.repulsion import RepulsionSpec
from tensorgraph.spec.sections import BasisLayerSpec, DensitySpec, LayerSpec, RadialSpec, ReadoutSpec, UpdateSpec

__all__ = [
    "AnySpec",
    "BasisLayerSpec",
    "BasisSpec",
    "DegreeSpec",
    "DensitySpec",
    "GeneralSpec",
    "LayerSpec",
    "NetworkSpec",
    "RadialSpec",
    "ReadoutSpec",
    "RepulsionSpec",
    "SensitivitySpec",
    "Spec",
    "UpdateSpec",
    "line_of",
    "load_spec",
    "parse_spec",
    "spec_schema",
]
