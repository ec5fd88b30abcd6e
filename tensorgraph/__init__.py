"""A compiler from a short spec to a machine-learned interatomic potential with proved, fused invariants."""

from typing import Any

from tensorgraph.version import __version__

__all__ = ["__version__", "load_ipython_extension"]


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext tensorgraph``: a notebook then draws graphs and bases."""
    from tensorgraph.reports.notebook import load_ipython_extension

    load_ipython_extension(ipython)
