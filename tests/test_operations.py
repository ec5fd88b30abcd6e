"""What saves operations keeps the polynomials: ways to write bilinear forms, scales, shared sums and powers."""

import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgraph.algebra import Layout
from tensorgraph.basis import derive
from tensorgraph.contractions import contraction_program, search
from tensorgraph.emit.printing import literal
from tensorgraph.graphs import Multigraph, canonical
from tensorgraph.scalar import (
    ArrayRef,
    Builder,
    Instruction,
    Linear,
    Opcode,
    evaluate,
    lower_invariants,
    scheduled,
    vector_jacobian_product,
)
from tensorgraph.scalar.bilinear import WAYS, Forms, Span, price
from tensorgraph.scalar.contracting import contracted
from tensorgraph.scalar.ir import Product, Sum
from tensorgraph.scalar.lowering import _powers
from tensorgraph.scalar.scaling import _Logarithms, rescaled
from tensorgraph.scalar.sharing import shared

INPUTS = ArrayRef("x", 5)
VALUES = [Fraction(2, 3), Fraction(-5), Fraction(7, 2), Fraction(11), Fraction(-13, 5)]

numbers = st.integers(-4, 4)
rows = st.lists(numbers, min_size=5, max_size=5)
terms = st.lists(st.tuples(numbers, st.integers(0, 6), st.integers(0, 6)), max_size=9)


def elements(forms: Forms, dependent: list[list[int]]) -> list[Linear]:
    """Five inputs and combinations of them that forms see through."""
    inputs = [forms.builder.input("x", k) for k in range(5)]
    return inputs + [forms.combination(x.scaled(c) for x, c in zip(inputs, row, strict=True)) for row in dependent]


@given(
    st.lists(rows, min_size=2, max_size=2), st.lists(terms, min_size=1, max_size=4), st.sampled_from([WAYS[:1], WAYS])
)
def test_forms_keep_their_value_however_they_are_written(dependent, many_terms, ways):
    forms = Forms(Builder())
    tensor = elements(forms, dependent)
    written = [forms.value([(c, tensor[i], tensor[j]) for c, i, j in some], (0, 0), ways) for some in many_terms]
    numbers = VALUES + [sum(c * x for c, x in zip(row, VALUES, strict=True)) for row in dependent]
    program = forms.builder.finish((INPUTS,), {ArrayRef("y", len(written)): written})
    expected = [sum(c * numbers[i] * numbers[j] for c, i, j in some) for some in many_terms]
    assert evaluate(program, {"x": VALUES})["y"] == expected


@given(st.lists(rows, min_size=2, max_size=2), terms)
def test_a_trial_leaves_no_trace(dependent, some):
    forms = Forms(Builder())
    tensor = elements(forms, dependent)
    before = list(forms.builder.nodes), forms.dependent, dict(forms.spans)
    some = [(c, tensor[i], tensor[j]) for c, i, j in some]
    cost = forms.price_of(lambda: forms.value(some, (0, 0), WAYS))
    assert (forms.builder.nodes, forms.dependent, forms.spans) == before
    forms.value(some, (0, 0), WAYS)
    assert price(forms.builder.nodes[len(before[0]) :]) == cost


def test_a_form_of_rank_one_takes_one_product():
    """x a + x b + y a + y b = (x + y) (a + b): rows that agree share their product."""
    forms = Forms(Builder())
    x, y, a, b, _ = (forms.builder.input("x", k) for k in range(5))
    forms.value([(1, x, a), (1, x, b), (1, y, a), (1, y, b)], (0, 1), WAYS)
    assert sum(isinstance(node, Product) for node in forms.builder.nodes) == 1


