"""A compiler from a short spec to a machine-learned interatomic potential with proved, fused invariants."""

__version__ = "0.1.0"
