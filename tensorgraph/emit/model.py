"""Networks as PyTorch modules: a class for each layer, a line for each statement, above it its equation.

What a statement is printed as is decided by its shape: loops over pairs by the micro-kernels that sum what it sums,
products of matrices as such, everything else as an einsum over gathered rows. Derivatives come from the operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Any

from tensorgraph.emit.expressions import Expressions, python_path
from tensorgraph.emit.members import members_of
from tensorgraph.emit.printing import wrapped
from tensorgraph.network import (
    Array,
    Call,
    Contract,
    Layer,
    Normalise,
    Part,
    Place,
    Pointwise,
    Statement,
    knows_pairs,
)
from tensorgraph.scalar import ArrayRef, Axes

GEOMETRY = {"unit_vectors": "pairs.unit_vectors", "radial": "pairs.radial", "distance": "pairs.distance"}
"""What the runtime computes of all pairs, by the names of the programs that say what it is."""

OF_DISTANCES = ("radial_functions", "hypersphere", "repulsion")
"""Programs that are not defined everywhere near zero."""

DISPLACEMENTS = "displacements"
"""What the programs of all pairs are computed of, the name of an input of the potential; the runtime has it too."""

TORCH = {"softplus": "softplus({0})", "silu": "silu({0})", "tanh": "torch.tanh({0})", "sigmoid": "torch.sigmoid({0})"}
"""Programs for which PyTorch has a function."""


def own_programs(layer: Layer) -> dict[str, Pointwise]:
    """The statements whose scalar programs are printed in files of their own, one for each program, by its name."""
    found: dict[str, Pointwise] = {}
    for inner in layer.layers():
        for statement in inner.body:
            if isinstance(statement, Pointwise) and str(statement.program) not in (*GEOMETRY, *TORCH):
                found.setdefault(str(statement.program), statement)
    return found


def definitions(layer: Layer) -> list[str]:
    """The operators of printed programs that have no module of their own, as lines of a module."""
    lines = []
    for name, statement in own_programs(layer).items():
        refs = (*statement.program.inputs, *statement.program.outputs)
        if name == "sensitivities":
            lines.append("sensitivities = Sensitivities(__package__)")
        elif name in ("tensors", "invariants"):
            continue
        elif all(ref.axes is Axes.BOTH for ref in refs):
            sizes = ", ".join(str(ref.size) for ref in refs)
            domain = ", positive=True" if name in OF_DISTANCES else ""
            lines.append(f'{name} = Programs(__package__, "{name}", {sizes}{domain}).forward')
        else:
            *inputs, output = map(_operand, refs)
            lines += wrapped(f'{name} = Pointwise(__package__, "{name}", (', inputs, f"), {output})")
    return lines


def _operand(ref: ArrayRef) -> str:
    rows, columns = ref.axes is not Axes.COLUMNS, ref.axes is not Axes.ROWS
    return f"Operand({ref.size}, rows={rows}, columns={columns})"


def print_model(layer: Layer, attributes: Mapping[str, Any]) -> str:
    """A class for every layer of a network, each before those that use it, and last the potential.

    Args:
        layer: the network, whose contractions are those that shall be done.
        attributes: class attributes of the potential, by name; written by ``repr``.
    """
    classes = [_Class(inner).text() for inner in layer.layers() if inner != layer]
    return "\n\n\n".join([*classes, _Potential(layer, attributes).text()]) + "\n"


@dataclass(frozen=True, eq=False)
class _Class:
    layer: Layer

    @property
    def expressions(self) -> Expressions:
        """How arrays and contractions are written in this class."""
        return Expressions(self.layer)

    def text(self) -> str:
        """The class."""
        lines = [f"class {self.layer.name}(torch.nn.Module):", *_docstring(self.layer.title)]
        lines += ["", "    def __init__(self, random: torch.Generator) -> None:", "        super().__init__()"]
        lines += [f"        {line}" for line in members_of(self.layer)]
        return "\n".join([*lines, *self.methods()])

    def methods(self) -> Iterator[str]:
        """The stages that have a method of their own, each read by the next alone, and what is done with the last."""
        done: list[Statement] = []
        calls: list[str] = []
        for name, array in self.layer.stages:
            needed = _needed(self.layer, [array], done)
            yield from self.method(name, needed, (array,), calls)
            done += needed
            calls = [f"{array.name} = self.{name}({self.arguments()})"]
        rest = [statement for statement in self.layer.body if statement not in done]
        yield from self.method("forward", rest, self.layer.outputs, calls)

    def arguments(self, typed: bool = False) -> str:
        """What methods take."""
        names = [array.name + (": Tensor" if typed else "") for array in self.layer.inputs]
        pairs = ["pairs: Geometry" if typed else "pairs"] if knows_pairs(self.layer) else []
        return ", ".join(names + pairs)

    def method(
        self, name: str, body: Sequence[Statement], outputs: Sequence[Array], calls: Sequence[str] = ()
    ) -> Iterator[str]:
        """A method with the statements, each below its equation."""
        gives = "Tensor" if len(outputs) == 1 else f"tuple[{', '.join(['Tensor'] * len(outputs))}]"
        yield ""
        yield from wrapped(f"    def {name}(self, ", self.arguments(typed=True).split(", "), f") -> {gives}:")
        yield f'        """{", ".join(map(_shape, self.layer.inputs))} -> {", ".join(map(_shape, outputs))}."""'
        yield from (f"        {call}" for call in calls)
        yield from self.statements(body)
        yield f"        return {', '.join(array.name for array in outputs)}"

    def statements(self, body: Sequence[Statement]) -> Iterator[str]:
        """Statements below their equations; calls of layers say themselves what they do."""
        for statement in body:
            if not isinstance(statement, Call):
                yield f"        # {statement}"
            yield from (f"        {line}" for line in self.line(statement))

    @singledispatchmethod
    def line(self, statement: Any) -> list[str]:
        """What a statement is printed as."""
        raise TypeError(f"{type(statement).__name__} is not printed in PyTorch")

    @line.register
    def _(self, statement: Call) -> list[str]:
        made = ", ".join(array.name for array in statement.results)
        given = [array.name for array in statement.sources] + ["pairs"] * knows_pairs(statement.child.layer)
        return wrapped(f"{made} = self.{python_path(statement.child.path)}(", given, ")")

    @line.register
    def _(self, statement: Pointwise) -> list[str]:
        return [f"{statement.results[0].name} = {self.called(statement)}"]

    def called(self, statement: Pointwise) -> str:
        """A scalar program, run: over rows and columns, or over rows alone, which are those of one column then."""
        name, sources = str(statement.program), list(map(self.expressions.name, statement.sources))
        if name not in GEOMETRY:
            sources = [f"pairs.{source}" if source == DISPLACEMENTS else source for source in sources]
        if builtin := {**GEOMETRY, **TORCH}.get(name):
            return builtin.format(*sources)
        if name in ("tensors", "sensitivities"):
            return f"{'tensor_components' if name == 'tensors' else name}({', '.join(sources)})"
        if statement.columns is None:
            flat = [
                f"{x}.flatten(1)" if len(a.spaces) > 2 else x for x, a in zip(sources, statement.sources, strict=True)
            ]
            return f"{name}({', '.join(f'{x}.unsqueeze(2)' for x in flat)}).squeeze(2)"
        return f"{name}({', '.join(sources)})"

    @line.register
    def _(self, statement: Normalise) -> list[str]:
        names = ", ".join(map(self.expressions.name, statement.sources))
        return [f"{statement.result.name} = normalised({names})"]

    @line.register
    def _(self, statement: Part) -> list[str]:
        taken = f"{statement.source.name}[:, {statement.start} : {statement.start + statement.size}]"
        inner = [str(space.extent) for space in statement.inner]
        shaped = "" if len(inner) == 1 else f".unflatten(1, ({', '.join(inner)}))" if inner else ".squeeze(1)"
        return [f"{statement.result.name} = {taken}{shaped}"]

    @line.register
    def _(self, statement: Place) -> list[str]:
        part, rest = statement.of, len(statement.result.spaces) - 2
        name, inner = statement.source.name, len(part.inner)
        flat = f"{name}.unsqueeze(1)" if not inner else name if inner == 1 else f"{name}.flatten(1, {inner})"
        behind = statement.result.spaces[1].extent - part.start - part.size
        return [f"{statement.result.name} = pad({flat}, ({'0, 0, ' * rest}{part.start}, {behind}))"]

    @line.register
    def _(self, statement: Contract) -> list[str]:
        return [f"{statement.result.array.name} = {self.expressions.contraction(statement)}"]


class _Potential(_Class):
    """The outermost layer: its inputs are the species and what the geometry knows of the pairs."""

    def __init__(self, layer: Layer, attributes: Mapping[str, Any]) -> None:
        super().__init__(layer)
        object.__setattr__(self, "attributes", attributes)

    attributes: Mapping[str, Any]

    def text(self) -> str:
        """The class."""
        lines = [f"class {self.layer.name}(Potential):", *_docstring(self.layer.title, POTENTIAL), ""]
        for name, value in self.attributes.items():
            lines.append(f"    {name} = {value}")
        lines += ["", "    def __init__(self, seed: int = 0) -> None:", "        super().__init__()"]
        lines += ["        random = torch.Generator().manual_seed(seed)"]
        lines += [f"        {line}" for line in members_of(self.layer)]
        species, terms = self.layer.inputs[0], ", ".join(array.name for array in self.layer.outputs)
        lines += ["", f"    def energy_terms(self, {species.name}: Tensor, pairs: Geometry) -> Tensor:"]
        lines += [
            f'        """{_shape(species)}, one for its species -> [{len(self.layer.outputs)}, n_atoms] in eV."""'
        ]
        lines += [*self.statements(self.layer.body), f"        return torch.stack([{terms}])"]
        return "\n".join(lines)


POTENTIAL = """\
`Model(seed=0)` has reproducible random weights and leaves torch's global random state alone. `Potential` says what its
    methods take and give. Units: Å and eV."""


def _needed(layer: Layer, wanted: Sequence[Array], done: Sequence[Statement]) -> list[Statement]:
    """The statements that make some arrays, without those that are done, in their order."""
    arrays, needed = set(wanted), []
    for statement in reversed(layer.body):
        if statement not in done and arrays.intersection(statement.results):
            arrays.update(statement.sources)
            needed.append(statement)
    return needed[::-1]


def _docstring(title: str, more: str = "") -> list[str]:
    if not more:
        return [f'    """{title}."""']
    return [f'    """{title}.', "", *f"    {more}".splitlines(), '    """']


def _shape(array: Array) -> str:
    """Axes by their names, those of atoms and pairs as numbers of them."""
    return (
        "[" + ", ".join(f"n_{space.name}s" if space.size is None else str(space.size) for space in array.spaces) + "]"
    )