def test_expanded_dependent_elements_save_a_product():
    """x a + x b - y (a + b) = (x - y) (a + b), though a + b is a value of its own."""
    forms = Forms(Builder())
    x, y, a, b, _ = (forms.builder.input("x", k) for k in range(5))
    forms.value([(1, x, a), (1, x, b), (-1, y, forms.combination([a, b]))], (0, 1), WAYS)
    assert sum(isinstance(node, Product) for node in forms.builder.nodes) == 1


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6))
def test_what_a_span_holds_is_found_and_nothing_else(coefficients):
    pairs = [(0, 1), (1, 1), (0, 2)]
    span, rank = Span(), 0
    for number, row in enumerate(coefficients):
        form = {pair: Fraction(c) for pair, c in zip(pairs, row, strict=True) if c}
        rest, taken = span.reduced(form)
        found = {pair: Fraction(0) for pair in pairs}
        for value, factor in taken.items():
            for pair, c in zip(pairs, coefficients[value], strict=True):
                found[pair] += factor * c
        assert {pair: found[pair] + rest.get(pair, 0) for pair in pairs} == dict(zip(pairs, row, strict=True))
        if rest:
            span, rank = span.with_form(form, Linear(Fraction(1), number)), rank + 1
    assert rank == np.linalg.matrix_rank(np.array(coefficients, dtype=float))


def test_a_trace_of_an_intermediate_takes_two_additions():
    """q_ab q_ab is the trace of q_ac q_bc."""
    graphs = [Multigraph((2, 2), ((0, 1, 2),)), Multigraph((2, 2, 2), ((0, 1, 1), (0, 2, 1), (1, 2, 1)))]
    counts = [
        scheduled(lower_invariants(contraction_program(some, Layout.full(2))).forward).operations.total
        for some in (graphs[1:], graphs)
    ]
    assert counts[1] - counts[0] == 2


operations = st.lists(
    st.one_of(
        st.tuples(st.just("product"), st.integers(0, 40), st.integers(0, 40)),
        st.tuples(st.just("sum"), st.lists(st.tuples(numbers, st.integers(0, 40)), min_size=1, max_size=5)),
    ),
    min_size=1,
    max_size=14,
)


@given(operations, st.lists(st.tuples(numbers, st.integers(0, 40)), min_size=1, max_size=5))
def test_scales_change_no_output_and_add_no_operation(steps, wanted):
    program = _program(steps, wanted)
    scaled = rescaled(program)
    assert evaluate(scaled, {"x": VALUES}) == evaluate(program, {"x": VALUES})
    assert scheduled(scaled).operations.total <= scheduled(program).operations.total
    assert_numbers_are_moderate(scaled)


def assert_numbers_are_moderate(program):
    """Every number in the instructions is a small rational, and prints as a float other than zero."""
    for item in scheduled(program).body:
        if isinstance(item, Instruction):
            assert max(abs(item.constant.numerator), item.constant.denominator) < 2**64
            assert math.isfinite(float(literal(item.constant)))
            assert float(literal(item.constant))


def test_scales_of_a_squared_value_are_exact_roots():
    """5 x4 and 3 s beside 2 x0 x1, with s = x2 x2: no scale of x2 makes 3 a one, for 3 is no square."""
    builder = Builder()
    x = [builder.input("x", k) for k in range(5)]
    square = builder.product(x[2], x[2])
    outputs = [builder.sum([builder.product(x[0], x[1]).scaled(2), x[4].scaled(5)])]
    outputs += [builder.sum([x[k], square.scaled(3)]) for k in (0, 1, 3)]
    program = builder.finish((INPUTS,), {ArrayRef("y", 4): outputs})
    assert_numbers_are_moderate(rescaled(program))
    assert evaluate(rescaled(program), {"x": VALUES}) == evaluate(program, {"x": VALUES})


