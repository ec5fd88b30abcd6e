"""Penrose diagrams: every graph is drawn whole and clear, isomorphic graphs alike, symmetric graphs symmetrically."""

import os
import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from math import hypot
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorgraph
from tensorgraph.basis import Basis, derive
from tensorgraph.graphs import Multigraph, automorphism_count, canonical, connected_graphs
from tensorgraph.reports.drawing import PALETTE, VIEW, diagram
from tensorgraph.reports.html import basis_html
from tensorgraph.reports.scoring import SMALLEST
from tests.strategies import multigraphs

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"

STAR = Multigraph((3, 1, 1, 1), ((0, 1, 1), (0, 2, 1), (0, 3, 1)))
SQUARE = Multigraph((2, 2, 2, 2), ((0, 1, 1), (0, 2, 1), (1, 3, 1), (2, 3, 1)))
CHAIN = Multigraph((3, 3, 3, 3), ((0, 1, 1), (0, 2, 2), (1, 3, 2), (2, 3, 1)))
TRIANGLE = Multigraph((3, 3, 2), ((0, 1, 2), (0, 2, 1), (1, 2, 1)))
COMPLETE = Multigraph((3, 3, 3, 3), tuple((u, v, 1) for u, v in combinations(range(4), 2)))
BIPARTITE = Multigraph((3,) * 6, tuple((u, v, 1) for u in range(3) for v in range(3, 6)))
PRISM = Multigraph(
    (3,) * 6, ((0, 1, 1), (0, 2, 1), (0, 3, 1), (1, 2, 1), (1, 4, 1), (2, 5, 1), (3, 4, 1), (3, 5, 1), (4, 5, 1))
)
PRODUCT = Multigraph((2, 2, 1, 1), ((0, 1, 2), (2, 3, 1)))
OPEN = Multigraph((3, 3, 2), ((0, 1, 1), (0, 2, 1)))


def census(max_rank: int, order: int) -> list[Multigraph]:
    ranks = range(1, max_rank + 1)
    supports = [support for size in ranks for support in combinations(ranks, size)]
    return [graph for support in supports for graph in connected_graphs(support, order)]


GRAPHS = [graph for n in range(2, 6) for graph in census(3, n)] + [g for n in range(2, 5) for g in census(4, n)]


class Picture:
    """The discs and curves that a reader sees, read back from the SVG."""

    def __init__(self, graph: Multigraph) -> None:
        root = ElementTree.fromstring(diagram(graph))
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        assert root.findtext(f"{SVG}title") == graph.formula
        circles = root.findall(f".//{SVG}circle")
        self.radius = float(circles[0].get("r"))
        self.discs = [complex(float(c.get("cx")), float(c.get("cy"))) for c in circles]
        self.letters = [text.text for text in root.iter(f"{SVG}text")]
        self.fills = [c.get("fill") for c in circles]
        paths = root.find(f"{SVG}path").get("d").split("M")[1:]
        self.curves = [
            np.array(path.replace("L", " ").replace("Q", " ").split(), float).reshape(-1, 2) for path in paths
        ]

    def ends(self, curve: np.ndarray) -> tuple[int | None, int | None]:
        """The discs in whose centres a curve starts and stops; None for a free end."""
        found = []
        for x, y in (curve[0], curve[-1]):
            near = [k for k, z in enumerate(self.discs) if abs(z - complex(x, y)) < 0.2]
            assert len(near) <= 1
            found.append(near[0] if near else None)
        return found[0], found[1]


def along(curve: np.ndarray) -> np.ndarray:
    """Points of a straight line or a quadratic Bézier curve, as complex numbers."""
    t = np.linspace(0, 1, 41)[:, None]
    a, b = curve[0], curve[-1]
    middle = curve[1] if len(curve) == 3 else (a + b) / 2
    return ((1 - t) ** 2 * a + 2 * t * (1 - t) * middle + t**2 * b) @ [1, 1j]


def check_picture(graph: Multigraph) -> None:
    """Everything that the graph has is there, inside the frame, and nothing hides or touches what it should not."""
    picture, drawn = Picture(graph), canonical(graph)
    assert picture.letters == [kind.letter for kind in drawn.kinds]
    assert all(f"--rank-{rank}," in fill for rank, fill in zip(drawn.ranks, picture.fills, strict=True))
    assert picture.radius >= 0.9 * SMALLEST
    for a, b in combinations(picture.discs, 2):
        assert abs(a - b) > 2.4 * picture.radius
    edges, legs = {}, dict.fromkeys(range(graph.order), 0)
    for curve in picture.curves:
        first, second = picture.ends(curve)
        if second is None:
            legs[first] += 1
        else:
            edges[first, second] = edges.get((first, second), 0) + 1
        points = along(curve)
        assert min(points.real.min(), points.imag.min()) > 0
        assert max(points.real.max(), points.imag.max()) < VIEW
        for k, disc in enumerate(picture.discs):
            if k not in (first, second):
                assert np.abs(points - disc).min() > picture.radius
    assert edges == {(u, v): m for u, v, m in drawn.edges}
    assert tuple(legs.values()) == drawn.legs


@pytest.mark.parametrize("order", range(1, 6))
def test_every_graph_is_drawn_whole_and_clear(order):
    graphs = [graph for graph in GRAPHS if graph.order == order] or [Multigraph((rank,)) for rank in range(7)]
    for graph in graphs:
        check_picture(graph)


