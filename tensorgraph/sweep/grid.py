"""Combinations of the values of a grid, each validated, named and given a folder."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorgraph.errors import SpecError
from tensorgraph.spec import Spec
from tensorgraph.spec.documents import dotted_keys, suggestion, validated
from tensorgraph.spec.yaml_source import Keys, Located
from tensorgraph.training.config import TrainConfig

KINDS: dict[str, type[Spec] | type[TrainConfig]] = {"spec": Spec, "train": TrainConfig}
OF_THE_SWEEP = ("spec.name", "train.model", "train.out")
"""Keys that no grid varies: they follow from the other values."""
SPEC_FILE = "spec.yaml"
_LONGEST_NAME = 64  # of a package
_LONGEST_FOLDER = 120


@dataclass(frozen=True)
class Value:
    """A value of the grid, and the lines of the sweep's file on which it and its parts are given."""

    key: str
    value: Any
    lines: Mapping[Keys, int]

    @property
    def text(self) -> str:
        """As a table shows it."""
        return self.value if isinstance(self.value, str) else json.dumps(self.value, separators=(",", ":"))


@dataclass(frozen=True)
class Combination:
    """One value of each axis, and what they make: a spec, the config that trains it, and its folder."""

    values: tuple[Value, ...]
    spec: Spec
    config: TrainConfig
    folder: Path

    @property
    def described(self) -> str:
        """Its values in words: `features 8, family hiphop`."""
        labels = short_keys([value.key for value in self.values])
        return ", ".join(f"{labels[value.key]} {value.text}" for value in self.values)


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """The last words of dotted keys, as many of them as keep all keys apart."""
    found = {}
    for key in keys:
        words = key.split(".")
        ends = (".".join(words[-n:]) for n in range(1, len(words) + 1))
        found[key] = next(end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1)
    return found


def combinations(parts: Mapping[str, Located], source: Located, out: Path, file: str) -> tuple[Combination, ...]:
    """All combinations of the values that `grid` in the source lists, the last axis fastest.

    Raises SpecError for an axis that is no key of a spec or config, an axis without values or with one twice, and a
    combination that is no valid spec or config; the line is that of the grid's value where it is at fault.
    """
    axes = [_axis(key, source, file) for key in source.value["grid"]]
    _refuse_nested(axes, source, file)
    chosen = list(itertools.product(*axes))
    specs = [_validated(parts["spec"], values, "spec", file) for values in chosen]
    names = _names(specs, chosen)
    found, folders = [], set[str]()
    for values, spec in zip(chosen, specs, strict=True):
        assert isinstance(spec, Spec)
        if spec.network is None:
            raise SpecError(file, source.line(("spec",)), "`spec` has no network, and so nothing to train; "
                            "allowed: a spec with the key network")  # fmt: skip
        folder = _folder_name(values)
        assert folder not in folders, folder
        folders.add(folder)
        named = spec.model_copy(update={"name": names[spec.canonical_json()]})
        place = out / folder
        config = _validated(_with_paths(parts["train"], place), values, "train", file)
        assert isinstance(config, TrainConfig)
        found.append(Combination(values, named, config, place))
    return tuple(found)


def _axis(key: str, source: Located, file: str) -> list[Value]:
    """The values of an axis, all different."""
    line, given = source.line(("grid", key)), source.value["grid"][key]
    known = [f"{part}.{inner}" for part, kind in KINDS.items() for inner in dotted_keys(kind)]
    if key not in known or key in OF_THE_SWEEP:
        what = "is made by the sweep" if key in OF_THE_SWEEP else f"is no key of spec or train{suggestion(key, known)}"
        raise SpecError(file, line, f"`grid`: {key!r} {what}; allowed: keys such as spec.network.features, "
                        "train.optimizer.rate")  # fmt: skip
    if not isinstance(given, tuple) or not given:
        raise SpecError(file, line, f"`grid`: {key} is no list of values; allowed: one such as [{_shown(given)}]")
    values: list[Value] = []
    for index, value in enumerate(given):
        at: Keys = ("grid", key, index)
        lines = {keys[3:]: where for keys, where in source.lines.items() if keys[:3] == at}
        if any(value == earlier.value and type(value) is type(earlier.value) for earlier in values):
            raise SpecError(file, lines[()], f"`grid`: {key} holds {_shown(value)} twice; allowed: each value once")
        values.append(Value(key, value, lines))
    return values


