"""The sections of a general spec: radial functions, and what a layer and the readout are made of.

Each section checks what its own keys say of each other; `tensorgraph.spec.general` checks sections against sections.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tensorgraph.spec.base import Allowed, SpecModel, refused
from tensorgraph.spec.degree import DegreeSpec
from tensorgraph.spec.names import COVARIANT, FAMILIES, GRADED, RADIAL_KINDS, READOUTS

RadialKind = Annotated[str, AfterValidator(RADIAL_KINDS.check), Field(json_schema_extra=RADIAL_KINDS.schema)]
LayerFamily = Annotated[str, AfterValidator(FAMILIES.check), Field(json_schema_extra=FAMILIES.schema)]
ReadoutKind = Annotated[str, AfterValidator(READOUTS.check), Field(json_schema_extra=READOUTS.schema)]

_ANGLES: Final = ("rfac0", "rmin0")
_WITHOUT_MEANING: Final[dict[str, tuple[str, ...]]] = {
    "inverse_gaussian": _ANGLES,
    "chebyshev": ("soft_max", *_ANGLES),
    "bessel": ("soft_min", "soft_max", *_ANGLES),
    "hypersphere": ("functions", "soft_min", "soft_max", "mix", "channels"),
}
"""Keys that say nothing with a kind; those of a kind that was added from outside are all but the angles."""


class RadialSpec(SpecModel):
    """The functions of the distance of a pair; lengths are in ångström."""

    kind: Annotated[
        RadialKind,
        Allowed(RADIAL_KINDS),
        Field(title="Kind"),
        Field(
            description="Gaussians of 1/r, Chebyshev polynomials, spherical Bessel functions, or SNAP's switching "
            "function with the distance as an angle of the 3-sphere."
        ),
    ]
    functions: Annotated[
        int,
        Allowed("an integer from 1 to 256; no key functions with kind: hypersphere"),
        Field(ge=1, le=256, title="Functions", description="The number of radial functions."),
    ] = 8
    cutoff: Annotated[
        float,
        Allowed("a number of ångström from 0.1 to 100, above soft_min and rmin0"),
        Field(ge=0.1, le=100, title="Cutoff", description="The distance beyond which atoms do not interact, in Å."),
    ] = 5.0
    soft_min: Annotated[
        float,
        Allowed(
            "a number of ångström from 0.01 to 100, below cutoff and soft_max; no key soft_min with kind: bessel or "
            "hypersphere"
        ),
        Field(ge=0.01, le=100, title="Soft minimum"),
        Field(
            description="In Å: the first centre of Gaussians, or where the interval of Chebyshev polynomials begins."
        ),
    ] = 0.75
    soft_max: Annotated[
        float,
        Allowed(
            "a number of ångström above soft_min and at most 100, with kind: inverse_gaussian; else no key soft_max"
        ),
        Field(gt=0, le=100, title="Soft maximum", description="The last centre of Gaussians, in Å."),
    ] = 5.5
    mix: Annotated[
        Literal["none", "species_pair"],
        Allowed("none, or species_pair with basis.across: channels; no key mix with kind: hypersphere"),
        Field(title="Mix", description="species_pair: each pair of species has its own combinations of the functions."),
    ] = "none"
    channels: Annotated[
        int,
        Allowed("an integer from 1 to 64, above 1 only with mix: species_pair; no key channels with hypersphere"),
        Field(ge=1, le=64, title="Channels", description="The number of combinations of the functions."),
    ] = 1
    rfac0: Annotated[
        float,
        Allowed("a number from 0.01 to 1, with kind: hypersphere; else no key rfac0"),
        Field(ge=0.01, le=1, title="rfac0", description="The polar angle at the cutoff, in units of π."),
    ] = 0.99363
    rmin0: Annotated[
        float,
        Allowed("a number of ångström from 0 to 0.1 below cutoff, with kind: hypersphere; else no key rmin0"),
        Field(ge=0, le=100, title="rmin0", description="The distance in Å whose polar angle is zero."),
    ] = 0.0

    @model_validator(mode="after")
    def _keys_agree(self) -> "RadialSpec":
        without = _WITHOUT_MEANING.get(self.kind, _ANGLES)
        for key in without:
            if key in self.model_fields_set:
                raise refused(f"has no meaning with kind: {self.kind}", key)
        if "rmin0" not in without and self.rmin0 > self.cutoff - 0.1:
            wrong = f"is {self.rmin0!r}, not 0.1 below cutoff, which is {self.cutoff!r}"
            raise refused(wrong, "rmin0", sibling="cutoff")
        if "soft_min" not in without and self.soft_min >= self.cutoff:
            wrong = f"is {self.soft_min!r}, not below cutoff, which is {self.cutoff!r}"
            raise refused(wrong, "soft_min", sibling="cutoff")
        if "soft_max" not in without and self.soft_max <= self.soft_min:
            wrong = f"is {self.soft_max!r}, not above soft_min, which is {self.soft_min!r}"
            raise refused(wrong, "soft_max", sibling="soft_min")
        if self.channels > 1 and self.mix == "none":
            raise refused(f"is {self.channels}, which nothing tells apart with mix: none", "channels")
        return self

    @model_serializer(mode="wrap")
    def _with_meaning(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A key that the kind gives no meaning is refused, so it is not written either."""
        without = _WITHOUT_MEANING.get(self.kind, _ANGLES)
        return {key: value for key, value in handler(self).items() if key not in without}