@pytest.mark.parametrize("graph", [OPEN, PRODUCT, BIPARTITE, PRISM, *census(3, 6)[::5], *census(5, 4)[::7]], ids=str)
def test_larger_open_and_disconnected_graphs_are_drawn(graph):
    check_picture(graph)


@given(multigraphs())
def test_whatever_the_graph_it_is_drawn(graph):
    root = ElementTree.fromstring(diagram(graph))
    assert len(root.findall(f".//{SVG}circle")) == graph.order


@given(multigraphs(), st.randoms(use_true_random=False))
def test_isomorphic_graphs_are_drawn_alike(graph, random):
    order = list(range(graph.order))
    random.shuffle(order)
    other = graph.relabelled(order)
    assert diagram(other).replace(other.formula, "", 1) == diagram(graph).replace(graph.formula, "", 1)


def symmetries(graph: Multigraph) -> int:
    """Turns and reflections about the centre that map the picture onto itself, discs of a rank onto their like."""
    picture = Picture(graph)
    discs = [(z - np.mean(picture.discs), rank) for z, rank in zip(picture.discs, canonical(graph).ranks, strict=True)]
    curves = [along(curve) - np.mean(picture.discs) for curve in picture.curves]
    far = max(abs(z) for z, _ in discs)
    source = next(z for z, _ in discs if abs(z) > far - 0.2)
    found = 0
    for image in (z for z, _ in discs if abs(abs(z) - far) < 0.2):
        for turn, mirror in ((image / source, False), (image / source.conjugate(), True)):
            moved = [(turn * (z.conjugate() if mirror else z), rank) for z, rank in discs]
            lines = [turn * (line.conjugate() if mirror else line) for line in curves]
            found += all(any(abs(z - w) < 0.4 and r == q for w, q in discs) for z, r in moved) and all(
                any(min(np.abs(a - b).max(), np.abs(a - b[::-1]).max()) < 0.6 for b in curves) for a in lines
            )
    return found


@pytest.mark.parametrize(
    ("graph", "expected"),
    [(STAR, 6), (SQUARE, 8), (CHAIN, 4), (TRIANGLE, 2), (COMPLETE, 8), (BIPARTITE, 12), (PRISM, 6)],
)
def test_symmetric_graphs_look_symmetric(graph, expected):
    assert symmetries(graph) == expected
    assert automorphism_count(graph) % expected == 0


@pytest.mark.parametrize("graph", [STAR, TRIANGLE, SQUARE], ids=str)
def test_a_mirror_symmetry_is_shown_left_and_right(graph):
    discs = Picture(graph).discs
    for z in discs:
        assert any(hypot(VIEW - z.real - w.real, z.imag - w.imag) < 0.3 for w in discs)


def test_parallel_edges_bend_evenly_and_an_odd_one_is_straight():
    picture = Picture(Multigraph((3, 3), ((0, 1, 3),)))
    heights = sorted(along(curve)[20].imag for curve in picture.curves)
    assert [len(curve) for curve in picture.curves].count(2) == 1
    assert heights[1] == pytest.approx(VIEW / 2)
    assert heights[0] + heights[2] == pytest.approx(VIEW)
    assert heights[2] - heights[0] > 10


def test_dark_letters_can_be_read_on_every_fill():
    def luminance(colour: str) -> float:
        channels = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for fill in PALETTE:
        assert (luminance(fill) + 0.05) / (luminance("#111111") + 0.05) > 4.5


def test_a_picture_has_the_size_that_is_asked_for():
    assert 'width="60" height="60"' in diagram(COMPLETE, 60)


class Formatters(dict):
    """IPython's formatters, by the kind of picture: each asks for the printer of a type."""

    def __missing__(self, kind):
        self[kind] = self.Formatter()
        return self[kind]

    class Formatter(dict):
        def for_type(self, kind, printer):
            self[kind] = printer


def test_a_notebook_shows_graphs_and_bases():
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters=Formatters()))
    tensorgraph.load_ipython_extension(shell)
    formatters = shell.display_formatter.formatters
    assert formatters["image/svg+xml"][Multigraph](COMPLETE) == diagram(COMPLETE)
    basis = derive("flexible", 3, 2)
    assert formatters["text/html"][Basis](basis) == basis_html(basis)


def test_a_graph_of_ten_vertices_takes_moments():
    """The promise is 0.3 s; this fails on an accident of complexity and not on noise."""
    draw = random.Random(5)
    edges = {(k, (k + 1) % 10) if k < 9 else (0, 9): 1 for k in range(10)}
    while len(edges) < 18:
        u, v = sorted(draw.sample(range(10), 2))
        edges[u, v] = 1
    ranks = tuple(sum(k in pair for pair in edges) for k in range(10))
    graph = Multigraph(ranks, tuple((u, v, 1) for u, v in sorted(edges)))
    code = f"""
import time
from tensorgraph.graphs import Multigraph
from tensorgraph.reports.drawing import diagram
graph = {graph!r}
start = time.perf_counter()
diagram(graph)
assert time.perf_counter() - start < 3
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
    check_picture(graph)


def test_two_hash_seeds_draw_the_same():
    code = """
from tensorgraph.graphs import connected_graphs
from tensorgraph.reports import diagram
print([diagram(graph) for order in (3, 4, 5) for graph in connected_graphs((1, 2, 3), order)])
"""
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        ).stdout
        for seed in ("0", "4242")
    }  # fmt: skip
    assert len(texts) == 1
