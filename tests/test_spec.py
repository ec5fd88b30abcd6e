"""Specs: what is accepted, and one line for everything that is not."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tensorgraph.errors import SpecError, TensorGraphError
from tensorgraph.spec import (
    BasisSpec,
    NetworkSpec,
    SensitivitySpec,
    Spec,
    line_of,
    load_spec,
    parse_spec,
    spec_schema,
)
from tensorgraph.spec.elements import ATOMIC_NUMBERS, SYMBOLS
from tensorgraph.spec.yaml_source import MAX_BYTES, plain_value
from tests.bad_specs import BAD, BASIS, INJECTIONS, NAME, NETWORK, SENSITIVITY

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "specs").glob("*.yaml"))


def quoted(text: str) -> str:
    """`text` as a double-quoted YAML scalar."""
    escaped = "".join(char if char.isascii() and char.isalnum() else f"\\U{ord(char):08x}" for char in text)
    return f'"{escaped}"'


@pytest.mark.parametrize(("text", "line", "message"), BAD.values(), ids=BAD)
def test_bad_spec_is_one_line(text: str, line: int, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "dir/a1.yaml")
    shown = str(caught.value)
    assert shown.startswith(f"dir/a1.yaml:{line}: {message}")
    assert "allowed: " in shown
    assert shown.isprintable()


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_text_becomes_a_name_or_a_symbol(text: str) -> None:
    with pytest.raises(SpecError, match="`name` is "):
        parse_spec(f"name: {quoted(text)}\n{BASIS}")
    with pytest.raises(SpecError, match=r"`network\.species\[0\]` is "):
        parse_spec(f"{NAME}{BASIS}network: {{species: [{quoted(text)}]}}\n")
    with pytest.raises(SpecError, match=r"`basis\.family` is "):
        parse_spec(NAME + BASIS.replace("hiphop", quoted(text)))
    with pytest.raises(SpecError, match="unknown key ") as caught:
        parse_spec(f"{NAME}{BASIS}{quoted(text)}: 1\n")
    assert str(caught.value).isprintable()


def test_unreadable_files(tmp_path: Path) -> None:
    latin, large = tmp_path / "latin.yaml", tmp_path / "large.yaml"
    latin.write_bytes(b"name: a1\nbasis: gr\xf6\xdfe\n")
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    for path, line, message in (
        (tmp_path / "none.yaml", 1, "there is no such file"),
        (tmp_path, 1, "this is a directory"),
        (Path("/dev/zero"), 1, "this is no regular file"),
        (latin, 2, "byte 0xf6 is not UTF-8; allowed: UTF-8 text"),
        (latin / "below", 1, "cannot be read"),
        (large, 1, "the file is too large; allowed: at most 1048576 bytes"),
        (Path("a\nb\0c"), 1, ""),
    ):
        with pytest.raises(SpecError) as caught:
            load_spec(path)
        assert f":{line}: {message}" in str(caught.value)
        assert str(caught.value).isprintable()


def test_the_printed_example_has_the_defaults() -> None:
    spec = load_spec(ROOT / "specs" / "hiphop5.yaml")
    network = NetworkSpec(
        species=("H", "C", "N", "O"),
        features=128,
        interactions=2,
        atom_layers=3,
        sensitivity=SensitivitySpec(functions=20, soft_min=0.75, soft_max=5.5, cutoff=6.5),
        group_norm=True,
        residual=True,
    )
    basis = BasisSpec(family="hiphop", body_order=5, max_rank=3)
    assert spec == Spec(name="hiphop5", basis=basis, network=network)
    assert spec.network == NetworkSpec(species=("H", "C", "N", "O"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_specs(path: Path) -> None:
    spec = load_spec(path)
    assert spec.name == path.stem
    assert path.read_text("utf-8").startswith(f"# specs/{path.name}: ")


def test_symbols_that_other_readers_take_for_truth_values() -> None:
    spec = parse_spec(NAME + BASIS + "network: {species: [No, Y, N]}\n")
    assert spec.network is not None
    assert spec.network.species == ("No", "Y", "N")
    assert 'species: ["No", Y, N]\n' in spec.to_yaml()


def test_the_network_is_optional_and_windows_line_ends_are_fine() -> None:
    text = "\ufeff" + (NAME + BASIS).replace("\n", "\r\n")
    assert parse_spec(text) == Spec(name="a1", basis=BasisSpec(family="hiphop", body_order=5, max_rank=3))


def test_specs_are_frozen_and_strict() -> None:
    spec = load_spec(SHIPPED[0])
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        BasisSpec(family="hiphop", body_order=True, max_rank=3)
    with pytest.raises(ValidationError):
        BasisSpec.model_validate({"family": "hiphop", "body_order": "5", "max_rank": 3})


def test_digest_fills_defaults_in_and_ignores_layout() -> None:
    short = parse_spec(f"{NAME}{BASIS}network: {{species: [H], sensitivity: {{cutoff: 6.5}}}}\n")
    long = parse_spec(
        f"{BASIS}network:\n  features: 128\n  species:\n  - H\n  sensitivity: {{soft_min: 7.5e-1}}\n{NAME}"
    )
    assert short.digest == long.digest
    assert short.canonical_json().startswith('{"basis":{"body_order":5,"family":"hiphop","max_rank":3},"name":"a1",')


def test_a_whole_number_may_stand_for_a_length() -> None:
    spec = parse_spec(SENSITIVITY + "    cutoff: 7\n")
    assert spec.network is not None
    assert repr(spec.network.sensitivity.cutoff) == "7.0"


@pytest.mark.parametrize(
    ("text", "value"),
    [("", None), ("~", None), ("NULL", None), ("True", True), ("yes", "yes"), ("No", "No"), ("007", 7), ("0o17", 15),
     ("0x1F", 31), ("1_000", "1_000"), ("-.5", -0.5), ("1.", 1.0), ("1e3", 1000.0), ("-.INF", float("-inf")),
     ("1:30", "1:30"), ("nan", "nan"), ("٣", "٣")],
)  # fmt: skip
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


def test_line_of(tmp_path: Path) -> None:
    path = tmp_path / "a1.yaml"
    path.write_text(NAME + BASIS + NETWORK)
    assert line_of(path, ("basis", "body_order")) == 4
    assert line_of(path, ("network", "features")) == 6
    assert line_of(path, ("nothing",)) == 1


def test_schema_agrees_with_the_models() -> None:
    schema = spec_schema()
    assert schema == spec_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    sections = {"BasisSpec": BasisSpec, "NetworkSpec": NetworkSpec, "SensitivitySpec": SensitivitySpec}
    for name, model in sections.items():
        section = schema["$defs"][name]
        assert list(section["properties"]) == list(model.model_fields)
        assert section["additionalProperties"] is False
        assert all("title" in key and "description" in key for key in section["properties"].values())
    assert schema["$defs"]["Spec"]["required"] == ["name", "basis"]
    assert schema["$defs"]["NetworkSpec"]["properties"]["species"]["items"]["enum"] == list(SYMBOLS)
    assert "null" not in str(schema["$defs"]["Spec"]["properties"]["network"])


def test_elements() -> None:
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 118
    assert [ATOMIC_NUMBERS[symbol] for symbol in ("H", "C", "Au", "Og")] == [1, 6, 79, 118]


def test_errors_pickle_and_print_on_one_line() -> None:
    error = pickle.loads(pickle.dumps(SpecError("a\nb", 3, "x\ty")))
    assert str(error) == "a\\nb:3: x\\ty"
    assert str(TensorGraphError("one\ntwo")) == "one\\ntwo"


def test_specs_load_without_the_heavy_libraries() -> None:
    code = (
        "import sys, tensorgraph.spec, tensorgraph.cli;"
        "print(*sorted({'torch', 'ase', 'sympy', 'networkx', 'numpy', 'rich'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == ""
