"""The atlas: one whole page that needs nothing else, and the command that writes it."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_cli import SMALL, run, snapshot

from tensorgraph import cli
from tensorgraph.compiler import Compilation, compile_spec
from tensorgraph.graphs import SCALAR, Multigraph
from tensorgraph.reports import atlas_page
from tensorgraph.reports.html import basis_html, formula_html
from tensorgraph.spec import BasisSpec, Spec, load_spec

ROOT = Path(__file__).parents[1]
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """A page whose tags must balance; collects its links, ids, visible text and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids += [value for key, value in attrs if key == "id"]
        if tag == "a":
            self.links.append(attributes["href"])
        else:
            self.loads += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def flexible() -> Compilation:
    return compile_spec(load_spec(ROOT / "specs" / "flexible5.yaml"))


@pytest.fixture(scope="module")
def page(flexible: Compilation) -> str:
    return atlas_page(flexible)


def atlas_of(family: str, body_order: int, max_rank: int) -> tuple[Compilation, str]:
    basis = BasisSpec(family=family, body_order=body_order, max_rank=max_rank)
    compilation = compile_spec(Spec(name="small", basis=basis))
    return compilation, atlas_page(compilation)


def test_the_page_is_well_formed_and_accessible(page):
    parsed = Page(page)
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert parsed.tags.count("h1") == parsed.tags.count("style") == parsed.tags.count("head") == 1
    assert parsed.tags.count("table") == parsed.tags.count("caption") == 2
    assert parsed.tags.count("svg") == page.count('role="img"><title>')
    for query in ("prefers-color-scheme: dark", "@media print"):
        assert query in page


def test_the_page_needs_nothing_else(page):
    parsed = Page(page)
    assert parsed.loads == []
    assert not {"script", "link", "iframe", "object", "img", "base", "form"} & set(parsed.tags)
    assert "url(" not in page
    assert "@import" not in page
    outside = [link for link in parsed.links if not link.startswith("#")]
    assert all(re.match(r"https://(arxiv\.org|doi\.org)/", link) for link in outside)
    remaining = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert re.findall(r"https?://[^\"<]*", remaining) == outside


def test_links_within_the_page_lead_somewhere(page):
    parsed = Page(page)
    inside = [link.removeprefix("#") for link in parsed.links if link.startswith("#")]
    assert len(inside) == 13  # all but the scalar end in a step
    assert set(inside) <= set(parsed.ids)


def test_everything_that_the_basis_holds_is_on_the_page(flexible, page):
    basis, text = flexible.basis, Page(page).text
    for invariant in basis.invariants:
        card = page[page.index(f'<li id="i-{invariant.name}">') :]
        card = card[: card.index("</li>")]
        assert f"<title>{invariant.graph.formula}</title>" in card
        assert formula_html(invariant.graph) in card
        assert invariant.graph.einsum.replace(">", "&gt;") in card
    left_out = page[page.index("Tried and left out") :]
    assert left_out.count("<li><svg") == len(basis.dropped) > 0
    for dropped in basis.dropped:
        assert f"<title>{dropped.graph.formula}</title>" in left_out
        assert dropped.reason in left_out
    for row in basis.certificate.strata:
        assert "{" + ", ".join(kind.key for kind in row.stratum) + "}" in text
    for line in flexible.instructions:
        assert f"{line.operations.total:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") in text
    assert str(flexible.contractions) in text


@pytest.mark.parametrize(
    ("family", "body_order", "max_rank"),
    [
        ("hiphop", 2, 0),
        ("hiphop", 5, 3),
        ("independent", 4, 2),
        ("connected", 5, 3),
        ("linear", 4, 2),
        ("flexible", 4, 4),
    ],
)
def test_every_family_has_a_page(family, body_order, max_rank):
    compilation, text = atlas_of(family, body_order, max_rank)
    parsed = Page(text)
    assert text.count('<li id="i-') == len(compilation.basis)
    assert text.count("<li><svg") == len(compilation.basis.dropped) + max_rank + 1  # and the legend
    assert parsed.loads == []
    assert len(text) < 2500 * (len(compilation.basis) + len(compilation.basis.dropped)) + 15_000


