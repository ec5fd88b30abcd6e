"""The section `repulsion` of a spec: what keeps nuclei apart where there are no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from tensorgraph.spec.base import Allowed, SpecModel, refused


class RepulsionSpec(SpecModel):
    """A fixed repulsion of pairs, added to what is trained."""

    kind: Annotated[
        Literal["zbl"],
        Allowed("zbl"),
        Field(
            title="Kind", description="zbl: the screened Coulomb repulsion of nuclei of Ziegler, Biersack, Littmark."
        ),
    ]
    radii: Annotated[
        tuple[Annotated[float, Field(ge=0.1, le=10)], ...],
        Allowed("a list of numbers of ångström from 0.1 to 10, one for each species, at most half the cutoff"),
        Field(min_length=1, title="Radii"),
        Field(description="The repulsion of two atoms ends, smoothly, at the sum of their radii, in Å."),
    ]


Repulsion = Annotated[
    RepulsionSpec | None,
    Allowed("a mapping with the keys kind and radii; or no key repulsion"),
    Field(title="Repulsion", description="A fixed repulsion of close pairs, added to what is trained."),
]


def check_repulsion(repulsion: RepulsionSpec | None, species: Sequence[str], cutoff: float) -> None:
    """Raises, as validators do, where it does not fit to the species and the cutoff (Å) of a spec."""
    if repulsion is None:
        return
    if len(repulsion.radii) != len(species):
        wrong = f"has {len(repulsion.radii)} elements for {len(species)} species"
        raise refused(wrong, "repulsion", "radii")
    for index, radius in enumerate(repulsion.radii):
        if 2 * radius > cutoff:
            wrong = f"holds {radius!r}, more than half of the cutoff, which is {cutoff!r}"
            raise refused(wrong, "repulsion", "radii", index)
