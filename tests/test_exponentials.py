"""Exponentials and sums over rows or columns in the scalar IR, and the sensitivities that are made of them."""

from fractions import Fraction
from math import exp, isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgraph.network.radial import lower_sensitivities
from tensorgraph.scalar import (
    ArrayRef,
    Axes,
    Builder,
    Opcode,
    ScalarProgram,
    evaluate,
    scheduled,
    vector_jacobian_product,
)
from tensorgraph.scalar.functions import FUNCTIONS, LEAST_EXPONENT
from tensorgraph.scalar.ir import ZERO, Applied, Input
from tensorgraph.scalar.scaling import rescaled
from tensorgraph.scalar.sharing import shared
from tests.helpers import execute

RADIAL, PARAMETERS = [0.7, 0.4], [0.65, 11.0]


def sensitivity(inverse_distance: float, cutoff: float, center: float, sigma: float) -> float:
    return exp(-0.5 * (sigma * (inverse_distance - center)) ** 2) * cutoff


@st.composite
def programs(draw):
    """Random sums and products, some of them exponents: of their squares, times a negative number."""
    builder = Builder()
    values = [builder.one, *(builder.input("x", k) for k in range(3))]
    for _ in range(draw(st.integers(1, 8))):
        terms = draw(st.lists(st.tuples(st.integers(-3, 3), *2 * [st.integers(0, len(values) - 1)]), max_size=4))
        value = builder.sum(builder.product(values[a], values[b]).scaled(c) for c, a, b in terms)
        if draw(st.booleans()):
            factor = draw(st.sampled_from([Fraction(-1, 2), Fraction(-1), Fraction(-3, 7)]))
            value = builder.apply("exp", builder.product(value, value).scaled(factor))
        values.append(value)
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
    return builder.finish((ArrayRef("x", 3),), {ArrayRef("y", len(outputs)): outputs})


@given(programs())
def test_passes_keep_what_a_program_means(program: ScalarProgram):
    arrays = {"x": [0.25, -0.5, 0.375]}
    expected = evaluate(program, arrays)["y"]
    passed = rescaled(shared(program))
    assert evaluate(passed, arrays)["y"] == pytest.approx(expected, rel=1e-12)
    assert execute(scheduled(passed), arrays)["y"] == pytest.approx(expected, rel=1e-12)


def test_an_exponent_that_becomes_a_multiple_of_another_value_is_that_multiple():
    """Scales of sums are free, but not within an exponent: exp(−(x + y)²) beside 2 (x + y)."""
    builder = Builder()
    x, y = builder.input("x", 0), builder.input("x", 1)
    total = builder.sum([x, y.scaled(2)])
    gaussian = builder.apply("exp", builder.product(total, total).scaled(-2))
    outputs = [total.scaled(2), builder.product(gaussian, total).scaled(2), builder.apply("exp", total.scaled(-4))]
    program = builder.finish((ArrayRef("x", 2),), {ArrayRef("y", 3): outputs})
    arrays = {"x": [0.5, 0.125]}
    sum_ = 0.75
    expected = [2 * sum_, 2 * sum_ * exp(-2 * sum_**2), exp(-4 * sum_)]
    assert evaluate(rescaled(program), arrays)["y"] == pytest.approx(expected, rel=1e-14)
    assert execute(scheduled(rescaled(program)), arrays)["y"] == pytest.approx(expected, rel=1e-14)


def test_exponentials_are_made_once_and_zero_is_no_exponent():
    builder = Builder()
    x = builder.input("x", 0)
    assert builder.apply("exp", -x) == builder.apply("exp", x.scaled(-1))
    assert builder.apply("exp", builder.sum([x, -x])) == builder.one
    program = builder.finish((ArrayRef("x", 1),), {ArrayRef("y", 1): [builder.apply("exp", x)]})
    assert program.nodes == (Input("x", 0), Applied("exp", 0))
    assert str(program).splitlines()[1] == "%1 = exp %0"
    assert evaluate(program, {"x": [LEAST_EXPONENT]})["y"] == [exp(LEAST_EXPONENT)]
    assert evaluate(program, {"x": [LEAST_EXPONENT - 1e-9]})["y"] == [0.0]


def test_sensitivities_are_what_the_paper_says():
    found = evaluate(lower_sensitivities().forward, {"radial": RADIAL, "parameters": PARAMETERS})
    assert found == {"sensitivities": [pytest.approx(sensitivity(*RADIAL, *PARAMETERS), rel=1e-15)]}


