"""The interaction layer as one contraction, and what a contraction of two of its operands costs.

    E[i,m,a] = Σ_p T[p,m] S[p,n] V[n,a,b] z[j(p),b]

over the pairs p of a central atom i and its neighbours j: tensors T, sensitivities S, weights V, features z (Allen,
Shinkle, Bujack and Lubbers, arXiv:2503.23515). Pairs are a sparse index: an operand has its elements per pair, per
atom, or neither. What is per neighbour j meets what is per pair by a gather; pairs are summed to their central atoms as
soon as T, S and z have met. Features that are a species are one number out of many: as long as such an operand is per
neighbour or per pair, its index b is known and takes no memory.

In scope: products of two operands at a time. Not in scope: sums of layers, operands that share no term.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

FACTORS = {"T": "m", "S": "n", "V": "nab", "z": "b"}
"""Indices of each factor besides pairs and atoms."""

_OUTPUT = "ma"
_PER_PAIR = {"T", "S"}
_BOUND_TO_PAIRS = {"T", "S", "z"}


@dataclass(frozen=True)
class LayerTerm:
    """Sizes of a layer: `species` says that the features are a species out of `b`, one number of which is one."""

    atoms: int
    neighbours: int
    components: int
    functions: int
    channels: int
    features: int
    species: bool

    @property
    def pairs(self) -> int:
        """Both directions counted."""
        return self.atoms * self.neighbours

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The extent of each index."""
        return {"m": self.components, "n": self.functions, "a": self.channels, "b": self.features}


@dataclass(frozen=True)
class Operand:
    """A factor, or what some of them gave when contracted."""

    factors: frozenset[str]

    @property
    def per_pair(self) -> bool:
        """Whether it has elements for each pair: T or S is in it, and not everything that the pairs are summed over."""
        return bool(self.factors & _PER_PAIR) and not self.factors >= _BOUND_TO_PAIRS

    def rows(self, term: LayerTerm) -> int:
        """Pairs, atoms, or one."""
        return term.pairs if self.per_pair else term.atoms if self.factors & _BOUND_TO_PAIRS else 1

    @property
    def indices(self) -> str:
        """Those besides pairs and atoms: which other factors, or the result, still need."""
        inside, outside = (
            "".join(FACTORS[f] for f in FACTORS if (f in self.factors) is within) for within in (True, False)
        )
        return "".join(index for index in "mnab" if index in inside and index in outside + _OUTPUT)

    def knows_species(self, term: LayerTerm) -> bool:
        """Whether its index b is known for each of its rows, which belong to one neighbour."""
        return term.species and "z" in self.factors and not self.factors >= _BOUND_TO_PAIRS

    def extent(self, term: LayerTerm) -> int:
        """Numbers in it that are not known to be zero."""
        return self.rows(term) * prod(term.sizes[index] for index in self._free(term))

    def _free(self, term: LayerTerm) -> str:
        return self.indices.replace("b", "") if self.knows_species(term) else self.indices

    def __str__(self) -> str:
        row = "p" if self.per_pair else "i" if self.factors >= _BOUND_TO_PAIRS else "j" if "z" in self.factors else ""
        return f"[{row}{self.indices}]"

    def needs_gradient(self, term: LayerTerm) -> bool:
        """Whether forces need the derivative by it: weights, species and tensors of rank 0 are constant."""
        constant = {"V"} | ({"z"} if term.species else set()) | ({"T"} if term.components == 1 else set())
        return bool(self.factors - constant)


@dataclass(frozen=True)
class Step:
    """The contraction of two operands."""

    left: Operand
    right: Operand

    @property
    def result(self) -> Operand:
        """What it gives."""
        return Operand(self.left.factors | self.right.factors)


def operations(left: Operand, right: Operand, result: Operand, term: LayerTerm) -> int:
    """Multiplications and additions of a product, in either direction; choosing by species is neither."""
    operands = (left, right, result)
    indices = {index for operand in operands for index in operand.indices}
    if any(operand.knows_species(term) for operand in operands):
        indices.discard("b")
    rows = [operand.rows(term) for operand in operands]
    multiplied = not (term.species and _FEATURES in (left, right))
    summed = indices - set(result.indices) or rows[2] < max(rows)
    return max(rows) * prod(term.sizes[index] for index in sorted(indices)) * (multiplied + bool(summed))


_FEATURES = Operand(frozenset("z"))


def trees(operands: tuple[Operand, ...]) -> Iterator[tuple[Step, ...]]:
    """Every order in which the operands can be contracted pairwise, each once, as its steps in sequence."""
    if len(operands) == 1:
        yield ()
        return
    first, *rest = operands
    for chosen in range(2 ** len(rest) - 1):
        with_first = (first, *(o for k, o in enumerate(rest) if chosen >> k & 1))
        others = tuple(o for k, o in enumerate(rest) if not chosen >> k & 1)
        for left in trees(with_first):
            for right in trees(others):
                yield (*left, *right, Step(_union(with_first), _union(others)))


def _union(operands: tuple[Operand, ...]) -> Operand:
    return Operand(frozenset().union(*(operand.factors for operand in operands)))
