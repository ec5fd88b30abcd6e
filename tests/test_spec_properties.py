"""Specs: properties that hold for every spec and for every text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgraph.errors import SpecError
from tensorgraph.spec import BasisSpec, NetworkSpec, SensitivitySpec, Spec, parse_spec
from tensorgraph.spec.elements import SYMBOLS
from tests.bad_specs import WHOLE

PROPERTY = settings(max_examples=100, deadline=None, derandomize=True, print_blob=True)

numbers = st.floats(0.01, 100)
sensitivities = (
    st.tuples(st.integers(1, 256), numbers, numbers, numbers)
    .filter(lambda values: values[1] < min(values[2:]))
    .map(lambda v: SensitivitySpec(functions=v[0], soft_min=v[1], soft_max=v[2], cutoff=v[3]))
)
networks = st.builds(
    NetworkSpec,
    species=st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=9, unique=True).map(tuple),
    features=st.integers(2, 4096),
    interactions=st.integers(1, 8),
    atom_layers=st.integers(0, 16),
    sensitivity=sensitivities,
    group_norm=st.booleans(),
    residual=st.booleans(),
)
bases = st.builds(
    BasisSpec,
    family=st.sampled_from(["hiphop", "flexible", "independent", "connected", "linear"]),
    body_order=st.integers(2, 7) | st.just("complete"),
    max_rank=st.integers(0, 8),
)
names = st.from_regex(r"q[a-z0-9_]{0,12}", fullmatch=True).filter(
    lambda name: name not in {"queue", "quopri"}
) | st.just("null")
specs = st.builds(Spec, name=names, basis=bases, network=st.none() | networks)


@PROPERTY
@given(specs)
def test_yaml_round_trip(spec: Spec) -> None:
    text = spec.to_yaml()
    again = parse_spec(text)
    assert again == spec
    assert again.digest == spec.digest
    assert again.to_yaml() == text
    assert text.startswith(f"# {spec.name}: a tensorgraph spec\n")


@PROPERTY
@given(specs, specs)
def test_equal_digests_mean_equal_specs(one: Spec, other: Spec) -> None:
    assert (one.digest == other.digest) == (one == other)


noise = st.text(alphabet=st.sampled_from("a5é:-[]{}#&*!|>'\"%@`?, \n\t\r\\0.~\u2028\ufeff"), max_size=6)


def outcome(text: str) -> str:
    """What a reader of `text` gets to see: the spec that it holds, read back once, or the error."""
    try:
        return parse_spec(parse_spec(text).to_yaml()).to_yaml()
    except SpecError as error:
        return str(error)


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), noise), max_size=4))
def test_any_text_gives_a_spec_or_one_line(insertions: list[tuple[int, str]]) -> None:
    text = WHOLE
    for position, inserted in insertions:
        text = text[:position] + inserted + text[position:]
    seen = outcome(text)
    assert seen.startswith("# ") or (seen.startswith("<string>:") and seen.isprintable())