@pytest.mark.parametrize("exponent", range(1, 13))
@pytest.mark.parametrize("base", [2, 3, 6])
def test_a_coefficient_of_a_square_is_absorbed_if_it_has_a_root(base, exponent):
    """x4 + c x2 x2 in three sums, x2 in a fourth: a scaled copy of x2 is worth it exactly where c is a square."""
    builder = Builder()
    x = [builder.input("x", k) for k in range(5)]
    square = builder.product(x[2], x[2]).scaled(base**exponent)
    program = builder.finish((INPUTS,), {ArrayRef("y", 3): [builder.sum([x[k], square]) for k in (0, 1, 3)]})
    scales = {c for node in rescaled(program).nodes if isinstance(node, Sum) and len(node.terms) == 1
              for c, _ in node.terms}  # fmt: skip
    assert scales == ({base ** (exponent // 2)} if exponent % 2 == 0 else set())


def test_scales_stay_within_bounds():
    """With x0 scaled by 2^40, three coefficients would be 1, and one that was 2^-40 would be 2^-80."""
    builder = Builder()
    x = [builder.input("x", k) for k in range(5)]
    product = builder.product(x[0], x[1])
    outputs = [builder.sum([x[k], product.scaled(2**40)]) for k in (2, 3, 4)]
    outputs.append(builder.sum([x[2], builder.product(x[0], x[2]).scaled(Fraction(1, 2**40)), x[3]]))
    program = builder.finish((INPUTS,), {ArrayRef("y", 4): outputs})
    assert_numbers_are_moderate(rescaled(program))


def test_roots_of_logarithms_are_those_of_the_numbers():
    logarithms = _Logarithms()
    two, three, six = (logarithms.of(Fraction(number)) for number in (2, 3, 6))
    assert logarithms.root(logarithms.of(Fraction(4, 9)), -2) == three - two
    assert [logarithms.root(logarithm, power) for logarithm in (two, three, six) for power in (2, -2)] == [None] * 6
    assert logarithms.inverse(3 * two - 5 * three) == Fraction(8, 243)


def test_large_primes_are_no_obstacle():
    """Trial division up to a prime of 61 bits would not end."""
    prime = 2**61 - 1
    builder = Builder()
    x = [builder.input("x", k) for k in range(5)]
    outputs = [builder.product(x[0], x[k]).scaled(prime) for k in (1, 2, 3)]
    scaled = rescaled(builder.finish((INPUTS,), {ArrayRef("y", 3): outputs}))
    assert evaluate(scaled, {"x": VALUES})["y"] == [prime * VALUES[0] * VALUES[k] for k in (1, 2, 3)]


@given(operations, st.lists(st.tuples(numbers, st.integers(0, 40)), min_size=1, max_size=5))
def test_sharing_changes_no_output_and_adds_no_operation(steps, wanted):
    program = _program(steps, wanted)
    smaller = shared(program)
    assert evaluate(smaller, {"x": VALUES}) == evaluate(program, {"x": VALUES})
    assert price(smaller.nodes) <= price(program.nodes)


def test_common_parts_of_sums_are_computed_once():
    """x0 + x1 + x2 with and without x3, and twice x0 + x1 + x2 beside x4: one sum of three and two additions."""
    builder = Builder()
    x = [builder.input("x", k) for k in range(5)]
    outputs = [builder.sum(x[:3]), builder.sum(x[:4]), builder.sum([*(v.scaled(2) for v in x[:3]), x[4].scaled(2)])]
    program = shared(builder.finish((INPUTS,), {ArrayRef("y", 3): outputs}))
    assert price(program.nodes) == 4


def test_a_pair_that_saves_nothing_is_left_where_it_is():
    """x0 + 2 x1 in two sums that have another term with the coefficient 2: taken out, it costs what it saves."""
    builder = Builder()
    x = [builder.input("x", k) for k in range(5)]
    outputs = [builder.sum([x[0], x[1].scaled(2), x[k].scaled(2)]) for k in (2, 3)]
    program = builder.finish((INPUTS,), {ArrayRef("y", 2): outputs})
    assert len(shared(program).nodes) == len(program.nodes)


def test_long_sums_are_shared_in_seconds():
    """Forty sums of a hundred terms: pairs that a step does not touch must not be looked at again."""
    random = np.random.default_rng(0)
    builder = Builder()
    x = [builder.input("x", k) for k in range(100)]
    rows = random.choice([-3, -2, -1, 1, 2, 3], (40, 100)).tolist()
    outputs = [builder.sum(v.scaled(c) for v, c in zip(x, row, strict=True)) for row in rows]
    program = builder.finish((ArrayRef("x", 100),), {ArrayRef("y", 40): outputs})
    start = time.process_time()
    smaller = shared(program)
    assert time.process_time() - start < 20
    assert price(smaller.nodes) < 0.8 * price(program.nodes)


def test_a_sum_may_contain_the_shared_pair_and_its_sum():
    """y = x0 + x1 times x2, and x0 + x1 + 3 y: its terms x0, x1 are another y, which is there already."""
    builder = Builder()
    x = [builder.input("x", k) for k in range(5)]
    pair = builder.sum(x[:2])
    outputs = [builder.product(pair, x[2]), builder.sum([*x[:2], pair.scaled(3)])]
    program = builder.finish((INPUTS,), {ArrayRef("y", 2): outputs})
    assert evaluate(shared(program), {"x": VALUES}) == evaluate(program, {"x": VALUES})
    assert price(shared(program).nodes) < price(program.nodes)


def _program(steps, wanted):
    """A random program of sums and products."""
    builder = Builder()
    made = [builder.input("x", k) for k in range(5)]
    for kind, *arguments in steps:
        if kind == "product":
            left, right = (made[k % len(made)] for k in arguments)
            made.append(builder.product(left, right))
        else:
            made.append(builder.sum(made[k % len(made)].scaled(c) for c, k in arguments[0]))
    outputs = [made[-1 - k % len(made)].scaled(c) for c, k in wanted]
    return builder.finish((INPUTS,), {ArrayRef("y", len(outputs)): outputs})


def test_scales_are_absorbed_where_they_are_used():
    """Three outputs each twice a product with one value: the value is doubled once."""
    builder = Builder()
    x = [builder.input("x", k) for k in range(5)]
    outputs = [builder.product(x[0], x[k]).scaled(2) for k in (1, 2, 3)]
    program = builder.finish((INPUTS,), {ArrayRef("y", 3): outputs})
    counts = [
        sum(isinstance(item, Instruction) and item.opcode is Opcode.SCALE for item in scheduled(p).body)
        for p in (program, rescaled(program))
    ]
    assert counts == [3, 1]


def test_the_rule_for_powers_applies_from_the_third_power_on():
    graphs = derive("hiphop", 5, 3).graphs
    program = contraction_program(graphs, Layout.full(3))
    assert {(graphs[k].formula, rank, power) for k, rank, power, _ in _powers(program)} == {
        ("q_ab q_ac q_bc", 2, 3),
        ("t_abc v_a v_b v_c", 1, 3),
    }


def test_the_rule_for_powers_is_not_for_vertices_that_differ():
    """t_abc t_abd t_cde v_e: what is left without a t depends on which, so the gradient has two kinds of terms."""
    graph = canonical(Multigraph((3, 3, 3, 1), ((0, 1, 2), (0, 2, 1), (1, 2, 1), (2, 3, 1))))
    vertex = next(v for v in range(3) if graph.induced([w for w in range(4) if w != v]).is_connected)
    rest = tuple(v for v in range(4) if v != vertex)
    classes = canonical(graph.induced([vertex])), canonical(graph.induced(rest))
    choice = search._cheapest_alone([graph, classes[1]]) | {graph: search.Cut((vertex,), rest, *classes, 0)}
    program = search._written([graph], [graph], choice, Layout.full(3), False)
    program.verify()
    assert not list(_powers(program))
    builder = Builder()
    features = [builder.input("features", k) for k in range(16)]
    value = contracted(builder, program, features)[program.outputs[0].value].item()
    weight = builder.input("grad_invariants", 0)
    gradient = vector_jacobian_product(builder, [value], [weight], features)
    inputs = (ArrayRef("features", 16), ArrayRef("grad_invariants", 1))
    plain = builder.finish(inputs, {ArrayRef("grad_features", 16): gradient})
    arrays = {"features": [Fraction(k * k - 30, k + 2) for k in range(16)], "grad_invariants": [Fraction(3, 7)]}
    assert evaluate(lower_invariants(program).backward, arrays) == evaluate(plain, arrays)


def test_elements_with_two_z_at_a_vertex_are_no_contractions():
    """t_abc v_c is traceless: five elements are contracted, the sixth is a sum of two of them."""
    graphs = [Multigraph((3, 1, 1, 1), ((0, 1, 1), (0, 2, 1), (0, 3, 1)))]
    program, builder = contraction_program(graphs, Layout.full(3)), Builder()
    values = contracted(builder, program, [builder.input("features", k) for k in range(16)])
    matrix = next(value for step, value in zip(program.steps, values[4:], strict=True) if len(step.result) == 2)
    assert matrix[2, 2] == -builder.sum([matrix[0, 0], matrix[1, 1]])
