"""A compiler from a short spec to a machine-learned interatomic potential with proved, fused invariants."""

from typing import Any

__version__ = "0.1.0"


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext tensorgraph``: a notebook then draws graphs and bases."""
    from tensorgraph.reports.notebook import load_ipython_extension

    load_ipython_extension(ipython)
