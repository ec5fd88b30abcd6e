"""The general form of a spec: species, radial functions, a list of layers and a readout.

Sections are validated one by one (`tensorgraph.spec.sections`); here is what they require of each other.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from tensorgraph.spec.base import Allowed, refused
from tensorgraph.spec.model import PackageSpec, Spec, Species, yaml_value
from tensorgraph.spec.repulsion import Repulsion, check_repulsion
from tensorgraph.spec.sections import LayerSpec, RadialSpec, ReadoutSpec


class GeneralSpec(PackageSpec):
    """One generated package in the general form: a potential made of layers.

    Built from keywords it raises pydantic's ValidationError; `load_spec` and `parse_spec` raise SpecError instead.
    """

    species: Species
    radial: Annotated[
        RadialSpec,
        Allowed(
            "a mapping with the key kind and optionally functions, cutoff, soft_min, soft_max, mix, channels, "
            "rfac0, rmin0"
        ),
        Field(title="Radial", description="The functions of the distance of a pair."),
    ]
    repulsion: Repulsion = None
    layers: Annotated[
        tuple[LayerSpec, ...],
        Allowed("a list of 1 to 8 mappings with the keys density and basis and optionally update, repeat"),
        Field(min_length=1, max_length=8, title="Layers", description="What is done one after the other."),
    ]
    readout: Annotated[
        ReadoutSpec,
        Allowed("a mapping with the key kind and optionally per, of"),
        Field(title="Readout", description="How the energy of an atom is read."),
    ]

    @model_validator(mode="after")
    def _sections_agree(self) -> "GeneralSpec":
        for index, layer in enumerate(self.layers):
            self._check_source(index, layer)
            self._check_dimension(index, layer)
            self._check_outputs(index, layer)
            self._check_across(index, layer)
            self._check_update(index, layer)
            self._check_channels(index, layer)
        self._check_readout()
        check_repulsion(self.repulsion, self.species, self.radial.cutoff)
        return self

    def _check_source(self, index: int, layer: LayerSpec) -> None:
        wanted = "features" if index else "species"
        if layer.density.of != wanted:
            which = "a later" if index else "the first"
            raise refused(f"is {layer.density.of} in {which} layer", "layers", index, "density", "of")

    def _check_dimension(self, index: int, layer: LayerSpec) -> None:
        on_sphere = self.radial.kind == "hypersphere"
        for wrong in self._not_of_dimension(layer, on_sphere):
            raise refused(f"is {layer.density.dimension}, {wrong}", "layers", index, "density", "dimension")

    def _not_of_dimension(self, layer: LayerSpec, on_sphere: bool) -> Iterator[str]:
        if layer.density.dimension == 3:
            if on_sphere:
                yield f"and radial.kind is {self.radial.kind}"
            return
        if not on_sphere:
            yield f"and radial.kind is {self.radial.kind}"
        if len(self.layers) > 1 or layer.repeat > 1:
            yield "and there are several layers"
        if layer.update and layer.update.norm == "group":
            # The central atom is the same in all channels: alone it has no variance that one could divide by.
            yield "and update.norm is group"

    def _check_outputs(self, index: int, layer: LayerSpec) -> None:
        if layer.basis.outputs == (0,):
            return
        if index == len(self.layers) - 1:
            wrong = "has ranks above 0, which no later layer takes"
            raise refused(wrong, "layers", index, "basis", "outputs")
        if layer.repeat > 1 and layer.density.of == "species":
            wrong = f"is {layer.repeat} in a first layer with outputs of ranks above 0"
            raise refused(wrong, "layers", index, "repeat")

    def _check_across(self, index: int, layer: LayerSpec) -> None:
        if not layer.basis.across:
            if self.radial.mix == "species_pair" and not index:
                wrong = "is missing, and radial.mix is species_pair"
                raise refused(wrong, "layers", index, "basis", "across", sibling="family")
            return
        for wrong in self._not_across(layer):
            raise refused(f"is {layer.basis.across}, {wrong}", "layers", index, "basis", "across")

    def _not_across(self, layer: LayerSpec) -> Iterator[str]:
        if self.radial.mix == "none":
            yield "and radial.mix is none"
        if layer.density.channels > 1:
            yield f"and density.channels is {layer.density.channels}"
        if len(self.layers) > 1 or layer.repeat > 1:
            yield "and there are several layers"

    def _check_update(self, index: int, layer: LayerSpec) -> None:
        if layer.update is None and (layer.repeat > 1 or index < len(self.layers) - 1):
            wrong = "is missing in a layer that another one follows"
            raise refused(wrong, "layers", index, "update", sibling="repeat" if layer.repeat > 1 else "")

    def _check_channels(self, index: int, layer: LayerSpec) -> None:
        """Tensors of a later layer have the channels of the features that neighbours bring."""
        before = self.layers[max(index - 1, 0)].density.channels
        if layer.update is None and layer.density.channels not in (1, before):  # 1: not given
            wrong = f"is {layer.density.channels} without an update, and the layer before gives {before}"
            raise refused(wrong, "layers", index, "density", "channels")
        if layer.update and layer.update.norm == "group":
            if layer.density.channels == 1 and (not index or layer.repeat > 1):
                raise refused("is group, which makes a single channel constant", "layers", index, "update", "norm")
            if before == 1:
                wrong = "is group, which makes the single channel of the layer before constant"
                raise refused(wrong, "layers", index, "update", "norm")

    def _check_readout(self) -> None:
        updated = self.layers[-1].update is not None
        if updated and self.readout.per:
            raise refused(f"is {self.readout.per}, and the last layer has an update", "readout", "per")
        if not updated and not self.readout.per:
            raise refused("is missing, and the last layer has no update", "readout", "per")

    @property
    def has_model(self) -> bool:
        """Whether the package has a model: a general spec always does."""
        return True

    @property
    def species_of_model(self) -> tuple[str, ...]:
        """The chemical symbols of the atoms that the model knows."""
        return self.species

    @property
    def model_cutoff(self) -> float | None:
        """The distance in Å beyond which atoms do not interact."""
        return self.radial.cutoff

    def to_yaml(self) -> str:
        """The spec with its defaults filled in, as YAML that `parse_spec` reads back to an equal spec."""
        values = self.model_dump(exclude_none=True)
        lines = [f"# {self.name}: a tensorgraph spec"]
        for key, value in values.items():
            if key == "layers":
                lines += [f"{key}:", *(line for layer in value for line in _listed(layer))]
            elif isinstance(value, dict):
                lines += [f"{key}:", *(f"  {inner}: {yaml_value(item)}" for inner, item in value.items())]
            else:
                lines.append(f"{key}: {yaml_value(value)}")
        return "\n".join(lines) + "\n"


AnySpec = Spec | GeneralSpec


def _listed(layer: dict[str, object]) -> list[str]:
    """A layer as an element of a block sequence, a line for each key."""
    return [
        f"  {'  ' if index else '- '}{key}: {yaml_value(value)}" for index, (key, value) in enumerate(layer.items())
    ]
