"""Networks as PyTorch modules: a class for each layer, a line for each statement, above it its equation.

What a statement is printed as is decided by its shape: loops over pairs by the micro-kernels that sum what it sums,
products of matrices as such, everything else as an einsum over gathered rows. Derivatives come from the operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatchmethod
from itertools import groupby
from math import prod
from typing import Any

from tensorgraph.emit.printing import wrapped
from tensorgraph.network import (
    Array,
    Call,
    Contract,
    Factor,
    Layer,
    Normalise,
    Parameter,
    Part,
    Place,
    Pointwise,
    Statement,
    Term,
    knows_pairs,
)
from tensorgraph.network.arrays import RUNNING
from tensorgraph.network.weights import Constant, Equidistant, Normal, Uniform
from tensorgraph.scalar import ArrayRef, Axes

SPECIES = "species"
"""The name of the index space of one-hot features: the sums over neighbours of each species are moments."""


GEOMETRY = {"unit_vectors": "pairs.unit_vectors", "radial": "pairs.radial", "distance": "pairs.distance"}
"""What the runtime computes of all pairs, by the names of the programs that say what it is."""

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
            domain = ", positive=True" if name == "radial_functions" else ""
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

    def text(self) -> str:
        """The class."""
        lines = [f"class {self.layer.name}(torch.nn.Module):", *_docstring(self.layer.title)]
        lines += ["", "    def __init__(self, random: torch.Generator) -> None:", "        super().__init__()"]
        lines += [f"        {line}" for line in self.members()]
        return "\n".join([*lines, *self.methods()])

    def members(self) -> Iterator[str]:
        """Weights and layers inside, in the order in which they are drawn."""
        for attribute, group in groupby(self.layer.members, key=_attribute):
            members = list(group)
            if all(isinstance(member, Parameter) for member in members):
                yield from _parameters(attribute, [m for m in members if isinstance(m, Parameter)])
            else:
                yield from _children(attribute, [m for m in members if not isinstance(m, Parameter)])

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
        return wrapped(f"{made} = self.{_python(statement.child.path)}(", given, ")")

    @line.register
    def _(self, statement: Pointwise) -> list[str]:
        return [f"{statement.results[0].name} = {self.called(statement)}"]

    def called(self, statement: Pointwise) -> str:
        """A scalar program, run: over rows and columns, or over rows alone, which are those of one column then."""
        name, sources = str(statement.program), list(map(self.name, statement.sources))
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
        names = ", ".join(map(self.name, statement.sources))
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
        return [f"{statement.result.array.name} = {self.contraction(statement)}"]

    def name(self, array: Array) -> str:
        """How an array is written: weights are attributes."""
        own = any(parameter.array == array for parameter in self.layer.parameters)
        return f"self.{_python(array.name)}" if own else array.name

    def contraction(self, statement: Contract) -> str:
        """The sum of the terms: linear layers as such, and one product of matrices fused with the rest."""
        terms, parts, product = list(statement.terms), [], None
        for linear in _linears(self.layer, terms):
            parts.append(self.linear(linear, statement.result))
        for term in terms:
            matrices = self.matrices(term, statement.result)
            if matrices and product is None:
                product = matrices
            else:
                parts.append(self.term(term, statement.result))
        if product is None:
            return " + ".join(parts)
        left, right, shape = product
        if parts and not shape:
            return f"torch.addmm({' + '.join(parts)}, {left}, {right})"
        return " + ".join([*parts, f"({left} @ {right}){shape}" if shape else f"{left} @ {right}"])

    def linear(self, parameters: Sequence[Factor], result: Factor) -> str:
        """A linear layer of a feature: the product of its weight, to which its bias is added."""
        weight, feature = parameters
        module = weight.array.name.removesuffix(".weight")
        text = f"self.{_python(module)}({self.name(feature.array)})"
        return text if len(result.letters) == len(feature.letters) else f"{text}.squeeze({len(feature.letters) - 1})"

    def matrices(self, term: Term, result: Factor) -> tuple[str, str, str] | None:
        """A term as a product of two matrices, and the shape that the product is brought to; None where it is none."""
        over_pairs = "p" in term.letters and ("p" not in result.letters or {"i", "j"} & set(term.letters))
        if len(term.factors) != 2 or term.coefficient != 1 or over_pairs or "j" in term.letters:
            return None
        for left, right in (term.factors, term.factors[::-1]):
            rows = [x for x in left.letters if x not in right.letters]
            summed = [x for x in left.letters if x in right.letters]
            columns = [x for x in result.letters if x not in rows]
            plain = not set(summed) & set(result.letters) and list(left.letters) == rows + summed
            if (
                plain
                and summed
                and set(right.letters) == {*summed, *columns}
                and list(result.letters) == rows + columns
            ):
                return (
                    self.flat(left, len(rows), len(summed)),
                    self.moved(right, summed, columns),
                    _shaped(result, rows, columns),
                )
        return None

    def flat(self, factor: Factor, rows: int, summed: int) -> str:
        return self.name(factor.array) + (f".flatten({rows})" if summed > 1 else "")

    def moved(self, factor: Factor, summed: Sequence[str], columns: Sequence[str]) -> str:
        """A factor as a matrix from what is summed to the columns."""
        order = [factor.letters.index(x) for x in (*summed, *columns)]
        text = self.name(factor.array)
        if order == [1, 0]:
            return f"{text}.t()"
        if order != list(range(len(order))):
            text += f".permute({', '.join(map(str, order))})"
        if len(summed) > 1:
            text += f".flatten(0, {len(summed) - 1})"
        return text + (".flatten(1)" if len(columns) > 1 else "")

    def term(self, term: Term, result: Factor) -> str:
        """One term, however it can be computed."""
        if len(term.factors) == 1 and term.factors[0].letters == result.letters and term.coefficient == 1:
            return self.name(term.factors[0].array)
        return self.summed(term) or self.over_pairs(term, result) or self.einsum(term, result)

    def summed(self, term: Term) -> str:
        """An array without one of its axes, which has a single element."""
        factor = term.factors[0]
        singles = [k for k, space in enumerate(factor.array.spaces) if space.size == 1]
        return (
            f"{self.name(factor.array)}.squeeze({singles[0]})" if len(term.factors) == 1 and len(singles) == 1 else ""
        )

    def over_pairs(self, term: Term, result: Factor) -> str:
        """A sum over pairs that a micro-kernel takes; empty where none does."""
        by_letters = {"".join(x for x in factor.letters if x in RUNNING): factor for factor in term.factors}
        of_pairs = [factor for factor in term.factors if factor.letters[0] == "p" and len(factor.letters) == 2]
        if term.coefficient != 1 or len(term.factors) != 3 or len(of_pairs) != 2 or "j" not in by_letters:
            return ""
        (first, second), neighbour = of_pairs, by_letters["j"]
        m, n = first.letters[1], second.letters[1]
        names = f"{self.name(first.array)}, {self.name(second.array)}"
        if (
            neighbour.letters[1:2] == n
            and result.letters == f"i{m}{neighbour.letters[2:]}"
            and len(neighbour.letters) == 3
        ):
            return f"environment({names}, {self.name(neighbour.array)}, pairs.index)"
        species = neighbour.array.spaces[-1]
        if species.name == SPECIES and result.letters == f"i{m}{neighbour.letters[1:]}{n}":
            return f"moments({names}, pairs.kinds, {species.extent}, pairs.index)"
        return ""

    def einsum(self, term: Term, result: Factor) -> str:
        """Over gathered rows, summed to their atoms where pairs are."""
        pairs = "p" in term.letters or "p" in result.letters
        names, letters = [], []
        for factor in term.factors:
            name = self.name(factor.array)
            if pairs and factor.letters[:1] == "j":
                name = f"pairs.of_neighbours({name})"
            elif pairs and factor.letters[:1] == "i":
                name = f"pairs.of_centres({name})"
            names.append(name)
            letters.append(factor.letters.replace("i", "p").replace("j", "p") if pairs else factor.letters)
        wanted = result.letters.replace("i", "p") if pairs else result.letters
        alone = len(letters) == 1 and letters[0] == wanted
        text = names[0] if alone else f'torch.einsum("{",".join(letters)}->{wanted}", {", ".join(names)})'
        if pairs and "p" not in result.letters:
            text = f"pairs.sum({text})"
        return text if term.coefficient == 1 else f"{float(term.coefficient)!r} * {text}"


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
        lines += [f"        {line}" for line in self.members()]
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


def _linears(layer: Layer, terms: list[Term]) -> Iterator[tuple[Factor, Factor]]:
    """Weight and feature of the linear layers among the terms, which lose those and their biases."""
    by_name = {parameter.name: parameter for parameter in layer.parameters}
    for term in list(terms):
        weight = term.factors[0].array.name
        if len(term.factors) != 2 or not weight.endswith(".weight") or weight not in by_name:
            continue
        bias = weight.removesuffix(".weight") + ".bias"
        terms.remove(term)
        terms[:] = [other for other in terms if [factor.array.name for factor in other.factors] != [bias]]
        yield term.factors[0], term.factors[1]


def _shaped(result: Factor, rows: Sequence[str], columns: Sequence[str]) -> str:
    """What brings a matrix of rows times columns to the axes of a result."""
    if len(columns) < 2:
        return ""
    sizes = [result.array.spaces[result.letters.index(x)].extent for x in columns]
    return f".unflatten({len(rows)}, ({', '.join(map(str, sizes))}))"


def _docstring(title: str, more: str = "") -> list[str]:
    if not more:
        return [f'    """{title}."""']
    return [f'    """{title}.', "", *f"    {more}".splitlines(), '    """']


def _shape(array: Array) -> str:
    """Axes by their names, those of atoms and pairs as numbers of them."""
    return (
        "[" + ", ".join(f"n_{space.name}s" if space.size is None else str(space.size) for space in array.spaces) + "]"
    )


def _attribute(member: Any) -> str:
    """The first part of a member's name: those that share it stand together."""
    return (member.name if isinstance(member, Parameter) else member.path).split(".")[0]


