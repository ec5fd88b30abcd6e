"""The values of a spec: what a user asks for, validated.

Nothing that reaches emitted code is taken unchecked from a spec: names are identifiers from a small alphabet,
symbols come from a table, families from a list, and all else is a bounded number or a truth value.
"""

import hashlib
import json
import keyword
import sys
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tensorgraph.spec.base import Allowed, SpecModel
from tensorgraph.spec.elements import ATOMIC_NUMBERS, SYMBOLS
from tensorgraph.spec.names import SHORT_FAMILIES
from tensorgraph.spec.repulsion import Repulsion, check_repulsion
from tensorgraph.spec.yaml_source import plain_value

_RESERVED_NAMES = frozenset(
    "ase generated hippynn matplotlib networkx numpy opt_einsum pip pydantic pydantic_core pytest rich ruamel "
    "safetensors scipy setuptools sympy tensorgraph torch triton vesin".split()
)
"""What a package with the same name would hide, once its folder is on the path."""


def _check_name(name: str) -> str:
    if keyword.iskeyword(name):
        raise PydanticCustomError("spec_value", f"is {name!r}, a keyword of Python")
    if name in sys.stdlib_module_names or name in _RESERVED_NAMES:
        raise PydanticCustomError("spec_value", f"is {name!r}, which would hide the module of that name")
    return name


def _check_symbol(symbol: str) -> str:
    if symbol not in ATOMIC_NUMBERS:
        raise PydanticCustomError("spec_value", f"is {symbol[:20]!r}, which is no chemical symbol")
    return symbol


def _check_body_order(value: object) -> object:
    if value == "complete" or (type(value) is int and 2 <= value <= 7):
        return value
    raise PydanticCustomError("body_order", "is neither")  # the loader shows the value and what is allowed


def _different(species: tuple[str, ...]) -> tuple[str, ...]:
    for index, symbol in enumerate(species):
        if symbol in species[:index]:
            raise PydanticCustomError("spec_value", f"holds {symbol} twice", {"element": index})
    return species


Name = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64),
    AfterValidator(_check_name),
]
Symbol = Annotated[str, AfterValidator(_check_symbol), Field(json_schema_extra={"enum": list(SYMBOLS)})]
Species = Annotated[
    tuple[Symbol, ...],
    Allowed("a list of 1 to 118 different chemical symbols, such as [H, C, N, O]"),
    Field(min_length=1, title="Species", description="The chemical symbols of the atoms that the model knows."),
    Field(json_schema_extra={"uniqueItems": True}),
    AfterValidator(_different),
]
Family = Annotated[str, AfterValidator(SHORT_FAMILIES.check), Field(json_schema_extra=SHORT_FAMILIES.schema)]


class BasisSpec(SpecModel):
    """Which invariants: a family of contraction graphs, and how large they may be."""

    family: Annotated[
        Family,
        Allowed(SHORT_FAMILIES),
        Field(title="Family", description="The rule that picks the invariants from all contraction graphs."),
    ]
    body_order: Annotated[
        int | Literal["complete"],
        Allowed("an integer from 2 to 7, or complete"),
        PlainValidator(_check_body_order),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 2, "maximum": 7}, {"const": "complete"}]}),
        Field(
            title="Body order",
            description="The central atom and its neighbours. `complete`: as many as full rank on all strata needs.",
        ),
    ]
    max_rank: Annotated[
        int,
        Allowed("an integer from 0 to 8"),
        Field(ge=0, le=8, title="Maximal rank", description="The largest rank of the tensors that are contracted."),
    ]


class SensitivitySpec(SpecModel):
    """The radial functions of a pair, in ångström."""

    functions: Annotated[
        int,
        Allowed("an integer from 1 to 256"),
        Field(ge=1, le=256, title="Functions", description="The number of sensitivity functions."),
    ] = 20
    soft_min: Annotated[
        float,
        Allowed("a number of ångström from 0.01 to 100, below soft_max and cutoff"),
        Field(ge=0.01, le=100, title="Soft minimum", description="The first centre, in Å; below soft_max and cutoff."),
    ] = 0.75
    soft_max: Annotated[
        float,
        Allowed("a number of ångström above soft_min and at most 100"),
        Field(gt=0, le=100, title="Soft maximum", description="The last centre, in Å."),
    ] = 5.5
    cutoff: Annotated[
        float,
        Allowed("a number of ångström above soft_min and at most 100"),
        Field(gt=0, le=100, title="Cutoff", description="The distance beyond which atoms do not interact, in Å."),
    ] = 6.5

    @field_validator("soft_max", "cutoff")
    @classmethod
    def _above_soft_min(cls, value: float, info: ValidationInfo) -> float:
        if value <= info.data.get("soft_min", 0.0):
            message = f"is {value!r}, not above soft_min, which is {info.data['soft_min']!r}"
            raise PydanticCustomError("spec_value", message, {"sibling": "soft_min"})
        return value


