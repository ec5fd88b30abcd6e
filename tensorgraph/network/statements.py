"""A network as data: layers made of few kinds of statements, each a frozen value that prints as its equation.

Scope: ``Contract`` (sums of products, gathers and sums over pairs included), ``Pointwise`` (a scalar program for every
row and column), ``Normalise`` (over the last axis), ``Part`` (of the elements of an array), and ``Call`` (of a layer
with weights of its own). A statement makes each of its results once, from what is there. Not in scope: loops, branches,
anything that depends on values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from tensorgraph.network.arrays import PAIR, RUNNING, Array, Factor, Space, Term
from tensorgraph.network.weights import Fixed, Parameter
from tensorgraph.scalar import ArrayRef, Axes, Derivatives, ScalarProgram, Table, evaluate, evaluate_table


@dataclass(frozen=True)
class Contract:
    """``result = Σ terms``: of each term the sum over the letters that the result lacks.

    A letter of the result that a term lacks is one along which the term is the same. Where a pair is summed over, what
    has the letter ``i`` is what belongs to its central atom, and ``j`` to its neighbour, in the result too.
    """

    result: Factor
    terms: tuple[Term, ...]

    @property
    def results(self) -> tuple[Array, ...]:
        """The array that it makes."""
        return (self.result.array,)

    @property
    def sources(self) -> tuple[Array, ...]:
        """The arrays that it reads."""
        return tuple(factor.array for term in self.terms for factor in term.factors)

    def verify(self) -> None:
        """Raises ValueError for letters that do not fit."""
        for term in self.terms:
            sizes: dict[str, Space] = {}
            for factor in (self.result, *term.factors):
                for letter, space in zip(factor.letters, factor.array.spaces, strict=True):
                    if sizes.setdefault(letter, space).size != space.size:
                        raise ValueError(f"{letter} counts {sizes[letter]} and {space} in {self}")
            if "j" in sizes and "p" not in sizes:
                raise ValueError(f"a neighbour without a pair in {self}")

    def __str__(self) -> str:
        return f"{self.result} = " + " + ".join(map(self._text, self.terms))

    def _text(self, term: Term) -> str:
        over_pairs = "p" in (*term.letters, *self.result.letters)
        free = self.result.letters + ("ij" if over_pairs else "")
        summed = ",".join(letter for letter in term.letters if letter not in free)
        return (f"Σ_{summed} " if summed else "") + str(term)


@dataclass(frozen=True)
class Program:
    """A scalar program by its name, with its derivatives; ``order`` 0 is the value, 1 its vector-Jacobian product."""

    name: str
    derivatives: Derivatives[ScalarProgram | Table] = field(repr=False)
    order: int = 0

    @property
    def program(self) -> ScalarProgram | Table:
        """What is run."""
        return self.derivatives[self.order]

    @property
    def inputs(self) -> tuple[ArrayRef, ...]:
        """What it reads."""
        return self.program.inputs

    @property
    def outputs(self) -> tuple[ArrayRef, ...]:
        """What it makes."""
        return self.program.results

    def run(self, arrays: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Its meaning, element by element."""
        program = self.program
        return evaluate_table(program, arrays) if isinstance(program, Table) else evaluate(program, arrays)

    def __str__(self) -> str:
        return self.name + "'" * self.order


@dataclass(frozen=True)
class Pointwise:
    """A scalar program for every row and column; without ``columns`` there is one.

    The axes between those of rows and columns count the elements of an array of the program; none count one.
    """

    program: Program
    results: tuple[Array, ...]
    sources: tuple[Array, ...]
    rows: Space
    columns: Space | None = None

    def verify(self) -> None:
        """Raises ValueError where an array has other axes than the program."""
        program = self.program
        for refs, arrays in ((program.inputs, self.sources), (program.outputs, self.results)):
            if len(refs) != len(arrays):
                raise ValueError(f"{program} has {len(refs)} arrays, not {len(arrays)}, in {self}")
            for ref, array in zip(refs, arrays, strict=True):
                if self.axes_of(ref, array) is None:
                    raise ValueError(f"{array} is no {ref.name} of {ref.size} in {self}")

    def axes_of(self, ref: ArrayRef, array: Array) -> tuple[Space, ...] | None:
        """The axes of an array where they are those of the program's, else None."""
        rows = () if ref.axes is Axes.COLUMNS else (self.rows,)
        columns = () if ref.axes is Axes.ROWS or self.columns is None else (self.columns,)
        inner = array.spaces[len(rows) : len(array.spaces) - len(columns)]
        fits = prod(space.extent for space in inner) == ref.size
        return array.spaces if fits and array.spaces == (*rows, *inner, *columns) else None

    def __str__(self) -> str:
        made, read = (", ".join(a.symbol or a.name for a in arrays) for arrays in (self.results, self.sources))
        return f"{made} = {self.program}({read}) for each {', '.join(s.name for s in (self.rows, self.columns) if s)}"


