"""HIP-HOP-NN as a network: what the short form of a spec means.

Allen, Shinkle, Bujack and Lubbers, arXiv:2503.23515 (tensors and invariants), on the blocks and energy heads of HIP-NN
(Lubbers, Smith, Barros, J. Chem. Phys. 148, 241715, 2018) and the tensors of HIP-NN-TS (Chigaev et al., J. Chem. Phys.
158, 184108, 2023). Names of weights are those of the packages' state dicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from tensorgraph.network.arrays import ATOM, PAIR, Array, Space, Term
from tensorgraph.network.pairs import (
    lower_pointwise,
    lower_radial,
    lower_tensor_components,
    lower_unit_vectors,
)
from tensorgraph.network.radial import lower_inverse_gaussians
from tensorgraph.network.repulsion import with_repulsion
from tensorgraph.network.statements import (
    Call,
    Child,
    Contract,
    Layer,
    Member,
    Normalise,
    Parameter,
    Pointwise,
    Program,
    Statement,
)
from tensorgraph.network.weights import Constant, Equidistant, Normal, Uniform
from tensorgraph.scalar import Derivatives, ScalarProgram, Table
from tensorgraph.spec import NetworkSpec

INTERACTIONS = ("FirstInteraction", "Interaction")
"""The layers that sum over neighbours: the first one, whose features are the species, and all others."""

XYZ, TWO, OUT = Space("axis", 3), Space("radial", 2), Space("out", 1)


@dataclass(frozen=True)
class _Sizes:
    """The index spaces of a network, and its programs."""

    spec: NetworkSpec
    species: Space
    features: Space
    functions: Space
    components: Space
    invariants: Space
    program: Program

    @property
    def tensorial(self) -> bool:
        """Whether there is more than the scalar: with it alone nothing is mixed, and the layer is HIP-NN's."""
        return self.components.size != 1


def hiphop(spec: NetworkSpec, max_rank: int, invariants: Derivatives[ScalarProgram | Table]) -> Layer:
    """The potential: one-hot species and displacements to energy terms [n_atoms] in eV, that of the species first."""
    sizes = _Sizes(
        spec,
        Space("species", len(spec.species)),
        Space("feature", spec.features),
        Space("function", spec.sensitivity.functions),
        Space("component", (max_rank + 1) ** 2),
        Space("invariant", invariants.forward.results[0].size),
        Program("invariants", invariants),
    )
    z, x = Array("z0", (ATOM, sizes.species)), Array("displacements", (PAIR, XYZ))
    units, radial = Array("unit_vectors", (PAIR, XYZ)), Array("radial", (PAIR, TWO))
    directions = Array("T", (PAIR, sizes.components))
    body: list[Statement] = [
        Pointwise(Program("unit_vectors", lower_unit_vectors()), (units,), (x,), PAIR),
        Pointwise(Program("radial", lower_radial(spec.sensitivity.cutoff)), (radial,), (x,), PAIR),
        Pointwise(Program("tensors", lower_tensor_components(max_rank)), (directions,), (units,), PAIR),
    ]
    children, stages = [], [z]
    for number in range(spec.interactions):
        layer = _block(sizes, sizes.features if number else sizes.species, number)
        children.append(Child(f"blocks.{number}", layer))
        stages.append(Array(f"z{number + 1}", (ATOM, sizes.features)))
        body.append(Call(children[-1], (stages[-1],), (stages[-2], directions, radial)))
    heads, terms = Child("energy_heads", _heads(sizes)), [Array(f"energy_{k}", (ATOM,)) for k in range(len(stages))]
    body.append(Call(heads, tuple(terms), tuple(stages)))
    title = "Ê_i = Σ_n w_n z^n_i + b_n, with z^n the features after block n"
    layer = Layer("Model", title, (z, x), tuple(terms), (*children, heads), tuple(body))
    layer.verify()
    return with_repulsion(layer, spec.repulsion, spec.species)


