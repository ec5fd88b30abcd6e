"""Readouts: from what the layers give to energies of atoms.

To add a kind is to add a row to ``READOUTS``: a function of the spec, the species and what the layers give, that makes
the layer ``EnergyHeads``. Its inputs are the species first; its outputs are energy terms, that of the species first,
whose weight is called ``of_species.weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

from tensorgraph.network.arrays import ATOM, Array
from tensorgraph.network.hiphop import OUT, applied, linear
from tensorgraph.network.statements import Contract, Layer, Parameter, Statement
from tensorgraph.network.weights import Normal
from tensorgraph.spec import GeneralSpec, names


def read_by(spec: GeneralSpec, z: Array, made: Sequence[Array]) -> list[Array]:
    """What the readout reads: the species, and the outputs of the last layer or of all."""
    return [z, *(made if spec.readout.of == "all" else made[-1:])]


def linear_readout(spec: GeneralSpec, z: Array, made: Sequence[Array]) -> Layer:
    """Energies of the species, and one linear head for each output that is read."""
    inputs = read_by(spec, z, made)
    terms = [Array(f"energy_{k}", (ATOM,)) for k in range(len(inputs))]
    members = linear("of_species", OUT, z.spaces[1], "w", bias=False)
    body: list[Statement] = [Contract(terms[0]["i"], applied(members, z))]
    for k, (source, term) in enumerate(zip(inputs[1:], terms[1:], strict=True)):
        if spec.readout.per == "species":
            shape = (z.spaces[1], *source.spaces[1:])
            size = sqrt(source.spaces[1].extent)
            weights = Parameter(Array(f"coefficients_{k}", shape, "ξ"), Normal(1 / size))
            letters = "ka"[: len(source.spaces) - 1]
            product = weights.array[f"s{letters}".replace("s", "c")] * source[f"i{letters}"] * z["ic"]
            members, statement = [*members, weights], Contract(term["i"], (product,))
        else:
            own = linear(f"of_layers.{k}", OUT, source.spaces[1], "wb")
            members, statement = [*members, *own], Contract(term["i"], applied(own, source))
        body.append(statement)
    title = "E_i = e(s_i) + a linear function of what the layers give"
    return Layer("EnergyHeads", title, tuple(inputs), tuple(terms), tuple(members), tuple(body))


READOUTS: dict[str, Callable[[GeneralSpec, Array, Sequence[Array]], Layer]] = {"linear": linear_readout}
"""By their kind."""


def add_readout(kind: str, make: Callable[[GeneralSpec, Array, Sequence[Array]], Layer]) -> None:
    """One more kind of readout, for specs of the general form. Raises ValueError for a name that is taken.

    ``make`` is called with the spec, the species [n_atoms, n_species] and the first output of each layer; what it makes
    takes the arrays of `read_by`.
    """
    names.READOUTS.add(kind)
    READOUTS[kind] = make
