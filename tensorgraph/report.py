"""What a build tells its user, as rich tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tensorgraph.algebra import contraction_cost
from tensorgraph.basis import Basis
from tensorgraph.compiler import Compilation


def show_table(basis: Basis) -> RenderableType:
    """The basis, and the graphs that were tried and left out with the reason."""
    return Group(basis_table(basis), _dropped_table(basis)) if basis.dropped else basis_table(basis)


def basis_table(basis: Basis) -> RenderableType:
    """The invariants with their graphs, and the ranks reached on the strata."""
    return (
        Group(_invariants_table(basis), _strata_table(basis)) if basis.certificate.strata else _invariants_table(basis)
    )


def build_table(compilation: Compilation) -> RenderableType:
    """The basis, and what the programs cost."""
    dense = sum(contraction_cost(graph) for graph in compilation.basis.graphs if graph.order > 1)
    table = Table(title="operations per (atom, channel)", title_justify="left", box=None, pad_edge=False)
    for heading in ("program", "additions", "multiplications", "total", "live values"):
        table.add_column(heading, justify="left" if heading == "program" else "right")
    for name, line in compilation.instructions._asdict().items():
        count = line.operations
        numbers = (count.additions, count.multiplications, count.total, line.live_values)
        table.add_row(name.replace("_", " "), *map(str, numbers))
    steps = compilation.contractions.steps
    largest = max((len(step.result) for step in steps), default=0)
    summary = Text(
        f"{len(steps)} contractions, shared; largest intermediate has rank {largest}. "
        f"Dense contractions of each graph alone would take {dense} operations forward."
    )
    return Group(basis_table(compilation.basis), Text(), table, Text(), summary)


def _invariants_table(basis: Basis) -> Table:
    count = "1 invariant" if len(basis) == 1 else f"{len(basis)} invariants"
    title = f"{basis.family}, body order {basis.body_order}, rank {basis.max_rank}: {count}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("#", "name", "order", "contraction", "einsum"):
        table.add_column(heading, justify="right" if heading in ("#", "order") else "left")
    for number, invariant in enumerate(basis.invariants):
        graph = invariant.graph
        table.add_row(str(number), invariant.name, str(graph.order), graph.formula, graph.einsum)
    return table


def _dropped_table(basis: Basis) -> Table:
    table = Table(title="\ntried and left out", title_justify="left", box=None, pad_edge=False)
    for heading in ("contraction", "reason"):
        table.add_column(heading)
    for dropped in basis.dropped:
        table.add_row(dropped.graph.formula, dropped.reason)
    return table


def _strata_table(basis: Basis) -> Table:
    table = Table(title="\nrank on the strata", title_justify="left", box=None, pad_edge=False)
    for heading in ("stratum", "rank", "of", "known by"):
        table.add_column(heading, justify="right" if heading in ("rank", "of") else "left")
    for row in basis.certificate.strata:
        stratum = "{" + ", ".join(map(str, row.stratum)) + "}"
        table.add_row(stratum, str(row.rank), str(row.degrees_of_freedom), row.known_by)
    return table
