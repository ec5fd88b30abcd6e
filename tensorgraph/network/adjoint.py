"""Reverse mode on networks: from a layer to the layer that also gives the cotangents of its inputs and weights.

Because every statement's adjoint is made of statements, derivatives are networks of the same kind (Griewank and
Walther, Evaluating Derivatives, 2008, ch. 3). The adjoint of a read through a neighbour is a sum over the pairs of that
neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tensorgraph.network.arrays import Array, Factor, Term
from tensorgraph.network.statements import (
    Call,
    Child,
    Contract,
    Layer,
    Member,
    Normalise,
    NormaliseAdjoint,
    Parameter,
    Part,
    Place,
    Pointwise,
    Statement,
)


def adjoint(layer: Layer) -> Layer:
    """The layer with the cotangents of its outputs as further inputs, and those of inputs and weights as outputs.

    Inputs: those of the layer, then a cotangent of each output. Outputs: a cotangent of each input, then of each weight
    in the order of ``Layer.weights``. Weights keep their names.
    """
    reverse = _Reverse(layer)
    cotangents = [reverse.given(output) for output in layer.outputs]
    for statement in reversed(layer.body):
        reverse.add(statement)
    outputs = [reverse.total(array) for array in layer.inputs] + reverse.of_weights()
    result = Layer(
        f"{layer.name}Adjoint",
        f"cotangents of {layer.name}",
        (*layer.inputs, *cotangents),
        tuple(outputs),
        reverse.members(),
        (*reverse.forward(), *reverse.body),
    )
    result.verify()
    return result


def cotangent_of(array: Array) -> Array:
    """The array that holds the cotangent of another."""
    return replace(array, name=f"grad_{array.name}")


@dataclass(eq=False)
class _Reverse:
    """The reverse pass of one layer: terms wait until the statement that made their array is met."""

    layer: Layer
    body: list[Statement] = field(default_factory=list)
    parts: dict[Array, list[Array]] = field(default_factory=dict)
    inner: dict[str, tuple[Array, ...]] = field(default_factory=dict)

    def given(self, array: Array) -> Array:
        """A cotangent that comes from outside."""
        cotangent = replace(array, name=f"given_{array.name}")
        self.parts.setdefault(array, []).append(cotangent)
        return cotangent

    def part(self, array: Array) -> Array:
        """A new contribution to the cotangent of an array."""
        parts = self.parts.setdefault(array, [])
        parts.append(replace(array, name=f"part_{len(parts)}_{array.name}"))
        return parts[-1]

    def total(self, array: Array) -> Array:
        """The cotangent of an array: the sum of what its readers gave; zero where none read it."""
        cotangent = cotangent_of(array)
        letters = _letters(array)
        terms = [Term((part[letters],)) for part in self.parts.pop(array, [])]
        self.body.append(Contract(cotangent[letters], tuple(terms)))
        return cotangent

    def add(self, statement: Statement) -> None:
        """The adjoint of one statement."""
        match statement:
            case Contract():
                self.contract(statement, self.total(statement.result.array))
            case Pointwise():
                program = replace(statement.program, order=statement.program.order + 1)
                cotangents = tuple(self.total(array) for array in statement.results)
                parts = tuple(self.part(array) for array in statement.sources)
                given = (*statement.sources, *cotangents)
                self.body.append(Pointwise(program, parts, given, statement.rows, statement.columns))
            case Normalise():
                cotangent = self.total(statement.result)
                parts = tuple(self.part(array) for array in statement.sources)
                self.body.append(NormaliseAdjoint(statement, cotangent, parts))
            case Part():
                cotangent = self.total(statement.result)
                self.body.append(Place(statement, self.part(statement.source), cotangent))
            case Place():
                self.body.append(
                    replace(statement.of, result=self.part(statement.source), source=self.total(statement.result))
                )
            case Call():
                self.call(statement)
            case _:
                raise TypeError(f"{type(statement).__name__} has no adjoint: it is one")

    def contract(self, statement: Contract, cotangent: Array) -> None:
        outer = cotangent[statement.result.letters]
        for term in statement.terms:
            for k, factor in enumerate(term.factors):
                others = (*term.factors[:k], *term.factors[k + 1 :])
                product = Term((outer, *others), term.coefficient)
                self.body.append(Contract(self.part(factor.array)[factor.letters], (product,)))

    def call(self, statement: Call) -> None:
        child = Child(statement.child.path, adjoint(statement.child.layer))
        given = (*statement.sources, *(self.total(array) for array in statement.results))
        parts = tuple(self.part(array) for array in statement.sources)
        own = tuple(
            Array(f"grad_{child.path}.{name}", parameter.array.spaces)
            for name, parameter in statement.child.layer.weights()
        )
        self.inner[child.path] = own
        self.body.append(Call(child, (*parts, *own), given))

    def members(self) -> tuple[Member, ...]:
        """The members of the layer, and behind them the adjoints of the children, at the same paths."""
        adjoints = [s.child for s in self.body if isinstance(s, Call)]
        return (*self.layer.members, *adjoints)

    def forward(self) -> tuple[Statement, ...]:
        """What the reverse pass reads of the layer's own arrays."""
        return self.layer.body

    def of_weights(self) -> list[Array]:
        """The cotangents of all weights, in the order of ``Layer.weights``."""
        found: list[Array] = []
        for member in self.layer.members:
            match member:
                case Parameter(array=array):
                    found.append(self.total(array))
                case Child(path=path):
                    found += self.inner[path]
        return found


def _letters(array: Array) -> str:
    """A letter for each axis."""
    running = {"pair": "p", "atom": "i", "structure": "s"}
    free = iter("abcdefgh")
    return "".join(running[space.name] if space.size is None else next(free) for space in array.spaces)


__all__ = ["Factor", "adjoint", "cotangent_of"]
