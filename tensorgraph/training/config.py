"""The config of a training: what `tensorgraph train CONFIG.yaml` may be told, validated.

Everything but the model and the training data has a default that works. Weights of the loss and the rate of learning
may change during a run; how far a run has got is its *fraction* of the steps, epochs or minutes that it may take.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from tensorgraph.spec.base import Allowed, SpecModel
from tensorgraph.spec.documents import json_schema, parse_document
from tensorgraph.spec.elements import ATOMIC_NUMBERS
from tensorgraph.spec.yaml_source import read_text

Files = tuple[str, ...]


def _refuse(wrong: str = "is something else") -> PydanticCustomError:
    return PydanticCustomError("config_value", wrong)  # the loader shows the value and what is allowed


def _path(value: object) -> str:
    """The path that is meant: `~` and `$NAME` stand for what they do in a shell. A variable must be set."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise _refuse()
    path = os.path.expanduser(os.path.expandvars(value))
    if "$" in path:
        raise PydanticCustomError("spec_value", f"is {value!r}, with a variable that is not set in the environment")
    return path


def _files(value: object) -> Files:
    if isinstance(value, str):
        return (_path(value),)
    if not isinstance(value, tuple | list) or not value:
        raise _refuse()
    return tuple(map(_path, value))


def _optional_files(value: object) -> Files | None:
    return None if value is None else _files(value)


def _validation(value: object) -> float | Files:
    if _is_number(value) and 0 <= value < 1:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    return _files(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _weight(value: object) -> tuple[float, float]:
    """A weight of the loss at the start and at the end of a run."""
    ends = value if isinstance(value, tuple | list) else (value, value)
    if len(ends) != 2 or not all(_is_number(end) and 0 <= end <= 1e12 for end in ends):
        raise _refuse()
    return float(ends[0]), float(ends[1])


def _seeds(value: object) -> tuple[int, ...]:
    seeds = value if isinstance(value, tuple | list) else (value,)
    if not seeds or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds):
        raise _refuse()
    if len(set(seeds)) < len(seeds):
        raise PydanticCustomError("spec_value", "holds a seed twice, which would train one member twice")
    return tuple(seeds)


def _atomic_energies(value: object) -> str | dict[str, float]:
    if isinstance(value, Mapping) and value and all(map(_is_number, value.values())):
        if unknown := [symbol for symbol in value if symbol not in ATOMIC_NUMBERS]:
            raise PydanticCustomError("spec_value", f"names {unknown[0]!r}, which is no chemical symbol")
        return {symbol: float(energy) for symbol, energy in value.items()}
    return _path(value)


def _ridges(value: object) -> tuple[float, ...]:
    ridges = value if isinstance(value, tuple | list) else (value,)
    if not ridges or not all(_is_number(ridge) and 0 <= ridge <= 1e12 for ridge in ridges):
        raise _refuse()
    return tuple(map(float, ridges))


def _threads(value: object) -> int | Literal["auto"]:
    if value == "auto" or (type(value) is int and 1 <= value <= 1024):
        return value
    raise _refuse()


def _betas(value: object) -> tuple[float, float]:
    if isinstance(value, tuple | list) and len(value) == 2 and all(_is_number(b) and 0 <= b < 1 for b in value):
        return float(value[0]), float(value[1])
    raise _refuse()


def _one_or_list(one: dict[str, Any], **limits: int) -> WithJsonSchema:
    """The JSON Schema of a value or of a list of such values."""
    return WithJsonSchema({"anyOf": [one, {"type": "array", "items": one, **({"minItems": 1} | limits)}]})


_TEXT = {"type": "string", "minLength": 1}
_POSITIVE = {"type": "number", "minimum": 0}
_FILES = _one_or_list(_TEXT)

Path_ = Annotated[str, PlainValidator(_path), WithJsonSchema(_TEXT)]
FileList = Annotated[Files, PlainValidator(_files), _FILES]
Weight = Annotated[
    tuple[float, float],
    PlainValidator(_weight),
    _one_or_list(_POSITIVE, minItems=2, maxItems=2),
    Allowed("a number ≥ 0, or two: [first, last]"),
]
Key = Annotated[str | None, Allowed("the name of a label in the files"), Field(min_length=1, max_length=200)]
Count = Annotated[int | None, Allowed("an integer ≥ 1"), Field(ge=1, le=2**53)]


