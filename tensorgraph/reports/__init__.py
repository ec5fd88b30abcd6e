"""What people look at: diagrams of graphs, tables on a terminal, the atlas page, what a notebook shows."""

from tensorgraph.reports.atlas import atlas_page
from tensorgraph.reports.drawing import diagram

__all__ = ["atlas_page", "diagram"]
