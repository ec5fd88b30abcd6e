"""The invariants of a spec drawn on one sheet, as at the top of the README.

Run as `python -m examples.diagrams specs/hiphop5.yaml docs/hiphop5.svg`.
"""

from __future__ import annotations

import argparse
import re
from html import escape
from pathlib import Path

from tensorgraph.basis import Basis
from tensorgraph.compiler import compile_spec
from tensorgraph.reports import diagram
from tensorgraph.spec import load_spec

COLUMNS, WIDTH, HEIGHT, DRAWN = 7, 112, 132, 96  # of a field and of a drawing in it, in pixels
# A page shows the picture on its own background, light or dark, whatever the system prefers: a grey for both.
STYLE = "svg{color:#768390}text.name{fill:currentColor}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.diagrams", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("spec", type=Path, help="a YAML spec")
    parser.add_argument("out", type=Path, help="the SVG file to write")
    arguments = parser.parse_args()
    basis = compile_spec(load_spec(arguments.spec)).basis
    arguments.out.write_text(sheet(basis), encoding="utf-8")
    print(f"wrote {arguments.out}: {len(basis)} invariants")


def sheet(basis: Basis) -> str:
    """An SVG image of all invariants of the basis, in rows, each above its name."""
    fields = "\n".join(
        _field(diagram(invariant.graph, DRAWN), invariant.name, index)
        for index, invariant in enumerate(basis.invariants)
    )
    width, height = min(COLUMNS, len(basis)) * WIDTH, -(-len(basis) // COLUMNS) * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">\n<title>{escape(basis.title)}</title>\n<style>{STYLE}</style>\n{fields}\n</svg>\n'
    )


def _field(drawing: str, name: str, index: int) -> str:
    row, column = divmod(index, COLUMNS)
    x, y = column * WIDTH, row * HEIGHT
    placed = drawing.replace("<svg ", f'<svg x="{x + (WIDTH - DRAWN) // 2}" y="{y + 4}" ', 1)
    placed = re.sub(r"var\([^,]*,([^)]*)\)", r"\1", placed)  # not all viewers of images know CSS variables
    label = f'<text class="name" x="{x + WIDTH // 2}" y="{y + DRAWN + 22}" font-family="monospace" font-size="13"'
    return f'{placed}\n{label} text-anchor="middle">{escape(name)}</text>'


if __name__ == "__main__":
    main()
