"""Contractions as PyTorch expressions: micro-kernels over pairs, products of matrices, linear layers, einsums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorgraph.network import Array, Contract, Factor, Layer, Term
from tensorgraph.network.arrays import RUNNING

SPECIES = "species"
"""The name of the index space of one-hot features: the sums over neighbours of each species are moments."""


@dataclass(frozen=True, eq=False)
class Expressions:
    """What arrays and contractions are written as in the class of a layer."""

    layer: Layer

    def name(self, array: Array) -> str:
        """How an array is written: weights are attributes."""
        if any(parameter.array == array for parameter in self.layer.parameters):
            return f"self.{python_path(array.name)}"
        if any(fixed.array == array for fixed in self.layer.fixed):
            return f"self.{array.name}.values"
        return array.name

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
        result_axes = statement.result.letters
        if parts and len(result_axes) == 2:
            return f"torch.addmm({' + '.join(parts)}, {left}, {right})"
        return " + ".join([*parts, f"({left} @ {right}){shape}" if shape else f"{left} @ {right}"])

    def linear(self, parameters: Sequence[Factor], result: Factor) -> str:
        """A linear layer of a feature: the product of its weight, to which its bias is added."""
        weight, feature = parameters
        module = weight.array.name.removesuffix(".weight")
        text = f"self.{python_path(module)}({self.name(feature.array)})"
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
        return (
            self.summed(term, result)
            or self.over_pairs(term, result)
            or self.broadcast(term, result)
            or self.einsum(term, result)
        )

    def broadcast(self, term: Term, result: Factor) -> str:
        """An array that is the same along axes of the result; empty where it is no such array."""
        (factor, *others), letters = term.factors, [x for x in result.letters if x in term.factors[0].letters]
        if others or term.coefficient != 1 or "".join(letters) != factor.letters or len(letters) == len(result.letters):
            return ""
        axes = result.letters[result.letters.index(letters[0]) :]
        return f"{self.name(factor.array)}[{', '.join(':' if x in letters else 'None' for x in axes)}]"

    def summed(self, term: Term, result: Factor) -> str:
        """An array without one of its axes, which has a single element; empty where more is to do."""
        factor = term.factors[0]
        singles = [k for k, space in enumerate(factor.array.spaces) if space.size == 1]
        if len(term.factors) > 1 or term.coefficient != 1 or len(singles) != 1:
            return ""
        left = factor.letters[: singles[0]] + factor.letters[singles[0] + 1 :]
        return f"{self.name(factor.array)}.squeeze({singles[0]})" if left == result.letters else ""

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


def _linears(layer: Layer, terms: list[Term]) -> Iterator[tuple[Factor, Factor]]:
    """Weight and feature of the linear layers among the terms, which lose those and their biases."""
    by_name = {parameter.name: parameter for parameter in layer.parameters}
    for term in list(terms):
        weight = term.factors[0].array.name
        plain = len(term.factors) == 2 and term.coefficient == 1
        if not plain or not weight.endswith(".weight") or weight not in by_name:
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


def python_path(path: str) -> str:
    """A path as attributes and indices: ``blocks.0.layer`` is ``blocks[0].layer``."""
    first, *others = path.split(".")
    return first + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in others)