def _python(path: str) -> str:
    """A path as attributes and indices: ``blocks.0.layer`` is ``blocks[0].layer``."""
    first, *others = path.split(".")
    return first + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in others)


def _children(attribute: str, children: Sequence[Any]) -> Iterator[str]:
    classes = [f"{child.layer.name}(random)" for child in children]
    if "." in children[0].path:
        yield from wrapped(f"self.{attribute} = torch.nn.ModuleList([", classes, "])")
    else:
        yield f"self.{attribute} = {classes[0]}"


def _parameters(attribute: str, parameters: Sequence[Parameter]) -> Iterator[str]:
    """Weights alone, a linear layer, a list of such layers, or several weights together."""
    if parameters[0].name == attribute:
        (parameter,) = parameters
        yield f"# {parameter.array.symbol or attribute}, [{', '.join(space.name for space in parameter.array.spaces)}]"
        yield f"self.{attribute} = {_drawn(parameter)}"
        return
    layers = {name: list(group) for name, group in groupby(parameters, key=lambda p: p.name.rpartition(".")[0])}
    if all(
        own[0].name.endswith(".weight") and len(own[0].array.spaces) == 2 and _is_linear(own) for own in layers.values()
    ):
        texts = [_linear(own) for own in layers.values()]
        if "." in next(iter(layers)):
            yield from wrapped(f"self.{attribute} = torch.nn.ModuleList([", texts, "])")
        else:
            yield f"self.{attribute} = {texts[0]}"
        return
    given = (f"{parameter.name.rpartition('.')[2]}={_drawn(parameter)}" for parameter in parameters)
    yield from wrapped(f"self.{attribute} = Weights(", given, ")")


