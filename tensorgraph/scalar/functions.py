"""The functions of one variable that scalar programs know: each with its derivative and how every language writes it.

To add one is to add a row here. Derivatives are built from the argument and the value, so they share what is there. A
function that C cannot write on vectors is applied lane by lane.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

Slope = tuple[tuple[Fraction, tuple[str, ...]], ...]
"""A derivative as a sum of products: a number, and factors that are ``value``, or a function of ``value`` or of
``argument`` such as ``cos argument``."""

LEAST_EXPONENT = -60
"""Exponentials below that of this number are far below rounding beside one of a moderate number. As zeros they cannot
become subnormal numbers in float32, which take many times as long as others."""


@dataclass(frozen=True)
class Function:
    """A function of one variable.

    Attributes:
        name: as in the text form of programs.
        evaluate: of a float.
        slope: the derivative, from the argument and the value.
        at_zero: the exact value at zero, None where there is none.
        torch, triton: expressions with ``{a}`` for the argument.
        c: an expression on vectors; None applies the C library's function of this name lane by lane.
    """

    name: str
    evaluate: Callable[[float], float]
    slope: Slope
    at_zero: Fraction | None
    torch: str
    triton: str
    c: str | None = None


def _exponential(exponent: float) -> float:
    return 0.0 if exponent < LEAST_EXPONENT else math.exp(exponent)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


_ONE, _HALF = Fraction(1), Fraction(1, 2)
_SQUARE = ("value", "value")

FUNCTIONS = {
    function.name: function
    for function in (
        # Of arguments that are nowhere positive; exactly zero below LEAST_EXPONENT.
        Function(
            "exp", _exponential, ((_ONE, ("value",)),), _ONE,
            "exponential({a})", f"tl.where({{a}} < {LEAST_EXPONENT}, 0.0, tl.exp({{a}}))", "exponential({a})",
        ),
        Function("reciprocal", lambda x: 1 / x, ((-_ONE, _SQUARE),), None, "1 / {a}", "1 / {a}", "1 / {a}"),
        Function("sqrt", math.sqrt, ((_HALF, ("reciprocal value",)),), None, "torch.sqrt({a})", "tl.sqrt({a})"),
        Function("sin", math.sin, ((_ONE, ("cos argument",)),), Fraction(0), "torch.sin({a})", "tl.sin({a})"),
        Function("cos", math.cos, ((-_ONE, ("sin argument",)),), _ONE, "torch.cos({a})", "tl.cos({a})"),
        Function(
            "tanh", math.tanh, ((_ONE, ()), (-_ONE, _SQUARE)), Fraction(0),
            "torch.tanh({a})", "2 * tl.sigmoid(2 * {a}) - 1",
        ),
        Function(
            "sigmoid", lambda x: 0.5 * (1 + math.tanh(x / 2)), ((_ONE, ("value",)), (-_ONE, _SQUARE)), _HALF,
            "torch.sigmoid({a})", "tl.sigmoid({a})", "lanes_of_sigmoid({a})",
        ),
        Function(
            "softplus", _softplus, ((_ONE, ("sigmoid argument",)),), None,
            "torch.nn.functional.softplus({a})", "tl.maximum({a}, 0) + tl.log(1 + tl.exp(-tl.abs({a})))",
            "lanes_of_softplus({a})",
        ),
        # One where the argument is not negative, else zero: what lies inside a cutoff. Its derivative is zero.
        Function(
            "inside", lambda x: float(x >= 0), (), _ONE,
            "({a} >= 0).to({a}.dtype)", "tl.where({a} >= 0, 1.0, 0.0)", "inside({a})",
        ),
    )
}  # fmt: skip
