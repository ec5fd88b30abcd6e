"""The repulsion of nuclei that a spec may add to what is trained. Lengths are in Å, energies in eV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from tensorgraph.network.arrays import ATOM, PAIR, Array, Space, Term
from tensorgraph.network.pairs import lower_distance
from tensorgraph.network.statements import Call, Child, Contract, Fixed, Layer, Part, Place, Pointwise, Program
from tensorgraph.scalar import ArrayRef, Builder, Derivatives, Linear, ScalarProgram
from tensorgraph.scalar.derivatives import Argument, derived
from tensorgraph.spec import RepulsionSpec
from tensorgraph.spec.elements import ATOMIC_NUMBERS

COULOMB = Fraction("14.3996454784")
"""e² / 4πε₀ in eV Å."""
SCREENING_LENGTH = Fraction("0.46850")
"""In Å: 0.8854 Bohr radii; a pair's is this over the sum of Z^0.23."""
EXPONENT = 0.23
SCREENING = (("0.18175", "3.19980"), ("0.50986", "0.94229"), ("0.28022", "0.40290"), ("0.02817", "0.20162"))
"""Coefficients and decays of the universal screening function."""

PROPERTIES = Space("property", 5)
"""What the repulsion of a pair depends on: the distance, the two atomic numbers, the sums of Z^0.23 and of radii."""


def lower_zbl() -> Derivatives[ScalarProgram]:
    """From the properties of a pair to its energy in eV: Z_i Z_j e² φ(r / a) / r, zero beyond the sum of the radii.

    φ is the universal screening function, a = 0.4685 Å / (Z_i^0.23 + Z_j^0.23) (Ziegler, Biersack and Littmark, The
    Stopping and Range of Ions in Solids, 1985). Towards the sum of the radii the energy falls to zero by the envelope
    of Gasteiger, Groß and Günnemann (ICLR 2020, eq. 8), with two derivatives.
    """
    builder = Builder()
    pair = Argument.of(builder, ArrayRef("pair", PROPERTIES.extent))
    r, of_centre, of_neighbour, powers, radii = pair.elements
    reduced = builder.product(r, powers).scaled(1 / SCREENING_LENGTH)
    screening = builder.sum(
        builder.apply("exp", reduced.scaled(-Fraction(decay))).scaled(Fraction(coefficient))
        for coefficient, decay in SCREENING
    )
    along = builder.product(r, builder.apply("reciprocal", radii))
    inside = builder.apply("inside", builder.sum([builder.one, -along]))
    switched = builder.product(screening, builder.product(_envelope(builder, along), inside))
    charges = builder.product(of_centre, of_neighbour).scaled(COULOMB)
    value = builder.product(builder.product(charges, builder.apply("reciprocal", r)), switched)
    return derived(builder, [pair], ArrayRef("energy", 1), [value])


def _envelope(builder: Builder, d: Linear) -> Linear:
    """``1 - 28 d^6 + 48 d^7 - 21 d^8`` as (1 - d)³ times a sum of positive terms: energies of thousands of eV stand
    before it, and near d = 1 the difference of large terms would be wrong in float32.
    """
    polynomial = builder.one.scaled(21)
    for coefficient in (15, 10, 6, 3, 1):
        polynomial = builder.sum([builder.product(polynomial, d), builder.one.scaled(coefficient)])
    left = builder.sum([builder.one, -d])
    return builder.product(polynomial, builder.product(left, builder.product(left, left)))


def repulsion(spec: RepulsionSpec, symbols: Sequence[str], z: Array) -> Layer:
    """The layer from one-hot species and distances to half of the repulsion of each atom's pairs, [n_atoms] in eV."""
    distance, one = Array("distance", (PAIR, Space("one", 1))), Space("one", 1)
    numbers, species = [ATOMIC_NUMBERS[symbol] for symbol in symbols], z.spaces[1]
    shared = {3: [number**EXPONENT for number in numbers], 4: spec.radii}
    fixed = []
    for row, name in ((1, "of_centre"), (2, "of_neighbour")):
        rows = {row: numbers, **shared}
        values = ((k * len(numbers) + b, float(rows[k][b])) for k in rows for b in range(len(numbers)))
        fixed.append(Fixed(Array(name, (PROPERTIES, species)), tuple(values)))
    of_centre, of_neighbour = (member.array for member in fixed)
    centre, neighbour = Array("centre", (ATOM, PROPERTIES)), Array("neighbour", (ATOM, PROPERTIES))
    pair, energy, half = Array("pair", (PAIR, PROPERTIES)), Array("V", (PAIR, one)), Array("energy", (ATOM,))
    placed = Array("placed", (PAIR, PROPERTIES))
    terms = (Term((placed["pk"],)), Term((centre["ik"],)), Term((neighbour["jk"],)))
    body = (
        Contract(centre["ik"], (z["ib"] * of_centre["kb"],)),
        Contract(neighbour["ik"], (z["ib"] * of_neighbour["kb"],)),
        Place(Part(distance, placed, 0), placed, distance),
        Contract(pair["pk"], terms),
        Pointwise(Program("repulsion", lower_zbl()), (energy,), (pair,), PAIR),
        Contract(half["i"], (Term((energy["po"],), Fraction(1, 2)),)),
    )
    title = "½ Σ_j Z_i Z_j e² φ(r / a) / r, the repulsion of nuclei that are nearer than the sum of their radii"
    return Layer("Repulsion", title, (z, distance), (half,), tuple(fixed), body)


def with_repulsion(layer: Layer, spec: RepulsionSpec | None, symbols: Sequence[str]) -> Layer:
    """A potential with the repulsion as its last energy term: terms are summed in float64."""
    if spec is None:
        return layer
    z, displacements = layer.inputs
    child, body = Child("repulsion", repulsion(spec, symbols, z)), list(layer.body)
    distance, term = child.layer.inputs[1], Array("repulsion", (ATOM,))
    if not any(distance in statement.results for statement in body):
        body.insert(0, Pointwise(Program("distance", lower_distance()), (distance,), (displacements,), PAIR))
    body.append(Call(child, (term,), (z, distance)))
    terms, members = (*layer.outputs, term), (*layer.members, child)
    network = Layer(layer.name, layer.title, layer.inputs, terms, members, tuple(body))
    network.verify()
    return network
