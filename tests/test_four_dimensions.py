"""Tensors of four dimensions: spinor components, tables of monomials, their loops, and SNAP as a package."""

from fractions import Fraction
from itertools import product
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from tensorgraph.algebra import Layout
from tensorgraph.algebra.spinors import spinor_components, spinor_polynomial
from tensorgraph.basis import Degree, derive
from tensorgraph.battery import verify
from tensorgraph.compiler import compile_spec
from tensorgraph.emit import write_package
from tensorgraph.errors import BasisError, BudgetError, SpecError
from tensorgraph.graphs import Kind, Multigraph, multigraphs_of_degree_sequence
from tensorgraph.model import load_package
from tensorgraph.network.pairs import lower_hypersphere, lower_spinor_components
from tensorgraph.runtime import native, tables
from tensorgraph.scalar import ArrayRef, Table, evaluate, evaluate_table, table_derivatives, tabulated
from tensorgraph.spec import load_spec, parse_spec
from tests.naive_snap import bispectrum, density, environment, hyperspherical, triples
from tests.naive_tensors import bispectrum_factor, contract, moment, traceless
from tests.naive_tensors import spinor_components as naive_spinor_components

SNAP8 = Path(__file__).parents[1] / "specs" / "snap8.yaml"

# Points of the 3-sphere with rational coordinates, and weights.
POINTS = np.array([[Fraction(x, n) for x in v] for v, n in (
    ((1, 2, 2, 4), 5), ((4, -1, 2, 2), 5), ((-1, 1, 1, 1), 2), ((2, 3, 6, 0), 7), ((0, 2, -3, 6), 7),
)], dtype=object)  # fmt: skip
WEIGHTS = [Fraction(1), Fraction(-2, 3), Fraction(3), Fraction(1, 2), Fraction(5, 4)]


def real_components(tensor: np.ndarray) -> list[Fraction]:
    """The independent numbers of a traceless tensor, by the naive oracle."""
    real, imaginary = naive_spinor_components(tensor)
    n = tensor.ndim
    return [comb(n, a) * (imaginary if is_imaginary else real)[a, b] for a, b, is_imaginary in spinor_components(n)]


def polynomial_value(polynomial, values):
    return sum(coefficient * np.prod([values[k] for k in monomial]) for monomial, coefficient in polynomial.items())


def exact_tensors(max_rank: int) -> list[np.ndarray]:
    return [traceless(moment(rank, POINTS, WEIGHTS)) for rank in range(max_rank + 1)]


@pytest.mark.parametrize("ranks", [(1, 1), (3, 3), (0, 2, 2), (1, 2, 3), (2, 2, 2), (2, 2, 1, 1), (3, 2, 2, 1)])
def test_polynomials_of_spinor_components_are_contractions(ranks) -> None:
    """Exactly, over the rationals, of disconnected graphs too."""
    tensors, layout = exact_tensors(max(ranks)), Layout.full(max(ranks), dimension=4)
    starts = {kind.rank: place.start for kind, place in layout.places.items()}
    values = [x for tensor in tensors for x in real_components(tensor)]
    for graph in multigraphs_of_degree_sequence(ranks):
        edges = {(u, v): multiplicity for u, v, multiplicity in graph.edges}
        expected = contract([tensors[rank] for rank in graph.ranks], edges)
        assert polynomial_value(spinor_polynomial(graph, starts), values) == expected


def test_the_program_of_a_point_gives_its_spinor_components() -> None:
    """Exactly up to rank 4, and as hyperspherical harmonics up to rank 8."""
    program = lower_spinor_components(4).forward
    for point in POINTS:
        found = evaluate(program, {"points": list(point)})["components"]
        powers = (traceless(moment(rank, point[None], [Fraction(1)])) for rank in range(5))
        assert found == [x for power in powers for x in real_components(power)]
    point = POINTS[1].astype(float)
    found = evaluate(lower_spinor_components(8).forward, {"points": list(point)})["components"]
    expected = []
    for n in range(9):
        matrix = hyperspherical(n, point)
        for a, b, imaginary in spinor_components(n):
            value = np.sqrt(comb(n, a) / comb(n, b)) * matrix[a, b]
            expected.append(value.imag if imaginary else value.real)
    np.testing.assert_allclose(np.array(found, dtype=float), expected, atol=1e-13)


def test_the_pole_is_the_identity() -> None:
    found = evaluate(lower_spinor_components(5).forward, {"points": [1, 0, 0, 0]})["components"]
    ones = [a == b and not imaginary for n in range(6) for a, b, imaginary in spinor_components(n)]
    assert found == ones


