"""The config of a sweep: a spec, a training and a grid over values of both, validated before anything is trained.

Every combination of the grid is validated as a spec and as a config of `tensorgraph train`, with the lines of the
file that the sweep was read from: a value of the grid that makes either invalid is reported on its own line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

from tensorgraph.errors import SpecError
from tensorgraph.spec import Spec
from tensorgraph.spec.base import Allowed, SpecModel
from tensorgraph.spec.documents import required_keys, validated
from tensorgraph.spec.yaml_source import Located, parse_yaml, read_text
from tensorgraph.sweep.grid import Combination, combinations
from tensorgraph.training.config import Path_


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping) and value:
        return value
    raise PydanticCustomError("config_value", "is something else")  # the loader shows the value


def _mapping_or_file(value: object) -> Mapping[str, Any] | str:
    if isinstance(value, str) and value:
        return value
    return _mapping(value)


class TimeConfig(SpecModel):
    """How the time per atom and step is measured: of `repeats` rounds the median."""

    atoms: Annotated[int, Allowed("an integer from 1 to 1000000"), Field(ge=1, le=10**6)] = 1000
    repeats: Annotated[int, Allowed("an integer from 1 to 1000"), Field(ge=1, le=1000)] = 15
    dtype: Annotated[Literal["float32", "float64"], Allowed("float32 or float64")] = "float32"
    device: Annotated[str, Allowed("auto, cpu, cuda or cuda:N"), Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$")] = (
        "auto"
    )


class _Document(SpecModel):
    """What a file holds; spec, train and grid are validated together afterwards."""

    spec: Annotated[
        Mapping[str, Any] | str,
        PlainValidator(_mapping_or_file),
        Allowed("a mapping with the keys name, basis and network, or the path of a spec (.yaml)"),
    ]
    train: Annotated[
        Mapping[str, Any],
        PlainValidator(_mapping),
        Allowed("a mapping with the key data, and what else `tensorgraph train` takes but model and out"),
    ]
    grid: Annotated[
        Mapping[str, Any],
        PlainValidator(_mapping),
        Allowed("a mapping of keys such as spec.network.features or train.optimizer.rate to lists of values"),
    ]
    out: Annotated[Path_, Allowed("the folder to write to")] = "sweep"
    time: Annotated[TimeConfig, Allowed("a mapping with some of the keys atoms, repeats, dtype, device")] = TimeConfig()


@dataclass(frozen=True)
class SweepConfig:
    """A sweep: its combinations, all of them valid, in the order of the grid with the last axis fastest.

    `axes` are the dotted keys of the grid.
    """

    file: str
    axes: tuple[str, ...]
    combinations: tuple[Combination, ...]
    out: Path
    time: TimeConfig


def load_sweep(path: str | os.PathLike[str]) -> SweepConfig:
    """The sweep in the YAML file at `path`. Raises SpecError: the file and the line of the first mistake."""
    file = os.fspath(path)
    return parse_sweep(read_text(Path(file), file), file)


def parse_sweep(text: str, file: str = "<string>") -> SweepConfig:
    """The sweep that the YAML `text` holds. Raises SpecError: `file` and the line of the first mistake."""
    source = parse_yaml(text, file, required_keys(_Document))
    document = validated(_Document, source, file)
    _refuse_what_the_sweep_sets(source, file)
    parts = {"spec": _spec_part(source, file), "train": _part(source, "train")}
    found = combinations(parts, source, Path(document.out), file)
    return SweepConfig(file, tuple(document.grid), found, Path(document.out), document.time)


def _refuse_what_the_sweep_sets(source: Located, file: str) -> None:
    for key in ("model", "out"):
        if key in source.value["train"]:
            line = source.line(("train", key))
            raise SpecError(file, line, f"`train.{key}` is set by the sweep; allowed: spec and out beside train")


def _spec_part(source: Located, file: str) -> Located:
    """The spec with its lines; of one in a file of its own, which must be valid, all on the line that names it."""
    given = source.value["spec"]
    if not isinstance(given, str):
        return _part(source, "spec")
    try:
        read = parse_yaml(read_text(Path(given), given), given, required_keys(Spec))
    except SpecError as error:
        if Path(given).is_file():
            raise
        raise SpecError(file, source.line(("spec",)), f"`spec` is {given!r}: {error.message}") from None
    validated(Spec, read, given)
    return Located(read.value, {(): source.line(("spec",))})


def _part(source: Located, key: str) -> Located:
    lines = {keys[1:]: line for keys, line in source.lines.items() if keys[:1] == (key,)}
    return Located(source.value[key], lines)