@dataclass(frozen=True)
class Normalise:
    """``result = (source - mean) / sqrt(variance + eps) * weight + bias``, mean and variance over the last axis."""

    result: Array
    source: Array
    weight: Array
    bias: Array
    eps: float = 1e-5

    @property
    def results(self) -> tuple[Array, ...]:
        """The array that it makes."""
        return (self.result,)

    @property
    def sources(self) -> tuple[Array, ...]:
        """The arrays that it reads."""
        return (self.source, self.weight, self.bias)

    def verify(self) -> None:
        """Raises ValueError for axes that do not fit."""
        if self.result.spaces != self.source.spaces or self.weight.spaces != self.bias.spaces != self.source.spaces[1:]:
            raise ValueError(f"the arrays of {self} have other axes")

    def __str__(self) -> str:
        over, names = self.source.spaces[-1].name, [array.symbol or array.name for array in self.sources]
        return f"{self.result.symbol or self.result.name} = normalised({names[0]} over {over}) {names[1]} + {names[2]}"


@dataclass(frozen=True)
class Part:
    """Some of the elements of the second axis of an array, from ``start`` on, in one axis or several."""

    result: Array
    source: Array
    start: int

    @property
    def results(self) -> tuple[Array, ...]:
        """The array that it makes."""
        return (self.result,)

    @property
    def sources(self) -> tuple[Array, ...]:
        """The array that it reads."""
        return (self.source,)

    @property
    def size(self) -> int:
        """How many elements are taken."""
        return prod(space.extent for space in self.inner)

    @property
    def inner(self) -> tuple[Space, ...]:
        """The axes that count the elements in the result."""
        return self.result.spaces[1 : len(self.result.spaces) - len(self.source.spaces) + 2]

    def verify(self) -> None:
        """Raises ValueError where there are no such elements."""
        whole, own = self.source.spaces, self.result.spaces
        if own != (whole[0], *self.inner, *whole[2:]) or self.start + self.size > whole[1].extent:
            raise ValueError(f"{self.source} has no such part, in {self}")

    def __str__(self) -> str:
        return f"{self.result.name} = {self.source.name}[:, {self.start}:{self.start + self.size}]"


@dataclass(frozen=True)
class Place:
    """The adjoint of a ``Part``: an array that is zero but for the part."""

    of: Part
    result: Array
    source: Array

    @property
    def results(self) -> tuple[Array, ...]:
        """The array that it makes."""
        return (self.result,)

    @property
    def sources(self) -> tuple[Array, ...]:
        """The array that it reads."""
        return (self.source,)

    def verify(self) -> None:
        """Raises ValueError where the axes are not those of the part."""
        if (self.result.spaces, self.source.spaces) != (self.of.source.spaces, self.of.result.spaces):
            raise ValueError(f"the arrays of {self} have other axes")

    def __str__(self) -> str:
        return (
            f"{self.result.name} = 0 but for [:, {self.of.start}:{self.of.start + self.of.size}] = {self.source.name}"
        )


@dataclass(frozen=True)
class NormaliseAdjoint:
    """The vector-Jacobian product of a ``Normalise``: the cotangents of its sources from that of its result."""

    of: Normalise
    cotangent: Array
    results: tuple[Array, ...]

    @property
    def sources(self) -> tuple[Array, ...]:
        """The arrays that it reads."""
        return (self.of.source, self.of.weight, self.cotangent)

    def verify(self) -> None:
        """Raises ValueError for axes that do not fit."""
        if [array.spaces for array in self.results] != [array.spaces for array in self.of.sources]:
            raise ValueError(f"the arrays of {self} have other axes")

    def __str__(self) -> str:
        return f"{', '.join(array.name for array in self.results)} = cotangents of ({self.of}) by {self.cotangent.name}"


@dataclass(frozen=True)
class Child:
    """A layer inside another, and where: its weights have the path before their names."""

    path: str
    layer: Layer


