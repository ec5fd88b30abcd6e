"""The basis as HTML: what a notebook shows, and the pieces that the atlas shares."""

from __future__ import annotations

from html import escape

from tensorgraph.basis import Basis
from tensorgraph.graphs import Multigraph
from tensorgraph.reports.drawing import diagram

_HEADINGS = ("diagram", "name", "contraction", "einsum", "order")
_LEFT = ' style="text-align:left"'


def basis_html(basis: Basis) -> str:
    """One table, a row per invariant, without style sheets or scripts: a fragment to stand in any page."""
    head = "".join(f'<th scope="col"{_LEFT}>{heading}</th>' for heading in _HEADINGS)
    rows = []
    for invariant in basis.invariants:
        graph = invariant.graph
        cells = (
            diagram(graph, 88),
            f"<code>{escape(invariant.name)}</code>",
            formula_html(graph),
            f"<code>{escape(graph.einsum)}</code>",
            str(graph.order),
        )
        rows.append("<tr>" + "".join(f"<td{_LEFT}>{cell}</td>" for cell in cells) + "</tr>")
    caption = f"<caption{_LEFT}>{escape(basis.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table>"


def formula_html(graph: Multigraph) -> str:
    """The contraction in index notation, indices as subscripts: ``<i>q</i><sub>ab</sub> <i>q</i><sub>ab</sub>``."""
    at_vertex, _ = graph.index_letters()
    return " ".join(
        f"<i>{escape(kind.letter)}</i>" + (f"<sub>{escape(letters)}</sub>" if letters else "")
        for kind, letters in zip(graph.kinds, at_vertex, strict=True)
    )
