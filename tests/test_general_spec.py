"""Specs of the general form: what is accepted, what is refused in one line, and what a digest depends on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from tensorgraph import cli, potential
from tensorgraph.errors import SpecError
from tensorgraph.spec import (
    BasisLayerSpec,
    DegreeSpec,
    DensitySpec,
    GeneralSpec,
    LayerSpec,
    RadialSpec,
    ReadoutSpec,
    RepulsionSpec,
    Spec,
    UpdateSpec,
    line_of,
    load_spec,
    parse_spec,
    spec_schema,
)
from tensorgraph.spec.documents import dotted_keys
from tensorgraph.spec.elements import SYMBOLS
from tensorgraph.spec.sections import COVARIANT
from tensorgraph.spec.yaml_source import parse_yaml
from tests.bad_general_specs import ACE, BAD, GOOD, HIPHOP, MTP, TWO
from tests.bad_specs import BASIS, INJECTIONS, NAME, WHOLE
from tests.test_spec_properties import noise, outcome

ROOT = Path(__file__).parents[1]
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, print_blob=True)
PAGE = (ROOT / "docs" / "specs.md").read_text(encoding="utf-8")
SCHEMA = Draft202012Validator(spec_schema())


def as_json(text: str) -> Any:
    return json.loads(json.dumps(dict(parse_yaml(text, "a.yaml", "").value)))


@pytest.mark.parametrize("row", BAD.values(), ids=BAD)
def test_bad_spec_is_one_line(row: tuple[str, str, str, int, str]) -> None:
    good, old, new, line, message = row
    text = good.replace(old, new, 1)
    assert text != good
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "dir/a1.yaml")
    shown = str(caught.value)
    assert shown.startswith(f"dir/a1.yaml:{line}: {message}")
    assert "; allowed: " in shown
    assert shown.isprintable()


def test_every_key_is_refused_somewhere() -> None:
    sections = (RadialSpec, LayerSpec, DensitySpec, BasisLayerSpec, DegreeSpec, UpdateSpec, ReadoutSpec)
    for section in sections:
        for key in section.model_fields:
            assert any(re.search(rf"\b{key}` ", row[4]) for row in BAD.values()), f"{section.__name__}.{key}"


def test_a_document_of_no_form_is_told_of_both() -> None:
    for text in (NAME, NAME + "network: {species: [H]}\n"):
        with pytest.raises(
            SpecError, match=r"^a:1: the key `basis` is missing; .* or the key layers of a general spec$"
        ):
            parse_spec(text, "a")
    with pytest.raises(
        SpecError, match=r"empty; allowed: .* basis, or name and species and radial and layers and readout$"
    ):
        parse_spec("", "a")


def test_the_sections_have_the_defaults_of_the_table() -> None:
    mtp = parse_spec(MTP)
    assert mtp == GeneralSpec(
        name="mtp1",
        species=("H", "C"),
        radial=RadialSpec(kind="chebyshev", functions=8, cutoff=5.0, soft_min=0.75, mix="species_pair", channels=4),
        layers=(
            LayerSpec(
                density=DensitySpec(max_rank=4, channels=1, of="species", dimension=3),
                basis=BasisLayerSpec(
                    family="products", body_order=5, outputs=(0,), across="channels",
                    degree=DegreeSpec(limit=16, of="2 + 4n + l"),
                ),
                update=None,
                repeat=1,
            ),
        ),
        readout=ReadoutSpec(kind="linear", per="species", of="last"),
    )  # fmt: skip
    two = parse_spec(TWO)
    assert isinstance(two, GeneralSpec)
    assert two.layers[0].update == UpdateSpec(
        mix="full", residual="all", activation="softplus", norm="group", atom_layers=0
    )
    assert [layer.density.of for layer in two.layers] == ["species", "features"]
    ace = parse_spec(ACE)
    assert isinstance(ace, GeneralSpec)
    assert (ace.radial.soft_min, ace.radial.soft_max, ace.radial.channels, ace.radial.mix) == (0.75, 4.5, 1, "none")


def test_what_both_forms_say_of_their_models() -> None:
    general, short, bare = parse_spec(TWO), parse_spec(WHOLE), parse_spec(NAME + BASIS)
    assert [spec.has_model for spec in (general, short, bare)] == [True, True, False]
    assert [spec.species_of_model for spec in (general, short, bare)] == [("H", "C"), ("H", "C"), ()]
    assert [spec.model_cutoff for spec in (general, short, bare)] == [5.0, 6.5, None]


def test_specs_are_frozen_and_strict() -> None:
    spec = parse_spec(MTP)
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]
    for wrong in ({"max_rank": True}, {"max_rank": "3"}, {"max_rank": 3, "dimension": 3.0}):
        with pytest.raises(ValidationError):
            DensitySpec.model_validate(wrong)
    with pytest.raises(ValidationError, match="has no meaning with kind: bessel"):
        RadialSpec(kind="bessel", soft_max=5.5)


def test_the_digest_fills_defaults_in_and_ignores_layout() -> None:
    spec = parse_spec(MTP)
    long = MTP.replace("mix:", "soft_min: 7.5e-1\n  functions: 8\n  mix:").replace("2 + 4n + l", "1l  +4n+ 2")
    assert parse_spec(long).digest == spec.digest
    assert spec.canonical_json() == (
        '{"layers":[{"basis":{"across":"channels","body_order":5,"degree":{"limit":16,"of":"2 + 4n + l"},'
        '"family":"products","outputs":[0]},"density":{"channels":1,"dimension":3,"max_rank":4,"of":"species"},"repeat":1}],'
        '"name":"mtp1","radial":{"channels":4,"cutoff":5.0,"functions":8,"kind":"chebyshev","mix":"species_pair",'
        '"soft_min":0.75},"readout":{"kind":"linear","of":"last","per":"species"},"species":["H","C"]}'
    )
    assert spec.digest == "22d5063fa91a66aed83cec53157ca7afab42bfefcf5050fe8e8d9723bae9615d"


def test_the_short_form_keeps_its_digests() -> None:
    assert (
        load_spec(ROOT / "specs" / "hiphop5.yaml").digest
        == "9a7950451237c9da386ad536dc61be535e390658d741a75680bbc865700c280d"
    )
    assert '"network":null' in parse_spec(NAME + BASIS).canonical_json()


EXAMPLES = {f"docs {n}": text for n, text in enumerate(re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.M))}


@pytest.mark.parametrize("text", [*GOOD.values(), *EXAMPLES.values()], ids=[*GOOD, *EXAMPLES])
def test_round_trips_of_the_examples(text: str) -> None:
    check_round_trips(parse_spec(text))
    assert SCHEMA.is_valid(as_json(text))


def check_round_trips(spec: Spec | GeneralSpec) -> None:
    text = spec.to_yaml()
    again = parse_spec(text)
    assert again == spec
    assert again.digest == spec.digest
    assert again.to_yaml() == text
    assert text.startswith(f"# {spec.name}: a tensorgraph spec\n")
    assert parse_spec(spec.canonical_json()) == spec  # which is what a checkpoint holds
    assert SCHEMA.is_valid(as_json(text))


@pytest.mark.parametrize(
    ("text", "form", "numbers"),
    [
        ("2 + 4n + l", "2 + 4n + l", (2, 4, 1)), ("l+4n+2", "2 + 4n + l", (2, 4, 1)), (" 64l ", "64l", (0, 0, 64)),
        ("n", "n", (0, 1, 0)), ("3 + 0n + 1l", "3 + l", (3, 0, 1)), ("07", "7", (7, 0, 0)), ("1 + 0l", "1", (1, 0, 0)),
    ],
)  # fmt: skip
def test_degrees_are_linear_forms(text: str, form: str, numbers: tuple[int, int, int]) -> None:
    degree = DegreeSpec(limit=64, of=text)
    assert degree.of == form
    assert (degree.constant, degree.per_channel, degree.per_rank) == numbers
    assert degree == DegreeSpec(limit=64, of=form)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "of which '' is no term"), ("2 +", "of which '' is no term"), ("2 4n", "of which '2 4n' is no term"),
        ("4 n", "of which '4 n' is no term"), ("4*n", "of which '4*n' is no term"), ("-n", "of which '-n' is no term"),
        ("n - l", "of which 'n - l' is no term"), ("2.0", "of which '2.0' is no term"),
        ("nl", "of which 'nl' is no term"), ("n4", "of which 'n4' is no term"), ("(n)", "of which '(n)' is no term"),
        ("N", "of which 'N' is no term"), ("٣n", "of which '٣n' is no term"), ("n\n+ l", "is no term"),
        ("n + 2n", "with n twice"), ("l + 0l", "with l twice"), ("1 + n + 1", "with two constants"),
        ("65", "of which 65 is above 64"), ("2 + 65n", "of which 65 is above 64"), ("0", "which limits nothing"),
        ("0n + 0l", "which limits nothing"), ("exec", "of which 'exec' is no term"), ("{at}", "of which '{at}' is no"),
    ],
)  # fmt: skip
def test_what_is_no_linear_form(text: str, wrong: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(MTP.replace("2 + 4n + l", json.dumps(text)), "a.yaml")
    assert str(caught.value).startswith("a.yaml:16: `layers[0].basis.degree.of` is ")
    assert wrong in str(caught.value)
    assert "; allowed: text such as 2 + 4n + l: a sum of" in str(caught.value)


def test_long_degrees_are_refused_unread() -> None:
    with pytest.raises(SpecError, match=r"of` is '99999.*…; allowed: text such as"):
        parse_spec(MTP.replace("2 + 4n + l", "9" * 5000 + "n"))


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_text_becomes_a_name_a_symbol_or_a_word(text: str) -> None:
    for old, place in (("mtp1", "name"), ("H", r"species\[0\]"), ("chebyshev", r"radial\.kind"), ("products", "family"),
                       ("2 + 4n + l", r"layers\[0\]\.basis\.degree\.of")):  # fmt: skip
        with pytest.raises(SpecError, match=f"{place}` is ") as caught:
            parse_spec(MTP.replace(old, json.dumps(text), 1))
        assert str(caught.value).isprintable()


def test_lines_of_parts_of_lists(tmp_path: Path) -> None:
    path = tmp_path / "two1.yaml"
    path.write_text(TWO)
    assert line_of(path, ("layers", 1, "density", "of")) == 19
    assert line_of(path, ("layers", 1, "update")) == 16
    assert "layers" in dotted_keys(GeneralSpec)
    assert not any(key.startswith("layers.") for key in dotted_keys(GeneralSpec))


def test_a_checkpoint_may_hold_a_general_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(potential, "spec_of_checkpoint", lambda path: parse_spec(MTP).canonical_json())
    assert potential.read_spec("m.safetensors") == parse_spec(MTP)


def test_commands_report_a_wrong_one_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mtp1.yaml"
    path.write_text(MTP.replace("max_rank: 4", "max_rank: 9"))
    assert cli.main(["build", str(path), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error == f"{path}:9: `layers[0].density.max_rank` is 9; allowed: an integer from 0 to 8\n"
    assert not (tmp_path / "mtp1").exists()


def test_the_page_lists_every_key() -> None:
    sections = {"radial": RadialSpec, "density": DensitySpec, "basis": BasisLayerSpec, "update": UpdateSpec,
                "readout": ReadoutSpec}  # fmt: skip
    for name, section in sections.items():
        assert all(f"`{name}.{key}" in PAGE for key in section.model_fields), name
    for key in (*LayerSpec.model_fields, *GeneralSpec.model_fields):
        assert re.search(rf"`{key}[`.]", PAGE), key


def test_the_schema_has_both_forms() -> None:
    schema = spec_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["anyOf"] == [{"$ref": "#/$defs/Spec"}, {"$ref": "#/$defs/GeneralSpec"}]
    models = (
        Spec,
        GeneralSpec,
        RadialSpec,
        LayerSpec,
        DensitySpec,
        BasisLayerSpec,
        DegreeSpec,
        UpdateSpec,
        ReadoutSpec,
        RepulsionSpec,
    )
    for model in models:
        section = schema["$defs"][model.__name__]
        assert list(section["properties"]) == list(model.model_fields)
        assert section["additionalProperties"] is False
        assert all("title" in key and "description" in key for key in section["properties"].values())
    assert "null" not in json.dumps({model.__name__: schema["$defs"][model.__name__] for model in models[1:]})


ACROSS_KEYS = {
    "a fractional dimension", "across and channels", "across in hiphop", "across layers", "across unmixed",
    "both", "channels", "cutoff below soft_min", "cutoff infinite", "degree of flexible",
    "degree without across", "first of features", "limit below", "name", "norm of one", "outputs at the end",
    "outputs descending", "outputs of hiphop", "per missing", "per with an update", "repeated vectors",
    "second by default", "second of species", "soft_max", "soft_max of Bessel", "soft_max of Chebyshev",
    "soft_min", "soft_min of Bessel", "update missing", "update of a repeated",
    "exactly and limit", "exactly below", "four dimensions", "four dimensions twice", "functions on the sphere",
    "mix on the sphere", "neither limit nor exactly", "rfac0 elsewhere", "rmin0", "rmin0 elsewhere", "self in three",
    "channels on the sphere", "three on the sphere", "radii of others", "radius too large",
    "channels without update", "norm of one before", "mixed without across",
}  # fmt: skip
"""What only validators know: relations between keys, modules of Python, infinity, and that 3.0 is no integer."""


@pytest.mark.parametrize("name", sorted(BAD.keys() - ACROSS_KEYS))
def test_the_schema_refuses_what_is_wrong_in_one_key(name: str) -> None:
    good, old, new, *_ = BAD[name]
    assert not SCHEMA.is_valid(as_json(good.replace(old, new, 1)))


radials = st.one_of(
    st.builds(RadialSpec, kind=st.just("bessel"), functions=st.integers(1, 256), cutoff=st.floats(0.1, 100)),
    st.builds(
        RadialSpec,
        kind=st.just("chebyshev"),
        cutoff=st.floats(2, 100),
        soft_min=st.floats(0.01, 1.99),
    ),
    st.builds(
        RadialSpec,
        kind=st.just("inverse_gaussian"),
        cutoff=st.floats(2, 100),
        soft_min=st.floats(0.01, 1.99),
        soft_max=st.floats(2, 100),
    ),
)
updates = st.builds(
    UpdateSpec,
    residual=st.sampled_from(["all", "atom_layers", "none"]),
    activation=st.sampled_from(["softplus", "silu", "none"]),
    norm=st.sampled_from(["group", "none"]),
    atom_layers=st.integers(0, 16),
)
families = st.sampled_from(["hiphop", "flexible", "independent", "connected", "linear", "products"])
degrees = st.builds(
    lambda limit, constant, rank: DegreeSpec(limit=limit, of=f"{constant} + {rank}l"),
    st.integers(64, 100), st.integers(1, 64), st.integers(0, 64),
)  # fmt: skip


@st.composite
def layers(draw: st.DrawFn, index: int, n_layers: int, before: int) -> LayerSpec:
    family, last = draw(families), index == n_layers - 1
    ranks = draw(st.sets(st.integers(1, 3))) if family in COVARIANT and not last else set()
    repeat = draw(st.integers(1, 8)) if index or not ranks else 1
    update = draw(updates if repeat > 1 or not last else st.none() | updates)
    return LayerSpec(
        density=DensitySpec(
            max_rank=draw(st.integers(0, 8)),
            channels=draw(st.integers(2, 4096)) if update or not index else before,
            of="features" if index else "species",
        ),
        basis=BasisLayerSpec(
            family=family,
            body_order=draw(st.integers(2, 7)),
            outputs=(0, *sorted(ranks)),
            degree=draw(st.none() | degrees) if family in ("connected", *COVARIANT.known) else None,
        ),
        update=update,
        repeat=repeat,
    )


@st.composite
def generals(draw: st.DrawFn) -> GeneralSpec:
    n_layers = draw(st.integers(1, 3))
    found: tuple[LayerSpec, ...] = ()
    for index in range(n_layers):
        found += (draw(layers(index, n_layers, found[-1].density.channels if found else 1)),)
    return GeneralSpec(
        name=draw(st.sampled_from(["q1", "null", "true"])),
        species=tuple(draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=5, unique=True))),
        radial=draw(radials),
        layers=found,
        readout=ReadoutSpec(
            kind="linear", per=None if found[-1].update else "species", of=draw(st.sampled_from(["last", "all"]))
        ),
    )


@PROPERTY
@given(generals())
def test_round_trips(spec: GeneralSpec) -> None:
    check_round_trips(spec)


@PROPERTY
@given(generals(), generals())
def test_equal_digests_mean_equal_specs(one: GeneralSpec, other: GeneralSpec) -> None:
    assert (one.digest == other.digest) == (one == other)


@PROPERTY
@given(st.sampled_from([MTP, HIPHOP, ACE]), st.lists(st.tuples(st.floats(0, 1), noise), max_size=3))
def test_any_text_gives_a_spec_or_one_line(text: str, insertions: list[tuple[float, str]]) -> None:
    for fraction, inserted in insertions:
        position = round(fraction * len(text))
        text = text[:position] + inserted + text[position:]
    seen = outcome(text)
    assert seen.startswith("# ") or (seen.startswith("<string>:") and seen.isprintable())