def test_text_from_outside_is_escaped(flexible):
    class Named:
        name = digest = "<b>&\"'"

    changed = object.__new__(Compilation)
    changed.__dict__.update({**flexible.__dict__, "spec": Named})
    text = atlas_page(changed)
    assert "<b>" not in text
    assert text.count("&lt;b&gt;&amp;&quot;&#x27;") == 3
    Page(text)


def test_a_formula_has_its_indices_below():
    assert formula_html(Multigraph((2, 1, 1), ((0, 1, 1), (0, 2, 1)))) == (
        "<i>q</i><sub>ab</sub> <i>v</i><sub>a</sub> <i>v</i><sub>b</sub>"
    )
    assert formula_html(SCALAR) == "<i>s</i>"


def test_a_basis_is_a_table_of_its_own(flexible):
    text = basis_html(flexible.basis)
    parsed = Page(text)
    assert parsed.tags.count("table") == parsed.tags.count("caption") == 1
    assert parsed.tags.count("svg") == text.count("<tr>") - 1 == len(flexible.basis)
    assert not {"script", "style", "link"} & set(parsed.tags)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small1.yaml"
    path.write_text(SMALL)
    return path


def test_the_command_writes_the_page(spec, capsys):
    out = spec.parent / "new" / "atlas.html"
    assert cli.main(["atlas", str(spec), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert re.fullmatch(r"drawn in [0-9.]+ s\n", captured.err)
    assert out.read_text("utf-8") == atlas_page(compile_spec(load_spec(spec)))
    assert os.listdir(out.parent) == ["atlas.html"]
    out.write_text("old")
    link = spec.parent / "link.html"
    link.symlink_to(out)
    assert cli.main(["atlas", str(spec), "--out", str(link)]) == 0
    assert link.is_symlink()
    assert out.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_two_hash_seeds_write_the_same_page(tmp_path):
    for seed in ("0", "4242"):
        done = run("atlas", "specs/hiphop5.yaml", "--out", tmp_path / f"{seed}.html", PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
    pages = snapshot(tmp_path)
    assert pages["0.html"] == pages["4242.html"]
    assert str(tmp_path).encode() not in pages["0.html"]


@pytest.mark.parametrize("out", [".", "small1.yaml/atlas.html", "/dev/null", "x" * 300 + ".html"])
def test_what_cannot_be_written_is_one_line(out, spec, monkeypatch, capsys):
    monkeypatch.chdir(spec.parent)
    assert cli.main(["atlas", "small1.yaml", "--out", out]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tensorgraph: cannot write ")
    assert captured.err.count("\n") == 1
    assert snapshot(spec.parent) == {"small1.yaml": SMALL.encode()}


def test_a_failure_leaves_the_earlier_page(spec, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out = spec.parent / "atlas.html"
    out.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    assert cli.main(["atlas", str(spec), "--out", str(out)]) == 1
    assert capsys.readouterr().err == f"tensorgraph: cannot write {out}: No space left on device\n"
    assert snapshot(spec.parent) == {"atlas.html": b"old", "small1.yaml": SMALL.encode()}


def test_a_bad_spec_is_one_line_and_leaves_the_earlier_page(spec, capsys):
    out = spec.parent / "atlas.html"
    out.write_text("old")
    spec.write_text(SMALL.replace("hiphop", "hipster"))
    assert cli.main(["atlas", str(spec), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"{spec}:3: `basis.family` is 'hipster'")
    assert captured.err.count("\n") == 1
    assert out.read_text() == "old"


@pytest.mark.parametrize("call", [[], ["a.yaml"], ["--out", "a.html"], ["a.yaml", "--ou", "a.html"]])
def test_a_wrong_call_exits_with_2(call, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["atlas", *call])
    assert stopped.value.code == 2
    assert capsys.readouterr().out == ""
