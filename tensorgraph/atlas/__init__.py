"""The atlas: one self-contained page with every graph of a basis drawn, its cost, and what pruned the others."""

from tensorgraph.atlas.page import atlas_page

__all__ = ["atlas_page"]