def _refuse_nested(axes: Sequence[list[Value]], source: Located, file: str) -> None:
    """An axis within another one would overwrite it or be overwritten."""
    keys = [axis[0].key for axis in axes]
    for outer, inner in itertools.permutations(keys, 2):
        if inner.startswith(f"{outer}."):
            line = source.line(("grid", inner))
            raise SpecError(file, line, f"`grid`: {inner} is part of {outer}, which varies too; allowed: one of them")


def _validated(part: Located, values: Sequence[Value], name: str, file: str) -> Spec | TrainConfig:
    """The spec or config with the values of the grid in their places."""
    mine = [value for value in values if value.key.startswith(f"{name}.")]
    source = part
    for value in mine:
        source = _placed(source, tuple(value.key.split(".")[1:]), value)
    try:
        return validated(KINDS[name], source, file, f"{name}.")
    except SpecError as error:
        if error.line in {line for value in mine for line in value.lines.values()} or not mine:
            raise
        try:  # whose fault is it: that of the part alone, or of the values together?
            validated(KINDS[name], part, file, f"{name}.")
        except SpecError as alone:
            if alone.message == error.message:
                raise error from None
        told = ", ".join(f"{value.key}: {_shown(value.value)} (line {value.lines[()]})" for value in mine)
        raise SpecError(file, mine[0].lines[()], f"with {told}: {error.message}") from None


def _placed(source: Located, keys: Keys, value: Value) -> Located:
    """A copy with another value at `keys`, found on the lines of the grid."""

    def put(inner: Any, rest: Keys) -> Any:
        if not rest:
            return value.value
        held = inner if isinstance(inner, Mapping) else {}
        return {**held, rest[0]: put(held.get(str(rest[0])), rest[1:])}

    kept = {at: line for at, line in source.lines.items() if at[: len(keys)] != keys}
    return Located(put(source.value, keys), kept | {(*keys, *at): line for at, line in value.lines.items()})


def _with_paths(part: Located, folder: Path) -> Located:
    return Located({**part.value, "model": str(folder / SPEC_FILE), "out": str(folder)}, part.lines)


def _names(specs: Sequence[Any], chosen: Sequence[tuple[Value, ...]]) -> dict[str, str]:
    """A name for each different spec, from the values that make it: the same ones when the grid grows.

    What is varied in the training alone leaves the spec and its name as they are.
    """
    names: dict[str, str] = {}
    for spec, values in zip(specs, chosen, strict=True):
        varied = [value for value in values if value.key.startswith("spec.")]
        labels = short_keys([value.key for value in values])
        words = [re.sub(r"[^a-z0-9]+", "_", f"{labels[v.key]}_{v.text}".lower()).strip("_") for v in varied]
        name = "_".join([spec.name, *words])
        if len(name) > _LONGEST_NAME or name in names.values():
            name = f"{spec.name[:40]}_{spec.digest[:16]}"
        names.setdefault(spec.canonical_json(), name)
    return names


def _folder_name(values: Sequence[Value]) -> str:
    """Readable, and the same when the grid grows: finished combinations are found again."""
    labels = short_keys([value.key for value in values])
    plain = "_".join(f"{labels[value.key]}-{value.text}" for value in values)
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", plain).strip("-")
    if len(name) <= _LONGEST_FOLDER and name == plain:
        return name
    exact = json.dumps([[value.key, value.value] for value in values])
    return f"{name[:80]}-{hashlib.sha256(exact.encode()).hexdigest()[:12]}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
