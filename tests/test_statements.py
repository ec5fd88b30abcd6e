"""Networks as data: the interpreter against emitted modules, adjoints, rewriting, and what is refused."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tensorgraph.compiler import compile_spec
from tensorgraph.emit import write_package
from tensorgraph.model import load_package
from tensorgraph.network import (
    ATOM,
    PAIR,
    Array,
    Contract,
    Layer,
    Pairs,
    Space,
    adjoint,
    contracted_first,
    reads_neighbours,
    run,
)
from tensorgraph.network.hiphop import hiphop
from tensorgraph.spec import load_spec, parse_spec

SPECS = Path(__file__).parents[1] / "specs"
SHIPPED = ("hiphop5", "hiphop4", "flexible5", "hipnn")
SMALL = """
name: tiny
basis: {{family: {family}, body_order: {order}, max_rank: {rank}}}
network:
  species: [H, C, O]
  features: {features}
  interactions: {interactions}
  atom_layers: {atom_layers}
  sensitivity: {{functions: 5, soft_min: 0.75, soft_max: 3.0, cutoff: 4.0}}
  group_norm: {norm}
  residual: {residual}
"""


def network_of(compilation) -> Layer:
    spec = compilation.spec
    return hiphop(spec.network, spec.basis.max_rank, compilation.scalars)


def cluster(seed: int, n_atoms: int, n_species: int, cutoff: float):
    """Random atoms, their pairs within the cutoff and a little beyond, and their species as ones among zeros."""
    random = np.random.default_rng(seed)
    positions = random.uniform(0, 1.1 * n_atoms ** (1 / 3) * 1.6, (n_atoms, 3))
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    target, source = np.nonzero((distance < 1.2 * cutoff) & (distance > 0))
    kinds = random.integers(0, n_species, n_atoms)
    return Pairs(target, source, n_atoms), positions[source] - positions[target], np.eye(n_species)[kinds], kinds


def results_of(module, species, kinds, pairs, displacements):
    """Energy terms, slopes by displacements, and gradients by weights of an emitted module in float64."""
    model = module.Model(seed=3).double()
    numbers = model.species[torch.from_numpy(kinds)]
    moved = torch.from_numpy(displacements).requires_grad_()
    energy = model(numbers, torch.from_numpy(np.stack([pairs.target, pairs.source])), moved).energies.sum()
    names, weights = zip(*model.named_parameters(), strict=True)
    slope, *gradients = torch.autograd.grad(energy, (moved, *weights), allow_unused=True, materialize_grads=True)
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    return state, energy.item(), slope.numpy(), dict(zip(names, (g.numpy() for g in gradients), strict=True))


def check(layer: Layer, module, n_atoms: int, cutoff: float) -> None:
    pairs, displacements, species, kinds = cluster(1, n_atoms, layer.inputs[0].spaces[1].size, cutoff)
    state, energy, slope, gradients = results_of(module, species, kinds, pairs, displacements)
    shapes = {name: tuple(space.size for space in one.array.spaces) for name, one in layer.weights()}
    assert {name: value.shape for name, value in state.items()} == shapes
    inputs = {"z0": species, "displacements": displacements}
    terms = run(layer, state, inputs, pairs)
    assert np.sum(terms) == pytest.approx(energy, rel=1e-11)
    backward = adjoint(layer)
    ones = {array.name: np.ones(n_atoms) for array in backward.inputs[2:]}
    _, found, *of_weights = run(backward, state, inputs | ones, pairs)
    np.testing.assert_allclose(found, slope, rtol=1e-9, atol=1e-10 * np.abs(slope).max())
    for (name, _), value in zip(layer.weights(), of_weights, strict=True):
        expected = gradients[name]
        np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max() + 1e-12, err_msg=name)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_interpreter_gives_what_the_shipped_modules_give(name):
    """Energies, forces and the gradients of all weights, with the weights of the module."""
    compilation = compile_spec(load_spec(SPECS / f"{name}.yaml"))
    check(
        network_of(compilation),
        importlib.import_module(f"generated.{name}"),
        5,
        compilation.spec.network.sensitivity.cutoff,
    )


TINY = {
    "residual, norm": {"family": "flexible", "order": 4, "rank": 2, "norm": "true", "residual": "true"},
    "plain": {"family": "hiphop", "order": 3, "rank": 1, "norm": "false", "residual": "false"},
    "as wide as species": {
        "family": "hiphop",
        "order": 4,
        "rank": 2,
        "norm": "true",
        "residual": "true",
        "features": 3,
    },
    "one layer": {"family": "linear", "order": 3, "rank": 2, "norm": "false", "residual": "true", "interactions": 1},
    "scalars": {"family": "hiphop", "order": 2, "rank": 0, "norm": "false", "residual": "true", "atom_layers": 0},
}


@pytest.mark.parametrize("case", TINY)
def test_every_option_of_the_short_form_means_what_its_module_does(case, tmp_path):
    options = {"features": 4, "interactions": 2, "atom_layers": 1} | TINY[case]
    compilation = compile_spec(parse_spec(SMALL.format(**options)))
    module = load_package(write_package(compilation.package, tmp_path))
    check(network_of(compilation), module, 6, 4.0)


@pytest.fixture(scope="module")
def tiny():
    options = {"family": "hiphop", "order": 4, "rank": 2, "features": 4, "interactions": 2, "atom_layers": 1}
    return network_of(compile_spec(parse_spec(SMALL.format(**options, norm="true", residual="true"))))


def test_a_network_prints_as_its_equations(tiny):
    interaction = next(layer for layer in tiny.layers() if layer.name == "Interaction")
    assert "    E[i,m,a] = Σ_p,n,b T[p,m] S[p,n] V[n,a,b] z[j(p),b]" in str(interaction).splitlines()
    assert "    x[i,a] = Σ_k,b M[k,b,a] Ĩ[i,k,b] + Σ_b W[a,b] z[i,b] + B[a]" in str(interaction).splitlines()
    assert hash(tiny) == hash(replace(tiny))


def test_what_reads_neighbours_is_known(tiny):
    layers = {layer.name: layer for layer in tiny.layers()}
    assert reads_neighbours(tiny)
    assert reads_neighbours(layers["Interaction"])
    assert not reads_neighbours(layers["AtomLayer"])


def density():
    function, a, b, m = Space("function", 4), Space("feature", 3), Space("species", 2), Space("component", 5)
    t, s = Array("T", (PAIR, m)), Array("S", (PAIR, function))
    v, z, e = Array("V", (function, a, b)), Array("z", (ATOM, b)), Array("E", (ATOM, m, a))
    return Contract(e["ima"], (t["pm"] * s["pn"] * v["nab"] * z["jb"],))


@pytest.mark.parametrize(
    ("first", "texts"),
    [
        ("Vz", ("Q[i,n,a] = Σ_b V[n,a,b] z[i,b]", "E[i,m,a] = Σ_p,n T[p,m] S[p,n] Q[j(p),n,a]")),
        ("TzS", ("Q[i,m,b,n] = Σ_p T[p,m] z[j(p),b] S[p,n]", "E[i,m,a] = Σ_n,b V[n,a,b] Q[i,m,b,n]")),
    ],
)
def test_factors_may_be_contracted_first(first, texts):
    statement = density()
    split = contracted_first(statement, first, "Q")
    assert tuple(map(str, split)) == texts
    random, pairs = np.random.default_rng(0), cluster(0, 6, 2, 4.0)[0]
    sizes = {"pair": len(pairs.target), "atom": pairs.n_atoms}
    inputs = tuple(dict.fromkeys(statement.sources))
    values = {x.name: random.standard_normal([sizes.get(s.name, s.size) for s in x.spaces]) for x in inputs}
    whole, parts = (Layer("L", "", inputs, statement.results, (), body) for body in ((statement,), split))
    parts.verify()
    np.testing.assert_allclose(run(whole, {}, values, pairs), run(parts, {}, values, pairs), rtol=1e-12)


def test_sums_over_pairs_stay_together():
    with pytest.raises(ValueError, match="both sums over pairs"):
        contracted_first(density(), "TV", "Q")
    with pytest.raises(ValueError, match="not some of the factors"):
        contracted_first(density(), "TX", "Q")


def test_what_is_no_layer_is_refused():
    statement = density()
    t, s, v, z = statement.sources
    good = Layer("L", "", (t, s, v, z), statement.results, (), (statement,))
    good.verify()
    for bad, message in [
        (replace(good, inputs=(t, s, v)), "reads z"),
        (replace(good, body=(statement, statement)), "makes E twice"),
        (replace(good, outputs=(Array("F", (ATOM,)),)), "does not make F"),
        (replace(good, inputs=(t, s, v, z, statement.result.array)), "makes E twice"),
    ]:
        with pytest.raises(ValueError, match=message):
            bad.verify()
    with pytest.raises(ValueError, match="a neighbour without a pair"):
        Contract(Array("x", (ATOM,))["j"], (z["jb"] * Array("w", (z.spaces[1],))["b"],)).verify()
    with pytest.raises(ValueError, match="is no index of"):
        _ = t["im"]
    with pytest.raises(ValueError, match="needs 2 different letters"):
        _ = t["pp"]