def _is_linear(parameters: Sequence[Parameter]) -> bool:
    weight = parameters[0]
    drawn = isinstance(weight.initial, Normal | Uniform)
    return drawn and weight.name.endswith(".weight") and len(weight.array.spaces) == 2


def _linear(parameters: Sequence[Parameter]) -> str:
    """A linear layer; weights of variance 2 / (n_in + n_out) are called by Xavier's name."""
    n_out, n_in = (space.extent for space in parameters[0].array.spaces)
    options = "" if len(parameters) == 2 else ", bias=False"
    options += ", xavier=True" if isinstance(parameters[0].initial, Normal) else ""
    return f"linear({n_in}, {n_out}, random{options})"


def _drawn(parameter: Parameter) -> str:
    """How a weight begins."""
    sizes = [space.extent for space in parameter.array.spaces]
    shape = f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"
    match parameter.initial:
        case Normal(deviation):
            return f"torch.nn.Parameter(normal({shape}, {deviation!r}, random))"
        case Uniform(bound):
            return f"torch.nn.Parameter(uniform({shape}, {bound!r}, random))"
        case Constant(value):
            return f"torch.nn.Parameter(torch.full({shape}, {value!r}))"
        case Equidistant(first, last, inverse):
            text = f"torch.linspace({first!r}, {last!r}, {prod(sizes)})"
            return f"torch.nn.Parameter({'1 / ' if inverse else ''}{text})"