def _integer(value: object) -> object:
    if type(value) is not int:  # 3.0 is equal to 3, and would pass
        raise PydanticCustomError("integer", "is none")  # the loader shows the value
    return value


class DensitySpec(SpecModel):
    """The tensors of an atom: sums over its neighbours of directions, radial functions and what the neighbours are."""

    max_rank: Annotated[
        int,
        Allowed("an integer from 0 to 8"),
        Field(ge=0, le=8, title="Maximal rank", description="The largest rank of the tensors."),
    ]
    channels: Annotated[
        int,
        Allowed("an integer from 1 to 4096; in a later layer without update that of the layer before"),
        Field(ge=1, le=4096, title="Channels"),
        Field(description="The number of tensors of every rank; with an update, of the features that it makes."),
    ] = 1
    of: Annotated[
        Literal["species", "features"],
        Allowed("species in the first layer, features in every later one"),
        Field(title="Of", description="What the neighbours bring: their species, or features of the layer before."),
    ] = "species"
    dimension: Annotated[
        Literal[3, 4],
        BeforeValidator(_integer),
        Allowed("3, or with radial.kind: hypersphere 4, in a spec of one layer without update.norm"),
        Field(title="Dimension", description="The dimension of the space that the tensors are of."),
    ] = 3
    self: Annotated[
        float,
        Allowed("a number from 0 to 100, with dimension: 4; else no key self"),
        Field(ge=0, le=100, title="Self", description="The weight of the central atom itself, at the pole."),
    ] = 1.0

    @model_validator(mode="after")
    def _pole_exists(self) -> "DensitySpec":
        if self.dimension == 3 and "self" in self.model_fields_set:
            raise refused("has no meaning with dimension: 3", "self")
        return self

    @model_serializer(mode="wrap")
    def _with_meaning(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key != "self" or self.dimension == 4}


def _ranks(outputs: tuple[int, ...]) -> tuple[int, ...]:
    shown = f"is [{', '.join(map(str, outputs))}]"
    if len(set(outputs)) < len(outputs):
        raise refused(f"{shown}, with a rank twice")
    if list(outputs) != sorted(outputs):
        raise refused(f"{shown}, which is not ascending")
    if 0 not in outputs:
        raise refused(f"{shown}, without 0")
    return outputs