class DataConfig(SpecModel):
    """Labelled structures: files of any format that ASE reads."""

    train: Annotated[FileList, Allowed("a file that ASE reads, or a list of files")]
    valid: Annotated[
        float | Files,
        PlainValidator(_validation),
        WithJsonSchema({"anyOf": [_POSITIVE | {"exclusiveMaximum": 1}, *_FILES.json_schema["anyOf"]]}),
        Allowed("a fraction of the training structures (0 ≤ fraction < 1), a file, or a list of files"),
    ] = 0.05
    test: Annotated[
        Files | None,
        PlainValidator(_optional_files),
        _FILES,
        Allowed("a file that ASE reads, or a list of files"),
    ] = None
    energy_key: Key = None
    forces_key: Key = None
    stress_key: Key = None
    virial_key: Key = None
    group_key: Key = None
    memory: Annotated[
        float,
        Allowed("the gigabytes of structures and pairs that are kept in memory, above 0; more are kept on disk"),
        Field(gt=0, le=1e6),
    ] = 4.0

    @property
    def keys(self) -> dict[str, str | None]:
        """The keys of labels that were named."""
        names = ("energy", "forces", "stress", "virial")
        return {name: getattr(self, f"{name}_key") for name in names}

    @field_validator("virial_key")
    @classmethod
    def _one_of_two(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("stress_key") is not None:
            raise PydanticCustomError("spec_value", "names the same label as stress_key")
        return value


class BatchConfig(SpecModel):
    """What one step sees: as many structures as fit into all limits that are given, at least one.

    Without any limit: 400 atoms.
    """

    structures: Count = None
    atoms: Count = None
    pairs: Count = None


class LossConfig(SpecModel):
    """Weights of the mean squared errors: of energies per atom (eV²), of the components of forces (eV²/Å²) and of
    stresses (eV²/Å⁶). `hierarchicality` weighs HIP-NN's penalty, its mean over atoms.

    Forces come first, as there are hundreds for each energy: where energies weigh most from the start, the few of a
    batch make the gradient noisy, and forces stay wrong.
    """

    energy: Weight = (1.0, 100.0)
    forces: Weight = (1.0, 1.0)
    stress: Weight = (100.0, 100.0)
    hierarchicality: Weight = (0.0, 0.0)


class StartConfig(SpecModel):
    """What a new network starts from. With `scaled` its weights are scaled to the data (`training.scaling`): the
    invariants of n vertices start with a standard deviation of `factor` to the power of n − 1, and radial functions are
    smooth over `smoothness` neighbouring sensitivities.
    """

    scaled: Annotated[bool, Allowed("true or false")] = True
    factor: Annotated[float, Allowed("a number above 0 and at most 10"), Field(gt=0, le=10)] = 0.3
    smoothness: Annotated[float, Allowed("a number of sensitivities, from 0 to 100"), Field(ge=0, le=100)] = 1.5


class OptimizerConfig(SpecModel):
    """The optimiser, its rate, and what is done to gradients and weights."""

    kind: Annotated[Literal["soap", "adamw"], Allowed("soap or adamw")] = "soap"
    rate: Annotated[float, Allowed("a number above 0 and at most 1"), Field(gt=0, le=1)] = 0.003
    last_rate: Annotated[
        float, Allowed("the rate at the end as a fraction of `rate`, from 0 to 1"), Field(ge=0, le=1)
    ] = 0.01
    warmup: Annotated[int, Allowed("a number of steps ≥ 0"), Field(ge=0, le=10**9)] = 100
    decay: Annotated[float, Allowed("a number from 0 to 100"), Field(ge=0, le=100)] = 0.01
    betas: Annotated[
        tuple[float, float],
        Allowed("two numbers from 0 to below 1"),
        PlainValidator(_betas),
        WithJsonSchema({"type": "array", "items": _POSITIVE | {"exclusiveMaximum": 1}, "minItems": 2, "maxItems": 2}),
    ] = (
        0.95,
        0.95,
    )
    renewal: Annotated[
        int, Allowed("the steps between two eigenbases of soap: an integer ≥ 1"), Field(ge=1, le=10**6)
    ] = 10
    clip: Annotated[float, Allowed("the largest norm of a gradient, a number above 0"), Field(gt=0)] = 10.0
    average: Annotated[
        float, Allowed("the decay of the moving average of the weights, from 0 (none) to below 1"), Field(ge=0, lt=1)
    ] = 0.99


class ValidationConfig(SpecModel):
    """How often the validation part is looked at, and when a run ends early."""

    times: Annotated[int, Allowed("how many times a run: an integer from 1 to 100000"), Field(ge=1, le=10**5)] = 100
    patience: Annotated[
        int | None, Allowed("the validations without improvement after which a run ends: an integer ≥ 1"), Field(ge=1)
    ] = None
    energy: Annotated[float, Allowed("a number ≥ 0"), Field(ge=0)] = 1000.0
    forces: Annotated[float, Allowed("a number ≥ 0"), Field(ge=0)] = 1.0
    stress: Annotated[float, Allowed("a number ≥ 0"), Field(ge=0)] = 0.0


class LogConfig(SpecModel):
    """What is written while a run goes on."""

    seconds: Annotated[float, Allowed("the seconds between two lines, above 0"), Field(gt=0, le=1e9)] = 10.0
    tensorboard: Annotated[bool, Allowed("true or false")] = False
    save_seconds: Annotated[
        float, Allowed("the seconds between two states for --resume, ≥ 0 (0: every step)"), Field(ge=0, le=1e9)
    ] = 60.0


class TrainConfig(SpecModel):
    """One training. `load_config` raises SpecError with the line of the first mistake."""

    model: Annotated[
        Path_,
        Allowed("a spec (.yaml), the folder of a generated package, or a checkpoint (.safetensors) to go on from"),
    ]
    data: Annotated[DataConfig, Allowed("a mapping with the key train and optionally valid, test, energy_key, …")]
    method: Annotated[Literal["gradient", "least_squares"], Allowed("gradient or least_squares")] = "gradient"
    seed: Annotated[
        tuple[int, ...],
        PlainValidator(_seeds),
        _one_or_list({"type": "integer", "minimum": 0, "maximum": 2**32 - 1}),
        Allowed("an integer from 0 to 4294967295, or a list of different ones, which trains a committee"),
    ] = (0,)
    out: Annotated[Path_, Allowed("the folder to write to")] = "run"
    minutes: Annotated[float | None, Allowed("a number above 0"), Field(gt=0, le=1e7)] = None
    epochs: Count = None
    steps: Count = None
    dtype: Annotated[Literal["float32", "float64"], Allowed("float32 or float64")] = "float32"
    device: Annotated[str, Allowed("auto, cpu, cuda or cuda:N"), Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$")] = (
        "auto"
    )
    threads: Annotated[
        int | Literal["auto"],
        PlainValidator(_threads),
        WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 1024}]}),
        Allowed("auto, or the number of threads on a CPU, an integer from 1 to 1024"),
    ] = "auto"
    batch: Annotated[BatchConfig, Allowed("a mapping with some of the keys structures, atoms, pairs")] = BatchConfig()
    loss: Annotated[LossConfig, Allowed("a mapping with some of the keys energy, forces, stress, hierarchicality")] = (
        LossConfig()
    )
    optimizer: Annotated[
        OptimizerConfig,
        Allowed("a mapping with some of the keys kind, rate, last_rate, warmup, decay, betas, renewal, clip, average"),
    ] = OptimizerConfig()
    start: Annotated[StartConfig, Allowed("a mapping with some of the keys scaled, factor, smoothness")] = StartConfig()
    validation: Annotated[
        ValidationConfig, Allowed("a mapping with some of the keys times, patience, energy, forces, stress")
    ] = ValidationConfig()
    atomic_energies: Annotated[
        str | dict[str, float],
        PlainValidator(_atomic_energies),
        WithJsonSchema({"anyOf": [_TEXT, {"type": "object", "additionalProperties": {"type": "number"}}]}),
        Allowed("least_squares, model (those of a checkpoint), a file of isolated atoms, or energies in eV by symbol"),
    ] = "least_squares"
    freeze: Annotated[
        tuple[str, ...], Allowed("a list of names of parameters, with * for any text, such as [blocks.0.*]")
    ] = ()
    ridge: Annotated[
        tuple[float, ...],
        PlainValidator(_ridges),
        _one_or_list(_POSITIVE),
        Allowed("strengths of the penalty in least squares, numbers ≥ 0, relative to the mean diagonal"),
    ] = tuple(10.0**power for power in range(-14, 1))
    log: Annotated[LogConfig, Allowed("a mapping with some of the keys seconds, tensorboard, save_seconds")] = (
        LogConfig()
    )

    def canonical_json(self) -> str:
        """The config with its defaults filled in, as compact JSON with sorted keys."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def member_folders(self) -> dict[int, Path]:
        """Where each seed's run is written: `out` itself for a single one, else a folder in it."""
        out = Path(self.out)
        return {seed: out if len(self.seed) == 1 else out / f"seed-{seed}" for seed in self.seed}


def config_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a config of `tensorgraph train`, for editors."""
    return json_schema(TrainConfig, "A training with tensorgraph")


def load_config(path: str | os.PathLike[str]) -> TrainConfig:
    """The config in the YAML file at `path`. Raises SpecError: the file and the line of the first mistake."""
    file = os.fspath(path)
    return parse_config(read_text(Path(file), file), file)


def parse_config(text: str, file: str = "<string>") -> TrainConfig:
    """The config that the YAML `text` holds. Raises SpecError: `file` and the line of the first mistake."""
    return parse_document(TrainConfig, text, file)