class NetworkSpec(SpecModel):
    """The network that the invariants serve."""

    species: Species
    features: Annotated[
        int,
        Allowed("an integer from 1 to 4096"),
        Field(ge=1, le=4096, title="Features", description="The number of channels of every atom."),
    ] = 128
    interactions: Annotated[
        int,
        Allowed("an integer from 1 to 8"),
        Field(ge=1, le=8, title="Interactions", description="The number of interaction blocks."),
    ] = 2
    atom_layers: Annotated[
        int,
        Allowed("an integer from 0 to 16"),
        Field(ge=0, le=16, title="Atom layers", description="The number of linear layers after each interaction."),
    ] = 3
    sensitivity: Annotated[
        SensitivitySpec,
        Allowed("a mapping with the keys functions, soft_min, soft_max, cutoff"),
        Field(title="Sensitivity", description="The radial functions of a pair."),
    ] = SensitivitySpec()
    group_norm: Annotated[
        bool,
        Allowed("false, or true with at least 2 features"),
        Field(title="Group norm", description="Whether each invariant is normalised over the channels of an atom."),
    ] = True
    residual: Annotated[
        bool,
        Allowed("true or false"),
        Field(title="Residual", description="Whether every layer adds its input to its output."),
    ] = True

    repulsion: Repulsion = None

    @field_validator("group_norm")
    @classmethod
    def _over_several_channels(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("features") == 1:
            message = "is true, which makes a single channel constant"
            raise PydanticCustomError("spec_value", message, {"sibling": "features"})
        return value

    @model_validator(mode="after")
    def _repulsion_fits(self) -> "NetworkSpec":
        check_repulsion(self.repulsion, self.species, self.sensitivity.cutoff)
        return self

    @model_serializer(mode="wrap")
    def _as_it_began(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a repulsion there is no key, so that digests are those of specs from before there was one."""
        return {key: value for key, value in handler(self).items() if key != "repulsion" or value is not None}


class PackageSpec(SpecModel):
    """What specs of both forms have: the name of the package that they describe, and a digest."""

    WITH_NULLS: ClassVar[bool] = False
    """Whether the canonical JSON holds optional keys without a value; `parse_spec` refuses them."""

    name: Annotated[
        Name,
        Allowed(
            "at most 64 lower-case letters, digits and underscores, a letter first, no Python keyword, "
            "no name of a module in use"
        ),
        Field(title="Name", description="The name of the generated package: a Python identifier in lower case."),
    ]

    def canonical_json(self) -> str:
        """The spec with its defaults filled in, as compact JSON with sorted keys: equal specs give equal text."""
        values = self.model_dump(mode="json", exclude_none=not self.WITH_NULLS)
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def digest(self) -> str:
        """The SHA-256 of `canonical_json`, in hexadecimal."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


class Spec(PackageSpec):
    """One generated package in the short form: its name, its invariants and, if wanted, its network.

    Built from keywords it raises pydantic's ValidationError; `load_spec` and `parse_spec` raise SpecError instead.
    """

    WITH_NULLS = True  # as it began: digests of packages without a network depend on it

    basis: Annotated[
        BasisSpec,
        Allowed("a mapping with the keys family, body_order, max_rank"),
        Field(title="Basis", description="Which invariants to generate."),
    ]
    network: Annotated[
        NetworkSpec | None,
        Allowed(
            "a mapping with the key species and optionally features, interactions, atom_layers, sensitivity, "
            "group_norm, residual, repulsion; or no key network, for the invariants alone"
        ),
        Field(title="Network", description="The network; without it only the invariants are emitted."),
    ] = None

    @property
    def has_model(self) -> bool:
        """Whether the package has a model, or invariants alone."""
        return self.network is not None

    @property
    def species_of_model(self) -> tuple[str, ...]:
        """The chemical symbols of the atoms that the model knows; empty without a model."""
        return () if self.network is None else self.network.species

    @property
    def model_cutoff(self) -> float | None:
        """The distance in Å beyond which atoms of the model do not interact; None without a model."""
        return None if self.network is None else self.network.sensitivity.cutoff

    def to_yaml(self) -> str:
        """The spec with its defaults filled in, as YAML that `parse_spec` reads back to an equal spec."""
        lines = [f"# {self.name}: a tensorgraph spec"]
        for key, value in self.model_dump(exclude_none=True).items():
            if isinstance(value, dict):
                lines += [f"{key}:", *(f"  {inner}: {yaml_value(item)}" for inner, item in value.items())]
            else:
                lines.append(f"{key}: {yaml_value(value)}")
        return "\n".join(lines) + "\n"


def yaml_value(value: Any) -> str:
    """A value in YAML's flow style; text that YAML 1.1 or 1.2 would read as something else is quoted."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {yaml_value(item)}" for key, item in value.items()) + "}"
        case tuple() | list():
            return "[" + ", ".join(map(yaml_value, value)) + "]"
        case str():
            return value if plain_value(value) == value and value != "No" else f'"{value}"'
        case bool():
            return str(value).lower()
        case _:
            return repr(value)
