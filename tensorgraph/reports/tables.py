"""What a build tells its user, as rich tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tensorgraph.algebra import contraction_cost
from tensorgraph.basis import Basis, derive
from tensorgraph.basis.verification import rank_on
from tensorgraph.compiler import Compilation
from tensorgraph.errors import BudgetError
from tensorgraph.graphs import Kind
from tensorgraph.kernel_study import KernelStudy
from tensorgraph.kernel_study.prediction import COPY_FRACTION, GPUS, ROWS
from tensorgraph.network.orders import LayerPlan


def show_table(basis: Basis, layers: Iterable[LayerPlan] = ()) -> RenderableType:
    """The basis, what was tried and left out and why, for the published set what it misses; the orders of layers."""
    parts: list[RenderableType] = [basis_table(basis)]
    if basis.dropped:
        parts.append(_dropped_table(basis))
    if basis.family == "hiphop":
        parts.append(_missing(basis))
    parts += [_orders_table(number, plan) for number, plan in enumerate(layers, 1)]
    return Group(*parts)


def _orders_table(number: int, plan: LayerPlan) -> Table:
    """Every order in which a layer can be contracted."""
    term = plan.term
    features = f"{term.features} {'species' if term.species else 'features'}"
    sizes = f"{features}, {term.functions} sensitivities, {term.components} components, {term.channels} channels"
    title = (
        f"\ninteraction {number}: E[i,m,a] = Σ_p T[p,m] S[p,n] V[n,a,b] z[j,b] with {sizes}\n"
        f"energy and forces of {term.atoms} atoms with {term.neighbours} neighbours, by order of contraction"
    )
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("order")
    table.add_column("emitted as")
    table.add_column("operations", justify="right")
    for machine in plan.chosen.seconds:
        table.add_column(f"{machine}: MB", justify="right")
        table.add_column("ms", justify="right")
    for cost in plan.costs:
        name = "" if cost.order is None else f"{cost.order}, chosen" if cost is plan.chosen else str(cost.order)
        numbers = [f"{cost.operations / 1e6:,.0f} M"]
        for machine, seconds in cost.seconds.items():
            numbers += [f"{cost.bytes[machine] / 1e6:,.0f}", f"{1e3 * seconds:,.{1 if seconds > 1e-3 else 3}f}"]
        table.add_row(cost.path, name, *numbers)
    return table


def _missing(basis: Basis) -> RenderableType:
    """Which invariants the family `flexible` would add to the published set, and on which strata it matters."""
    try:
        flexible = derive("flexible", basis.body_order, basis.max_rank)
    except BudgetError as error:
        return Text(f"\nNot compared with the family flexible: {error}")
    reached = {row.stratum: row.rank for row in flexible.certificate.strata}
    own = {stratum: rank_on(stratum, basis) for stratum in reached}
    behind = [stratum for stratum, rank in reached.items() if own[stratum] < rank]
    if not behind:
        return Text("\nThe family flexible has no larger rank on any stratum.")
    lines = [f"\nThe family flexible has {len(flexible)} invariants and larger ranks on the strata"]
    lines += [f"  {_braces(stratum)}: {reached[stratum]} where this set has {own[stratum]}" for stratum in behind]
    added = [invariant for invariant in flexible.invariants if invariant.graph not in basis.graphs]
    lines.append("by these graphs: " + "; ".join(f"{i.name} = {i.graph.formula}" for i in added))
    lines.append("It matters wherever the symmetry of an environment leaves only the tensors of such a stratum.")
    return Text("\n".join(lines))


def basis_table(basis: Basis) -> RenderableType:
    """The invariants with their graphs, and the ranks reached on the strata."""
    return (
        Group(_invariants_table(basis), _strata_table(basis)) if basis.certificate.strata else _invariants_table(basis)
    )


def build_table(compilation: Compilation) -> RenderableType:
    """The basis, and what the programs cost."""
    dimension = compilation.basis.layout.dimension
    dense = sum(contraction_cost(graph, dimension) for graph in compilation.basis.graphs)
    table = Table(title="operations per (atom, channel)", title_justify="left", box=None, pad_edge=False)
    for heading in ("program", "additions", "multiplications", "total", "live values"):
        table.add_column(heading, justify="left" if heading == "program" else "right")
    for name, line in compilation.instructions._asdict().items():
        count = line.operations
        numbers = (count.additions, count.multiplications, count.total, line.live_values)
        table.add_row(name.replace("_", " "), *map(str, numbers))
    steps = compilation.contractions.steps
    largest = max((len(step.result) for step in steps), default=0)
    proved = "proved cheapest by estimated multiplications among contractions of connected parts"
    found = (
        proved if compilation.contractions.proved_cheapest else "the cheapest found; the search did not get to its end"
    )
    summary = f"{len(steps)} contractions, shared ({found}); largest intermediate has rank {largest}."
    if rows := compilation.bases[0].rows:
        summary = f"A table of {rows} products of components, none shared, and one loop over it."
    summary += f" Dense contractions of each graph alone would take {dense} operations forward."
    return Group(basis_table(compilation.basis), Text(), table, Text(), Text(summary))


def kernels_table(study: KernelStudy) -> RenderableType:
    """What the kernels hold for each target, what could not be compiled and why, and the predicted times."""
    done = [cost for cost in study.kernels if cost.code]
    parts: list[RenderableType] = [_machine_code_table(study)] if done else []
    parts += [Text(f"not compiled: {where}: {reason}") for where, reason in _not_compiled(study)]
    if any(cost.predictions for cost in done):
        parts += [Text(), _prediction_table(study)]
    return Group(*parts)


def _not_compiled(study: KernelStudy) -> Iterable[tuple[str, str]]:
    """Kernels that could not be compiled for a target in a dtype, those with the same reason together."""
    kernels: dict[tuple[str, str, str], list[str]] = {}
    for cost in study.kernels:
        if cost.reason:
            kernels.setdefault((cost.target.name, cost.dtype.name, cost.reason), []).append(cost.kernel)
    for (target, dtype, reason), names in kernels.items():
        yield f"{', '.join(names)} for {target} in {dtype}", reason


def _machine_code_table(study: KernelStudy) -> Table:
    compiled = f"{study.name}: kernels for {study.channels} channels, compiled by triton {study.triton}"
    title = f"{compiled}; bytes and ops are per row or pair"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    headings = "dtype target kernel registers stack spills fma add mul load store int other bytes ops".split()
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("dtype", "target", "kernel") else "right")
    for cost in study.kernels:
        if (code := cost.code) is None:
            continue
        spills = f"{code.count('spill_load')}/{code.count('spill_store')}"
        mix = [code.count(k) for k in ("multiply_add", "add", "multiply", "global_load", "global_store", "integer")]
        numbers = (code.registers, code.stack_bytes, spills, *mix, code.count("other"))
        totals = (cost.bytes_per_row, cost.operations_per_row)
        table.add_row(cost.dtype.name, cost.target.name, cost.kernel, *map(str, (*numbers, *totals)))
    return table


def _prediction_table(study: KernelStudy) -> Table:
    title = f"predicted µs for {ROWS:,} rows (atoms × channels); a copy has {COPY_FRACTION:.0%} of the peak bandwidth"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("dtype", "GPU", "kernel", "time", "limit", "memory", "floating point", "issue", "latency",
                    "occupancy"):  # fmt: skip
        table.add_column(heading, justify="left" if heading in ("dtype", "GPU", "kernel", "limit") else "right")
    rows = [(prediction, cost) for cost in study.kernels for prediction in cost.predictions]
    names = [gpu.name for gpu in GPUS]
    for prediction, cost in sorted(rows, key=lambda row: names.index(row[0].gpu)):
        roofs = [f"{time:.1f}" for time in prediction.limits.values()]
        where = (cost.dtype.name, prediction.gpu, cost.kernel)
        table.add_row(*where, f"{prediction.microseconds:.1f}", prediction.limit, *roofs, f"{prediction.occupancy:.0%}")
    return table


def _invariants_table(basis: Basis) -> Table:
    table = Table(title=basis.title, title_justify="left", box=None, pad_edge=False)
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
        table.add_row(_braces(row.stratum), str(row.rank), str(row.bound), row.known_by)
    return table


def _braces(stratum: Iterable[Kind]) -> str:
    return "{" + ", ".join(kind.key for kind in stratum) + "}"