@pytest.mark.parametrize("rmin0", [0.0, 0.6])
def test_the_sphere_is_that_of_the_papers(rmin0: float) -> None:
    """And ends smoothly at the cutoff; nearer than rmin0 the switching function is one, and the angle goes on."""
    cutoff, rfac0 = 4.7, 0.9
    random = np.random.default_rng(0)
    displacements = random.normal(size=(50, 3))
    displacements *= (np.linspace(rmin0, 5.2, 50) / np.linalg.norm(displacements, axis=1))[:, None]
    points, weights = environment(displacements[1:], cutoff=cutoff, rfac0=rfac0, rmin0=rmin0)
    program = lower_hypersphere(cutoff, rfac0, rmin0)
    found = np.array([evaluate(program.forward, {"displacements": list(x)})["sphere"] for x in displacements[1:]])
    np.testing.assert_allclose(found[:, :4], points[1:], atol=1e-14)
    np.testing.assert_allclose(found[:, 4], weights[1:], atol=1e-14)
    assert (found[np.linalg.norm(displacements[1:], axis=1) > cutoff, 4] == 0).all()
    inside = evaluate(program.forward, {"displacements": [rmin0 / 2 or 1e-3, 0.0, 0.0]})["sphere"]
    assert inside[4] == pytest.approx(1, abs=1e-6)
    assert inside[0] ** 2 + inside[1] ** 2 == pytest.approx(1)


def small_table(max_rank: int = 3) -> Table:
    """Of all contractions of up to three tensors: products of one, two and three factors."""
    layout = Layout.full(max_rank, dimension=4)
    sequences = [s for n in (1, 2, 3) for s in product(range(max_rank + 1), repeat=n) if list(s) == sorted(s)]
    graphs = [graph for ranks in sequences for graph in multigraphs_of_degree_sequence(ranks)]
    return tabulated(graphs, layout).forward


def test_tables_are_closed_under_derivatives() -> None:
    """By the chain rule along lines: differences of a table are its gradient, those of that its double gradient."""
    forward, backward, double = table_derivatives(small_table())
    random = np.random.default_rng(1)
    n, m = forward.inputs[0].size, forward.results[0].size
    x, g, v = random.normal(size=n), random.normal(size=m), random.normal(size=n)

    def value(table: Table, **arrays: np.ndarray) -> list[np.ndarray]:
        return [np.array(found, dtype=float) for found in evaluate_table(table, arrays).values()]

    step = 1e-5
    (plus,), (minus,) = (value(forward, features=x + sign * step * v) for sign in (1, -1))
    (slope,) = value(backward, features=x, grad_invariants=g)
    assert slope @ v == pytest.approx(g @ (plus - minus) / (2 * step), rel=1e-8)
    by_features, by_cotangent = value(double, features=x, grad_invariants=g, grad_grad_features=v)
    np.testing.assert_allclose(by_cotangent, (plus - minus) / (2 * step), atol=1e-7)
    u = random.normal(size=n)
    (plus,), (minus,) = (value(backward, features=x + sign * step * u, grad_invariants=g) for sign in (1, -1))
    assert by_features @ u == pytest.approx(v @ (plus - minus) / (2 * step), rel=1e-8)


def test_the_runtime_derives_the_same_tables() -> None:
    forward, *others = table_derivatives(small_table())
    read = tables.Table.read(forward.to_json().encode())
    for ours, theirs in zip((forward, *others), (read, read.backward, read.backward.backward), strict=True):
        assert theirs.factors.tolist() == ours.factors.tolist()
        assert theirs.places.tolist() == ours.places.tolist()
        np.testing.assert_allclose(theirs.coefficients.numpy(), ours.coefficients, rtol=1e-15)