def test_derivatives_are_slopes():
    """Backward of forward, double backward of backward, by central differences in every argument."""
    programs = lower_sensitivities()
    arrays = {"radial": RADIAL, "parameters": PARAMETERS, "grad_sensitivities": [1.3]}
    arrays |= {"grad_grad_radial": [0.3, -0.8], "grad_grad_parameters": [-0.6, 0.02]}

    def value(arrays) -> float:
        return evaluate(programs.forward, arrays)["sensitivities"][0] * arrays["grad_sensitivities"][0]

    def slope(arrays) -> float:
        found = evaluate(programs.backward, arrays)
        return sum(
            g * w
            for name in ("radial", "parameters")
            for g, w in zip(found[f"grad_{name}"], arrays[f"grad_grad_{name}"], strict=True)
        )

    first, second = evaluate(programs.backward, arrays), evaluate(programs.double_backward, arrays)
    assert_slopes(value, arrays, {name: first[f"grad_{name}"] for name in ("radial", "parameters")})
    names = ("radial", "parameters", "sensitivities")
    found = {f"{'grad_' if name == 'sensitivities' else ''}{name}": "grad_" + name for name in names[:2]}
    found |= {"grad_sensitivities": "grad_grad_sensitivities"}
    assert_slopes(slope, arrays, {name: second[output] for name, output in found.items()})


def test_what_targets_would_sum_differently_is_refused():
    """Values of rows or of columns alone, zeros and constants have no shape of their own that a sum could count."""
    builder = Builder()
    r, q, x = (builder.input(name, 0) for name in "rqx")
    inputs = (ArrayRef("r", 1, Axes.ROWS), ArrayRef("q", 1, Axes.COLUMNS), ArrayRef("x", 1))
    wrong = {
        "does not depend": [r, q, builder.product(r, r), ZERO],
        "is a constant": [builder.one, builder.sum([x, builder.one])],
    }
    for axes in Axes:
        for message, values in wrong.items():
            for value in values:
                with pytest.raises(ValueError, match=message):
                    scheduled(builder.finish(inputs, {ArrayRef("y", 1, axes): [value]}))
        for value in (x, builder.product(r, q), builder.sum([r, q])):
            scheduled(builder.finish(inputs, {ArrayRef("y", 1, axes): [value]}))


def test_no_number_is_no_number():
    builder = Builder()
    program = builder.finish((ArrayRef("x", 1),), {ArrayRef("y", 1): [builder.apply("exp", builder.input("x", 0))]})
    for found in (evaluate(program, {"x": [nan]}), execute(scheduled(program), {"x": [nan]})):
        assert isnan(found["y"][0])


def assert_slopes(function, arrays, slopes) -> None:
    step = 1e-6
    for name, expected in slopes.items():
        for k, exact in enumerate(expected):
            low, high = (
                arrays | {name: [x + sign * step * (at == k) for at, x in enumerate(arrays[name])]} for sign in (-1, 1)
            )
            difference = (function(high) - function(low)) / (2 * step)
            assert difference == pytest.approx(exact, rel=1e-6, abs=1e-9), (name, k)


def test_arrays_know_their_axes_and_derivatives_take_each_exponential_once():
    programs = lower_sensitivities()
    arrays = {ref.name: ref.axes for ref in programs.double_backward.inputs}
    assert arrays == {
        "radial": Axes.ROWS,
        "parameters": Axes.COLUMNS,
        "grad_sensitivities": Axes.BOTH,
        "grad_grad_radial": Axes.ROWS,
        "grad_grad_parameters": Axes.COLUMNS,
    }
    assert [ref.axes for ref, _ in programs.double_backward.outputs] == [Axes.ROWS, Axes.COLUMNS, Axes.BOTH]
    for program in programs:
        line = scheduled(program)
        assert line.operations.functions == 1
        assert sum(getattr(item, "opcode", None) is Opcode.APPLY for item in line.body) == 1
    assert [scheduled(program).operations.total for program in programs] == [6, 13, 35]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_its_derivative(name):
    """Central differences of the evaluation, at points where all are smooth; exponents are negative."""
    builder = Builder()
    x = builder.input("x", 0)
    value = builder.apply(name, x)
    (slope,) = vector_jacobian_product(builder, [value], [builder.one], [x])
    program = builder.finish((ArrayRef("x", 1),), {ArrayRef("y", 1): [value], ArrayRef("slope", 1): [slope]})
    h = 1e-5
    for at in (0.3, 0.9, 1.7) if name != "exp" else (-0.3, -2.0):
        left, right = (evaluate(program, {"x": [at + d]})["y"][0] for d in (-h, h))
        assert evaluate(program, {"x": [at]})["slope"] == pytest.approx([(right - left) / (2 * h)], rel=1e-7, abs=1e-9)
        assert execute(scheduled(program), {"x": [at]})["y"] == pytest.approx([FUNCTIONS[name].evaluate(at)], rel=1e-14)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_at_zero_are_exact(name):
    builder, function = Builder(), FUNCTIONS[name]
    if function.at_zero is None:
        with pytest.raises(ValueError, match=f"{name} of zero is no rational"):
            builder.apply(name, ZERO)
    else:
        assert builder.apply(name, ZERO).coefficient == function.at_zero == function.evaluate(0.0)
