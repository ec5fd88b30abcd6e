"""The page: one section per function, each a string of HTML with every text from outside escaped."""

from __future__ import annotations

from html import escape
from math import floor, log10

from tensorgraph.algebra import component_count, contraction_cost
from tensorgraph.basis import Basis, Dropped, Invariant
from tensorgraph.compiler import Compilation
from tensorgraph.contractions import ContractionProgram, Output
from tensorgraph.graphs import Multigraph, automorphism_count
from tensorgraph.reports.drawing import diagram
from tensorgraph.reports.html import formula_html
from tensorgraph.reports.prose import (
    KINDS,
    LINEARLY_DEPENDENT,
    MULTIDEGREES,
    PROGRAM,
    READING,
    REFERENCES,
    STRATA,
    STYLE,
)
from tensorgraph.version import __version__


def atlas_page(compilation: Compilation) -> str:
    """The page as HTML 5 text: it loads nothing, runs nothing, and depends on the compilation alone."""
    basis, name = compilation.basis, escape(compilation.spec.name)
    sections = (
        _header(compilation), _reading(basis), _invariants(compilation), _strata(basis), _program(compilation),
        _dropped(basis), _footer(compilation),
    )  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{name}: atlas of invariants</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )


def _header(compilation: Compilation) -> str:
    basis = compilation.basis
    rows: list[tuple[str, ...]] = [
        (name.replace("_", " "), *map(_grouped, (cost.additions, cost.multiplications, cost.total)))
        for name, cost in ((name, line.operations) for name, line in compilation.instructions._asdict().items())
    ]
    dense = sum(contraction_cost(graph, basis.layout.dimension) for graph in basis.graphs)
    steps = _counted(len(compilation.contractions.steps), "shared contraction")
    left_out = _counted(len(basis.dropped), "graph") + " tried and left out" if basis.dropped else "nothing left out"
    return (
        f"<header><h1>{escape(compilation.spec.name)}</h1>"
        f'<p class="lead">{escape(basis.title)}; {left_out}</p>'
        "</header>\n"
        + _table(
            "Operations per (atom, channel)", ("program", "additions", "multiplications", "total"), rows, (1, 2, 3)
        )
        + f'<p class="note">{steps}; each graph alone, with dense tensors, would take {_grouped(dense)} operations '
        "forward.</p>"
    )


def _reading(basis: Basis) -> str:
    legend = "".join(
        f"<li>{diagram(Multigraph((kind,)), 108)}<span><i>{escape(kind.letter)}</i>: rank {kind.rank}, "
        f"{_counted(component_count(kind.rank, basis.layout.dimension), 'component')}</span></li>"
        for kind in basis.layout.kinds
    )
    return f'<section><h2>How to read a diagram</h2><p>{READING}</p>\n<ul class="legend">{legend}</ul></section>'


def _invariants(compilation: Compilation) -> str:
    basis, program = compilation.basis, compilation.contractions
    cards = "\n".join(
        _card(invariant, program, output) for invariant, output in zip(basis.invariants, program.outputs, strict=True)
    )
    return f'<section><h2>{_counted(len(basis), "invariant")}</h2>\n<ol class="cards">\n{cards}\n</ol></section>'


def _card(invariant: Invariant, program: ContractionProgram, output: Output) -> str:
    graph, step = invariant.graph, escape(program.name(output.value))
    ends = f'<a href="#{step}">{step}</a>' if output.value >= program.n_inputs else f"input {step}"
    facts = {
        "einsum": f"<code>{escape(graph.einsum)}</code>",
        "order": str(graph.order),
        "dense operations": _grouped(contraction_cost(graph)),
        "automorphisms": _grouped(automorphism_count(graph)),
        "computed by": ends,
    }
    return (
        f'<li id="i-{escape(invariant.name)}">{diagram(graph, 150)}<h3 class="name">{escape(invariant.name)}</h3>'
        f'<p class="formula">{formula_html(graph)}</p><dl>'
        + "".join(f"<div><dt>{term}</dt><dd>{text}</dd></div>" for term, text in facts.items())
        + "</dl></li>"
    )


