"""How a notebook shows graphs and bases, once ``%load_ext tensorgraph`` was run."""

from __future__ import annotations

from typing import Any

from tensorgraph.basis import Basis
from tensorgraph.graphs import Multigraph
from tensorgraph.reports.drawing import diagram
from tensorgraph.reports.html import basis_html


def load_ipython_extension(ipython: Any) -> None:
    """Registers the diagram of a graph and the table of a basis with an IPython shell."""
    formatters = ipython.display_formatter.formatters
    formatters["image/svg+xml"].for_type(Multigraph, diagram)
    formatters["text/html"].for_type(Basis, basis_html)
