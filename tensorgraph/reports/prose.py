"""What the atlas says and how it looks: explanations, style sheet, references."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A reason for leaving graphs out."""

    title: str
    text: str


class Ranks(NamedTuple):
    """What the certificate's ranks are counted on."""

    title: str
    singular: str
    bound: str
    text: str


KINDS = {
    "loop": Kind("Loops", "A tensor contracted with itself: zero, because the tensors are traceless."),
    "product": Kind("Products", "Disconnected graphs: products of smaller invariants."),
    "zero": Kind("Zero", "The polynomial vanishes identically, by an identity that holds in three dimensions only."),
    "multiple": Kind("Multiples", "Equal to a number times an invariant that was kept."),
    "dependent": Kind("Dependent", "Functions of the invariants that were kept, by the rank of the Jacobian."),
}
LINEARLY_DEPENDENT = Kind("Linearly dependent", "Linear combinations of the invariants that were kept.")

READING = """A disc is a symmetric traceless tensor that describes the surroundings of an atom; its rank is the number
of lines that leave it. A line between two discs is an index that both carry and that is summed over; parallel lines
are several such indices. A diagram without loose ends is a number that no rotation or reflection of the surroundings
changes: an <em>invariant</em>. Its order is the number of discs; the body order of a basis is one more than its
largest order, because the atom in the centre counts."""

STRATA = Ranks(
    "Strata",
    "stratum",
    "degrees of freedom",
    """A <em>stratum</em> is a set of ranks: the surroundings in which exactly the tensors of these ranks are non-zero.
Symmetric surroundings lie on small strata. The rank on a stratum counts the invariants that are independent there as
functions; it cannot exceed the degrees of freedom, which are the components of the tensors less the rotations that move
them. A set is <em>flexible</em> if on every stratum it reaches the rank of all connected graphs of its body order, so
that it tells apart symmetric surroundings too, and not only generic ones; the family <code>flexible</code> does that
with the fewest invariants.""",
)
MULTIDEGREES = Ranks(
    "Multidegrees",
    "multidegree",
    "dimension of the space",
    """The multidegree of an invariant lists the ranks of the tensors that it multiplies. Of each multidegree the basis
holds as many linearly independent invariants as there are, products of smaller ones included; the formula of Molien and
Weyl gives their number.""",
)

PROGRAM = """Every invariant is the end of a chain of contractions of two operands; what several invariants need is
computed once."""

REFERENCES = (
    (
        "https://arxiv.org/abs/2503.23515",
        "A. Allen, E. Shinkle, R. Bujack, N. Lubbers: Optimal invariant sets for atomistic machine learning, "
        "arXiv:2503.23515",
    ),
)

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f24; --soft: #5a616c; --paper: #ffffff; --card: #f7f7f5; --line: #dcdcd6;
  --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e9eaec; --soft: #a4abb6; --paper: #15181d; --card: #1d2127;
  --line: #343a43; --link: #82bdf5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 2.1rem; line-height: 1.15; margin: 0 0 .3rem; } h2 { font-size: 1.35rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; } p { max-width: 46rem; margin: .5rem 0; } a { color: var(--link); }
.lead, .note, figcaption, caption, dt, footer { color: var(--soft); }
.lead { font-size: 1.1rem; } .note, footer { font-size: .9rem; }
code, pre, .name { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
code, pre { font-size: .84rem; overflow-wrap: anywhere; }
.formula { font-family: Georgia, "DejaVu Serif", serif; font-size: 1.08rem; line-height: 1.7; margin: .1rem 0 .5rem; }
.formula sub { font-size: .7em; font-style: italic; letter-spacing: .04em; line-height: 0; }
.cards, .legend { list-style: none; padding: 0; margin: 1rem 0; display: grid; gap: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(16.5rem, 1fr)); }
.cards > li { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; padding: .8rem 1rem 1rem;
  break-inside: avoid; min-width: 0; }
.cards > li:target { border-color: var(--link); }
.cards svg { display: block; margin: 0 auto .4rem; }
.cards dl { margin: 0; font-size: .86rem; } .cards dl div { display: flex; justify-content: space-between; gap: .8rem; }
dd { margin: 0; text-align: right; min-width: 0; } .name { font-weight: 600; }
.small { grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); } .small p { font-size: .86rem; margin: 0; }
.small .formula { font-size: .95rem; }
.legend { grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: 0 1rem; margin: 1.6rem 0; }
.legend li { display: flex; align-items: center; gap: .3rem; font-size: .9rem; break-inside: avoid; }
.legend svg { flex: none; margin: -1.2rem -1.2rem -1.2rem -1.6rem; }
.scroll { overflow-x: auto; }
table { min-width: min(100%, 27rem); border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: .9rem; padding-bottom: .3rem; }
sup { line-height: 0; }
th, td { padding: .32rem 1.1rem .32rem 0; border-bottom: 1px solid var(--line); text-align: left; }
thead th { font-size: .86rem; color: var(--soft); font-weight: 600; } tbody th { font-weight: 500; }
.number { text-align: right; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; padding: .9rem 1.1rem;
  overflow-x: auto; overflow-wrap: normal; line-height: 1.6; }
pre span:target { background: var(--line); } pre i { color: var(--soft); font-style: normal; }
details { border: 1px solid var(--line); border-radius: .7rem; padding: .6rem 1rem; margin: .7rem 0; }
summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .8rem; }
@page { margin: 14mm; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --card: #fff; --line: #bbb;
  --link: #000; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 9.5pt; line-height: 1.4; } h1 { font-size: 20pt; }
  p { max-width: none; }
  h2, summary { break-after: avoid; } h2 { font-size: 13pt; margin-top: 1.6rem; }
  table { break-inside: avoid; } th, td { padding: .15rem 1rem .15rem 0; }
  .cards { grid-template-columns: repeat(4, 1fr); gap: .5rem; }
  .cards > li { padding: .4rem .6rem .5rem; } .cards svg { width: 84px; height: 84px; } .cards dl { font-size: 7.5pt; }
  .cards .formula { font-size: 10pt; margin: 0 0 .2rem; } code, pre { font-size: 7.5pt; } .legend { margin: .6rem 0; }
  .small { grid-template-columns: repeat(5, 1fr); } .small p { font-size: 7.5pt; } details { border: none; padding: 0; }
  .scroll { overflow: visible; } pre { white-space: pre-wrap; overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""