def _strata(basis: Basis) -> str:
    if not basis.certificate.strata:
        return ""
    linear = basis.family == "linear"
    rows: list[tuple[str, ...]] = []
    for row in basis.certificate.strata:
        ranks = ", ".join(kind.key for kind in row.stratum)
        letters = " ".join(f"<i>{escape(kind.letter)}</i>" for kind in row.stratum)
        numbers = (str(row.rank), str(row.bound), escape(row.known_by) + _doubt(row.failure_probability))
        rows.append((f"({ranks})" if linear else f"{{{ranks}}}", letters, *numbers))
    counted = MULTIDEGREES if linear else STRATA
    caption = f"Rank reached, of the {counted.bound} that bound it, and how that is known"
    table = _table(caption, (counted.singular, "tensors", "rank", "of", "known by"), rows, (2, 3))
    return f"<section><h2>{counted.title}</h2><p>{counted.text}</p>{table}</section>"


def _doubt(probability: float) -> str:
    if not probability:
        return ""
    exponent = floor(log10(probability)) + 1
    return f" (wrong with a probability below 10<sup>{exponent}</sup>)".replace("-", "\N{MINUS SIGN}")


def _program(compilation: Compilation) -> str:
    program = compilation.contractions
    *steps, last = str(program).splitlines()
    lines = []
    for number, line in enumerate(steps):
        code, _, comment = map(escape, line.partition("#"))
        name = escape(program.name(program.n_inputs + number))
        lines.append(f'<span id="{name}">{code}<i>#{comment}</i></span>')
    return (
        f"<section><h2>Contraction program</h2><p>{PROGRAM}</p>"
        '<pre tabindex="0" aria-label="contraction program">' + "\n".join([*lines, escape(last)]) + "</pre></section>"
    )


def _dropped(basis: Basis) -> str:
    if not basis.dropped:
        return ""
    groups: dict[str, list[Dropped]] = {}
    for dropped in basis.dropped:
        groups.setdefault(dropped.kind, []).append(dropped)
    parts = []
    for name in sorted(groups, key=[*KINDS].index):
        members = groups[name]
        kind = LINEARLY_DEPENDENT if (name, basis.family) == ("dependent", "linear") else KINDS[name]
        cards = "\n".join(
            f'<li>{diagram(dropped.graph, 104)}<p class="formula">{formula_html(dropped.graph)}</p>'
            f"<p>{escape(dropped.reason)}</p></li>"
            for dropped in members
        )
        parts.append(
            f"<details><summary>{kind.title}: {_counted(len(members), 'graph')}</summary><p>{kind.text}</p>"
            f'<ul class="cards small">\n{cards}\n</ul></details>'
        )
    return "<section><h2>Tried and left out</h2>\n" + "\n".join(parts) + "</section>"


def _footer(compilation: Compilation) -> str:
    references = "".join(f'<li><a href="{link}">{escape(text)}</a></li>' for link, text in REFERENCES)
    return (
        f"<footer><p>References</p><ul>{references}</ul><p>tensorgraph {escape(__version__)}, spec "
        f"<code>{escape(compilation.spec.digest)}</code></p></footer>"
    )


def _table(caption: str, headings: tuple[str, ...], rows: list[tuple[str, ...]], numbers: tuple[int, ...]) -> str:
    """A table of cells that are HTML already; the first of each row is its heading."""
    style = [' class="number"' if column in numbers else "" for column in range(len(headings))]
    head = "".join(f'<th scope="col"{style[k]}>{heading}</th>' for k, heading in enumerate(headings))
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{style[k]}>{row[k]}</td>" for k in range(1, len(row)))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _counted(count: int, noun: str) -> str:
    return f"{_grouped(count)} {noun}" + ("" if count == 1 else "s")


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
