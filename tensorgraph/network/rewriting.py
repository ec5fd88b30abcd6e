"""Rewriting of contractions: factors that are contracted first get a statement of their own."""

from __future__ import annotations

from collections.abc import Iterable

from tensorgraph.network.arrays import RUNNING, Array, Factor, Space, Term
from tensorgraph.network.statements import Contract


def contracted_first(statement: Contract, names: Iterable[str], result: str) -> tuple[Contract, Contract]:
    """Two statements for one: the product of the named factors, as the array ``result``, and what is left to do.

    The axes of the result are those of the factors, in the order in which they are named.

    Factors that belong to atoms alone are contracted for each atom, and the result is read where they were: through the
    neighbour, if they all are read through it. Those among pairs are summed to what the statement sums them to.

    Raises:
        ValueError: the statement has several terms, or the factors are read both through pairs and through atoms.
    """
    (term,) = statement.terms
    wanted, by_name = list(names), {factor.array.name: factor for factor in term.factors}
    inside = tuple(by_name[name] for name in wanted if name in by_name)
    outside = tuple(factor for factor in term.factors if factor.array.name not in wanted)
    if len(inside) != len(wanted) or not outside:
        raise ValueError(f"{', '.join(wanted)} are not some of the factors of {statement}")
    product = Term(inside)
    needed = set(statement.result.letters).union(*(factor.letters for factor in outside))
    over_pairs = "p" in product.letters
    if over_pairs and any("p" in factor.letters for factor in outside):
        raise ValueError(f"{', '.join(wanted)} and the others are both sums over pairs in {statement}")
    kept = [letter for letter in product.letters if letter in needed or letter in RUNNING]
    if over_pairs:  # summed to what the statement sums them to
        kept = [x for x in statement.result.letters if x in RUNNING] + [x for x in kept if x not in RUNNING]
    kept.sort(key=lambda letter: letter not in RUNNING)
    spaces = _spaces(product, statement.result)
    read = "".join(kept)
    made = read if over_pairs else read.replace("j", "i")  # for every atom, whoever's neighbour it is
    first = _renamed(product, "j", "i") if not over_pairs else product
    array = Array(result, tuple(spaces[letter] for letter in read))
    rest = Term((*outside, array[read]), term.coefficient)
    return Contract(array[made], (first,)), Contract(statement.result, (rest,))


def _spaces(term: Term, result: Factor) -> dict[str, Space]:
    return {
        letter: space
        for factor in (*term.factors, result)
        for letter, space in zip(factor.letters, factor.array.spaces, strict=True)
    }


def _renamed(term: Term, old: str, new: str) -> Term:
    return Term(tuple(factor.array[factor.letters.replace(old, new)] for factor in term.factors), term.coefficient)