@dataclass(frozen=True)
class Call:
    """Runs a child of the layer."""

    child: Child
    results: tuple[Array, ...]
    sources: tuple[Array, ...]

    def verify(self) -> None:
        """Raises ValueError for other arrays than the layer takes and gives."""
        layer = self.child.layer
        for given, wanted in ((self.sources, layer.inputs), (self.results, layer.outputs)):
            if [array.spaces for array in given] != [array.spaces for array in wanted]:
                raise ValueError(f"{self} gives {layer.name} other arrays than {', '.join(map(str, wanted))}")

    def __str__(self) -> str:
        made, read = (", ".join(array.name for array in arrays) for arrays in (self.results, self.sources))
        return f"{made} = {self.child.path}({read})"


Statement = Contract | Pointwise | Normalise | NormaliseAdjoint | Part | Place | Call
Member = Parameter | Fixed | Child


@dataclass(frozen=True)
class Layer:
    """Statements with weights: from inputs to outputs; ``members`` stand in the order in which weights are drawn.

    ``title`` says what it computes, as an equation with its source; ``stages`` are arrays that printed forms also give
    by themselves, from the layer's inputs, each with a name for that; what is made of one is made of the next.
    """

    name: str
    title: str
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    members: tuple[Member, ...]
    body: tuple[Statement, ...]
    stages: tuple[tuple[str, Array], ...] = ()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its own, not those of its children."""
        return tuple(member for member in self.members if isinstance(member, Parameter))

    @property
    def fixed(self) -> tuple[Fixed, ...]:
        """Its numbers that are not trained."""
        return tuple(member for member in self.members if isinstance(member, Fixed))

    @property
    def children(self) -> tuple[Child, ...]:
        """The layers that it calls."""
        return tuple(member for member in self.members if isinstance(member, Child))

    def weights(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters by their full names, in the order in which they are drawn."""
        for member in self.members:
            if isinstance(member, Parameter):
                yield member.name, member
            elif isinstance(member, Child):
                yield from ((f"{member.path}.{name}", parameter) for name, parameter in member.layer.weights())

    def layers(self) -> Iterator[Layer]:
        """The layers inside, each once, before those that call them, and this one last."""
        seen: dict[Layer, None] = {}
        for child in self.children:
            seen.update(dict.fromkeys(child.layer.layers()))
        yield from seen
        yield self

    def verify(self) -> None:
        """Checks that arrays are made once and before their use, that axes fit, and that every child is called once.

        Raises:
            ValueError: the first statement that is wrong.
        """
        there = [*self.inputs, *(m.array for m in self.parameters), *(m.array for m in self.fixed)]
        for statement in self.body:
            statement.verify()
            for source in statement.sources:
                if source not in there:
                    raise ValueError(f"{self.name} reads {source}, which is not there, in {statement}")
            for result in statement.results:
                if result.name in {array.name for array in there}:
                    raise ValueError(f"{self.name} makes {result.name} twice, in {statement}")
                there.append(result)
        if missing := [output.name for output in self.outputs if output not in there]:
            raise ValueError(f"{self.name} does not make {', '.join(missing)}")
        called = [statement.child for statement in self.body if isinstance(statement, Call)]
        if sorted(child.path for child in called) != sorted(child.path for child in self.children):
            raise ValueError(f"{self.name} does not call each of its layers once")
        for child in self.children:
            child.layer.verify()

    def __str__(self) -> str:
        lines = [f"{self.name}({', '.join(map(str, self.inputs))}): {self.title}"]
        lines += [f"    {parameter.array}  begins as {parameter.initial}" for parameter in self.parameters]
        lines += [f"    {fixed.array}  is fixed" for fixed in self.fixed]
        lines += [f"    {statement}" for statement in self.body]
        return "\n".join([*lines, f"    return {', '.join(array.name for array in self.outputs)}"])


def knows_pairs(layer: Layer) -> bool:
    """Whether a layer does anything with pairs of atoms."""
    arrays = (a for inner in layer.layers() for s in inner.body for a in (*s.sources, *s.results))
    return any(PAIR in array.spaces for array in arrays)


def reads_neighbours(layer: Layer) -> bool:
    """Whether an array of atoms is read through the neighbour of a pair: a parallel run must exchange ghosts for it."""
    return any(
        "j" in factor.letters
        for inner in layer.layers()
        for statement in inner.body
        if isinstance(statement, Contract)
        for term in statement.terms
        for factor in term.factors
    )


__all__ = [
    "RUNNING",
    "Call",
    "Child",
    "Contract",
    "Fixed",
    "Layer",
    "Normalise",
    "NormaliseAdjoint",
    "Parameter",
    "Part",
    "Place",
    "Pointwise",
    "Program",
    "Statement",
    "knows_pairs",
    "reads_neighbours",
]  # fmt: skip
