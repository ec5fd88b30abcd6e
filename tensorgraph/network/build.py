"""The network that the general form of a spec means: radial functions, densities, bases, updates, readouts.

A layer sums a density around every atom: tensors of directions times radial functions times what neighbours are, their
species or the features that an earlier layer gave them. Outputs of the basis are mixed to new features, of every rank
that the basis has outputs of. The readout is linear, in the basis (for each species apart) or in the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from tensorgraph.algebra import Layout, component_count
from tensorgraph.algebra.spinors import spinor_components
from tensorgraph.network.arrays import ATOM, PAIR, Array, Space, Term
from tensorgraph.network.bases import BasisProgram
from tensorgraph.network.hiphop import TWO, XYZ, applied, linear
from tensorgraph.network.messages import lower_messages, paths
from tensorgraph.network.pairs import (
    lower_distance,
    lower_hypersphere,
    lower_pointwise,
    lower_radial,
    lower_spinor_components,
    lower_tensor_components,
    lower_unit_vectors,
)
from tensorgraph.network.radial import RADIAL, lower_inverse_gaussians
from tensorgraph.network.readouts import READOUTS, read_by
from tensorgraph.network.repulsion import with_repulsion
from tensorgraph.network.statements import (
    Call,
    Child,
    Contract,
    Fixed,
    Layer,
    Member,
    Normalise,
    Parameter,
    Part,
    Place,
    Pointwise,
    Program,
    Statement,
)
from tensorgraph.network.weights import Constant, Equidistant, Normal, Uniform
from tensorgraph.spec import GeneralSpec, LayerSpec, RadialSpec


def potential(spec: GeneralSpec, bases: Sequence[BasisProgram]) -> Layer:
    """The potential: one-hot species and displacements to energy terms [n_atoms] in eV, that of the species first.

    ``bases`` are those of the layers, repeats counted.
    """
    layers = [layer for layer in spec.layers for _ in range(layer.repeat)]
    species, max_rank = Space("species", len(spec.species)), max(layer.density.max_rank for layer in layers)
    z, x = Array("z0", (ATOM, species)), Array("displacements", (PAIR, XYZ))
    around = _on_sphere if spec.radial.kind == "hypersphere" else _in_space
    body = list(around(spec.radial, x, max_rank))
    directions, radial = (statement.results[0] for statement in body[-2:])
    children, made, features = [], [], None
    for number, (layer, basis) in enumerate(zip(layers, bases, strict=True)):
        ranks = layers[number - 1].basis.outputs if features else ()
        builder = _Builder(spec, layer, basis, number, z, directions, radial, features, ranks)
        children.append(Child(f"layers.{number}", builder.layer()))
        given = (z, directions, radial, *([features] if features else []))
        outputs = tuple(Array(f"{array.name}_{number + 1}", array.spaces) for array in builder.outputs)
        body.append(Call(children[-1], outputs, given))
        made.append(outputs[0])
        features = outputs[-1] if len(outputs) > 1 else None
    heads = READOUTS[spec.readout.kind](spec, z, made)
    terms = tuple(Array(f"energy_{k}", (ATOM,)) for k in range(len(heads.outputs)))
    body.append(Call(Child("energy_heads", heads), terms, tuple(read_by(spec, z, made))))
    title = "E_i, a linear readout of what the layers give"
    network = Layer("Model", title, (z, x), terms, (*children, Child("energy_heads", heads)), tuple(body))
    network.verify()
    return with_repulsion(network, spec.repulsion, spec.species)


def _components(max_rank: int, dimension: int = 3) -> Space:
    return Space("component", Layout.full(max_rank, dimension=dimension).size)


def _in_space(radial: RadialSpec, x: Array, max_rank: int) -> tuple[Statement, ...]:
    """Tensors of directions, and functions of distances, last."""
    units, directions = Array("unit_vectors", (PAIR, XYZ)), Array("T", (PAIR, _components(max_rank)))
    *before, functions = _radial(radial, x)
    return (
        *before,
        Pointwise(Program("unit_vectors", lower_unit_vectors()), (units,), (x,), PAIR),
        Pointwise(Program("tensors", lower_tensor_components(max_rank)), (directions,), (units,), PAIR),
        functions,
    )


def _on_sphere(radial: RadialSpec, x: Array, max_rank: int) -> tuple[Statement, ...]:
    """Tensors of points of the 3-sphere, to which a distance is one more angle; the switching function, last."""
    both, points = Array("sphere", (PAIR, Space("element", 5))), Array("u", (PAIR, Space("axis", 4)))
    directions = Array("T", (PAIR, _components(max_rank, 4)))
    program = lower_hypersphere(radial.cutoff, radial.rfac0, radial.rmin0)
    return (
        Pointwise(Program("hypersphere", program), (both,), (x,), PAIR),
        Part(points, both, 0),
        Pointwise(Program("tensors", lower_spinor_components(max_rank)), (directions,), (points,), PAIR),
        Part(Array("S", (PAIR, Space("function", 1))), both, 4),
    )


def _radial(radial: RadialSpec, x: Array) -> tuple[Statement, ...]:
    """What layers need of distances: fixed functions, or what trained ones are made of."""
    if radial.kind == "inverse_gaussian":
        program = Program("radial", lower_radial(radial.cutoff))
        return (Pointwise(program, (Array("radial", (PAIR, TWO)),), (x,), PAIR),)
    distance = Array("distance", (PAIR, Space("one", 1)))
    functions = Array("S", (PAIR, Space("function", radial.functions)))
    return (
        Pointwise(Program("distance", lower_distance()), (distance,), (x,), PAIR),
        Pointwise(Program("radial_functions", RADIAL[radial.kind](radial)), (functions,), (distance,), PAIR),
    )


class _Builder:
    """One layer of the general form: members and statements as they are put together."""

    def __init__(
        self,
        spec: GeneralSpec,
        layer: LayerSpec,
        basis: BasisProgram,
        number: int,
        z: Array,
        directions: Array,
        radial: Array,
        features: Array | None,
        ranks: tuple[int, ...],
    ) -> None:
        self.spec, self.of, self.basis, self.number = spec, layer, basis, number
        self.z, self.directions, self.radial, self.given = z, directions, radial, features
        self.ranks = ranks  # of the features, in their order
        self.members: list[Member] = []
        self.body: list[Statement] = []
        self.outputs: tuple[Array, ...] = ()

    def layer(self) -> Layer:
        """The layer, its outputs set."""
        functions = self.radial_functions()
        tensors = self.tensors()
        around = self.of_features(tensors, functions) if self.given else self.of_species(tensors, functions)
        values = self.invariants(around)
        self.outputs = self.updated(values) if self.of.update else (values,)
        inputs = (self.z, self.directions, self.radial, *([self.given] if self.given else []))
        title = "B_i: the basis of the density around atom i" + (", mixed to new features" if self.of.update else "")
        name = f"Layer{self.number + 1}"
        stages = (("environment", around), ("outputs", values))
        return Layer(name, title, inputs, self.outputs, tuple(self.members), tuple(self.body), stages)

    @property
    def channels(self) -> Space:
        return Space("channel", self.of.density.channels)

    def parameter(self, array: Array, initial: Constant | Equidistant | Normal | Uniform) -> Array:
        self.members.append(Parameter(array, initial))
        return array

    def radial_functions(self) -> Array:
        """Functions of the pairs: given, or trained Gaussians of 1/r (HIP-NN)."""
        radial = self.spec.radial
        if radial.kind != "inverse_gaussian":
            return self.radial
        space = Space("function", radial.functions)
        spread = Equidistant(1 / radial.soft_max, 1 / radial.soft_min, inverse=True)
        mu = self.parameter(Array("sensitivity.mu", (space,), "μ"), spread)
        width = Constant(2 * radial.soft_min * radial.functions)
        sigma = self.parameter(Array("sensitivity.sigma", (space,), "σ"), width)
        values = Array("S", (PAIR, space))
        program = Program("sensitivities", lower_inverse_gaussians())
        self.body.append(Pointwise(program, (values,), (self.radial, mu, sigma), PAIR, space))
        return values

    def tensors(self) -> Array:
        """The tensors of directions up to the rank of the layer."""
        wanted = _components(self.of.density.max_rank, self.of.density.dimension)
        if wanted == self.directions.spaces[1]:
            return self.directions
        part = Array("T_layer", (PAIR, wanted))
        self.body.append(Part(part, self.directions, 0))
        return part

    def of_species(self, tensors: Array, functions: Array) -> Array:
        """The density of species: for pairs of species apart, or with one set of weights for each neighbour's."""
        function, species = functions.spaces[1], self.z.spaces[1]
        sums = Array("D", (ATOM, tensors.spaces[1], species, function))
        self.body.append(Contract(sums["imbn"], (tensors["pm"] * self.z["jb"] * functions["pn"],)))
        if self.spec.radial.mix == "species_pair":
            channel, neighbour = Space("channel", self.spec.radial.channels), Space("neighbour", species.size)
            shape = (species, neighbour, function, channel)
            weights = self.parameter(Array("weights", shape, "c"), Normal(1 / sqrt(function.extent)))
            density = Array("A", (ATOM, channel, tensors.spaces[1]))
            self.body.append(Contract(density["iam"], (sums["imbn"] * weights["cbna"] * self.z["ic"],)))
            return density
        channel = self.channels
        deviation = sqrt(2 / (species.extent * (channel.extent + function.extent)))
        alone = channel.extent == function.extent == 1  # numbers of the same kind: SNAP's weights of elements
        initial = Constant(1.0) if alone and self.of.density.dimension == 4 else Normal(deviation)
        weights = self.parameter(Array("weights", (function, channel, species), "V"), initial)
        density = Array("A", (ATOM, tensors.spaces[1], channel))
        terms = (weights["nab"] * sums["imbn"], *self.of_itself(tensors.spaces[1]))
        self.body.append(Contract(density["ima"], terms))
        return density

    def of_itself(self, component: Space) -> tuple[Term, ...]:
        """In four dimensions the central atom itself, at the pole, where the tensors are the identity."""
        density = self.of.density
        if density.dimension == 3 or not density.self:
            return ()
        elements = (element for n in range(density.max_rank + 1) for element in spinor_components(n))
        diagonal = (k for k, (a, b, imaginary) in enumerate(elements) if a == b and not imaginary)
        pole = Array("pole", (component,), "P")
        self.members.append(Fixed(pole, tuple((k, density.self) for k in diagonal)))
        return (Term((pole["m"],)),)

    def of_features(self, tensors: Array, functions: Array) -> Array:
        """The density of features with ranks: messages of all couplings, each with radial weights of its own."""
        assert self.given is not None
        ranks, max_rank, function, channel = (
            self.ranks,
            self.of.density.max_rank,
            functions.spaces[1],
            self.given.spaces[2],
        )
        path = Space("path", len(paths(max_rank, ranks)))
        deviation = 1 / sqrt(function.extent * path.extent)
        weights = self.parameter(Array("weights", (function, path, channel), "V"), Normal(deviation))
        radial, neighbour = Array("R", (PAIR, path, channel)), Array("h_j", (PAIR, *self.given.spaces[1:]))
        message, density = (
            Array("M", (PAIR, tensors.spaces[1], channel)),
            Array("A", (ATOM, tensors.spaces[1], channel)),
        )
        program = Program(f"messages_{max_rank}_{''.join(map(str, ranks))}", lower_messages(max_rank, ranks))
        self.body += [
            Contract(radial["pqa"], (functions["pn"] * weights["nqa"],)),
            Contract(neighbour["pca"], (Term((self.given["jca"],)),)),
            Pointwise(program, (message,), (tensors, neighbour, radial), PAIR, channel),
            Contract(density["ima"], (Term((message["pma"],)),)),
        ]
        return density

    def invariants(self, around: Array) -> Array:
        """The outputs of the basis: of each channel, or across all."""
        program = Program(self.basis.stem, self.basis.scalars)
        outputs = Space("output", self.basis.scalars.forward.results[0].size)
        across = self.of.basis.across == "channels"
        values = Array("B", (ATOM, outputs) if across else (ATOM, outputs, around.spaces[2]))
        columns = None if across else around.spaces[2]
        self.body.append(Pointwise(program, (values,), (around,), ATOM, columns))
        return values

    def updated(self, values: Array) -> tuple[Array, ...]:
        """New features [n_atoms, channels] of rank 0, and those of all ranks side by side if there are others."""
        features, start = [], 0
        for rank, count in self.basis.ranks.items():
            features.append(self.mixed(values, rank, count, start))
            start += count * component_count(rank)
        if len(features) == 1:
            return (features[0], self.joined(features)) if self.is_read() else (features[0],)
        return features[0], self.joined(features)

    def is_read(self) -> bool:
        """Whether a later layer takes the features."""
        last: int = sum(layer.repeat for layer in self.spec.layers) - 1
        return self.number < last

    def mixed(self, values: Array, rank: int, count: int, start: int) -> Array:
        """Features of one rank: outputs of that rank, mixed over outputs and channels alike for all components."""
        update, channel = self.of.update, self.channels
        assert update is not None
        source = values.spaces[2] if len(values.spaces) > 2 else Space("all channels", 1)
        output, axis = Space(f"outputs of rank {rank}", count), Space(f"rank {rank}", component_count(rank))
        part = Array(f"B{rank}", (ATOM, output, source) if rank == 0 else (ATOM, output, axis, source))
        self.body.append(Part(part, values, start))
        if rank == 0 and update.norm == "group":
            part = self.normalised(part)
        deviation = 1 / sqrt(count * source.extent)
        mixing = self.parameter(Array(f"mixing_{rank}", (output, source, channel), "M"), Normal(deviation))
        if rank:
            result = Array(f"h{rank}", (ATOM, axis, channel))
            self.body.append(Contract(result["ixa"], (mixing["kba"] * part["ikxb"], *self.skipped(rank))))
            return result
        own = linear("self_interaction", channel, self.z.spaces[1], "WB", xavier=True)
        self.members += own
        hidden = Array("x", (ATOM, channel))
        self.body.append(Contract(hidden["ia"], (mixing["kba"] * part["ikb"], *applied(own, self.z))))
        return self.activated(hidden)

    def skipped(self, rank: int) -> tuple[Term, ...]:
        """The features of a rank that the layer was given, to be added to those that it makes: as they are where they
        have as many channels, else through a matrix. None without residuals, or where it was given none.
        """
        assert self.of.update is not None
        given, size = self.given, component_count(rank)
        if given is None or self.of.update.residual != "all" or rank not in self.ranks:
            return ()
        start = sum(component_count(lower) for lower in self.ranks if lower < rank)
        before, channel = given.spaces[2], self.channels
        axes = (Space(f"rank {rank}", size),) if rank else ()
        part = Array(f"before_{rank}", (ATOM, *axes, before))
        self.body.append(Part(part, given, start))
        if before.extent == channel.extent:
            return (Term((part["ixa" if rank else "ia"],)),)
        own = linear(f"skip_{rank}", channel, before, "A", bias=False, xavier=True)
        self.members += own
        return (own[0].array["ab"] * part["ixb" if rank else "ib"],)

    def normalised(self, part: Array) -> Array:
        shape = part.spaces[1:]
        weight = self.parameter(Array("norm.weight", shape, "γ"), Constant(1.0))
        bias = self.parameter(Array("norm.bias", shape, "β"), Constant(0.0))
        result = Array("B0_normal", part.spaces)
        self.body.append(Normalise(result, part, weight, bias))
        return result

    def activated(self, x: Array) -> Array:
        """The activation of rank 0, and linear layers behind it; with residuals each adds its input."""
        update, channel = self.of.update, self.channels
        assert update is not None
        result = self.pointwise(update.activation, x, "h0_0")
        if skipped := self.skipped(0):
            added = Array("h0_and_before", x.spaces)
            self.body.append(Contract(added["ia"], (Term((result["ia"],)), *skipped)))
            result = added
        for number in range(update.atom_layers):
            own = linear(f"atom_layers.{number}", channel, channel, "WB", xavier=True)
            self.members += own
            hidden = Array(f"x_{number + 1}", x.spaces)
            self.body.append(Contract(hidden["ia"], applied(own, result)))
            active = self.pointwise(update.activation, hidden, f"a_{number + 1}")
            if update.residual != "none":
                added = Array(f"h0_{number + 1}", x.spaces)
                self.body.append(Contract(added["ia"], (Term((active["ia"],)), Term((result["ia"],)))))
                active = added
            result = active
        return result

    def pointwise(self, function: str, x: Array, name: str) -> Array:
        if function == "none":
            return x
        result = Array(name, x.spaces)
        self.body.append(Pointwise(Program(function, lower_pointwise(function)), (result,), (x,), ATOM, x.spaces[1]))
        return result

    def joined(self, features: Sequence[Array]) -> Array:
        """Features of all ranks side by side, [n_atoms, components, channels]."""
        channel = self.channels
        total = Space("component", sum(prod_inner(array) for array in features))
        placed, start = [], 0
        for rank, array in enumerate(features):
            whole = Array(f"placed_{rank}", (ATOM, total, channel))
            self.body.append(Place(Part(array, whole, start), whole, array))
            placed.append(whole)
            start += prod_inner(array)
        result = Array("h", (ATOM, total, channel))
        self.body.append(Contract(result["ica"], tuple(Term((array["ica"],)) for array in placed)))
        return result


def prod_inner(array: Array) -> int:
    """How many elements an array has for each atom and channel."""
    inner = array.spaces[1:-1]
    return inner[0].extent if inner else 1
