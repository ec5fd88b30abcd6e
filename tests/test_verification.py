"""Certificates: accepted from the manifest alone, and rejected once anything in them is changed."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tensorgraph.basis import FAMILIES, derive
from tensorgraph.basis.verification import verify_basis
from tensorgraph.errors import PackageError

CASES = [
    ("flexible", 5, 3),
    ("flexible", "complete", 3),
    ("flexible", 5, 5),
    ("flexible", 7, 3),
    ("hiphop", 5, 3),
    ("hiphop", 2, 0),
    ("hiphop", 5, 5),
    ("independent", 5, 3),
    ("independent", 4, 4),
    ("connected", 5, 3),
    ("linear", 5, 3),
    ("linear", 4, 4),
    ("linear", 6, 4),
    *((family, 2, max_rank) for family in FAMILIES for max_rank in (1, 3)),
]


def claims(family: str, body_order: int | str, max_rank: int) -> dict[str, Any]:
    """The basis object as a reader of the manifest gets it."""
    return json.loads(json.dumps(derive(family, body_order, max_rank).to_json()))


def problems(basis: dict[str, Any]) -> list[str]:
    return [problem for check in verify_basis(basis) for problem in check.problems]


def rejected(basis: dict[str, Any]) -> bool:
    """By a failed check, or by one line that says why it is no basis."""
    try:
        return bool(problems(basis))
    except PackageError as error:
        return "\n" not in str(error)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_the_compiler_emits_is_accepted(case):
    assert problems(claims(*case)) == []


def remove_consistently(basis: dict[str, Any], name: str, known_by: str = "every graph tried") -> None:
    """As a careful forger would: the invariant and every mention of it are gone, and the ranks are lowered."""
    basis["invariants"] = [entry for entry in basis["invariants"] if entry["name"] != name]
    for row in basis["certificate"]["strata"]:
        minor = row["minor"]
        if name in minor["rows"]:
            position = minor["rows"].index(name)
            del minor["rows"][position], minor["columns"][position]
            row["rank"] -= 1
            row["known_by"] = known_by
    for dropped in basis["dropped"]:
        dropped["on"] = [other for other in dropped["on"] if other != name]


def largest_minor(basis: dict[str, Any]) -> dict[str, Any]:
    return max((row["minor"] for row in basis["certificate"]["strata"]), key=lambda minor: len(minor["rows"]))


def swap_columns(basis: dict[str, Any]) -> None:
    columns = largest_minor(basis)["columns"]
    columns[0], columns[1] = columns[1], columns[0]


def reverse_ranks(basis: dict[str, Any]) -> None:
    next(ranks for e in basis["invariants"] if (ranks := e["ranks"]) != ranks[::-1]).reverse()


def change(basis: dict[str, Any], path: list[Any], value: Any) -> None:
    for key in path[:-1]:
        basis = basis[key]
    assert basis[path[-1]] != value
    basis[path[-1]] = value


TAMPERING: dict[str, Callable[[dict[str, Any]], None]] = {
    "value of a minor": lambda b: change(largest_minor(b), ["value"], largest_minor(b)["value"] + 1),
    "columns of a minor": swap_columns,
    "a column twice": lambda b: change(largest_minor(b), ["columns", 0], largest_minor(b)["columns"][1]),
    "trial of a minor": lambda b: change(largest_minor(b), ["trial"], 2),
    "a point": lambda b: change(b, ["certificate", "points", "3", 0, 0], 1),
    "a prime": lambda b: change(b, ["certificate", "primes", 0], 16777141),
    "a rank": lambda b: change(b, ["certificate", "strata", 0, "rank"], 2),
    "a bound": lambda b: change(b, ["certificate", "strata", -1, "bound"], 99),
    "a stratum left out": lambda b: b["certificate"]["strata"].pop(),
    "an invariant left out": lambda b: b["invariants"].pop(),
    "an invariant left out consistently": lambda b: remove_consistently(b, b["invariants"][-1]["name"]),
    "the scalar left out": lambda b: b["invariants"].pop(0),
    "an invariant twice": lambda b: b["invariants"].append({**b["invariants"][1], "name": "vv_again"}),
    "a swapped graph": lambda b: swap(b, 4, 5),
    "a graph that is not canonical": reverse_ranks,
    "a smaller order": lambda b: change(b, ["body_order"], 4),
    "a column that does not exist": lambda b: change(largest_minor(b), ["columns", 0], 999),
    "a larger order": lambda b: (change(b, ["body_order"], 7), change(b, ["vertices"], 6)),
    "another family": lambda b: change(b, ["family"], "independent" if b["family"] != "independent" else "hiphop"),
}


def swap(basis: dict[str, Any], a: int, b: int) -> None:
    first, second = basis["invariants"][a], basis["invariants"][b]
    first["edges"], second["edges"] = second["edges"], first["edges"]
    first["ranks"], second["ranks"] = second["ranks"], first["ranks"]


@pytest.mark.parametrize("tamper", TAMPERING, ids=str)
@pytest.mark.parametrize("family", ["flexible", "hiphop", "independent", "linear"])
def test_tampering_is_noticed(family, tamper):
    if (family, tamper) == ("independent", "a larger order"):
        pytest.skip("five bodies reach the generic rank of any order, so that claim is true")
    basis = claims(family, 5, 3)
    changed = copy.deepcopy(basis)
    TAMPERING[tamper](changed)
    assert changed != basis
    assert rejected(changed)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("zero", {"on": []}),
        ("multiple", {"on": ["vv"], "factor": [1, 2]}),
        ("multiple", {"on": ["vv"], "factor": [0, 0]}),
        ("multiple", {"on": ["tt"], "factor": None}),
        ("dependent", {"on": ["vv"]}),
        ("dependent", {"on": ["vv", "tt", "tttt"]}),
    ],
)
def test_a_wrong_reason_is_noticed(kind, changes):
    basis = claims("flexible", 5, 3)
    assert basis["dropped"][0]["on"] == ["tt", "tttt"]
    basis["dropped"][0] |= {"kind": kind, **changes}
    assert any("as said" in problem for problem in problems(basis))


def test_a_kept_graph_cannot_be_dropped_too():
    basis = claims("flexible", 5, 3)
    basis["dropped"].append(
        {k: v for k, v in basis["invariants"][3].items() if k != "name"} | {"kind": "zero", "on": []}
    )
    assert any("dropped and kept" in problem for problem in problems(basis))


def test_a_published_set_without_its_pairs_is_not_excused_by_the_limit():
    basis = claims("hiphop", 5, 3)
    for entry in [e for e in basis["invariants"] if len(set(e["ranks"])) == 2]:
        remove_consistently(basis, entry["name"], known_by="limit of the family")
    assert problems(basis)


def test_another_set_does_not_pass_for_the_published_one():
    """More than the limit of a pair, or a support of three ranks, which no stratum of the family looks at."""
    basis = claims("flexible", 5, 3) | {"family": "hiphop"}
    basis["certificate"]["strata"] = [row for row in basis["certificate"]["strata"] if len(row["stratum"]) < 3]
    assert problems(basis)
    triple = claims("flexible", 4, 3) | {"family": "hiphop"}
    triple["certificate"]["strata"] = [row for row in triple["certificate"]["strata"] if len(row["stratum"]) < 3]
    assert any("no stratum" in problem for problem in problems(triple))


def test_a_proof_cannot_be_claimed_where_there_is_none():
    basis = claims("flexible", 5, 3)
    row = next(row for row in basis["certificate"]["strata"] if row["known_by"] == "every graph tried")
    row |= {"known_by": "degrees of freedom", "failure_probability": 0.0}
    assert any("known by" in problem for problem in problems(basis))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to the numbers and texts of a JSON document, of long lists only the first two."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for position, item in enumerate(value[:2]):
            yield from leaves(item, (*path, position))
    else:
        yield path


@pytest.mark.parametrize("wrong", [None, "x", -1, 1.5, True, 2**70, [], {}], ids=repr)
def test_any_leaf_of_a_wrong_kind_is_noticed_without_a_crash(wrong):
    original = claims("flexible", 5, 3)
    for path in leaves(original):
        changed = copy.deepcopy(original)
        place = changed
        for key in path[:-1]:
            place = place[key]
        if place[path[-1]] == wrong and type(place[path[-1]]) is type(wrong):
            continue
        place[path[-1]] = wrong
        assert rejected(changed), (path, wrong)


@pytest.mark.parametrize("broken", [{}, {"invariants": 3}, {"family": "flexible", "invariants": [{"name": "s"}]}])
def test_what_is_no_basis_is_refused(broken):
    with pytest.raises(PackageError, match="no basis that can be read"):
        verify_basis(broken)
