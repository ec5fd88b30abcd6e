"""The spec: what a user asks for, from YAML to validated values."""

from tensorgraph.spec.loading import line_of, load_spec, parse_spec, spec_schema
from tensorgraph.spec.model import BasisSpec, NetworkSpec, SensitivitySpec, Spec

__all__ = [
    "BasisSpec",
    "NetworkSpec",
    "SensitivitySpec",
    "Spec",
    "line_of",
    "load_spec",
    "parse_spec",
    "spec_schema",
]