@pytest.mark.parametrize("shape", [(1, 1), (37, 1), (3, 5), (2, 40), (0, 1), (3, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_loop_in_c_is_the_table(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Tails of vectors, one channel of many atoms, many channels of few, and none."""
    table = tables.Table.read(small_table().to_json().encode()).backward
    assert native.available(tables.SOURCE, "table", dtype, DEGREE=3)
    x = torch.randn(shape[0], table.n_inputs, shape[1], dtype=dtype)
    found, expected = tables.evaluate(table, x), tables.summed(table, x.double())
    assert found.shape == expected.shape
    tolerance = 1e-13 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * 30)


@pytest.mark.parametrize("shape", [(1, 1), (150, 1), (3, 45), (0, 1), (3, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_triton_kernel_is_the_table(shape: tuple[int, int], dtype: torch.dtype, monkeypatch) -> None:
    """Interpreted on a CPU, so many terms at a time as on a GPU; more rows than a block has, one, and none."""
    kernels = pytest.importorskip("tensorgraph.runtime.tables_triton", reason="triton is not installed")
    monkeypatch.setattr(kernels, "TERMS_INTERPRETED", kernels.TERMS)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    table = tables.trial_table(3)
    x = torch.randn(shape[0], table.n_inputs, shape[1], dtype=dtype, device=device)
    found = kernels.summed(x, *tables._terms(table, x.device, x.dtype))
    expected = tables.summed(table, x.double())
    assert found.shape == expected.shape
    tolerance = 1e-13 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_the_loop_in_c_takes_products_of_any_degree(degree: int) -> None:
    table = tables.trial_table(degree)
    assert native.available(tables.SOURCE, "table", torch.float64, DEGREE=degree)
    x = torch.randn(4, table.n_inputs, 3, dtype=torch.float64)
    torch.testing.assert_close(tables.evaluate(table, x), tables.summed(table, x), rtol=1e-13, atol=1e-13)


def test_long_keys_are_told_apart() -> None:
    """Where a row of small numbers does not fit one integer."""
    rows = torch.tensor([[2**20, 3, 2**20, 1], [1, 2, 3, 4], [2**20, 3, 2**20, 1], [1, 2, 3, 2**20]])
    different, which = tables._distinct(rows)
    assert different.tolist() == [[1, 2, 3, 4], [1, 2, 3, 2**20], [2**20, 3, 2**20, 1]]
    assert which.tolist() == [2, 0, 2, 1]


def test_plain_blocks_are_the_whole(monkeypatch) -> None:
    table = tables.Table.read(small_table().to_json().encode())
    x = torch.randn(7, table.n_inputs, 2, dtype=torch.float64)
    whole = tables.evaluate(table, x)
    monkeypatch.setenv("TENSORGRAPH_CPU", "pytorch")
    monkeypatch.setattr(tables, "BLOCK_ELEMENTS", 4 * len(table.places))
    torch.testing.assert_close(tables.evaluate(table, x), whole, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("order", [5, 7])
def test_what_is_too_much_is_told_before_it_is_begun(order: int) -> None:
    limit = f"body_order: {order}"
    text = SNAP8.read_text().replace("body_order: 4", limit).replace("degree: {exactly: 3, of: 1}", "")
    with pytest.raises(BudgetError, match=r"^a table from more than 2000000 products of components; allowed: a"):
        compile_spec(parse_spec(text))


def test_tables_are_of_what_they_can_be_of() -> None:
    with pytest.raises(ValueError, match="of one colour in four dimensions"):
        tabulated([Multigraph((Kind(0),))], Layout.full(0))
    with pytest.raises(BudgetError, match="a table of 250001 monomials; allowed: at most"):
        Table.of(ArrayRef("x", 10**6), ArrayRef("y", 1), [{(k,): Fraction(1) for k in range(250_001)}])


@pytest.mark.parametrize("family", ["linear", "products", "connected"])
@pytest.mark.parametrize("dimension", [3, 4])
def test_a_degree_that_no_graph_has_is_told(family: str, dimension: int) -> None:
    with pytest.raises(BasisError, match=r"^no graph gives an output of rank 0; allowed: another degree, body order"):
        derive(family, 4, 2, dimension=dimension, degree=Degree(4, 1, 0, 0, exact=True))


def test_a_norm_over_channels_is_refused() -> None:
    text = SNAP8.read_text().replace("max_rank: 8", "max_rank: 2, channels: 4")
    text = text.replace("readout:", "    update: {norm: group}\nreadout:").replace(", per: species", "")
    with pytest.raises(SpecError, match=r"dimension` is 4, and update.norm is group; allowed: 3, or with"):
        parse_spec(text)


def test_an_output_that_no_graph_gives_is_told() -> None:
    probe = Kind(1, role="probe")
    with pytest.raises(BasisError, match="no graph gives an output of rank 1"):
        derive("linear", 3, 1, outputs=(None, probe), degree=Degree(2, 0, 0, 1, exact=True))


@pytest.fixture(scope="module")
def snap(tmp_path_factory):
    compilation = compile_spec(load_spec(SNAP8))
    return compilation, load_package(write_package(compilation.package, tmp_path_factory.mktemp("snap8")))


def test_snap_has_the_55_components_of_lammps(snap) -> None:
    """Values of the package's own functions around an atom, times rationals, as the papers define them."""
    compilation, package = snap
    radial = compilation.spec.radial
    displacements = np.random.default_rng(2).normal(scale=1.6, size=(14, 3))
    points, weights = environment(displacements, cutoff=radial.cutoff, rfac0=radial.rfac0)
    expected = dict(zip(triples(8), bispectrum(8, points, weights), strict=True))
    model = package.Model().double()
    pairs = torch.stack([torch.zeros(14, dtype=torch.int64), torch.arange(1, 15)])
    values = {}
    hook = model.layers[0].register_forward_hook(lambda _layer, _given, made: values.update(B=made))
    model(torch.full((15,), 74), pairs, torch.from_numpy(displacements))
    hook.remove()
    found = values["B"][0, :, 0].tolist()
    assert len(found) == 55
    for graph, value in zip(compilation.basis.graphs, found, strict=True):
        first, second, third = sorted(graph.ranks)
        triple = (second, first, third)
        assert value * float(bispectrum_factor(*triple)) == pytest.approx(expected[triple], rel=1e-11), triple


def test_snap_tensors_are_hyperspherical_harmonics(snap) -> None:
    _, package = snap
    points = torch.from_numpy(POINTS.astype(float))
    found = package.tensor_components(points).T @ torch.tensor([float(w) for w in WEIGHTS], dtype=torch.float64)
    n, matrix = 8, density(8, POINTS.astype(float), np.array(WEIGHTS, dtype=float))
    a, b, imaginary = np.array(spinor_components(n)).T
    scaled = np.sqrt([comb(n, k) for k in a]) / np.sqrt([comb(n, k) for k in b]) * matrix[a, b]
    np.testing.assert_allclose(found[-81:].numpy(), np.where(imaginary, scaled.imag, scaled.real), atol=1e-12)
    with pytest.raises(ValueError, match=r"points must be \[n, 4\], not \[2, 3\]"):
        package.tensor_components(torch.zeros(2, 3))


def test_snap_is_differentiable_to_every_order(snap) -> None:
    _, package = snap
    torch.manual_seed(0)
    x = torch.randn(1, 285, 1, dtype=torch.float64)
    u, v, w = torch.randn(3, *x.shape, dtype=torch.float64)

    def along(t: torch.Tensor) -> torch.Tensor:
        return package.invariants(x + t[0] * u + t[1] * v + t[2] * w).sum()

    t = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(along(t), t, create_graph=True)
    (second,) = torch.autograd.grad(first[0], t, create_graph=True)
    (third,) = torch.autograd.grad(second[1], t, create_graph=True)
    # Cubic in t: its coefficient of t0 t1 t2 by differences is exact.
    corners = [(torch.tensor(signs, dtype=torch.float64), np.prod(signs)) for signs in product((1.0, -1.0), repeat=3)]
    expected = sum(sign * along(corner) for corner, sign in corners) / 8
    assert third[2].item() == pytest.approx(expected.item(), rel=1e-10)
    (fourth,) = torch.autograd.grad(third[2] ** 2, t)  # of a cubic the third derivative is a number
    torch.testing.assert_close(fourth, torch.zeros_like(fourth), atol=1e-9 * third[2].item() ** 2, rtol=0)


def test_third_derivatives_are_recorded_without_the_numbers_of_the_table(snap) -> None:
    """As operators: what was recorded leaves nothing behind that a later call would meet."""
    _, package = snap
    x = torch.randn(2, 285, 1, dtype=torch.float64)

    def third(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        value = package.invariants(x).square().sum()
        for _ in range(2):
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
            value = slope.square().sum()
        return torch.autograd.grad(value, x)[0]

    graph = make_fx(third, tracing_mode="symbolic", _allow_non_fake_inputs=True)(x)
    expected = third(x)
    assert type(expected) is torch.Tensor
    torch.testing.assert_close(graph(x), expected, rtol=1e-12, atol=1e-12 * expected.abs().max().item())
    assert not [node for node in graph.graph.nodes if node.op == "get_attr" and "tensor_constant" in str(node.target)]


def test_a_smaller_snap_passes_the_battery(tmp_path: Path) -> None:
    """All that every package has to hold, in float64; of rank 3, for every row of a table is interpreted one by one."""
    compilation = compile_spec(parse_spec(SNAP8.read_text().replace("max_rank: 8", "max_rank: 3")))
    found = verify(write_package(compilation.package, tmp_path), dtypes=[torch.float64])
    assert found.passed, [row for row in found.rows if not row.check.passed]


def test_fixed_numbers_are_there_in_every_dtype_and_after_the_meta_device(snap) -> None:
    _, package = snap
    model = package.Model()
    weights = {name: value.double() for name, value in model.state_dict().items()}
    assert not any("pole" in name for name in weights)
    expected = model.layers[0].pole.values.double()
    assert torch.equal(model.double().layers[0].pole.values, expected)
    with torch.device("meta"):
        empty = package.Model()
    empty.load_state_dict(weights, assign=True)
    assert torch.equal(empty.layers[0].pole.values, expected)
    assert torch.equal(package.Model().to("meta").to_empty(device="cpu").layers[0].pole.values, expected.float())