def linear(
    name: str, n_out: Space, n_in: Space, symbols: str, bias: bool = True, xavier: bool = False
) -> list[Parameter]:
    """Weights of a linear layer: variance 2 / (n_in + n_out) (xavier), or uniform up to 1/√n_in; biases likewise."""
    bound = 1 / sqrt(n_in.extent)
    initial = Normal(sqrt(2 / (n_in.extent + n_out.extent))) if xavier else Uniform(bound)
    found = [Parameter(Array(f"{name}.weight", (n_out, n_in), symbols[0]), initial)]
    return [*found, Parameter(Array(f"{name}.bias", (n_out,), symbols[1]), Uniform(bound))] if bias else found


def applied(parameters: list[Parameter], z: Array) -> tuple[Term, ...]:
    """The terms of a linear layer with the indices ``i, a`` of its result."""
    weight, *bias = (parameter.array for parameter in parameters)
    return (weight["ab"] * z["ib"], *(Term((array["a"],)) for array in bias))


def _block(sizes: _Sizes, n_in: Space, number: int) -> Layer:
    """An interaction followed by linear layers, each activated."""
    z, directions, radial = _block_inputs(sizes, n_in)
    first = Child("interaction", _interacting(sizes, n_in, number))
    children, body, made = [first], [], [Array("z_0", (ATOM, sizes.features))]
    body.append(Call(first, (made[0],), (z, directions, radial)))
    for k in range(sizes.spec.atom_layers):
        children.append(Child(f"atom_layers.{k}", _atom_layer(sizes)))
        made.append(Array(f"z_{k + 1}", (ATOM, sizes.features)))
        body.append(Call(children[-1], (made[-1],), (made[-2],)))
    title = f"An interaction, then {sizes.spec.atom_layers} linear layers, each activated"
    name = "FirstBlock" if number == 0 else "Block"
    return Layer(name, title, (z, directions, radial), (made[-1],), tuple(children), tuple(body))


def _block_inputs(sizes: _Sizes, n_in: Space) -> tuple[Array, Array, Array]:
    return Array("z", (ATOM, n_in)), Array("T", (PAIR, sizes.components)), Array("radial", (PAIR, TWO))


def _interacting(sizes: _Sizes, n_in: Space, number: int) -> Layer:
    """An interaction, activated."""
    inputs, out = _block_inputs(sizes, n_in), sizes.features
    child, x = Child("layer", _interaction(sizes, n_in, number)), Array("x", (ATOM, out))
    members, body, result = _activated(sizes, x, inputs[0])
    name = "ActivatedFirstInteraction" if number == 0 else "ActivatedInteraction"
    title = "z' = R softplus(x) + A z" if sizes.spec.residual else "z' = softplus(x)"
    return Layer(
        name, f"{title}, x the interaction", inputs, (result,), (child, *members), (Call(child, (x,), inputs), *body)
    )


def _atom_layer(sizes: _Sizes) -> Layer:
    """A linear layer, activated."""
    z, x = Array("z", (ATOM, sizes.features)), Array("x", (ATOM, sizes.features))
    own = linear("layer", sizes.features, sizes.features, "WB", xavier=True)
    members, body, result = _activated(sizes, x, z)
    title = "z' = R softplus(W z + B) + z" if sizes.spec.residual else "z' = softplus(W z + B)"
    first = Contract(x["ia"], applied(own, z))
    return Layer("AtomLayer", title, (z,), (result,), (*own, *members), (first, *body))


def _activated(sizes: _Sizes, x: Array, z: Array) -> tuple[list[Member], list[Statement], Array]:
    """Members and statements from x to z' = R softplus(x) + A z, A the identity where widths agree."""
    out = sizes.features
    hidden, result = Array("hidden", (ATOM, out)), Array("z_out", (ATOM, out))
    softplus = Program("softplus", lower_pointwise("softplus"))
    if not sizes.spec.residual:
        return [], [Pointwise(softplus, (result,), (x,), ATOM, out)], result
    body: list[Statement] = [Pointwise(softplus, (hidden,), (x,), ATOM, out)]
    outer = linear("outer", out, out, "Rr")
    same = z.spaces[1].size == out.size
    skip = [] if same else linear("skip", out, z.spaces[1], "A", bias=False)
    skipped = (Term((z["ia"],)),) if same else applied(skip, z)
    body.append(Contract(result["ia"], (*applied(outer, hidden), *skipped)))
    return [*outer, *skip], body, result