class BasisLayerSpec(SpecModel):
    """Which contraction graphs of the density a layer computes."""

    family: Annotated[
        LayerFamily,
        Allowed(FAMILIES),
        Field(title="Family", description="The rule that picks the outputs from all contraction graphs."),
    ]
    body_order: Annotated[
        int,
        Allowed("an integer from 2 to 7"),
        Field(ge=2, le=7, title="Body order", description="The central atom and its neighbours."),
    ]
    outputs: Annotated[
        tuple[Annotated[int, Field(ge=0, le=3)], ...],
        Allowed(
            "a list of different ranks from 0 to 3, ascending, 0 among them; ranks above 0 only in a layer before "
            "another one, with the families linear and products"
        ),
        Field(min_length=1, title="Outputs", description="The ranks of what the layer gives to the next one."),
        Field(json_schema_extra={"uniqueItems": True, "contains": {"const": 0}}),
        AfterValidator(_ranks),
    ] = (0,)
    across: Annotated[
        Literal["channels"] | None,
        Allowed(
            "channels, in a spec of a single layer, with radial.mix: species_pair, density.channels: 1 and the "
            "families linear, products and connected; or no key across"
        ),
        Field(title="Across", description="channels: a graph may take each tensor from another radial channel."),
    ] = None
    degree: Annotated[
        DegreeSpec | None,
        Allowed(
            "a mapping with the keys of and limit or exactly, with the families linear, products and connected; or no "
            "key degree"
        ),
        Field(title="Degree", description="A bound for the size of graphs, beside the body order."),
    ] = None

    @model_validator(mode="after")
    def _family_has_them(self) -> "BasisLayerSpec":
        if self.outputs != (0,) and self.family not in COVARIANT:
            raise refused(f"has ranks above 0, which the family {self.family} has not", "outputs")
        if self.across and self.family not in GRADED:
            raise refused(f"is {self.across}, which the family {self.family} has not", "across")
        if self.degree and self.family not in GRADED:
            raise refused(f"limits nothing in the family {self.family}", "degree")
        if self.degree and self.degree.per_channel and not self.across:
            wrong = f"is {self.degree.of!r}, with n, which graphs within a channel do not have without across: channels"
            raise refused(wrong, "degree", "of")
        return self


class UpdateSpec(SpecModel):
    """How the features of an atom follow from the outputs of the basis."""

    mix: Annotated[
        Literal["full"],
        Allowed("full"),
        Field(title="Mix", description="full: outputs of all graphs and channels are combined linearly."),
    ] = "full"
    residual: Annotated[
        Literal["all", "atom_layers", "none"],
        Allowed("all, atom_layers or none"),
        Field(title="Residual"),
        Field(
            description="all: the features that the layer was given are added to those that it makes, and atom "
            "layers add their input; atom_layers: those alone."
        ),
    ] = "all"
    activation: Annotated[
        Literal["softplus", "silu", "none"],
        Allowed("softplus, silu or none"),
        Field(title="Activation", description="The nonlinear function of features of rank 0."),
    ] = "softplus"
    norm: Annotated[
        Literal["group", "none"],
        Allowed("none, or group where this layer and the one before have density.channels of at least 2"),
        Field(title="Norm", description="group: each output is normalised over the channels of an atom."),
    ] = "none"
    atom_layers: Annotated[
        int,
        Allowed("an integer from 0 to 16"),
        Field(ge=0, le=16, title="Atom layers", description="The number of linear layers after the combination."),
    ] = 0


class LayerSpec(SpecModel):
    """One layer: a density, a basis of its contractions and, unless it is the last, an update of the features."""

    density: Annotated[
        DensitySpec,
        Allowed("a mapping with the key max_rank and optionally channels, of, dimension, self"),
        Field(title="Density", description="The tensors of every atom."),
    ]
    basis: Annotated[
        BasisLayerSpec,
        Allowed("a mapping with the keys family and body_order and optionally outputs, across, degree"),
        Field(title="Basis", description="Which contractions of the density are computed."),
    ]
    update: Annotated[
        UpdateSpec | None,
        Allowed(
            "a mapping with some of the keys mix, residual, activation, norm, atom_layers, which may be empty: {}; "
            "in the last layer, unless it is repeated, no key update either"
        ),
        Field(title="Update", description="How new features follow; without it the readout takes the basis itself."),
    ] = None
    repeat: Annotated[
        int,
        Allowed("an integer from 1 to 8; above 1 in a first layer only with basis.outputs: [0]"),
        Field(ge=1, le=8, title="Repeat", description="How many layers like this one follow each other."),
    ] = 1


class ReadoutSpec(SpecModel):
    """How the energy of an atom follows from its features, or from its basis."""

    kind: Annotated[
        ReadoutKind,
        Allowed(READOUTS),
        Field(title="Kind", description="linear: a weighted sum and a constant."),
    ]
    per: Annotated[
        Literal["species"] | None,
        Allowed("species where the last layer has no update; else no key per"),
        Field(title="Per", description="species: each species of the central atom has its own weights."),
    ] = None
    of: Annotated[
        Literal["last", "all"],
        Allowed("last or all"),
        Field(title="Of", description="The layers whose features are read."),
    ] = "last"
