"""Functions of one variable in C, on vectors: the exponential by its series, others lane by lane by the C library."""

from __future__ import annotations

from collections.abc import Sequence

from tensorgraph.scalar.functions import FUNCTIONS, LEAST_EXPONENT

EXPONENTIAL = f"""\
/* Of numbers that are not positive: 2^n e^r, |r| at most ln 2 / 2, e^r by its series. Zero below {LEAST_EXPONENT}. */
typedef __typeof__((vector){{0}} == (vector){{0}}) integers;
#define CHOSEN(single_precision, double_precision) ((real)(sizeof(real) == 4 ? single_precision : double_precision))
#define DEGREE (sizeof(real) == 4 ? 7 : 13)

static inline __attribute__((always_inline)) vector exponential(vector x)
{{
    static const double inverse_factorials[] = {{
        1., 1., 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320, 1. / 362880, 1. / 3628800,
        1. / 39916800, 1. / 479001600, 1. / 6227020800,
    }};
    /* A number this large has no digits after the point, and the last ones of its integer are the last of its bits. */
    const real large = CHOSEN(0x1.8p23, 0x1.8p52);
    const vector shifted = x * (real)1.4426950408889634 + large, n = shifted - large;
    /* ln 2 in two parts, the first of so few digits that n times it is exact. */
    const vector r = x - n * CHOSEN(0x1.62e4p-1, 0x1.62e42feep-1) - n * CHOSEN(0x1.7f7d1cp-20, 0x1.a39ef35793c76p-33);
    vector series = (vector){{0}} + (real)inverse_factorials[DEGREE];
#pragma GCC unroll 16
    for (int k = DEGREE - 1; k >= 0; k--)
        series = series * r + (real)inverse_factorials[k];
    /* 2^n by its bits; multiplied, so that what is no number stays none. */
    const integers power = (integers)((vector){{0}} + (real)1) + ((integers)shifted << (sizeof(real) == 4 ? 23 : 52));
    return (vector)((integers)(series * (vector)power) & ~(x < (real){LEAST_EXPONENT}));
}}"""

INSIDE = """\
/* One where the argument is not negative, else zero. */
static inline __attribute__((always_inline)) vector inside(vector x)
{
    const vector one = (vector){0} + (real)1;
    return (vector)((__typeof__(x >= x))one & (x >= (vector){0}));
}"""

LANES_OF = """\
/* Lane by lane, in the precision of the program. */
static inline vector lanes_of_{name}(vector x)
{{
    vector y;
    for (int k = 0; k < (int)LANES; k++)
        y[k] = sizeof(real) == 4 ? (real){single} : (real){double};
    return y;
}}"""

EXPRESSIONS = {
    "sigmoid": "1 / (1 + exp{f}(-x[k]))",
    "softplus": "fmax{f}(x[k], 0) + log1p{f}(exp{f}(-fabs{f}(x[k])))",
}
"""Of what the C library has no function for; ``{f}`` is the suffix of single precision."""


def definitions(functions: Sequence[str]) -> list[str]:
    """The definitions that programs with these functions need, and the header of the C library's ones."""
    pieces = [EXPONENTIAL] if "exp" in functions else []
    if "inside" in functions:
        pieces.append(INSIDE)
    by_lane = [name for name in functions if "lanes_of" in (FUNCTIONS[name].c or f"lanes_of_{name}")]
    if by_lane:
        pieces.append("#include <math.h>")
    return pieces + [_by_lane(name) for name in by_lane]


def _by_lane(name: str) -> str:
    text = EXPRESSIONS.get(name, name + "{f}(x[k])")
    return LANES_OF.format(name=name, single=text.format(f="f"), double=text.format(f=""))