def _interaction(sizes: _Sizes, n_in: Space, number: int) -> Layer:
    """Equations 3 to 6 of arXiv:2503.23515."""
    inputs, out = _block_inputs(sizes, n_in), sizes.features
    z, directions, radial = inputs
    members = _interaction_members(sizes, n_in)
    mu, sigma, weights = (member.array for member in members[:3])
    sensitivity, around = Array("S", (PAIR, sizes.functions)), Array("E", (ATOM, sizes.components, out))
    density = directions["pm"] * sensitivity["pn"] * weights["nab"] * z["jb"]
    body: list[Statement] = [
        Pointwise(
            Program("sensitivities", lower_inverse_gaussians()),
            (sensitivity,),
            (radial, mu, sigma),
            PAIR,
            sizes.functions,
        ),
        Contract(around["ima"], (density,)),
    ]
    own = applied([m for m in members if m.name.startswith("self_interaction")], z)
    x, values = Array("x", (ATOM, out)), Array("I", (ATOM, sizes.invariants, out))
    if not sizes.tensorial:
        body.append(Contract(x["ia"], (Term((around["ima"],)), *own)))
    else:
        body.append(Pointwise(sizes.program, (values,), (around,), ATOM, out))
        by_name = {member.name: member.array for member in members}
        if sizes.spec.group_norm:
            normal = Array("I_normal", values.spaces, "Ĩ")
            body.append(Normalise(normal, values, by_name["norm.weight"], by_name["norm.bias"]))
            values = normal
        mixed = by_name["mixing"]["kba"] * values["ikb"]
        body.append(Contract(x["ia"], (mixed, *own)))
    name = INTERACTIONS[min(number, 1)]
    title = "x_ia = Σ_kb M[k,b,a] Ĩ_k(E_ib) + (W z_i + B)_a, with E_i the tensors around atom i"
    return Layer(name, title, inputs, (x,), tuple(members), tuple(body), (("environment", around),))


def _interaction_members(sizes: _Sizes, n_in: Space) -> list[Parameter]:
    """The weights of an interaction, in the order in which they are drawn."""
    spec, out, functions = sizes.spec.sensitivity, sizes.features, sizes.functions
    spread = Equidistant(1 / spec.soft_max, 1 / spec.soft_min, inverse=True)
    weights = Normal(sqrt(2 / (n_in.extent * (out.extent + functions.extent))))
    found = [
        Parameter(Array("sensitivity.mu", (functions,), "μ"), spread),
        Parameter(Array("sensitivity.sigma", (functions,), "σ"), Constant(2 * spec.soft_min * functions.extent)),
        Parameter(Array("weights", (functions, out, n_in), "V"), weights),
        *linear("self_interaction", out, n_in, "WB", xavier=True),
    ]
    if sizes.tensorial and sizes.spec.group_norm:
        shape = (sizes.invariants, out)
        found.append(Parameter(Array("norm.weight", shape, "γ"), Constant(1.0)))
        found.append(Parameter(Array("norm.bias", shape, "β"), Constant(0.0)))
    if sizes.tensorial:
        mixing = Normal(sqrt(2 / (out.extent * (out.extent + sizes.invariants.extent))))
        found.append(Parameter(Array("mixing", (sizes.invariants, out, out), "M"), mixing))
    return found


def _heads(sizes: _Sizes) -> Layer:
    """One head per block, and one without bias for the species: their energies per atom."""
    z = [Array("z0", (ATOM, sizes.species))]
    z += [Array(f"z{k + 1}", (ATOM, sizes.features)) for k in range(sizes.spec.interactions)]
    terms = [Array(f"energy_{k}", (ATOM,)) for k in range(len(z))]
    members = [linear("of_species", OUT, sizes.species, "w", bias=False)]
    members += [linear(f"of_blocks.{k}", OUT, sizes.features, "wb") for k in range(sizes.spec.interactions)]
    body = (Contract(e["i"], applied(own, array)) for e, own, array in zip(terms, members, z, strict=True))
    title = "Ê^n_i = w_n z^n_i + b_n for each stage n of the features, z^0 the species"
    return Layer("EnergyHeads", title, tuple(z), tuple(terms), tuple(p for own in members for p in own), tuple(body))
